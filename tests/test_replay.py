"""``dream3d replay``: the same bytes from the file alone; what differs when they are not; files of anybody."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mascot_run import PRIOR, mascot_run
from small_pictures import small_pictures
from typer.testing import CliRunner, Result

from dream3d.cli.app import app
from dream3d.errors import UsageError
from dream3d.mesh.export import read_provenance
from dream3d.mesh.formats.glb import json_bytes
from dream3d.replay import compare, differences, read_origin
from dream3d.run.folder import read_run


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with small_pictures():
        yield


@pytest.fixture(scope="module")
def asset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    mascot_run(folder)
    return folder / "out/mascot.glb"


@pytest.fixture
def here(asset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the asset in it; priors are the oracle."""
    monkeypatch.setattr("dream3d.weights.loading.load_prior", lambda name, device="cpu", memory=None: PRIOR)
    monkeypatch.chdir(tmp_path)
    shutil.copy(asset, "x.glb")
    return tmp_path


def replay(*words: object) -> Result:
    return CliRunner().invoke(app, ["replay", *map(str, words), "--device", "cpu"])


def with_provenance(asset: Path, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The file with another record of its making."""
    data = asset.read_bytes()
    (length,) = struct.unpack_from("<I", data, 12)
    document = json.loads(data[20 : 20 + length])
    change(document["asset"]["extras"]["dream3d"])
    text = json_bytes(document)
    text += b" " * (-len(text) % 4)
    rest = data[20 + length :]
    return data[:8] + struct.pack("<III", 20 + len(text) + len(rest), len(text), 0x4E4F534A) + text + rest


def test_the_file_alone_gives_the_same_bytes(here: Path, asset: Path) -> None:
    result = replay("x.glb", "--prior", "mini", "--out", "again.glb")
    assert result.exit_code == 0, result.output
    assert (here / "again.glb").read_bytes() == asset.read_bytes()
    assert "again.glb has the same bytes as x.glb" in result.stdout
    assert result.stderr == ""
    assert read_run(here / "runs/a-mascot-3")["request"]["prior"] == "mini"


def test_what_differs_is_said_before_and_after(here: Path) -> None:
    def age(made_by: dict[str, Any]) -> None:
        made_by["versions"]["torch"] = "1.0"
        made_by["prior_digest"] = "ab" * 32
        made_by["threads"] = 64

    (here / "old.glb").write_bytes(with_provenance(here / "x.glb", age))
    result = replay("old.glb", "--prior", "mini", "--quiet")
    assert result.exit_code == 1
    *notes, last = result.stderr.splitlines()
    assert [note.split(" was ")[0] for note in notes] == [
        "note: torch",
        "note: the prior's weights",
        "note: the number of threads",
    ]
    assert "old-replay.glb is not old.glb byte for byte; it is the same model, but the file tells another mak" in last
    assert "torch was '1.0' and is" in last
    assert "the number of threads was 64 and is" in last
    assert (here / "old-replay.glb").exists()


def test_another_model_is_another_model(asset: Path, tmp_path: Path) -> None:
    data = bytearray(asset.read_bytes())
    data[-5] ^= 1
    found = compare(asset.read_bytes(), bytes(data))
    assert (found.same_bytes, found.same_model, found.reasons) == (False, False, ())
    assert found.sentence == ("another model: versions, prior, recipe, hash grid, threads and device are the same")


def test_differences_by_hand() -> None:
    old = {"versions": {"torch": "1", "python": "3"}, "recipe": {"field": {"levels": 2}, "steps": 4}, "prior": {}}
    new = {"versions": {"torch": "2", "python": "3"}, "recipe": {"field": {"levels": 3}, "steps": 4}, "prior": {}}
    assert list(differences(old, old)) == []
    assert list(differences(old, new)) == ["torch was '1' and is '2'", "the recipe differs in field.levels"]
    assert list(differences(old, {**old, "threads": 2})) == ["the number of threads is not told by the file, and is 2"]
    assert list(differences({**old, "device": "cuda"}, old)) == ["the device was 'cuda' and is not told"]


BAD: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "pictures": (lambda made: made.update(images={}), "drawn by pictures"),
    "no prompt": (lambda made: made.pop("prompt"), "does not say which prompt"),
    "an empty prompt": (lambda made: made.update(prompt=" "), "the prompt is empty"),
    "a prompt with an escape": (lambda made: made.update(prompt="a\x1b[2J"), "control character"),
    "a long prompt": (lambda made: made.update(prompt="w" * 1001), "1001 characters"),
    "a negative seed": (lambda made: made.update(seed=-1), "seed is -1"),
    "a yes as a seed": (lambda made: made.update(seed=True), "does not say which prompt"),
    "a recipe of a million million steps": (lambda made: made["recipe"].update(steps=10**12), "'steps' is 10000"),
    "a recipe from elsewhere": (lambda made: made["recipe"].update(lasers=1), "unknown recipe key 'lasers'"),
    "a recipe that is a list": (lambda made: made.update(recipe=[]), "does not say which prompt"),
    "no prior": (lambda made: made.update(prior=None), "does not say which prior"),
    "a long negative prompt": (lambda made: made["recipe"].update(negative_prompt="w " * 600), "negative prompt"),
    "a number beyond JSON": (lambda made: made.update(x=2**70), "more than 64 bits"),
}


@pytest.mark.parametrize("name", BAD)
def test_provenance_is_checked_like_a_request(name: str, here: Path) -> None:
    change, words = BAD[name]
    (here / "x.glb").write_bytes(with_provenance(here / "x.glb", change))
    result = replay("x.glb", "--prior", "mini")
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in here.iterdir()] == ["x.glb"]


@pytest.mark.parametrize("prior", ["/etc", "../mini", "."])
def test_a_file_names_no_folder_of_this_machine(prior: str, here: Path) -> None:
    (here / "x.glb").write_bytes(with_provenance(here / "x.glb", lambda made: made["prior"].update(name=prior)))
    result = replay("x.glb")
    assert result.exit_code == 2
    assert "say where it lies by --prior" in result.stderr


@pytest.mark.parametrize("content", [b"", b"glTF", b"x" * 100, b"glTF\x02\0\0\0\x1c\0\0\0\x08\0\0\0JSON[1,2,3] "])
def test_what_is_no_asset_of_ours_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.glb"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="holds no dream3d provenance"):
        read_origin(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_origin(tmp_path / "none.glb")
    with pytest.raises(UsageError, match="cannot be read"):
        read_origin(tmp_path)


def test_the_asset_is_never_replaced_by_its_replay(here: Path) -> None:
    before = (here / "x.glb").read_bytes()
    for words in (["--out", "x.glb"], ["--out", "again.obj"]):
        result = replay("x.glb", "--prior", "mini", *words)
        assert result.exit_code == 2
    assert (here / "x.glb").read_bytes() == before


def test_the_file_tells_what_its_bytes_depend_on(asset: Path) -> None:
    made_by = read_provenance(asset)
    assert made_by["prior_digest"] == PRIOR.digest
    assert (made_by["device"], type(made_by["threads"])) == ("cpu", int)
    assert made_by["hash_grid"]
