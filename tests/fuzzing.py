"""Coverage-guided fuzzing of everything that reads a user's file (Google's atheris; not part of the test run).

    pip install atheris
    python tests/fuzzing.py all --seconds 60

For each target a process mutates small sound files towards new branches of dream3d's code. What is found (an exception
that is not ours, a file that takes more than ten seconds, more than 3 GB) is written to the folder of --out, and is
read again by giving that file as --again. test_fuzz.py is the part of this that every test run does.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from assets import box_obj, catalogue, cube_glb, sphere_ply
from PIL import Image
from safetensors.torch import save_file
from tiny_shards import write_tiny_shards

from dream3d.batch.jobs import plan
from dream3d.batch.prompts import read_lists
from dream3d.cameras import orbit
from dream3d.cli.evaluate_inputs import load_judge
from dream3d.dataset.assets.sh3f import extract, read_catalogue
from dream3d.dataset.assets.sources import read_manifest
from dream3d.dataset.captions.concepts import read_concepts
from dream3d.dataset.check.file import check_file
from dream3d.dataset.images import Skipped, images_from_folder
from dream3d.dataset.shards import read_images, read_objects
from dream3d.errors import Dream3DError
from dream3d.evaluation.catalogue import judge_folder
from dream3d.evaluation.study.answers import FORMAT as ANSWERS_FORMAT
from dream3d.evaluation.study.answers import Key, read_answers, read_key
from dream3d.evaluation.study.questions import KEY_FORMAT
from dream3d.evaluation.suite.cases import Case
from dream3d.evaluation.suite.store import ALWAYS, FORMAT, Result, ResultStore, claim_folder
from dream3d.evaluation.suite.subjects import assets_subject
from dream3d.prior.folder import read_header, read_settings
from dream3d.prior.official.tensors import open_tensors
from dream3d.recipe.generation import Recipe
from dream3d.recipe.overrides import changed_recipe
from dream3d.run import checkpoints
from dream3d.run.folder import parse_run
from dream3d.training.recipe import read_recipe

ROOT = Path(__file__).parent.parent


NASTY = (b"", b"\0" * 64, b"\xff" * 64, b"[" * 5000, b"nan", b"-1", b"9" * 400, b"../../etc/passwd", b"\xed\xa0\x80")


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The data cut off, flipped, overwritten, repeated, or with something nasty in it."""
    kind, at = int(rng.integers(6)), int(rng.integers(max(1, len(data))))
    if kind == 0:
        return data[:at]
    if kind == 1:
        changed = bytearray(data)
        for place in rng.integers(max(1, len(data)), size=int(rng.integers(1, 9))):
            changed[place : place + 1] = bytes([int(rng.integers(256))])
        return bytes(changed)
    if kind == 2:
        return data[:at] + rng.bytes(int(rng.integers(1, 64))) + data[at + 16 :]
    if kind == 3:
        return data[:at] + data[: int(rng.integers(1, 400))] + data[at:]
    if kind == 4:
        return data[:at] + NASTY[int(rng.integers(len(NASTY)))] + data[at:]
    return NASTY[int(rng.integers(len(NASTY)))]


@dataclass(frozen=True)
class Target:
    """A kind of file, how to read it, and how to make sound ones in a folder."""

    name: str
    """Of the file: its ending matters."""
    read: Callable[[Path], object]
    seeds: Callable[[Path], list[bytes]]


def _lists(path: Path) -> object:
    return plan(read_lists([path]), [0], {}, "mini")


def _run_json(path: Path) -> object:
    facts = parse_run(path.read_bytes(), "run.json")
    return Recipe.from_dict(facts["recipe"]) if isinstance(facts.get("recipe"), dict) else None


def _sh3f(path: Path) -> object:
    for asset in read_catalogue(path):
        if not asset.reason:
            with tempfile.TemporaryDirectory() as folder:
                check_file(extract(asset, Path(folder)))
    return None


def _picture(path: Path) -> object:
    return list(images_from_folder(path.parent, 16, Skipped()))


def _files(*paths: Path) -> list[bytes]:
    return [path.read_bytes() for path in paths]


