"""``report.html`` of a run: from what is in its folder to the page of :mod:`dream3d.report.asset_page`."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dream3d import watch
from dream3d.cameras import orbit
from dream3d.errors import Dream3DError, UsageError
from dream3d.files import read_regular, write_text
from dream3d.images import png_bytes
from dream3d.mesh.export import Asset, asset_glb
from dream3d.mesh.reading import read_mesh
from dream3d.mesh.shading import shade_asset
from dream3d.mesh.surface import CUT_OFF
from dream3d.report.asset_page import AssetPage, Fact, Plot
from dream3d.report.plots import Series, line_plot
from dream3d.run.folder import RunFolder

NAME = "report.html"
MAX_FILE_BYTES = 2**26
"""Of a mesh, a picture or a table that goes into the page; what is larger is left out."""
VIEWS = ("front", "front left", "left", "back left", "back", "back right", "right", "front right")
"""From azimuth 0 on, counter-clockwise seen from above."""
VIEW_SIZE = 256
_BACKGROUND = (0.914, 0.922, 0.933)
_FIGURES: dict[str, tuple[str, str]] = {
    "prompt_similarity": ("similarity to the prompt", "mean cosine of four views, by the prior's image encoder"),
    "prompt_rank": ("rank of the prompt", "among the names that the prior knows; 1 is the best"),
    "cross_view_consistency": (
        "consistency of what the prior drew",
        "silhouettes of the last target shown and of the solid that fits them all, intersection over union",
    ),
    "janus": ("back that repeats the front", "0: no, 1: the same picture; high for a table too, and rightly"),
    "silhouette_iou": ("silhouettes, mesh and field", "intersection over union, mean of eight views"),
    "floaters": ("floaters", "mean opacity of the field outside the mesh"),
    "cap_area": ("cut off at the border", "share of the mesh's area"),
    "iso_level": ("density of the surface", "per unit of length"),
    "faces": ("faces", ""),
    "vertices": ("vertices", ""),
    "texture": ("texture", "pixels"),
    "texture_refined": ("refined texture kept", "the prior drew the mesh's views again, and the texture followed"),
    "texture_agreement_before": (
        "agreement before",
        "PSNR, dB, of views between those and what the prior makes of them",
    ),
    "texture_agreement_after": ("agreement after", "the same with the refined texture"),
    "texture_similarity_before": ("similarity before", "to the prompt, at the same views"),
    "texture_similarity_after": ("similarity after", "the same with the refined texture"),
    "shape_refined": (
        "refined shape kept",
        "vertices moved, too, below the texture that was kept",
    ),
    "shape_moved_voxels": ("shape moved", "mean distance of the vertices, voxels of the mesh's grid"),
    "shape_agreement_before": ("agreement before", "as above, with the texture that was kept"),
    "shape_agreement_after": ("agreement after", "the same with the moved shape"),
    "shape_similarity_before": ("similarity before", "to the prompt, at the same views"),
    "shape_similarity_after": ("similarity after", "the same with the moved shape"),
    "watertight": ("closed surface", ""),
    "seconds": ("time", ""),
    "peak_memory_bytes": ("peak memory", ""),
}
"""What the result's figures mean, in the order of the page; others come after them, by their own names."""
_PRIVATE = ("mesh",)
"""Of the result: paths of this machine, which a page that is passed on need not tell."""


def write_report(run: RunFolder, facts: Mapping[str, Any]) -> Path:
    """Write the page of a run with these ``facts`` (its ``run.json``) into its folder. Raises OSError."""
    path = run.own(NAME)
    write_text(path, page_of(run, facts).html())
    return path


def page_of(run: RunFolder, facts: Mapping[str, Any]) -> AssetPage:
    """The page of a run, finished or not; nothing in it is older than the files of its folder.

    ``facts`` may be anybody's: what is not as we write it is shown as text or left out.
    """
    result = _dict(facts, "result")
    glb, views = _model(run)
    return AssetPage(
        title=_text(facts.get("prompt")) or run.path.name,
        subtitle=_subtitle(facts),
        glb=glb,
        views=views,
        facts=[*_figures(result), *([Fact("file", f"{len(glb) / 1e6:.2f} MB", "as a GLB")] if glb else [])],
        notes=list(_notes(facts, result)),
        turntable=_file(run, "turntable.mp4"),
        preview=_file(run, "preview.png"),
        targets=_file(run, "targets.png"),
        plots=_plots(_metrics(run)),
        tables=_tables(facts),
    )


