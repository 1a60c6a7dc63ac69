"""Personalisation: the loss, exact resume, what comes out, and that adapters belong to one base."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_photos import write_personal_prior, write_photos
from tiny_prior import edit_json
from torch import Tensor

import dream3d.personalise.samples as samples
import dream3d.training.tasks.dreambooth as task_module
from dream3d.cameras import orbit
from dream3d.errors import PriorError, TrainingError
from dream3d.personalise.photos import read_photos
from dream3d.personalise.recipe import DreamBoothRecipe
from dream3d.personalise.words import Subject
from dream3d.prior.adapter import WEIGHTS, read_adapter
from dream3d.prior.folder import STOCK_WEIGHTS
from dream3d.prior.memory import MemoryPlan
from dream3d.prior.sampling import SamplingRecipe
from dream3d.training.events import StepEvent
from dream3d.training.loop import Trainer
from dream3d.training.personalised import RUN_FOLDER, Base
from dream3d.training.tasks.dreambooth import DreamBoothTask, Pictures, make_trainer
from dream3d.weights.loading import digest_of_prior, find_folder, load_prior, prompt_cut, unfamiliar_in

SUBJECT = Subject("sks", "dog")
RECIPE = DreamBoothRecipe(
    steps=6,
    rate=1e-3,
    warmup=2,
    batch=2,
    keep_sets=2,
    class_batch=2,
    captions=("a photo of {token} {class}", "a {token} {class}"),
    sample_every=2,
    patience=0,
    checkpoint_every=2,
    rank=2,
)
METHODS = ("full", "lora")


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def short_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "sampling_for", lambda preset: SamplingRecipe(steps=2))


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_personal_prior(tmp_path_factory.mktemp("prior") / "tiny")


@pytest.fixture(scope="module")
def pictures(prior: Path, tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    photos = read_photos(write_photos(tmp_path_factory.mktemp("photos"), 3), 16, (0.2, 0.4, 0.6))
    rng = np.random.default_rng(0)
    of_class = rng.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    return Pictures(photos, of_class, rng.integers(0, 256, (2, 2, 16, 16, 3), dtype=np.uint8))


def trainer_of(out: Path, prior: Path, pictures: Pictures, **changes: Any) -> Trainer[DreamBoothTask]:
    base = Base(str(prior), load_prior(str(prior), memory=MemoryPlan(precision="fp32")))
    return make_trainer(replace(RECIPE, **changes), SUBJECT, pictures, base, out)


@pytest.fixture(scope="module")
def results(
    prior: Path, pictures: Pictures, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[Path, DreamBoothTask]]]:
    """A finished personalisation by each method."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "sampling_for", lambda preset: SamplingRecipe(steps=2))
        found = {}
        for method in METHODS:
            trainer = trainer_of(tmp_path_factory.mktemp("out") / "my-dog", prior, pictures, method=method)
            trainer.run()
            found[method] = (trainer.task.result, trainer.task)
        yield found


# The loss.


@pytest.mark.parametrize("method", METHODS)
def test_before_the_first_step_nothing_is_different_from_the_frozen_network(
    tmp_path: Path, prior: Path, pictures: Pictures, method: str
) -> None:
    task = trainer_of(tmp_path / "out", prior, pictures, method=method).task
    terms = task.loss(task.draw(0)).terms
    assert set(terms) == {"photos", "class", "keep", "preservation"}
    assert float(terms["keep"].detach()) == float(terms["preservation"].detach()) == 0
    assert float(terms["photos"].detach()) > 0


def test_the_terms_are_those_computed_by_hand(tmp_path: Path, prior: Path, pictures: Pictures) -> None:
    trainer = trainer_of(tmp_path / "out", prior, pictures, preservation=3.0, class_weight=0.0, keep_weight=2.0)
    trainer.train_step()
    task = trainer.task
    loss = task.loss(task.draw(1))
    start = load_file(prior / "unet" / STOCK_WEIGHTS)
    moved = {name: value.detach() - start[name] for name, value in task.unet.named_parameters()}
    by_hand = sum(float(change.abs().sum()) for change in moved.values()) / sum(v.numel() for v in start.values())
    assert "class" not in loss.terms
    assert float(loss.terms["preservation"].detach()) == pytest.approx(3 * by_hand, rel=1e-4)
    once = trainer_of(tmp_path / "other", prior, pictures, preservation=0.0, keep_weight=1.0)
    once.train_step()
    assert float(loss.terms["keep"].detach()) == pytest.approx(
        2 * float(once.task.loss(once.task.draw(1)).terms["keep"].detach()), rel=0.05
    )


def test_photos_are_all_shown_and_none_twice_before_that(tmp_path: Path, prior: Path, pictures: Pictures) -> None:
    task = trainer_of(tmp_path / "out", prior, pictures, batch=3).task
    batch = task.draw(0)
    shown = {batch.images[i].numpy().tobytes() for i in range(batch.photos)}
    assert len(shown) == 3
    assert batch.captions[:3] == [text for text in batch.captions[:3] if "sks dog" in text]
    assert batch.captions[3:] == [text for text in batch.captions[3:] if "dog" in text and "sks" not in text]
    assert torch.equal(task.draw(0).images, batch.images)


