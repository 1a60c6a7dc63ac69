"""The command line as a whole: help, version, doctor, speed, and real processes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from dream3d import __version__
from dream3d.cli.app import app

ROOT = Path(__file__).parent.parent


def process(code: str, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-W", "error", "-c", code, *args]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)


RUN_MAIN = "from dream3d.cli.app import main; main()"


def test_no_heavy_library_is_imported_for_help() -> None:
    code = "import sys, json, dream3d.cli.app; print(json.dumps(sorted(sys.modules)))"
    modules = set(json.loads(process(code).stdout))
    heavy = {
        "torch",
        "numpy",
        "diffusers",
        "transformers",
        "scipy",
        "trimesh",
        "dream3d.recipe.generation",
        "rich.live",
    }
    assert not modules & heavy


def test_help_is_fast() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        assert process(RUN_MAIN, "--help").returncode == 0
        return time.perf_counter() - start

    # Measured 0.19 s on an idle machine; the promise is 0.3 s. Three times that still rules out an
    # import of torch (2 s), and a busy test machine does not fail it.
    assert statistics.median(seconds() for _ in range(5)) < 0.9


def test_version_and_help() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"dream3d {__version__}\n"
    for args in ([], ["--help"]):
        result = CliRunner().invoke(app, args)
        assert result.exit_code == 0
        for words in ("Make 3D assets:", "generate", "doctor", "Priors and training:", "train-encoder", "dataset"):
            assert words in result.stdout
        assert "..." not in result.stdout.partition("Options:")[2]  # no sentence is cut


@pytest.mark.parametrize("command", ["generate", "views", "batch", "resume"])
def test_help_has_sections_and_an_example_that_parses(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"]).stdout
    assert "\nRun:\n  --" in shown or "\nSampling:\n  --" in shown
    (example,) = (line for line in shown.splitlines() if line.startswith("  Example: dream3d"))
    name, *args = shlex.split(example.removeprefix("  Example: dream3d "))
    assert name == command
    context = get_command(app).commands[name].make_context(name, args)  # type: ignore[attr-defined]
    assert context.params["debug"] is False


def test_shell_completion_is_on() -> None:
    assert "complete" in process(RUN_MAIN, "--show-completion", SHELL="/bin/bash").stdout
    words = {"_DREAM3D_COMPLETE": "complete_bash", "COMP_WORDS": "dream3d views --gui", "COMP_CWORD": "2"}
    assert process(RUN_MAIN, **words).stdout == "--guidance-scale\n"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["generat"], "did you mean 'generate'?"),
        (["gen"], "no such command: 'gen'; did you mean 'generate'?"),
        (["models", "lst"], "did you mean 'list'?"),
        (["xyzzy"], "no such command: 'xyzzy'; see 'dream3d --help'"),
        (["--nonsense"], "--nonsense"),
        (["--debug", "nope"], "'nope'"),
        (["generate", "a", "wooden", "chair", "--steps", "9"], "put it in quotes: dream3d generate 'a wooden chair'"),
        (["views", "a", "horse"], "put it in quotes: dream3d views 'a horse'"),
        (["batch", "a chair"], "for a single prompt: dream3d generate 'a chair'"),
        (["batch", "a", "chair", "--out-dir", "x"], "for a single prompt: dream3d generate 'a chair'"),
        (["batch", "a.txt", "--out-dir", "x", "--fail", "none"], "Invalid value for '--fail': 'none' is not one of"),
    ],
)
def test_wrong_commands_are_one_line(args: list[str], says: str) -> None:
    result = CliRunner().invoke(app, args, prog_name="dream3d")
    assert result.exit_code == 2
    assert says in result.stderr.splitlines()[-1]
    assert "--debug" in args or len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "args",
    [
        ["batch", "NAME"],
        ["resume", "NAME"],
        ["report", "NAME"],
        ["replay", "NAME"],
        ["variations", "NAME"],
        ["view", "NAME"],
        ["corpus", "info", "NAME"],
        ["corpus", "add", "NAME", "."],
    ],
)
def test_a_name_that_no_file_can_have_is_one_line(args: list[str]) -> None:
    result = CliRunner().invoke(app, [word.replace("NAME", "y" * 3000) for word in args], prog_name="dream3d")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "Error" not in line


def test_every_option_is_documented() -> None:
    subcommands = ("evaluate measure", "evaluate study", "evaluate preferences")
    for command in ("generate", "resume", "doctor", "dreambooth", "replay", "variations", "view", *subcommands):
        text = (ROOT / "docs" / f"{command.split()[0]}.md").read_text("utf-8")
        shown = CliRunner().invoke(app, [*command.split(), "--help"]).stdout
        options = {word for word in shown.replace(",", " ").split() if word.startswith("--")}
        assert not {option for option in options if f"`{option}" not in text}


def test_a_real_process_refuses_in_one_line(tmp_path: Path) -> None:
    result = process(f"import os; os.chdir({str(tmp_path)!r}); {RUN_MAIN}", "generate", " ", LC_ALL="C")
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_real_process_is_interrupted(number: signal.Signals, code: int) -> None:
    # A shell's background jobs ignore Ctrl-C, and so would their children here.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    wait = heard + "import sys, time; import dream3d.cli.app as a; a.app.command()(sleep); a.main()"
    sleep = "def sleep() -> None:\n print('ready', flush=True); time.sleep(30)\n"
    started = subprocess.Popen(
        [sys.executable, "-c", "import time\n" + sleep + wait, "sleep"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        started.send_signal(number)
        _, errors = started.communicate(timeout=20)
    assert started.returncode == code
    assert errors.splitlines() == (["interrupted"] if code == 130 else [])


def test_doctor_says_what_is_used_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    choice = SimpleNamespace(operation="hash grid", name="torch", reason="[tiny-cuda-nn] is not installed")
    mini = SimpleNamespace(name="mini", path=Path("/priors/mini"), present=True, licence="CC-BY-4.0", note="built in")
    other = SimpleNamespace(name="mvdream", path=None, present=False, licence="OpenRAIL", note="")
    monkeypatch.setattr("dream3d.kernels.operations.report", lambda device: [choice])
    monkeypatch.setattr("dream3d.weights.catalogue.catalogue", lambda: [mini, other])
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.stderr
    for words in (__version__, "Python", "torch", "threads", "torch: [tiny-cuda-nn] is not installed"):
        assert words in result.stdout
    for words in ("prior mini", "/priors/mini", "licence: CC-BY-4.0", "prior mvdream", "not installed"):
        assert words in result.stdout
    assert "\x1b" not in result.stdout


def test_doctor_survives_what_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ImportError("no library")

    monkeypatch.setattr("torch.cuda.is_available", fail)
    monkeypatch.setattr("dream3d.weights.catalogue.catalogue", fail)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    shown = [line.split() for line in result.stdout.splitlines()]
    for name in ("torch", "backends", "priors"):
        assert [name, "failed:", "ImportError:", "no", "library"] in shown
