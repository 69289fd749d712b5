"""Write the tokenizer fixtures: a small multilingual vocabulary and texts with the ids transformers gives them.

  tokenizer_fixtures.py                        writes tests/parity/fixtures/tokenizer/
  tokenizer_fixtures.py --random 100000 FILE   writes that many random texts with their ids, for
                                               LIMNER_TOKENIZER_CASES=FILE build/prompt_test
"""

import argparse
import json
import pathlib
import random
import shutil
import tempfile
import unicodedata
from collections import Counter

from tokenizers import normalizers, pre_tokenizers
from transformers import CLIPTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests/parity/fixtures/tokenizer"
MERGES = 1500
MISSING_BYTE = 0xF3  # left out of the vocabulary, so that characters of planes 12 to 15 meet the unknown token
BEGIN, END = "<|startoftext|>", "<|endoftext|>"

CORPUS = [
    "a red circle above a blue square on a white background, a small green triangle left of a large yellow star",
    "a photograph of an old lighthouse at sunset, waves, cinematic lighting, highly detailed, sharp focus",
    "portrait of a woman with freckles, soft light, film grain, 85mm, f/1.8, masterpiece, best quality",
    "it's the painter's dog; they're asleep, we've won, i'm here, you'll see, she'd go, don't stop",
    "un château près de la rivière, peinture à l'huile, où l'été déjà s'achève, garçon, naïve, œuvre",
    "ein großer grüner baum über der straße, möwen überm fluß, schöne häuser, äpfel, öl, übung",
    "una niña con un pájaro en la montaña, corazón, mañana, español, pingüino, canción",
    "красный круг над синим квадратом на белом фоне, старый дом у реки, зима, снег, лес",
    "ένας κόκκινος κύκλος πάνω από ένα μπλε τετράγωνο, παλιός φάρος στη θάλασσα",
    "دائرة حمراء فوق مربع أزرق على خلفية بيضاء، قطة صغيرة في الحديقة",
    "红色的圆在蓝色的方块上面，山水画，一只猫坐在窗边，春天的花园，高质量",
    "赤い円が青い四角の上にある、桜の木と富士山、夕焼けの海、猫とこども",
    "빨간 원이 파란 사각형 위에 있다, 봄날의 정원, 고양이",
    "लाल वृत्त नीले वर्ग के ऊपर है, सुंदर बगीचा, पहाड़ और नदी",
    "kırmızı daire, İstanbul'da eski bir ev, ışık, güneş, çiçek, ağaç",
    "vòng tròn màu đỏ phía trên hình vuông màu xanh, phong cảnh đẹp",
    "czerwone koło nad niebieskim kwadratem, żółta łódź, święto, ćma, źródło",
]


