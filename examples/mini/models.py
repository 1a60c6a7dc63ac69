"""Makes GLB files of a game's models that a list names, with a manifest and who made them.

python models.py objects-0ad.tsv 0ad/usr/share/games/0ad/mods/public/public.zip --out models/0ad
python models.py objects-stk.tsv stk/usr/share --out models/stk

A line of a list has the path of a model, its names separated by "|", how many of its variants are taken, and the
degrees that bring its front to +x, separated by tabs; the last two may be missing. "dream3d dataset render" reads the
folder.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from glb import Part, write_glb
from oad import Game
from spm import Kart

from dream3d.dataset.captions.templates import with_article
from dream3d.dataset.records import key_from

COLUMNS = ("key", "name", "source", "licence", "author")


class Source(Protocol):
    """A game: :class:`Game` or :class:`Kart`."""

    title: str

    def parts(self, model: str, variant: int = 0) -> list[Part]:
        """The surfaces of a model."""

    def licence(self, model: str) -> tuple[str, str]:
        """Its licence and authors; no licence if it is not open."""


@dataclass(frozen=True)
class Wanted:
    """A line of a list."""

    path: str
    names: tuple[str, ...]
    variants: int = 1
    turn_deg: float = 0.0


def read_list(file: Path) -> list[Wanted]:
    """The lines of a list; ``#`` begins a comment. Raises ValueError for one that does not fit."""
    wanted = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.partition("#")[0].rstrip().split("\t")
        if fields == [""]:
            continue
        if not 2 <= len(fields) <= 4 or not all(fields):
            raise ValueError(f"{file} line {number}: 2 to 4 fields separated by tabs, got {line!r}")
        names = tuple(name.strip() for name in fields[1].split("|"))
        wanted.append(Wanted(fields[0], names, int((fields[2:3] or ["1"])[0]), float((fields[3:4] or ["0"])[0])))
    return wanted


def open_source(place: Path) -> Source:
    """0 A.D. for an archive, SuperTuxKart for the folder ``usr/share`` of its package."""
    if place.is_file():
        return Game(place)
    return Kart(place / "games/supertuxkart/data", place / "doc/supertuxkart-data/copyright")


def convert(source: Source, wanted: Sequence[Wanted], out: Path) -> Iterator[dict[str, object]]:
    """Write the models; yields the manifest's rows.

    Variants that look the same drop; a model without an open licence or a surface is named, and drops.
    """
    taken: set[str] = set()
    for item in wanted:
        licence, author = source.licence(item.path)
        if not licence:
            print(f"{item.path}: not of an open licence")
            continue
        for variant in range(item.variants):
            parts = source.parts(item.path, variant)
            if not parts:
                print(f"{item.path}: has no surface")
                break
            looks = hashlib.sha256(b"".join(p.vertices.tobytes() + p.image.tobytes() for p in parts)).hexdigest()
            if looks in taken:
                continue
            taken.add(looks)
            key = key_from(f"{source.title} {item.path.rpartition('.')[0]} {variant}")
            write_glb(parts, out / f"{key}.glb")
            yield {
                "key": key,
                "path": f"{key}.glb",
                "name": item.names[0],
                "captions": [text for name in item.names[1:] for text in (name, with_article(name))],
                "turn_deg": item.turn_deg,
                "licence": licence,
                "author": author,
                "source": f"{source.title}: {item.path}",
            }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = list(convert(open_source(arguments.source), read_list(arguments.list), arguments.out))
    with (arguments.out / "attribution.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (arguments.out / "assets.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"{len(rows)} models of {len({row['name'] for row in rows})} names: {arguments.out}")


if __name__ == "__main__":
    main()
