"""A data set from assets: the plan of its shards, what is still missing of them, and the lists beside them."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from dream3d.bounds import Between, Options
from dream3d.dataset.records import ATTRIBUTION, SPLITS, SourceAsset
from dream3d.dataset.rendering.views import ViewsRecipe, split_of
from dream3d.dataset.rendering.workers import Bounds, ShardTask, render_shards
from dream3d.errors import DatasetError, UsageError
from dream3d.files import json_table, read_regular, write_json, write_text
from dream3d.version import __version__

SKIPPED = ("key", "path", "reason")
MAX_SETTINGS_BYTES = 2**20


@dataclass(frozen=True)
class DatasetPlan(Options):
    """Which objects go where."""

    heldout: Annotated[float, Between(0, 1, below=True)] = 0.1
    """Share of the objects that is not trained on."""
    unseen: tuple[str, ...] = ()
    """Concepts of which no object is trained on."""
    objects_per_shard: Annotated[int, Between(1, 10_000)] = 16


@dataclass(frozen=True)
class RenderSummary:
    """What a data set holds."""

    rendered: int
    skipped: int
    shards_new: int
    """RenderedObject by this call; the others were there."""


def plan_shards(assets: Iterable[SourceAsset], seed: int, plan: DatasetPlan) -> list[ShardTask]:
    """The shards of a data set; the same for any order of the assets."""
    ordered = sorted(assets, key=lambda asset: asset.key)
    tasks = []
    for split in SPLITS:
        some = [asset for asset in ordered if split_of(asset, seed, plan.heldout, plan.unseen) == split]
        for number, start in enumerate(range(0, len(some), plan.objects_per_shard)):
            tasks.append(ShardTask(split, number, tuple(some[start : start + plan.objects_per_shard])))
    return tasks


def render_dataset(
    assets: Sequence[SourceAsset],
    folder: Path,
    recipe: ViewsRecipe,
    plan: DatasetPlan,
    *,
    workers: int = 1,
    bounds: Bounds | None = None,
    report: Callable[[int, int, int], None] = lambda done, total, skipped: None,
) -> RenderSummary:
    """Render what is missing of a data set, and write its lists. ``report``: assets done, of how many, skipped.

    Raises :class:`UsageError` if the folder holds a data set with other settings or assets, :class:`DatasetError`
    if not one asset could be rendered.
    """
    if workers < 1:
        raise UsageError(f"there must be at least one worker, got {workers}")
    if importlib.util.find_spec("vtkmodules") is None:
        raise UsageError("drawing needs VTK, which is not installed; run: pip install 'dream3d[train]'")
    settings = _settings(assets, recipe, plan)
    _claim(folder, settings)
    tasks = plan_shards(assets, recipe.seed, plan)
    missing = [task for task in tasks if not task.is_done(folder)]
    done = [task.read_record(folder) for task in tasks if task not in missing]
    old_rendered, old_skipped = (sum(len(record[kind]) for record in done) for kind in ("drawn", "skipped"))

    def tell(rendered: int, skipped: int) -> None:
        report(old_rendered + old_skipped + rendered + skipped, len(assets), old_skipped + skipped)

    if missing:
        render_shards(missing, folder, recipe, min(workers, len(missing)), bounds or Bounds(), tell)
    counts = dict.fromkeys(SPLITS, 0)
    rendered, skipped = list[dict[str, str]](), list[dict[str, str]]()
    for task in tasks:
        record = task.read_record(folder)
        counts[task.split] += len(record["drawn"])
        rendered += record["drawn"]
        skipped += record["skipped"]
    _write_csv(folder / "attribution.csv", ATTRIBUTION, rendered)
    _write_csv(folder / "skipped.csv", SKIPPED, skipped)
    write_json(folder / "dataset.json", settings | {"objects": counts, "skipped": len(skipped)})
    if not rendered:
        raise DatasetError(f"not one of {len(assets)} assets could be drawn; {folder / 'skipped.csv'} says why")
    return RenderSummary(len(rendered), len(skipped), len(missing))


def _settings(assets: Sequence[SourceAsset], recipe: ViewsRecipe, plan: DatasetPlan) -> dict[str, Any]:
    """What must be the same in a later call; json values only."""
    digest = hashlib.sha256()
    for asset in sorted(assets, key=lambda asset: asset.key):
        size = asset.path.stat().st_size if asset.path.is_file() else 0
        facts = asdict(asset) | {"path": asset.path.name, "bytes": size}
        digest.update(json.dumps(facts, sort_keys=True).encode())
    settings = {"version": __version__, "recipe": asdict(recipe), "plan": asdict(plan), "assets": digest.hexdigest()}
    return json.loads(json.dumps(settings))


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings into a new folder, or compare them with those that are there."""
    file, advice = folder / "dataset.json", "; choose another --out"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        old = json_table(read_regular(file, MAX_SETTINGS_BYTES), file, UsageError, advice) if file.exists() else None
    except OSError as error:
        raise UsageError(f"{file} cannot be read or written ({error}){advice}") from error
    if old is None:
        if any(folder.glob("*.tar")):
            raise UsageError(f"{folder} holds shards but no dataset.json; choose another --out")
        write_json(file, settings)
        return
    for part, value in settings.items():
        if part != "version" and old.get(part) != value:
            was: Any = old.get(part)
            both = isinstance(was, dict) and isinstance(value, dict)
            names = [name for name in value if was.get(name) != value[name]] if both else []
            what = ", ".join(f"{n} {was.get(n)!r}, now {value[n]!r}" for n in names) or f"other {part}"
            raise UsageError(f"{folder} was begun with different settings ({what}); use the same, or another --out")


def _write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[dict[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
