#!/usr/bin/env python3
"""Writes a tiny model for each architecture of the catalogue, to measure what the turns of a tool loop cost.

    turn_models.py OUT_DIR [NAME...]          (run it with the engine's own Python)

  qwen2, qwen3_moe, glm4_moe_lite    Qwen2.5-Coder, Qwen3-Coder, GLM-4.7-Flash: caches that can be cut back
  qwen2_deep                         the same as the first with more layers: conversations take more memory than a step of reading them
  gemma4_e, gemma4_moe               Gemma-4-E4B (shared caches, inputs for each layer) and Gemma-4-26B (experts), with vision and audio parts
  qwen3_5                            Qwen3.5, with its vision part

Their weights are random except for what makes them answer every prompt with a tool call (see `tiny_models.py`). What decides how much of a prompt is
computed again is as in the real ones: kinds of layers, names of weights, the form of tool calls, and how the template ends a prompt and repeats a reply.
"""

import inspect
import json
import shutil
import sys
import textwrap
from pathlib import Path

import mlx.core as mx
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from tiny_models import HIDDEN, MEDIA, Chain, pieces, write

FILE = "/tmp/notes.txt"
# As few as have every kind: attention is slow on a processor, and a turn of the tests reads thousands of tokens.
LAYERS = 2
VOCABULARY = 1200

# Forms of tool calls, as the models write them and their templates repeat them.
JSON_CALL = '<tool_call>\n{"name": "Read", "arguments": {"file_path": "%s"}}\n</tool_call>' % FILE
XML_CALL = "<tool_call>\n<function=Read>\n<parameter=file_path>\n%s\n</parameter>\n</function>\n</tool_call>" % FILE
GLM_CALL = "<tool_call>Read<arg_key>file_path</arg_key><arg_value>%s</arg_value></tool_call>" % FILE
GEMMA_CALL = '<|tool_call>call:Read{file_path:<|"|>%s<|"|>}<tool_call|>' % FILE

REPEAT_JSON = """<tool_call>\n{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>"""
REPEAT_XML = """<tool_call>\n<function={{ c.function.name }}>\n{% for k, v in c.function.arguments.items() %}<parameter={{ k }}>\n{{ v }}\n</parameter>\n{% endfor %}</function>\n</tool_call>"""
REPEAT_GLM = """<tool_call>{{ c.function.name }}{% for k, v in c.function.arguments.items() %}<arg_key>{{ k }}</arg_key><arg_value>{{ v }}</arg_value>{% endfor %}</tool_call>"""
REPEAT_GEMMA = """<|tool_call>call:{{ c.function.name }}{% raw %}{{% endraw %}{% for k, v in c.function.arguments.items() %}{{ k }}:<|"|>{{ v }}<|"|>{% endfor %}{% raw %}}{% endraw %}<tool_call|>"""

TEXT_OF = """{% macro text(m) %}{% if m.content is string %}{{ m.content | trim }}{% else %}{% for part in m.content or [] %}{{ part.text }}{% endfor %}{% endif %}{% endmacro %}"""


def chatml(repeat, thought="", thought_in_history=""):
    """`thought` ends a prompt; `thought_in_history` stands before replies since the last question, as in Qwen3.5."""
    return (
        TEXT_OF
        + """{% set ns = namespace(question=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.question = loop.index0 %}{% endif %}{% endfor %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ text(messages[0]) }}{% endif %}{% if tools %}
# Tools
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}{% endif %}<|im_end|>
{% for m in messages %}{% if m.role == 'system' and loop.first %}{% elif m.role == 'tool' %}<|im_start|>user
<tool_response>
{{ text(m) }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ m.role }}
{% if m.role == 'assistant' and loop.index0 > ns.question %}"""
        + thought_in_history
        + "{% endif %}{{ text(m) }}{% for c in m.tool_calls or [] %}"
        + repeat
        + """{% endfor %}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
"""
        + thought
        + "{% endif %}"
    )


