"""Whether a user is told that a prior does not know what a prompt is about, before a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FakeEngine
from hypothesis import given
from hypothesis import strategies as st
from tiny_prior import edit_json, write_tiny_prior
from typer.testing import CliRunner

from dream3d.cli.app import app
from dream3d.dataset.captions.colors import REFERENCES
from dream3d.errors import PriorError
from dream3d.prior.folder import read_settings
from dream3d.prior.image_encoder import load_text
from dream3d.prior.layout import PACKAGED
from dream3d.prior.vocabulary import NEAREST, Unfamiliar, objects_in, unfamiliar
from dream3d.weights.loading import load_prior, unfamiliar_in

PROMPTS = Path(__file__).parents[1] / "prompts"
NAMES = read_settings(PACKAGED / "mini").names
TEXT = load_text(PACKAGED / "mini")
DRAGON = "warning: mini has never seen anything like 'a dragon'; the nearest names it knows: "


def prompts_of(name: str) -> list[str]:
    return [line for line in (PROMPTS / name).read_text("utf-8").splitlines() if not line.startswith("#")]


def told(prompts: list[str]) -> list[Unfamiliar | None]:
    return unfamiliar(NAMES, TEXT, prompts, torch.device("cpu"))


def test_unknown_things_are_told_and_known_ones_are_not() -> None:
    unknown, known = told(prompts_of("unknown-test.txt")), told(prompts_of("known-test.txt"))
    assert (len(unknown), len(known)) == (30, 60)
    assert sum(found is not None for found in unknown) >= 27
    assert sum(found is not None for found in known) <= 3
    assert all(len(found.nearest) == NEAREST and {*found.nearest} <= {*NAMES} for found in unknown if found)


def test_other_words_for_known_things_are_known() -> None:
    assert told(["a red couch", "a kitten", "an automobile", "a cup of tea", "a sailboat"]) == [None] * 5


@given(
    st.sampled_from(NAMES),
    st.sampled_from(["", "a ", "the ", "Two "]),
    st.lists(st.sampled_from(sorted(REFERENCES)), max_size=2),
    st.sampled_from(["", " with a dragon", " made of cheese", ", 3d asset", " in a forest", " on a red table"]),
)
def test_a_name_is_known_whatever_its_colour_and_details(name: str, article: str, colors: list[str], more: str) -> None:
    assert told([article + " and ".join(colors) + f" {name}{more}"]) == [None]


def test_each_object_of_a_prompt_must_be_known() -> None:
    assert objects_in("a red cube on a bed with legs on wheels") == ["a red cube", "a bed"]
    assert objects_in("a cat and a black and white dog next to a tree") == ["a cat", "a black and white dog", "a tree"]
    assert objects_in("with legs") == ["with legs"]
    (found,) = told(["an astronaut on a horse"])
    assert found is not None
    assert found.phrase == "an astronaut"
    assert told(["\u6905\u5b50"]) != [None]


def test_a_prior_without_names_tells_nothing(tmp_path: Path) -> None:
    folder = write_tiny_prior(tmp_path / "tiny")
    assert load_prior(str(folder)).unfamiliar("a dragon") is None
    assert unfamiliar_in(str(folder), ["a dragon", "a chair"]) == [None, None]
    edit_json(folder / "prior.json", names=["chair", " "])
    assert load_prior(str(folder)).settings.names == ("chair",)
    edit_json(folder / "prior.json", names=["chair"] * 5000)
    assert load_prior(str(folder)).unfamiliar("a dragon") is None
    edit_json(folder / "prior.json", names=["chair", 3])
    with pytest.raises(PriorError, match=r"'names' is .*, not a list of"):
        load_prior(str(folder))


def test_generate_says_so_on_stderr_and_goes_on(engine: FakeEngine) -> None:
    result = CliRunner().invoke(app, ["generate", "a dragon", "--quiet"])
    assert result.exit_code == 0
    assert result.stderr == DRAGON + "chair, table\n"
    assert engine.calls[0]["request"]["unfamiliar"] == {"phrase": "a dragon", "nearest": ("chair", "table")}
    assert CliRunner().invoke(app, ["generate", "a chair"]).stderr == ""
    assert engine.calls[1]["request"]["unfamiliar"] is None


def test_views_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["views", "a dragon", "--steps", "1", "--views", "1"])
    assert result.exit_code == 0
    assert result.stderr.startswith(DRAGON)
    assert result.stderr.count("\n") == 1


def test_batch_says_so_once_for_each_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_local(jobs: object, shared: object, workers: int, watcher: object) -> list[Any]:
        return []

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dream3d.batch.local.run_local", run_local)
    (tmp_path / "list.txt").write_text("a dragon\na chair\n")
    result = CliRunner().invoke(app, ["batch", "list.txt", "--out-dir", "out", "--seeds", "0-2"])
    assert result.exit_code == 0
    assert result.stderr.count("warning: ") == 1
    assert DRAGON in result.stderr
