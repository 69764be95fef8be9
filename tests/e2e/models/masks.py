#!/usr/bin/env python3
"""What one conversation computes in a batch, with arrays for masks and as we start the engine, for tiny models of the catalogue's architectures.

    masks.py ARCHITECTURES.json PATCHES      (run it with the engine's own Python)

For each architecture it prints a line of JSON: of each case whether all logits are the same to the bit with the patch and without it (`same`), how
many there were (`steps`), and the masks that were made without it and with it (`before`, `masks`), each as the kind of cache, its sequences, tokens, and what it was; for one
sequence also whether the masks are those that the model gets outside of batches (`as_alone`). Before them, one line with what the patch
says of caches that are not as expected. The weights are random, so that every logit depends on all tokens that it attends to.
"""

import contextlib
import hashlib
import importlib
import io
import json
import os
import sys

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.generate import BatchGenerator
from mlx_lm.models import cache as caches
from vllm_mlx.request import Request, SamplingParams
from vllm_mlx.scheduler import Scheduler, SchedulerConfig

STEP = 64
REPLY = 6
# Of sliding layers, in tokens: a step of a prompt on a processor takes time.
WINDOW = 160
KINDS = ("KVCache", "RotatingKVCache", "ArraysCache", "BatchKVCache", "BatchRotatingKVCache")


def build(config):
    mx.random.seed(3)
    module = importlib.import_module("mlx_lm.models." + config["model_type"])
    model = module.Model(module.ModelArgs.from_dict(config))
    model.set_dtype(mx.bfloat16)
    experts = lambda path, module: "switch" in path and hasattr(module, "to_quantized")
    nn.quantize(model, group_size=32, bits=4, class_predicate=experts)
    mx.eval(model.parameters())
    return model


class Watch:
    """Notes the logits of a model, and the masks that caches make for it."""

    def __init__(self, model):
        self.model = model
        self.logits, self.masks = [], []

    def __enter__(self):
        kind = type(self.model)
        self.put_back = [(kind, "__call__", kind.__call__)]
        kind.__call__ = self.calling(kind.__call__)
        for name in KINDS:
            kind = getattr(caches, name)
            self.put_back.append((kind, "make_mask", kind.make_mask))
            kind.make_mask = self.masking(name.removeprefix("Batch"), kind.make_mask)
        return self

    def __exit__(self, *_):
        for kind, name, method in self.put_back:
            setattr(kind, name, method)

    def calling(self, call):
        def called(model, tokens, *arguments, **options):
            logits = call(model, tokens, *arguments, **options)
            bits = np.array(logits.astype(mx.float32)).tobytes()
            self.logits.append((tokens.shape, hashlib.sha256(bits).hexdigest()))
            return logits

        return called

    def masking(self, name, make):
        def made(cache, N, *arguments, **options):
            mask = make(cache, N, *arguments, **options)
            self.masks.append([name, sequences(cache), N, "array" if isinstance(mask, mx.array) else mask])
            return mask

        return made


def sequences(cache):
    padding = getattr(cache, "left_padding", None)
    return getattr(cache, "batch_size", 1 if padding is None else padding.size)


def numbers(length, seed=0):
    return np.random.default_rng(seed).integers(1, 300, length).tolist()


class Batch:
    """The engine's batches, without the engine."""

    def __init__(self, model, step=STEP):
        self.generator = BatchGenerator(model, stop_tokens=[], prefill_step_size=step)

    def insert(self, prompt, cache=None, reply=REPLY):
        return self.generator.insert([prompt], [reply], caches=cache and [cache])[0]

    def run(self, steps=None):
        """Generates, for so many steps or to the end. Of each sequence that ended, its cache."""
        ended = {}
        while steps != 0 and (responses := self.generator.next_generated()):
            for response in responses:
                if response.finish_reason:
                    ended[response.uid] = response.prompt_cache
            steps = steps and steps - 1
        return ended


def alone(model, *prompts, step=STEP, cut=0):
    """One conversation in a batch: each prompt goes on from the one before, of which so many tokens are cut off."""
    cache = None
    for prompt in prompts:
        batch = Batch(model, step)
        uid = batch.insert(prompt, cache)
        cache = batch.run()[uid]
        if cut and caches.can_trim_prompt_cache(cache):
            caches.trim_prompt_cache(cache, cut)
        batch.generator.close()


def outside(model, *prompts, step=STEP, cut=0):
    """The same outside of batches. The last token of a prompt is computed with the reply."""
    cache = caches.make_prompt_cache(model)
    for prompt in prompts:
        left = prompt[:-1]
        while left:
            model(mx.array([left[:step]]), cache=cache)
            mx.eval([layer.state for layer in cache])
            left = left[step:]
        token = prompt[-1]
        # In a batch the last token of a reply is computed as well, for the next one that nobody wants.
        for _ in range(REPLY + 1):
            token = int(mx.argmax(model(mx.array([[token]]), cache=cache)[0, -1]))
        if cut and caches.can_trim_prompt_cache(cache):
            caches.trim_prompt_cache(cache, cut)


def together(model):
    """Two sequences of different lengths from their beginning."""
    batch = Batch(model)
    batch.generator.insert([numbers(150), numbers(90, 1)], [REPLY, REPLY])
    batch.run()
    batch.generator.close()


def one_after_another(model):
    """A second sequence comes while one generates, which ends before it. Then the other is alone."""
    batch = Batch(model)
    batch.insert(numbers(150), reply=10)
    batch.run(1)
    batch.insert(numbers(90, 1), reply=16)
    batch.run()
    batch.generator.close()