GLM = (
    TEXT_OF
    + "[gMASK]<sop>{% if tools %}<|system|>\n# Tools\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{% endif %}"
    + "{% for m in messages %}{% if m.role == 'tool' %}<|observation|><tool_response>{{ text(m) }}</tool_response>"
    + "{% elif m.role == 'assistant' %}<|assistant|></think>{{ text(m) }}{% for c in m.tool_calls or [] %}"
    + REPEAT_GLM
    + "{% endfor %}{% else %}<|{{ m.role }}|>{{ text(m) }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|></think>{% endif %}"
)


def gemma(thought):
    """The reply goes on in one turn of the model's after tool responses; `thought` ends a prompt that asks, and is not repeated."""
    return (
        TEXT_OF
        + """<bos><|turn>system
{% if messages[0].role == 'system' %}{{ text(messages[0]) }}{% endif %}{% for tool in tools or [] %}<|tool>{{ tool | tojson }}<tool|>{% endfor %}<turn|>
{% set ns = namespace(last='', open=false) %}{% for m in messages %}{% if m.role == 'system' and loop.first %}{% elif m.role == 'tool' %}<|tool_response>response:Read{value:<|"|>{{ text(m) }}<|"|>}<tool_response|>{% set ns.last = 'tool' %}{% elif m.role == 'assistant' %}{% if not ns.open %}<|turn>model
{% endif %}{% set ns.open = true %}{% set ns.last = 'model' %}{{ text(m) }}{% for c in m.tool_calls or [] %}"""
        + REPEAT_GEMMA
        + """{% endfor %}{% if not m.tool_calls %}<turn|>
{% set ns.open = false %}{% endif %}{% else %}{% if ns.open %}<turn|>
{% set ns.open = false %}{% endif %}<|turn>{{ m.role }}
{{ text(m) }}<turn|>
{% set ns.last = m.role %}{% endif %}{% endfor %}{% if add_generation_prompt and ns.last != 'tool' %}<|turn>model
"""
        + thought
        + "{% endif %}"
    )


