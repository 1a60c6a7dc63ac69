"""AdamW with a state of 8 bits: what it saves, that it learns as with 32, and that a killed run resumes bit for bit."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_dreambooth import RECIPE, SUBJECT, Killed
from tiny_photos import write_personal_prior, write_photos
from torch import nn

from dream3d.errors import UsageError
from dream3d.personalise.photos import read_photos
from dream3d.personalise.recipe import Bits
from dream3d.prior.memory import MemoryPlan
from dream3d.training import optimizers
from dream3d.training.events import StepEvent
from dream3d.training.loop import Trainer
from dream3d.training.optimizers import make_adamw, state_bytes
from dream3d.training.personalised import Base
from dream3d.training.tasks.dreambooth import DreamBoothTask, Pictures, make_trainer
from dream3d.weights.loading import load_prior

STEPS = 120


def curve(bits: Bits) -> tuple[list[float], int]:
    """Losses of a small regression, and the bytes of the optimiser's state."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64))
    x = torch.randn(256, 64)
    y = torch.sin(x @ torch.randn(64, 64) / 4)
    optimizer, losses = make_adamw(network.parameters(), 1e-3, 0.01, bits), []
    for _ in range(STEPS):
        loss = (network(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, state_bytes(optimizer)


def test_8_bits_learn_as_32_do_in_a_quarter_of_the_memory() -> None:
    pytest.importorskip("bitsandbytes")
    (exact, large), (losses, small) = curve(32), curve(8)
    assert exact[-1] < 0.45 * exact[0]
    np.testing.assert_allclose(losses, exact, rtol=0.04)
    # Two matrices of 8,192 weights, a byte for each moment; 192 biases of 4 bytes; scales of blocks and two tables.
    assert small == pytest.approx(large / 4, rel=0.25)
    assert large == pytest.approx(8 * (2 * 8192 + 192), rel=0.01)


def test_a_package_that_does_not_load_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "has_8_bits", lambda: True)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(UsageError, match=r"bitsandbytes does not load .*; use --optimizer-bits 32"):
        make_adamw([nn.Parameter(torch.zeros(2))], 1e-3, 0.0, 8)


def trainer_of(out: Path, prior: Path, pictures: Pictures) -> Trainer[DreamBoothTask]:
    recipe = replace(RECIPE, method="full", steps=4, sample_every=0, optimizer_bits=8)
    base = Base(str(prior), load_prior(str(prior), memory=MemoryPlan(precision="fp32")))
    return make_trainer(recipe, SUBJECT, pictures, base, out)


def test_a_killed_run_with_8_bits_resumes_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bitsandbytes")
    prior = write_personal_prior(tmp_path / "prior", encoder=False)
    pictures = Pictures(read_photos(write_photos(tmp_path / "photos", 2), 16, (0.2, 0.4, 0.6)))

    def kill(event: StepEvent) -> None:
        if event.step == 3:
            raise Killed

    monkeypatch.setattr(optimizers, "SMALLEST", 256)  # the tiny network's tensors are smaller than any worth 8 bits
    whole = trainer_of(tmp_path / "whole", prior, pictures)
    whole.run()
    kinds = {
        value.dtype
        for state in whole.task.trained.optimizer.state.values()
        for value in state.values()
        if torch.is_tensor(value)
    }
    assert torch.uint8 in kinds
    out = tmp_path / "killed"
    with pytest.raises(Killed):
        trainer_of(out, prior, pictures).run(kill)
    trainer_of(out, prior, pictures).run()
    one, other = (place / "unet/diffusion_pytorch_model.safetensors" for place in (tmp_path / "whole", out))
    assert one.read_bytes() == other.read_bytes()
