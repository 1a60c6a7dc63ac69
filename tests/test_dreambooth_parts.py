"""Parts of a personalisation by themselves: formulas, words, settings, pictures in image mode."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_photos import write_personal_prior

import dream3d.personalise.samples as samples
from dream3d.errors import UsageError
from dream3d.personalise.lora import check_peft
from dream3d.personalise.recipe import recipe_for
from dream3d.personalise.samples import draw_pictures, rose
from dream3d.personalise.words import Subject
from dream3d.prior.sampling import SamplingRecipe, sample_pictures
from dream3d.training.objective import mean_change, mean_change_from
from dream3d.training.tasks.dreambooth import class_caption, photo_caption
from dream3d.weights.loading import load_prior

SUBJECT = Subject("sks", "dog")


def test_the_mean_change_is_that_computed_by_hand_and_does_not_pull_where_nothing_changed() -> None:
    weights = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    change = weights - torch.tensor([0.0, 0.0, 0.5])
    loss = mean_change([change, torch.tensor([[3.0]])], 10)
    assert loss.item() == pytest.approx((1 + 2 + 3) / 10)
    loss.backward()
    assert weights.grad is not None
    torch.testing.assert_close(weights.grad, torch.tensor([0.1, -0.1, 0.0]))


def test_the_mean_change_that_keeps_nothing_has_the_same_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(4, 5, generator=generator), torch.randn(7, generator=generator)]
    for scale in (0.0, 1e-3, 1.0):
        found = []
        for of in ("kept", "again"):
            values = [(one + scale * one.flip(0)).requires_grad_() for one in start]
            loss = (
                mean_change([value - one for value, one in zip(values, start, strict=True)], 30)
                if of == "kept"
                else mean_change_from(zip(values, start, strict=True), 30)
            )
            (3 * loss).backward()
            found.append((loss, *(value.grad for value in values)))
        assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_captions_with_and_without_the_token() -> None:
    assert photo_caption("a photo of {token} {class}", SUBJECT) == "a photo of sks dog"
    assert class_caption("a photo of {token} {class}", SUBJECT) == "a photo of dog"
    assert class_caption("{class} ({token})", SUBJECT) == "dog ()"


def test_pictures_in_image_mode_are_each_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "sampling_for", lambda preset: SamplingRecipe(steps=2))
    loaded = load_prior(str(write_personal_prior(tmp_path / "prior")))
    alone = sample_pictures(loaded, loaded.encode_prompt("a chair", ""), 3, SamplingRecipe(steps=2), 5)
    text = loaded.encode_prompt("a chair", "")
    one = sample_pictures(loaded, text, 1, SamplingRecipe(steps=2), 5)
    assert alone.shape == (3, 3, 16, 16)
    torch.testing.assert_close(alone[:1], one, atol=1e-4, rtol=0)
    assert draw_pictures(loaded, "a chair", 9, 0).shape == (9, 3, 16, 16)


@pytest.mark.parametrize(
    ("scores", "patience", "going"),
    [
        ([], 2, True),
        ([0.5, 0.4], 2, True),
        ([0.5, 0.4, 0.3], 2, False),
        ([0.5, 0.6, 0.6, 0.61], 2, False),
        ([0.5, 0.6, 0.6, 0.7], 2, True),
        ([0.5, 0.4, 0.3, 0.2], 0, True),
    ],
)
def test_when_a_score_has_stopped_rising(scores: list[float], patience: int, going: bool) -> None:
    assert rose(scores, patience, 0.05) is going


def test_recipes_differ_by_prior_and_method() -> None:
    full, mini = recipe_for("mvdream-shading", "full"), recipe_for("mini", "lora", ["rank=4"], steps=7)
    assert (full.steps, full.rate, full.weight_decay, full.batch, full.preservation) == (600, 2e-6, 0.01, 4, 1.0)
    assert full.captions == ("a photo of {token} {class}",)
    assert (mini.method, mini.rank, mini.steps) == ("lora", 4, 7)
    assert mini.keep_sets > 0 == full.keep_sets
    with pytest.raises(UsageError, match="unknown recipe key 'speed'"):
        recipe_for("mini", "full", ["speed=1"])
    with pytest.raises(UsageError, match="must hold"):
        recipe_for("mini", "full", ['captions=["a dog"]'])
    with pytest.raises(UsageError, match="'captions' is empty"):
        recipe_for("mini", "full", ["captions=[]"])


def test_without_peft_the_extra_is_named() -> None:
    original = builtins.__import__

    def without_peft(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "peft":
            raise ModuleNotFoundError("No module named 'peft'", name="peft")
        return original(name, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "__import__", without_peft)
        with pytest.raises(UsageError, match=r"needs peft; pip install 'dream3d\[dreambooth\]', or use --method full"):
            check_peft()
