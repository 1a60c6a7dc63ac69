"""Noise, targets and weights of the training, by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dream3d.guidance import diffuse
from dream3d.training.objective import channel_weights, draw_timesteps, level_weights, weighted_loss


def test_noise_and_targets_by_hand() -> None:
    x0, noise = torch.full((1, 1, 1, 1), 5.0), torch.full((1, 1, 1, 1), 10.0)
    alpha_bar = torch.tensor([0.36])  # alpha 0.6, sigma 0.8
    noisy, v = diffuse(x0, noise, alpha_bar, "v_prediction")
    assert noisy.item() == pytest.approx(0.6 * 5 + 0.8 * 10)
    assert v.item() == pytest.approx(0.6 * 10 - 0.8 * 5)
    assert diffuse(x0, noise, alpha_bar, "epsilon")[1].item() == 10


def test_timesteps_are_tilted_by_hand() -> None:
    u = torch.tensor([0.0, 0.25, 0.81, 0.9999999])
    assert draw_timesteps(u, 1.0, 1000).tolist() == [0, 250, 810, 999]
    assert draw_timesteps(u, 0.5, 1000).tolist()[:2] == [0, 500]


@given(st.floats(0, 1, exclude_max=True, width=32), st.floats(0.1, 5))
def test_timesteps_are_always_in_range(u: float, tilt: float) -> None:
    assert 0 <= draw_timesteps(torch.tensor([u]), tilt, 1000).item() <= 999


def test_min_snr_weights_by_hand() -> None:
    alpha_bar = torch.tensor([0.5, 0.9, 0.0])  # signal to noise 1, 9, 0
    assert level_weights(alpha_bar, "epsilon", "min_snr", 5.0).tolist() == pytest.approx([1, 5 / 9, 1])
    assert level_weights(alpha_bar, "v_prediction", "min_snr", 5.0).tolist() == pytest.approx([0.5, 0.5, 0])
    assert level_weights(alpha_bar, "epsilon", "none", 5.0).tolist() == [1, 1, 1]


def test_channel_weights_have_mean_one_and_follow_the_spread() -> None:
    assert channel_weights(torch.tensor([1.0, 0.5]), 1.0).tolist() == pytest.approx([2 / 3, 4 / 3])
    assert channel_weights(torch.tensor([1.0, 0.5]), 0.0).tolist() == [1, 1]


def test_the_loss_weighs_images_and_channels_by_hand() -> None:
    target = torch.zeros(2, 2, 1, 2)
    predicted = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]], [[[0.0, 0.0]], [[4.0, 4.0]]]])
    # squared means by image and channel: (5, 2), (0, 16)
    loss = weighted_loss(predicted, target, torch.tensor([1.0, 0.5]), torch.tensor([1.0, 3.0]))
    assert loss.item() == pytest.approx((5 * 1 + 2 * 3 + 0 + 16 * 3 * 0.5) / 4)
