#!/usr/bin/env python3
"""Writes tiny models that say what they are asked for, token by token.

    raw_models.py OUT_DIR          (run it with the engine's own Python)

  OUT_DIR/text      a Llama
  OUT_DIR/gemma4    a whole Gemma-4, with vision and audio parts

The last word that is said to them names the reply; see `tiny_models.py` for how they work.
"""

import json
import sys
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tiny_models import END, MEDIA, Chain, gemma4, text_model

CALL, CALL_END, CALLED = "<tool_call>", "</tool_call>", "<|call|>"
ENDLESS = "endless"

# Each reply as its tokens. Bytes are tokens of their own, and so are real markers; whatever else is written is text alone, be it a marker's letters.
REPLIES = {
    "whole": ["Write ", "<tool", "_call>", " plain", "ly, or", CALL, '\n{"name"', ': "Read"}', "\n", CALL_END, " and the", " last wo", "rd  \n", END],
    "bytes": ["caf", b"\xc3", b"\xa9", " and a", " smile ", b"\xf0", b"\x9f", b"\x98", b"\x80", "!", END],
    "cut": ["It ends", " in the mid", "dle of ", b"\xe2", b"\x82", b"\xac", END],
    "one": ["Yes", END],
    "none": [END],
    "called": ["analysis", " done", CALLED],
    # Over and over.
    ENDLESS: ["round", " and "],
    "spaces": ["  in", "dented\n", "\tand", " no end ", "\n\n", END],
}

TEMPLATE = (
    "{%- set ns = namespace(word='') %}{%- for m in messages %}<|im_start|>{{ m.role }}\n"
    "{%- if m.content is string %}{{ m.content }}{%- set ns.word = m.content.split(' ')[-1] %}{%- else %}{%- for part in m.content or [] %}"
    "{%- if part.type == 'image' %}<|vision_start|><|image|><|vision_end|>"
    "{%- elif part.text %}{{ part.text }}{%- set ns.word = part.text.split(' ')[-1] %}{%- endif %}{%- endfor %}{%- endif %}"
    "{%- for c in m.tool_calls or [] %}{{ c.function | tojson }}{%- endfor %}<|im_end|>\n{%- endfor %}"
    "{%- if tools %}{{ tools | tojson }}{%- endif %}{%- if add_generation_prompt %}assistant\n<|ask-{{ ns.word }}|>{%- endif %}"
)


def tokenizer():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|im_start|>", END, CALL, CALL_END, CALLED, *(f"<|ask-{name}|>" for name in REPLIES), *MEDIA.values()]
    written = [spelled(piece) for reply in REPLIES.values() for piece in reply if piece not in special]
    texts = [piece for piece in written if piece not in letters]
    assert len(set(written)) == len(written), "a piece that repeats would make the chain ambiguous"
    tok = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(letters + texts)}, merges=[]))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in special])
    chains = []
    for name, reply in REPLIES.items():
        pieces = [piece if piece in special else spelled(piece) for piece in reply]
        again = pieces[:1] if name == ENDLESS else []
        chains.append([tok.token_to_id(piece) for piece in (f"<|ask-{name}|>", *pieces, *again)])
    return tok, chains


def letter_of(byte):
    """The letter that stands for a byte: printable Latin-1 for itself, the others from U+0100 on, in order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return chr(byte) if byte in printable else chr(0x100 + sorted(set(range(256)) - set(printable)).index(byte))


def spelled(piece):
    return "".join(letter_of(byte) for byte in (piece if isinstance(piece, bytes) else piece.encode()))


def main():
    out = Path(sys.argv[1])
    tok, chains = tokenizer()
    chain = Chain(tok.get_vocab_size(), chains)
    ends = [tok.token_to_id(END), tok.token_to_id(CALLED)]
    for name, make in {"text": text_model, "gemma4": gemma4}.items():
        make(out / name, tok, chain)
        (out / name / "chat_template.jinja").write_text(TEMPLATE)
        for file in ("config.json", "generation_config.json"):
            settings = json.loads((out / name / file).read_text())
            (out / name / file).write_text(json.dumps({**settings, "eos_token_id": ends}))


if __name__ == "__main__":
    main()
