"""Fine-tune the `mini` prior on rendered objects, against a wall-clock deadline, on one CPU core.

    python finetune.py train  --start PRIOR --data data/ --evaluation data-eval/ --out runs/ --minutes 70
    python finetune.py sample --prior PRIOR --out sheet.png --prompts "a car,table"
    python finetune.py losses --prior PRIOR --data data-eval/ --background 0.42 0.56 0.78

The learning rate follows training time over (training time + time left to the deadline), so that a paused process
(SIGSTOP/SIGCONT) still decays to zero when the deadline comes. Snapshots are whole prior folders of the EMA weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from dataset import Objects
from judge import fast_denoiser, losses, sample, save_sheet
from training import SHEET, Options, Training

from dream3d.prior import load_prior

BACKGROUND = (0.42, 0.56, 0.78)
"""Colour behind the objects, sRGB in [0, 1]."""


def train(args: argparse.Namespace) -> None:
    """Train until the deadline."""
    options = vars(args)
    Training(Options(**{name: options[name] for name in Options.__dataclass_fields__})).run()


def sample_command(args: argparse.Namespace) -> None:
    """Write a sheet of samples."""
    prompts = [prompt.strip() for prompt in args.prompts.split(",")]
    prior = load_prior(str(args.prior))
    text = prior.text.encode([*prompts, ""], prior.device)
    views = sample(
        fast_denoiser(prior), text[:-1], text[-1:], seed=args.seed, guidance=args.guidance, elevation=args.elevation
    )
    save_sheet(views, args.out, columns=args.columns)


def losses_command(args: argparse.Namespace) -> None:
    """Print the losses by noise level on all objects, without and with channel weights."""
    data = Objects(args.data, args.background)
    prior = load_prior(str(args.prior))
    text = prior.text.encode([*(item["name"] for item in data.items), ""], prior.device)
    denoiser = fast_denoiser(prior)
    for power in (0.0, 1.0):
        print(power, losses(denoiser, data, text[:-1], denoiser.channel_weights(power), limit=999))


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(function=train)
    parser.add_argument("--start", type=Path, required=True, help="prior folder to start from")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--evaluation", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True, help="until the end, everything included")
    parser.add_argument("--reserve", type=float, default=100, help="seconds kept for the last snapshot")
    parser.add_argument("--every", type=float, default=10, help="minutes between snapshots")
    parser.add_argument("--batch", type=int, default=12, help="objects a step")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=[], help="names that are trained; all by default"
    )
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--warmup", type=int, default=50)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--tilt", type=float, default=0.8, help="t = 1000 u^tilt: below 1 prefers high noise")
    parser.add_argument("--weight-power", type=float, default=1.0)
    parser.add_argument("--background", type=float, nargs=3, default=BACKGROUND)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--seed", type=int, default=0)


def _add_sample(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(function=sample_command)
    parser.add_argument("--prior", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prompts", default=",".join(SHEET))
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--elevation", type=float, default=15.0)
    parser.add_argument("--columns", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)


def _add_losses(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(function=losses_command)
    parser.add_argument("--prior", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--background", type=float, nargs=3, default=BACKGROUND)


def main() -> None:
    """Read the command line and run the command, on one thread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    _add_train(commands.add_parser("train"))
    _add_sample(commands.add_parser("sample"))
    _add_losses(commands.add_parser("losses"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.function(args)


if __name__ == "__main__":
    main()