class Tokenizer:
    """As much of one as the scheduler needs."""

    eos_token_id = -1
    eos_token_ids = set()
    clean_up_tokenization_spaces = False

    def decode(self, tokens, **_):
        return "x" * len(tokens)


def conversation(model, snapshots):
    """Three turns by the engine's own scheduler, as we start it: entries, snapshots and what goes on from them."""
    config = SchedulerConfig(max_num_seqs=1, prefill_step_size=STEP, enable_prefix_cache=True, use_memory_aware_cache=True, cache_memory_mb=256)
    scheduler = Scheduler(model, Tokenizer(), config)
    said, reused = numbers(200), []
    for number in range(3):
        name = f"turn {number}"
        snapshots.prompts[name] = (len(name), number == 0)
        request = Request(request_id=name, prompt=name, sampling_params=SamplingParams(max_tokens=REPLY, temperature=0.0))
        request.prompt_token_ids, request.num_prompt_tokens = list(said), len(said)
        scheduler.add_request(request)
        while scheduler.has_requests():
            for output in scheduler.step().outputs:
                said += output.new_token_ids
        reused.append(request.cached_tokens)
        said += numbers(190, number + 1)
    assert reused[1] > 150 and reused[2] > 340, reused


def of_one(window):
    """Cases of one conversation: prompts, and how they are computed."""
    return {
        "a token": ([numbers(1)], {}),
        "two tokens": ([numbers(2)], {}),
        "less than a step": ([numbers(17)], {}),
        "one step": ([numbers(STEP + 1)], {}),
        "up to the window": ([numbers(window - 2)], {"step": 128}),
        "beyond the window": ([numbers(window + 150)], {}),
        "a step beyond the window": ([numbers(window + 150)], {"step": 2048}),
        "going on": ([numbers(100), numbers(1, 1), numbers(80, 2)], {}),
        "going on beyond the window": ([numbers(window - 60), numbers(80, 1), numbers(1, 2), numbers(90, 3)], {}),
        "cut back": ([numbers(100), numbers(50, 1), numbers(7, 2)], {"cut": 9}),
    }


def cases(model, window, snapshots):
    for name, (prompts, how) in of_one(window).items():
        yield name, lambda prompts=prompts, how=how: alone(model, *prompts, **how)
    yield "a conversation", lambda: conversation(model, snapshots)
    yield "two together", lambda: together(model)
    yield "two, then one", lambda: one_after_another(model)


def watched(model, run):
    with Watch(model) as watch:
        run()
    return watch


def ours(folder):
    """What starts the engine, as far as it concerns caches: without masks, and the function that adds them."""
    parts = {}
    for name in ("patches", "entries", "masks", "pauses", "snapshots"):
        file = f"{folder}/{name}.py"
        exec(compile(open(file).read(), file, "exec"), parts)
    os.environ["CCLOCAL_TEXT_ROUTE"] = "yes"
    parts["settle_entries"]()
    return parts["settle_snapshots"](), parts["attend_without_arrays"]


def of_others(attend):
    """What is said of caches that are not as expected, each of which must stay as it is."""
    kinds = [getattr(caches, name) for name in KINDS if name.startswith(("Batch", "Arrays"))]
    methods = [(kind, name) for kind in kinds for name in ("make_mask", "prepare", "finalize")]

    class Other(caches.BatchKVCache):
        @property
        def _idx(self):
            raise AttributeError

        @_idx.setter
        def _idx(self, value):
            pass

    changes = {
        "another signature": (caches.BatchKVCache, "make_mask", lambda self, N, window=None: mx.ones((N, N))),
        "no arrays": (caches.BatchRotatingKVCache, "make_mask", lambda self, N, window_size=None, return_array=False: "causal"),
        "an error": (caches.ArraysCache, "merge", lambda *_: 1 / 0),
        "another attribute": (caches, "BatchKVCache", Other),
        "a missing kind": (caches, "BatchRotatingKVCache", None),
    }
    said = {}
    for name, (owner, attribute, other) in changes.items():
        before = owner.__dict__[attribute]
        setattr(owner, attribute, other)
        if other is None:
            delattr(owner, attribute)
        as_they_are = [getattr(*method) for method in methods]
        words = io.StringIO()
        with contextlib.redirect_stderr(words):
            attend()
        said[name] = words.getvalue().strip()
        assert [getattr(*method) for method in methods] == as_they_are, name
        setattr(owner, attribute, before)
    return said


def main():
    with open(sys.argv[1]) as file:
        architectures = {name: config for name, config in json.load(file).items() if name not in ("turns", "snapshots")}
    for config in architectures.values():
        if "sliding_window" in config:
            config["sliding_window"] = WINDOW
    snapshots, attend = ours(sys.argv[2])
    print(json.dumps(of_others(attend)), flush=True)
    with_arrays = {}
    # Once for all, as there is no way back: first everything without the patch, then everything with it.
    models = {name: (build(config), WINDOW) for name, config in architectures.items()}
    for name, (model, window) in models.items():
        with_arrays[name] = {case: watched(model, run) for case, run in cases(model, window, snapshots)}
    attend()
    for name, (model, window) in models.items():
        compared = {}
        for case, run in cases(model, window, snapshots):
            before, now = with_arrays[name][case], watched(model, run)
            compared[case] = {"same": before.logits == now.logits, "steps": len(now.logits), "before": before.masks, "masks": now.masks}
            if case in of_one(window):
                prompts, how = of_one(window)[case]
                plain = watched(model, lambda: outside(model, *prompts, **how))
                compared[case]["as_alone"] = plain.masks == now.masks
        print(json.dumps({"name": name, "cases": compared}), flush=True)


main()
