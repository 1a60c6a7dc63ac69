"""A thousand damaged inputs: each is read, or refused by an error of ours, in seconds, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from assets import box_obj, catalogue, cube_glb, sphere_ply
from fuzzing import TARGETS, attempt, damaged
from oracle import MASCOT, OraclePrior
from PIL import Image
from test_optimise import TINY
from tiny_adapter import write_tiny_adapter
from tiny_prior import write_tiny_prior
from tiny_shards import write_tiny_shards

from dream3d.batch.jobs import plan
from dream3d.batch.prompts import read_lists
from dream3d.dataset.assets.sources import find_assets
from dream3d.dataset.images import Skipped, images_from_folder, write_image_shards
from dream3d.dataset.rendering.dataset import DatasetPlan, render_dataset
from dream3d.dataset.rendering.views import ViewsRecipe
from dream3d.dataset.rendering.workers import Bounds
from dream3d.dataset.shards import read_images, read_objects
from dream3d.errors import Dream3DError
from dream3d.generate import generate, resume
from dream3d.prior.image_adapter.folder import load_adapter
from dream3d.prior.unet import load_unet
from dream3d.training.recipe import read_recipe
from dream3d.training.state import load as load_checkpoint
from dream3d.weights.loading import load_prior

LIMIT_SECONDS = 10.0


def every_file(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def assert_harmless(read: Callable[[], object], folder: Path) -> None:
    """Only our own errors, in time, with one line, and no new file."""
    before, began, said = every_file(folder), time.monotonic(), ""
    try:
        read()
    except Dream3DError as error:
        said = str(error)
    assert len(said.splitlines()) <= 1, said
    assert time.monotonic() - began < LIMIT_SECONDS
    assert every_file(folder) <= before


def variants(path: Path, count: int, seed: int) -> Iterator[None]:
    """The file, damaged anew at every turn."""
    original = path.read_bytes()
    rng = np.random.default_rng(seed)
    for _ in range(count):
        path.write_bytes(damaged(original, rng))
        yield
    path.write_bytes(original)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "# list\na red fox | steps=40 name='x y'\nein Bücherregal\n\n"),
        ("a.csv", 'prompt,seed,steps\n"a cup, full",3,\na dog,,40\n'),
        ("a.jsonl", '{"prompt": "a cat", "steps": 50}\n{"prompt": "a hen", "seed": 3}\n'),
    ],
)
def test_lists_of_prompts(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    for _ in variants(path, 100, 1):
        assert_harmless(lambda: plan(read_lists([path]), [0], {}, "mini"), tmp_path)


def test_training_recipes(tmp_path: Path) -> None:
    path = tmp_path / "mini.toml"
    shutil.copy(Path(__file__).parent.parent / "examples/mini/mini.toml", path)
    for _ in variants(path, 100, 2):
        assert_harmless(lambda: read_recipe(path), tmp_path)


def test_prior_folders(tmp_path: Path) -> None:
    folder = write_tiny_prior(tmp_path / "prior")
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    for number, path in enumerate(files):
        for _ in variants(path, max(1, 100 // len(files)), number):
            assert_harmless(lambda: load_prior(str(folder)), tmp_path)


def test_shards(tmp_path: Path) -> None:
    folder = write_tiny_shards(tmp_path / "shards")
    for name, reader in (("train-00000.tar", read_objects), ("images-00000.tar", read_images)):
        path = folder / name
        for _ in variants(path, 100, 3):
            assert_harmless(lambda path=path, reader=reader: list(reader(path)), tmp_path)  # type: ignore[misc]


def test_image_adapters(tmp_path: Path) -> None:
    folder = write_tiny_adapter(write_tiny_prior(tmp_path / "prior"))
    unet = load_unet(folder / "unet", torch.float32)
    for name, count in (("config.json", 100), ("model.safetensors", 60)):
        for place in ("image_adapter", "image_encoder"):
            for _ in variants(folder / place / name, count, 3):
                assert_harmless(lambda: load_adapter(folder, "tiny", unet, torch.float32), tmp_path)
    load_adapter(folder, "tiny", unet, torch.float32)


def test_runs_and_their_checkpoints(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(progress: object) -> None:
        if getattr(progress, "stage", "") == "optimise" and getattr(progress, "step", 0) == 3:
            raise Stop

    prior = OraclePrior(MASCOT, image_size=16)
    arguments = {"recipe": TINY, "seed": 0, "device": "cpu", "out": tmp_path / "a.glb", "run_dir": tmp_path / "run"}
    with pytest.raises(Stop):
        generate("a mascot", prior=prior, observer=stop, checkpoint_seconds=1e-9, **arguments)  # type: ignore[arg-type]
    for name, count in (("run.json", 60), ("checkpoints/step-00000002.safetensors", 60)):
        for _ in variants(tmp_path / "run" / name, count, 4):

            def read() -> None:
                with contextlib.suppress(Stop):
                    resume(tmp_path / "run", prior=prior, observer=stop, checkpoint_seconds=0)
                # Without a sound list of its files, metrics.csv may be the user's: the run writes beside it.
                for beside in (tmp_path / "run").glob("metrics-*.csv"):
                    beside.unlink()

            kept = (tmp_path / "run" / name).read_bytes()
            assert_harmless(read, tmp_path)
            (tmp_path / "run" / name).write_bytes(kept)
    checkpoint = tmp_path / "run/checkpoints/step-00000002.safetensors"
    for _ in variants(checkpoint, 60, 5):
        assert_harmless(lambda: load_checkpoint(checkpoint, {}), tmp_path)


def test_pictures(tmp_path: Path) -> None:
    folder, rng = tmp_path / "pictures", np.random.default_rng(6)
    folder.mkdir()
    pixels = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    for ending in ("png", "jpg", "webp", "gif", "bmp"):
        pixels.save(tmp_path / f"a.{ending}")
        original = (tmp_path / f"a.{ending}").read_bytes()
        for number in range(20):
            (folder / f"{ending}-{number}.{ending}").write_bytes(damaged(original, rng))
            (folder / f"{ending}-{number}.txt").write_bytes(damaged(b"a red chair\n", rng))
    (tmp_path / "out").mkdir()
    skipped = Skipped()
    began = time.monotonic()
    write_image_shards(images_from_folder(folder, 16, skipped), tmp_path / "out", 1000)
    assert time.monotonic() - began < 100 * LIMIT_SECONDS / 10
    assert skipped.reasons
    assert not [path for path in every_file(tmp_path / "out") if path.name.startswith(".")]


@pytest.mark.slow
def test_models_and_catalogues(tmp_path: Path) -> None:
    folder, rng = tmp_path / "models", np.random.default_rng(7)
    (tmp_path / "good").mkdir()
    folder.mkdir()
    good = [catalogue(tmp_path / "good/c.sh3f"), cube_glb(tmp_path / "good/a.glb"), sphere_ply(tmp_path / "good/b.ply")]
    good.append(box_obj(tmp_path / "good/box.obj"))
    for number in range(200):
        source = good[number % len(good)]
        (folder / f"m{number:03d}{source.suffix}").write_bytes(damaged(source.read_bytes(), rng))
    shutil.copy(tmp_path / "good/box.mtl", folder)
    shutil.copy(tmp_path / "good/skin.png", folder)
    assets = find_assets([folder])
    recipe = ViewsRecipe(size=16, passes=1, azimuths=4)
    bounds = Bounds(seconds=LIMIT_SECONDS)
    summary = render_dataset(assets, tmp_path / "out", recipe, DatasetPlan(heldout=0.0), workers=2, bounds=bounds)
    assert summary.rendered + summary.skipped == len(assets)
    assert summary.skipped > 50
    reasons = (tmp_path / "out/skipped.csv").read_text()
    assert "the renderer hung" not in reasons
    assert "Traceback" not in reasons
    assert not [path for path in every_file(tmp_path / "out") if path.name.startswith(".")]


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_of_the_fuzzer(tmp_path: Path, name: str) -> None:
    target, rng = TARGETS[name], np.random.default_rng(8)
    for folder in ("seeds", "work"):
        (tmp_path / folder).mkdir()
    for data in target.seeds(tmp_path / "seeds"):
        sound = tmp_path / "work" / target.name
        sound.write_bytes(data)
        if name not in ("gltf", "judge"):  # a model without a mesh, and a judge without its weights, are refused
            target.read(sound)
        for _ in range(25):
            attempt(target, tmp_path / "work", damaged(data, rng))
    assert [path.name for path in (tmp_path / "work").iterdir()] == [target.name]
