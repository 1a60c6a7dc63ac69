"""SuperTuxKart's models (SPM), with the licence of each file from the Debian package's table of copyrights."""

from __future__ import annotations

import fnmatch
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from glb import Part, Triangles
from numpy.typing import NDArray
from PIL import Image

NORMAL, COLOR, TANGENT = 1, 2, 4
OPEN = re.compile(r"^(?!.*GPL.* and |.* and .*GPL).*(CC0|CC-BY|public-domain)", re.I)
HOLES = 0.02
"""Share of a texture that is transparent if its alpha is meant to cut holes."""


@dataclass(frozen=True)
class Buffer(Triangles):
    """One drawing call of a model."""

    color: NDArray[np.float64]
    """(3,) the median of the colours of its vertices, 0 to 1."""
    texture: str


def read_spm(data: bytes) -> list[Buffer]:
    """The surfaces of a model in its rest pose. Raises ValueError or struct.error for what is none."""
    if data[:2] != b"SP":
        raise ValueError("not an SPM file")
    kind, flags, at = data[2] & 7, data[3], 4 + 24

    def number(form: str) -> int:
        nonlocal at
        at += struct.calcsize("<" + form)
        return int(struct.unpack_from("<" + form, data, at - struct.calcsize("<" + form))[0])

    def text() -> str:
        nonlocal at
        length = number("B")
        at += length
        return data[at - length : at].decode()

    materials = [(text(), text()) for _ in range(number("H"))]
    buffers = []
    for _ in range(number("H")):
        for _ in range(number("H")):
            count, indices, material = number("I"), number("I"), number("H")
            first, second = materials[material] if material < len(materials) else ("", "")
            vertices, normals, uv, colors = (np.zeros((count, n)) for n in (3, 3, 2, 3))
            colors += 1
            for i in range(count):
                vertices[i] = struct.unpack_from("<3f", data, at)
                at += 12
                if flags & NORMAL:
                    (packed,) = struct.unpack_from("<I", data, at)
                    normals[i] = [(packed >> shift & 1023 ^ 512) - 512 for shift in (0, 10, 20)]
                    at += 4
                if flags & COLOR:
                    at += 1
                    if data[at - 1] != 128:  # 128: white, which is not written out
                        colors[i] = np.frombuffer(data, np.uint8, 3, at) / 255
                        at += 3
                if first:
                    uv[i] = np.frombuffer(data, "<f2", 2, at)
                    at += 4 + 4 * bool(second) + 4 * bool(flags & TANGENT)
                at += 16 * (kind == 1)  # four joints and their weights
            size = 2 if count > 255 else 1
            faces = np.frombuffer(data, f"<u{size}", indices, at).astype(np.int64).reshape(-1, 3)
            at += indices * size
            uv[:, 1] = 1 - uv[:, 1]
            buffers.append(Buffer(vertices, uv, faces, normals, np.median(colors, 0), first))
    return buffers


class Kart:
    """The folder ``data`` of the Debian package ``supertuxkart-data``."""

    title = "SuperTuxKart"

    def __init__(self, folder: Path, copyrights: Path) -> None:
        self.folder = folder
        self._rules = copyright_rules(copyrights.read_text(encoding="utf-8"))
        images = (file for file in sorted(folder.rglob("*")) if file.suffix.lower() in (".png", ".jpg", ".jpeg"))
        self._images = {file.name.lower(): file for file in images}

    def models(self) -> list[str]:
        """Paths of all models, as ``library/stklib_bench_a/stklib_bench_a_high.spm``."""
        return sorted(str(file.relative_to(self.folder)) for file in self.folder.rglob("*.spm"))

    def parts(self, model: str, variant: int = 0) -> list[Part]:
        """The surfaces of a model; it has no variants."""
        buffers = read_spm((self.folder / model).read_bytes())
        return [Part(b.vertices, b.uv, b.faces, b.normals, self._painted(model, b)) for b in buffers if len(b.faces)]

    def licence(self, model: str) -> tuple[str, str]:
        """Licence and authors of a model and of its textures; ("", "") if it cannot be used.

        Debian's table has no entry of its own for many textures: those give no more than their mean colour, which
        nobody owns, and a model with leaves cut out by one of them is not used.
        """
        rules = [self._rule(model)]
        for texture in sorted({b.texture for b in read_spm((self.folder / model).read_bytes()) if b.texture}):
            file = self._image(model, texture)
            rule = self._rule(str(file.relative_to(self.folder))) if file else None
            if file and rule is None and has_holes(np.asarray(Image.open(file).convert("RGBA"))):
                return "", ""
            rules += [rule] if rule else []
        known = [rule for rule in rules if rule]
        if not rules[0]:
            return "", ""
        return "; ".join(dict.fromkeys(rule[0] for rule in known)), "; ".join(dict.fromkeys(r[1] for r in known))

    def _rule(self, file: str) -> tuple[str, str] | None:
        """Licence and holders of a file, if the licence is one of ours."""
        for pattern, licence, holders in self._rules:
            if fnmatch.fnmatch(f"data/{file}", pattern):
                return (licence, holders) if OPEN.search(licence) else None
        return None

    def _image(self, model: str, texture: str) -> Path | None:
        beside = (self.folder / model).parent / texture
        return beside if beside.is_file() else self._images.get(texture.lower())

    def _painted(self, model: str, buffer: Buffer) -> Image.Image:
        file = self._image(model, buffer.texture) if buffer.texture else None
        image = Image.open(file).convert("RGBA") if file else Image.new("RGBA", (2, 2), (255, 255, 255, 255))
        pixels = np.asarray(image).copy()
        if file and self._rule(str(file.relative_to(self.folder))) is None:
            pixels = np.round(pixels.mean((0, 1), keepdims=True)).astype(np.uint8)
        holes = has_holes(pixels)
        if not holes:  # on leaves, the colours of vertices say how much they move in the wind
            pixels[..., :3] = np.round(pixels[..., :3] * buffer.color)
        return Image.fromarray(pixels if holes else pixels[..., :3])


def has_holes(pixels: NDArray[np.uint8]) -> bool:
    """Whether the alpha of a texture (H, W, 4) is meant to cut holes."""
    return bool((pixels[..., 3] < 128).mean() > HOLES)


def copyright_rules(text: str) -> list[tuple[str, str, str]]:
    """(pattern of files, licence, holders) of a Debian copyright file, the last first: that is the one that counts."""
    rules = []
    for paragraph in re.split(r"\n[ \t]*\n", text):
        fields = dict(re.findall(r"^([A-Z][\w-]*):[ \t]*((?:.*\n?)(?:[ \t].*\n?)*)", paragraph, re.M))
        if "Files" in fields and "License" in fields:
            lines = (" ".join(line.split()) for line in fields.get("Copyright", "").splitlines())
            holders = "; ".join(line for line in lines if line)
            licence = fields["License"].splitlines()[0].strip()
            rules += [(pattern, licence, holders) for pattern in fields["Files"].split()]
    return rules[::-1]
