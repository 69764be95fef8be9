#!/usr/bin/env python3
"""What the engine's own code holds in memory for tiny models of the catalogue's architectures.

    memory.py ARCHITECTURES.json STEP ENTRIES.py SNAPSHOTS.py      (run it with the engine's own Python)

For each architecture it prints a line of JSON: the bytes of each layer's cache after each update, for a request alone (`alone`) and as the
engine's batches hold it (`batched`), the bytes of an entry of the prefix cache (`stored`, `quantised`), and the most that one step of reading
a prompt took beside weights and caches (`working`). For the models named `turns` and `snapshots` it prints what turns of a conversation took at the
most, all in all, with the engine's scheduler as we start it (`plain`, and `quantised`); for `turns` also as it is without ours (`copied`), and
what a dropped entry leaves behind, without and with ours. The weights are random: only sizes are looked at.
"""

import gc
import importlib
import json
import logging
import os
import sys

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import PromptProcessingBatch
from mlx_lm.models.cache import make_prompt_cache
from vllm_mlx.memory_cache import MemoryAwarePrefixCache, MemoryCacheConfig
from vllm_mlx.request import Request, SamplingParams
from vllm_mlx.scheduler import Scheduler, SchedulerConfig


def build(config):
    module = importlib.import_module("mlx_lm.models." + config["model_type"])
    model = module.Model(module.ModelArgs.from_dict(config))
    model.set_dtype(mx.bfloat16)
    # As the real ones are: on a CPU the engine computes with experts in bfloat16 only if their weights are quantised.
    experts = lambda path, module: "switch" in path and hasattr(module, "to_quantized")
    nn.quantize(model, group_size=32, bits=4, class_predicate=experts)
    mx.eval(model.parameters())
    return model


def read(model, cache, tokens):
    """One step of reading a prompt, or one token of a reply, as the engine does it: the logits of a prompt are never computed."""
    model(mx.ones((1, tokens), dtype=mx.int32), cache=cache)
    mx.eval([layer.state for layer in cache])
    mx.clear_cache()


def follow(model, cache, updates):
    held = []
    for tokens in updates:
        read(model, cache, tokens)
        held.append([layer.nbytes for layer in cache])
    return held


def stored(model, cache, tokens, quantise):
    keeper = MemoryAwarePrefixCache(
        model, MemoryCacheConfig(max_memory_mb=1024, kv_quantize=quantise)
    )
    assert keeper.store(list(range(tokens)), cache), "the entry was refused"
    return keeper._current_memory


def working(model, step, steps):
    """Bytes that the last of some steps took beside weights and caches."""
    cache = make_prompt_cache(model)
    for _ in range(steps - 1):
        read(model, cache, step)
    weights = mx.get_active_memory() - sum(layer.nbytes for layer in cache if not layer.empty())
    mx.reset_peak_memory()
    read(model, cache, step)
    return mx.get_peak_memory() - weights - sum(layer.nbytes for layer in cache)


def left_behind(model):
    """Bytes of an entry that was dropped for another one and is still there, while Python looks for no circles."""
    gc.collect()
    gc.disable()
    entries = []
    for _ in range(2):
        cache = make_prompt_cache(model)
        read(model, cache, 64)
        entries.append(cache)
    keeper = MemoryAwarePrefixCache(
        model, MemoryCacheConfig(max_memory_mb=64, max_entries=1, min_prefix_tokens=1)
    )
    before = mx.get_active_memory()
    for number, cache in enumerate(entries):
        assert keeper.store([number] * 64, cache), "the entry was refused"
    assert len(keeper) == 1
    left = mx.get_active_memory() - before - keeper._current_memory
    gc.enable()
    return left


class Tokenizer:
    """As much of one as the scheduler needs."""

    eos_token_id = -1
    eos_token_ids = set()
    clean_up_tokenization_spaces = False

    def decode(self, tokens, **_):
        return "x" * len(tokens)


def turns(model, quantise, snapshots=None):
    """Turns as `--continuous-batching --max-num-seqs 1` serves them; each goes on from the one before. `snapshots`: of our own, where there are."""
    config = SchedulerConfig(
        max_num_seqs=1,
        prefill_step_size=64,
        enable_prefix_cache=True,
        use_memory_aware_cache=True,
        cache_memory_mb=1024,
        kv_cache_quantization=quantise,
    )
    scheduler = Scheduler(model, Tokenizer(), config)
    gc.collect()
    weights = mx.get_active_memory()
    said = [number % 300 for number in range(1200)]
    measured = []
    for turn in range(3):
        mx.reset_peak_memory()
        sampling = SamplingParams(max_tokens=8, temperature=0.0)
        prompt = f"turn {turn}"
        if snapshots:
            snapshots.prompts[prompt] = (len(prompt), turn == 0)
        request = Request(request_id=str(turn), prompt=prompt, sampling_params=sampling)
        request.prompt_token_ids, request.num_prompt_tokens = list(said), len(said)
        scheduler.add_request(request)
        reply = []
        while scheduler.has_requests():
            for output in scheduler.step().outputs:
                reply += output.new_token_ids
        said = said + reply
        entries = scheduler.memory_aware_cache._entries
        measured.append(
            {
                "tokens": len(said),
                "reused": request.cached_tokens,
                "peak": mx.get_peak_memory() - weights,
                "entries": sorted(len(key) for key in entries),
                "stored": scheduler.memory_aware_cache._current_memory,
            }
        )
        said += [number % 300 for number in range(600)]
    return measured


def ours(file, name):
    """Puts a part of what starts the engine into place."""
    parts = {}
    exec(compile(open(file).read(), file, "exec"), parts)
    return parts[name]()


def main():
    logging.basicConfig(level=logging.WARNING)
    with open(sys.argv[1]) as file:
        architectures = json.load(file)
    step = int(sys.argv[2])
    updates = [step, step, 300, 1, 1]
    later = []
    for name, config in architectures.items():
        model = build(config)
        if name in ("turns", "snapshots"):
            later.append((name, model))
            continue
        alone = make_prompt_cache(model)
        held = follow(model, alone, updates)
        batch = PromptProcessingBatch(model, [0], [make_prompt_cache(model)])
        batched = follow(model, batch.prompt_cache, updates)
        total = sum(updates)
        entry = batch.extract_cache(0)
        print(
            json.dumps(
                {
                    "name": name,
                    "updates": updates,
                    "alone": held,
                    "batched": batched,
                    "stored": stored(model, entry, total, False),
                    "quantised": stored(model, batch.extract_cache(0), total, True),
                    "working": [[steps * step, working(model, step, steps)] for steps in (1, 4)],
                }
            ),
            flush=True,
        )
        del model, alone, batch, entry
        mx.clear_cache()
    models = dict(later)
    as_it_is = {"copied": turns(models["turns"], False), "left": left_behind(models["turns"])}
    ours(sys.argv[3], "settle_entries")
    as_it_is["left_with_ours"] = left_behind(models["turns"])
    os.environ["CCLOCAL_TEXT_ROUTE"] = "yes"
    snapshots = ours(sys.argv[4], "settle_snapshots")
    for name, model, kept, more in (("turns", models["turns"], None, as_it_is), ("snapshots", models["snapshots"], snapshots, {})):
        measured = {"name": name, "plain": turns(model, False, kept), "quantised": turns(model, True, kept)}
        print(json.dumps({**measured, **more}), flush=True)


main()
