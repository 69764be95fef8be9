"""Memory that stays below a limit: part of what starts the engine, see `bootstrap.py`."""

import logging
import os

# Of a hundred parts of the limit, those that may be held before something is given back: what the plan of memory shares out (see
# `memory/plan.rs`), so a run that goes as planned is left alone.
SOFT_PERCENT = 95

# What a step takes is noted for conversations of each length, in so many tokens: a step late in one takes more than a step early in another.
LENGTHS = 1024

# The smallest step in which a prompt is read, in tokens: below it, reading becomes slow for little memory.
SMALLEST_STEP = 64


def stay_within_memory():
    """Tells the supervisor what MLX holds, and gives back what can be done without before the limit is reached.

    A step of reading a prompt can take gigabytes in less time than lies between two questions from outside. So it is looked at here, in the
    thread that computes, before each step: if what is held and what such steps have taken so far exceed `CCLOCAL_MEMORY_LIMIT` (bytes), entries of
    the prefix cache are dropped, the oldest first; one that would not fit is not made; and prompts are read in smaller steps. All of it is only slower.
    An engine whose insides are not as expected is left alone.
    """
    try:
        import mlx.core as mx
        from vllm_mlx import memory_cache, server
        from vllm_mlx.scheduler import Scheduler
    except ImportError as error:
        return not_applied("memory", error)
    needed = ("get_active_memory", "get_peak_memory", "reset_peak_memory", "clear_cache")
    if missing := [name for name in needed if not hasattr(mx, name)]:
        return not_applied("memory", f"mlx has no {missing[0]}")
    limit = memory_limit()
    memory, left = EngineMemory(mx, limit), None
    try:
        from fastapi import Depends

        server.app.add_api_route("/cclocal/memory", memory.asked, dependencies=[Depends(server.verify_api_key)])
    except (ImportError, AttributeError) as error:
        left = f"it cannot be asked for: {error}"
    cache = getattr(memory_cache, "MemoryAwarePrefixCache", None)
    estimate = getattr(memory_cache, "estimate_kv_cache_memory", None)
    if not hasattr(Scheduler, "step") or not estimate or not all(hasattr(cache, name) for name in ("prepare_store", "remove")):
        return not_applied("memory", "the scheduler or the prefix cache is another one")
    memory.watch_steps(Scheduler)
    if limit > 0:
        memory.watch_entries(cache, estimate)
    if left:
        return not_applied("memory", left)
    applied("memory")


def memory_limit():
    """In bytes. None is 0."""
    try:
        return int(os.environ.get("CCLOCAL_MEMORY_LIMIT", ""))
    except ValueError:
        return 0


def soft_limit(limit):
    return limit // 100 * SOFT_PERCENT


