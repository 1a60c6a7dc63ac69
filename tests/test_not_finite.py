"""Numbers that are not finite: the update is left out, counted and told; a run of nothing else ends in one line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from oracle import MASCOT, OraclePrior
from test_optimise import TINY as ROUNDS

from dream3d import distill
from dream3d.cameras import Cameras
from dream3d.errors import Dream3DError
from dream3d.generate import optimise
from dream3d.prior.conditioning import Conditioning
from dream3d.recipe.generation import TargetRecipe
from dream3d.run.progress import Progress, read
from dream3d.run.session import Session

TINY = replace(ROUNDS, targets=(TargetRecipe(),))
"""The prior is asked once for each update."""


class Broken(OraclePrior):
    """Answers some targets with a number that is none, as half precision does when it overflows."""

    def __init__(self, targets: range, value: float) -> None:
        super().__init__(MASCOT)
        self.targets, self.value, self.asked = targets, value, -1

    def predict_x0(
        self, x_t: torch.Tensor, timestep: int, cameras: Cameras | None, conditioning: Conditioning, views: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked += 1
        mean, _ = super().predict_x0(x_t, timestep, cameras, conditioning, views)
        if self.asked in self.targets:
            mean[0, 0, 30, 30] = self.value
        return mean, mean


def moved_by(state: distill.Distillation) -> dict[str, torch.Tensor]:
    """What an update changes: parameters and the optimiser's moments, with its count of steps."""
    return {
        name: value.clone()
        for name, value in state.state_dict().items()
        if name.partition(".")[0] in ("field", "background", "optimizer")
    }


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_update_that_is_not_finite_moves_nothing(fused: bool, value: float) -> None:
    """``fused`` is how it is on CUDA, where the host does not look."""
    prior = Broken(range(1, 2), value)
    state = distill.start(TINY, prior, 0)
    groups = [{"params": group["params"], "lr": group["lr"]} for group in state.optimizer.param_groups]
    state.optimizer = torch.optim.AdamW(groups, fused=fused, weight_decay=0.1)
    text = prior.encode_prompt("", "")
    reports = [state.step(0, text)]
    before = moved_by(state)
    reports.append(state.step(1, text))
    after = moved_by(state)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    reports.append(state.step(2, text))
    assert not torch.equal(moved_by(state)["field.encoding.table"], before["field.encoding.table"])
    assert [(m.skipped, m.skipped_in_a_row) for m in read(reports)] == [(0, 0), (1, 1), (1, 0)]


def test_what_was_skipped_is_told_once() -> None:
    told: list[Progress] = []
    optimise("", Broken(range(2, 4), float("nan")), TINY, 0, "cpu", Session(told.append))
    messages = [report.message for report in told if report.stage == "optimise" and report.message]
    assert messages == [
        f"up to step {step}: 1 update skipped, since the loss or a gradient was not finite" for step in (2, 3)
    ]


def test_a_run_of_nothing_else_ends_in_one_line() -> None:
    with pytest.raises(Dream3DError, match=r"^the last 20 updates up to step 19 .* not finite; try") as caught:
        optimise("", Broken(range(100), float("nan")), TINY.with_steps(24), 0, "cpu")
    assert "\n" not in str(caught.value)


def test_the_numbers_of_a_gpu_are_read_every_twenty_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []

    def count(reports: Any) -> Any:
        reads.append(len(reports))
        return read(reports)

    monkeypatch.setattr("dream3d.run.session.read", count)
    told: list[Progress] = []
    session, state = Session(told.append), distill.start(TINY.with_steps(43), OraclePrior(MASCOT), 0)
    one = state.step(0, OraclePrior(MASCOT).encode_prompt("", ""))
    with session.steps_of(state, lambda views, size: None) as steps:  # type: ignore[arg-type, return-value]
        state.device = torch.device("cuda")
        for step in steps:
            session.after(step, one)
    assert reads == [20, 20, 3]
    assert [report.loss is None for report in told if report.stage == "optimise"] == [True] * 19 + [False] * 24


def test_a_numbered_device_is_made_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """tiny-cuda-nn builds on the current device, whatever it is given."""
    current: list[Any] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    built: list[Any] = []

    def build(recipe: Any, background: Any, generator: Any, device: torch.device, hash_grid: Any) -> Any:
        built.append((list(current), device))
        raise LookupError

    monkeypatch.setattr(distill, "build_scene", build)
    for name in ("cuda:1", "cuda", "cpu"):
        with pytest.raises(LookupError):
            distill.start(TINY, OraclePrior(MASCOT), 0, name)
    one = torch.device("cuda:1")
    assert built == [([one], one), ([one], torch.device("cuda")), ([one], torch.device("cpu"))]
