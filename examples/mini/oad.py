"""0 A.D.'s actors: meshes with textures, and further actors as props at points of them."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from glb import Part
from numpy.typing import NDArray
from PIL import Image
from pmd import Mesh, read_pmd

TEAMS = ((150, 24, 20), (32, 64, 150), (40, 110, 40), (215, 165, 30), (235, 235, 230), (95, 45, 120))
"""Colours of players, one after the other for the variants of an actor."""
LICENCE, AUTHOR = "CC-BY-SA-3.0", "Wildfire Games (http://www.wildfiregames.com/)"
GROUND = re.compile(r"decal|particle|shadow|aura|foundation|waterfall|water_|garrison_flag|flag_", re.I)
"""Props that are no part of the thing: what lies on the ground, light and smoke, flags of the game's rules."""
DEEPEST = 4
HALF_TURN = np.diag([-1.0, 1.0, -1.0, 1.0])
"""Animals and soldiers look towards -z."""


@dataclass
class Choice:
    """What an actor's groups of variants come to, once one variant of each is chosen."""

    mesh: str = ""
    texture: str = ""
    color: str = ""
    material: str = "default.xml"
    props: list[tuple[str, str]] = field(default_factory=list)

    def add_props(self, variant: ET.Element) -> None:
        """Props of a later group take the place of earlier ones at the same point, except at the root."""
        new = [(p.get("attachpoint", "root"), p.get("actor", "")) for p in variant.findall("props/prop")]
        taken = {point for point, _ in new if point != "root"}
        self.props = [prop for prop in self.props if prop[0] not in taken] + [prop for prop in new if prop[1]]


class Game:
    """The archive ``public.zip`` of the Debian package ``0ad-data``."""

    title = "0 A.D."

    def __init__(self, archive: Path) -> None:
        self._zip = zipfile.ZipFile(archive)
        self._members = {name.lower(): name for name in self._zip.namelist()}

    def actors(self) -> list[str]:
        """Paths of all actors, as ``fauna/bull.xml``."""
        found = (re.fullmatch(r"art/actors/(.*\.xml)", name) for name in self._zip.namelist())
        return sorted(match.group(1) for match in found if match)

    def licence(self, actor: str) -> tuple[str, str]:
        """Licence and author: the same for all the game's art (``art/LICENSE.txt``)."""
        return LICENCE, AUTHOR

    def parts(self, actor: str, variant: int = 0) -> list[Part]:
        """The surfaces of an actor and its props; the ``variant``-th of every group of its own."""
        return self._parts(actor, HALF_TURN, variant, 0)

    def _parts(self, actor: str, frame: NDArray[np.float64], variant: int, depth: int) -> list[Part]:
        choice = Choice()
        self._choose(f"art/actors/{actor}", choice, variant, 0)
        mesh = self._mesh(choice.mesh) if choice.mesh else None
        parts, points = [], {}
        if mesh is not None:
            points = mesh.points
            image = painted(self._texture(choice.texture), choice, TEAMS[variant % len(TEAMS)])
            turn, shift = frame[:3, :3].T, frame[:3, 3]
            parts.append(Part(mesh.vertices @ turn + shift, mesh.uv, mesh.faces, mesh.normals @ turn, image))
        for point, prop in choice.props if depth < DEEPEST else ():
            place = points.get(point, np.eye(4) if point == "root" else None)
            if place is not None and not GROUND.search(prop):
                parts += self._parts(prop, frame @ place, variant, depth + 1)
        return parts

    def _choose(self, path: str, choice: Choice, variant: int, depth: int) -> None:
        name = self._members.get(path.lower())
        if name is None or depth > DEEPEST:
            return
        root = ET.fromstring(self._zip.read(name))
        groups = [[root]] if root.tag == "variant" else [group.findall("variant") for group in root.findall("group")]
        for variants in groups:
            often = [v for v in variants if float(v.get("frequency", 0)) > 0] or variants[:1]
            if often:
                self._apply(often[variant % len(often)], choice, variant, depth)
        choice.material = root.findtext("material") or choice.material

    def _apply(self, variant: ET.Element, choice: Choice, number: int, depth: int) -> None:
        if variant.get("file"):
            self._choose(f"art/variants/{variant.get('file')}", choice, number, depth + 1)
        choice.mesh = variant.findtext("mesh") or choice.mesh
        choice.color = variant.findtext("color") or choice.color
        for texture in variant.iter("texture"):
            if texture.get("name") == "baseTex":
                choice.texture = texture.get("file", "")
        choice.add_props(variant)

    def _mesh(self, name: str) -> Mesh | None:
        for path in (f"{name}.cached.pmd", re.sub(r"\.\w+$", ".pmd", name)):
            member = self._members.get(f"art/meshes/{path}".lower())
            if member:
                return read_pmd(self._zip.read(member))
        return None

    def _texture(self, name: str) -> Image.Image:
        stem = re.sub(r"\.\w+$", "", name)
        for path in (f"{name}.cached.dds", f"{stem}.dds", f"{stem}.png.cached.dds", f"{stem}.dds.cached.dds"):
            member = self._members.get(f"art/textures/skins/{path}".lower())
            if member:
                return Image.open(io.BytesIO(self._zip.read(member))).convert("RGBA")
        return Image.new("RGBA", (4, 4), (160, 160, 160, 255))


def painted(image: Image.Image, choice: Choice, team: tuple[int, int, int]) -> Image.Image:
    """A texture (RGBA) as it is seen: what its alpha means depends on the material.

    Where alpha is 0, the game multiplies the texture by the player's or the object's colour; in other materials it
    makes holes, or means nothing.
    """
    if choice.material.startswith(("basic_trans", "basic_glow", "trans_", "blend")):
        return image
    if not choice.material.startswith(("player", "rock", "objectcolor")):
        return image.convert("RGB")
    named = choice.color.split() if choice.material.startswith("objectcolor") else []
    tint = np.array([float(n) for n in named] if len(named) == 3 else team)
    pixels = np.asarray(image, np.float64)
    keep = pixels[..., 3:] / 255
    # Grey under a player's colour is about half as light as it is meant to look.
    light = np.minimum(pixels[..., :3] * (keep + (1 - keep) * 1.4), 255)
    return Image.fromarray(np.round(light * (keep + (1 - keep) * tint / 255)).astype(np.uint8))
