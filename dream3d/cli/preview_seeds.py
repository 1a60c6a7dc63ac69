"""``generate --preview-seeds``: sample a few seeds in 2D, rank them, and spend the 3D run on the best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dream3d.cli.group import say

if TYPE_CHECKING:
    from dream3d.evaluation.ranking import Ranked
    from dream3d.prior.diffusion import DiffusionPrior
    from dream3d.retrieval.run_pictures import Guides

SHEET_NAME = "seeds.png"


def rank_seeds(
    prior: DiffusionPrior,
    prompt: str,
    negative: str,
    seeds: Iterable[int],
    *,
    quiet: bool,
    guides: Guides | None = None,
) -> list[Ranked]:
    """The seeds with their sampled views, best first; a line on stdout for each unless ``quiet``."""
    from dream3d.cameras import orbit
    from dream3d.evaluation.consistency import cross_view_consistency
    from dream3d.evaluation.ranking import Ranked, rank, text_similarity
    from dream3d.prior.sampling import sample_views, sampling_for
    from dream3d.retrieval.run_pictures import guided

    cameras, recipe = orbit(prior.views), sampling_for(prior.recommended_preset)
    text = prior.encode_prompt(prior.with_suffix(prompt), negative)
    candidates = []
    for seed in seeds:
        told, _ = guided(prior, text, guides, seed, cameras, recipe)
        images = sample_views(prior, told, cameras, recipe, seed)
        consistency = cross_view_consistency(images, cameras)
        similarity = text_similarity(prior, images, cameras, told)
        candidates.append(Ranked(seed, images, consistency, similarity))
        if not quiet:
            say(f"seed {seed}: views agree to {consistency:.3f}, text similarity {similarity:+.4f}")
    return rank(candidates)


def write_sheet(run_dir: Path, prompt: str, ranked: Sequence[Ranked]) -> None:
    """Writes :data:`SHEET_NAME` into the run folder, beside one that is there: one row per seed, in the given order."""
    from dream3d.cli.views import SHEET_SIDE
    from dream3d.images import contact_sheet, enlarged, to_uint8, write_png
    from dream3d.names import free_path

    run_dir.mkdir(parents=True, exist_ok=True)
    rows = [enlarged(to_uint8(candidate.pictures.movedim(1, -1)), SHEET_SIDE) for candidate in ranked]
    made_by = {"prompt": prompt, "seeds": [candidate.seed for candidate in ranked]}
    write_png(free_path(run_dir / SHEET_NAME), contact_sheet(rows), made_by)
