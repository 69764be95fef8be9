"""Entries of the prefix cache without copies beside them: part of what starts the engine, see `bootstrap.py`."""

import contextlib


def settle_entries():
    """Makes entries of the prefix cache layer by layer.

    At the end of a turn vllm-mlx 0.6.0 takes the conversation out of its batch and copies it: whole, each of them,
    and all there at once beside the batch and the entry before. It also keeps the entry of every turn, each with all of the conversation so far, until its limit is reached, and a list of a new entry's arrays in a function that
    refers to itself, which Python frees when it next looks for circles. Here each layer is let go when the next is made, what a new entry extends goes
    with it, and the list is ours. An engine whose insides are not as expected is left alone.
    """
    import inspect

    try:
        import mlx.core as mx
        from vllm_mlx import memory_cache
        from vllm_mlx.scheduler import Scheduler

    except ImportError as error:
        return not_applied("entries", error)
    left = []
    detach = getattr(memory_cache, "_detach_cache_for_storage", None)
    if callable(detach) and list(inspect.signature(detach).parameters) == ["cache", "_eval_targets"]:
        free_arrays_of_entries(mx, memory_cache, detach)
    else:
        left.append("_detach_cache_for_storage")
    needed = (
        (memory_cache, "_trim_to_offset"),
        (memory_cache, "_is_cache_layer_trimmable"),
        (memory_cache, "estimate_kv_cache_memory"),
        (memory_cache, "_CacheEntry"),
        (Scheduler, "_cleanup_finished"),
    )
    cache = getattr(memory_cache, "MemoryAwarePrefixCache", None)
    prepare = getattr(cache, "prepare_store", None)
    if prepare and all(hasattr(*name) for name in needed) and list(inspect.signature(prepare).parameters)[:3] == ["self", "tokens", "cache"]:
        store_by_layers(memory_cache, cache, prepare, Scheduler)
    else:
        left.append("prepare_store")
    if left:
        not_applied("entries", f"another form of {', '.join(left)}")
    else:
        applied("entries")


def store_by_layers(memory_cache, cache, prepare, scheduler):
    """Lets `prepare_store` use up what it is given, where whoever gives it needs it no more: at a turn's end, and for snapshots of ours."""

    def prepared(self, tokens, layers, auxiliary=None):
        config = self._config
        usable = getattr(self, "cclocal_uses_up", False) and isinstance(layers, list) and not auxiliary
        if not usable or not tokens or not layers or len(tokens) < config.min_prefix_tokens or tuple(tokens) in self._entries:
            return prepare(self, tokens, layers, auxiliary)
        trimmable = all(memory_cache._is_cache_layer_trimmable(layer) for layer in layers)
        rest = memory_cache._trim_to_offset(layers)
        if memory_cache.estimate_kv_cache_memory(rest) > self._max_memory:
            del rest
            return prepare(self, tokens, layers, auxiliary)  # It says why not.
        rest, made = list(rest), []
        layers.clear()
        rest.reverse()
        try:
            with self._copy_lock:
                while rest:
                    made += memory_cache._detach_cache_for_storage([rest.pop()])
        except Exception as error:  # A turn without an entry is only slower.
            self._stats.store_rejections += 1
            memory_cache.logger.warning("[cache_store] rejecting entry: %s: %s", type(error).__name__, error)
            return None
        if trimmable:
            # A cache that can be cut back serves all that its own beginning would.
            for other in what_it_extends(self, tuple(tokens)):
                self.remove(list(other))
        return memory_cache._CacheEntry.create(tokens, made)

    cleanup = scheduler._cleanup_finished

    def cleaned(self, *arguments, **options):
        memory = getattr(self, "memory_aware_cache", None)
        if memory is None:
            return cleanup(self, *arguments, **options)
        with using_up(memory, moves=True):
            return cleanup(self, *arguments, **options)

    cache.prepare_store = prepared
    scheduler._cleanup_finished = cleaned


@contextlib.contextmanager
def using_up(memory, moves=False):
    """Whatever is stored meanwhile is needed by nobody else. `moves`: nor is what it was made of, a request that has ended."""
    memory.cclocal_uses_up, memory.cclocal_moves = True, moves
    try:
        yield
    finally:
        memory.cclocal_uses_up = memory.cclocal_moves = False


def what_it_extends(memory, key):
    """Entries for the beginnings of these tokens."""
    return [other for other in memory._entries if len(other) < len(key) and key[: len(other)] == other]


def longest_beginning(memory, tokens):
    """The entry that serves most of these tokens, and how many, the last one left out, which has to be computed. Of several the one that has
    least beside them."""
    key, most = None, 0
    wanted = tuple(tokens[:-1])
    for other, entry in memory._entries.items():
        shared = in_common(other, wanted)
        marks = getattr(entry, "cclocal_marks", None)
        if marks is not None and marks.at:
            shared = marks.last(shared)
        if shared > most or (shared == most and key is not None and len(other) <= len(key)):
            key, most = other, shared
    if most < memory._config.min_prefix_tokens:
        return None, 0
    return key, most


def in_common(one, other):
    """How many elements two tuples begin with in common."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


def free_arrays_of_entries(mx, memory_cache, detach):
    collect = getattr(memory_cache, "_collect_mx_array_ids", None)
    refused = getattr(memory_cache, "UndetachableCacheError", None)
    if not (collect and refused):
        return

    def ids(layers):
        found = set()
        for layer in layers:
            collect(layer, mx, found)
        return found

    def detached(cache, _eval_targets=None):
        if _eval_targets is not None:
            return detach(cache, _eval_targets)
        arrays = []
        try:
            copy = detach(cache, arrays)
            # What the engine does itself where the list is its own.
            if ids(cache) & ids(copy):
                raise refused("the copy has arrays of the running request")
            try:
                mx.eval(*arrays)
            except Exception as error:
                raise refused(f"the copy cannot be made: {type(error).__name__}: {error}") from error
            return copy
        finally:
            arrays.clear()

    memory_cache._detach_cache_for_storage = detached
