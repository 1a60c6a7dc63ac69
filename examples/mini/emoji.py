"""Captioned images from Microsoft's Fluent emoji: things that no 3D model shows, for the image mode of training.

python emoji.py npm/package/assets unicode/emoji-test.txt --out images/emoji --without held-out.txt synonyms.txt

Each is written over the prior's background once, and over random backgrounds; the names are Unicode's.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dream3d.dataset.backgrounds import random_background
from dream3d.dataset.captions.concepts import mentions, read_concepts
from dream3d.dataset.captions.templates import with_article
from dream3d.dataset.compositing import composite
from dream3d.dataset.images import write_image_shards
from dream3d.dataset.records import key_from
from dream3d.dataset.shards import CaptionedImage

GROUPS = ("Animals & Nature", "Food & Drink", "Travel & Places", "Activities", "Objects")
SUBGROUPS = ("person-fantasy", "body-parts", "cat-face", "monkey-face", "face-costume", "heart")
LEFT_OUT = re.compile(r"\btime\b|transport-sign|^(wo)?man\b|person|people|skin tone|button|arrow|suit$")
"""Subgroups and names of signs, and of people who look alike."""
BACKGROUND = (107, 143, 199)
"""Of the prior: (0.42, 0.56, 0.78)."""
LICENCE, AUTHOR = "MIT", "Microsoft (Fluent Emoji), packed by LobeHub"


def names(test_file: str) -> dict[str, str]:
    """Names by code points ("1f40e": "horse") of the things in the text of ``emoji-test.txt``, without skin tones."""
    found, group, subgroup = {}, "", ""
    for line in test_file.splitlines():
        if line.startswith("# group: "):
            group = line[9:].strip()
        elif line.startswith("# subgroup: "):
            subgroup = line[12:].strip()
        elif match := re.match(r"([0-9A-F ]+?) *; fully-qualified *# \S+ E[\d.]+ (.*)", line):
            name = match[2].strip().lower()
            wanted = subgroup in SUBGROUPS or (group in GROUPS and not LEFT_OUT.search(subgroup))
            if wanted and not LEFT_OUT.search(name):
                found[match[1].lower().replace(" ", "-")] = name
    return found


def pictures(folder: Path, wanted: dict[str, str], size: int, copies: int, seed: int) -> Iterator[CaptionedImage]:
    """``copies`` images of each emoji that the folder has, the first over the prior's background."""
    for code, name in wanted.items():
        file = folder / f"{code}.webp"
        if not file.is_file():
            continue
        whole = Image.open(file).convert("RGBa").resize((size, size), Image.Resampling.LANCZOS)
        rgba, rng = np.asarray(whole.convert("RGBA")), np.random.default_rng([seed, *code.encode()])
        for copy in range(copies):
            behind = random_background(size, rng) if copy else np.broadcast_to(BACKGROUND, (size, size, 3))
            captions = tuple(dict.fromkeys((name, with_article(name))))
            key = f"{key_from(f'emoji {name} {code}')[:70]}-{copy:02d}"
            yield CaptionedImage(key, captions, composite(rgba, behind), LICENCE, AUTHOR)


def without(found: dict[str, str], concepts: Sequence[str]) -> dict[str, str]:
    """The names that mention none of the concepts."""
    return {code: name for code, name in found.items() if mentions(name, concepts) is None}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", type=Path)
    parser.add_argument("names", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--without", type=Path, nargs="+", default=[])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    concepts = [concept for file in arguments.without for concept in read_concepts(file)]
    wanted = without(names(arguments.names.read_text(encoding="utf-8")), concepts)
    images = pictures(arguments.assets, wanted, arguments.size, arguments.copies, arguments.seed)
    print(f"{write_image_shards(images, arguments.out, 1000)} images of {len(wanted)} names: {arguments.out}")


if __name__ == "__main__":
    main()
