"""Several generations in one process: memory should stay where it was after the first.

    python examples/soak.py --times 3 --steps 20

With --damages, another test: the newest checkpoint of a run is damaged at random so many times. Each time that must be
noticed, the one before be used, and the mesh have the bytes of an unbroken run.

    python examples/soak.py --damages 200
"""

from __future__ import annotations

import argparse
import gc
import shutil
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from dream3d.generate import generate, resume
from dream3d.recipe.presets import preset
from dream3d.run.progress import Observer, Progress, silent
from dream3d.weights.loading import load_prior

PROMPTS = ("a christmas tree", "a wooden chair", "an elk skull")


def resident_bytes() -> int:
    """Resident size of this process, from Linux's /proc."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this system does not tell a process's resident size")


def damaged(kind: int, data: bytes, others: list[bytes], rng: np.random.Generator) -> tuple[str, bytes]:
    """What is done to a file, and the file: a bit, a block of zeros, its end, or another file in its place."""
    at, changed = int(rng.integers(len(data))), bytearray(data)
    if kind == 0:
        changed[at] ^= 1 << int(rng.integers(8))
        return f"bit in byte {at}", bytes(changed)
    if kind == 1:
        at = next(
            place for place in (*range(at, len(data)), *range(at)) if data[place]
        )  # zeros for zeros are no damage
        size = int(rng.integers(1, 2**16))
        changed[at : at + size] = bytes(len(changed[at : at + size]))
        return f"{size} zeros from {at}", bytes(changed)
    if kind == 2:
        return f"cut at {at}", data[:at]
    return "another file", others[int(rng.integers(len(others)))]


def stop_after(step: int) -> Observer:
    """An observer that ends a run after a step."""

    def observe(progress: Progress) -> None:
        if (progress.stage, progress.step) == ("optimise", step):
            raise KeyboardInterrupt

    return observe


def damage_checkpoints(count: int, seed: int) -> bool:
    """Prints how many damages were noticed and went well; whether all did."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from kill_and_resume import SMALL, small_pictures
    from tiny_prior import write_tiny_prior

    small_pictures()
    rng, notices, counts = np.random.default_rng(seed), list[str](), [0, 0, 0]
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        prior = load_prior(str(write_tiny_prior(place / "prior")))
        mesh, recipe = place / "a.glb", SMALL.with_steps(6)

        def begin(folder: str, seed: int, observer: Observer) -> Path:
            run, options = place / folder, {"prior": prior, "recipe": recipe, "device": "cpu", "out": mesh}
            with suppress(KeyboardInterrupt):
                generate("a tree", seed=seed, run_dir=run, observer=observer, checkpoint_seconds=1e-9, **options)  # type: ignore[arg-type]
            return run

        begin("whole", 0, silent)
        expected = mesh.read_bytes()
        run = begin("run", 0, stop_after(6))
        other, older, newer = (
            sorted((folder / "checkpoints").iterdir())[index]
            for folder, index in ((begin("other", 1, stop_after(6)), 1), (run, 0), (run, 1))
        )
        good, others = newer.read_bytes(), [other.read_bytes(), older.read_bytes()]
        for number in range(count):
            copy = place / "copy"
            shutil.copytree(run, copy)
            what, data = damaged(number % 4, good, others, rng)
            (copy / newer.relative_to(run)).write_bytes(data)
            begun: list[int] = []

            def observe(progress: Progress, begun: list[int] = begun) -> None:
                if progress.stage == "prepare" and progress.message:
                    notices.append(progress.message)
                if progress.stage == "optimise":
                    begun.append(progress.step)

            notices.clear()
            resume(copy, prior=prior, observer=observe)
            result = (
                newer.name in " ".join(notices),
                begun[0] == int(older.stem[5:]) + 1,
                mesh.read_bytes() == expected,
            )
            counts = [total + one for total, one in zip(counts, result, strict=True)]
            if not all(result):
                print(f"damage {number + 1}, {what}: {result}", flush=True)
            shutil.rmtree(copy)
    print(f"{count} damages: {counts[0]} noticed, {counts[1]} resumed from the one before, {counts[2]} the same bytes")
    return counts == [count] * 3


def main() -> None:
    """Read the command line; exit with 1 if memory grew by more than the limit after the first generation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--steps", type=int, help="the preset's by default")
    parser.add_argument("--resolution", type=int, help="of the mesh grid; the preset's by default")
    parser.add_argument("--small", action="store_true", help="small textures and pictures, for a first look")
    parser.add_argument("--limit", type=float, default=0.05, help="of growth since the first generation, as a share")
    parser.add_argument("--damages", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0, help="of the damages")
    args = parser.parse_args()
    if args.damages:
        raise SystemExit(not damage_checkpoints(args.damages, args.seed))
    prior = load_prior("mini")
    recipe = preset(prior.recommended_preset)
    recipe = recipe.with_steps(args.steps or recipe.steps)
    recipe = replace(recipe, mesh=replace(recipe.mesh, resolution=args.resolution or recipe.mesh.resolution))
    if args.small:
        from kill_and_resume import small_pictures

        small_pictures()
        recipe = replace(recipe, mesh=replace(recipe.mesh, texture=64))
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
