"""Shards drawn by several processes. A process that dies or hangs costs only the asset it was at."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from dream3d.dataset.check.limits import LIMITS, Limits
from dream3d.dataset.records import SourceAsset, Split
from dream3d.dataset.rendering.scene import OffscreenScene
from dream3d.dataset.rendering.views import ViewsRecipe, draw
from dream3d.dataset.shards import shard_name, write_tar
from dream3d.errors import DatasetError
from dream3d.files import write_atomically

CRASHED = "the renderer crashed"
HUNG = "the renderer hung"


@dataclass(frozen=True)
class ShardTask:
    """A unit of work: the objects of one shard."""

    split: Split
    number: int
    assets: tuple[SourceAsset, ...]

    def shard(self, folder: Path) -> Path:
        """The tar file."""
        return folder / shard_name(self.split, self.number)

    def record(self, folder: Path) -> Path:
        """Beside the tar file: what was drawn and what was skipped. It is written last, so it means "done"."""
        return self.shard(folder).with_suffix(".json")

    def is_done(self, folder: Path) -> bool:
        """Whether the shard need not be drawn again; a shard of skipped assets alone has no tar file."""
        try:
            drawn = json.loads(self.record(folder).read_text(encoding="utf-8"))["drawn"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return not drawn or self.shard(folder).is_file()


@dataclass(frozen=True)
class Bounds:
    """What a process may use."""

    seconds: float = 120.0
    """For one asset."""
    memory_bytes: int = 4 * 2**30
    """Address space beyond that of a process which has just started."""
    limits: Limits = LIMITS


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    task: ShardTask | None = None
    asset: SourceAsset | None = None
    deadline: float = 0.0


@dataclass
class Progress:
    """Counts so far, of assets; assets of a shard that is drawn again after a crash count once."""

    drawn: int = 0
    skipped: int = 0
    started: float = field(default_factory=time.monotonic)


def render_shards(
    tasks: Sequence[ShardTask],
    folder: Path,
    recipe: ViewsRecipe,
    workers: int,
    bounds: Bounds,
    report: Callable[[int, int], None],
) -> None:
    """Draw shards into a folder; ``report`` is called with (drawn, skipped) assets as shards are done.

    Raises :class:`DatasetError` if processes die before they come to an asset.
    """
    waiting, lost = list(reversed(tasks)), dict[str, str]()
    progress, pool, deaths = Progress(), list[_Worker](), 0
    try:
        while waiting or any(worker.task for worker in pool):
            while waiting and len(pool) < workers:
                pool.append(_start(folder, recipe, bounds))
            for worker in pool:
                if worker.task is None and waiting:
                    _give(worker, waiting.pop(), lost, bounds)
            for worker in _ready(pool):
                message = _receive(worker)
                if message is None:  # dead or hung: the shard is drawn again without the asset it was at
                    pool.remove(worker)
                    assert worker.task is not None
                    waiting.append(worker.task)
                    if worker.asset is None:
                        deaths += 1
                        if deaths > 2 * workers:
                            raise DatasetError(
                                "the drawing processes die when they start; is VTK installed and working? "
                                "(pip install 'dream3d[train]')"
                            )
                    else:
                        lost[worker.asset.key] = HUNG if time.monotonic() > worker.deadline else CRASHED
                elif isinstance(message, int):
                    assert worker.task is not None
                    worker.asset = worker.task.assets[message]
                    worker.deadline = time.monotonic() + bounds.seconds
                elif isinstance(message, str):
                    raise DatasetError(message)
                else:
                    progress.drawn, progress.skipped = progress.drawn + message[0], progress.skipped + message[1]
                    worker.task = worker.asset = None
                    report(progress.drawn, progress.skipped)
    finally:
        for worker in pool:
            _end(worker)


START_SECONDS = 300.0
"""For a process to import its libraries and open a window, on a busy machine."""


def _start(folder: Path, recipe: ViewsRecipe, bounds: Bounds) -> _Worker:
    context = multiprocessing.get_context("spawn")  # a forked process would share the parent's OpenGL and threads
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, folder, recipe, bounds), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _give(worker: _Worker, task: ShardTask, lost: dict[str, str], bounds: Bounds) -> None:
    worker.task, worker.asset = task, None
    worker.deadline = time.monotonic() + START_SECONDS + bounds.seconds
    with contextlib.suppress(OSError):  # it may be dead; the next look at it says so
        worker.pipe.send((task, {a.key: lost[a.key] for a in task.assets if a.key in lost}))


def _ready(pool: Sequence[_Worker]) -> Iterator[_Worker]:
    """Workers that have something to say, are dead, or are too late."""
    busy = [worker for worker in pool if worker.task]
    now = time.monotonic()
    patience = max(0.0, min(worker.deadline for worker in busy) - now)
    heard = wait([worker.pipe for worker in busy], timeout=patience)
    now = time.monotonic()
    return iter([worker for worker in busy if worker.pipe in heard or now > worker.deadline])


def _receive(worker: _Worker) -> Any:
    """The worker's message, or None if it is dead or too late; it is ended then."""
    try:
        if worker.pipe.poll():
            return worker.pipe.recv()
    except (EOFError, OSError):
        pass
    _end(worker)
    return None


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.process.close()
    worker.pipe.close()


def _work(pipe: Connection, folder: Path, recipe: ViewsRecipe, bounds: Bounds) -> None:
    """A drawing process: shards in; the index of each asset as it begins, then (drawn, skipped), out."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it ends this process
    scene = OffscreenScene(recipe.size)
    _bound_memory(bounds.memory_bytes)
    while True:
        try:
            task, lost = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(_draw_shard(task, lost, folder, recipe, scene, bounds, pipe.send))
        except OSError as error:
            pipe.send(f"{task.shard(folder)} cannot be written ({error.strerror or error}); free some space or choose"
                      " another --out")  # fmt: skip


def _bound_memory(allowance: int) -> None:
    """Limit this process's address space; where the system cannot, the time limit alone holds."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + allowance
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    except (ImportError, OSError, ValueError):
        pass


def _draw_shard(
    task: ShardTask,
    lost: dict[str, str],
    folder: Path,
    recipe: ViewsRecipe,
    scene: OffscreenScene,
    bounds: Bounds,
    begin: Callable[[int], None],
) -> tuple[int, int]:
    drawn, skipped, members = list[dict[str, str]](), list[dict[str, str]](), list[tuple[str, bytes]]()
    for index, asset in enumerate(task.assets):
        begin(index)
        reason = lost.get(asset.key, "")
        if not reason:
            try:
                members += draw(asset, task.split, recipe, scene, bounds.limits).members()
            except DatasetError as error:
                reason = str(error)
            except MemoryError:
                reason = f"it needs more than {bounds.memory_bytes // 2**20} MiB of memory"
            except Exception as error:  # one asset must not end the others
                reason = f"it cannot be drawn ({type(error).__name__}: {str(error)[:100]})"
        scene.clear()
        if reason:
            path = f"{asset.path.name}/{asset.member}" if asset.member else asset.path.name
            skipped.append({"key": asset.key, "path": path, "reason": " ".join(reason.split())})
        else:
            facts = {"name": asset.name, "key": asset.key, "author": asset.author, "licence": asset.licence}
            drawn.append(facts | {"source": asset.source})
    if drawn:
        write_tar(task.shard(folder), members)
    text = json.dumps({"drawn": drawn, "skipped": skipped}, ensure_ascii=False, indent=1)
    write_atomically(task.record(folder), lambda file: file.write_text(text, encoding="utf-8"))
    return len(drawn), len(skipped)
