"""What the configuration files of a prior folder may say: types and bounds, checked before a library builds from them.

Libraries build whatever a file says: negative sizes, or layers without end. Here every argument that a prior may choose
has a rule; any other keeps the library's own value.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dream3d.errors import PriorError, shown
from dream3d.files import json_table, read_regular
from dream3d.prior.layout import ATTENTION_KINDS


@dataclass(frozen=True)
class Rule:
    """What a value must be."""

    accepts: Callable[[Any], bool]
    words: str
    """Completes "not ..."."""


def whole(low: int, high: int) -> Rule:
    """A whole number, both ends included."""
    return Rule(lambda value: type(value) is int and low <= value <= high, f"a whole number from {low} to {high}")


def number(low: float, high: float) -> Rule:
    """A finite number, both ends included."""
    return Rule(lambda value: type(value) in (int, float) and low <= value <= high, f"a number from {low} to {high}")


def text(longest: int) -> Rule:
    """Printable characters on one line."""
    return Rule(
        lambda value: isinstance(value, str) and value.isprintable() and len(value) <= longest,
        f"up to {longest} printable characters",
    )


def sha256() -> Rule:
    """A SHA-256 as it is written, or an empty text."""
    return Rule(
        lambda value: isinstance(value, str) and bool(re.fullmatch("([0-9a-f]{64})?", value)),
        "64 hexadecimal digits",
    )


def one_of(*values: str | int | bool | None) -> Rule:
    """One of a few values."""
    known = [(type(value), value) for value in values]
    return Rule(lambda value: (type(value), value) in known, " or ".join(map(json.dumps, values)))


def each(rule: Rule, shortest: int, longest: int) -> Rule:
    """A list."""

    def accepts(value: Any) -> bool:
        return isinstance(value, list | tuple) and shortest <= len(value) <= longest and all(map(rule.accepts, value))

    return Rule(accepts, f"a list of {shortest} to {longest}, each {rule.words}")


def either(*rules: Rule) -> Rule:
    """What one of the rules accepts."""
    return Rule(lambda value: any(rule.accepts(value) for rule in rules), ", or ".join(rule.words for rule in rules))


Rules = Mapping[str, Rule]
MAX_JSON_BYTES = 16 * 2**20
"""A tokenizer is a few megabytes; anything far beyond is not a configuration."""

YES_NO = one_of(True, False)
LEVELS = 6
WIDTH = whole(1, 8192)
"""Channels of anything."""
FEW = whole(1, 4)
HEADS = whole(1, 256)
_ACTIVATIONS = one_of("silu", "swish", "mish", "gelu", "relu")
_TEXT_ACTIVATIONS = one_of("gelu", "gelu_new", "quick_gelu", "relu", "silu")


def _per_level(rule: Rule) -> Rule:
    return either(rule, each(rule, 1, LEVELS))


SCHEDULE: Rules = {
    "num_train_timesteps": whole(2, 10_000),
    "beta_start": number(1e-8, 0.999),
    "beta_end": number(1e-8, 0.999),
    "beta_schedule": one_of("linear", "scaled_linear", "squaredcos_cap_v2"),
    "trained_betas": either(one_of(None), each(number(1e-8, 0.999), 2, 10_000)),
    "clip_sample": YES_NO,
    "clip_sample_range": number(1e-3, 1e3),
    "set_alpha_to_one": YES_NO,
    "steps_offset": one_of(0, 1),
    "prediction_type": one_of("epsilon", "v_prediction"),
    "thresholding": YES_NO,
    "dynamic_thresholding_ratio": number(0, 1),
    "sample_max_value": number(1e-3, 1e3),
    "timestep_spacing": one_of("leading", "trailing", "linspace"),
    "rescale_betas_zero_snr": YES_NO,
}
UNET: Rules = {
    "sample_size": whole(1, 1024),
    "in_channels": WIDTH,
    "out_channels": WIDTH,
    "center_input_sample": YES_NO,
    "flip_sin_to_cos": YES_NO,
    "freq_shift": one_of(0, 1),
    "down_block_types": each(one_of("DownBlock2D", "CrossAttnDownBlock2D"), 1, LEVELS),
    "mid_block_type": one_of("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None),
    "up_block_types": each(one_of("UpBlock2D", "CrossAttnUpBlock2D"), 1, LEVELS),
    "block_out_channels": each(WIDTH, 1, LEVELS),
    "layers_per_block": _per_level(FEW),
    "transformer_layers_per_block": _per_level(FEW),
    "attention_head_dim": _per_level(HEADS),
    "num_attention_heads": either(one_of(None), _per_level(HEADS)),
    "only_cross_attention": one_of(False),
    "downsample_padding": one_of(0, 1),
    "mid_block_scale_factor": number(1e-3, 1e3),
    "dropout": number(0, 0.9),
    "act_fn": _ACTIVATIONS,
    "norm_num_groups": WIDTH,
    "norm_eps": number(1e-12, 0.1),
    "cross_attention_dim": WIDTH,
    "use_linear_projection": YES_NO,
    "class_embed_type": one_of("projection", None),
    "projection_class_embeddings_input_dim": one_of(16, None),
    "upcast_attention": YES_NO,
    "resnet_time_scale_shift": one_of("default", "scale_shift"),
    "resnet_out_scale_factor": number(1e-3, 1e3),
}
VAE: Rules = {
    "in_channels": one_of(3),
    "out_channels": one_of(3),
    "down_block_types": each(one_of("DownEncoderBlock2D"), 1, LEVELS),
    "up_block_types": each(one_of("UpDecoderBlock2D"), 1, LEVELS),
    "block_out_channels": each(WIDTH, 1, LEVELS),
    "layers_per_block": FEW,
    "act_fn": _ACTIVATIONS,
    "latent_channels": whole(1, 256),
    "norm_num_groups": WIDTH,
    "sample_size": whole(1, 8192),
    "scaling_factor": number(1e-3, 1e3),
    "force_upcast": YES_NO,
    "use_quant_conv": YES_NO,
    "use_post_quant_conv": YES_NO,
    "mid_block_add_attention": YES_NO,
}
PATCH_PCA: Rules = {"patch_size": whole(1, 64), "channels": WIDTH}
DECODER: Rules = {
    "block_out_channels": each(WIDTH, 1, LEVELS + 1),
    "layers_per_block": FEW,
    "norm_num_groups": WIDTH,
    "pixel_shuffle": whole(1, 64),
}
SETTINGS: Rules = {
    "name": text(100),
    "version": whole(0, 10**6),
    "image_size": whole(8, 4096),
    "views": whole(1, 64),
    "text_tokens": whole(2, 1024),
    "background": either(one_of("white"), each(number(0, 1), 3, 3)),
    "recipe": text(100),
    "licence_weights": text(1000),
    "licence_data": text(1000),
    "prompt_suffix": text(100),
    "attention": one_of(*ATTENTION_KINDS),
    "names": each(text(100), 0, 100_000),
    "base": text(4096),
    "base_digest": sha256(),
}
_TEXT: Rules = {
    "vocab_size": whole(1, 1_000_000),
    "hidden_size": WIDTH,
    "intermediate_size": whole(1, 65_536),
    "num_hidden_layers": whole(1, 64),
    "num_attention_heads": HEADS,
    "max_position_embeddings": whole(2, 8192),
    "hidden_act": _TEXT_ACTIVATIONS,
    "layer_norm_eps": number(1e-12, 0.1),
}
CLIP_TEXT: Rules = _TEXT
CLIP_VISION: Rules = {
    **{key: _TEXT[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")},
    **{key: _TEXT[key] for key in ("hidden_act", "layer_norm_eps")},
    "image_size": whole(8, 1024),
    "patch_size": whole(1, 64),
    "num_channels": one_of(3),
}
DINOV2: Rules = {
    **{key: rule for key, rule in CLIP_VISION.items() if key != "intermediate_size"},
    "mlp_ratio": whole(1, 16),
    "qkv_bias": YES_NO,
    "use_swiglu_ffn": YES_NO,
    "layerscale_value": number(1e-9, 1e3),
}
ADAPTER: Rules = {
    "encoder": one_of("contrastive", "clip_vision"),
    "feature_width": WIDTH,
    "positions": whole(0, 4096),
    "dim": WIDTH,
    "depth": whole(1, 32),
    "heads": HEADS,
    "head_dim": whole(1, 256),
    "queries": whole(1, 256),
    "feedforward": whole(1, 16),
    "token_width": WIDTH,
    "padding": each(number(0, 1), 3, 3),
    "weight_sum": number(0, 10),
}
BERT: Rules = {
    **_TEXT,
    "type_vocab_size": whole(1, 16),
    "position_embedding_type": one_of("absolute"),
    "is_decoder": one_of(False),
    "add_cross_attention": one_of(False),
}


def check(value: object, rule: Rule, key: str, path: Path | str) -> Any:
    """The value; :class:`PriorError` naming file, key and value if the rule does not accept it."""
    if not rule.accepts(value):
        raise PriorError(f"{path}: {key!r} is {shown(value)}, not {rule.words}")
    return value


def checked(
    config: Mapping[str, Any], rules: Rules, path: Path | str, kind: type | None = None, needed: Iterable[str] = ()
) -> dict[str, Any]:
    """The entries of a configuration that have a rule; :class:`PriorError` for the first that breaks it.

    Files carry more, such as versions, which is left out. But an argument of the constructor of ``kind`` that has no
    rule must have its default. What is ``needed`` must be there.
    """
    known = inspect.signature(kind).parameters if kind else {}
    for key, value in {**dict.fromkeys(needed), **config}.items():
        if key in rules:
            check(value, rules[key], key, path)
        elif key in known and value != known[key].default:
            raise PriorError(f"{path}: {key!r} is {shown(value)}, which is not supported; leave it out")
    return {key: value for key, value in config.items() if key in rules}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a regular file of bounded size; :class:`PriorError` otherwise."""
    return json_table(read_bounded(path), path, PriorError, "; copy the file again")


def read_bounded(path: Path) -> bytes:
    """What is in a regular file of at most :data:`MAX_JSON_BYTES`; :class:`PriorError` otherwise."""
    try:
        return read_regular(path, MAX_JSON_BYTES)
    except OSError as error:
        reason = f"no file of at most {MAX_JSON_BYTES} bytes that can be read ({error.strerror})"
        raise PriorError(f"{path} is {reason}; copy the file again") from error
