"""``dream3d dataset make``: procedural assets, their captions and their manifest."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.dataset.assets.sources import read_manifest
from dream3d.dataset.procedural.compositions import on_top
from dream3d.dataset.procedural.families import FAMILIES
from dream3d.dataset.procedural.make import design, make_asset, make_assets
from dream3d.dataset.procedural.shapes import Solid, box, cylinder, ellipsoid, torus, tube
from dream3d.dataset.procedural.sketch import JITTER, PALETTE
from dream3d.dataset.records import KEY
from dream3d.errors import UsageError
from dream3d.mesh.formats.glb import glb_document


def _volume(solid: Solid) -> float:
    a, b, c = np.moveaxis(solid.corners(), 1, 0)
    return float((a * np.cross(b, c)).sum() / 6)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_a_sane_mesh_and_honest_captions(family: str) -> None:
    for index in range(6):
        made = design(family, 3, index)
        vertices, normals, colors, faces = made.sketch.mesh()
        assert len(faces) >= 12
        assert faces.min() >= 0
        assert faces.max() < len(vertices)
        assert all(np.isfinite(array).all() for array in (vertices, normals, colors))
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
        assert colors.min() >= 0
        assert colors.max() <= 1
        size = np.ptp(vertices, axis=0)
        assert size.min() > 0.05
        assert size.max() < 8
        assert vertices[:, 1].min() == pytest.approx(0)
        captions = made.captions()
        assert not [c for c in captions if re.search(r"\ba [aeio]|\ban [^aeiou]", c)]
        assert made.name in captions or made.own_words
        assert len(captions) >= 2
        said = set(re.findall(r"[a-z]+", " ".join(captions))) & set(PALETTE)
        # "an orange" is no thing here, so every colour word speaks of a part.
        assert said <= set(made.sketch.colours()), (captions, made.sketch.colours())


def test_a_red_cube_on_a_blue_cylinder_is_just_that() -> None:
    made = on_top(np.random.default_rng(0), ("red", "cube"), ("blue", "cylinder"))
    vertices, _, colors, _ = made.sketch.mesh()
    red = np.abs(colors - PALETTE["red"]).max(axis=1) <= JITTER + 1e-9
    blue = np.abs(colors - PALETTE["blue"]).max(axis=1) <= JITTER + 1e-9
    assert (red ^ blue).all()
    assert vertices[blue][:, 1].max() == pytest.approx(1)  # the cylinder is 1 high and stands on the ground
    assert vertices[red][:, 1].min() == pytest.approx(1)  # and the cube on it
    assert red.sum() == 36  # 12 facets of 3 corners of their own
    assert "a red cube on a blue cylinder" in made.captions()
    assert "a blue cylinder under a red cube" in made.captions()
    assert "a blue cylinder on a red cube" not in made.captions()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    first = make_asset(tmp_path / "a", "elk-skull", 7, 2)
    assert make_asset(tmp_path / "b", "elk-skull", 7, 2) == first
    other = make_asset(tmp_path / "c", "elk-skull", 8, 2)
    data = (tmp_path / "a" / first.path).read_bytes()
    assert (tmp_path / "b" / first.path).read_bytes() == data
    assert (tmp_path / "c" / other.path).read_bytes() != data
    assert glb_document(data)["asset"]["version"] == "2.0"


def test_an_asset_does_not_depend_on_which_families_are_made_with_it(tmp_path: Path) -> None:
    make_assets(tmp_path / "two", 4, 5, ["key", "apple"])
    make_assets(tmp_path / "one", 2, 5, ["apple"])
    name = "apple-00005-00001.glb"
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_manifest_reads_back(tmp_path: Path) -> None:
    made = make_assets(tmp_path, 5, 1, ["mug", "elk-skull"])
    read = read_manifest(tmp_path / "assets.jsonl")
    assert [asset.key for asset in read] == [asset.key for asset in made]
    assert [asset.captions for asset in read] == [asset.captions for asset in made]
    assert all(KEY.fullmatch(asset.key) and (tmp_path / asset.path).is_file() for asset in made)
    assert {(asset.licence, asset.author, asset.source) for asset in read} == {("CC0-1.0", "dream3d", "procedural")}
    assert "an elk skull" in read[1].captions


@pytest.mark.parametrize(
    ("count", "seed", "families", "words"),
    [(1, 0, ["unicorn"], "elk-skull"), (0, 0, [], "--count 0"), (1, -1, [], "--seed -1")],
)
def test_a_wrong_request_says_what_would_be_right(
    tmp_path: Path, count: int, seed: int, families: list[str], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        make_assets(tmp_path / "new", count, seed, families)
    assert not (tmp_path / "new").exists()


def test_the_command_makes_lists_and_refuses(tmp_path: Path) -> None:
    run = CliRunner().invoke
    made = run(app, ["dataset", "make", "--out", str(tmp_path), "--count", "2", "--families", "car, key"])
    assert made.exit_code == 0, made.output
    assert {path.name for path in tmp_path.glob("*.glb")} == {"car-00000-00000.glb", "key-00000-00000.glb"}
    assert "elk-skull" in run(app, ["dataset", "make", "--list"]).output
    assert run(app, ["dataset", "make"]).exit_code == 2
    assert run(app, ["dataset", "make", "--out", str(tmp_path), "--families", "unicorn"]).exit_code == 2


@pytest.mark.parametrize(
    ("solid", "volume", "tolerance"),
    [
        (box(1, 2, 3), 6.0, 1e-9),
        (cylinder(1, 2, sides=60), 2 * np.pi, 0.02),
        (ellipsoid(1, 2, 3, detail=30), 8 * np.pi, 0.03),
        (torus(1, 0.2, 60), 2 * np.pi**2 * 0.04, 0.08),
        (tube([(0, 0, 0), (0, 0, 2)], 0.5, 40), np.pi * 0.5 + np.pi / 6, 0.06),
    ],
    ids=["box", "cylinder", "ellipsoid", "torus", "tube"],
)
def test_bodies_face_outwards_and_hold_their_volume(solid: Solid, volume: float, tolerance: float) -> None:
    assert _volume(solid) == pytest.approx(volume, rel=tolerance)
    assert _volume(solid.mirrored()) == pytest.approx(_volume(solid))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from("xyz"), st.floats(-360, 360))
def test_turning_keeps_the_volume_and_turns_back(axis: str, degrees: float) -> None:
    solid = box(1, 2, 3, 0.5)
    turned = solid.turned(axis, degrees)
    assert _volume(turned) == pytest.approx(_volume(solid))
    np.testing.assert_allclose(turned.turned(axis, -degrees).vertices, solid.vertices, atol=1e-9)
