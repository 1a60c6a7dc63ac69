"""A training run in two processes, as torch starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_shards import tiny_recipe

from dream3d.run import checkpoints
from dream3d.training.recipe import read_recipe
from dream3d.training.tasks.multiview import make_trainer

RECIPE = """
start = "{folder}/prior"
steps = 1000000
products = "off"
[data]
views = "{folder}/data"
images = "{folder}/data"
[batch]
objects = 1
images = 1
views = 2
[every]
checkpoint = 2
samples = 0
heldout = 0
"""


def workers(parent: int) -> list[int]:
    """Processes below one that have none below them."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False)
    below = [int(one) for one in found.stdout.split()]
    return [leaf for one in below for leaf in workers(one) or [one]]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found as on Linux")
def test_two_processes_train_and_stop_after_the_same_step(tmp_path: Path) -> None:
    tiny_recipe(tmp_path)
    recipe, run = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(RECIPE.format(folder=tmp_path))
    train = ["-m", "dream3d", "train", str(recipe), "--out", str(run), "--device", "cpu"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", *train]
    environment, log = {**os.environ, "OMP_NUM_THREADS": "1"}, tmp_path / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(command, start_new_session=True, env=environment, stdout=output, stderr=output) as launched,
    ):
        try:
            limit = time.monotonic() + 120
            while not ((run / "checkpoints").is_dir() and checkpoints.all_in(run / "checkpoints")):
                assert launched.poll() is None
                assert time.monotonic() < limit
                time.sleep(0.1)
            both = workers(launched.pid)
            assert len(both) == 2
            os.kill(both[1], signal.SIGINT)  # the other one hears of it from this one
            launched.wait(60)
        finally:
            if launched.poll() is None:
                os.killpg(launched.pid, signal.SIGKILL)
    assert log.read_text().count("2 objects, 2 images") == 1  # one of them reports
    step = int(checkpoints.all_in(run / "checkpoints")[-1].stem.split("-")[1])
    assert len((run / "metrics.csv").read_text().splitlines()) == 1 + step
    assert make_trainer(read_recipe(recipe), run).step == step
