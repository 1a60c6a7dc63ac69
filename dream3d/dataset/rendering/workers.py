"""Shards rendered by several processes. A process that dies or hangs costs only the asset it was at."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dream3d.dataset.check.limits import LIMITS, Limits
from dream3d.dataset.records import ATTRIBUTION, SourceAsset, Split
from dream3d.dataset.rendering.scene import OffscreenScene
from dream3d.dataset.rendering.views import ViewsRecipe, render_object
from dream3d.dataset.shards import shard_name, write_tar
from dream3d.errors import DatasetError
from dream3d.files import write_text
from dream3d.processes import Answer, JobFunction, Loss, Say, run_jobs

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
        """Beside the tar file: what was rendered and what was skipped. It is written last, so it means "done"."""
        return self.shard(folder).with_suffix(".json")

    def read_record(self, folder: Path) -> dict[str, Any]:
        """The lists "drawn" and "skipped" of a shard that is done."""
        return json.loads(self.record(folder).read_text(encoding="utf-8"))

    def is_done(self, folder: Path) -> bool:
        """Whether the shard need not be rendered again; a shard of skipped assets alone has no tar file."""
        try:
            rendered = self.read_record(folder)["drawn"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return not rendered or self.shard(folder).is_file()


@dataclass(frozen=True)
class Bounds:
    """What a process may use."""

    seconds: float = 120.0
    """For one asset."""
    memory_bytes: int = 4 * 2**30
    """Address space beyond that of a process which has just started."""
    limits: Limits = LIMITS


def render_shards(
    tasks: Sequence[ShardTask],
    folder: Path,
    recipe: ViewsRecipe,
    workers: int,
    bounds: Bounds,
    report: Callable[[int, int], None],
) -> None:
    """Render shards into a folder; ``report`` is called with (rendered, skipped) assets as shards are done.

    Raises :class:`DatasetError` if a shard cannot be written, or processes die before they come to an asset.
    """
    waiting = deque((task, dict[int, str]()) for task in tasks)
    rendered = skipped = deaths = 0
    prepare = partial(open_renderer, folder, recipe, bounds)
    events = run_jobs(waiting, prepare, workers, silence_seconds=bounds.seconds, memory_bytes=bounds.memory_bytes)
    with contextlib.closing(events):
        for event in events:
            if isinstance(event, Answer):
                if isinstance(event.content, DatasetError):
                    raise event.content
                rendered, skipped = rendered + event.content[0], skipped + event.content[1]
                report(rendered, skipped)
            elif isinstance(event, Loss):  # the shard is rendered again without the asset that it was at
                task, lost = event.job
                if event.last is not None:
                    lost = lost | {event.last: HUNG if event.hung else CRASHED}
                elif (deaths := deaths + 1) > 2 * workers:
                    raise DatasetError(
                        "the drawing processes die when they start; is VTK installed and working? "
                        "(pip install 'dream3d[train]')"
                    )
                waiting.appendleft((task, lost))


def open_renderer(folder: Path, recipe: ViewsRecipe, bounds: Bounds) -> JobFunction:
    """What a rendering process does: shards in; the index of each asset as it begins, then (rendered, skipped), out."""
    scene = OffscreenScene(recipe.size)

    def attempt(asset: SourceAsset, split: Split) -> list[tuple[str, bytes]] | str:
        """What a shard holds of an asset, or the reason why it holds nothing."""
        try:
            return render_object(asset, split, recipe, scene, bounds.limits)
        except DatasetError as error:
            return str(error)
        except MemoryError:
            return f"it needs more than {bounds.memory_bytes // 2**20} MiB of memory"
        except Exception as error:  # one asset must not end the others
            return f"it cannot be drawn ({type(error).__name__}: {str(error)[:100]})"
        finally:
            scene.clear()

    def work(job: tuple[ShardTask, Mapping[int, str]], say: Say) -> tuple[int, int] | DatasetError:
        task, lost = job
        rendered, skipped, members = list[dict[str, str]](), list[dict[str, str]](), list[tuple[str, bytes]]()
        for index, asset in enumerate(task.assets):
            say(index)
            made = lost.get(index) or attempt(asset, task.split)
            if isinstance(made, str):
                path = f"{asset.path.name}/{asset.member}" if asset.member else asset.path.name
                skipped.append({"key": asset.key, "path": path, "reason": " ".join(made.split())})
            else:
                members += made
                rendered.append({column: getattr(asset, column) for column in ATTRIBUTION})
        record = json.dumps({"drawn": rendered, "skipped": skipped}, ensure_ascii=False, indent=1)
        try:
            if rendered:
                write_tar(task.shard(folder), members)
            write_text(task.record(folder), record)
        except OSError as error:
            return DatasetError(
                f"{task.shard(folder)} cannot be written ({error.strerror or error}); free some space or choose"
                " another --out"
            )
        return len(rendered), len(skipped)

    return work
