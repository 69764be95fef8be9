#!/usr/bin/env python3
"""Writes tiny models of three kinds that the real engine loads and that answer with a real tool call.

    tiny_models.py OUT_DIR          (run it with the engine's own Python)

  OUT_DIR/text      a Llama: the text route
  OUT_DIR/gemma4    a whole Gemma-4, with vision and audio parts: the multimodal route of the default model
  OUT_DIR/qwen3_5   a whole Qwen3.5, with its vision part: the multimodal route of the other multimodal model

Nothing is trained. Attention outputs nothing (its last projection is zero), so the next token depends on the current one alone, and the output
matrix (or, where that is the embedding, one MLP) links a chain of tokens that spells the reply: a `Write` call first, a sentence after a tool result.
Everything around that is real: weights in every part, configuration, tokenizer, processor settings, chat template.
"""

import json
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

HIDDEN = 256
CALL = '<tool_call>\n{"name": "Write", "arguments": {"file_path": "/tmp/hello.txt", "content": "hello world"}}\n</tool_call>'
DONE = "Done: the file is written."
END, ASK, AFTER_TOOL = "<|im_end|>", "<|ask|>", "<|after_tool|>"
# The names under which the two processors look for their tokens.
MEDIA = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
    "video_token": "<|video|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
TEMPLATE = (
    "{%- for m in messages %}"
    "<|im_start|>{{ m.role }}\n"
    "{%- if m.content is string %}{{ m.content }}{%- else %}{%- for part in m.content or [] %}"
    "{%- if part.type == 'image' %}<|vision_start|><|image|><|vision_end|>{%- elif part.type == 'audio' %}<|audio|>"
    "{%- else %}{{ part.text }}{%- endif %}{%- endfor %}{%- endif %}"
    "{%- for c in m.tool_calls or [] %}{{ c.function | tojson }}{%- endfor %}<|im_end|>\n"
    "{%- endfor %}{%- if tools %}{{ tools | tojson }}{%- endif %}"
    "{%- if add_generation_prompt %}{%- if messages[-1].role == 'tool' %}<|after_tool|>{%- else %}<|ask|>{%- endif %}{%- endif %}"
)


def pieces(text, length):
    return [text[i : i + length] for i in range(0, len(text), length)]


def tokenizer():
    """Bytes, the pieces of the replies, and the marks of the template. Returns it and the chains."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    call, done = pieces(CALL, 7), pieces(DONE, 5)
    assert len(set(call + done)) == len(call + done), "a piece that repeats would make the chain ambiguous"
    # Without merges nothing is ever encoded as a piece, but each decodes as one, written in the byte alphabet like any other token.
    written = [piece.replace(" ", "\u0120").replace("\n", "\u010a") for piece in call + done]
    tok = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet + written)}, merges=[]))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    marks = ["<|im_start|>", END, ASK, AFTER_TOOL, *MEDIA.values()]
    tok.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    first = len(alphabet)
    call_ids = list(range(first, first + len(call)))
    done_ids = list(range(first + len(call), first + len(written)))
    end = tok.token_to_id(END)
    return tok, [[tok.token_to_id(ASK), *call_ids, end], [tok.token_to_id(AFTER_TOOL), *done_ids, end]]


class Chain:
    """Which token follows which, as weights."""

    def __init__(self, size, chains):
        self.links = [link for chain in chains for link in zip(chain, chain[1:])]
        embedding = np.random.default_rng(0).standard_normal((size, HIDDEN)).astype(np.float32)
        self.embedding = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)

    def head(self):
        """An output matrix that answers with the next token, for a model whose layers add nothing."""
        head = np.zeros_like(self.embedding)
        for now, following in self.links:
            head[following] += 60 * self.embedding[now]
        return head

    def mlp(self, width):
        """The three matrices of an MLP that answers with the next token's embedding, for a model whose output matrix is its embedding."""
        gate, up, down = (np.zeros(shape, np.float32) for shape in ((width, HIDDEN), (width, HIDDEN), (HIDDEN, width)))
        for unit, (now, following) in enumerate(self.links):
            gate[unit] = up[unit] = self.embedding[now]
            down[:, unit] = self.embedding[following]
        return {"gate_proj.weight": gate, "up_proj.weight": up, "down_proj.weight": down}


def follow(model, chain, tied):
    """The model's parameters, changed so that it follows the chain; `tied` when the output matrix is the embedding."""
    weights = {}
    for name, value in tree_flatten(model.parameters()):
        if not any(part in name for part in ("vision", "audio")):
            if name.endswith(("o_proj.weight", "out_proj.weight", "down_proj.weight")):
                value = mx.zeros_like(value)
            elif name.endswith("embed_tokens.weight"):
                value = mx.array(chain.embedding)
            elif name.endswith("lm_head.weight"):
                value = mx.array(chain.head())
            elif name.endswith("model.norm.weight"):
                value = mx.full(value.shape, 1.0 if tied else HIDDEN**-0.5)
            if tied and "layers.0.mlp." in name:
                value = mx.array(chain.mlp(value.shape[1 if name.endswith("down_proj.weight") else 0])[name.split("mlp.")[1]])
            elif tied and name.endswith("layers.0.post_feedforward_layernorm.weight"):
                value = mx.full(value.shape, 10.0)  # outweighs the token that came in
        weights[name] = value
    return weights


