#!/usr/bin/env python3
"""What the engine's own code holds in memory for tiny models of the catalogue's architectures.

    memory.py ARCHITECTURES.json STEP      (run it with the engine's own Python)

For each architecture it prints a line of JSON: the bytes of each layer's cache after each update, for a request alone (`alone`) and as the
engine's batches hold it (`batched`), the bytes of an entry of the prefix cache (`stored`, `quantised`), and the most that one step of reading
a prompt took beside weights and caches (`working`). The weights are random: only sizes are looked at.
"""

import importlib
import json
import logging
import sys

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import PromptProcessingBatch
from mlx_lm.models.cache import make_prompt_cache
from vllm_mlx.memory_cache import MemoryAwarePrefixCache, MemoryCacheConfig


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


def main():
    logging.basicConfig(level=logging.WARNING)
    with open(sys.argv[1]) as file:
        architectures = json.load(file)
    step = int(sys.argv[2])
    updates = [step, step, 300, 1, 1]
    for name, config in architectures.items():
        model = build(config)
        weights = mx.get_active_memory()
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
                    "weights": weights,
                    "working": [[steps * step, working(model, step, steps)] for steps in (1, 4)],
                }
            ),
            flush=True,
        )
        del model, alone, batch, entry
        mx.clear_cache()


main()
