#!/usr/bin/env python3
"""Imports what serving can reach but the tiny models don't: the catalogue's other architectures, every parser, constrained answers, downloads.

    import_all.py        (run it with the engine's own Python)
"""

import importlib
import pkgutil
import sys

MODULES = [
    # The catalogue's architectures, and those of the demo and of common models that a user may name.
    *(f"mlx_lm.models.{name}" for name in ("gemma4", "gemma4_text", "glm4_moe_lite", "llama", "qwen2", "qwen3", "qwen3_5", "qwen3_moe", "gpt_oss", "mistral3")),
    *(f"mlx_vlm.models.{name}" for name in ("gemma3", "gemma4", "qwen2_5_vl", "qwen3_5", "qwen3_5_moe", "qwen3_vl")),
    # Constrained answers.
    "llguidance",
    "llguidance.hf",
    "lmformatenforcer",
    "lmformatenforcer.tokenenforcer",
    "vllm_mlx.constrained",
    # Downloads.
    "hf_xet",
    "huggingface_hub.file_download",
    "huggingface_hub.hf_file_system",
    "huggingface_hub._snapshot_download",
    # Tokenizers that have no tokenizer.json.
    "google.protobuf",
    "sentencepiece",
    "transformers.convert_slow_tokenizer",
]
PACKAGES = ["vllm_mlx.tool_parsers", "vllm_mlx.reasoning", "vllm_mlx.engine", "vllm_mlx.api"]

names = list(MODULES)
for package in PACKAGES:
    found = importlib.import_module(package)
    names += [f"{package}.{module.name}" for module in pkgutil.iter_modules(found.__path__)]
failed = 0
for name in names:
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed += 1
        print(f"FAILED  import {name}: {error}")
print(f"ok      {len(names) - failed} modules import")
sys.exit(failed > 0)
