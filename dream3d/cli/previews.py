"""``generate --preview-seeds``: look at a few seeds in two dimensions, and spend the 3D run on the best."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from dream3d.cli.generate import Request
    from dream3d.evaluation.ranking import Ranked

SHEET_NAME = "seeds.png"


def continue_with_the_best(request: Request, count: int, *, own_run_dir: bool, quiet: bool) -> Request:
    """Sample ``count`` seeds from the request's on, say how they rank, and return the request with the best one.

    The sheet goes into the run folder, the best row first. ``own_run_dir``: the user named the folder, so it stays;
    otherwise it follows the seed.
    """
    from dream3d.run.folder import default_run_dir

    ranked = _ranked(request, count, quiet)
    best = ranked[0]
    if not quiet:
        typer.echo(f"continuing with seed {best.seed}")
    run_dir = request.run_dir if own_run_dir else default_run_dir(request.prompt, best.seed)
    _write_sheet(dataclasses.replace(request, run_dir=run_dir), ranked)
    return dataclasses.replace(request, seed=best.seed, run_dir=run_dir)


def _ranked(request: Request, count: int, quiet: bool) -> list[Ranked]:
    from dream3d.cameras import orbit
    from dream3d.evaluation.consistency import cross_view_consistency
    from dream3d.evaluation.ranking import Ranked, rank, text_similarity
    from dream3d.prior.sampling import sample_views, sampling_for

    prior, cameras = request.prior, orbit(request.prior.views)
    recipe = sampling_for(prior.recommended_preset)
    text = prior.encode_prompt(prior.with_suffix(request.prompt), request.recipe.negative_prompt)
    candidates = []
    for seed in range(request.seed, request.seed + count):
        pictures = sample_views(prior, text, cameras, recipe, seed)
        consistency = cross_view_consistency(pictures, cameras)
        similarity = text_similarity(prior, pictures, cameras, text)
        candidates.append(Ranked(seed, pictures, consistency, similarity))
        if not quiet:
            typer.echo(f"seed {seed}: views agree to {consistency:.3f}, text similarity {similarity:+.4f}")
    return rank(candidates)


def _write_sheet(request: Request, ranked: list[Ranked]) -> None:
    from dream3d.cli.views import SHEET_SIDE
    from dream3d.images import contact_sheet, enlarged, to_uint8, write_png

    request.run_dir.mkdir(parents=True, exist_ok=True)
    rows = [enlarged(to_uint8(candidate.pictures.movedim(1, -1)), SHEET_SIDE) for candidate in ranked]
    made_by = {"prompt": request.prompt, "seeds": [candidate.seed for candidate in ranked]}
    write_png(request.run_dir / SHEET_NAME, contact_sheet(rows), made_by)
