"""Emoji sets from the npm registry to one archive of 128x128 pictures with names and keywords: what `train.py` takes.

    npm pack @iconify-json/noto @iconify-json/fluent-emoji-flat @lobehub/fluent-emoji-3d emojibase-data emojilib
    python training/dataset.py --packages DIR --out pack.tar

`DIR` holds each package unpacked under its name, with `@` and `/` written as `_`. Needs pillow, resvg-py,
sentencepiece, protobuf.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import captions
import resvg_py
import sentencepiece
from colours import COLOURS, SHAPE_COLOURS, recolour
from PIL import Image, ImageOps
from sentencepiece import sentencepiece_model_pb2

SIZE = 128
DRAWN = 116  # of the 128 pixels: room to turn and shift
STYLES = ("", "flat", "3d")  # no word for the style: Noto
GROUPS = {0, 3, 4, 5, 6, 7}  # smileys, animals, food, travel, activities, objects
MORE_SUBGROUPS = {17, 18, 19, 20, 22, 25, 26, 84, 96}  # some hands, body parts, roles, fantasy, warnings, shapes
FEW = {"26A0", "2622", "2623", "267B", "269C", "1F531", "2733", "2B55", "2705", "274C", "2753", "2757", "1F4AF", "221E"}
LEFT_OUT_SUBGROUPS = {32, 33, 53, 88, 94, 95, 97, 98, 99}
SHAPES = {
    "heart": "2764",
    "circle": "1F534",
    "square": "1F7E5",
    "star": "2B50",
    "triangle": "1F53A",
    "diamond": "1F537",
}
THINGS = {
    "balloon": "1F388", "car": "1F697", "apple": "1F34E", "book": "1F4D5", "butterfly": "1F98B", "tulip": "1F337",
    "t-shirt": "1F455", "dress": "1F457", "cap": "1F9E2", "fish": "1F41F", "mushroom": "1F344", "ribbon": "1F380",
    "gem": "1F48E", "bell": "1F514", "scarf": "1F9E3", "handbag": "1F45C", "backpack": "1F392", "bird": "1F426",
}  # fmt: skip
CROWD = 4  # concepts with a keyword, of which it then asks for none
OWNERS = {
    "angry": "angry face", "ball": "soccer ball", "beer": "beer mug", "bow": "ribbon", "cake": "birthday cake",
    "cry": "crying face", "email": "e-mail", "flowers": "bouquet", "happy": "grinning face", "hat": "top hat",
    "home": "house", "kiss": "kiss mark", "laugh": "face with tears of joy", "light": "light bulb",
    "lol": "face with tears of joy", "mail": "envelope", "moon": "crescent moon", "music": "musical note",
    "ocean": "water wave", "plane": "airplane", "police": "police car", "rain": "cloud with rain",
    "sleep": "sleeping face", "snow": "snowflake", "toy": "teddy bear", "tree": "deciduous tree",
    "truck": "delivery truck", "water": "droplet", "winter": "snowflake", "xmas": "christmas tree",
}  # fmt: skip
MORE_COLOUR_WORDS = {"grey", "gold", "golden", "silver"}
COLOUR_WORDS = (*SHAPE_COLOURS, "brown", "black", "white", "light blue")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="this many concepts only, for a trial")
    args = parser.parse_args()
    sets = Sets(args.packages)
    concepts, pictures = plain_concepts(sets), {}
    for concept in concepts[: args.limit]:
        drawn = {style: sets.draw(style, concept["hexcode"]) for style in STYLES}
        concept["styles"] = [style for style in STYLES if drawn[style] is not None]
        pictures |= {(concept["name"], style): drawn[style] for style in concept["styles"]}
    concepts = [concept for concept in concepts[: args.limit] if "" in concept["styles"]]
    named = {concept["name"] for concept in concepts}
    for concept, drawn in coloured(sets, args.limit):
        if concept["name"] in named:
            continue
        concepts.append(concept)
        pictures |= {(concept["name"], style): picture for style, picture in drawn.items()}
    write(args.out, concepts, pictures)


class Sets:
    """The unpacked packages: pictures by style and code points, names and keywords."""

    def __init__(self, root: Path) -> None:
        self.icons, self.names = {}, {}
        for style, package in {"": "_iconify-json_noto", "flat": "_iconify-json_fluent-emoji-flat"}.items():
            content = read(root / package / "package/icons.json")
            self.icons[style] = content
            self.names[style] = {
                plain(code): name for code, name in read(root / package / "package/chars.json").items()
            }
        self.solid = {plain(p.stem): p for p in (root / "_lobehub_fluent-emoji-3d/package/assets").glob("*.webp")}
        self.emoji = read(root / "emojibase-data/package/en/data.json")
        keywords = read(root / "emojilib/package/dist/emoji-en-US.json")
        self.keywords = {"-".join(f"{ord(c):x}" for c in emoji): words for emoji, words in keywords.items()}
        self.keywords = {plain(code): words for code, words in self.keywords.items()}

    def draw(self, style: str, hexcode: str) -> Image.Image | None:
        """RGBA, or None where the set has no such picture."""
        code = plain(hexcode)
        if style == "3d":
            return Image.open(self.solid[code]).convert("RGBA") if code in self.solid else None
        content = self.icons[style]
        name = self.names[style].get(code)
        name = content.get("aliases", {}).get(name, {}).get("parent", name)
        if name not in content["icons"]:
            return None
        icon = content["icons"][name]
        width, height = (icon.get(axis, content.get(axis, 16)) for axis in ("width", "height"))
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="256" '
            f'height="256" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
        )
        return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")


def plain_concepts(sets: Sets) -> list[dict[str, Any]]:
    """Emoji of the chosen groups, without skin tones, genders, clocks and what is made by colour below."""
    chosen = []
    for emoji in sets.emoji:
        label, subgroup = emoji["label"].lower(), emoji.get("subgroup")
        wanted = emoji.get("group") in GROUPS or subgroup in MORE_SUBGROUPS or emoji["hexcode"] in FEW
        words = set(label.replace(":", " ").split())
        clock = "o’clock" in label or "thirty" in label
        colour_shape = words & {"heart", "circle", "square", "diamond", "triangle"} and any(
            c in label for c in COLOUR_WORDS
        )
        person = words & {"man", "woman", "men", "women", "boy", "girl", "family"} or "♂" in emoji["emoji"]
        if (
            wanted
            and subgroup not in LEFT_OUT_SUBGROUPS
            and not (clock or colour_shape or person and subgroup in {25, 26})
        ):
            chosen.append({"name": clean(label), "hexcode": emoji["hexcode"], "words": words_of(sets, emoji)})
    count = Counter(word for concept in chosen for word in concept["words"])
    names = {concept["name"] for concept in chosen}
    if unknown := set(OWNERS.values()) - names:
        raise SystemExit(f"OWNERS names no concept: {sorted(unknown)}")
    free = [word for word in count | OWNERS if word not in names and word not in SHAPES and len(word) > 2]
    owner = {word: owner_of(word, chosen) for word in free}
    for concept in chosen:
        words = concept["words"]
        given = [word for word, name in OWNERS.items() if name == concept["name"] and word not in words]
        concept["aliases"] = given + [w for w in words if w in owner and owner[w] == concept["name"]]
        concept["words"] = [w for w in words if 1 < count[w] <= 40 and w not in concept["name"]]
        concept["aliases"] += [
            name for name, code in THINGS.items() if code == concept["hexcode"] and name not in names
        ]
    by_name = {concept["name"]: concept for concept in chosen}
    return list(by_name.values())


def owner_of(word: str, concepts: list[dict[str, Any]]) -> str | None:
    """The one concept that a keyword alone asks for, or None: a colour asks for nothing, nor does a keyword of four or
    more that is in no name. Of those whose name ends in it or, failing those, has it, the shortest named; of no more
    than three others the one that lists it first."""
    if word in OWNERS or word in COLOURS or word in MORE_COLOUR_WORDS:
        return OWNERS.get(word)
    holders = sorted((c for c in concepts if word in c["words"]), key=lambda c: c["words"].index(word))
    ending = [c for c in holders if c["name"].split()[-1] == word]
    having = ending or [c for c in holders if word in c["name"].split()]
    if having:
        fewest = min(len(c["name"].split()) for c in having)
        shortest = [c["name"] for c in having if len(c["name"].split()) == fewest]
        return shortest[0] if ending or len(shortest) == 1 else None
    return holders[0]["name"] if len(holders) < CROWD else None


def words_of(sets: Sets, emoji: dict[str, Any]) -> list[str]:
    found = [*emoji.get("tags", ()), *sets.keywords.get(plain(emoji["hexcode"]), ())]
    tidy = dict.fromkeys(clean(word) for word in found)
    return [w for w in tidy if w and w != clean(emoji["label"]) and all(c.isalpha() or c in " -'" for c in w)]


def coloured(sets: Sets, limit: int | None) -> list[tuple[dict[str, Any], dict[str, Image.Image]]]:
    """Each shape and thing in each colour, recoloured from the set's own picture."""
    made = []
    for name, hexcode in list((SHAPES | THINGS).items())[: limit and 3]:
        colours = COLOURS if name in SHAPES else SHAPE_COLOURS
        drawn = {style: sets.draw(style, hexcode) for style in STYLES}
        drawn = {style: picture for style, picture in drawn.items() if picture is not None}
        for colour in colours:
            concept = {
                "name": f"{colour} {name}", "hexcode": f"{hexcode}-{colour}", "words": [], "aliases": [],
                "styles": list(drawn), "colour": colour, "thing": name,
            }  # fmt: skip
            made.append((concept, {style: recolour(picture, colour) for style, picture in drawn.items()}))
        if not limit and name in SHAPES:
            concept = {"name": name, "hexcode": hexcode, "words": [], "aliases": [], "styles": list(drawn)}
            made.append((concept, drawn))
    return made


