"""A run that is guided by pictures: what it records, that it resumes to the same bytes, and whose the pictures are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small_pictures import small_pictures
from test_optimise import TINY
from tiny_adapter import write_tiny_adapter
from tiny_prior import edit_json, write_tiny_prior

from dream3d.errors import PriorError, UsageError
from dream3d.generate import generate, resume
from dream3d.mesh.export import read_provenance
from dream3d.prior.base import MultiViewPrior
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.recipe.generation import MeshRecipe
from dream3d.remake import read_field, remake
from dream3d.retrieval.references import Reference
from dream3d.retrieval.run_pictures import Guides
from dream3d.run.folder import read_run
from dream3d.run.progress import Progress

RECIPE = replace(TINY.with_steps(3), mesh=MeshRecipe(resolution=24, faces=200, texture=0))
ANN = {"caption": "an axolotl", "author": "Ann", "licence": "CC0-1.0", "source": "zoo", "key": "k1"}


def picture(folder: Path, color: tuple[int, int, int]) -> bytes:
    path = folder / "one.png"
    Image.new("RGB", (20, 12), color).save(path)
    return path.read_bytes()


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with small_pictures():
        yield


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> DiffusionPrior:
    return DiffusionPrior(write_tiny_adapter(write_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny")))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reference, ...]:
    folder = tmp_path_factory.mktemp("pictures")
    return Reference(picture(folder, (200, 0, 0)), ANN), Reference(picture(folder, (0, 90, 0)), {"author": "Bob"})


def start(
    folder: Path,
    prior: MultiViewPrior,
    guides: Guides | None,
    observer: Callable[[Progress], None] = lambda progress: None,
) -> None:
    generate(
        "a red chair",
        prior=prior,
        recipe=RECIPE,
        seed=3,
        device="cpu",
        out=folder / "chair.glb",
        run_dir=folder / "run",
        observer=observer,
        checkpoint_seconds=1e-9,
        guides=guides,
    )


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, prior: DiffusionPrior, shown: tuple[Reference, ...]
) -> tuple[Path, list[str]]:
    folder, said = tmp_path_factory.mktemp("whole"), list[str]()
    start(folder, prior, Guides(shown), lambda progress: said.append(progress.message or ""))
    return folder, said


def images_of(folder: Path) -> Any:
    return read_run(folder / "run")["images"]


def test_alpha_and_pictures_are_recorded_and_told(whole: tuple[Path, list[str]], shown: tuple[Reference, ...]) -> None:
    folder, said = whole
    images = images_of(folder)
    assert [one["sha256"] for one in images["pictures"]] == [one.sha256 for one in shown]
    assert 0 <= images["fusion"]["alpha"] <= 1
    assert (images["fusion"]["weight_sum"], images["fusion"]["measured"]) == (1.5, True)
    (sentence,) = [line for line in said if "alpha" in line]
    assert sentence.startswith(f"2 pictures, alpha {images['fusion']['alpha']:.3f} (measured): the text counts")
    assert (folder / "run/picture-1.png").read_bytes() == shown[0].image
    assert (folder / "run/picture-2.png").read_bytes() == shown[1].image


def test_author_and_licence_reach_asset_and_page(whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, _ = whole
    made_by = read_provenance(folder / "chair.glb")
    assert made_by["images"] == images_of(folder)
    assert made_by["images"]["pictures"][0]["author"] == "Ann"
    page = (folder / "run/report.html").read_text("utf-8")
    assert "author: Ann; licence: CC0-1.0; source: zoo" in page
    assert "fusion alpha" in page
    kept = read_field(folder / "run")
    remake(kept, tmp_path / "again.glb", kept.recipe)
    assert (tmp_path / "again.glb").read_bytes() == (folder / "chair.glb").read_bytes()


def test_pictures_change_the_asset_and_none_change_nothing(
    whole: tuple[Path, list[str]], prior: DiffusionPrior, shown: tuple[Reference, ...], tmp_path: Path
) -> None:
    start(tmp_path / "text", prior, None)
    assert "images" not in read_run(tmp_path / "text/run")
    assert "images" not in read_provenance(tmp_path / "text/chair.glb")
    shutil.copytree(prior.folder, tmp_path / "base")
    shutil.rmtree(tmp_path / "base/image_adapter")
    start(tmp_path / "without", DiffusionPrior(tmp_path / "base"), None)
    text, without = ((tmp_path / name / "run/metrics.csv").read_text() for name in ("text", "without"))
    assert text == without
    assert (whole[0] / "run/metrics.csv").read_text() != text


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_given_alpha_is_not_measured(
    prior: DiffusionPrior, shown: tuple[Reference, ...], tmp_path: Path, alpha: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dream3d.retrieval.run_pictures.measure_alpha", lambda *_: pytest.fail("measured"))
    start(tmp_path, prior, Guides(shown, alpha))
    assert images_of(tmp_path)["fusion"] == {"alpha": alpha, "weight_sum": 1.5, "measured": False}


class Crash(Exception):
    pass


def crash_at(stage: str, step: int) -> Callable[[Progress], None]:
    def observe(progress: Progress) -> None:
        if (progress.stage, progress.step) == (stage, step) and (stage != "prepare" or not progress.message):
            raise Crash

    return observe


@pytest.mark.parametrize("place", [("prepare", 0), ("prepare", 1), ("optimise", 2), ("export", 1)])
def test_a_stopped_run_resumes_to_the_same_bytes(
    whole: tuple[Path, list[str]],
    prior: DiffusionPrior,
    shown: tuple[Reference, ...],
    tmp_path: Path,
    place: tuple[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever it stopped; once alpha is recorded it is not measured again."""
    with pytest.raises(Crash):
        start(tmp_path, prior, Guides(shown), crash_at(*place))
    if images_of(tmp_path)["fusion"] is not None:
        monkeypatch.setattr("dream3d.retrieval.run_pictures.measure_alpha", lambda *_: pytest.fail("measured again"))
    else:
        assert place == ("prepare", 0)
    assert resume(tmp_path / "run", prior=prior) is not None
    for name in ("chair.glb", "run/metrics.csv", "run/preview.png"):
        assert (tmp_path / name).read_bytes() == (whole[0] / name).read_bytes(), name


