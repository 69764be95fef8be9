#!/usr/bin/env python3
"""What the engine's own code holds in memory for tiny models of the catalogue's architectures.

    memory.py ARCHITECTURES.json STEP PARTS LIMITS.json      (run it with the engine's own Python)

For each architecture it prints a line of JSON: the bytes of each layer's cache after each update, for a request alone (`alone`) and as the
engine's batches hold it (`batched`), the bytes of an entry of the prefix cache (`stored`), the most that one step of reading a prompt
took beside weights and caches (`working`), and what the prefix cache keeps of full windows with the limits of LIMITS.json (`kept`). For the models
named `turns` and `snapshots` it prints what turns of a conversation took at the most, all in all, with the engine's scheduler as we start it
(`turns`); for the model `turns` also as it is without ours (`copied`), how much of a full window the next turn finds again (`filled`), and
what a dropped entry leaves behind, without and with ours, which is in PARTS. The weights are random: only sizes are looked at.
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


def stored(model, cache, tokens):
    keeper = MemoryAwarePrefixCache(model, MemoryCacheConfig(max_memory_mb=1024))
    assert keeper.store(list(range(tokens)), cache), "the entry was refused"
    return keeper._current_memory


def conversation(model, tokens):
    """The caches of a conversation of so many tokens. Most of it is not computed: rows are rows."""
    cache = make_prompt_cache(model)
    read(model, cache, 512)
    rows = [layer for layer in cache if hasattr(layer, "update_and_fetch")]
    shapes = [(layer.keys.shape, layer.values.shape) for layer in rows]
    dtypes = [layer.keys.dtype for layer in rows]
    left = tokens - 512 - 1
    while left:
        more = min(left, 4096)
        for layer, (keys, values), dtype in zip(rows, shapes, dtypes):
            new = [mx.zeros((*shape[:2], more, shape[3]), dtype) for shape in (keys, values)]
            layer.update_and_fetch(*new)
        left -= more
    # One token of a reply, after which a sliding window is as long as it is to be.
    read(model, cache, 1)
    return cache


def kept(model, window, limits):
    """With each limit, how many entries of a full window are kept, and how many of those that are longer by a half, as it is to mean something."""
    said = [{} for _ in limits]
    for name, tokens in (("full", window), ("longer", window * 3 // 2)):
        cache = conversation(model, tokens)
        for limit, counts in zip(limits, said):
            keeper = MemoryAwarePrefixCache(model, MemoryCacheConfig(max_memory_mb=limit["mib"]))
            for number in range(limit["conversations"] + 1):
                keeper.store([number] * tokens, cache, evict_prefixes=False)
            counts[name] = len(keeper)
            del keeper
    return said


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


def scheduler_of(model, step, mib):
    """As `--continuous-batching --max-num-seqs 1` has it."""
    config = SchedulerConfig(
        max_num_seqs=1,
        prefill_step_size=step,
        enable_prefix_cache=True,
        use_memory_aware_cache=True,
        cache_memory_mb=mib,
    )
    return Scheduler(model, Tokenizer(), config)


def turn(scheduler, name, said):
    """One turn: its request, by the name of its prompt, and its reply, of 8 tokens."""
    sampling = SamplingParams(max_tokens=8, temperature=0.0)
    request = Request(request_id=name, prompt=name, sampling_params=sampling)
    request.prompt_token_ids, request.num_prompt_tokens = list(said), len(said)
    scheduler.add_request(request)
    reply = []
    while scheduler.has_requests():
        for output in scheduler.step().outputs:
            reply += output.new_token_ids
    return request, reply


def filled(model, limits):
    """How many tokens of a conversation that filled its window the next turn finds again, with each limit that is planned for it."""
    found = []
    for limit in limits["limits"]:
        scheduler = scheduler_of(model, 256, limit["mib"])
        said = [number % 300 for number in range(limits["window"] - 8)]
        _, reply = turn(scheduler, "0", said)
        request, _ = turn(scheduler, "1", said + reply + [7] * 20)
        found.append(request.cached_tokens)
    return found


def turns(model, snapshots=None, first=900):
    """Three turns; each goes on from the one before. `snapshots`: of our own, where there are. `first`: tokens of the first prompt."""
    scheduler = scheduler_of(model, 64, 1024)
    gc.collect()
    weights = mx.get_active_memory()
    said = [number % 300 for number in range(first)]
    measured = []
    for number in range(3):
        mx.reset_peak_memory()
        name = f"turn {number}"
        if snapshots:
            snapshots.prompts[name] = (len(name), number == 0)
        request, reply = turn(scheduler, name, said)
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
        said += [number % 300 for number in range(150)]
    return measured


def ours(folder, *names):
    """Parts of what starts the engine, which lie in this folder, as they see each other."""
    parts = {}
    for name in ("patches", *names):
        file = f"{folder}/{name}.py"
        exec(compile(open(file).read(), file, "exec"), parts)
    return parts


def main():
    logging.basicConfig(level=logging.WARNING)
    with open(sys.argv[1]) as file:
        architectures = json.load(file)
    step = int(sys.argv[2])
    with open(sys.argv[4]) as file:
        limits = json.load(file)
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
                    "stored": stored(model, entry, total),
                    "kept": kept(model, limits[name]["window"], limits[name]["limits"]),
                    "working": [[steps * step, working(model, step, steps)] for steps in (1, 4)],
                }
            ),
            flush=True,
        )
        del model, alone, batch, entry
        mx.clear_cache()
    models = dict(later)
    as_it_is = {"copied": turns(models["turns"]), "left": left_behind(models["turns"])}
    ours(sys.argv[3], "entries")["settle_entries"]()
    as_it_is["left_with_ours"] = left_behind(models["turns"])
    os.environ["CCLOCAL_TEXT_ROUTE"] = "yes"
    parts = ours(sys.argv[3], "entries", "take_over", "memory", "pauses", "snapshots")
    snapshots = parts["settle_snapshots"](parts["take_over_entries"]())
    for name, model, taken, more in (("turns", models["turns"], None, as_it_is), ("snapshots", models["snapshots"], snapshots, {})):
        measured = {"name": name, "turns": turns(model, taken)}
        if not taken:
            measured["filled"] = filled(model, limits[name])
        print(json.dumps({**measured, **more}), flush=True)


if __name__ == "__main__":
    main()
