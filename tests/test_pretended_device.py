"""Steps of each preset on a pretended CUDA device: no tensor is on the wrong side, and the host seldom waits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pretended_device import MixedDevicesError, PretendedCuda
from tiny_prior import write_tiny_prior

from dream3d import distill
from dream3d.prior.conditioning import Conditioning
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.memory import MemoryPlan
from dream3d.recipe.generation import Recipe, Stage
from dream3d.recipe.presets import preset
from dream3d.recipe.scene import FieldRecipe
from dream3d.run.progress import StepReport, read


def small(name: str) -> Recipe:
    """A preset whole, of three steps; only sizes are cut. Every update of the occupancy grid is of a part of it."""
    recipe = preset(name).with_steps(3)
    shading = recipe.shading and replace(recipe.shading, from_step=0, albedo_probability=0.0)
    field = FieldRecipe(levels=2, log2_entries=10, base_resolution=4, per_level_scale=2.0, hidden_width=8)
    render = replace(recipe.render, samples_per_diagonal=32, occupancy_resolution=8, occupancy_every=1)
    render = replace(render, occupancy_warmup=1)
    return replace(recipe, stages=(Stage(0, 8, 2), Stage(2, 12, 1)), field=field, render=render, shading=shading)


@pytest.fixture(scope="module")
def prior_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny")


def run(name: str, folder: Path, device: str) -> list[StepReport]:
    prior = DiffusionPrior(folder, device, MemoryPlan("fp32"))
    state = distill.start(small(name), prior, 0, device)
    text = prior.encode_prompt("a red chair", "")
    return [state.step(step, text) for step in range(3)]


@pytest.mark.parametrize(
    ("name", "reads_per_step", "uploads_per_step"),
    # Three sizes and one number for each render, one size for the occupancy grid. Mini renders twice where a
    # round begins, whose images are shown.
    [("mvdream", 5, 0), ("mvdream-shading", 5, 0), ("mini", 10, 2)],
)
def test_a_step_mixes_no_devices_and_seldom_waits(
    name: str, reads_per_step: int, uploads_per_step: int, prior_folder: Path
) -> None:
    words = DiffusionPrior(prior_folder).encode_prompt("a red chair", "")  # transformers' masks escape the pretence
    with PretendedCuda() as device:
        prior = DiffusionPrior(prior_folder, "cuda", MemoryPlan("fp32"))
        state = distill.start(small(name), prior, 0, "cuda")
        text = Conditioning.from_text(*(half.text.to("cuda") for half in (words.conditional, words.unconditional)))
        reports = []
        for step in range(3):
            device.reads.clear()
            device.uploads.clear()
            reports.append(state.step(step, text))
            assert device.reads.total() <= reads_per_step, device.reads
            assert device.uploads.total() <= uploads_per_step, device.uploads
        device.reads.clear()
        on_device = read(reports)
        assert device.reads == {"tolist": 1}
    on_cpu = read(run(name, prior_folder, "cpu"))
    torch.testing.assert_close(torch.tensor(on_device), torch.tensor(on_cpu), rtol=1e-3, atol=1e-4)


def test_the_pretence_refuses_what_a_gpu_would() -> None:
    with PretendedCuda() as device:
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert (there.device.type, here.device.type) == ("cuda", "cpu")
        assert (there * 2)[1:].device.type == "cuda"
        for mix in (lambda: there + here, lambda: torch.cat([here, there]), lambda: there.numpy()):
            with pytest.raises(MixedDevicesError):
                mix()
        assert not device.reads
        assert bool(there.any())
        assert there[there > 0].tolist() == here.to("cuda").cpu().tolist()
        assert device.reads == {"item": 1, "a mask as an index": 1, "tolist": 1, "copy to the CPU": 1}
        assert device.uploads == {"to": 1}
