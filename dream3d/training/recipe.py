"""How a multi-view prior is trained: plain settings, read from TOML and checked before anything is loaded."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from dream3d.bounds import Between, Seed, Settings, Share
from dream3d.errors import UsageError
from dream3d.prior.layout import AttentionKind
from dream3d.recipe.settings import apply_change, parse_settings
from dream3d.training.decoder_recipe import DecoderRecipe
from dream3d.training.retrieval_recipe import RetrievalRecipe

Precision = Literal["fp32", "bf16", "fp16"]
Products = Literal["auto", "on", "winograd", "off"]
Weighting = Literal["none", "min_snr"]
TaskName = Literal["multiview", "retrieval", "joint", "decoder"]

MAX_BATCH = 16_384
"""Images in a step."""
Steps = Annotated[int, Between(1, 10_000_000)]
StepsOrNone = Annotated[int, Between(0, 1_000_000_000)]
Positive = Annotated[float, Between(0, 1e9, above=True)]


@dataclass(frozen=True)
class DataRecipe(Settings):
    """What is learnt from; folders are relative to the working folder."""

    views: str | tuple[str, ...] = ""
    """Folder of multi-view shards (``train-00000.tar``, ``heldout-00000.tar``), or a list of folders."""
    shares: tuple[Positive, ...] = ()
    """How often objects of each folder of ``views`` are drawn, relative to each other; if empty, all objects are
    drawn equally often, wherever they lie."""
    images: str | tuple[str, ...] = ""
    """Folder of image shards (``images-00000.tar``) for the image mode, or a list; empty for none."""
    background: tuple[Share, Share, Share] | Literal["grey"] = "grey"
    """Colour behind the objects, sRGB in [0, 1]; "grey" draws a grey level for each object, as the paper does."""
    concepts: tuple[str, ...] = ()
    """Names of the objects to learn from; all of them if empty."""

    @property
    def view_folders(self) -> tuple[Path, ...]:
        """The folders of ``views``."""
        return _folders(self.views)

    @property
    def image_folders(self) -> tuple[Path, ...]:
        """The folders of ``images``."""
        return _folders(self.images)


@dataclass(frozen=True)
class BatchRecipe(Settings):
    """What one step sees (in each process)."""

    objects: Annotated[int, Between(1, MAX_BATCH)] = 4
    """Objects in 3D mode."""
    images: Annotated[int, Between(1, MAX_BATCH)] = 16
    """Images in image mode."""
    views: Annotated[int, Between(1, 64)] = 4
    """Views of an object, which are attended together."""
    image_mode_fraction: Share = 0.3
    """Share of the steps in image mode; they need ``data.images``."""
    caption_dropout: Share = 0.1
    """Share of captions replaced by the empty one, which classifier-free guidance needs."""
    prompt_suffix: str = ", 3d asset"
    """Added to captions of objects that do not say "3d"; see ``DiffusionPrior.with_suffix``."""


@dataclass(frozen=True)
class OptimizerRecipe(Settings):
    """AdamW, its rate and the moving average of the weights."""

    rate: Annotated[float, Between(0, 10, above=True)] = 1e-4
    warmup: StepsOrNone = 100
    """Steps of a linear rise, which is multiplied with half a cosine that falls to zero."""
    cosine: StepsOrNone = 0
    """Steps until that zero; 0 is the run's last step. Later than that, and a second run can go on from the rate."""
    weight_decay: Annotated[float, Between(0, 1000)] = 0.01
    clip: Positive = 1.0
    """Largest norm of the gradient."""
    ema: Share = 0.999
    """Decay of the moving average a step; smaller at first."""


@dataclass(frozen=True)
class LossRecipe(Settings):
    """Which noise levels and channels count how much."""

    tilt: Annotated[float, Between(0, 1000, above=True)] = 1.0
    """Timesteps are T * u^tilt with u uniform: 1 is uniform, less than 1 prefers strong noise."""
    weighting: Weighting = "none"
    """``min_snr``: Hang et al. 2023."""
    gamma: Positive = 5.0
    """Of ``min_snr``."""
    channel_power: Annotated[float, Between(-10, 10)] = 0.0
    """Weights of latent channels: their spread in images to this power (linear codecs only)."""


@dataclass(frozen=True)
class EveryRecipe(Settings):
    """Steps between things that are written; 0 leaves them out until the end."""

    checkpoint: StepsOrNone = 500
    samples: StepsOrNone = 1000
    heldout: StepsOrNone = 500


