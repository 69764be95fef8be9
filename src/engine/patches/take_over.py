"""A conversation is held once: a request takes over the entry that it extends. Part of what starts the engine, see `bootstrap.py`."""

import logging
import sys

# By how many tokens of an entry's prompt a request may differ and still be its next turn: what some templates end a prompt with and do not
# repeat once the reply is history.
SAME_CONVERSATION = 64

# What an error says after which nothing more is computed to save a conversation: the memory for it is what was missing.
OUT_OF_MEMORY = ("memory", "malloc", "command buffer", "resource limit")

entries_log = logging.getLogger("vllm_mlx.scheduler")


def take_over_entries():
    """Moves an entry of the prefix cache into the request that goes on from it, and back when the request ends.

    vllm-mlx 0.6.0 copies an entry into the batch, keeps it beside the running request, and copies the result into the next entry: a conversation
    is held twice in every turn. Here a request that goes on from an entry takes its layers, and the entry is gone until the turn ends, also if it is
    cancelled or fails: then the entry is what was computed so far. A request that shares only the beginning of an entry leaves it whole if there is
    room for both. Where there is none, it takes what it shares, and the log says how many tokens that costs. A repeated prompt computes one token.
    A layer with a sliding window or a recurrent state cannot be cut back. Of such layers alone there are snapshots (`snapshots.py`), and a request
    begins at the last one that it shares; the other layers are cut back to it.
    Only for one sequence at a time. An engine whose insides are not as expected is left alone.
    """
    import importlib
    import inspect

    try:
        import mlx.core as mx
        from mlx_lm.models.cache import ArraysCache, BatchKVCache, BatchRotatingKVCache, KVCache, RotatingKVCache
        from vllm_mlx import memory_cache
        from vllm_mlx.scheduler import Scheduler

        generate = importlib.import_module("mlx_lm.generate")
    except ImportError as error:
        return not_applied("take-over", error)
    cache = getattr(memory_cache, "MemoryAwarePrefixCache", None)
    needed = (
        (memory_cache, "_CacheEntry"),
        (memory_cache, "_detach_cache_for_storage"),
        (memory_cache, "estimate_kv_cache_memory"),
        (cache, "fetch"),
        (cache, "remove"),
        (cache, "prepare_store"),
        (cache, "commit_prepared"),
        (Scheduler, "add_request"),
        (Scheduler, "_schedule_waiting"),
        (Scheduler, "_cleanup_finished"),
        (Scheduler, "_do_abort_request"),
        (Scheduler, "_recover_from_generation_error"),
        (Scheduler, "_prompt_output_entry_is_useless"),
        (generate, "_merge_caches"),
        (BatchKVCache, "filter"),
        (BatchKVCache, "extract"),
        (BatchRotatingKVCache, "extract"),
        (ArraysCache, "extract"),
    )
    if missing := [name for owner, name in needed if not hasattr(owner, name)]:
        return not_applied("take-over", f"{missing[0]} is missing")
    if set(vars(KVCache())) != {"keys", "values", "offset"}:
        return not_applied("take-over", "KVCache holds something else")
    if set(vars(BatchKVCache([0]))) != {"keys", "values", "left_padding", "offset", "_idx", "_right_padding"}:
        return not_applied("take-over", "BatchKVCache holds something else")
    if list(inspect.signature(cache.prepare_store).parameters)[:2] != ["self", "tokens"]:
        return not_applied("take-over", "another form of prepare_store")
    handover = Handover(mx, memory_cache, KVCache, BatchKVCache, (RotatingKVCache, ArraysCache))
    handover.watch_lookups(Scheduler, cache)
    handover.watch_batches(generate, BatchKVCache)
    handover.watch_ends(Scheduler, cache)
    applied("take-over")
    return handover


class Unknown:
    """In place of a layer that cannot be cut back to where it is needed."""


UNKNOWN = Unknown()


class Promised(list):
    """An entry that a waiting request is to begin with. It holds nothing, so a request that waits keeps no memory from the one that runs."""

    def __init__(self, key):
        super().__init__()
        self.key = key

    def __bool__(self):
        return True


