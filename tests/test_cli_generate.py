"""``dream3d generate``: what reaches the engine, what is printed, and how it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import FakeEngine
from typer.testing import CliRunner, Result

from dream3d.cli.app import app
from dream3d.cli.display import print_outcome
from dream3d.errors import CollapsedFieldError
from dream3d.prior.layout import PACKAGED
from dream3d.run.progress import Outcome
from dream3d.weights.loading import lasting_name, locate


def invoke(*args: str) -> Result:
    return CliRunner().invoke(app, ["generate", *args])


def written(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_defaults_come_from_the_prior(engine: FakeEngine) -> None:
    result = invoke("an elk skull")
    assert result.exit_code == 0, result.stderr
    (call,) = engine.calls
    assert call["prompt"] == "an elk skull"
    assert call["recipe"].name == "mini"
    assert call["seed"] == 0
    assert call["out"] == Path("an-elk-skull.glb")
    assert call["run_dir"] == Path("runs/an-elk-skull-0")


MESH = ("--resolution", "40", "--faces", "500", "--texture", "0")


def test_every_option_reaches_the_engine(engine: FakeEngine) -> None:
    options = "--out a/b.ply --negative blurry --steps 7 --seed 5 --guidance-scale 3.5 --preset mvdream"
    result = invoke(*options.split(), "--device", "cpu", "--run-dir", "r", *MESH, "a  chair ")
    assert result.exit_code == 0, result.stderr
    (call,) = engine.calls
    recipe = call["recipe"]
    assert (recipe.name, recipe.steps, recipe.guidance.guidance_scale) == ("mvdream", 7, 3.5)
    assert (recipe.mesh.resolution, recipe.mesh.faces, recipe.mesh.texture) == (40, 500, 0)
    assert recipe.negative_prompt == "blurry"
    assert (call["prompt"], call["seed"], call["device"]) == ("a  chair", 5, "cpu")
    assert (call["out"], call["run_dir"]) == (Path("a/b.ply"), Path("r"))


def test_a_folder_with_the_name_of_a_prior_is_not_that_prior(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mini").mkdir()
    (tmp_path / "list.txt").write_text("a chair\n")
    assert invoke("a chair").exit_code == 0
    assert engine.calls[0]["request"]["prior"] == "mini"  # what resume loads, from any folder

    batches: list[Any] = []

    def run_local(jobs: object, shared: object, workers: int, watcher: object) -> list[Any]:
        batches.append(shared)
        return []

    monkeypatch.setattr("dream3d.batch.local.run_local", run_local)
    assert CliRunner().invoke(app, ["batch", "list.txt", "--out-dir", "out"]).exit_code == 0
    assert batches[0].prior == "mini"
    assert lasting_name("mini") == "mini"
    assert locate("mini") == PACKAGED / "mini"
    assert lasting_name("./mini") == str(tmp_path / "mini")


def test_the_summary_says_where_what_how_long_and_how_much(engine: FakeEngine) -> None:
    lines = invoke("a chair", "--out", "chair.glb").stdout.splitlines()[-3:]
    assert lines[0] == "mesh        chair.glb (1,234 vertices, 5,678 faces)"
    assert lines[1] == f"run folder  {Path('runs/a-chair-0')}"
    assert lines[2].startswith("took ")
    assert lines[2].endswith("peak memory 1.4 GB")


@pytest.mark.parametrize(("cap_area", "lines"), [(0.0, []), (0.002, []), (0.035, ["3.5% of the mesh's area"])])
def test_an_object_that_was_cut_off_is_warned_about(
    cap_area: float, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = Outcome(Path("a.glb"), Path("runs/a"), 3, 1, 10.0, 1.5, 1_400_000_000, 0.98, 0.01, cap_area, None)
    print_outcome(outcome, quiet=True)
    out, err = capsys.readouterr()
    assert out == "a.glb\n"
    assert len(err.splitlines()) == len(lines)
    assert all(err.startswith(f"warning: {line}") for line in lines)


def test_quiet_prints_the_path_alone(engine: FakeEngine) -> None:
    result = invoke("a chair", "--out", "chair.glb", "--quiet")
    assert (result.stdout, result.stderr) == ("chair.glb\n", "")


def test_a_cut_prompt_is_warned_about_and_goes_on(engine: FakeEngine) -> None:
    prompt = "word " * 16 + "more than is read"
    result = invoke(prompt)
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        'warning: the text encoder reads the prompt up to character 80, after "word word word word word"'
    ]
    assert engine.calls[0]["prompt"] == prompt


def test_an_existing_mesh_stays_until_the_engine_replaces_it(engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "chair.glb").write_bytes(b"old")
    engine.failure = CollapsedFieldError("the field is empty; try another seed")
    assert invoke("a chair", "--out", "chair.glb").exit_code == 1
    assert (tmp_path / "chair.glb").read_bytes() == b"old"


BAD_REQUESTS = {
    "empty prompt": ([""], "prompt is empty"),
    "blank prompt": ([" \t\n "], "prompt is empty"),
    "invisible prompt": (["\u200b\u3000"], "prompt is empty"),
    "NUL in prompt": (["a\0b"], "control character (U+0000) at character 2"),
    "escape in prompt": (["a \x1b[31mred"], "control character (U+001B) at character 3"),
    "newline in prompt": (["a\nchair"], "control character (U+000A)"),
    "not text": (["a \udcff"], "not text"),
    "long prompt": (["word " * 2000], "stops reading at character 81, after"),
    "long negative": (["x", "--negative", "n" * 1001], "negative prompt has 1001 characters"),
    "unknown preset": (["x", "--preset", "huge"], "unknown preset 'huge'; the presets are mini"),
    "unknown prior": (["x", "--prior", "nope"], "unknown prior 'nope'"),
    "long prompt, unknown prior": (["w" * 1001, "--prior", "nope"], "1001 characters"),
    "out in a file": (["x", "--out", "file/a.glb"], "is not a folder"),
    "out in no folder": (["x", "--out", "/proc/dream3d/a.glb"], "cannot be written"),
    "out is a folder": (["x", "--out", "folder"], "is a folder"),
    "out is a device": (["x", "--out", "/dev/null"], "not a regular file"),
    "out is too long": (["x", "--out", "a" * 300 + ".glb"], "too long"),
    "unknown ending": (["x", "--out", "new/x.txt"], ".glb, .obj, .ply, .stl"),
    "no ending": (["x", "--out", "x"], ".glb, .obj, .ply, .stl"),
    "no steps": (["x", "--steps", "0"], "--steps is 0, which should be a whole number from 1 to 1000000"),
    "negative steps": (["x", "--steps", "-5"], "--steps is -5,"),
    "steps not a number": (["x", "--steps", "many"], "--steps"),
    "steps without end": (["x", "--steps", "9" * 400], "999, which should be a whole number from 1 to 1000000"),
    "steps of a chapter": (["x", "--steps", "9" * 5000], "--steps"),
    "steps between blanks": (["x", "--steps", " 3 "], "' 3 ' is not a number"),
    "steps in Python": (["x", "--steps", "1_0"], "'1_0' is not a number"),
    "a scale in Python": (["x", "--guidance-scale", "1_0.5"], "'1_0.5' is not a number"),
    "steps in full width": (["x", "--steps", "\uff13"], "' is not a number"),
    "a slash behind a file": (["x", "--out", "a.glb/"], "a.glb/ is the name of a folder"),
    "for private use": (["\ue000"], "the prompt is empty: U+E000 is for private use"),
    "not assigned": (["\u0378"], "the prompt is empty: U+0378 is not assigned"),
    "invisible": (["\u200b"], "the prompt is empty: U+200B is invisible"),
    "half a character": (["a", "--negative", "\ud800"], "U+D800"),
    "negative resolution": (["x", "--resolution", "-1"], "--resolution is -1,"),
    "few faces": (["x", "--faces", "5"], "mesh.faces is 5, which should be 0 or at least 100"),
    "negative texture": (["x", "--texture", "-1"], "--texture is -1,"),
    "huge resolution": (
        ["x", "--resolution", "5000"],
        "--resolution is 5000, which should be",
    ),
    "guidance nan": (["x", "--guidance-scale", "nan"], "--guidance-scale is nan, which should be a number"),
    "guidance infinite": (["x", "--guidance-scale", "inf"], "--guidance-scale is inf, which should be a number"),
    "guidance negative": (["x", "--guidance-scale", "-1"], "a number from 0 to 1000"),
    "seed negative": (["x", "--seed", "-1"], "--seed is -1, which should be a whole number from 0"),
    "seed too large": (["x", "--seed", str(2**63)], "which should be a whole number from 0"),
    "device nonsense": (["x", "--device", "tpu"], "unknown device 'tpu'"),
    "run folder is a file": (["x", "--run-dir", "file"], "is a file"),
    "run folder is the mesh": (["x", "--out", "a.glb", "--run-dir", "a.glb"], "collide"),
    "run folder in the mesh": (["x", "--out", "a.glb", "--run-dir", "a.glb/run"], "collide"),
    "no prompt": ([], "Missing argument"),
    "two prompts": (["a", "chair"], "put it in quotes: "),
    "unknown option": (["x", "--stepz", "3"], "--stepz"),
    "option without value": (["x", "--steps"], "--steps"),
}


@pytest.mark.parametrize(("args", "says"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_bad_requests_are_refused_in_one_line(args: list[str], says: str, engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    before = written(tmp_path)
    result = invoke(*args)
    assert result.exit_code == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("error: ")
    assert says in result.stderr
    assert result.stdout == ""
    assert written(tmp_path) == before
    assert engine.calls == []


def test_cuda_is_refused_without_cuda(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = invoke("x", "--device", "cuda")
    assert result.exit_code == 2
    assert "use --device cpu" in result.stderr


def test_a_cuda_device_that_is_not_there_is_refused(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert invoke("x", "--device", "cuda:1").exit_code == 0
    assert invoke("x").exit_code == 0
    assert [call["device"] for call in engine.calls] == ["cuda:1", "cuda"]
    result = invoke("x", "--device", "cuda:2")
    assert result.exit_code == 2
    assert "the CUDA devices are cuda:0, cuda:1" in result.stderr


@pytest.mark.parametrize(
    ("failure", "code", "line"),
    [
        (
            CollapsedFieldError("the field is empty;\ntry another seed"),
            1,
            "error: the field is empty; try another seed",
        ),
        (
            RuntimeError("the sky\nfell"),
            1,
            "error: RuntimeError: the sky fell (run again with --debug for the traceback)",
        ),
        (AssertionError(), 1, "error: AssertionError (run again with --debug for the traceback)"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_failures_have_one_line_and_a_code(failure: BaseException, code: int, line: str, engine: FakeEngine) -> None:
    engine.failure = failure
    result = invoke("a chair")
    assert result.exit_code == code
    assert result.stderr.splitlines() == [line]


@pytest.mark.parametrize("args", [["--debug", "generate", "x"], ["generate", "x", "--debug"]])
def test_debug_shows_the_traceback(args: list[str], engine: FakeEngine) -> None:
    engine.failure = RuntimeError("the sky fell")
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert "error: RuntimeError: the sky fell" in result.stderr.splitlines()[-1]