@pytest.fixture
def stopped(prior: DiffusionPrior, shown: tuple[Reference, ...], tmp_path: Path) -> Path:
    with pytest.raises(Crash):
        start(tmp_path, prior, Guides(shown, 0.5), crash_at("optimise", 1))
    return tmp_path / "run"


def test_a_changed_or_missing_picture_ends_a_resumed_run(prior: DiffusionPrior, stopped: Path) -> None:
    (stopped / "picture-2.png").write_bytes(b"other")
    with pytest.raises(UsageError, match=r"picture-2.png has changed since the run began"):
        resume(stopped, prior=prior)
    (stopped / "picture-2.png").unlink()
    with pytest.raises(UsageError, match="lacks picture 2 of its run"):
        resume(stopped, prior=prior)


def test_another_adapter_ends_a_resumed_run(prior: DiffusionPrior, stopped: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(prior.folder, tmp_path / "other"))
    edit_json(other / "image_adapter/config.json", note="other")
    with pytest.raises(UsageError, match="made with another image adapter"):
        resume(stopped, prior=DiffusionPrior(other))


@pytest.mark.parametrize(
    "images",
    [None, [], {"pictures": []}, {"pictures": [1]}, {"pictures": [{}], "fusion": {"alpha": 3}}, {"pictures": [{}]}],
)
def test_a_damaged_record_is_refused(prior: DiffusionPrior, stopped: Path, images: Any) -> None:
    facts = json.loads((stopped / "run.json").read_text())
    adapter = facts["images"]["adapter"]
    facts["images"] = {**images, "adapter": adapter} if isinstance(images, dict) else images
    (stopped / "run.json").write_text(json.dumps(facts))
    with pytest.raises((UsageError, PriorError)):
        resume(stopped, prior=prior)


def test_guides_without_a_picture_or_with_too_many_are_refused(shown: tuple[Reference, ...]) -> None:
    with pytest.raises(UsageError, match="no picture to draw by"):
        Guides(())
    with pytest.raises(UsageError, match="17 pictures; the limit is 16"):
        Guides(shown[:1] * 17)
    with pytest.raises(UsageError, match="alpha"):
        Guides(shown, 1.5)


def test_a_prior_without_adapter_is_refused_before_anything_is_written(
    prior: DiffusionPrior, shown: tuple[Reference, ...], tmp_path: Path
) -> None:
    shutil.copytree(prior.folder, tmp_path / "base")
    shutil.rmtree(tmp_path / "base/image_adapter")
    with pytest.raises(PriorError, match="has no image adapter"):
        start(tmp_path, DiffusionPrior(tmp_path / "base"), Guides(shown))
    assert not (tmp_path / "run").exists()