CHATML_MARKS = ["<|im_start|>", "<|im_end|>"]
GEMMA_MARKS = ["<bos>", "<|turn>", "<turn|>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", "<|channel>", "<channel|>", '<|"|>']
GLM_MARKS = ["[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
NO_THOUGHT = "<think>\n\n</think>\n\n"
EMPTY_CHANNEL = "<|channel>thought\n<channel|>"


def tokenizer(marks, call, end, starts):
    """A tokenizer of a few bytes a token, as real ones have. Returns it and the chains from what may end a prompt through the call."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    corpus = [inspect.getsource(module) for module in (json, inspect, shutil, textwrap, sys.modules["pathlib"])]
    # So that the loop's 26 kB are about as many tokens as they are to real models.
    corpus += [f"Sentence {number} is about what Read is for: take care of it before the next one. " for number in range(200)]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    tok.train_from_iterator(corpus, trainer)
    media = [mark for mark in MEDIA.values() if mark not in marks]
    tok.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in [*marks, *media]])
    opening, rest = split_marks(call, marks)
    added = [piece for part in rest for piece in ([part] if part in marks else pieces(part, 6))]
    words = [piece for piece in added if piece not in marks]
    assert len(set(words)) == len(words), f"a piece that repeats would make the chain ambiguous: {words}"
    tok.add_tokens([AddedToken(word, special=False, normalized=False) for word in words])
    # A mark may come twice in a call, and a chain knows the last token alone: such marks stay text inside the pieces.
    reply = [tok.token_to_id(piece) for piece in ([opening] if opening else []) + added] + [tok.token_to_id(end)]
    assert None not in reply and len(set(reply)) == len(reply), added
    chains = [[tok.encode(start, add_special_tokens=False).ids[-1], *reply] for start in starts]
    return tok, chains


def split_marks(call, marks):
    """The call's first mark, and the rest in parts; of marks, those that come once."""
    opening = next((mark for mark in marks if call.startswith(mark)), "")
    rest, parts = call[len(opening) :], []
    closing = next((mark for mark in marks if rest.endswith(mark)), "")
    if closing:
        rest = rest[: -len(closing)]
    parts.append(rest)
    if closing:
        parts.append(closing)
    return opening, parts


def lm(architecture, **config):
    """A model of text alone, by its module in mlx-lm."""

    def make(size, tok):
        module = __import__(f"mlx_lm.models.{architecture}", fromlist=["Model"])
        settings = {"model_type": architecture, "architectures": ["X"], "vocab_size": size, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "tie_word_embeddings": False, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 131072, **config}
        return module.Model(module.ModelArgs.from_dict(settings)), settings

    return make


def gemma4(**more):
    def make(size, tok):
        from mlx_vlm.models.gemma4 import AudioConfig, Model, ModelConfig, TextConfig, VisionConfig

        text = {
            "model_type": "gemma4_text",
            "hidden_size": HIDDEN,
            "num_hidden_layers": 4,
            "intermediate_size": 256,
            "num_attention_heads": 4,
            "head_dim": 64,
            "global_head_dim": 128,
            "vocab_size": size,
            "vocab_size_per_layer_input": size,
            "num_key_value_heads": 1,
            "num_kv_shared_layers": 0,
            "hidden_size_per_layer_input": 0,
            "sliding_window": 512,
            "use_double_wide_mlp": False,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "final_logit_softcapping": 30.0,
            # The two libraries fill in different ones where a configuration names none. The real ones do.
            "rope_parameters": {
                "full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0, "rope_type": "proportional"},
                "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
            },
            **more,
        }
        vision = {"model_type": "gemma4_vision", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32, "global_head_dim": 32, "position_embedding_size": 1024}
        audio = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "subsampling_conv_channels": [16, 8], "output_proj_dims": 64}
        ids = {f"{name}_id": tok.token_to_id(MEDIA[name]) for name in ("image_token", "boi_token", "eoi_token", "audio_token", "boa_token", "eoa_token", "video_token")}
        config = {"model_type": "gemma4", "architectures": ["Gemma4ForConditionalGeneration"], "text_config": text, "vision_config": vision, "audio_config": audio, "vocab_size": size, "hidden_size": HIDDEN, **ids}
        settings = ModelConfig.from_dict(config)
        settings.text_config, settings.vision_config, settings.audio_config = TextConfig.from_dict(text), VisionConfig.from_dict(vision), AudioConfig.from_dict(audio)
        return Model(settings), config

    return make


def qwen3_5(size, tok):
    from mlx_vlm.models.qwen3_5 import Model, ModelConfig

    text = {
        "model_type": "qwen3_5_text",
        "hidden_size": HIDDEN,
        "intermediate_size": 128,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": size,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 131072,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 32,
        "linear_conv_kernel_dim": 4,
        "full_attention_interval": 2,
        "tie_word_embeddings": False,
        "eos_token_id": tok.token_to_id("<|im_end|>"),
        "rope_parameters": {"type": "default", "mrope_section": [3, 3, 2], "rope_theta": 100000, "partial_rotary_factor": 0.25},
    }
    vision = {"model_type": "qwen3_5", "depth": 1, "hidden_size": 64, "intermediate_size": 128, "out_hidden_size": HIDDEN, "num_heads": 2, "patch_size": 16, "num_position_embeddings": 256}
    ids = {f"{name}_id": tok.token_to_id(MEDIA[name]) for name in ("image_token", "video_token", "vision_start_token", "vision_end_token")}
    config = {"model_type": "qwen3_5", "architectures": ["Qwen3_5ForConditionalGeneration"], "vocab_size": size, "tie_word_embeddings": False, "text_config": text, "vision_config": vision, **ids}
    return Model(ModelConfig.from_dict(config)), config