def write(out: Path, concepts: list[dict[str, Any]], pictures: dict[tuple[str, str], Image.Image]) -> None:
    """concepts.json, one WebP for each concept and style, and the vocabulary trained on the captions."""
    for index, concept in enumerate(concepts):
        concept["id"] = index
    with tarfile.open(out, "w") as archive:
        add(archive, "concepts.json", json.dumps(concepts, ensure_ascii=False, indent=0).encode())
        for name, content in vocabulary(concepts).items():
            add(archive, name, content)
        for concept in concepts:
            for style in concept["styles"]:
                picture = on_white(pictures[concept["name"], style])
                packed = io.BytesIO()
                picture.save(packed, "WEBP", quality=90, method=4)
                add(archive, f"{concept['id']:05d}-{style or 'noto'}.webp", packed.getvalue())


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def on_white(picture: Image.Image) -> Image.Image:
    """Cut to what is drawn, at most DRAWN pixels, in the middle of a white square."""
    box = picture.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox()
    drawn = ImageOps.contain(picture.crop(box), (DRAWN, DRAWN), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (SIZE, SIZE), "white")
    square.alpha_composite(drawn, ((SIZE - drawn.width) // 2, (SIZE - drawn.height) // 2))
    return square.convert("RGB")


def vocabulary(concepts: list[dict[str, Any]], size: int = 2400) -> dict[str, bytes]:
    """A unigram vocabulary with T5's special pieces, which folds case, in the form of a GGUF's metadata."""
    lines = captions.corpus(concepts)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=size, model_type="unigram",
        hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, normalization_rule_name="nmt_nfkc_cf", character_coverage=1.0,
        required_chars="abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"-()&/+", minloglevel=2, num_threads=2,
    )  # fmt: skip
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    kinds = [2 if pieces.is_unknown(i) else 3 if pieces.is_control(i) else 1 for i in range(len(pieces))]
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    content = {
        "tokens": [pieces.id_to_piece(i) for i in range(len(pieces))],
        "scores": [pieces.get_score(i) for i in range(len(pieces))],
        "token_type": kinds,
    }
    charsmap = proto.normalizer_spec.precompiled_charsmap
    return {"vocabulary.json": json.dumps(content, ensure_ascii=False).encode(), "charsmap.bin": charsmap}


def plain(code: str) -> str:
    """Code points without the variation selector, lower case."""
    return "-".join(part for part in code.lower().split("-") if part != "fe0f")


def clean(name: str) -> str:
    return " ".join(
        name.lower().replace("_", " ").replace("’", "'").replace(":", "").replace("“", "").replace("”", "").split()
    )


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


if __name__ == "__main__":
    main()
