"""Build the tokenizers: a byte-pair vocabulary in which each word of the captions is one token."""

import argparse
import json
import pathlib
from collections import Counter

from transformers import CLIPTokenizer

from model import CONTEXT
from scenes import vocabulary

END_OF_WORD = "</w>"


def byte_symbols():
    """The printable stand-ins for the 256 bytes, in the order of CLIP's vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def learn_merges(words):
    """Merge the most frequent pair of symbols until every word is one symbol."""
    spellings = [[*word[:-1], word[-1] + END_OF_WORD] for word in words]
    merges = []
    while any(len(symbols) > 1 for symbols in spellings):
        pairs = Counter(pair for symbols in spellings for pair in zip(symbols, symbols[1:]))
        best = max(sorted(pairs), key=pairs.get)
        merges.append(best)
        for symbols in spellings:
            i = 0
            while i < len(symbols) - 1:
                if (symbols[i], symbols[i + 1]) == best:
                    symbols[i:i + 2] = ["".join(best)]
                i += 1
    return merges


def write_vocabulary(folder):
    """Write vocab.json and merges.txt, in CLIP's format."""
    merges = learn_merges(vocabulary())
    single = byte_symbols()
    tokens = [*single, *(s + END_OF_WORD for s in single), *("".join(m) for m in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def build_tokenizers(folder):
    """Both tokenizers from the files in `folder`; the second pads with `!`, as SDXL's does."""
    files = {"vocab": str(folder / "vocab.json"), "merges": str(folder / "merges.txt")}
    common = dict(model_max_length=CONTEXT, **files)
    return CLIPTokenizer(**common), CLIPTokenizer(**common, pad_token="!")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder of checkpoints")
    args = parser.parse_args()
    write_vocabulary(args.work / "tokenizer")
    tokenizers = build_tokenizers(args.work / "tokenizer")
    for word in vocabulary():
        if len(tokenizers[0](word)["input_ids"]) != 3:
            raise SystemExit(f"{word} is not one token")
    print(f"{len(tokenizers[0])} tokens, {len(vocabulary())} words")


if __name__ == "__main__":
    main()