# What trains.


def test_full_trains_all_but_the_camera_network(results: dict[str, tuple[Path, DreamBoothTask]], prior: Path) -> None:
    _, task = results["full"]
    start = load_file(prior / "unet" / STOCK_WEIGHTS)
    still = {name for name, value in task.unet.state_dict().items() if torch.equal(value, start[name])}
    assert {name for name in start if name.startswith("class_embedding.")} <= still
    assert len(still) < len(start) / 4


def test_lora_trains_its_matrices_alone_and_is_small(
    results: dict[str, tuple[Path, DreamBoothTask]], prior: Path
) -> None:
    out, task = results["lora"]
    state = {name.replace(".base_layer", ""): value for name, value in task.unet.state_dict().items()}
    for name, value in load_file(prior / "unet" / STOCK_WEIGHTS).items():
        assert torch.equal(state[name], value), name
    assert {path.name for path in out.iterdir()} == {"adapter_config.json", WEIGHTS, "prior.json", RUN_FOLDER}
    assert all(".lora_" in name for name in load_file(out / WEIGHTS))


# The loop.


def files_of(out: Path) -> dict[str, bytes]:
    """Everything of a result but its times."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and name not in ("prior.json", f"{RUN_FOLDER}/metrics.csv"):
            found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("step", [1, 4])
def test_a_killed_run_resumes_to_the_same_files(
    tmp_path: Path,
    prior: Path,
    pictures: Pictures,
    results: dict[str, tuple[Path, DreamBoothTask]],
    method: str,
    step: int,
) -> None:
    def kill(event: StepEvent) -> None:
        if event.step == step:
            raise Killed

    out = tmp_path / "my-dog"
    with pytest.raises(Killed):
        trainer_of(out, prior, pictures, method=method).run(kill)
    assert not (out / "prior.json").exists()
    trainer_of(out, prior, pictures, method=method).run()
    assert files_of(out) == files_of(results[method][0])


def test_scores_are_not_lost_between_their_sheet_and_the_checkpoint(
    tmp_path: Path, prior: Path, pictures: Pictures, results: dict[str, tuple[Path, DreamBoothTask]]
) -> None:
    out = tmp_path / "my-dog"
    trainer = trainer_of(out, prior, pictures)
    with pytest.MonkeyPatch.context() as patch:
        save = trainer.save

        def save_or_die() -> Path:
            if trainer.step == 4:
                raise Killed
            return save()

        patch.setattr(trainer, "save", save_or_die)
        with pytest.raises(Killed):
            trainer.run()
    trainer_of(out, prior, pictures).run()
    assert files_of(out) == files_of(results["full"][0])


def test_other_photos_are_another_run(tmp_path: Path, prior: Path, pictures: Pictures) -> None:
    trainer = trainer_of(tmp_path / "out", prior, pictures)
    trainer.train_step()
    trainer.save()
    fewer = replace(pictures.photos, photos=pictures.photos.photos[:2])
    with pytest.raises(TrainingError, match="pictures was"):
        trainer_of(tmp_path / "out", prior, replace(pictures, photos=fewer))


@pytest.mark.parametrize("killed_at", [None, 4])
def test_a_score_that_does_not_rise_ends_the_run_resumed_or_not(
    tmp_path: Path, prior: Path, pictures: Pictures, monkeypatch: pytest.MonkeyPatch, killed_at: int | None
) -> None:
    monkeypatch.setattr(task_module, "likeness", lambda *pictures: 0.5)
    changes: dict[str, Any] = {"steps": 20, "patience": 1}

    def kill(event: StepEvent) -> None:
        if event.step == killed_at:
            raise Killed

    out = tmp_path / "out"
    if killed_at is not None:
        with pytest.raises(Killed):
            trainer_of(out, prior, pictures, **changes).run(kill)
    outcome = trainer_of(out, prior, pictures, **changes).run()
    assert outcome.step == 4
    assert json.loads((out / "prior.json").read_text())["dreambooth"]["steps"] == 4
    assert (out / RUN_FOLDER / "identity.csv").read_text().split() == ["step,identity", "2,0.5000", "4,0.5000"]


def test_without_an_image_encoder_all_steps_are_done(tmp_path: Path, pictures: Pictures) -> None:
    prior = write_personal_prior(tmp_path / "prior", encoder=False)
    trainer = trainer_of(tmp_path / "out", prior, pictures, patience=1)
    assert trainer.run().step == 6
    assert (tmp_path / "out" / RUN_FOLDER / "samples/step-000002.png").is_file()


# What comes out.


@pytest.mark.parametrize("method", METHODS)
def test_the_result_is_a_prior_like_any_other(
    results: dict[str, tuple[Path, DreamBoothTask]], prior: Path, method: str
) -> None:
    out, _ = results[method]
    base, new = load_prior(str(prior)), load_prior(str(out))
    assert new.name == "my-dog"
    assert new.settings.names == (*base.settings.names, "sks dog")
    assert new.unfamiliar("a sks dog") is None
    assert unfamiliar_in(str(out), ["a sks dog"]) == [None]
    assert prompt_cut(str(out), "a sks dog") is None
    assert new.digest == digest_of_prior(str(out)) != base.digest
    assert new.describe()["base"] == f"tiny {base.digest[:12]}"
    assert "base" not in base.describe()
    assert new.likeness("a dog", torch.rand(1, 3, 16, 16)) is not None
    assert not (out / RUN_FOLDER / "result").exists()
    (weights,) = [path for path in out.rglob("*.safetensors") if path.name in (WEIGHTS, STOCK_WEIGHTS)]
    assert weights.stat().st_mode == (out / "prior.json").stat().st_mode
    assert not list((out / RUN_FOLDER / "checkpoints").iterdir())


@pytest.mark.parametrize("method", METHODS)
def test_it_computes_what_the_trained_network_computes(
    results: dict[str, tuple[Path, DreamBoothTask]], prior: Path, method: str
) -> None:
    out, task = results[method]
    x_t = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))

    def predicted(loaded: Any) -> Tensor:
        return loaded.predict(x_t, 500, orbit(2), loaded.encode_prompt("a red chair", ""), 2)[0]

    trained, read = predicted(task.prior), predicted(load_prior(str(out)))
    torch.testing.assert_close(read, trained, atol=2e-3 * float(trained.abs().max()), rtol=0)
    before = predicted(load_prior(str(prior)))
    assert float((before - trained).abs().max()) > 10 * float((read - trained).abs().max())


def adapter_copy(results: dict[str, tuple[Path, DreamBoothTask]], folder: Path) -> Path:
    return Path(shutil.copytree(results["lora"][0], folder / "adapter"))


def test_an_adapter_of_another_base_is_refused(
    results: dict[str, tuple[Path, DreamBoothTask]], prior: Path, tmp_path: Path
) -> None:
    adapter = adapter_copy(results, tmp_path)
    other = Path(shutil.copytree(prior, tmp_path / "other"))
    edit_json(adapter / "prior.json", base=str(other))
    load_prior(str(adapter))  # a copy of the base will do
    edit_json(other / "prior.json", views=3)
    for load in (load_prior, digest_of_prior):
        with pytest.raises(PriorError, match="is an adapter of another prior than"):
            load(str(adapter))
    edit_json(adapter / "prior.json", base=str(tmp_path / "gone"))
    with pytest.raises(PriorError, match=r"prior\.json: no base \(unknown prior .* correct 'base'"):
        load_prior(str(adapter))
    edit_json(adapter / "prior.json", base=str(adapter))
    with pytest.raises(PriorError, match="is an adapter, not a whole prior"):
        load_prior(str(adapter))
    edit_json(adapter / "prior.json", base="")
    with pytest.raises(PriorError, match="names no base"):
        load_prior(str(adapter))


def test_an_adapter_is_no_base(results: dict[str, tuple[Path, DreamBoothTask]]) -> None:
    with pytest.raises(PriorError, match="is an adapter, not a whole prior"):
        find_folder(str(results["lora"][0]))


def test_damaged_adapters_are_refused(results: dict[str, tuple[Path, DreamBoothTask]], tmp_path: Path) -> None:
    adapter = adapter_copy(results, tmp_path)
    tensors = load_file(adapter / WEIGHTS)
    first = next(iter(sorted(tensors)))  # a matrix A
    for changed, told in (
        ({name: value for name, value in tensors.items() if name != first}, "are no pair"),
        ({**tensors, "base_model.model.conv_in.lora_A.weight": torch.zeros(2, 4)}, "lacks"),
        ({**tensors, "more": torch.zeros(2)}, "lacks"),
        ({**tensors, first: torch.zeros(2, 5)}, "has shape"),
        ({**tensors, first: torch.full_like(tensors[first], float("nan"))}, "not finite"),
    ):
        save_file(changed, adapter / WEIGHTS)
        with pytest.raises(PriorError, match=told):
            load_prior(str(adapter))
    save_file(tensors, adapter / WEIGHTS)
    edit_json(adapter / "adapter_config.json", r=0)
    with pytest.raises(PriorError, match="'r' is 0"):
        read_adapter(adapter)


def test_the_scale_of_an_adapter_is_alpha_by_rank(
    results: dict[str, tuple[Path, DreamBoothTask]], tmp_path: Path
) -> None:
    adapter = adapter_copy(results, tmp_path)
    edit_json(adapter / "adapter_config.json", lora_alpha=6)
    assert read_adapter(adapter).scale == 3
