"""Several generations in one process: memory should stay where it was after the first.

python examples/soak.py --times 3 --steps 20
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from dataclasses import replace
from pathlib import Path

from dream3d.generate import generate
from dream3d.recipe.generation import MeshRecipe
from dream3d.recipe.presets import preset
from dream3d.weights.loading import load_prior

PROMPTS = ("a christmas tree", "a wooden chair", "an elk skull")


def resident_bytes() -> int:
    """Resident size of this process, from Linux's /proc."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this system does not tell a process's resident size")


def main() -> None:
    """Read the command line; exit with 1 if memory grew by more than the limit after the first generation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--steps", type=int, help="the preset's by default")
    parser.add_argument("--resolution", type=int, help="of the mesh grid; the preset's by default")
    parser.add_argument("--limit", type=float, default=0.05, help="of growth since the first generation, as a share")
    args = parser.parse_args()
    prior = load_prior("mini")
    recipe = preset(prior.recommended_preset)
    recipe = recipe.with_steps(args.steps or recipe.steps)
    recipe = replace(recipe, mesh=MeshRecipe(resolution=args.resolution or recipe.mesh.resolution))
    sizes = []
    with tempfile.TemporaryDirectory() as name:
        for number in range(args.times):
            folder, prompt = Path(name) / str(number), PROMPTS[number % len(PROMPTS)]
            out = folder / "mesh.glb"
            generate(prompt, prior=prior, recipe=recipe, seed=0, device="cpu", out=out, run_dir=folder / "run")
            gc.collect()
            sizes.append(resident_bytes())
            print(f"after {number + 1}: {sizes[-1] / 1e6:.0f} MB ({prompt})", flush=True)
    growth = sizes[-1] / sizes[0] - 1
    print(f"growth since the first: {growth:+.1%}")
    raise SystemExit(growth > args.limit)


if __name__ == "__main__":
    main()
