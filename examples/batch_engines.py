"""Both engines of dream3d batch on the same jobs: what Ray costs, and what is lost when workers are killed.

    python examples/batch_engines.py --assets 24 --workers 2 --kill-every 60

makes the assets three times with a reduced recipe of the built-in prior: by local processes, by Ray, and by Ray while a
process that is at work on an asset is killed by SIGKILL every so many seconds, so many times at most: an asset may lose
its worker twice, the third time it counts as failed. ``--brief`` leaves out Ray without kills, which only tells what
Ray costs; ``--small`` makes small things with a prior of random weights, whatever
``--steps`` says. Needs pip install 'dream3d[ray]' and Linux's /proc.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from dream3d.batch.cluster import run_ray
from dream3d.batch.jobs import BatchJob, plan
from dream3d.batch.local import Work, run_local
from dream3d.batch.places import LocalPlace
from dream3d.batch.prompts import Entry
from dream3d.batch.work import Result, Shared, do_job
from dream3d.mesh.reading import read_asset

WORDS = ("a wooden chair", "a christmas tree", "an elk skull", "a red mushroom", "a yellow duck", "a car")


def collect(name: str, jobs: list[BatchJob], folder: Path, results: Iterable[Result]) -> float:
    """Check the results of an engine; the seconds that it took. SystemExit if there is not one of each, whole."""
    began = time.monotonic()
    found = list(results)
    seconds = time.monotonic() - began
    times = Counter(result.key for result in found)
    failed = [f"{result.key}: {result.reason}" for result in found if result.reason]
    done = [job for job in jobs if job.result(LocalPlace(folder)) is not None]
    whole = sum(len(read_asset(folder / job.mesh).vertices) > 0 for job in done)
    left = [path for path in folder.rglob(".*-????????*") if path.is_file()]
    print(
        f"{name}: {seconds:.1f} s, {len(found)} results, {sum(n > 1 for n in times.values())} twice, "
        f"{whole} whole meshes, {len(left)} half-written files, failed: {failed or 'none'}",
        flush=True,
    )
    if len(found) != len(jobs) or len(times) != len(jobs) or whole != len(jobs) or left or failed:
        raise SystemExit(1)
    return seconds


def at_work(folder: Path) -> list[int]:
    """Processes that hold the lock of a run below the folder open."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and int(process.name) != os.getpid():
            try:
                targets = [os.readlink(link) for link in (process / "fd").iterdir()]
            except OSError:
                continue
            if any(target.startswith(str(folder / "runs")) and target.endswith(".lock") for target in targets):
                found.append(int(process.name))
    return found


def killer(folder: Path, every_seconds: float, times: int, stop: threading.Event, killed: list[int]) -> None:
    """Kill a process at work every so many seconds, until so many are killed."""
    while len(killed) < times and not stop.wait(every_seconds):
        for process in at_work(folder)[:1]:
            os.kill(process, signal.SIGKILL)
            killed.append(process)


def small_things(folder: Path) -> tuple[str, Work]:
    """A prior with random weights in a folder, and what makes something small with it; local workers begin at once."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from kill_and_resume import quick_workers, small_job
    from tiny_prior import write_tiny_prior

    quick_workers()
    return str(write_tiny_prior(folder / "prior")), small_job


def main() -> None:
    """Read the command line, run all, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--kill-every", type=float, default=60.0, help="seconds")
    parser.add_argument("--kills", type=int, default=1000, help="at most so many")
    parser.add_argument("--brief", action="store_true", help="leave out Ray without kills")
    parser.add_argument("--small", action="store_true", help="small things, quickly begun: a first look")
    args = parser.parse_args()
    entries = [Entry(word, {}, "here") for word in WORDS]
    seeds = range(-(-args.assets // len(WORDS)))
    changes = {"steps": str(args.steps), "resolution": "48", "faces": "1000", "texture": "64"}
    jobs = plan(entries, seeds, changes, "mini")[0][: args.assets]
    with tempfile.TemporaryDirectory() as name:
        prior, work = small_things(Path(name)) if args.small else ("mini", do_job)

        def shared(folder: Path) -> Shared:
            folder.mkdir()
            return Shared(LocalPlace(folder), prior, "cpu", 1, checkpoint_seconds=2.0)

        local, ray, hurt = (Path(name) / part for part in ("local", "ray", "killed"))
        plain = collect("local", jobs, local, run_local(jobs, shared(local), args.workers, work))
        if not args.brief:
            other = collect("ray", jobs, ray, run_ray(jobs, shared(ray), args.workers, work=work))
            print(f"ray over local: {other / plain - 1:+.1%}", flush=True)
        stop, killed = threading.Event(), list[int]()
        thread = threading.Thread(target=killer, args=(hurt, args.kill_every, args.kills, stop, killed))
        thread.start()
        try:
            collect("ray with kills", jobs, hurt, run_ray(jobs, shared(hurt), args.workers, work=work))
        finally:
            stop.set()
            thread.join()
        same = sum((local / job.mesh).read_bytes() == (hurt / job.mesh).read_bytes() for job in jobs)
        print(f"{len(killed)} workers killed; {same} of {len(jobs)} meshes are the same bytes as without")


if __name__ == "__main__":
    main()