def write(out, tok, model, config, chain, tied=False, template=TEMPLATE, end=END, media=MEDIA):
    out.mkdir(parents=True, exist_ok=True)
    weights = follow(model, chain, tied) if chain else dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(out / "model.safetensors"), weights, metadata={"format": "mlx"})
    tok.save(str(out / "tokenizer.json"))
    ends = tok.token_to_id(end)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 131072,
        "eos_token": end,
        "pad_token": end,
        "extra_special_tokens": media,
        "clean_up_tokenization_spaces": False,
    }
    (out / "chat_template.jinja").write_text(template)
    (out / "config.json").write_text(json.dumps({**config, "eos_token_id": ends}, indent=1))
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    (out / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    print(out.name, sum(value.nbytes for value in weights.values()) // 1000, "kB", len(weights), "tensors")


def text_model(out, tok, chain):
    from mlx_lm.models import llama

    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": HIDDEN,
        "num_hidden_layers": 1,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "rms_norm_eps": 1e-5,
        "vocab_size": tok.get_vocab_size(),
        "rope_theta": 10000.0,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
    }
    write(out, tok, llama.Model(llama.ModelArgs.from_dict(config)), config, chain)


def gemma4(out, tok, chain):
    from mlx_vlm.models.gemma4 import AudioConfig, Model, ModelConfig, TextConfig, VisionConfig

    size = tok.get_vocab_size()
    text = {
        "model_type": "gemma4_text",
        "hidden_size": HIDDEN,
        "num_hidden_layers": 3,
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
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    }
    vision = {
        "model_type": "gemma4_vision",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "global_head_dim": 32,
        "position_embedding_size": 1024,
    }
    audio = {
        "hidden_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "subsampling_conv_channels": [16, 8],
        "output_proj_dims": 64,
    }
    config = {
        "model_type": "gemma4",
        "architectures": ["Gemma4ForConditionalGeneration"],
        "text_config": text,
        "vision_config": vision,
        "audio_config": audio,
        "vocab_size": size,
        "hidden_size": HIDDEN,
        "image_token_id": tok.token_to_id(MEDIA["image_token"]),
        "boi_token_id": tok.token_to_id(MEDIA["boi_token"]),
        "eoi_token_id": tok.token_to_id(MEDIA["eoi_token"]),
        "audio_token_id": tok.token_to_id(MEDIA["audio_token"]),
        "boa_token_id": tok.token_to_id(MEDIA["boa_token"]),
        "eoa_token_id": tok.token_to_id(MEDIA["eoa_token"]),
        "video_token_id": tok.token_to_id(MEDIA["video_token"]),
    }
    settings = ModelConfig.from_dict(config)
    settings.text_config = TextConfig.from_dict(text)
    settings.vision_config = VisionConfig.from_dict(vision)
    settings.audio_config = AudioConfig.from_dict(audio)
    write(out, tok, Model(settings), config, chain, tied=True)
    # As on the hub: both processors have settings of their own, the audio one included.
    processor = {
        "processor_class": "Gemma4Processor",
        "audio_ms_per_token": 40,
        "audio_seq_length": 750,
        "image_processor": {"image_processor_type": "Gemma4ImageProcessor", "max_soft_tokens": 70, "patch_size": 16, "pooling_kernel_size": 3},
        "feature_extractor": {"feature_extractor_type": "Gemma4AudioFeatureExtractor", "sampling_rate": 16000},
        "video_processor": {"video_processor_type": "Gemma4VideoProcessor"},
    }
    (out / "processor_config.json").write_text(json.dumps(processor, indent=1))


def qwen3_5(out, tok, chain):
    from mlx_vlm.models.qwen3_5 import Model, ModelConfig

    size = tok.get_vocab_size()
    config = {
        "model_type": "qwen3_5",
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "vocab_size": size,
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": "qwen3_5_text",
            "hidden_size": HIDDEN,
            "intermediate_size": 128,
            "num_hidden_layers": 4,
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
            "full_attention_interval": 4,
            "tie_word_embeddings": False,
            "eos_token_id": tok.token_to_id(END),
            "rope_parameters": {"type": "default", "mrope_section": [3, 3, 2], "rope_theta": 100000, "partial_rotary_factor": 0.25},
        },
        "vision_config": {
            "model_type": "qwen3_5",
            "depth": 1,
            "hidden_size": 64,
            "intermediate_size": 128,
            "out_hidden_size": HIDDEN,
            "num_heads": 2,
            "patch_size": 16,
            "num_position_embeddings": 256,
        },
        "image_token_id": tok.token_to_id(MEDIA["image_token"]),
        "video_token_id": tok.token_to_id(MEDIA["video_token"]),
        "vision_start_token_id": tok.token_to_id(MEDIA["vision_start_token"]),
        "vision_end_token_id": tok.token_to_id(MEDIA["vision_end_token"]),
    }
    write(out, tok, Model(ModelConfig.from_dict(config)), config, chain)
    image = {"image_processor_type": "Qwen2VLImageProcessorFast", "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2}
    (out / "preprocessor_config.json").write_text(json.dumps({**image, "processor_class": "Qwen3VLProcessor"}, indent=1))
    (out / "video_preprocessor_config.json").write_text(json.dumps({**image, "video_processor_type": "Qwen3VLVideoProcessor"}, indent=1))


def main():
    out = Path(sys.argv[1])
    tok, chains = tokenizer()
    chain = Chain(tok.get_vocab_size(), chains)
    for make in (text_model, gemma4, qwen3_5):
        name = {"text_model": "text"}.get(make.__name__, make.__name__)
        make(out / name, tok, chain)


if __name__ == "__main__":
    main()