def page_of_mesh(path: Path) -> AssetPage:
    """The page of a mesh file alone, with what it says of its making. Raises ExportError, UsageError or OSError."""
    asset = read_mesh(path)
    content = read_regular(path, MAX_FILE_BYTES)
    facts = dict(asset.provenance)
    return AssetPage(
        title=_text(facts.get("prompt")) if "prompt" in facts else path.name,
        subtitle=_subtitle({**facts, "status": "finished"}),
        glb=content if path.suffix.lower() == ".glb" else asset_glb(asset),
        views=_views(asset),
        facts=[
            Fact("file", f"{len(content) / 1e6:.2f} MB", path.name),
            Fact("faces", f"{len(asset.faces):,}"),
            Fact("vertices", f"{len(asset.vertices):,}"),
        ],
        tables=_tables(facts),
    )


def _tables(facts: Mapping[str, Any]) -> dict[str, list[Fact]]:
    return {
        "Settings": [Fact(name, value) for name, value in _flat(_dict(facts, "recipe"))],
        "Provenance": list(_provenance(facts)),
        "Pictures": list(_pictures(facts)),
        "Licences": [Fact(name, value) for name, value in _licences(facts)],
    }


def _file(run: RunFolder, name: str) -> bytes | None:
    """A file that the run made under this name, or with a number; None if it is not there or too large."""
    stem, extension = name.rsplit(".", 1)
    for path in run.owned(re.compile(rf"{stem}(-\d+)?\.{extension}")):
        try:
            return read_regular(path, MAX_FILE_BYTES)
        except OSError:
            continue
    return None


def _model(run: RunFolder) -> tuple[bytes | None, list[tuple[str, bytes]]]:
    """The run's mesh as a GLB, and pictures of it; nothing if there is none that can be read."""
    for path in run.owned(re.compile(r"mesh(-\d+)?\.(glb|obj|ply|stl|usdz)")):
        try:
            content = read_regular(path, MAX_FILE_BYTES)
            asset = read_mesh(path)
            glb = content if path.suffix == ".glb" else asset_glb(asset)
            return glb, _views(asset)
        except (OSError, Dream3DError, ValueError):
            continue
    return None, []


def _views(asset: Asset) -> list[tuple[str, bytes]]:
    images = shade_asset(asset, orbit(len(VIEWS), elevation_deg=15), VIEW_SIZE, _BACKGROUND)
    return [(name, png_bytes(image)) for name, image in zip(VIEWS, images, strict=True)]


def _subtitle(facts: Mapping[str, Any]) -> str:
    prior, recipe, versions = (_dict(facts, key) for key in ("prior", "recipe", "versions"))
    parts = [
        f"seed {_text(facts.get('seed'))}" if "seed" in facts else "",
        f"recipe {_text(recipe['name'])}" if "name" in recipe else "",
        f"prior {_text(prior['name'])} {_text(prior.get('version'))}".strip() if "name" in prior else "",
        f"dream3d {_text(versions['dream3d'])}" if "dream3d" in versions else "",
        "" if facts.get("status") == "finished" else f"the run is {_text(facts.get('status'))}",
    ]
    return " · ".join(part for part in parts if part)


def _figures(result: Mapping[str, Any]) -> Iterator[Fact]:
    """What the run measured, and nothing else: a figure that is missing or null is left out."""
    for key in sorted(result, key=lambda key: list(_FIGURES).index(key) if key in _FIGURES else len(_FIGURES)):
        if result[key] is None or key in _PRIVATE:
            continue
        name, hint = _FIGURES.get(key, (key.replace("_", " "), ""))
        yield Fact(name, _figure(key, result[key]), hint)


def _figure(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return _text(value)
    if key == "seconds":
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes} min {seconds} s" if minutes else f"{value:.1f} s"
    if key == "peak_memory_bytes":
        return f"{value / 1e9:.2f} GB"
    if key == "texture":
        return f"{value} x {value}" if value else "none; vertex colours"
    if key in ("floaters", "cap_area"):
        return f"{value:.2%}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _notes(facts: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    unfamiliar = _dict(_dict(facts, "request"), "unfamiliar")
    if "nearest" in unfamiliar:
        phrase, nearest = _text(unfamiliar.get("phrase")), _text(unfamiliar["nearest"])
        yield f"The prior has never seen anything like '{phrase}'; the nearest names it knows: {nearest}."
    retrieved = _dict(_dict(facts, "request"), "retrieved")
    if retrieved.get("pictures") == 0 and "images" not in facts:
        best, threshold = _text(retrieved.get("best_similarity")), _text(retrieved.get("threshold"))
        yield (
            f"No picture of {_text(retrieved.get('corpus'))} was used: the best similarity is {best}, the threshold "
            f"{threshold}."
        )
    yield from _watch(facts)
    cap = result.get("cap_area")
    if isinstance(cap, float) and cap > CUT_OFF:
        yield "The object was larger than the volume and is cut off flat at its border."
    if result.get("watertight") is False:
        yield "The surface is not closed everywhere."
    if "reason" in facts:
        yield f"The run failed: {_text(facts['reason'])}"


