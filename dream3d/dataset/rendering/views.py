"""From an asset to its views: which cameras and lights, by seed and key alone."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dream3d.cameras import CameraRange
from dream3d.dataset.assets.sh3f import extract
from dream3d.dataset.captions.colors import dominant_colors
from dream3d.dataset.captions.concepts import leak_in
from dream3d.dataset.captions.templates import captions_for
from dream3d.dataset.check.file import check_file
from dream3d.dataset.check.limits import LIMITS, Limits
from dream3d.dataset.records import ATTRIBUTION, ObjectRecord, Pass, SourceAsset, Split
from dream3d.dataset.rendering.scene import LIGHTS, OffscreenScene
from dream3d.dataset.shards import MAX_SIDE, ObjectViews, object_members, png_bytes, view_member
from dream3d.errors import DatasetError, UsageError


@dataclass(frozen=True)
class ViewsRecipe:
    """How objects are rendered."""

    size: int = 64
    """Pixels along a side."""
    passes: int = 4
    """Orbits around each object; the views of one share elevation, field of view, distance and light."""
    azimuths: int = 8
    """Views of an orbit, evenly spaced from a random one; a multiple of four."""
    cameras: CameraRange = CameraRange()
    lights: tuple[str, ...] = ("studio",)
    """Names of :data:`LIGHTS`; each orbit has one of them."""
    seed: int = 0
    depth: bool = False
    normals: bool = False

    def __post_init__(self) -> None:
        if not 8 <= self.size <= MAX_SIDE:
            raise UsageError(f"images can have 8 to {MAX_SIDE} pixels a side, got {self.size}")
        if not 1 <= self.passes <= 99:
            raise UsageError(f"there can be 1 to 99 passes, got {self.passes}")
        if not 4 <= self.azimuths <= 96 or self.azimuths % 4:
            raise UsageError(f"the views of a pass are a multiple of four up to 96, got {self.azimuths}")
        unknown = [name for name in self.lights if name not in LIGHTS]
        if unknown or not self.lights:
            raise UsageError(f"unknown light {', '.join(unknown)!r}; known are {', '.join(LIGHTS)}")
        low, high = self.cameras.elevation_deg
        if not -89 <= low <= high <= 89:
            raise UsageError(f"elevations are ascending, from -89 to 89 degrees, got {low:g} and {high:g}")
        if self.seed < 0:
            raise UsageError(f"the seed is 0 or more, got {self.seed}")


PRESETS = {
    # MVDream, Shi et al. 2023: 32 views an orbit, each object rendered twice (docs/method.md, Training).
    "mvdream": ViewsRecipe(
        passes=2, azimuths=32, cameras=CameraRange((0.0, 30.0), 0.0, (15.0, 60.0), (0.9, 1.1), "tan")
    ),
    "mini": ViewsRecipe(passes=4, azimuths=8, cameras=CameraRange((0.0, 35.0), 0.0, (25.0, 50.0), (0.85, 1.0), "sin")),
}


def generator(seed: int, key: str, purpose: str) -> np.random.Generator:
    """Random numbers for one purpose at one object: the same in any order and on any number of processes."""
    digest = hashlib.sha256(f"{purpose}:{seed}:{key}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


def sample_orbits(recipe: ViewsRecipe, key: str) -> tuple[Pass, ...]:
    """The cameras and lights of an object."""
    rng, cameras = generator(recipe.seed, key, "cameras"), recipe.cameras
    orbits = []
    for _ in range(recipe.passes):
        elevation, fovy, relative = (
            float(rng.uniform(*bounds))
            for bounds in (cameras.elevation_deg, cameras.fovy_deg, cameras.relative_distance)
        )
        half = np.radians(fovy / 2)
        distance = relative / float(np.tan(half) if cameras.distance_rule == "tan" else np.sin(half))
        azimuths = (float(rng.uniform(0, 360)) + 360 / recipe.azimuths * np.arange(recipe.azimuths)) % 360
        light = recipe.lights[int(rng.integers(len(recipe.lights)))]
        orbits.append(Pass(elevation, fovy, distance, tuple(azimuths.tolist()), light))
    return tuple(orbits)


def split_of(asset: SourceAsset, seed: int, heldout: float, unseen: tuple[str, ...]) -> Split:
    """Where an object goes: by its words if one is an unseen concept, else by seed and key."""
    if leak_in(asset.key, (asset.name, asset.category, *asset.captions), unseen):
        return "unseen"
    return "heldout" if generator(seed, asset.key, "split").random() < heldout else "train"


def render_object(
    asset: SourceAsset, split: Split, recipe: ViewsRecipe, scene: OffscreenScene, limits: Limits = LIMITS
) -> list[tuple[str, bytes]]:
    """All views of an asset, with its record: what a shard holds of it.

    Raises :class:`DatasetError` with the reason if it cannot be rendered.
    """
    if asset.reason:
        raise DatasetError(asset.reason)
    orbits = sample_orbits(recipe, asset.key)
    with tempfile.TemporaryDirectory(prefix="dream3d-") as folder:
        model = extract(asset, Path(folder), limits) if asset.member else asset.path
        check_file(model, limits)
        scene.load(model, asset)
        views = [
            [scene.render(orbit, azimuth, depth=recipe.depth, normal=recipe.normals) for azimuth in orbit.azimuths_deg]
            for orbit in orbits
        ]
    rgba = np.array([[view.rgba for view in group] for group in views])
    if not rgba[..., 3].any():
        raise DatasetError("nothing of it can be seen")
    colors = asset.colors or dominant_colors(rgba)
    record = ObjectRecord(
        captions=captions_for(asset, colors, generator(recipe.seed, asset.key, "captions")),
        colors=colors,
        split=split,
        passes=orbits,
        **{name: getattr(asset, name) for name in ("category", "materials", *ATTRIBUTION)},
    )
    members = list(object_members(ObjectViews(record, rgba)))
    for p, group in enumerate(views):
        for v, view in enumerate(group):
            if view.depth is not None:
                members.append((view_member(asset.key, p, v, "depth"), png_bytes(view.depth)))
            if view.normal is not None:
                members.append((view_member(asset.key, p, v, "normal"), png_bytes(view.normal)))
    return members