class Rises:
    """The most that whole steps took beyond what was held before them, in bytes, by how long the conversation was."""

    def __init__(self):
        self.most = {}

    def note(self, tokens, rise, whole):
        if whole or rise > self.of(tokens):
            place = tokens // LENGTHS
            self.most[place] = max(rise, self.most.get(place, 0))

    def of(self, tokens):
        """What a step may take: as much as in a conversation that was a little longer, or the most that was ever seen."""
        longer = [place for place in self.most if place >= tokens // LENGTHS]
        return self.most[min(longer)] if longer else self.all()

    def all(self):
        return max(self.most.values(), default=0)

    def halve(self):
        self.most = {place: rise // 2 for place, rise in self.most.items()}


class EngineMemory:
    """All in bytes."""

    def __init__(self, mx, limit):
        self.mx = mx
        self.limit, self.soft = limit, soft_limit(limit)
        self.scheduler = None
        # What was held before the first step.
        self.base = None
        # Of the steps that write, and of those that read.
        self.rises = [Rises(), Rises()]
        # The most that was held since it was last asked for.
        self.peak = 0
        self.dropped = 0
        # The shortest conversation that got no entry: its tokens, and what there would have been with one.
        self.refused = (0, 0)

    async def asked(self):
        """What is held, for the supervisor."""
        self.begin()
        peak, self.peak = max(self.peak, self.mx.get_peak_memory()), 0
        held = self.mx.get_active_memory()
        if self.scheduler is None:
            self.mx.reset_peak_memory()  # Else this is done before and after each step.
        said = {"held": held, "peak": max(peak, held), "base": self.base, "dropped": self.dropped}
        tokens, needed = self.refused
        return {**said, "rise": max(rises.all() for rises in self.rises), "refused_tokens": tokens, "refused_bytes": needed, **self.conversation()}

    def conversation(self):
        """The longest conversation that is being computed, and what the prefix cache holds."""
        tokens, writing, cached = 0, False, 0
        try:
            for request in list(self.scheduler.running.values()):
                of_request = request.num_prompt_tokens + request.num_output_tokens
                if of_request > tokens:
                    tokens, writing = of_request, request.num_output_tokens > 0
            cached = self.scheduler.memory_aware_cache._current_memory
        except (AttributeError, RuntimeError, TypeError):
            pass
        return {"tokens": tokens, "writing": writing, "prefix_cache": cached}

    def begin(self):
        """Before the first request: what is held now are the weights."""
        if self.base is not None:
            return
        self.base = self.mx.get_active_memory()
        if self.limit > 0 and not self.is_watched():
            say(logging.WARNING, "weights of %s leave nothing of the limit of %s: memory is not watched", self.base, self.limit)
        elif self.limit > 0 and hasattr(self.mx, "set_memory_limit"):
            # From here on MLX gives back the buffers that it keeps for later, and computes less at once.
            self.mx.set_memory_limit(self.soft)

    def watch_steps(self, scheduler):
        step = scheduler.step

        def watched(scheduler, *arguments, **options):
            reads, tokens, held, wanted = self.before(scheduler)
            try:
                return step(scheduler, *arguments, **options)
            finally:
                self.look()
                more = computed(scheduler) - tokens
                self.rises[reads].note(tokens + max(more, 0), self.most - held, more >= wanted)

        scheduler.step = watched

    def before(self, scheduler):
        self.scheduler = scheduler
        reads, tokens, step = True, computed(scheduler), 1
        try:
            reads = bool(scheduler.waiting) or any(not request.num_output_tokens for request in scheduler.running.values())
            self.begin()
            if reads:
                step = getattr(scheduler.batch_generator, "prefill_step_size", None) or scheduler.config.prefill_step_size
            if self.is_watched():
                self.make_room(scheduler.memory_aware_cache, self.rises[reads].of(tokens + step))
                if reads:
                    self.read_less_at_once(scheduler.batch_generator, tokens + step)
        except Exception as error:  # Whatever is not as expected here: the step is taken all the same.
            say(logging.DEBUG, "not looked at: %s", error)
        self.mx.reset_peak_memory()
        held = self.most = self.mx.get_active_memory()
        return reads, tokens, held, step

    def look(self):
        """Notes the most that was held since it was last looked."""
        most = self.mx.get_peak_memory()
        self.mx.reset_peak_memory()
        self.most, self.peak = max(self.most, most), max(self.peak, most)

    def is_watched(self):
        return self.base is not None and self.base < self.soft

    def make_room(self, cache, wanted):
        """Drops entries of the prefix cache, the oldest first, until what is wanted has room. Those that a request is about to use stay."""
        before = self.mx.get_active_memory()
        if before + wanted <= self.soft or cache is None:
            return
        begins = [getattr(request, "prompt_cache", None) for request in list(self.scheduler.requests.values())]
        used = {id(layers) for layers in begins}
        # What a request is about to take over.
        promised = {getattr(layers, "key", None) for layers in begins}
        dropped = 0
        for tokens, entry in list(cache._entries.items()):
            if self.mx.get_active_memory() + wanted <= self.soft:
                break
            if id(entry.cache) not in used and tokens not in promised and cache.remove(list(tokens)):
                dropped += 1
            del entry
        if dropped:
            self.mx.clear_cache()
            self.dropped += dropped
            held = self.mx.get_active_memory()
            say(logging.WARNING, "held=%d of limit=%d wanted=%d: dropped %d entries of the prefix cache, held=%d", before, self.limit, wanted, dropped, held)

    def read_less_at_once(self, generator, tokens):
        """Halves the step in which prompts are read while one would still be too much: the better part of what it takes goes with its length."""
        held, step = self.mx.get_active_memory(), getattr(generator, "prefill_step_size", None)
        if not isinstance(step, int):
            return
        while step > SMALLEST_STEP and held + self.rises[True].of(tokens) > self.soft:
            step //= 2
            # What such a step takes is seen when it is taken.
            self.rises[True].halve()
        if step != generator.prefill_step_size:
            say(logging.WARNING, "held=%d of limit=%d: prompts are read in steps of %d tokens, not %d", held, self.limit, step, generator.prefill_step_size)
            generator.prefill_step_size = step

    def watch_entries(self, cache, estimate):
        prepare = cache.prepare_store

        def watched(cache, tokens, layers, *arguments, **options):
            try:
                size = estimate(layers)
                is_new = tuple(tokens) not in cache._entries and size <= cache._max_memory
                if getattr(cache, "cclocal_moves", False):
                    # It is used up: a layer is there twice (`take_over.py`).
                    size = 2 * max(estimate([layer]) for layer in layers)
                if self.is_watched() and is_new and not self.has_room(cache, len(tokens), size):
                    return None
                self.look()
            except Exception as error:
                say(logging.DEBUG, "not looked at: %s", error)
            try:
                return prepare(cache, tokens, layers, *arguments, **options)
            finally:
                # What an entry takes is looked at by itself, and no measure for the next step.
                self.peak = max(self.peak, self.mx.get_peak_memory())
                self.mx.reset_peak_memory()

        cache.prepare_store = watched

    def has_room(self, cache, tokens, wanted):
        """Whether an entry can be made, if need be in place of others."""
        held = self.mx.get_active_memory()
        needed = held - cache._current_memory + wanted
        if needed > self.soft:
            if not 0 < self.refused[0] <= tokens:
                self.refused = (tokens, needed)
            say(logging.WARNING, "held=%d of limit=%d wanted=%d: this turn is not kept in the prefix cache", held, self.limit, wanted)
            return False
        self.make_room(cache, wanted)
        return True


def computed(scheduler):
    """How many tokens of the conversation that is next have been computed. 0: that is not known."""
    try:
        generator, layers = scheduler.batch_generator, []
        if scheduler.waiting and not scheduler.running:
            return scheduler.waiting[0].cached_tokens or 0
        for batch in (generator._generation_batch, generator._prompt_batch):
            layers += batch.prompt_cache if len(batch.uids) else ()
        for _, _, _, own, *_ in generator._unprocessed_sequences:
            layers += own
        return max((length for layer in layers if isinstance(length := getattr(layer, "_idx", getattr(layer, "offset", 0)), int)), default=0)
    except (AttributeError, IndexError, TypeError, ValueError):
        return 0


def say(level, text, *figures):
    logging.getLogger("vllm_mlx.scheduler").log(level, "[memory] " + text, *figures)


