"""Damage every kind of input for some minutes and count what is not as it should be.

    python examples/fuzz.py --minutes 10 --out build/fuzz

Inputs are prior folders, runs with their checkpoints, recipes, lists of prompts, models, images, shards, records of the
cache, and words of the command line. A child process reads each damaged one. Wrong are: an exception that is not ours,
an error of more than one line, more than ten seconds, a process that dies, and a change in a folder that is no business
of the reader's. Each input that does this is kept in a folder of --out, with the traceback. Needs the extra ``test``.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import io
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import numpy as np
from fuzzing import TARGETS, Target, damaged
from tiny_prior import write_tiny_prior
from typer.testing import CliRunner

from dream3d.cameras import orbit
from dream3d.cli.app import app
from dream3d.dataset.images import Skipped, images_from_folder
from dream3d.errors import Dream3DError
from dream3d.generate import generate, resume
from dream3d.prior.sampling import SamplingRecipe, sample_views
from dream3d.recipe.generation import MeshRecipe, Recipe, Stage, TargetRecipe
from dream3d.recipe.presets import preset
from dream3d.weights.loading import load_prior
from dream3d.weights.records import read_folder_record, read_record, record_path

LIMIT_SECONDS = 10.0
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2, 5000, 10**7, 10**9, 10**30, 10**400, 0.5, -0.5, float("nan"), float("inf"), 1e-300,
    "", "x", "\0", "\ud800", "\x1b]0;t\x07", "../..", "y" * 5000, [], [1], [[1, 2]], {}, {"a": 1},
)  # fmt: skip
WORDS = (
    "--steps", "--seed", "--seeds", "--vram", "--out", "--run-dir", "--prior", "--negative", "--resolution", "--views",
    "--guidance-scale", "--checkpoint-minutes", "--preview-seeds", "--device", "--precision", "--set", "--size",
)  # fmt: skip
COMMANDS = (["generate"], ["views"], ["resume"], ["batch"], ["train"], ["models", "info"], ["dataset", "info"])
SHORT = replace(
    preset("mini").with_steps(3),
    mesh=MeshRecipe(resolution=16, texture=64),
    stages=(Stage(0, 16, 1),),
    targets=(TargetRecipe(),),
)


MOST_WORK = 2_000_000
"""Eleven times that of :data:`SHORT`. A recipe within all bounds may ask for hours: that is no fault of a reader."""


class Stop(Exception):
    """A run has made two steps, which is enough."""


@functools.cache
def mini() -> Any:
    """The built-in prior, loaded once."""
    return load_prior("mini")


def stop(progress: Any) -> None:
    """Ends a run after two steps, and one of a single step before its mesh."""
    if (progress.stage == "optimise" and progress.step >= 2) or progress.stage == "extract":
        raise Stop


def read_prior(folder: Path) -> None:
    """Load a prior and sample from it."""
    prior = load_prior(str(folder / "prior"))
    sample_views(prior, prior.encode_prompt("a chair", ""), orbit(2), SamplingRecipe(steps=1), seed=0)


def read_run(folder: Path) -> None:
    """Resume a run."""
    with contextlib.suppress(Stop):
        resume(folder / "run", prior=mini(), observer=stop, checkpoint_seconds=0)


def work(recipe: Recipe) -> int:
    """Samples along all rays, and views times denoising steps, that two steps of a recipe ask for."""
    stage, target = recipe.stage_at(0), recipe.targets[0]
    views = max(target.views or 0, 4) * stage.objects
    return views * (stage.resolution**2 * recipe.render.samples_per_diagonal + 20_000 * target.denoise_steps)


def read_recipe(folder: Path) -> None:
    """Run two steps of a recipe."""
    try:
        data = json.loads((folder / "recipe.json").read_bytes())
    except (ValueError, RecursionError):  # no table, and so no recipe
        return
    recipe = Recipe.from_dict(data)
    if work(recipe) > MOST_WORK:
        return
    paths: dict[str, Any] = {"out": folder / "a.glb", "run_dir": folder / "run"}
    with contextlib.suppress(Stop):
        generate("a chair", prior=mini(), recipe=recipe, seed=0, device="cpu", observer=stop, **paths)


def read_words(folder: Path) -> None:
    """Run the command line; what it prints must be one line, and its exit code one of ours."""
    words = json.loads((folder / "words.json").read_text(encoding="utf-8"))
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exit_code not in (0, 1, 2) or "again with --debug" in result.stderr:
        raise RuntimeError(f"exit code {result.exit_code}: {result.stderr}")
    if result.exit_code:
        raise Dream3DError if len(result.stderr.splitlines()) == 1 else RuntimeError(result.stderr)


def read_cache(folder: Path) -> None:
    """Read what the cache remembers."""
    read_record(folder / "a.bin")
    read_folder_record(folder / "a")


def sound_inputs(folder: Path) -> None:
    """A folder for each kind of input, with sound ones."""
    for name, target in TARGETS.items():
        (folder / "made").mkdir(parents=True)
        for number, data in enumerate(target.seeds(folder / "made")):
            (folder / name / str(number)).mkdir(parents=True)
            (folder / name / str(number) / target.name).write_bytes(data)
        shutil.rmtree(folder / "made")
    for name in ("priors", "runs", "recipes", "words", "cache", "metadata"):
        (folder / name / "0").mkdir(parents=True)
    write_tiny_prior(folder / "priors/0/prior")
    (folder / "recipes/0/recipe.json").write_text(json.dumps(SHORT.to_dict()))
    (folder / "words/0/words.json").write_text("[]")
    record = {"sha256": "0" * 64, "bytes": 3, "origin": "https://example.org/a", "kept": True}
    record_path(folder / "cache/0/a.bin").write_text(json.dumps(record))
    (folder / "cache/0/a.files.json").write_text(json.dumps({"origin": "x", "dtype": "fp16", "files": {"b": record}}))
    shutil.copy(folder / "pictures/0/a.png", folder / "metadata/0/a.png")
    (folder / "metadata/0/metadata.jsonl").write_text('{"file_name": "a.png", "text": "a chair"}\n')
    paths: dict[str, Any] = {"out": folder / "runs/0/a.glb", "run_dir": folder / "runs/0/run"}
    with contextlib.suppress(Stop):
        generate(
            "a chair", prior=mini(), recipe=SHORT, seed=0, device="cpu", observer=stop,
            checkpoint_seconds=1e-9, request={"prior": "mini"}, **paths,
        )  # fmt: skip


def readers() -> dict[str, Callable[[Path], object]]:
    """What reads each kind of input, from a folder."""

    def of(target: Target) -> Callable[[Path], object]:
        return lambda folder: target.read(folder / target.name)

    known: dict[str, Callable[[Path], object]] = {name: of(target) for name, target in TARGETS.items()}
    known |= {"priors": read_prior, "runs": read_run, "recipes": read_recipe, "words": read_words, "cache": read_cache}
    return known | {"metadata": lambda folder: list(images_from_folder(folder, 16, Skipped()))}


def child(pipe: Connection, folder: Path) -> None:
    """Read damaged folders as they come; what came of each goes back. Works in ``folder``."""
    known = readers()
    os.chdir(folder)
    while True:
        name, inputs = pipe.recv()
        said, trace = "read", ""
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                known[name](inputs) if name else mini()
        except Dream3DError as error:
            said = "refused" if len(str(error).splitlines()) <= 1 else "many lines"
        except BaseException:
            said, trace = "raw exception", traceback.format_exc()
        pipe.send((said, trace))


def damage_json(value: Any, chance: random.Random) -> Any:
    """Plain data with another value at a random place, or with one more key."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        return {**value, key: damage_json(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        index = chance.randrange(len(value))
        return [*value[:index], damage_json(value[index], chance), *value[index + 1 :]]
    return {**value, "zzz": 1} if isinstance(value, dict) and chance.random() < 0.3 else chance.choice(VALUES)


