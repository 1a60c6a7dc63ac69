"""Builds the corpus that comes with the package: Fluent emoji (MIT) and Open Clip Art (public domain), with names.

npm pack @lobehub/fluent-emoji-3d              # unpack it: package/assets
apt-get download unicode-data openclipart-png openclipart-svg      # dpkg -x each into one folder
python examples/corpus/build.py --emoji package/assets --debian FOLDER --out dream3d/corpora/builtin

Which clip art is taken and what it is called says openclipart.tsv; authors and licences are read from the SVG files.
With --vectors-only the pictures stay as they are and the vectors are made again, after the encoder has changed.
"""

from __future__ import annotations

import argparse
import csv
import html
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from dream3d.errors import DatasetError
from dream3d.retrieval.builtin import write_packed, write_vectors
from dream3d.retrieval.dedupe import distinct, look
from dream3d.retrieval.opening import corpus_encoder
from dream3d.retrieval.pictures import check_picture
from dream3d.retrieval.records import Picture, picture

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "mini"))
import emoji  # noqa: E402 - the names of emoji, as the training of mini knows them

EMOJI_SOURCE = "Fluent emoji, 3D style (npm package @lobehub/fluent-emoji-3d 1.1.0)"
CLIP_ART_SOURCE = "Open Clip Art Library 0.18 (openclipart-png), {}"
SIDE = 160
"""Pixels along the longer side of clip art; emoji stay as they are packed, 256."""
MAX_PIXELS = 16_000_000
PUBLIC_DOMAIN = ("http://web.resource.org/cc/PublicDomain", "http://creativecommons.org/licenses/publicdomain/")


def emoji_pictures(assets: Path, test_file: Path) -> Iterator[Picture]:
    """Things, animals, food and places; no signs, and no people who look alike."""
    for code, name in emoji.names(test_file.read_text(encoding="utf-8")).items():
        file = assets / f"{code}.webp"
        if file.is_file():
            yield picture(file.read_bytes(), name, EMOJI_SOURCE, emoji.AUTHOR, emoji.LICENCE, f"emoji {name}")


def clip_art(folder: Path, selection: Path) -> Iterator[Picture]:
    """The clip art of a selection that says of itself that it is in the public domain, as WebP."""
    with selection.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        svg = (folder / "svg" / row["path"]).read_text(encoding="utf-8", errors="replace")
        author, licence = said_of(svg)
        if licence not in PUBLIC_DOMAIN or not author:
            print(f"left out, without author or licence: {row['path']}")
            continue
        png = (folder / "png" / row["path"]).with_suffix(".png").read_bytes()
        try:
            image = small_webp(png)
        except DatasetError as error:
            print(f"left out: {row['path']}: {error}")
            continue
        source = CLIP_ART_SOURCE.format(row["path"])
        yield picture(image, row["caption"], source, author, "public domain", row["path"])


def said_of(svg: str) -> tuple[str, str]:
    """Author and licence of the metadata of an SVG file; "" where it says nothing."""
    metadata = next(iter(re.findall(r"<rdf:RDF.*?</rdf:RDF>", svg, re.DOTALL)), "")
    author = re.search(r"<dc:creator>.*?<dc:title>(.*?)</dc:title>", metadata, re.DOTALL)
    licence = re.search(r'<(?:cc:)?license[^>]*rdf:resource="([^"]*)"', metadata)
    name = html.unescape(author[1]) if author else ""
    return re.sub(r"\s*[(<]?\S+@\S+[)>]?", "", name).strip(), licence[1] if licence else ""


def small_webp(png: bytes) -> bytes:
    """A PNG, cut to what is drawn, as a WebP of at most :data:`SIDE` pixels."""
    image: Image.Image = Image.open(io.BytesIO(png))
    if image.width * image.height > MAX_PIXELS:
        raise DatasetError(f"{image.width} x {image.height} pixels take too long")
    image = image.convert("RGBA").reduce(max(1, max(image.size) // (3 * SIDE)))
    box = image.getchannel("A").getbbox()
    if box is None:
        raise DatasetError("nothing is drawn")
    image = image.crop(box)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    content = encoded(image)
    if min(image.size) < 48 or check_picture(content).rgb.std() < 12:
        raise DatasetError("hardly anything is drawn")
    return content


def encoded(image: Image.Image) -> bytes:
    """An image as WebP."""
    file = io.BytesIO()
    image.save(file, "WEBP", quality=75, method=4)
    return file.getvalue()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emoji", type=Path, help="the npm package's folder assets")
    parser.add_argument("--debian", type=Path, help="where the Debian packages are unpacked")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vectors-only", action="store_true")
    arguments = parser.parse_args()
    if arguments.vectors_only:
        write_vectors(arguments.out, corpus_encoder())
        return
    if arguments.emoji is None or arguments.debian is None:
        parser.error("give --emoji and --debian, or --vectors-only")
    share = arguments.debian / "usr/share"
    found = [
        *emoji_pictures(arguments.emoji, share / "unicode/emoji/emoji-test.txt"),
        *clip_art(share / "openclipart", HERE / "openclipart.tsv"),
    ]
    kept = [found[index] for index in distinct([look(check_picture(one.image).rgb) for one in found])]
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_packed(arguments.out, kept, corpus_encoder())
    size = sum(path.stat().st_size for path in arguments.out.iterdir())
    print(
        f"{len(kept)} pictures of {len({one.caption for one in kept})} names, {len(found) - len(kept)} nearly the same"
    )
    print(f"{size / 1e6:.1f} MB: {arguments.out}")


if __name__ == "__main__":
    main()
