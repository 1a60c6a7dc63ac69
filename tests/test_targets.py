"""How the prior is asked for targets. That runs stop and go on within a round is in test_resume.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import pytest
import torch
from oracle import MASCOT, OraclePrior
from test_optimise import TINY

from dream3d.cameras import Cameras
from dream3d.distill import start
from dream3d.errors import CheckpointError
from dream3d.generate import optimise
from dream3d.prior.conditioning import Conditioning
from dream3d.recipe.generation import Recipe, TargetRecipe
from dream3d.run.folder import RunFolder
from dream3d.run.progress import Progress
from dream3d.run.session import Session
from dream3d.targets import KeyedImages, Target, blank_target, find_target, target_cameras

CPU = torch.device("cpu")


class Asked(OraclePrior):
    """Remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__(MASCOT, image_size=16)
        self.shown: list[tuple[torch.Tensor, int, int]] = []

    def predict_x0(
        self, x_t: torch.Tensor, timestep: int, cameras: Cameras | None, conditioning: Conditioning, views: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the oracle says."""
        self.shown.append((x_t, timestep, views))
        return super().predict_x0(x_t, timestep, cameras, conditioning, views)


def found(recipe: Recipe, prior: OraclePrior, latents: torch.Tensor | None = None, step: int = 0) -> Target:
    asked, _ = recipe.target_at(step)
    cameras = target_cameras(recipe, asked, 1, prior.views, torch.Generator().manual_seed(0))
    latents = torch.zeros(len(cameras), 3, 16, 16) if latents is None else latents
    text, noise = prior.encode_prompt("", ""), torch.Generator().manual_seed(1)
    return find_target(prior, recipe, step, cameras, latents, text, noise)


def elevations_and_azimuths(cameras: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
    x, y, z = cameras.c2w[:, :3, 3].unbind(-1)
    return torch.rad2deg(torch.atan2(z, (x * x + y * y).sqrt())), torch.rad2deg(torch.atan2(y, x)) % 360


def test_cameras_of_a_target_go_round_at_its_elevations_in_turn() -> None:
    cameras = target_cameras(TINY, TargetRecipe(views=6, elevations_deg=(-10.0, 20.0, 50.0)), 1, 4, torch.Generator())
    elevation, azimuth = elevations_and_azimuths(cameras)
    torch.testing.assert_close(elevation, torch.tensor([-10.0, 20.0, 50.0, -10.0, 20.0, 50.0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(azimuth.diff() % 360, torch.full((5,), 60.0), atol=1e-2, rtol=0)
    torch.testing.assert_close(
        cameras.c2w[:, :3, 2], cameras.c2w[:, :3, 3] / cameras.c2w[:, :3, 3].norm(dim=-1)[:, None]
    )


def test_without_elevations_they_are_the_recipes_cameras() -> None:
    cameras = target_cameras(TINY, TargetRecipe(), 2, 4, torch.Generator())
    elevation, azimuth = elevations_and_azimuths(cameras)
    assert len(cameras) == 8
    assert float(elevation.min()) >= 0
    assert float(elevation.max()) <= 35
    torch.testing.assert_close(azimuth[:4].diff() % 360, torch.full((3,), 90.0), atol=1e-2, rtol=0)


def test_a_target_of_noise_alone_forgets_the_renders() -> None:
    noisy = replace(TINY, targets=(TargetRecipe(views=5, noise=1.0),))
    first, second = Asked(), Asked()
    found(noisy, first)
    found(noisy, second, torch.ones(5, 3, 16, 16))
    assert torch.equal(first.shown[0][0], second.shown[0][0])
    assert first.shown[0][1:] == (999, 5)
    half = replace(TINY, targets=(TargetRecipe(views=5, noise=0.5),))
    found(half, first)
    found(half, second, torch.ones(5, 3, 16, 16))
    alpha_bar = float(first.alphas_cumprod[500])
    difference = second.shown[1][0] - first.shown[1][0]
    torch.testing.assert_close(difference, torch.full_like(difference, alpha_bar**0.5))


def test_steps_of_denoising_are_even_and_see_all_views_together() -> None:
    prior = Asked()
    found(replace(TINY, targets=(TargetRecipe(views=6, noise=0.8, denoise_steps=4),)), prior)
    assert [timestep for _, timestep, _ in prior.shown] == [799, 599, 400, 200]
    assert {views for _, _, views in prior.shown} == {6}


def test_a_part_of_a_target_is_that_of_its_views() -> None:
    target = found(TINY, OraclePrior(MASCOT, image_size=16))
    part = target.pick(torch.tensor([4, 1]))
    assert part.keyed is not None
    assert target.keyed is not None
    assert torch.equal(part.x0, target.x0[[4, 1]])
    assert torch.equal(part.keyed.images, target.keyed.images[[4, 1]])
    assert torch.equal(part.cameras.c2w, target.cameras.c2w[[4, 1]])
    assert (part.timestep, part.timestep_range) == (target.timestep, target.timestep_range)


def test_colours_are_compared_inside_the_key_alone() -> None:
    images, opacity = torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)
    opacity[..., :2] = 1
    rendered = torch.full((1, 2, 2, 3), 0.5)
    assert float(KeyedImages(images, opacity).color_loss(rendered)) == pytest.approx(0.25)  # half of 0.5
    images[..., :2] = 0.5
    assert float(KeyedImages(images, opacity).color_loss(rendered)) == 0
    assert float(KeyedImages(images, torch.ones_like(opacity)).color_loss(rendered)) == pytest.approx(0.25)


def test_without_a_key_a_target_counts_whole() -> None:
    recipe = replace(TINY, key=None, guidance=replace(TINY.guidance, loss="images"))
    keyed = found(recipe, OraclePrior(MASCOT, image_size=16)).keyed
    assert keyed is not None
    assert bool((keyed.opacity == 1).all())
    assert found(replace(TINY, key=None), OraclePrior(MASCOT, image_size=16)).keyed is None


@pytest.mark.parametrize("step", [1, 4])
def test_what_a_checkpoint_may_hold_of_a_target_is_known_beforehand(step: int) -> None:
    prior = OraclePrior(MASCOT, image_size=16)
    target, blank = found(TINY, prior, step=step).state_dict(), blank_target(prior, TINY, step, CPU).state_dict()
    assert {name: (one.shape, one.dtype) for name, one in target.items()} == {
        name: (one.shape, one.dtype) for name, one in blank.items()
    }


def test_a_target_comes_back_whole_and_a_damaged_timestep_is_refused() -> None:
    prior = OraclePrior(MASCOT, image_size=16)
    target = found(TINY, prior)
    back = Target.from_state_dict(target.state_dict(), prior)
    assert (back.timestep, back.timestep_range, back.alpha_bar) == (
        target.timestep,
        target.timestep_range,
        target.alpha_bar,
    )
    state = target.state_dict() | {"timesteps": torch.tensor([5, 6, 7])}
    with pytest.raises(CheckpointError, match="timestep 5 of 6 to 7"):
        Target.from_state_dict(state, prior)


def test_a_target_is_kept_only_while_it_serves() -> None:
    prior = OraclePrior(MASCOT, image_size=16)
    state = start(TINY, prior, 0)
    text, kept = prior.encode_prompt("", ""), list[bool]()
    for step in range(TINY.steps):
        state.step(step, text)
        kept.append(any(name.startswith("target.") for name in state.state_dict()))
    # A round of steps 0 to 2, two targets of two steps, one of a single step.
    assert kept == [True, True, False, True, False, True, False, False]


def test_the_run_folder_shows_the_rounds(tmp_path: Path) -> None:
    prior, told = OraclePrior(MASCOT, image_size=16), list[Progress]()
    rounds = (TargetRecipe(0, None, 5, 2, 2, 1.0), TargetRecipe(2, None, 5, 2, 3, 0.5), TargetRecipe(3))
    recipe = replace(TINY.with_steps(4), targets=rounds)
    with RunFolder(tmp_path / "run", {}) as run:
        optimise("", prior, recipe, 0, "cpu", Session(told.append, run))
    sheet = iio.imread(tmp_path / "run/targets.png")
    assert sheet.shape[:2] == (2 * 128 + 2, 4 * 128)  # two rows of four, and the line between them
    messages = [(progress.step, progress.message) for progress in told if progress.message]
    assert messages == [
        (0, "round 1 of 2: denoising 5 views in 2 steps"),
        (2, "round 2 of 2: denoising 5 views in 3 steps"),
    ]
    assert [progress.step for progress in told if progress.targets is not None] == [1, 3]


def test_a_prior_that_sees_one_view_at_a_time_hears_of_no_camera_and_of_no_other_view(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard = []
    prior = OraclePrior(MASCOT, image_size=16)

    def predict(x_t: torch.Tensor, timestep: int, cameras: Cameras | None, text: Conditioning, views: int) -> Any:
        heard.append((cameras, views))
        return x_t + 1, x_t

    monkeypatch.setattr(prior, "predict_x0", predict)
    guidance = replace(TINY.guidance, prior_views="alone", guidance_scale=3.0, rescale=1.0)
    spread = torch.arange(1.0, 5.0).view(4, 1, 1, 1)  # views that differ in contrast
    latents = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * spread
    recipe = replace(TINY, guidance=guidance, targets=(TargetRecipe(denoise_steps=2),))
    target = found(recipe, prior, latents)
    assert heard == [(None, 1)] * 2
    assert len(target.x0) == len(target.cameras) == 4
    together = found(replace(recipe, guidance=replace(guidance, prior_views="together")), prior, latents)
    assert [views for _, views in heard[2:]] == [4, 4]
    assert all(cameras is not None for cameras, _ in heard[2:])
    torch.testing.assert_close(together.cameras.c2w, target.cameras.c2w)
