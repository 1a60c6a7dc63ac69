"""A prior folder to start a training from scratch on other latents: a linear codec fitted to data.

python codec.py data/games data/things --images data/emoji --patch 8 --channels 48 --out start

Text encoder, tokenizer and schedule are those of `--start`; the network in the folder is a placeholder with random
weights, which a recipe's [network] replaces. It prints what the codec itself loses.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dream3d.dataset.records import Split
from dream3d.dataset.shards import read_images, read_objects, shards
from dream3d.prior.folder import read_settings
from dream3d.prior.patch_pca import PatchPCA, fit_patch_pca, save_patch_pca
from dream3d.prior.schema import read_json
from dream3d.prior.unet import MultiViewUNet
from dream3d.training.data import over_background
from dream3d.training.start import find_start, write_prior

PER_OBJECT = 8
"""Views of an object that the codec is fitted to."""


def pictures(
    views: Sequence[Path], images: Sequence[Path], split: Split, background: Sequence[float]
) -> Iterator[Tensor]:
    """Batches (B, 3, S, S) in [-1, 1]: some views of each object, and all images (in training alone)."""
    for path in (path for folder in views for path in shards(folder, split)):
        for item in read_objects(path):
            flat = item.rgba.reshape(-1, *item.rgba.shape[2:])
            some = flat[np.linspace(0, len(flat) - 1, min(PER_OBJECT, len(flat))).astype(int)]
            yield torch.from_numpy(over_background(some, np.array(background))).movedim(-1, 1)
    for path in (path for folder in images if split == "train" for path in shards(folder, "images")):
        for image in read_images(path):
            yield torch.from_numpy(image.rgb.astype(np.float32) / 127.5 - 1).movedim(-1, 0)[None]


@torch.no_grad()
def error(codec: PatchPCA, batches: Iterator[Tensor]) -> float:
    """Mean squared error of pixels in [-1, 1] after encoding and decoding."""
    return float(torch.cat([(codec.decode(codec.encode(x)) - x).square().mean((1, 2, 3)) for x in batches]).mean())


def write_start(out: Path, start: Path, codec: PatchPCA) -> None:
    """A complete prior folder with the codec, the rest of a start, and a network that has learnt nothing."""
    frozen, channels = out.with_name(f".{out.name}-frozen"), codec.channels
    shutil.rmtree(frozen, ignore_errors=True)
    find_start(str(start)).freeze(frozen)
    save_patch_pca(codec, frozen / "codec")
    width = read_json(start / "unet" / "config.json")["cross_attention_dim"]
    network = MultiViewUNet(
        sample_size=read_settings(frozen).image_size // codec.patch_size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(32,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        layers_per_block=1,
        attention_head_dim=1,
        cross_attention_dim=width,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=16,
    )
    facts = read_json(frozen / "prior.json") | {"latent_size": network.config.sample_size, "names": []}
    write_prior(out, frozen, network, facts, "")
    shutil.rmtree(frozen)


def main() -> None:
    """Read the command line, fit, write, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("views", type=Path, nargs="+", help="folders of multi-view shards")
    parser.add_argument("--images", type=Path, action="append", default=[], help="folder of image shards")
    parser.add_argument("--patch", type=int, required=True)
    parser.add_argument("--channels", type=int, required=True)
    parser.add_argument("--start", default="mini", help="name or folder of a prior")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    start = find_start(args.start).folder
    background = read_settings(start).background
    codec = fit_patch_pca(pictures(args.views, args.images, "train", background), args.patch, args.channels)
    write_start(args.out, start, codec)
    lost = error(codec, pictures(args.views, [], "heldout", background))
    print(f"{args.out}: on held-out objects the codec loses {lost:.5f} ({10 * np.log10(4 / lost):.1f} dB)")


if __name__ == "__main__":
    main()
