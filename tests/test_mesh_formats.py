"""What holds for every format: each test goes through the whole registry."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mesh_assets import (
    NASTY,
    axis_object,
    colored_formats,
    colors_of,
    every_format,
    reload,
    single_triangle,
    textured_quad,
)

from dream3d.errors import ExportError, UsageError
from dream3d.mesh.appearance import Texture, VertexColors
from dream3d.mesh.export import Asset, check_extension, export
from dream3d.mesh.formats.registry import EXPORTERS
from dream3d.mesh.surface import face_volumes


@every_format
def test_every_format_reads_back(extension: str, tmp_path: Path) -> None:
    asset, path = axis_object(), tmp_path / f"axes{extension}"
    report = export(asset, path)
    mesh = reload(path)
    assert (report.vertices, report.faces) == (len(asset.vertices), len(asset.faces))
    assert report.bytes == path.stat().st_size
    assert len(mesh.faces) == len(asset.faces)
    assert np.asarray(mesh.triangles) == pytest.approx(report.placement.to_file(asset.vertices)[asset.faces], abs=1e-6)


@every_format
def test_the_same_asset_gives_the_same_bytes(extension: str, tmp_path: Path) -> None:
    first, second = tmp_path / f"first{extension}", tmp_path / f"second{extension}"
    export(axis_object(), first)
    export(axis_object(), second)
    assert first.read_bytes() == second.read_bytes()


@every_format
def test_files_lie_in_a_centred_unit_box(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"axes{extension}"
    export(axis_object(), path)
    low, high = reload(path).bounds
    assert (high - low).max() == pytest.approx(1, abs=1e-6)
    assert (high + low) == pytest.approx([0, 0, 0], abs=1e-6)


@every_format
def test_front_is_plus_z_and_top_is_plus_y(extension: str, tmp_path: Path) -> None:
    # In world units: red reaches 0.95 in x (front), blue 0.6 in z (up), green 0.7 in y (the object's left).
    path = tmp_path / f"axes{extension}"
    report = export(axis_object(), path)
    vertices = report.placement.scale * np.array([0.95 - 0.3, 0, 0])  # how far red sticks out of the white ball
    mesh = reload(path)
    tip = np.asarray(mesh.vertices)[np.asarray(mesh.vertices)[:, 2].argmax()]
    assert tip[2] == pytest.approx(0.5, abs=1e-6)  # x is the longest side, so the front is at +Z = 0.5
    assert vertices[0] == pytest.approx(0.52, abs=1e-6)  # scale 1 / (0.95 + 0.3) = 0.8
    # Left and right are not mirrored: green is at +X when +Z comes towards you and +Y is up.
    assert mesh.bounds[1] == pytest.approx(np.array([1.0 / 2, 0.9 / 2, 1.25 / 2]) * 0.8, abs=1e-6)


@colored_formats
def test_colours_are_where_they_belong(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"axes{extension}"
    export(axis_object(), path)
    vertices, colors = np.asarray(reload(path).vertices), colors_of(path)
    for axis, color in ((2, (1, 0, 0)), (0, (0, 1, 0)), (1, (0, 0, 1))):
        assert colors[vertices[:, axis].argmax()] == pytest.approx(color)


@every_format
def test_faces_stay_outward(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"axes{extension}"
    export(axis_object(), path)
    mesh = reload(path)
    assert face_volumes(np.asarray(mesh.vertices), np.asarray(mesh.faces)).sum() > 0


@every_format
@pytest.mark.parametrize(
    "prompt", [NASTY, "end_header", "\n", "\\", "#", "x" * 5000, "\udcff lone", "", "\texturefile"]
)
def test_no_prompt_can_break_a_file(extension: str, prompt: str, tmp_path: Path) -> None:
    path = tmp_path / f"triangle{extension}"
    export(single_triangle(provenance={"prompt": prompt, "seed": 1}), path)
    assert len(reload(path).faces) == 1


@every_format
@given(data=st.data())
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mesh_and_prompt_survive(extension: str, data: st.DataObject, tmp_path: Path) -> None:
    seed = data.draw(st.integers(0, 10_000))
    generator = np.random.default_rng(seed)
    count = data.draw(st.integers(3, 12))
    vertices = generator.normal(size=(count, 3)) * 10.0 ** generator.integers(-4, 4) + generator.normal(size=3)
    faces = np.stack([generator.permutation(count)[:3] for _ in range(data.draw(st.integers(1, 20)))])
    asset = Asset(
        vertices, faces, VertexColors(generator.random((count, 3))), {"prompt": data.draw(st.text()), "seed": seed}
    )
    report = export(asset, tmp_path / f"any{extension}")
    assert (report.vertices, report.faces) == (len(np.unique(faces)), len(faces))
    assert sorted(tmp_path.iterdir()) == [tmp_path / f"any{extension}"]


@every_format
def test_upper_case_extensions_work(extension: str, tmp_path: Path) -> None:
    export(single_triangle(), tmp_path / f"t{extension.upper()}")
    assert check_extension(Path(f"t{extension.upper()}")) == extension


@pytest.mark.parametrize("name", ["a.fbx", "a", "a.glb.zip", ".glb"])
def test_other_extensions_are_refused_with_a_list(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"use one of \.glb, \.obj, \.ply, \.stl"):
        export(single_triangle(), tmp_path / name)
    assert not list(tmp_path.iterdir())


@every_format
def test_a_texture_is_kept_or_refused_unless_all_appearance_is_dropped(extension: str, tmp_path: Path) -> None:
    path, kinds = tmp_path / f"quad{extension}", EXPORTERS[extension].appearances
    if kinds and Texture not in kinds:
        with pytest.raises(ExportError, match=rf"a texture does not fit into \{extension}; use \.glb"):
            export(textured_quad(), path)
        assert not list(tmp_path.iterdir())
    else:
        assert export(textured_quad(), path).faces == 2
        assert len(reload(path).faces) == 2


# --- what must not be written -----------------------------------------------------------------------------------

NO_FACES = np.zeros((0, 3), np.int64)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"faces": NO_FACES}, "no faces"),
        ({"vertices": np.array([[0, 0, 0], [1, 0, math.nan], [0, 1, 0]])}, "1 of 3 vertices are not finite"),
        ({"vertices": np.zeros((3, 3))}, "in one point"),
        ({"vertices": np.zeros((3, 2))}, r"\(3, 2\)"),
        ({"faces": np.array([[0, 1, 3]])}, r"0\.\.3, but there are 3"),
        ({"faces": np.array([[0, 1, -1]])}, r"-1\.\.1"),
        ({"appearance": VertexColors(np.zeros((2, 3)))}, r"\(3, 3\), got \(2, 3\)"),
        ({"appearance": VertexColors(np.full((3, 3), 1.5))}, r"in \[0, 1\], got 1\.5"),
        ({"appearance": VertexColors(np.full((3, 3), math.nan))}, r"in \[0, 1\]"),
        ({"provenance": {"path": Path("x")}}, "not plain JSON"),
        ({"provenance": {"loss": math.inf}}, "not plain JSON"),
    ],
)
@every_format
def test_bad_assets_are_refused(extension: str, changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=words) as caught:
        export(single_triangle(**changes), tmp_path / f"t{extension}")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@every_format
def test_vertices_that_no_face_uses_are_left_out(extension: str, tmp_path: Path) -> None:
    vertices = np.array([[9, 9, 9], [0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=np.float32)
    stray = single_triangle(
        vertices=vertices, faces=np.array([[1, 2, 3]]), appearance=VertexColors(np.full((4, 3), 0.5))
    )
    assert export(stray, tmp_path / f"stray{extension}").placement.scale == 1  # 9 would have made it 1 / 9
    export(single_triangle(), tmp_path / f"plain{extension}")
    assert (tmp_path / f"stray{extension}").read_bytes() == (tmp_path / f"plain{extension}").read_bytes()


def full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


@every_format
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    extension: str, function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"t{extension}"
    path.write_bytes(b"older work")
    monkeypatch.setattr(os, function, full_disk)
    with pytest.raises(ExportError, match=r"cannot write .*No space left on device; check .*MB free"):
        export(single_triangle(), path)
    assert path.read_bytes() == b"older work"
    assert list(tmp_path.iterdir()) == [path]


@every_format
def test_a_lost_face_is_an_error(extension: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = EXPORTERS[extension]
    lossy = replace(honest, encode=lambda mesh: honest.encode(replace(mesh, faces=mesh.faces[1:])))
    monkeypatch.setitem(EXPORTERS, extension, lossy)
    with pytest.raises(ExportError, match="faces instead of"):
        export(axis_object(), tmp_path / f"t{extension}")
    assert not list(tmp_path.iterdir())
