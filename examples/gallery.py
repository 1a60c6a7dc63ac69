"""The README's gallery: what a batch made of a list, beside what the prior drew, in one picture.

    dream3d batch prompts/gallery.txt --out-dir runs/gallery --workers 2
    python examples/gallery.py prompts/gallery.txt --batch runs/gallery --out docs/images/gallery.png

Each prompt has two rows: the prior's own four views, sampled with seed 0, and the exported file, read back: front, left
side, back, right side.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dream3d.batch.jobs import plan
from dream3d.batch.places import LocalPlace
from dream3d.batch.prompts import read_lists
from dream3d.cameras import orbit
from dream3d.images import Picture, to_uint8
from dream3d.mesh.reading import read_asset
from dream3d.mesh.shading import shade
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.sampling import sample_views, sampling_for
from dream3d.weights.loading import load_prior

VIEW = 96
"""Side of one view, pixels."""
LABEL = 18
"""Height of the line of text over the views, pixels."""


def draw(prompt: str, mesh_path: Path, prior: DiffusionPrior) -> Picture:
    """A labelled cell: four views as the prior samples them, and below them four of the exported GLB."""
    asset, cameras = read_asset(mesh_path), orbit(4)
    faces = np.asarray(asset.faces, np.int64)
    meshes = shade(asset.vertices, faces, asset.appearance, cameras, VIEW, VIEW, supersample=2)
    text = prior.encode_prompt(prior.with_suffix(prompt), "")
    sampled = sample_views(prior, text, cameras, sampling_for(prior.recommended_preset), seed=0)
    cell = Image.new("RGB", (4 * VIEW, 2 * VIEW + LABEL), "white")
    ImageDraw.Draw(cell).text((4, 2), prompt, fill="black", font=ImageFont.load_default(12))
    for row, views in enumerate([to_uint8(sampled.movedim(1, -1)), meshes]):
        for column, view in enumerate(views):
            picture = Image.fromarray(view).resize((VIEW, VIEW), Image.Resampling.BICUBIC)
            cell.paste(picture, (column * VIEW, LABEL + row * VIEW))
    return np.asarray(cell)


def figures_of(folder: Path) -> dict[str, Any]:
    """The results in a run's ``run.json``, with the mesh's name for its place."""
    result: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8")).get("result", {})
    return {**result, "mesh": Path(result.get("mesh", "")).name}


def main() -> None:
    """Draw the jobs of a list that are finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--batch", type=Path, required=True, help="folder that dream3d batch wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prior", default="mini", help="as it was given to dream3d batch")
    parser.add_argument("--columns", type=int, default=3)
    arguments = parser.parse_args()
    prior = load_prior(arguments.prior)
    jobs, _ = plan(read_lists([arguments.prompts]), [0], {}, prior.digest)
    done = [job for job in jobs if job.result(LocalPlace(arguments.batch)) is not None]
    if not done:
        raise SystemExit(f"{arguments.batch} holds no finished asset of {arguments.prompts} as it stands")
    cells = [draw(job.prompt, arguments.batch / job.mesh, prior) for job in done]
    figures = {job.prompt: figures_of(arguments.batch / job.run) for job in done}
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % arguments.columns)
    rows = [np.concatenate(cells[i : i + arguments.columns], 1) for i in range(0, len(cells), arguments.columns)]
    iio.imwrite(arguments.out, np.concatenate(rows))
    arguments.out.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
