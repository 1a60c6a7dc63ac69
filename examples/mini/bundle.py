"""Pack a trained prior and its image encoder into one folder in eight bits, as it ships in the package.

python bundle.py --prior build/mini/prior --encoder build/encoder --out build/bundle
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from dream3d.files import write_atomically
from dream3d.prior.compact import pack
from dream3d.weights.loading import find_folder

PACKED = (
    "unet/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
    "image_encoder/model.safetensors",
)
OWN_WORKS = ("asset", "procedural assets of dream3d dataset make", "dream3d", "CC0-1.0", "")


def credits(text: str) -> str:
    """Rows of ``attribution.csv`` with one for all made assets, and without pictures, which show the same models."""
    header, *rows = csv.reader(io.StringIO(text))
    author = header.index("author")
    models = [row for row in rows if row[0] != "picture" and row[author] != "dream3d"]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *models, OWN_WORKS])
    return out.getvalue()


def main() -> None:
    """Read the command line, copy, pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", required=True, help="name or folder of the trained prior")
    parser.add_argument("--encoder", type=Path, required=True, help="folder with image_encoder/")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--version", type=int, default=1, help="of the weights, for prior.json")
    parser.add_argument("--licence-data", help="in few words; those of all data by default")
    args = parser.parse_args()
    if args.out.exists():
        parser.error(f"--out {args.out} exists; name a new folder")
    shutil.copytree(find_folder(args.prior), args.out, ignore=shutil.ignore_patterns("image_encoder"))
    shutil.copytree(args.encoder / "image_encoder", args.out / "image_encoder")
    for name in PACKED:
        tensors = pack(load_file(args.out / name))
        write_atomically(args.out / name, lambda path, tensors=tensors: save_file(tensors, path))  # type: ignore[misc]
    facts = json.loads((args.out / "prior.json").read_text(encoding="utf-8"))
    facts = {**facts, "version": args.version, "licence_data": args.licence_data or facts["licence_data"]}
    (args.out / "prior.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    attribution = args.out / "attribution.csv"
    attribution.write_text(credits(attribution.read_text(encoding="utf-8")), encoding="utf-8")
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"{args.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
