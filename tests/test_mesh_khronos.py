"""The Khronos group's own validator, run in Chromium, finds nothing to say about our GLBs.

``data/khronos/gltf_validator.dart.js`` is npm's ``gltf-validator`` 2.0.0-dev.3.10 as published (Apache-2.0; its licence
and notices lie beside it). It is a tool of the tests only and is not part of the package.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import Page, browser, needs_chromium
from mascot_run import mascot_run
from mesh_assets import NASTY, axis_object, single_triangle, textured_quad
from small_pictures import small_pictures
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.mesh.export import export

VALIDATOR = Path(__file__).parent / "data" / "khronos" / "gltf_validator.dart.js"

pytestmark = [needs_chromium, pytest.mark.slow]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("khronos")
    (folder / "page.html").write_text("<!doctype html><script>var exports = {}</script><script src=v.js></script>")
    (folder / "v.js").symlink_to(VALIDATOR)
    with browser(folder / "profile") as page:
        page.open(folder / "page.html")
        page.wait_for("exports.validateBytes")
        yield page


def findings(page: Page, path: Path) -> tuple[dict[str, Any], list[str]]:
    """What the validator read, and what it found: errors, warnings, infos and hints."""
    data = base64.b64encode(path.read_bytes()).decode()
    bytes_of = f"Uint8Array.from(atob('{data}'), letter => letter.charCodeAt(0))"
    told = "JSON.stringify, error => JSON.stringify('' + error)"
    report = json.loads(page.value(f"exports.validateBytes({bytes_of}, {{format: 'glb'}}).then({told})"))
    assert isinstance(report, dict), report
    issues = report["issues"]
    assert not issues["truncated"]
    return report["info"], [f"{one['severity']} {one['code']}: {one['message']}" for one in issues["messages"]]


def test_vertex_colours(page: Page, tmp_path: Path) -> None:
    asset = axis_object()
    export(asset, tmp_path / "a.glb")
    info, found = findings(page, tmp_path / "a.glb")
    assert found == []
    assert (info["version"], info["totalTriangleCount"]) == ("2.0", len(asset.faces))


def test_a_texture(page: Page, tmp_path: Path) -> None:
    export(textured_quad(), tmp_path / "a.glb")
    info, found = findings(page, tmp_path / "a.glb")
    assert found == []
    pictures = [(one["mimeType"], one["image"]["width"]) for one in info["resources"] if "image" in one]
    assert pictures == [("image/png", 2)]


def test_a_prompt_of_every_kind_of_character(page: Page, tmp_path: Path) -> None:
    export(single_triangle(provenance={"prompt": NASTY}), tmp_path / "a.glb")
    assert findings(page, tmp_path / "a.glb")[1] == []


def test_an_asset_of_a_run_with_its_texture_and_normal_map(page: Page, tmp_path: Path) -> None:
    with small_pictures():
        mascot_run(tmp_path)
    info, found = findings(page, tmp_path / "out" / "mascot.glb")
    assert found == []
    assert sum("image" in one for one in info["resources"]) == 2  # colours and normals


def test_the_objects_of_a_made_dataset(page: Page, tmp_path: Path) -> None:
    options = ["--out", str(tmp_path / "made"), "--count", "4", "--families", "dog,castle,teapot,counted"]
    result = CliRunner().invoke(app, ["dataset", "make", *options])
    assert result.exit_code == 0, result.output
    made = sorted((tmp_path / "made").rglob("*.glb"))
    assert len(made) == 4
    assert {path.name: findings(page, path)[1] for path in made} == {path.name: [] for path in made}


def test_a_broken_file_is_found_out(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "a.glb"
    export(single_triangle(), path)
    data = bytearray(path.read_bytes())
    data[-4:] = np.array([2.5], dtype=np.float32).tobytes()  # a colour outside [0, 1]
    path.write_bytes(data)
    (found,) = findings(page, path)[1]
    assert found.startswith("0 ACCESSOR_NON_CLAMPED")  # 0: an error
