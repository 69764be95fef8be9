"""The measuring part of `bench-masks.sh`: PATCHES LENGTHS PAIRS.

Batches of one conversation, of tiny models with layers of full attention, with sliding ones, and with compressed ones: with the arrays for masks
that the engine makes, and without them, in turns. Most of a conversation is not computed: rows are rows. Of a token of the reply and of a step of the prompt
it prints the processor time, the median of the pairs' ratios with the shortest and the longest, and the most that a step of a prompt took in memory beside weights and caches.
"""

import importlib
import statistics
import sys
import time

import mlx.core as mx
from mlx_lm.generate import PromptProcessingBatch
from mlx_lm.models import cache as caches

STEP, TOKENS = 64, 16
SHAPE = {"hidden_size": 256, "intermediate_size": 512, "vocab_size": 320, "num_attention_heads": 4, "rms_norm_eps": 1e-6, "tie_word_embeddings": True}
MODELS = {
    "full attention (qwen3)": {**SHAPE, "model_type": "qwen3", "num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 128, "max_position_embeddings": 131072, "rope_theta": 1e6},
    "sliding and full (gemma4)": {
        **SHAPE, "model_type": "gemma4_text", "num_hidden_layers": 2, "head_dim": 128, "global_head_dim": 256, "vocab_size_per_layer_input": 320, "num_key_value_heads": 2,
        "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 0, "sliding_window": 512, "sliding_window_pattern": 2, "use_double_wide_mlp": False,
    },
    "compressed (glm4_moe_lite)": {
        **SHAPE, "model_type": "glm4_moe_lite", "num_hidden_layers": 2, "num_key_value_heads": 4, "moe_intermediate_size": 32, "n_shared_experts": 1, "n_routed_experts": 4, "kv_lora_rank": 128,
        "q_lora_rank": 64, "qk_rope_head_dim": 64, "qk_nope_head_dim": 64, "v_head_dim": 64, "num_experts_per_tok": 2, "first_k_dense_replace": 2, "num_nextn_predict_layers": 0,
    },
}  # fmt: skip


class Kinds:
    """Switches between the engine's masks and ours."""

    def __init__(self, patches):
        kinds = (caches.BatchKVCache, caches.BatchRotatingKVCache)
        engines = [(kind, kind.make_mask) for kind in kinds]
        parts = {}
        for name in ("patches", "masks"):
            with open(f"{patches}/{name}.py") as source:
                exec(source.read(), parts)
        parts["attend_without_arrays"]()
        self.masks = {"arrays": engines, "ours": [(kind, kind.make_mask) for kind in kinds]}
        assert self.masks["ours"] != engines, "the patch does not apply"

    def use(self, name):
        for kind, make_mask in self.masks[name]:
            kind.make_mask = make_mask


def build(config):
    module = importlib.import_module("mlx_lm.models." + config["model_type"])
    model = module.Model(module.ModelArgs.from_dict(config))
    mx.eval(model.parameters())
    return model


def compute(model, cache, tokens):
    logits = model(mx.ones((1, tokens), mx.int32), cache=cache)
    mx.eval([layer.state for layer in cache], logits if tokens == 1 else [])


def conversation(model, length):
    """The cache of a batch with a conversation of so many tokens."""
    cache = caches.make_prompt_cache(model)
    compute(model, cache, 64)
    for layer in cache:
        shapes = [(*rows.shape[:2], length - 64, rows.shape[3]) for rows in (layer.keys, layer.values)]
        layer.update_and_fetch(*(mx.random.normal(shape) * 0.1 for shape in shapes))
    compute(model, cache, 1)
    batch = PromptProcessingBatch(model, [0], [cache]).prompt_cache
    mx.eval([layer.state for layer in batch])
    return batch


def cut(cache, tokens):
    """A sliding window goes on; the others are as they were."""
    for layer in cache:
        if isinstance(layer, caches.BatchKVCache):
            layer.trim(tokens)


def seconds(model, cache, tokens, times):
    before = time.process_time()
    for _ in range(times):
        compute(model, cache, tokens)
    spent = time.process_time() - before
    cut(cache, tokens * times)
    return spent / times


def row(name, length, what, unit, figures):
    ratios = sorted(ours / arrays for ours, arrays in zip(figures["ours"], figures["arrays"]))
    arrays, ours = (statistics.median(figures[kind]) * unit for kind in ("arrays", "ours"))
    print(f"| {name} | {length:,} | {what} | {arrays:.1f} | {ours:.1f} | {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}) |", flush=True)


def main():
    kinds = Kinds(sys.argv[1])
    lengths, pairs = map(int, sys.argv[2].split(",")), int(sys.argv[3])
    print("| layers | tokens before | | with arrays | without | |\n| --- | --- | --- | --- | --- | --- |")
    models = {name: build(config) for name, config in MODELS.items()}
    for length in lengths:
        for name, model in models.items():
            cache = conversation(model, length)
            figures = {what: {"arrays": [], "ours": []} for what in ("token", "step", "memory")}
            for pair in range(pairs + 1):
                for kind in ("arrays", "ours") if pair % 2 else ("ours", "arrays"):
                    kinds.use(kind)
                    measured = {"token": seconds(model, cache, 1, TOKENS)}
                    held = mx.get_active_memory()
                    mx.reset_peak_memory()
                    measured |= {"step": seconds(model, cache, STEP, 1), "memory": mx.get_peak_memory() - held}
                    if pair:  # The first is to warm up.
                        for what, figure in measured.items():
                            figures[what][kind].append(figure)
            row(name, length, "a token, ms", 1e3, figures["token"])
            row(name, length, f"a step of {STEP} tokens, ms", 1e3, figures["step"])
            row(name, length, "memory of a step, MB", 1e-6, figures["memory"])


main()
