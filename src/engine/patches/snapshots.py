"""Snapshots of a prompt that the next one extends: part of what starts the engine, see `bootstrap.py`."""

import collections
import logging
import os

# By how many tokens a prompt has to have grown before its snapshot is taken again: no turn computes more than these beside what is new. A
# snapshot costs buffers, of which Metal has a limited number, so not every small step gets one.
SNAPSHOT_STEP = 128

# How many prompts are remembered between their template and their schedule.
REMEMBERED = 8


def settle_snapshots(handover=None):
    """Takes the snapshots of caches that cannot be cut back where the next turn will still agree.

    A sliding-window or recurrent cache is of use to the next turn only if it was kept at a place that the next prompt still has. vllm-mlx
    0.6.0 keeps it one token behind the prompt's end, every 4,096 tokens. But some templates end a prompt with what they do not repeat once the
    reply is history (Gemma-4 of 26B: an empty thought; Qwen3.5: likewise, for all replies since the last question): then it is of no use at
    all. So snapshots are taken before what the template adds for the reply, and the one at the last question is kept beside the newest.
    With a `handover` (`take_over.py`) a snapshot is of these layers alone.
    An engine whose insides are not as expected keeps its own way.
    """
    if not os.environ.get("CCLOCAL_TEXT_ROUTE"):
        return not_wanted("snapshots")
    try:
        from mlx_lm.generate import PromptProcessingBatch
        from vllm_mlx.engine.batched import BatchedEngine
        from vllm_mlx.memory_cache import MemoryAwarePrefixCache
        from vllm_mlx.scheduler import Scheduler
    except ImportError as error:
        return not_applied("snapshots", error)
    if hasattr(Scheduler, "SNAPSHOT_REFRESH_TOKENS"):
        Scheduler.SNAPSHOT_REFRESH_TOKENS = SNAPSHOT_STEP
    needed = (
        (BatchedEngine, "_apply_chat_template"),
        (PromptProcessingBatch, "prompt"),
        (PromptProcessingBatch, "extract_cache"),
        (Scheduler, "_schedule_waiting"),
        (Scheduler, "_store_prompt_only_cache"),
        (Scheduler, "_prompt_output_entry_is_useless"),
        (Scheduler, "_make_snapshot_destination"),
        (Scheduler, "_cache_coverage"),
        (MemoryAwarePrefixCache, "store"),
        (MemoryAwarePrefixCache, "remove"),
    )
    if missing := [name for owner, name in needed if not hasattr(owner, name)]:
        return not_applied("snapshots", f"{missing[0]} is missing")
    snapshots = Snapshots(BatchedEngine, PromptProcessingBatch, Scheduler, handover)
    applied("snapshots")
    return snapshots