class Marks:
    """Snapshots of the layers that cannot be cut back, by the number of tokens that they have seen. Other layers have None in their place."""

    def __init__(self, at=None, question=0, end=0):
        self.at = at or {}
        # Where the last question ends: a template may change what comes after it.
        self.question = question
        # Where the last request ended.
        self.end = end

    def add(self, length, layers, question):
        """Of those before, the one at the last question stays."""
        if question:
            self.question = length
        self.at = {place: kept for place, kept in self.at.items() if place == self.question}
        self.at[length] = layers

    def last(self, shared):
        return max((place for place in self.at if place <= shared), default=0)

    def up_to(self, length):
        return Marks({place: layers for place, layers in self.at.items() if place <= length}, self.question if self.question <= length else 0, self.end)

    def layers(self):
        return [layer for layers in self.at.values() for layer in layers if layer is not None]


class Handover:
    def __init__(self, mx, memory_cache, layer, batch_layer, fixed):
        self.mx, self.memory_cache = mx, memory_cache
        # Of layers that can be cut back, and those that cannot.
        self.layer, self.batch_layer, self.fixed = layer, batch_layer, fixed
        # The scheduler that looks something up.
        self.adding = None
        self.is_serving = False
        # The request whose conversation becomes an entry.
        self.ending = None

    def watch_lookups(self, scheduler, cache):
        add, schedule, fetch = scheduler.add_request, scheduler._schedule_waiting, cache.fetch

        def adding(scheduler, request):
            self.adding = scheduler
            try:
                return add(scheduler, request)
            finally:
                self.adding = None

        def fetching(memory, tokens):
            if self.adding is None or not self.serves(self.adding):
                return fetch(memory, tokens)
            key, shared = longest_beginning(memory, tokens)
            if key is None:
                if memory._entries:
                    memory._stats.misses += 1
                    memory._last_match_type, memory._last_matched_key = "miss", None
                    return None, tokens
                return fetch(memory, tokens)
            memory._stats.hits += 1
            memory._stats.tokens_saved += shared
            memory._entries.move_to_end(key)
            memory._last_match_type, memory._last_matched_key = "prefix" if shared == len(key) else "lcp", key
            return Promised(key), tokens[shared:]

        def scheduling(scheduler):
            self.is_serving = self.serves(scheduler)
            if scheduler.waiting and not scheduler.running and self.is_serving:
                self.begin(scheduler, scheduler.waiting[0])
            return schedule(scheduler)

        scheduler.add_request = adding
        scheduler._schedule_waiting = scheduling
        cache.fetch = fetching

    def watch_batches(self, generate, batch_layer):
        merge, select = generate._merge_caches, batch_layer.filter

        def merged(caches):
            if len(caches) != 1:
                return merge(caches)
            batch = []
            for layer in caches[0]:
                if type(layer) is self.layer and layer.keys is not None:
                    # The first tokens that are added make arrays of the batch's own.
                    batch.append(self.into_batch(layer))
                else:
                    batch += merge([[layer]])
            return batch

        def selected(layer, indices):
            # The engine copies a batch of one to choose the one.
            if len(indices) == 1 and int(indices[0]) == 0 and layer.offset.shape[0] == 1:
                return None
            return select(layer, indices)

        generate._merge_caches = merged
        batch_layer.filter = selected

    def watch_ends(self, scheduler, cache):
        prepare, cleanup = cache.prepare_store, scheduler._cleanup_finished
        abort, recover = scheduler._do_abort_request, scheduler._recover_from_generation_error
        useless = scheduler._prompt_output_entry_is_useless

        def is_useless(layers):
            return useless(layers) and not (self.is_serving and self.is_mixed(layers))

        def prepared(memory, tokens, layers, auxiliary=None):
            moves = getattr(memory, "cclocal_moves", False) and self.ending is not None and isinstance(layers, list) and not auxiliary
            moves = moves and (self.can_be_cut(layers) or (self.is_mixed(layers) and hasattr(self.ending, "cclocal_marks")))
            if not moves or len(tokens) < memory._config.min_prefix_tokens or tuple(tokens) in memory._entries:
                return prepare(memory, tokens, layers, auxiliary)
            return self.entry_of(memory, tokens, layers)

        def cleaned(scheduler, finished_ids):
            self.ending = next((scheduler.running.get(request_id) for request_id in finished_ids), None)
            try:
                return cleanup(scheduler, finished_ids)
            finally:
                self.forget(self.ending)

        def aborted(scheduler, request_id):
            self.give_back(scheduler, request_id, "cancelled")
            return abort(scheduler, request_id)

        def recovered(scheduler):
            said = str(sys.exc_info()[1] or "").lower()
            for request_id in list(scheduler.running):
                if any(word in said for word in OUT_OF_MEMORY):
                    self.give_up(scheduler, request_id)
                else:
                    self.give_back(scheduler, request_id, "failed")
            return recover(scheduler)

        scheduler._prompt_output_entry_is_useless = staticmethod(is_useless)
        cache.prepare_store = prepared
        scheduler._cleanup_finished = cleaned
        scheduler._do_abort_request = aborted
        scheduler._recover_from_generation_error = recovered

    def serves(self, scheduler):
        memory = scheduler.memory_aware_cache
        if memory is None or scheduler.config.max_num_seqs != 1 or getattr(scheduler, "_ssd_tier", None) is not None:
            return False
        return scheduler._bounded_kv_size() is None and all(
            hasattr(entry, "cclocal_marks") or self.can_be_cut(entry.cache) for entry in memory._entries.values()
        )

    def can_be_cut(self, layers):
        return bool(layers) and all(type(layer) is self.layer for layer in layers)

    def is_mixed(self, layers):
        """Whether all layers are known, and some of them can be cut back and some cannot."""
        kinds = {type(layer) for layer in layers or ()}
        return self.layer in kinds and len(kinds) > 1 and kinds <= {self.layer, Unknown, *self.fixed}

    def begin(self, scheduler, request):
        """Gives a request that is about to run what it begins with. What it was promised when it came may be gone by now, or there may be more."""
        request.cclocal_marks = Marks()
        if request.prompt_cache is not None and not isinstance(request.prompt_cache, Promised):
            return
        memory, tokens = scheduler.memory_aware_cache, request.prompt_token_ids
        request.prompt_cache, request.prompt_cache_key = None, None
        request.cached_tokens, request.remaining_tokens = 0, tokens
        try:
            key, shared = longest_beginning(memory, tokens)
            if key is None:
                return
            request.prompt_cache, request.cclocal_marks = self.take(memory, key, shared, tokens)
        except Exception as error:  # A turn that begins with nothing is only slower.
            entries_log.warning("[take_over] request=%s begins anew: %s: %s", request.request_id[:12], type(error).__name__, error)
            return
        request.cached_tokens, request.remaining_tokens = shared, tokens[shared:]
        request.cache_hit_type, request.prompt_cache_key = "prefix", list(key)

    def take(self, memory, key, shared, tokens):
        """The layers of an entry, cut to what is shared. The entry stays only if it is of another conversation and there is room for both."""
        entry = memory._entries[key]
        marks = getattr(entry, "cclocal_marks", None) or Marks()
        fixed = marks.at.get(shared, [None] * len(entry.cache))
        same = in_common(key, tuple(tokens))
        branches = getattr(entry, "cclocal_prompt", len(key)) - same > SAME_CONVERSATION and not 0 < marks.question <= shared
        if branches and self.has_room(memory, entry, len(key), shared, len(tokens)):
            # Nobody changes a snapshot: both may have it.
            return [layer or self.cut(stored, shared) for stored, layer in zip(entry.cache, fixed)], marks.up_to(shared)
        memory.remove(list(key))
        if branches:
            entries_log.warning(
                "[take_over] no room for two conversations: %d of %d tokens of the other one have to be computed again when it goes on",
                len(key) - shared,
                len(key),
            )
        layers = []
        for stored, layer in zip(entry.cache, fixed):
            layers.append(layer or self.cut(stored, shared))
            if stored is not None:
                stored.keys = stored.values = None
        entry.cache.clear()
        marks = marks.up_to(shared)
        if shared == marks.end != marks.question:
            # This one goes into the request.
            marks.at.pop(shared, None)
        return layers, marks

    def cut(self, stored, shared):
        """A layer of a request, with the first tokens of a stored one."""
        layer = self.layer()
        whole = stored.keys.shape[2] == shared
        layer.keys = stored.keys if whole else stored.keys[..., :shared, :]
        layer.values = stored.values if whole else stored.values[..., :shared, :]
        layer.offset = shared
        return layer

    def has_room(self, memory, entry, length, shared, wanted):
        """Whether an entry can stay beside a request that begins like it: now, and in the prefix cache when the request ends."""
        if entry.memory_bytes + entry.memory_bytes * wanted // length > memory._max_memory:
            return False
        soft = soft_limit(memory_limit())
        running = self.memory_cache.estimate_kv_cache_memory([self.cut(layer, shared) for layer in entry.cache if layer is not None])
        return soft <= 0 or self.mx.get_active_memory() + running * wanted // shared <= soft

    def into_batch(self, layer):
        batch = self.batch_layer([0])
        batch.keys, batch.values = layer.keys[..., : layer.offset, :], layer.values[..., : layer.offset, :]
        # What was cut is let go before the next layer is.
        layer.keys = layer.values = None
        self.mx.eval(batch.keys)
        self.mx.eval(batch.values)
        batch.offset += layer.offset
        batch._idx = layer.offset
        return batch

    def out_of_batch(self, batch, covered):
        layer = self.layer()
        layer.keys = self.mx.contiguous(batch.keys[..., :covered, :])
        layer.values = self.mx.contiguous(batch.values[..., :covered, :])
        layer.offset = covered
        batch.keys = batch.values = None
        return layer

    def entry_of(self, memory, tokens, layers):
        """An entry of layers that nobody else needs, which are used up, one after the other."""
        length = len(tokens)
        try:
            # Checked before anything is changed: an entry that is not what its tokens say would be worse than none.
            if any(layer.offset != length for layer in layers if hasattr(layer, "offset")):
                raise ValueError("the layers are not of this length")
            marks = self.marks_of(layers, length)
            arrays = [self.layer_of(layer.keys[..., :length, :], layer.values[..., :length, :], length) for layer in layers if type(layer) is self.layer]
            size = self.memory_cache.estimate_kv_cache_memory(arrays) + self.memory_cache.estimate_kv_cache_memory(marks.layers())
            del arrays
            if size > memory._max_memory:
                memory._stats.store_rejections += 1
                entries_log.warning("[take_over] an entry of %d bytes exceeds the limit of %d: not kept", size, memory._max_memory)
                return None
            made = []
            layers.reverse()
            while layers:
                layer = layers.pop()
                made.append(self.stored(layer, length) if type(layer) is self.layer else None)
                del layer
        except Exception as error:  # A turn without an entry is only slower.
            memory._stats.store_rejections += 1
            entries_log.warning("[take_over] not kept: %s: %s", type(error).__name__, error)
            return None
        for other in what_it_extends(memory, tuple(tokens)):
            memory.remove(list(other))
        entry = self.memory_cache._CacheEntry.create(tokens, made)
        entry.memory_bytes += self.memory_cache.estimate_kv_cache_memory(marks.layers())
        # How many of its tokens the next turn repeats whatever the reply becomes in it.
        entry.cclocal_prompt, entry.cclocal_marks = min(length, self.ending.num_prompt_tokens), marks
        return entry

    def marks_of(self, layers, length):
        """The snapshots of a request that ends, and what its layers that cannot be cut back are now."""
        marks = self.ending.cclocal_marks.up_to(length) if hasattr(self.ending, "cclocal_marks") else Marks()
        fixed = [None if type(layer) is self.layer else layer for layer in layers]
        if any(fixed):
            if length not in marks.at and not any(layer is UNKNOWN for layer in fixed):
                marks.at[length], marks.end = [self.snapshot(layer) for layer in fixed], length
            if not marks.at:
                raise ValueError("there is no snapshot")
        return marks

    def snapshot(self, layer):
        """A layer that nobody changes. Of a sliding window it has what the window still sees, which may be less than the layer holds."""
        if layer is None:
            return None
        size = getattr(layer, "max_size", None)
        if size is not None and layer.keys.shape[2] > size and layer._idx == layer.keys.shape[2]:
            layer.keys, layer.values = layer.keys[..., -size:, :], layer.values[..., -size:, :]
            layer._idx = size
        (layer,) = self.memory_cache._detach_cache_for_storage([layer])
        return layer

    def mark(self, batch, request, length, question):
        """Keeps what the layers that cannot be cut back are at this place of a prompt. Says whether it did."""
        layers = batch.prompt_cache
        can_be_cut = [type(layer) is self.batch_layer for layer in layers]
        if not hasattr(request, "cclocal_marks") or not any(can_be_cut) or all(can_be_cut):
            return False
        if any(layer._idx != length for layer in layers if type(layer) is self.batch_layer):
            return False
        taken = []
        for layer in layers:
            taken.append(None if type(layer) is self.batch_layer else self.snapshot(layer.extract(0)))
        if not all(layer is None or type(layer) in self.fixed for layer in taken):
            return False
        request.cclocal_marks.add(length, taken, question)
        return True

    def layer_of(self, keys, values, length):
        layer = self.layer()
        layer.keys, layer.values, layer.offset = keys, values, length
        return layer

    def stored(self, layer, length):
        keys, values = layer.keys[..., :length, :], layer.values[..., :length, :]
        layer.keys = layer.values = None
        made = self.layer()
        made.offset = length
        # One after the other: of what is copied there is only one array at a time.
        made.keys = self.mx.contiguous(keys)
        del keys
        self.mx.eval(made.keys)
        made.values = self.mx.contiguous(values)
        del values
        self.mx.eval(made.values)
        return made

    def give_back(self, scheduler, request_id, why):
        """Keeps what a request has computed that ends before its reply does. Of a step that failed nobody knows which layers have seen its tokens."""
        request = scheduler.running.get(request_id)
        if request is None or not self.serves(scheduler):
            return
        self.ending = request
        try:
            layers, covered = self.computed(scheduler, request, why == "failed")
            if not layers:
                return
            key = (list(request.prompt_token_ids) + list(request.output_token_ids))[:covered]
            memory = scheduler.memory_aware_cache
            with using_up(memory, moves=True):
                entry = memory.prepare_store(key, layers)
            kept = entry is not None and memory.commit_prepared(entry, evict_prefixes=False)
            entries_log.info("[take_over] request=%s %s: kept=%s tokens=%d", request_id[:12], why, kept, covered)
        except Exception as error:  # It is computed again.
            entries_log.warning("[take_over] request=%s %s, nothing is kept: %s: %s", request_id[:12], why, type(error).__name__, error)
        finally:
            self.forget(request)

    def forget(self, request):
        """Of what the engine still knows of a request its snapshots are no part."""
        self.ending = None
        if hasattr(request, "cclocal_marks"):
            del request.cclocal_marks

    def give_up(self, scheduler, request_id):
        request = scheduler.running.get(request_id)
        entries_log.warning("[take_over] request=%s failed for want of memory: its %d tokens are computed again", request_id[:12], request.num_prompt_tokens)
        self.forget(request)

    def computed(self, scheduler, request, is_torn):
        """The layers of a request as they are now, and how many tokens all of them have. They leave the batch."""
        generator, uid = scheduler.batch_generator, request.batch_uid
        if generator is None:
            return None, 0
        for batch in (generator._generation_batch, generator._prompt_batch):
            if list(batch.uids) != [uid]:
                continue
            cut = [layer for layer in batch.prompt_cache if type(layer) is self.batch_layer]
            if not cut or any(layer.keys is None or int(layer.left_padding[0]) for layer in cut):
                return None, 0
            known = request.num_prompt_tokens + len(request.output_token_ids)
            covered = min([known, *(layer._idx for layer in cut)])
            whole = not is_torn and all(layer._idx == covered for layer in cut)
            if len(cut) < len(batch.prompt_cache) and not whole:
                covered = min(covered, request.cclocal_marks.last(covered))
            if covered < scheduler.memory_aware_cache._config.min_prefix_tokens:
                return None, 0
            layers = []
            for layer in batch.prompt_cache:
                if type(layer) is self.batch_layer:
                    layers.append(self.out_of_batch(layer, covered))
                else:
                    layers.append(layer.extract(0) if whole else UNKNOWN)
            return layers, covered
        for number, _, _, layers, *_ in generator._unprocessed_sequences:
            if number == uid and self.can_be_cut(layers) and all(layer.keys is not None for layer in layers):
                return list(layers), layers[0].offset
        return None, 0
