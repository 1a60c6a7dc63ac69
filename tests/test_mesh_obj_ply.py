"""OBJ and PLY in detail: lines, and comments that no prompt can break out of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mesh_assets import NASTY, single_triangle

from dream3d import __version__
from dream3d.mesh.export import export
from dream3d.mesh.formats.base import comment


@given(prompt=st.text(max_size=60) | st.sampled_from([NASTY, "\texturefile", "END_HEADER", "\\end_header"]))
def test_comments_are_one_harmless_line_of_json(prompt: str) -> None:
    line = comment({"prompt": prompt, "seed": 3, "recipe": {"left": "out"}})
    assert line.isascii()
    assert line.isprintable()
    assert "end_header" not in line.lower()
    assert "texturefile" not in line.lower()
    assert json.loads(line.removeprefix(f"dream3d {__version__} ")) == {"prompt": prompt, "seed": 3}


def test_long_prompts_are_cut_in_comments_only() -> None:
    assert len(comment({"prompt": "x" * 10_000})) < 500


@pytest.mark.parametrize("extension", [".obj", ".ply"])
def test_text_formats_name_the_prompt(extension: str, tmp_path: Path) -> None:
    export(single_triangle(provenance={"prompt": "an elk", "seed": 5}), tmp_path / f"t{extension}")
    head = (tmp_path / f"t{extension}").read_bytes()[:200]
    assert b'{"prompt": "an elk", "seed": 5}' in head
    assert b"trimesh" not in head


def test_obj_lines_by_hand(tmp_path: Path) -> None:
    # World (0,0,0), (1,0,0), (0,1,0): centre (0.5, 0.5, 0), scale 1; (x, y, z) -> (y, z, x); 0.5 * 255 = 127.5 -> 128.
    export(single_triangle(), tmp_path / "t.obj")
    lines = (tmp_path / "t.obj").read_text().splitlines()
    numbers = [[float(word) for word in line.split()[1:]] for line in lines if line.startswith("v ")]
    gray = 128 / 255
    assert numbers[0] == pytest.approx([-0.5, 0, -0.5, gray, gray, gray], abs=1e-6)
    assert numbers[1][:3] == [-0.5, 0, 0.5]
    assert numbers[2][:3] == [0.5, 0, -0.5]
    assert "f 1 2 3" in lines
