"""The pure checks of a request."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream3d import checks
from dream3d.errors import UsageError


@given(st.text())
def test_a_prompt_is_one_visible_line_or_refused(text: str) -> None:
    try:
        prompt = checks.check_prompt(text)
    except UsageError as error:
        prompt = str(error)
    assert len(prompt.splitlines()) == 1
    assert checks.check_prompt(prompt) == prompt
    prompt.encode("utf-8")


@pytest.mark.parametrize("prompt", ["a chair", "ein Stuhl für Ünder", "椅子", "👩‍🚀 on a chair"])
def test_every_language_is_welcome(prompt: str) -> None:
    assert checks.check_prompt(prompt) == prompt


def test_a_prompt_at_the_limit_passes() -> None:
    checks.check_prompt_length("x" * 1000, None)
    with pytest.raises(UsageError, match="1001 characters and the limit is 1000; describe"):
        checks.check_prompt_length("x" * 1001, None)


def test_the_last_words_are_those_before_the_cut() -> None:
    assert checks.last_words("one two three four five six seven", 27) == 'after "two three four five six"'
    assert len(checks.last_words("x" * 500, 400)) < 80


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_seeds_in_range(seed: int) -> None:
    assert checks.check_seed(seed) == seed


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:3"])
def test_device_names(name: str) -> None:
    assert checks.check_device_name(name) == name


@pytest.mark.parametrize("name", ["", "CPU", "cuda:", "cuda:-1", "cuda:1x", "cpu\n", "gpu"])
def test_wrong_device_names(name: str) -> None:
    with pytest.raises(UsageError, match="unknown device"):
        checks.check_device_name(name)


def test_a_good_place_is_left_as_it_was(tmp_path: Path) -> None:
    place = tmp_path / "new" / "deeper" / "a.glb"
    assert checks.check_output_file(place) == place
    assert checks.check_run_dir(place.parent) == place.parent
    assert list(tmp_path.iterdir()) == []


def test_existing_files_and_folders_pass(tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(b"old")
    checks.check_output_file(tmp_path / "a.glb")
    checks.check_run_dir(tmp_path)
    assert (tmp_path / "a.glb").read_bytes() == b"old"


def test_the_root_folder_is_no_surprise() -> None:
    with pytest.raises(UsageError, match="is a folder"):
        checks.check_output_file(Path("/"))


def test_a_folder_that_refuses_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    # Tests may run as root, whom permission bits do not stop.
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(UsageError, match=r"cannot be written \(Permission denied\); choose another"):
        checks.check_output_file(tmp_path / "a.glb")
    with pytest.raises(UsageError, match="cannot be written"):
        checks.check_run_dir(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(UsageError, match="cannot be written"):
        checks.check_output_file(tmp_path / "locked" / "a.glb")


def test_names_and_paths_that_are_too_long(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a name in it is too long"):
        checks.check_output_file(tmp_path / ("a" * 250 + ".glb"))
    with pytest.raises(UsageError, match="a name in it is too long"):
        checks.check_run_dir(tmp_path / ("a" * 256) / "run")
    with pytest.raises(UsageError, match="the whole path is too long"):
        checks.check_run_dir(tmp_path.joinpath(*["a" * 200] * 25))


def test_a_path_with_a_nul_is_refused() -> None:
    with pytest.raises(UsageError, match="NUL"):
        checks.check_output_file(Path("a\0.glb"))


def test_a_dangling_link_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(UsageError, match="not a folder"):
        checks.check_output_file(tmp_path / "link" / "a.glb")
    with pytest.raises(UsageError, match="is a file"):
        checks.check_run_dir(tmp_path / "link")


def test_mesh_and_run_folder_may_share_a_parent() -> None:
    checks.check_apart(Path("run/a.glb"), Path("run"))
    with pytest.raises(UsageError, match="collide"):
        checks.check_apart(Path("run/a"), Path("run/a/b"))