class Snapshots:
    def __init__(self, engine, batch, scheduler, handover=None):
        self.handover = handover
        self.prompts = collections.OrderedDict()
        self.planned = {}
        self.questions = set()
        self.watch_templates(engine)
        self.watch_schedule(scheduler)
        pause_prefills(batch, self.planned, lambda batch, planned: planned.take(batch))

    def watch_templates(self, engine):
        """Learns of each prompt where what the template adds for the reply begins, and whether it asks something new."""
        apply = engine._apply_chat_template

        def watched(engine, messages, *arguments, chat_template_kwargs=None, **options):
            prompt = apply(engine, messages, *arguments, chat_template_kwargs=chat_template_kwargs, **options)
            try:
                kwargs = {**(chat_template_kwargs or {}), "add_generation_prompt": False}
                told = apply(engine, messages, *arguments, chat_template_kwargs=kwargs, **options)
                self.prompts[prompt] = (len(os.path.commonprefix((prompt, told))), messages[-1].get("role") == "user")
                while len(self.prompts) > REMEMBERED:
                    self.prompts.popitem(last=False)
            except Exception:  # A template that cannot do without: the snapshot is taken the engine's way.
                pass
            return prompt

        engine._apply_chat_template = watched

    def watch_schedule(self, scheduler):
        schedule, store = scheduler._schedule_waiting, scheduler._store_prompt_only_cache

        def scheduling(scheduler):
            scheduled = schedule(scheduler)
            for request in scheduled:
                self.plan(scheduler, request)
            return scheduled

        def storing(scheduler, request, response):
            if not getattr(request, "snapshot_is_settled", False):
                store(scheduler, request, response)

        scheduler._schedule_waiting = scheduling
        scheduler._store_prompt_only_cache = storing

    def plan(self, scheduler, request):
        end = self.end(scheduler, request)
        if end is None and hasattr(request, "cclocal_marks"):
            end = len(request.prompt_token_ids) - 1, False
        if end is None or scheduler.memory_aware_cache is None:
            return
        end, question = end
        left = end - (request.cached_tokens or 0)
        # What a request begins with may be gone when it has ended.
        marks = getattr(request, "cclocal_marks", None)
        grown = end - marks.last(end) if marks is not None else left
        if left > 0 and (question or grown > SNAPSHOT_STEP):
            self.planned.clear()
            self.planned[request.batch_uid] = Planned(self, scheduler, request, end, question, left)
        else:
            request.snapshot_is_settled = True

    def end(self, scheduler, request):
        """How many tokens of the prompt the next one will repeat, and whether it asks something new. None if that is not known."""
        known = self.prompts.get(request.prompt) if isinstance(request.prompt, str) else None
        tokens = request.prompt_token_ids
        if known is None or not tokens:
            return None
        length, question = known
        added = request.prompt[length:]
        try:
            added = scheduler.tokenizer.encode(added, add_special_tokens=False) if added else []
        except (AttributeError, TypeError, ValueError):
            return None
        if added and list(tokens[-len(added) :]) != list(added):
            return None
        # The last token is computed with the reply.
        return min(len(tokens) - len(added), len(tokens) - 1), question


class Planned(Pause):
    """A snapshot that is to be taken on the way through a prompt."""

    def __init__(self, snapshots, scheduler, request, end, question, left):
        super().__init__(left)
        self.snapshots, self.scheduler, self.request = snapshots, scheduler, request
        self.end, self.question = end, question

    def take(self, batch):
        try:
            if not self.mark(batch):
                self.store(batch.extract_cache(0))
        except Exception as error:  # A turn without a snapshot is only slower.
            logging.getLogger("vllm_mlx.scheduler").warning("[snapshot] not taken: %s", error)

    def mark(self, batch):
        handover = self.snapshots.handover
        if handover is None or not handover.mark(batch, self.request, self.end, self.question):
            return False
        self.request.snapshot_is_settled = True
        logging.getLogger("vllm_mlx.scheduler").info("[snapshot] tokens=%d of prompt_tokens=%d", self.end, len(self.request.prompt_token_ids))
        return True

    def store(self, live):
        scheduler, memory = self.scheduler, self.scheduler.memory_aware_cache
        # One that can be cut back is kept by the engine after the reply.
        if not scheduler._prompt_output_entry_is_useless(live) or scheduler._cache_coverage(live) != self.end:
            return
        snapshot = scheduler._make_snapshot_destination(live)
        if snapshot is None:
            return
        for copy, original in zip(snapshot, live):
            meta = getattr(original, "meta_state", None)
            if meta is not None:
                copy.meta_state = meta
            copy.state = original.state
        # What was taken out of the batch is let go layer by layer (`entries.py`), and what is superseded first, so that no copies pile up.
        live.clear()
        key = tuple(self.request.prompt_token_ids[: self.end])
        self.tidy(memory, key)
        with using_up(memory):
            if not memory.store(list(key), snapshot, evict_prefixes=False):
                return
        if self.question:
            self.snapshots.questions.add(key)
        self.request.snapshot_is_settled = True
        logging.getLogger("vllm_mlx.scheduler").info(
            "[snapshot] tokens=%d of prompt_tokens=%d entries=%d", self.end, len(self.request.prompt_token_ids), len(memory._entries)
        )

    def tidy(self, memory, key):
        """Of the snapshots that this one extends, the one at the last question stays: a template may change what comes after it."""
        before = what_it_extends(memory, key)
        questions = self.snapshots.questions
        questions &= set(memory._entries)
        asked = (other for other in before if other in questions)
        kept = None if self.question else max(asked, key=len, default=None)
        for other in before:
            if other != kept:
                questions.discard(other)
                memory.remove(list(other))
