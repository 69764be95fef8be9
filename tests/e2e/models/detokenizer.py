#!/usr/bin/env python3
"""Holds the text of a raw stream against what each kind of tokenizer makes of all its tokens at once. Says "right".

    detokenizer.py FOLDER          (run it with the engine's own Python; the folder is that of what starts the engine)
"""

import random
import sys

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TEXT = 'A café, 日本語 and 😀😀 in "quotes" .\n\n  indented , it \'s\ttabs  \n<tool_call> in letters, and \u200d\ufffd odd ones. '
MARKER = "<tool_call>"


def bytes_of_letters():
    """Byte-level BPE: most models."""
    tok = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    return tok


def pieces_and_bytes(*more):
    """Words with a mark for a space before them, and bytes for what is in no word: Gemma's way; with one that strips the first space: Llama 2's."""
    words = ["▁", "A", "▁in", "▁and", "▁it", "s", "▁ta", "bs", "\n", "a", "e", "n", "t", "d", "o", "l", "r", "i", ",", ".", '"', "'", "_", "<", ">", "q", "u", "c"]
    vocab = {"<unk>": 0, **{f"<0x{byte:02X}>": byte + 1 for byte in range(256)}}
    vocab.update({word: len(vocab) + i for i, word in enumerate(words)})
    tok = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True, fuse_unk=False))
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *more])
    return tok


def tokenizers():
    for tok in (bytes_of_letters(), pieces_and_bytes(), pieces_and_bytes(decoders.Strip(" ", 1, 0))):
        tok.add_special_tokens([AddedToken(MARKER, special=True, normalized=False)])
        for clean in (False, True):
            yield PreTrainedTokenizerFast(tokenizer_object=tok, clean_up_tokenization_spaces=clean)


def counted(parts, tokenizer):
    """A detokenizer, and how many tokens it has had decoded."""
    text, seen = parts["Detokenizer"](tokenizer), []
    decode = text.decode

    def counting(tokens):
        seen.append(len(tokens))
        return decode(tokens)

    text.decode = counting
    return text, seen


def main():
    parts = {}
    for name in ("patches", "raw"):
        file = f"{sys.argv[1]}/{name}.py"
        exec(compile(open(file).read(), file, "exec"), parts)
    chance = random.Random(7)
    for tokenizer in tokenizers():
        marker = tokenizer.convert_tokens_to_ids(MARKER)
        letters = tokenizer.encode(TEXT.replace(MARKER, "<tool_call >"), add_special_tokens=False)
        for _ in range(60):
            # Real markers anywhere between characters.
            places = sorted(chance.randrange(len(TEXT)) for _ in range(chance.randrange(4)))
            runs = [TEXT[a:b].replace(MARKER, "<tool_call >") for a, b in zip([0, *places], [*places, len(TEXT)])]
            tokens = []
            for run in runs:
                tokens += [*tokenizer.encode(run, add_special_tokens=False), marker]
            tokens.pop()
            whole = tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            text, seen = counted(parts, tokenizer)
            made, marks, rest = "", [], list(tokens)
            while rest:
                length = chance.randrange(1, 7)
                new, of_new = text.push(rest[:length])
                marks += [(len(made) + at, found) for at, found in of_new]
                made, rest = made + new, rest[length:]
            made += text.finish()
            assert made == whole, (made, whole)
            assert [at for at, _ in marks] == [at for at in range(len(made)) if made.startswith(MARKER, at)], (marks, made)
        # Work: a line without an end, and bytes that never make a character.
        for tokens in (letters * 100, [tokenizer.convert_tokens_to_ids("<0xE2>") if "<0xE2>" in tokenizer.get_vocab() else tokenizer.convert_tokens_to_ids("â")] * 9000):
            text, seen = counted(parts, tokenizer)
            for start in range(0, len(tokens), 4):
                text.push(tokens[start : start + 4])
            text.finish()
            assert sum(seen) < 40 * len(tokens), (sum(seen), len(tokens))
    print("right")


main()
