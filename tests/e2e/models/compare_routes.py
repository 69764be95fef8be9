#!/usr/bin/env python3
"""Compares what the two routes compute of a multimodal model: the whole of it (mlx-vlm), and its text part in a folder of links (mlx-lm).

    compare_routes.py MODEL_DIR WORK_DIR TEXT_ROUTE_PY          (run it with the engine's own Python)

What makes the tiny models answer with a tool call is replaced by random weights, so that every token depends on all before it. Prints, as JSON,
for a prompt longer than the sliding window: how many of the greedy tokens agree from the start, and the largest difference between the logits of a step
relative to their spread, over the steps until then.
"""

import json
import shutil
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

PROMPT, STEPS = 900, 64


def randomised(model, work):
    shutil.copytree(model, work)
    mx.random.seed(1)
    weights = mx.load(str(work / "model.safetensors"))
    for name, value in weights.items():
        if name.endswith(("o_proj.weight", "out_proj.weight", "down_proj.weight", "up_proj.weight", "gate_proj.weight", "embed_tokens.weight", "per_layer_projection.weight")):
            weights[name] = (mx.random.normal(value.shape) * value.shape[-1] ** -0.5).astype(value.dtype)
        elif name.endswith("norm.weight"):
            # What Gemma's layers add outweighs the token that came in, which would else be repeated, as the output matrix is the embedding.
            weights[name] = mx.full(value.shape, 8.0 if "post_" in name else 1.0, dtype=value.dtype)
    mx.eval(weights)
    mx.save_safetensors(str(work / "model.safetensors"), weights, metadata={"format": "mlx"})


def greedy(step, prompt):
    """The most likely tokens one after the other, and the logits of each step."""
    tokens, logits = [], []
    following = mx.array([prompt])
    for _ in range(STEPS):
        last = step(following)
        logits.append(np.array(last.astype(mx.float32)))
        tokens.append(int(logits[-1].argmax()))
        following = mx.array([[tokens[-1]]])
    return tokens, logits


def text_route(folder, prompt):
    from mlx_lm import load

    model, _ = load(str(folder))
    cache = make_prompt_cache(model)
    return greedy(lambda tokens: model(tokens, cache=cache)[0, -1], prompt)


def whole(folder, prompt):
    from mlx_vlm.utils import load_model

    model = load_model(Path(folder))
    cache = make_prompt_cache(model.language_model)
    return greedy(lambda tokens: model.language_model(tokens, cache=cache).logits[0, -1], prompt)


def main():
    model, work, route = map(Path, sys.argv[1:4])
    own = {}
    exec(route.with_name("files.py").read_text(), own)
    exec(route.read_text(), own)  # As the engine's start has it: without a module of its own.
    work.mkdir()
    randomised(model, work / "whole")
    folder = own["folder_of_links"](work / "text", str(work / "whole"), work / "whole")
    size = json.loads((model / "config.json").read_text())["vocab_size"]
    prompt = np.random.default_rng(2).integers(10, size - 100, PROMPT).tolist()
    ours, our_logits = text_route(folder, prompt)
    theirs, their_logits = whole(work / "whole", prompt)
    same = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), STEPS)
    apart = [float(np.abs(a - b).max() / b.std()) for a, b in zip(our_logits, their_logits)]
    print(json.dumps({"steps": STEPS, "same": same, "apart": max(apart[: max(same, 1)]), "distinct": len(set(ours))}))


main()