GEMMA_PROCESSOR = {
    "processor_class": "Gemma4Processor",
    "audio_ms_per_token": 40,
    "audio_seq_length": 750,
    "image_processor": {"image_processor_type": "Gemma4ImageProcessor", "max_soft_tokens": 70, "patch_size": 16, "pooling_kernel_size": 3},
    "feature_extractor": {"feature_extractor_type": "Gemma4AudioFeatureExtractor", "sampling_rate": 16000},
    "video_processor": {"video_processor_type": "Gemma4VideoProcessor"},
}
QWEN_IMAGE = {"image_processor_type": "Qwen2VLImageProcessorFast", "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2}
QWEN_PROCESSORS = {
    "preprocessor_config.json": {**QWEN_IMAGE, "processor_class": "Qwen3VLProcessor"},
    "video_preprocessor_config.json": {**QWEN_IMAGE, "video_processor_type": "Qwen3VLVideoProcessor"},
}
ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128}
THINK = ["<think>", "</think>"]

# name: (model, marks, call, what ends a reply, what may end a prompt, template, output matrix is the embedding, files beside)
MODELS = {
    "qwen2": (lm("qwen2", **ATTENTION), CHATML_MARKS, JSON_CALL, "<|im_end|>", ["assistant\n"], chatml(REPEAT_JSON), False, {}),
    "qwen2_deep": (lm("qwen2", **ATTENTION, num_hidden_layers=6), CHATML_MARKS, JSON_CALL, "<|im_end|>", ["assistant\n"], chatml(REPEAT_JSON), False, {}),
    "qwen3_moe": (
        lm("qwen3_moe", **ATTENTION, head_dim=64, num_experts=4, num_experts_per_tok=2, decoder_sparse_step=1, mlp_only_layers=[], moe_intermediate_size=32, norm_topk_prob=True),
        CHATML_MARKS, XML_CALL, "<|im_end|>", ["assistant\n"], chatml(REPEAT_XML), False, {},
    ),
    "glm4_moe_lite": (
        lm("glm4_moe_lite", intermediate_size=128, moe_intermediate_size=32, num_attention_heads=4, num_key_value_heads=4, n_shared_experts=1, n_routed_experts=4, kv_lora_rank=64, q_lora_rank=32, qk_rope_head_dim=64, qk_nope_head_dim=64, v_head_dim=64, num_experts_per_tok=2, first_k_dense_replace=1, num_nextn_predict_layers=0),
        [*GLM_MARKS, *THINK], GLM_CALL, "<|observation|>", ["</think>"], GLM, False, {},
    ),
    "gemma4_e": (
        gemma4(num_kv_shared_layers=2, hidden_size_per_layer_input=16), GEMMA_MARKS, GEMMA_CALL, "<|tool_response>", ["model\n", "<tool_response|>"], gemma(""), True,
        {"processor_config.json": GEMMA_PROCESSOR},
    ),
    "gemma4_moe": (
        gemma4(enable_moe_block=True, num_experts=4, top_k_experts=2, moe_intermediate_size=32, attention_k_eq_v=True, num_global_key_value_heads=1), GEMMA_MARKS, GEMMA_CALL, "<|tool_response>", ["<channel|>", "<tool_response|>"], gemma(EMPTY_CHANNEL), True,
        {"processor_config.json": GEMMA_PROCESSOR},
    ),
    "qwen3_5": (qwen3_5, [*CHATML_MARKS, *THINK], XML_CALL, "<|im_end|>", ["</think>\n\n"], chatml(REPEAT_XML, NO_THOUGHT, NO_THOUGHT), False, QWEN_PROCESSORS),
}  # fmt: skip


def main():
    out = Path(sys.argv[1])
    for name in sys.argv[2:] or MODELS:
        # With random weights a reply depends on all that stands before it.
        make, marks, call, end, starts, template, tied, files = MODELS[name.removesuffix("-random")]
        mx.random.seed(0)
        tok, chains = tokenizer(marks, call, end, starts)
        model, config = make(tok.get_vocab_size(), tok)
        media = {} if name.removesuffix("-random") in ("qwen2", "qwen3_moe", "glm4_moe_lite") else MEDIA
        chain = None if name.endswith("-random") else Chain(tok.get_vocab_size(), chains)
        write(out / name, tok, model, config, chain, tied, template, end, media)
        for file, text in files.items():
            (out / name / file).write_text(json.dumps(text, indent=1))


main()
