"""What an installed dream3d consists of."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dream3d import __version__

ROOT = Path(__file__).parent.parent
DATA = tuple(ROOT / "dream3d" / name for name in ("priors", "corpora", "prior/official/configs", "report/model_viewer"))

pytestmark = pytest.mark.slow  # packing the prior takes half a minute


def expected_files() -> set[str]:
    """Every file of the checkout that the package must carry, relative to the root."""
    modules = {path for path in (ROOT / "dream3d").rglob("*.py") if "__pycache__" not in path.parts}
    data = {path for top in DATA for path in top.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    return {path.relative_to(ROOT).as_posix() for path in modules | data | {ROOT / "dream3d" / "py.typed"}}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel of a copy of the sources: building in the checkout would leave folders behind."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed, and a test does not download it")
    sources, target = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in {"setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", *expected_files()}:
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        (sources / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    built = subprocess.run(
        [*command, "--wheel-dir", str(target), str(sources)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    (file,) = target.glob("*.whl")
    return zipfile.ZipFile(file)


def test_the_wheel_holds_every_module_and_every_data_file(wheel: zipfile.ZipFile) -> None:
    assert expected_files() - set(wheel.namelist()) == set()


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    folder = f"dream3d-{__version__}.dist-info"
    metadata = wheel.read(f"{folder}/METADATA").decode()
    for line in (
        "Name: dream3d",
        f"Version: {__version__}",
        "License-Expression: Apache-2.0",
        "Requires-Python: >=3.10",
    ):
        assert line in metadata.splitlines()
    assert "dream3d = dream3d.cli.app:main" in wheel.read(f"{folder}/entry_points.txt").decode()
    assert "Apache License" in wheel.read(f"{folder}/licenses/LICENSE").decode()
    assert not [name for name in wheel.namelist() if name.startswith("tests")]
