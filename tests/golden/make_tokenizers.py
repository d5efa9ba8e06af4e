"""Make the golden token ids: `python tests/golden/make_tokenizers.py`.

CLIP's come from transformers' CLIPTokenizer with the merges that relight carries, T5's from sentencepiece with a model
put together from T5's tokenizer.json. Needs transformers and sentencepiece, which nothing else here does. Made with
transformers 5.23 and sentencepiece 0.2.
"""

from __future__ import annotations

import base64
import gzip
import json
import lzma
import struct
from pathlib import Path
from typing import Any

import sentencepiece
from transformers import CLIPTokenizer

ROOT = Path(__file__).parent.parent.parent
MODELS = ROOT / "tests/models"
TEXTS = [
    "",
    " ",
    "a cat",
    "A Photo of a CAT, studio lighting; 85mm f/1.4",
    "  two   spaces\tand a tab\nand a line ",
    "it's what they've said: I'm sure we'll see, he'd know, you're right, don't",
    "IT'S THE CAT'S",
    "1234567890 3.14159 1,000,000 2nd 8k 4K",
    "pneumonoultramicroscopicsilicovolcanoconiosis antidisestablishmentarianism",
    "x" * 300,
    "masterpiece, (best quality:1.2), [[blurry]], <lora:style:0.8>, ((detailed))",
    "!!!??? ... --- *** ### $$$ %%% &&& @@@ \\ / | ~ ` ^ _ = + {} []",
    "!!!'s '' ''' 'tis 'll'd \"quoted\" “curly” ‘single’ – en — em … dots",
    "Crème brûlée à la française, naïve café",
    "Grüße aus München, Straße, ÄÖÜ äöü ß ẞ",
    "El niño pequeño comió piñas ¿verdad? ¡sí!",
    "Zażółć gęślą jaźń, příliš žluťoučký kůň",
    "İstanbul ılık ĞÜŞ",
    "Съешь же ещё этих мягких французских булок",
    "Γειά σου Κόσμε ΑΣ ας",
    "日本の桜、富士山の夕焼け",
    "一只猫在月光下的屋顶上",
    "고양이가 지붕 위에 앉아 있다",
    "قطة جالسة على السطح",
    "חתול יושב על הגג",
    "बिल्ली छत पर बैठी है",
    "แมวนั่งบนหลังคา",
    "😀 🐈‍⬛ 👩‍👩‍👧‍👦 🇩🇪 ❤️ 👍🏽",
    "cafe\u0301 e\u0308 n\u0303 decomposed, \u1e9b\u0323",
    "ﬁ ﬂ ligatures, ｆｕｌｌ ｗｉｄｔｈ, ² ³ ½ ① Ⅷ ™ ℃",
    "non\u00a0breaking\u2003em\u3000ideographic\u200bzero width",
    "soft\u00adhyphen \ufeffbom \u200dzwj",
    "\u0000nul \u0007bell \u001bescape \u007fdelete \u0085next line",
    "𝕄𝕒𝕥𝕙 𝓼𝓬𝓻𝓲𝓹𝓽 𐍈 𒀀",
    "a_b snake_case camelCase kebab-case path/to/file.png https://example.com/?q=1&r=2",
    "<b>bold</b> &amp; &lt;tag&gt; &#39;",
    "<|STARTOFTEXT|> <|endofTEXT|>",
    "an astronaut riding a horse on mars, " * 12,
]
CLIP_MARKS = ["a <|endoftext|> b", "<|startoftext|>a cat<|endoftext|>"]


def main() -> None:
    save("clip_ids", clip(TEXTS + CLIP_MARKS))
    save("t5_ids", t5(TEXTS))


def save(name: str, ids: dict[str, list[int]]) -> None:
    lines = ",\n".join(f"{json.dumps(text)}: {json.dumps(numbers)}" for text, numbers in ids.items())
    (MODELS / f"{name}.json").write_text(f"{{\n{lines}\n}}\n")
    print(name, len(ids), sum(map(len, ids.values())))


def clip(texts: list[str]) -> dict[str, list[int]]:
    """Ids with start and end, neither cut nor padded."""
    packed = (ROOT / "src/relight/models/clip_merges.txt.gz").read_bytes()
    merges = [tuple(line.split()) for line in gzip.decompress(packed).decode().splitlines()]
    tokenizer = CLIPTokenizer(vocab=clip_vocabulary(merges), merges=merges)
    return {text: tokenizer(text)["input_ids"] for text in texts}


def clip_vocabulary(merges: list[tuple[str, ...]]) -> dict[str, int]:
    """As CLIP's own code makes it: the bytes, the bytes at the end of a word, the merges, the two marks."""
    visible = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
    letters = [chr(b) for b in visible] + [chr(256 + i) for i in range(256 - len(visible))]
    words = letters + [x + "</w>" for x in letters] + ["".join(pair) for pair in merges]
    return {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}


def t5(texts: list[str]) -> dict[str, list[int]]:
    """Ids with the end token, neither cut nor padded."""
    content = json.loads(lzma.decompress((MODELS / "t5_tokenizer.json.xz").read_bytes()))
    processor = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model(content))
    return {text: [*processor.encode(text), 1] for text in texts}


def sentencepiece_model(content: dict[str, Any]) -> bytes:
    """A sentencepiece ModelProto (fields by number, from its .proto file) with T5's vocabulary and character map."""
    kinds = {"<pad>": 3, "</s>": 3, "<unk>": 2} | {t["content"]: 4 for t in content["added_tokens"] if t["id"] > 2}
    pieces = b"".join(
        field(1, field(1, piece.encode()) + b"\x15" + struct.pack("<f", score) + number(3, kinds.get(piece, 1)))
        for piece, score in content["model"]["vocab"]
    )
    minus_one = (1 << 64) - 1
    trainer = number(3, 1) + number(40, 2) + number(41, minus_one) + number(42, 1) + number(43, 0)
    charsmap = base64.b64decode(content["normalizer"]["normalizers"][0]["precompiled_charsmap"])
    normalizer = field(1, b"nmt_nfkc") + field(2, charsmap) + number(3, 1) + number(4, 1) + number(5, 1)
    return pieces + field(2, trainer) + field(3, normalizer)


def field(tag: int, content: bytes) -> bytes:
    return varint(tag << 3 | 2) + varint(len(content)) + content


def number(tag: int, value: int) -> bytes:
    return varint(tag << 3) + varint(value)


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


if __name__ == "__main__":
    main()