def _one(make: Callable[[Path], Path], ending: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: _files(make(folder / f"seed{ending}"))


def _shard(kind: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: _files(write_tiny_shards(folder / "shards") / f"{kind}-00000.tar")


def _tensors(folder: Path) -> list[bytes]:
    tensors = {"a.weight": torch.zeros(2, 3), "b": torch.ones(1, dtype=torch.float16)}
    save_file(tensors, folder / "a.safetensors", {"dream3d": '{"step": 3, "version": 1}'})
    return _files(folder / "a.safetensors")


def _pickled(folder: Path) -> list[bytes]:
    torch.save({"state_dict": {"a": torch.zeros(2)}}, folder / "a.ckpt")
    return _files(folder / "a.ckpt")


def _pictures(folder: Path) -> list[bytes]:
    names = [folder / f"a.{ending}" for ending in ("png", "jpg", "gif", "bmp", "webp")]
    for name in names:
        Image.new("RGB", (3, 2), (200, 100, 50)).save(name)
    return _files(*names)


def _text(*texts: str) -> Callable[[Path], list[bytes]]:
    return lambda folder: [text.encode() for text in texts]


def _judge(path: Path) -> object:
    """A judge of a folder with other weights than its configuration's: sound ones are refused too."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(shutil.copytree(path.parent, Path(folder) / "judge"))
        save_file({"a": torch.zeros(1)}, place / "model.safetensors")
        (place / "tokenizer.json").write_text("{}")
        judge = judge_folder(str(place))
        return None if judge is None else load_judge(judge, "cpu")


def _record(path: Path) -> object:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, folder)
        claim_folder(Path(folder))
    return None


def _views(path: Path) -> object:
    subject = assets_subject("theirs", [path.parent], (1.0, 1.0, 1.0))
    return subject.views(Case("a tree", orbit(4)), 0)


def _sheets(folder: Path) -> list[bytes]:
    names = [folder / f"a.{ending}" for ending in ("png", "webp")]
    for name in names:
        Image.new("RGBA", (12, 3), (200, 100, 50, 128)).save(name)
    return _files(*names)


def _result(folder: Path) -> list[bytes]:
    views, vectors = torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.ones(4, 2)
    figures = dict.fromkeys(ALWAYS, 0.5)
    result = Result("a tree", 0, figures, views, vectors, torch.ones(2), vectors + 0, vectors + 0)
    ResultStore(folder).keep(folder / "a.safetensors", result)
    return _files(folder / "a.safetensors")


KEY = {"format": KEY_FORMAT, "study": "abc", "systems": ["ours", "theirs"], "questions": {"q1": [0, 1], "q2": [1, 0]}}
ANSWERS = {
    "format": ANSWERS_FORMAT,
    "study": "abc",
    "person": "somebody",
    "answers": [{"question": "q1", "choice": "left"}, {"question": "q2", "choice": "same"}],
}


def _answers(path: Path) -> object:
    return read_answers([path], Key("abc", ["ours", "theirs"], {"q1": (0, 1), "q2": (1, 0)}))


def _run_record(folder: Path) -> list[bytes]:
    return [json.dumps({"prompt": "a", "recipe": changed_recipe({}, "mini").to_dict()}).encode()]


JUDGES = (
    {"model_type": "clip", "projection_dim": 8, "text_config": {"hidden_size": 16}, "vision_config": {"patch_size": 8}},
    {"model_type": "siglip", "text_config": {"num_hidden_layers": 1}, "vision_config": {"num_attention_heads": 4}},
    {"model_type": "dinov2", "hidden_size": 16, "image_size": 28, "patch_size": 14, "mlp_ratio": 2},
    {"model_type": "lpips", "backbone": "alex"},
    {"model_type": "inception_v3", "variant": "fid"},
)
TARGETS = {
    "txt": Target("a.txt", _lists, _text("# x\na fox | steps=40 name='x y'\nein Bücherregal\n", "a\n")),
    "csv": Target("a.csv", _lists, _text('prompt,seed,steps\n"a cup, full",3,\n')),
    "jsonl": Target("a.jsonl", _lists, _text('{"prompt": "a cat", "steps": 50}\n')),
    "recipe": Target("a.toml", read_recipe, lambda folder: _files(ROOT / "examples/mini/mini.toml")),
    "run": Target("run.json", _run_json, _run_record),
    "concepts": Target("a.txt", read_concepts, _text("# list\npool table # green\nclock\n")),
    "manifest": Target("manifest.jsonl", read_manifest, _text('{"path": "a.glb", "name": "a chair"}\n')),
    "prior": Target(
        "prior.json", lambda path: read_settings(path.parent), lambda f: _files(ROOT / "dream3d/priors/mini/prior.json")
    ),
    "checkpoint": Target("step-00000003.safetensors", lambda path: checkpoints.read(path, 1), _tensors),
    "tensors": Target("a.safetensors", read_header, _tensors),
    "ckpt": Target("a.ckpt", open_tensors, _pickled),
    "obj": Target("a.obj", check_file, _one(lambda path: box_obj(path, use=""), ".obj")),
    "ply": Target("a.ply", check_file, _one(sphere_ply, ".ply")),
    "glb": Target("a.glb", check_file, _one(cube_glb, ".glb")),
    "gltf": Target("a.gltf", check_file, _text('{"asset": {"version": "2.0"}, "scenes": []}')),
    "sh3f": Target("a.sh3f", _sh3f, _one(catalogue, ".sh3f")),
    "objects": Target("train-00000.tar", lambda path: list(read_objects(path)), _shard("train")),
    "images": Target("images-00000.tar", lambda path: list(read_images(path)), _shard("images")),
    "pictures": Target("a.png", _picture, _pictures),
    "study_key": Target("study.key.json", read_key, _text(json.dumps(KEY))),
    "study_answers": Target("answers.json", _answers, _text(json.dumps(ANSWERS))),
    "evaluation": Target("evaluation.json", _record, _text(json.dumps({"format": FORMAT, "status": "running"}))),
    "result": Target("a.safetensors", lambda path: ResultStore(path.parent).find(path), _result),
    "views": Target("a-tree.png", _views, _sheets),
    "judge": Target("config.json", _judge, _text(*map(json.dumps, JUDGES))),
}


def attempt(target: Target, folder: Path, data: bytes) -> None:
    """Read the bytes as a file; only our own errors may come out, of one line."""
    path, said = folder / target.name, ""
    path.write_bytes(data)
    try:
        target.read(path)
    except Dream3DError as error:
        said = str(error)
    assert len(said.splitlines()) <= 1, said


def fuzz(name: str, seconds: int, out: Path) -> None:
    """Fuzz one target in this process, which ends with libFuzzer's exit code."""
    import atheris

    for module in [module for key, module in sys.modules.items() if key.startswith("dream3d")]:
        for key, value in list(vars(module).items()):
            if callable(value) and getattr(value, "__module__", "") == module.__name__ and hasattr(value, "__code__"):
                setattr(module, key, atheris.instrument_func(value))
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as temporary:
        work, corpus = Path(temporary) / "work", Path(temporary) / "corpus"
        work.mkdir()
        corpus.mkdir()
        (Path(temporary) / "seeds").mkdir()
        for number, seed in enumerate(target.seeds(Path(temporary) / "seeds")):
            (corpus / str(number)).write_bytes(seed)
        options = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=3000", "-max_len=20000"]
        options += [f"-artifact_prefix={out}/{name}-", "-verbosity=0", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], str(corpus), *options], lambda data: attempt(target, work, data))
        atheris.Fuzz()


def main() -> None:
    """Read the command line; each target runs in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=["all", *TARGETS])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--again", type=Path, help="read this one file")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.again:
        with tempfile.TemporaryDirectory() as folder:
            attempt(TARGETS[args.target], Path(folder), args.again.read_bytes())
        return
    if args.target != "all":
        fuzz(args.target, args.seconds, args.out)
        return
    found = []
    for name in TARGETS:
        command = [sys.executable, __file__, name, "--seconds", str(args.seconds), "--out", str(args.out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        runs = [line for line in done.stderr.splitlines() if "number_of_executed_units" in line]
        print(f"{name}: {'found something' if done.returncode else 'nothing found'} {runs}", flush=True)  # noqa: T201
        if done.returncode:
            found.append(name)
            (args.out / f"{name}.log").write_text(done.stdout + done.stderr)
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
