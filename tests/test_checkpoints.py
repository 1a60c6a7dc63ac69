"""Checkpoints and records that are damaged, foreign, or not files at all: noticed, and the one before is used."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from test_resume import PRIOR, RECIPE, assert_same, broken, go_on
from test_resume import quick as quick  # fixtures
from test_resume import whole as whole
from torch import Tensor

from dream3d import distill
from dream3d.errors import CheckpointError, Dream3DError, UsageError
from dream3d.files import parse_json
from dream3d.generate import resume
from dream3d.run import checkpoints
from dream3d.run.folder import parse_run, read_run
from dream3d.run.progress import Progress


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sealed") / "step-00000003.safetensors"
    tensors = {"a": torch.arange(300.0), "b": torch.ones(4, dtype=torch.uint8)}
    checkpoints.save(path, 3, 1, {"note": '"sha256":"' + "1" * 64}, tensors)
    assert torch.equal(checkpoints.read(path, 1)[1]["a"], tensors["a"])
    return path


@settings(max_examples=120)
@given(st.data())
def test_any_bit_that_changes_is_noticed(sealed: Path, data: st.DataObject) -> None:
    content = sealed.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    damaged = sealed.parent / "damaged" / sealed.name
    damaged.parent.mkdir(exist_ok=True)
    damaged.write_bytes(changed)
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoints.read(damaged, 1)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero"), Path.touch])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make: Callable[[Path], object]) -> None:
    for name in ("step-00000003.safetensors", "run.json"):
        make(tmp_path / name)
    with pytest.raises(CheckpointError):
        checkpoints.read(tmp_path / "step-00000003.safetensors", 1)
    with pytest.raises(UsageError):
        read_run(tmp_path)


def test_a_file_of_another_step_and_one_too_large_are_refused(sealed: Path, tmp_path: Path) -> None:
    other = tmp_path / "step-00000004.safetensors"
    other.write_bytes(sealed.read_bytes())
    with pytest.raises(CheckpointError, match="it is of step 3"):
        checkpoints.read(other, 1)
    with pytest.raises(CheckpointError, match="larger than 1000 bytes"):
        checkpoints.read(sealed, 1, 1000)
    with other.open("wb") as file:
        file.write((2**40).to_bytes(8, "little"))
        file.truncate(2**41)
    with pytest.raises(CheckpointError, match="larger than"):
        checkpoints.read(other, 1)


def unsealed(path: Path, change: Callable[[dict[str, Tensor]], object], **facts: Any) -> None:
    """As the version before wrote it: without a digest and the name of the job."""
    tensors = load_file(path)
    change(tensors)
    about = {"step": int(path.stem[5:]), "version": 1, **facts}
    save_file(tensors, path, {"dream3d": json.dumps(about)})


MISFITS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "NaN": lambda t: t["field.encoding.table"].view(-1)[7:8].fill_(torch.nan),
    "infinite moments": lambda t: t["optimizer.0.exp_avg_sq"].view(-1)[:1].fill_(torch.inf),
    "half": lambda t: t.update({"field.encoding.table": t["field.encoding.table"].half()}),
    "int": lambda t: t.update({"field.density_head.hidden": t["field.density_head.hidden"].int()}),
    "shape of a moment": lambda t: t.update({"optimizer.1.exp_avg": t["optimizer.1.exp_avg"][:-1].clone()}),
    "generator": lambda t: t.update({"generator.noise": t["generator.noise"].int()}),
    "short generator": lambda t: t.update({"generator.noise": t["generator.noise"][:40].clone()}),
    "no optimiser": lambda t: [t.pop(name) for name in list(t) if name.startswith("optimizer.")],
    "half an optimiser": lambda t: t.pop("optimizer.2.exp_avg"),
    "unknown": lambda t: t.update(stranger=torch.zeros(3)),
    "occupancy": lambda t: t.update({"occupancy.occupied": t["occupancy.occupied"].byte()}),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_state_of_other_names_shapes_types_or_numbers_is_refused_whole(tmp_path: Path, name: str) -> None:
    state = distill.start(RECIPE, PRIOR, 0)
    for step in range(2):
        state.step(step, PRIOR.encode_prompt("", ""))
    path = tmp_path / "step-00000002.safetensors"
    checkpoints.save(path, 2, 1, {}, state.state_dict())
    unsealed(path, MISFITS[name])
    other = distill.start(RECIPE, PRIOR, 1)
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match="does not fit this run"):
        other.load_state_dict(2, checkpoints.read(path, 1)[1])
    after = other.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_checkpoint_of_the_version_before_opens_and_a_bad_one_gives_way(tmp_path: Path, whole: Path) -> None:
    older, newer = broken(tmp_path)
    unsealed(older, lambda tensors: None)
    unsealed(newer, MISFITS["NaN"])
    reports: list[Progress] = []
    resume(tmp_path / "run", prior=PRIOR, observer=reports.append)
    said = [report.message or "" for report in reports if report.stage == "prepare"]
    assert "numbers that are not finite); going on from the one before" in said[-1]
    assert min(report.step for report in reports if report.stage == "optimise") == 5
    assert_same(tmp_path, whole)


def test_checkpoints_of_another_job_are_not_adopted(tmp_path: Path, whole: Path) -> None:
    broken(tmp_path)
    file = tmp_path / "run/run.json"
    facts = json.loads(file.read_text())
    file.write_text(json.dumps({**facts, "prompt": "another"}))
    with pytest.raises(CheckpointError, match="it belongs to another job"):
        go_on(tmp_path)


@pytest.mark.parametrize("facts", [{"step": 1e400}, {"step": True}, {"version": "1"}, {"step": 3.0}, {"version": None}])
def test_facts_of_other_types_are_damage(sealed: Path, tmp_path: Path, facts: dict[str, Any]) -> None:
    path = tmp_path / sealed.name
    path.write_bytes(sealed.read_bytes())
    unsealed(path, lambda tensors: None, **facts)
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoints.read(path, 1)


LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(-1e300, 1e300) | st.text(max_size=4)
PLAIN = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=50)
@given(PLAIN)
def test_plain_data_comes_back_from_json(value: object) -> None:
    try:
        content = json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    assert parse_json(content) == value


@pytest.mark.parametrize(
    "text",
    ["NaN", "[1e400]", "-Infinity", '{"a": ' + "9" * 25 + "}", "9" * 5000, '"\\ud800"', '{"\\udfff": 1}',
     "[" * 33 + "]" * 33, "[" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000],
)  # fmt: skip
def test_json_that_is_not_plain_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text.encode())
    with pytest.raises(UsageError, match="cannot be read"):
        parse_run(text.encode(), "run.json")


WRONG: list[Any] = [None, [], {}, "x", "", -1, 2**63, 0.5, True, "\0", "a" * 5000, [[1]], {"steps": []}]


@settings(max_examples=60)
@given(
    place=st.sampled_from(["prompt", "seed", "recipe", "prior", "request", "files", "id", "hash_grid", "prior_digest",
                           "status", "request.out", "request.device", "recipe.stages", "recipe.field", "recipe.steps",
                           "recipe.name"]),
    value=st.sampled_from(WRONG),
)  # fmt: skip
def test_any_edited_record_is_one_line(tmp_path_factory: pytest.TempPathFactory, place: str, value: Any) -> None:
    folder = tmp_path_factory.mktemp("edited")
    facts = edited_record(folder)
    table, _, key = place.rpartition(".")
    (facts[table] if table else facts)[key] = value
    (folder / "run").mkdir()
    (folder / "run/run.json").write_text(json.dumps(facts))

    class Begun(Exception):
        pass

    def stop(progress: Progress) -> None:
        raise Begun

    with pytest.raises((Dream3DError, Begun)) as caught:
        resume(folder / "run", prior=PRIOR, observer=stop)
    assert len(str(caught.value).splitlines()) <= 1


def edited_record(folder: Path) -> dict[str, Any]:
    from dream3d.run.folder import provenance

    request = {"out": str(folder / "a.glb"), "device": "cpu"}
    facts = {
        **provenance("a", 0, RECIPE, PRIOR),
        "status": "failed",
        "files": ["metrics.csv"],
        "id": "0" * 12,
        "request": request,
    }
    return dict(json.loads(json.dumps(facts)))


def test_metrics_that_are_not_text_are_made_again(tmp_path: Path, whole: Path) -> None:
    for path in broken(tmp_path):
        path.unlink()
    (tmp_path / "run/metrics.csv").write_bytes(np.random.default_rng(0).bytes(5000))
    go_on(tmp_path)
    assert_same(tmp_path, whole)
