"""``dream3d evaluate``: what is asked, and whose answers are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from colored_shapes import write_shapes
from evaluation_models import RED, colored_box, models
from mesh_assets import axis_object
from PIL import Image

from dream3d.cameras import orbit
from dream3d.errors import DatasetError, UsageError
from dream3d.evaluation.protocols.priors import read_split
from dream3d.evaluation.suite.cases import (
    PROTOCOLS,
    Case,
    cases_of_objects,
    cases_of_prompts,
    packaged_prompts,
)
from dream3d.evaluation.suite.sheets import read_sheet
from dream3d.evaluation.suite.subjects import assets_subject

BLUE = (0.2, 0.4, 0.6)


# --- cases ------------------------------------------------------------------------------------------------------


def test_every_protocol_has_prompts_and_a_limit() -> None:
    for protocol in PROTOCOLS.values():
        assert protocol.limit > 0
        if protocol.prompts:
            prompts = packaged_prompts(protocol.prompts)
            assert len(prompts) == len(set(prompts)) >= 20
            assert not any(prompt.startswith("#") for prompt in prompts)


def test_quick_is_the_gallery() -> None:
    lines = (Path(__file__).parent.parent / "prompts/gallery.txt").read_text("utf-8").splitlines()
    assert packaged_prompts("quick") == [line for line in lines if line and not line.startswith("#")]


def test_a_case_of_an_object_has_its_longest_caption_its_cameras_and_its_views(tmp_path: Path) -> None:
    objects = read_split([write_shapes(tmp_path, [("red", "table")], copies=1)], ["heldout"])
    (case,) = cases_of_objects(objects, is_exact=True)
    assert case.prompt == "a red table"
    azimuths = [np.degrees(np.arctan2(float(c2w[1, 3]), float(c2w[0, 3]))) % 360 for c2w in case.cameras.c2w]
    assert azimuths == pytest.approx([0, 90, 180, 270], abs=1e-3)
    truth = case.truth_over(BLUE)
    assert truth is not None
    assert truth.shape == (4, 3, 16, 16)
    assert truth[0, :, 0, 0].tolist() == pytest.approx(BLUE)
    assert truth[0, :, 8, 8].tolist() == pytest.approx([220 / 255, 30 / 255, 30 / 255])
    (other,) = cases_of_objects(objects, is_exact=False)
    assert other.digest != case.digest  # what a result holds depends on it


def test_a_prompt_that_comes_twice_is_one_case() -> None:
    assert [case.prompt for case in cases_of_prompts(["a", "b", "a"])] == ["a", "b"]


# --- subjects ---------------------------------------------------------------------------------------------------


def test_assets_are_found_by_the_words_of_their_prompts(tmp_path: Path) -> None:
    models(tmp_path, a_red_chair=axis_object(), b=colored_box(RED, RED, RED, RED))
    (tmp_path / "notes.txt").write_text("not a model")
    subject = assets_subject("ours", [tmp_path], BLUE)
    assert subject.prompts == ("axes", "b")  # what the file says comes before its name
    assert subject.key(Case("Axes", orbit(4)), 0) is not None
    assert subject.key(Case("axes", orbit(4)), 1) is None  # there is one model
    assert subject.key(Case("a chair", orbit(4)), 0) is None
    views = subject.views(Case("axes", orbit(4)), 0)
    assert views.shape == (4, 3, 256, 256)
    assert views[0, :, 0, 0].tolist() == pytest.approx(BLUE, abs=0.003)
    with pytest.raises(UsageError, match="no model"):
        assets_subject("none", [tmp_path / "notes.txt"], BLUE)


def test_what_a_model_refers_to_is_part_of_it(tmp_path: Path) -> None:
    def key() -> str | None:
        return assets_subject("theirs", [tmp_path / "box.obj"], BLUE).key(Case("box", orbit(4)), 0)

    corners = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\n"
    (tmp_path / "box.obj").write_text(f"mtllib box.mtl\n{corners}usemtl paint\nf 1/1 2/2 3/3\n")
    (tmp_path / "box.mtl").write_text("newmtl paint\nmap_Kd paint.png\n")
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "paint.png")
    red = key()
    assert key() == red
    Image.new("RGB", (4, 4), (0, 0, 255)).save(tmp_path / "paint.png")
    assert key() != red
    (tmp_path / "box.mtl").unlink()
    assert key() not in (None, red)
    (tmp_path / "box.obj").write_text("no model")
    assert key() is not None  # what is wrong with it is said when it is drawn


def test_models_in_folders_of_their_own_are_called_after_them(tmp_path: Path) -> None:
    for name in ("a-red-box", "a-green-box"):
        models(tmp_path / name, mesh=colored_box(RED, RED, RED, RED))
    assert assets_subject("runs", [tmp_path], BLUE).prompts == ("a green box", "a red box")


def test_views_of_other_systems_may_be_pictures(tmp_path: Path) -> None:
    sheet = np.zeros((12, 48, 4), np.uint8)
    for number in range(4):
        sheet[2:10, 12 * number + 2 : 12 * number + 10] = (60 * number, 0, 255, 255)
    Image.fromarray(sheet).save(tmp_path / "a-red-chair.png")
    Image.fromarray(sheet[:, :40]).save(tmp_path / "a-tree.png")
    subject = assets_subject("views", [tmp_path], BLUE)
    assert subject.prompts == ("a red chair", "a tree")
    views = subject.views(Case("a red chair", orbit(4)), 0)
    assert views.shape == (4, 3, 12, 12)
    assert views[:, 0, 6, 6].tolist() == pytest.approx([0, 60 / 255, 120 / 255, 180 / 255])
    assert views[3, :, 0, 0].tolist() == pytest.approx(BLUE, abs=0.003)
    assert read_sheet(tmp_path / "a-red-chair.png", 8, BLUE).shape == (4, 3, 8, 8)
    with pytest.raises(DatasetError, match="40 x 12 pixels are not 4 square views"):
        subject.views(Case("a tree", orbit(4)), 0)
    models(tmp_path, b=colored_box(RED, RED, RED, RED))
    assert assets_subject("models", [tmp_path], BLUE).prompts == ("b",)  # pictures beside models are previews
