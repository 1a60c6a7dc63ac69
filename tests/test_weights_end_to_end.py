"""From a web server to a picture: a small official checkpoint is pulled, converted, verified, and sampled from."""

from pathlib import Path

import imageio.v3 as iio
import pytest
import torch
from official_checkpoint import make_official
from typer.testing import CliRunner
from weight_server import serving

from dream3d.cli.app import app
from dream3d.weights import table as sources
from dream3d.weights.table import Entry, RemoteFile, Source


def run(*args: str) -> str:
    result = CliRunner().invoke(app, list(args))
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_pull_verify_and_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "small-4view.pt"
    torch.save(make_official().state, file)
    remote = RemoteFile(file.name, (f"{sources.HUB}/x/resolve/main/{file.name}",), file.stat().st_size)
    entry = Entry(
        "small", (Source("one file", (remote,), file.name),), file.stat().st_size, "OpenRAIL", "small, of no use"
    )
    monkeypatch.setattr(sources, "ENTRIES", (entry,))
    monkeypatch.setenv("DREAM3D_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DREAM3D_OFFLINE", raising=False)
    monkeypatch.chdir(tmp_path)
    with serving() as server:
        server.put(f"x/resolve/main/{file.name}", file.read_bytes())
        monkeypatch.setenv("DREAM3D_MIRROR", server.base)
        run("models", "pull", "small")
    run("models", "verify", "small")  # the server is gone by now: nothing below may need it
    assert (Path(run("models", "path", "small").strip()) / "prior.json").is_file()
    options = ["--prior", "small", "--steps", "2", "--views", "2", "--device", "cpu", "--vram", "6"]
    run("views", "a chair", "--out", "chair.png", *options)
    picture = iio.imread("chair.png")
    assert picture.shape == (256, 512, 3)
    assert int(picture.max()) - int(picture.min()) > 10
