"""The README's gallery: every prompt of a list becomes a mesh, and one picture shows what the prior drew and the mesh.

    python examples/gallery.py prompts/gallery.txt --runs runs/gallery --out docs/images/gallery.png

Prompts that already have a finished run in the folder are not run again, so that several processes can
share the work (``--every 2 --first 0`` and ``--every 2 --first 1``). Each prompt has two rows: the prior's own four
views, sampled with seed 0, and the exported file, read back: front, left side, back, right side.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dream3d.cameras import orbit
from dream3d.generate import generate
from dream3d.mesh.reading import read_asset
from dream3d.mesh.shading import shade
from dream3d.pictures import Picture, to_uint8
from dream3d.prior import load_prior
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.sampling import sample_views, sampling_for
from dream3d.recipe import preset
from dream3d.run import slug

VIEW = 96
"""Side of one view, pixels."""
LABEL = 18
"""Height of the line of text over the views, pixels."""


def read_prompts(path: Path) -> list[str]:
    """The lines of a prompt list, without blank lines and comments."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def run(prompt: str, folder: Path, prior_name: str) -> None:
    """Generate one prompt with seed 0 and the prior's own recipe, unless it is there."""
    if (folder / "run.json").exists():
        return
    prior = load_prior(prior_name)
    recipe = preset(prior.recommended_preset)
    generate(prompt, prior=prior, recipe=recipe, seed=0, device="cpu", out=folder.with_suffix(".glb"), run_dir=folder)


def draw(prompt: str, mesh_path: Path, prior: DiffusionPrior) -> Picture:
    """A labelled cell: four views as the prior samples them, and below them four of the exported GLB."""
    asset, cameras = read_asset(mesh_path), orbit(4)
    meshes = shade(
        asset.vertices, np.asarray(asset.faces, np.int64), asset.vertex_colors, cameras, VIEW, VIEW, supersample=2
    )
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
    """Run the prompts, then draw those that are finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prior", default="mini")
    parser.add_argument("--columns", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="index of the first prompt to run")
    parser.add_argument("--every", type=int, default=1, help="run every n-th prompt")
    arguments = parser.parse_args()
    prompts = read_prompts(arguments.prompts)
    for prompt in prompts[arguments.first :: arguments.every]:
        run(prompt, arguments.runs / slug(prompt), arguments.prior)
    prior = load_prior(arguments.prior)
    strips, figures = [], {}
    for prompt in prompts:
        mesh_path = arguments.runs / f"{slug(prompt)}.glb"
        if mesh_path.exists():
            strips.append(draw(prompt, mesh_path, prior))
            figures[prompt] = figures_of(arguments.runs / slug(prompt))
    strips += [np.full_like(strips[0], 255)] * (-len(strips) % arguments.columns)
    rows = [np.concatenate(strips[i : i + arguments.columns], 1) for i in range(0, len(strips), arguments.columns)]
    iio.imwrite(arguments.out, np.concatenate(rows))
    arguments.out.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
