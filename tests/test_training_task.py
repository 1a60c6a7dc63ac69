"""The protocol of tasks: part of a network trains, by several terms, with an average of that part or without."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dream3d.errors import TrainingError
from dream3d.training import state
from dream3d.training.events import StepEvent
from dream3d.training.loop import Trainer, make_accelerator
from dream3d.training.task import Loss, Task, Trained


class AdapterTask(Task[Tensor]):
    """A frozen layer and a trained one, batches of two kinds, a pull towards the start, and a generator of its own."""

    advice = "do not worry"
    checkpoint_every = 2

    def __init__(self, folder: Path, *, averaged: bool) -> None:
        torch.manual_seed(0)
        self.base, self.adapter = nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 3)
        self.before = [value.detach().clone() for value in self.adapter.parameters()]
        self.generator = torch.Generator().manual_seed(1)
        self.steps, self.result, self.events = 6, folder / "result", list[StepEvent]()
        parameters = dict(self.adapter.named_parameters())
        average = {name: value.detach().clone() for name, value in parameters.items()} if averaged else {}
        optimizer = torch.optim.AdamW(parameters.values())
        self.trained = Trained(
            "adapter", parameters, optimizer, list(parameters.values()), clip=1.0, average=average, decay=0.5
        )

    def settings(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def rate(self, step: int) -> float:
        return 0.1

    def draw(self, step: int) -> Tensor:
        return torch.rand(4 if step % 2 else 3, 3, generator=self.generator)

    def loss(self, batch: Tensor) -> Loss:
        error = (self.adapter(self.base(batch)) - batch).square().mean()
        pairs = zip(self.adapter.parameters(), self.before, strict=True)
        terms = {"error": error, "preservation": sum((p - b).abs().mean() for p, b in pairs) + error.new_zeros(())}
        return Loss("image" if len(batch) == 3 else "3d", len(batch), terms)

    def log(self, event: StepEvent) -> None:
        self.events.append(event)

    def rewind(self, step: int) -> None:
        self.events = self.events[:step]

    def finish(self, step: int, seconds: float) -> None:
        self.result.write_bytes(
            b"".join(value.detach().numpy().tobytes() for value in self.trained.parameters.values())
        )

    def random_state(self) -> Mapping[str, Tensor]:
        return {"generator": self.generator.get_state()}

    def set_random_state(self, state: Mapping[str, Tensor]) -> None:
        self.generator.set_state(state["generator"])


def trainer_of(folder: Path, *, averaged: bool = False) -> Trainer[AdapterTask]:
    folder.mkdir(exist_ok=True)
    return Trainer(AdapterTask(folder, averaged=averaged), make_accelerator(), folder)


def test_only_what_is_selected_trains_and_is_kept(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    base = trainer.task.base.weight.clone()
    trainer.run()
    assert torch.equal(trainer.task.base.weight, base)
    assert not torch.equal(trainer.task.adapter.weight, trainer.task.before[0])
    names = load_file(tmp_path / "checkpoints/step-00000006.safetensors").keys()
    assert {name.partition(".")[0] for name in names} == {"adapter", "optimizer", "random"}


def test_every_term_of_the_loss_counts_and_is_reported(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    trainer.run()
    last = trainer.task.events[-1]
    assert last.figures["preservation"] > 0
    assert last.loss == pytest.approx(last.figures["error"] + last.figures["preservation"])
    assert [(event.mode, event.images) for event in trainer.task.events[:2]] == [("image", 3), ("3d", 4)]


def test_the_average_of_what_trains_follows_it_by_hand(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, averaged=True)
    weight = trainer.task.before[0]
    for step in (1, 2):
        trainer.train_step()
        weight = torch.lerp(weight, trainer.task.adapter.weight.detach(), 1 - (1 + step) / (10 + step))
    torch.testing.assert_close(trainer.task.trained.average["weight"], weight)


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("step", [1, 2, 5])
def test_it_resumes_exactly_with_a_generator_of_its_own(tmp_path: Path, step: int, averaged: bool) -> None:
    def kill(event: StepEvent) -> None:
        if event.step == step:
            raise KeyboardInterrupt

    trainer_of(tmp_path / "whole", averaged=averaged).run()
    with pytest.raises(KeyboardInterrupt):
        trainer_of(tmp_path / "run", averaged=averaged).run(kill)
    trainer_of(tmp_path / "run", averaged=averaged).run()
    assert (tmp_path / "run/result").read_bytes() == (tmp_path / "whole/result").read_bytes()
    one, other = (load_file(tmp_path / name / "checkpoints/step-00000006.safetensors") for name in ("run", "whole"))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    "damage",
    [
        lambda tensors: tensors.pop("adapter.bias"),
        lambda tensors: tensors.pop("random.generator"),
        lambda tensors: tensors.update({"adapter.bias": torch.zeros(1)}),
        lambda tensors: tensors.update({"adapter.more": torch.zeros(1)}),
        lambda tensors: tensors.update({"optimizer.exp_avg.more": torch.zeros(1)}),
        lambda tensors: tensors.update({"unet.bias": torch.zeros(1)}),
        lambda tensors: tensors.update({"ema.bias": torch.zeros(3)}),
    ],
    ids=["missing weight", "missing generator", "shape", "unknown weight", "moment of none", "other part", "average"],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path, damage: Any) -> None:
    trainer = trainer_of(tmp_path)
    trainer.train_step()
    found = state.load(trainer.save(), trainer.task.settings())
    tensors = dict(found.tensors)
    damage(tensors)
    state.save(tmp_path / "checkpoints", state.Checkpoint(1, 0.0, found.recipe, {}, tensors))
    with pytest.raises(TrainingError, match=r"step-00000001\.safetensors does not fit the network"):
        trainer_of(tmp_path)
