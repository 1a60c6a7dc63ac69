"""Conversion at full size: the SD 2.1 plan with its 1.3 billion numbers, in bounded memory."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from official_checkpoint import (
    BUFFERS,
    FULL_SD21,
    OPENCLIP_PREFIX,
    UNET_PREFIX,
    VAE_PREFIX,
    State,
    official_unet,
    official_vae,
    openclip_text,
    stock_text,
    stock_unet,
    stock_vae,
)
from safetensors import safe_open

ROOT = Path(__file__).parent.parent

NEEDED_DISK, NEEDED_MEMORY = 10e9, 8e9
"""The checkpoint and its conversion, bytes; the checkpoint's tensors before they are written, bytes."""

pytestmark = pytest.mark.slow


def full_state() -> State:
    """Every tensor of ``sd-v2.1-base-4view.pt`` with its shape; each is filled with a number of its own.

    Tensors of one shape share no memory, as in the file; random numbers would only take longer.
    """
    with torch.device("meta"):
        stock = [
            n.state_dict() for n in (stock_unet(FULL_SD21, False), stock_vae(FULL_SD21), stock_text(FULL_SD21, False))
        ]
        parts = {
            UNET_PREFIX: official_unet(stock[0]),
            VAE_PREFIX: official_vae(stock[1]),
            OPENCLIP_PREFIX: openclip_text(stock[2]),
        }
    shapes = {prefix + name: value.shape for prefix, part in parts.items() for name, value in part.items()}
    shapes[OPENCLIP_PREFIX + "text_projection"] = torch.Size([1024, 1024])
    shapes |= {name: torch.Size([1000]) for name in BUFFERS}
    return {name: torch.full(shape, index / 8) for index, (name, shape) in enumerate(shapes.items())}


@pytest.fixture
def numbers(tmp_path: Path) -> Iterator[tuple[Path, dict[str, float]]]:
    """The checkpoint, and the number that each of its tensors is filled with; removed afterwards with all beside it."""
    if shutil.disk_usage(tmp_path).free < NEEDED_DISK:
        pytest.skip(f"needs {NEEDED_DISK / 1e9:.0f} GB of disk")
    if "SC_AVPHYS_PAGES" in os.sysconf_names and available_memory() < NEEDED_MEMORY:
        pytest.skip(f"needs {NEEDED_MEMORY / 1e9:.0f} GB of free memory")
    path = tmp_path / "sd-v2.1-base-4view.pt"
    try:
        state = full_state()
        torch.save(state, path)
        firsts = {name: float(value.flatten()[0]) for name, value in state.items()}
        del state
        yield path, firsts
    finally:
        shutil.rmtree(tmp_path)


def available_memory() -> float:
    """Free memory and what the system would give back from its file cache, bytes."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        line = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable"))
        return float(line.split()[1]) * 1024
    return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def test_the_full_size_converts_in_bounded_memory(numbers: tuple[Path, dict[str, float]], tmp_path: Path) -> None:
    source, expected = numbers
    size = source.stat().st_size
    assert size == pytest.approx(5.22e9, rel=0.002)  # the published size
    script = Path(__file__).parent / "full_size.py"
    command = [sys.executable, str(script), str(source), str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # this checkout, whatever is installed
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout)
    print(f"checkpoint {size / 1e9:.2f} GB, peak memory {peak / 1e9:.2f} GB, ratio {peak / size:.3f}")  # noqa: T201
    assert peak < 1.3 * size
    found: list[float] = []
    numel = 0
    for name in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"):
        with safe_open(tmp_path / "out" / f"{name}.safetensors", framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(key)
                assert bool((tensor == tensor.flatten()[0]).all())
                found.append(float(tensor.flatten()[0]))
                numel += tensor.numel()
    kept = {name: value for name, value in expected.items() if name not in BUFFERS and not unused(name)}
    assert set(found) == set(kept.values())  # eighths below 256 are exact in half precision
    # UNet, VAE and the text tower of 354032641 less its last block, projection and logit scale.
    assert numel == 867_572_164 + 83_653_863 + 340_387_840


def unused(name: str) -> bool:
    return name.startswith(OPENCLIP_PREFIX) and (
        ".resblocks.23." in name or name.endswith(("text_projection", "logit_scale"))
    )