@dataclass(frozen=True)
class TrainingRecipe(Settings):
    """One training run, whole."""

    name: str = "trained"
    """Of the prior that comes out."""
    start: str = "mini"
    """Catalogue name or folder of a prior, or a Stable Diffusion folder of diffusers."""
    steps: Steps = 1000
    seed: Seed = 0
    image_size: Annotated[int, Between(0, 2048)] = 0
    """Side of the images in pixels; 0 is the start's own (256 for Stable Diffusion)."""
    attention: AttentionKind = "3d"
    precision: Precision = "fp32"
    products: Products = "auto"
    """Faster layers for CPUs. ``on``: those of :mod:`dream3d.training.fast`, ``winograd``: convolutions of
    :mod:`dream3d.prior.winograd`; ``auto``: the first on CPUs that have bf16 products, the second on others."""
    sample_prompts: tuple[str, ...] = ()
    """Of the sheets of samples; if empty, the first names of the data."""
    data: DataRecipe = DataRecipe()
    batch: BatchRecipe = BatchRecipe()
    optimizer: OptimizerRecipe = OptimizerRecipe()
    loss: LossRecipe = LossRecipe()
    every: EveryRecipe = EveryRecipe()
    network: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of ``UNet2DConditionModel`` for a network from scratch; empty to go on with the start's."""
    task: TaskName = "multiview"
    """``multiview`` trains the network, ``retrieval`` an image adapter for the start, whose network is frozen,
    ``joint`` both together, and ``decoder`` a decoder for a start with a linear codec."""
    retrieval: RetrievalRecipe = field(default_factory=RetrievalRecipe)
    """Of the tasks ``retrieval`` and ``joint``."""
    decoder: DecoderRecipe = field(default_factory=DecoderRecipe)
    """Of the task ``decoder``."""

    def __post_init__(self) -> None:
        """See :class:`Settings`; raises UsageError too for settings that do not go together."""
        super().__post_init__()
        data, batch, optimizer = self.data, self.batch, self.optimizer
        if batch.objects * batch.views > MAX_BATCH:
            raise UsageError(
                f"batch.objects x batch.views is {batch.objects} x {batch.views}; a step has at most {MAX_BATCH} images"
            )
        if not data.views:
            raise UsageError("the recipe names no data; set data.views to a folder of shards")
        if data.shares and len(data.shares) != len(data.view_folders):
            raise UsageError(
                f"data.shares has {len(data.shares)} numbers for {len(data.view_folders)} folders of data.views; "
                "give one for each folder"
            )
        if self.network and self.task != "multiview":
            raise UsageError(f'task = "{self.task}" goes on with a prior that is there; leave [network] out')
        if self.task in ("retrieval", "joint"):
            self._check_retrieval()
        if self.task in ("multiview", "joint") and batch.image_mode_fraction and not data.images:
            raise UsageError(
                f"batch.image_mode_fraction is {batch.image_mode_fraction} and data.images is empty; "
                "name a folder of image shards, or set the fraction to 0"
            )
        if 0 < optimizer.cosine < self.steps:
            raise UsageError(
                f"optimizer.cosine is {optimizer.cosine} and the run has {self.steps} steps: nothing would be learnt "
                "after the rate is zero; use a larger number, or 0"
            )
        if self.products == "on" and (self.attention == "temporal" or self.precision != "fp32"):
            raise UsageError(
                f'products = "on" does not go with attention "{self.attention}" and precision "{self.precision}"; '
                'it needs "3d" or "2d", and "fp32"'
            )
        if self.products == "winograd" and self.precision != "fp32":
            raise UsageError(f'products = "winograd" does not go with precision "{self.precision}"; it needs "fp32"')

    def _check_retrieval(self) -> None:
        if self.retrieval.modes != "3d" and not self.data.images:
            raise UsageError(
                f'retrieval.modes is "{self.retrieval.modes}" and data.images is empty; name a folder of image shards, '
                'or set it to "3d"'
            )

    @property
    def uses_images(self) -> bool:
        """Whether images without cameras are among the data."""
        if self.task == "retrieval":
            return self.retrieval.modes != "3d"
        return self.task in ("multiview", "joint") and self.batch.image_mode_fraction > 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for json."""
        return dataclasses.asdict(self)


def read_recipe(path: Path, changes: Sequence[str] = ()) -> TrainingRecipe:
    """The recipe of a TOML file with changes like ``optimizer.rate=1e-4``; UsageError says what is wrong."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"the recipe {path} cannot be read ({error.strerror}); give a TOML file") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the recipe {path} is not valid TOML: {error}") from error
    for change in changes:
        apply_change(data, change)
    return parse_recipe(data)


def parse_recipe(data: Mapping[str, Any]) -> TrainingRecipe:
    """A recipe from nested tables; UsageError for unknown keys (with the known ones) and for wrong types."""
    return parse_settings(TrainingRecipe, data)


def _folders(value: str | tuple[str, ...]) -> tuple[Path, ...]:
    return tuple(Path(folder) for folder in ((value,) if isinstance(value, str) else value) if folder)
