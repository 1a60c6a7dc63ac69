"""Folders that are built or replaced whole or not at all, and locks between processes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from dream3d.errors import Dream3DError
from dream3d.files import LEFTOVER, build_folder, remove_leftovers, replace_folder, tagged
from dream3d.locks import held


def fill(folder: Path) -> None:
    (folder / "file").write_text("new")


def fail(folder: Path) -> None:
    fill(folder)
    raise OSError("disk full")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prior").mkdir()
    (tmp_path / "prior/file").write_text("old")
    return tmp_path / "prior"


def test_a_built_folder_has_the_rights_of_the_users_folders(tmp_path: Path) -> None:
    build_folder(tmp_path / "new", fill)
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "new/file").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_with_content_is_not_built_over(folder: Path) -> None:
    with pytest.raises(OSError, match="not empty"):
        build_folder(folder, fill)
    assert (folder / "file").read_text() == "old"
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_is_replaced_whether_or_not_it_is_there(folder: Path, exists: bool) -> None:
    place = folder if exists else folder.with_name("other")
    replace_folder(place, fill)
    assert (place / "file").read_text() == "new"
    assert set(folder.parent.iterdir()) == {folder, place}


@pytest.mark.parametrize("build", [build_folder, replace_folder])
def test_a_failure_leaves_nothing_behind(folder: Path, build: object) -> None:
    assert callable(build)
    for place in (folder, folder.with_name("other")):
        with pytest.raises(OSError, match="disk full"):
            build(place, fail)
    assert (folder / "file").read_text() == "old"
    assert list(folder.parent.iterdir()) == [folder]


def test_the_old_folder_comes_back_if_the_new_one_cannot_be_moved_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        if source.name == "new":
            raise OSError("refused")
        real(source, target)

    real = os.replace
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="refused"):
        replace_folder(folder, fill)
    assert (folder / "file").read_text() == "old"
    assert list(folder.parent.iterdir()) == [folder]


def test_what_a_killed_process_leaves_is_known_by_its_name(folder: Path) -> None:
    staged: list[Path] = []
    replace_folder(folder, lambda new: staged.append(new.parent))
    (left,) = staged
    assert LEFTOVER.fullmatch(left.name)
    (left / "new").mkdir(parents=True)
    remove_leftovers(folder.parent)
    remove_leftovers(folder.parent, "other", folders=True)
    with tagged("0123456789ab"):
        remove_leftovers(folder.parent, folder.name, folders=True)
    assert left.is_dir()
    remove_leftovers(folder.parent, folder.name, folders=True)
    assert list(folder.parent.iterdir()) == [folder]


def test_a_held_lock_is_an_error_unless_somebody_waits(tmp_path: Path) -> None:
    lock, told = tmp_path / ".lock", threading.Event()
    said: list[str] = []

    def wait(line: str) -> None:
        said.append(line)
        told.set()

    def work() -> None:
        with held(lock, "busy", wait):
            said.append("mine")

    worker = threading.Thread(target=work)
    with held(lock, "busy"):
        with pytest.raises(Dream3DError, match="busy"), held(lock, "busy"):
            pass
        worker.start()
        assert told.wait(20)
        said.append("still held")
    worker.join(20)
    assert said == ["busy", "still held", "mine"]
    with held(lock, "busy"):
        said.append("free again")
    assert said[-1] == "free again"