def _watch(facts: Mapping[str, Any]) -> Iterator[str]:
    """What went wrong with the field while it formed, and what was done about it."""
    with contextlib.suppress(UsageError):  # somebody else's record
        for look in watch.looks_from(facts.get("watch"), "run.json"):
            if look.sentence:
                yield f"After {look.step} steps: {look.sentence}."


def _metrics(run: RunFolder) -> dict[str, list[float]]:
    """The columns of ``metrics.csv``; empty if there is none, or none of ours."""
    columns: dict[str, list[float]] = {}
    for row in csv.DictReader(io.StringIO((_file(run, "metrics.csv") or b"").decode("utf-8", "replace"))):
        for name, value in row.items():
            try:
                columns.setdefault(str(name), []).append(float(value))
            except (TypeError, ValueError):
                columns.setdefault(str(name), []).append(float("nan"))
    return columns


def _plots(columns: Mapping[str, list[float]]) -> list[Plot]:
    steps = columns.get("step", [])

    def series(*names: str) -> list[Series]:
        return [Series(name, steps, columns[name]) for name in names if len(columns.get(name, [])) == len(steps)]

    band = series("t_min", "t_max")
    drawn = [
        Plot(line_plot("loss", "step", series("loss")), "Loss"),
        Plot(
            line_plot("timestep", "step", series("timestep"), band=band if len(band) == 2 else ()),
            "Diffusion timestep of the targets, and the range that it is drawn from",
        ),
        Plot(
            line_plot("opacity and occupancy", "step", series("opacity", "occupancy")),
            "Share of the pixels and of the volume in use",
            ("opacity", "occupancy"),
        ),
    ]
    return [plot for plot in drawn if plot.svg]


def _flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Names with dots, and values as text, of nested settings."""
    for key, inner in value.items():
        name = f"{before}{key}"
        if isinstance(inner, dict):
            yield from _flat(inner, f"{name}.")
        elif isinstance(inner, list | tuple) and any(isinstance(one, dict) for one in inner):
            yield from _flat({str(index): one for index, one in enumerate(inner)}, f"{name}.")
        else:
            yield name, _text(inner)


def _provenance(facts: Mapping[str, Any]) -> Iterator[Fact]:
    yield from (Fact(key, _text(facts[key])) for key in ("prompt", "seed", "status", "id") if key in facts)
    yield from (Fact(f"prior {key}", _text(value)) for key, value in _dict(facts, "prior").items())
    yield from (Fact(f"version of {key}", _text(value)) for key, value in _dict(facts, "versions").items())
    for key, name in (("prior_digest", "SHA-256 of the prior"), ("hash_grid", "hash grid")):
        if facts.get(key) is not None:
            yield Fact(name, _text(facts[key]))
    request = _dict(facts, "request")
    yield from (Fact(key, _text(request[key])) for key in ("device", "precision") if request.get(key) is not None)


def _pictures(facts: Mapping[str, Any]) -> Iterator[Fact]:
    """Whose pictures the asset was drawn by, and how much they counted."""
    images = _dict(facts, "images")
    pictures = images.get("pictures")
    for number, one in enumerate(pictures if isinstance(pictures, list) else (), start=1):
        if isinstance(one, dict):
            named = [(key, one[key]) for key in ("caption", "author", "licence", "source") if one.get(key)]
            yield Fact(f"picture {number}", "; ".join(f"{key}: {_text(value)}" for key, value in named))
    for key, value in _dict(images, "fusion").items():
        yield Fact(f"fusion {key.replace('_', ' ')}", f"{value:.4g}" if type(value) is float else _text(value))


def _licences(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in _dict(facts, "prior").items():
        if "licen" in key or "attribution" in key:
            yield f"prior: {key.removeprefix('licence_')}", _text(value)
    adapter = _dict(_dict(facts, "images"), "adapter")
    if "licence" in adapter:
        yield "image adapter", _text(adapter["licence"])
    yield "dream3d (the program)", "Apache-2.0"
    yield "model-viewer (in this page)", "Apache-2.0"


def _dict(facts: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = facts.get(key)
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return "yes" if value is True else "no" if value is False else str(value)[:2000]
