"""``report.html``: plots, what is escaped, what is left out, the command, and Chromium looking at it."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from chromium import browser, needs_chromium
from mascot_run import mascot_run
from PIL import Image
from small_pictures import small_pictures
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.report.asset_page import AssetPage, Fact
from dream3d.report.gallery import GalleryItem, gallery_page
from dream3d.report.page import html_page, viewer_script
from dream3d.report.plots import Series, line_plot, ticks
from dream3d.run.folder import read_run
from dream3d.run_report import _watch

HOSTILE = '</script><img src=x onerror="alert(1)">\'&amp; a mascot'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with small_pictures():
        yield mascot_run(tmp_path_factory.mktemp("finished"), prompt=HOSTILE)


class Elements(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


# --- plots ------------------------------------------------------------------------------------------------------


def test_ticks_are_round_numbers_inside() -> None:
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(0, 999, 4) == [0, 250, 500, 750]
    assert ticks(0.11, 0.42) == pytest.approx([0.2, 0.3, 0.4])
    assert ticks(3, 3) == [3]


def test_a_line_goes_from_corner_to_corner() -> None:
    svg = line_plot("a<b", "x & y", [Series("s", [0, 1, 2], [0, 5, 10])])
    points = re.search(r'class="line0" points="([^"]*)"', svg)
    assert points is not None
    # 480 x 260 with margins of 56 left, 14 right, 14 above and 46 below.
    assert points[1] == "56.0,214.0 261.0,114.0 466.0,14.0"
    assert "<title>a&lt;b</title>" in svg
    assert "x &amp; y" in svg


def test_what_is_not_finite_is_left_out_and_nothing_is_no_plot() -> None:
    assert line_plot("", "", [Series("s", [0, 1], [float("nan"), float("inf")])]) == ""
    assert line_plot("", "", []) == ""
    one = line_plot("", "", [Series("s", [0, 1], [float("nan"), 3])])
    assert "nan" not in one
    assert len(line_plot("", "", [Series("s", range(100_000), range(100_000))])) < 20_000


# --- the page ---------------------------------------------------------------------------------------------------


def test_text_of_anybody_stays_text(run: Path) -> None:
    page = (run / "report.html").read_text("utf-8")
    elements = Elements(page)
    assert elements.tags.count("script") == 2
    assert "alert(1)" in elements.text
    assert not [name for name, _ in elements.attributes if name.startswith("on")]
    assert "<title>" + html.escape(HOSTILE) in page


def test_the_page_asks_for_nothing_and_forbids_it(run: Path) -> None:
    page = (run / "report.html").read_text("utf-8")
    elements = Elements(page)
    addresses = [value for name, value in elements.attributes if name in ("src", "href", "poster", "data", "action")]
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    policy = next(value for name, value in elements.attributes if name == "content" and "default-src" in value)
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "'unsafe-inline'" not in policy.split("style-src")[0]


def test_the_page_holds_the_mesh_and_what_was_measured_and_no_path(run: Path) -> None:
    page = (run / "report.html").read_text("utf-8")
    assert base64.b64encode((run / "mesh.glb").read_bytes()).decode() in page
    elements, result = Elements(page), read_run(run)["result"]
    assert f"{result['faces']:,}" in elements.text
    assert "front right" in elements.text
    assert elements.tags.count("svg") == 3
    assert "similarity" not in elements.text  # the oracle has no image encoder
    assert str(run.parent) not in page
    assert result["mesh"] not in page
    assert "report.html" in read_run(run)["files"]


def test_the_page_tells_what_went_wrong_while_the_field_formed() -> None:
    look = {"attempt": 0, "step": 12, "opacity": 0.0, "floaters": 0.0, "saturated": 0.0}
    record = [{**look, "trouble": "empty", "answer": "restart"}, {**look, "trouble": None, "answer": "none"}]
    assert list(_watch({"watch": record})) == [
        "After 12 steps: the field is empty (mean opacity 0.0000); beginning again with another seed."
    ]
    assert list(_watch({"watch": "<b>"})) == list(_watch({})) == []


def test_a_script_that_would_end_its_element_is_refused() -> None:
    with pytest.raises(ValueError, match="begin or end"):
        html_page("", "", "", scripts=["'</SCRIPT >'"])
    assert "sourceMappingURL" not in viewer_script()


def test_a_page_of_nothing_is_a_page() -> None:
    page = AssetPage("a chair", "", facts=[Fact("a<", "b>", "c&")]).html()
    assert "a&lt;<br><small>c&amp;</small>" in page
    assert "<script" not in page


# --- the command ------------------------------------------------------------------------------------------------


def report(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["report", *map(str, words)])
    return result.exit_code, result.output


def test_the_command_writes_the_same_page_again(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "a")
    shutil.copytree(run, tmp_path / "b")
    (tmp_path / "a" / "report.html").unlink()
    code, output = report(tmp_path / "a", tmp_path / "b", "--quiet")
    assert (code, output) == (0, f"{tmp_path / 'a' / 'report.html'}\n{tmp_path / 'b' / 'report.html'}\n")
    for name in "ab":
        assert (tmp_path / name / "report.html").read_bytes() == (run / "report.html").read_bytes()


def test_a_page_of_the_users_is_not_replaced(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "report.html").write_text("mine")
    facts = read_run(run)
    facts["files"].remove("report.html")
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts))
    code, output = report(tmp_path / "run")
    assert code == 0
    assert str(tmp_path / "run" / "report-2.html") in output
    assert (tmp_path / "run" / "report.html").read_text() == "mine"


def test_a_run_that_is_not_finished_shows_what_there_is(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    facts = {key: value for key, value in read_run(run).items() if key != "result"}
    facts |= {"status": "failed", "reason": "the field is <fog>", "recipe": "none", "prior": 7, "seed": [1]}
    facts["request"] = {"unfamiliar": {"phrase": "a quokka", "nearest": ["a dog", "a cat"]}}
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts))
    for path in (tmp_path / "run").glob("mesh*"):
        path.write_bytes(b"glTF")
    (tmp_path / "run" / "metrics.csv").write_bytes(b"step,loss\n0,1\n1,x\n\xff,\n")
    code, output = report(tmp_path / "run")
    assert code == 0, output
    elements = Elements((tmp_path / "run" / "report.html").read_text("utf-8"))
    assert "The run failed: the field is <fog>" in elements.text
    assert "'a quokka'; the nearest names it knows: a dog, a cat" in elements.text
    assert "model-viewer" not in elements.tags
    assert elements.tags.count("svg") == 1


@pytest.mark.parametrize("extension", ["obj", "stl", "usdz"])
def test_a_mesh_of_another_format_can_be_turned_too(extension: str, tmp_path: Path) -> None:
    with small_pictures():
        folder = mascot_run(tmp_path, f"mascot.{extension}")
    elements = Elements((folder / "report.html").read_text("utf-8"))
    (source,) = (value for _, value in elements.attributes if value.startswith("data:model/gltf-binary"))
    assert base64.b64decode(source.split(",")[1])[:4] == b"glTF"


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    code, output = report(tmp_path)
    assert code == 2
    assert "holds no run" in output


# --- in a browser -----------------------------------------------------------------------------------------------


@needs_chromium
@pytest.mark.slow
def test_chromium_without_a_network_shows_the_model(run: Path, tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as page:
        page.open(run / "report.html", width=700, height=500)
        page.wait_for("document.documentElement.dataset.model === 'loaded'")
        assert page.value("document.querySelector('h1').textContent") == HOSTILE
        assert page.value("document.querySelectorAll('main img').length") >= 8
        page.value("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(() => drawn(0))))")
        drawn = page.value("document.querySelector('model-viewer').toDataURL()")
        shown = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), dtype=np.int64)
        box = page.value("JSON.stringify(document.querySelector('model-viewer').getBoundingClientRect())")
        assert page.problems == []
        assert {address.split(":")[0] for address in page.addresses} <= {"file", "data", "blob"}
        # The network is cut off, and the policy forbids it before that.
        assert page.value("fetch('https://example.com').then(() => 'reached', () => 'refused')") == "refused"
        assert any("Content Security Policy" in problem for problem in page.problems)
    place = json.loads(box)
    top, left, side = (round(place[name]) for name in ("top", "left", "width"))
    stage = shown[top : top + side, left : left + side]
    differs = (np.abs(stage - stage[side // 2, 4]).max(axis=-1) > 24).mean()
    assert 0.05 < differs < 0.8  # an object before a plain background
    alpha = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn.split(",")[1]))).convert("RGBA"))[..., 3]
    assert 0.05 < (alpha > 128).mean() < 0.8  # which is the model, not the picture that stands for it before


@needs_chromium
@pytest.mark.slow
def test_a_click_in_a_gallery_shows_the_model(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "runs" / "a b")
    items = [
        GalleryItem(HOSTILE, "seed 3", image="runs/a b/preview.png", page="runs/a b/report.html"),
        GalleryItem("a chair", "seed 4", "failed", "it broke"),
    ]
    (tmp_path / "index.html").write_text(gallery_page("two", "1 finished", items), "utf-8")
    with browser(tmp_path / "profile") as page:
        page.open(tmp_path / "index.html", width=700, height=500)
        page.wait_for("document.querySelector('img').naturalWidth > 0")
        page.value("document.querySelector('button').click()")
        page.wait_for("document.documentElement.dataset.model === 'loaded'", frame=0)
        assert page.value("getComputedStyle(document.querySelector('h1')).display", frame=0) == "none"
        assert page.problems == []
        assert {address.split(":")[0] for address in page.addresses} <= {"file", "data", "blob"}


def test_the_run_tells_how_well_the_views_fit_together(run: Path) -> None:
    """TINY has one round in its six steps, of a mascot that is one solid thing seen by an oracle."""
    facts = read_run(run)
    (one,) = facts["targets"]
    assert one["step"] == 0
    assert one["cross_view_consistency"] == facts["result"]["cross_view_consistency"]
    assert 0 < one["cross_view_consistency"] <= 1
    assert 0 <= facts["result"]["janus"] <= 1
    page = (run / "report.html").read_text()
    assert "consistency of what the prior drew" in page
    assert "back that repeats the front" in page