def byte_symbols():
    """The vocabulary's stand-in of each byte, by byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = {byte: chr(byte) for byte in printable}
    symbols.update({byte: chr(256 + i) for i, byte in enumerate(others)})
    return [symbols[byte] for byte in range(256)]


def learn_merges():
    """Byte-pair merges of the corpus: the most frequent pair first, the first in order among equals."""
    normal = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    words = Counter()
    for line in CORPUS:
        for word, _ in pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(normal.normalize_str(line)):
            words[word.removeprefix("\u0120")] += 1
    spellings = [([*word[:-1], word[-1] + "</w>"], count) for word, count in words.items() if word]
    merges = []
    while len(merges) < MERGES:
        pairs = Counter()
        for symbols, count in spellings:
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for symbols, _ in spellings:
            i = 0
            while i < len(symbols) - 1:
                if (symbols[i], symbols[i + 1]) == best:
                    symbols[i:i + 2] = ["".join(best)]
                i += 1
    return merges


def write_vocabulary():
    merges = learn_merges()
    single = [s for byte, s in enumerate(byte_symbols()) if byte != MISSING_BYTE]
    tokens = [*single, *(s + "</w>" for s in single), *("".join(m) for m in merges), BEGIN, END]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    parts = FOLDER / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    (parts / "vocab.json").write_text(
        json.dumps(vocab, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    (parts / "merges.txt").write_text(
        "\n".join(["#version: 0.2", *(" ".join(m) for m in merges)]) + "\n", encoding="utf-8")
    token = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    config = {"bos_token": {"__type": "AddedToken", "content": BEGIN, **token},
              "eos_token": {"__type": "AddedToken", "content": END, **token},
              "unk_token": {"__type": "AddedToken", "content": END, **token},
              "pad_token": END, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    (parts / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    single_file = FOLDER / "single"
    with tempfile.TemporaryDirectory() as scratch:
        CLIPTokenizer.from_pretrained(parts).save_pretrained(scratch)
        single_file.mkdir(exist_ok=True)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            data = json.loads((pathlib.Path(scratch) / name).read_text(encoding="utf-8"))
            (single_file / name).write_text(
                json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def padded_config():
    """SDXL's second tokenizer: pads with '!', which transformers then also finds inside the text."""
    ids = json.loads((FOLDER / "parts/vocab.json").read_text(encoding="utf-8"))
    token = {"lstrip": False, "rstrip": False, "single_word": False, "special": True}
    return {"added_tokens_decoder": {
                str(ids["!"]): {"content": "!", "normalized": False, **token},
                str(ids[BEGIN]): {"content": BEGIN, "normalized": True, **token},
                str(ids[END]): {"content": END, "normalized": True, **token}},
            "bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": "!",
            "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}


def load_padded():
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("vocab.json", "merges.txt"):
            shutil.copy(FOLDER / "parts" / name, scratch)
        (pathlib.Path(scratch) / "tokenizer_config.json").write_text(json.dumps(padded_config()))
        return CLIPTokenizer.from_pretrained(scratch)


def written_texts():
    """Texts chosen for one rule each."""
    texts = ["", " ", "  \t\n ", "!", "!!", "hello!!! world!", "a", "A", "ABC def", "a.b,c;d", "12 345 6,789.0"]
    texts += CORPUS + [line.upper() for line in CORPUS] + [unicodedata.normalize("NFD", line) for line in CORPUS]
    texts += ["it's IT'S they'RE we'Ve i'm 'll 'd 'tis rock'n'roll ''s '''", "don’t “quote” ‘s ’s", "'s't're've'm'll'd"]
    texts += [f"a {BEGIN} b", f"{BEGIN}{END}", f"x{END}!!", f"<{BEGIN}>", f"a {BEGIN.upper()} B", f"!!{END.title()}!!",
              "<|startoftext|", "<|endoftext|>é", "e<|endoftext|>\u0301", "<|start oftext|>", "<|STARTOFTEXT|>'s"]
    texts += ["ΟΔΥΣΣΕΥΣ ΣΑΣ", "İSTANBUL ıI", "ǅ ǈ ǋ", "ẞ ß SS", "ﬁ ﬂ ﬀ", "Å Å Å", "Ω Ω", "K K", "ﾊﾝｶｸ ＦＵＬＬ", "e\u0301\u0323 e\u0323\u0301"]
    texts += ["가각 각 \u1100\u1161\u11a8", "\u0958 \u09dc", "\U000105a0", "q\u0307\u0323", "\u0301a", "a\u0345\u0301", "\U00011935\U00011930"]
    texts += ["٠١٢٣ ۰۱۲ ०१२ ໑໒", "½ ² ³ ① Ⅳ ㈠ 〇", "𝟘𝟙𝟚 𝒜𝒷", "1a2b3c", "a1½b", "١a٢"]
    texts += ["😀", "👩‍👩‍👧‍👦 family", "🏳️‍🌈", "🇩🇪🇫🇷", "👍🏽ok", "a😀b", "☃️", "\U0001fae8", "\U000e0067\U000e0062", "\U000f0000x"]
    texts += ["a\u200bb", "a\u200db", "\ufeffbom", "a\u00a0b\u2003c\u3000d\u2028e\u0085f\u180eg\u1680h", "a\u00adb", "\x00", "a\x00b\x1b[0m\x7f", "\x1c\x1d\x1e\x1f", "\u061c\u202eabc\u202c"]
    texts += ["a BREAK b", "a\nBREAK\n\n b  c", "(word:1.2) [x|y] {a:b:0.5} <lora:name:0.8>", "\\(esc\\)", "C++ & C# @ 100% $5 #1 ~`^_=+", "http://example.org/a?b=c&d=%20"]
    texts += ["x" * 300, "ab" * 200, "word " * 120, "é" * 100, "猫" * 90, "a " * 74 + "b", "a " * 75 + "b", "a " * 76 + "b", "\u0316\u0301" * 40]
    texts += ["\u1c89", "\ua7dc\ua7cb", "\U00010d50\U00010d70", "\U00013460", "\U00016ea0", "\u088f", "\u0ece\u0301", "a\u1ac1\u0316"]
    return texts


def random_text(draw, words):
    blocks = [(0x20, 0x7E), (0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x52F), (0x590, 0x8FF), (0x900, 0xDFF),
              (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x218F), (0x3000, 0x30FF), (0x4E00, 0x9FFF),
              (0xAC00, 0xD7A3), (0xFB00, 0xFFFD), (0x1F300, 0x1FAFF), (0x10000, 0x1FFFF), (0x1AB0, 0x1DFF), (0, 0x10FFFF)]

    def character():
        low, high = draw.choice(blocks)
        while True:
            code = draw.randint(low, high)
            if not 0xD800 <= code < 0xE000:
                return chr(code)

    def piece():
        kind = draw.randrange(12)
        if kind < 4:
            return draw.choice(words)
        if kind < 7:
            return "".join(character() for _ in range(draw.randint(1, 6)))
        if kind == 7:
            return draw.choice("aeoscnuiAEOSyzαι") + "".join(
                chr(draw.randint(0x300, 0x345)) for _ in range(draw.randint(1, 4)))
        if kind == 8:
            return draw.choice([BEGIN, END, "!", "'s", "'LL", "'re", "’", "<|", "|>", BEGIN.upper(), "…", "—"])
        if kind == 9:
            return unicodedata.normalize(draw.choice(["NFD", "NFKD", "NFC"]), draw.choice(words)).swapcase()
        if kind == 10:
            return "".join(draw.choice("0123456789٣৪½²Ⅷ.,") for _ in range(draw.randint(1, 5)))
        return draw.choice(" \t\n\r\x0b\x0c\u00a0\u2009\u3000\u200b\u0085\u2029") * draw.randint(1, 3)

    space = draw.choice(["", " ", " ", ", "])
    return space.join(piece() for _ in range(draw.randint(1, 14)))


def cases(texts):
    plain, padded = CLIPTokenizer.from_pretrained(FOLDER / "parts"), load_padded()

    def ids(tokenizer, text):
        return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    for text in texts:
        yield {"text": text, "plain": ids(plain, text), "padded": ids(padded, text)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=0, metavar="COUNT")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("file", nargs="?", type=pathlib.Path)
    args = parser.parse_args()
    words = sorted({word for line in CORPUS for word in line.split()})
    draw = random.Random(args.seed)
    if args.random:
        texts = (random_text(draw, words) for _ in range(args.random))
        out = args.file
    else:
        write_vocabulary()
        (FOLDER / "padded_config.json").write_text(json.dumps(padded_config(), indent=1) + "\n")
        texts = written_texts() + [random_text(draw, words) for _ in range(150)]
        out = FOLDER / "cases.jsonl"
    with out.open("w", encoding="utf-8") as stream:
        for case in cases(texts):
            stream.write(json.dumps(case, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