def damage(folder: Path, chance: random.Random) -> None:
    """Damage one file of a folder, JSON mostly by its values."""
    path = chance.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    data = path.read_bytes()
    if path.name == "words.json":
        words = [*chance.choice(COMMANDS), "a chair" if chance.random() < 0.7 else chance.choice(VALUES)]
        for option in chance.sample(WORDS, chance.randrange(1, 4)):
            words += [option, chance.choice(VALUES)]
        # Nothing is made in earnest: the device does not exist.
        path.write_text(json.dumps([str(word)[:5000] for word in [*words, "--device", "cuda:9"]]))
    elif path.suffix == ".json" and len(data) < 100_000 and chance.random() < 0.8:
        path.write_text(json.dumps(damage_json(json.loads(data), chance)))
    else:
        path.write_bytes(damaged(data, np.random.default_rng(chance.randrange(2**32))))


def digest(folder: Path) -> str:
    """Of all names and bytes in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(path).encode() + path.read_bytes() for path in files)).hexdigest()


class Reader:
    """The child process, started again when it hangs or dies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start()

    def start(self) -> None:
        """A new process, in a folder of its own."""
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=child, args=(other, self.folder), daemon=True)
        self.process.start()
        other.close()
        self.pipe.send(("", self.folder))  # imports take longer than an input may
        self.pipe.recv()

    def read(self, name: str, folder: Path) -> tuple[str, str]:
        """What came of an input."""
        self.pipe.send((name, folder))
        try:
            if self.pipe.poll(LIMIT_SECONDS):
                said: tuple[str, str] = self.pipe.recv()
                return said
            said = "hang", ""
        except EOFError:
            said = "death", ""
        self.process.kill()
        self.start()
        return said


def main() -> None:
    """Read the command line, fuzz, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--only", nargs="*", default=list(readers()), choices=list(readers()))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance, counts, number = random.Random(args.seed), Counter[tuple[str, str]](), 0
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for name in ("sound", "foreign", "work"):
            (root / name).mkdir()
        (root / "foreign/checkpoints").mkdir()
        (root / "foreign/checkpoints/thesis.txt").write_text("mine")
        sound_inputs(root / "sound")
        foreign = digest(root / "foreign") + digest(root / "sound")
        reader, ends = Reader(root / "work"), time.monotonic() + 60 * args.minutes
        while time.monotonic() < ends:
            name = args.only[number % len(args.only)]
            folder = root / "work" / f"{name}-{number}"
            shutil.copytree(chance.choice(sorted((root / "sound" / name).iterdir())), folder)
            damage(folder, chance)
            kept = args.out / folder.name
            shutil.copytree(folder, kept)
            said, trace = reader.read(name, folder)
            if digest(root / "foreign") + digest(root / "sound") != foreign:
                said = "foreign file"
            counts[name, said] += 1
            if said in ("read", "refused"):
                shutil.rmtree(kept)
            else:
                (kept / "why.txt").write_text(f"{said}\n{trace}", errors="backslashreplace")
            shutil.rmtree(folder, ignore_errors=True)
            number += 1
        reader.process.kill()
    kinds = ("read", "refused", "raw exception", "many lines", "hang", "death", "foreign file")
    print("input".ljust(12), *(kind.rjust(14) for kind in kinds))
    for name in [*args.only, "all"]:
        row = (sum(n for (one, said), n in counts.items() if said == kind and name in (one, "all")) for kind in kinds)
        print(name.ljust(12), *(str(value).rjust(14) for value in row))
    raise SystemExit(any(said not in ("read", "refused") for _, said in counts))


if __name__ == "__main__":
    main()
