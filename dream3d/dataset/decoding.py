"""Image files as 8-bit RGBA, whatever their depth and mode."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from dream3d.errors import DatasetError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""Decoders that may see an untrusted file; Pillow has others, such as one that starts Ghostscript."""
MAX_SCANS = 100
"""Passes over a progressive JPEG; it has a dozen, and each of a million would cost as much as the first."""
_KEY_SCALE = {"L;2": 85.0, "L;4": 17.0, "RGB;16B": 1 / 256}
"""By Pillow's raw mode: from a PNG's transparent colour to that colour in the pixels as they are decoded."""


@contextlib.contextmanager
def opened(content: Path | IO[bytes], max_pixels: int, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """An image whose header was read; :class:`DatasetError` if it is too large, or damaged, here or when decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata does not spoil the pixels; size is checked here
            with Image.open(content, formats=formats) as image:
                if not 0 < image.width * image.height <= max_pixels:
                    raise DatasetError(f"{image.width} x {image.height} pixels, over the limit of {max_pixels}")
                yield image
    except DatasetError:
        raise
    except UnidentifiedImageError as error:
        raise DatasetError(f"cannot be read (it is none of {', '.join(formats)}, or damaged)") from error
    except Exception as error:  # Pillow raises nearly anything on a damaged file
        raise DatasetError(f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:120]})") from error


def read_rgba(content: bytes, max_pixels: int, formats: tuple[str, ...] = FORMATS) -> NDArray[np.uint8]:
    """Pixels of an image file, (H, W, 4), upright, sRGB, straight alpha; of an animation the first frame.

    Raises :class:`DatasetError` with the reason.
    """
    if content.startswith(b"\xff\xd8") and content.count(b"\xff\xda") > MAX_SCANS:
        raise DatasetError(f"a JPEG of more than {MAX_SCANS} scans")
    with opened(io.BytesIO(content), max_pixels, formats) as image:
        return rgba_of(image, photograph=True)


def rgba_of(image: Image.Image, photograph: bool = False) -> NDArray[np.uint8]:
    """Pixels of an opened image, (H, W, 4), straight alpha; grey of 16 bits is rounded to 8.

    A ``photograph`` is turned upright as its EXIF data says, and its own colour space becomes sRGB. Textures of models
    are taken as they are stored (glTF 2.0, section 3.8.2). Raises what Pillow raises on a damaged file.
    """
    _mend_key(image)
    if photograph:
        with contextlib.suppress(Exception):  # damaged EXIF data; damaged pixels show again below
            image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if photograph and image.info.get("icc_profile"):
        image = _in_srgb(image)
    return np.asarray(image.convert("RGBA"))


def _mend_key(image: Image.Image) -> None:
    """Let a PNG's one transparent colour be that of its decoded pixels: Pillow widens these, and not the colour."""
    key, tile = image.info.get("transparency"), getattr(image, "tile", None)
    scale = _KEY_SCALE.get(tile[0][3]) if tile and isinstance(tile[0][3], str) else None
    if scale and isinstance(key, int):
        image.info["transparency"] = int(key * scale)
    elif scale and isinstance(key, tuple):
        image.info["transparency"] = tuple(int(part * scale) for part in key)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits as grey of 8 with alpha; Pillow's own conversion clips at 255."""
    values, key = np.asarray(image).astype(np.int64), image.info.get("transparency")
    grey = Image.fromarray(((values.clip(0, 65535) + 128) // 257).astype(np.uint8))
    grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    grey.info["icc_profile"] = image.info.get("icc_profile")
    return grey


def _in_srgb(image: Image.Image) -> Image.Image:
    """The image with the colours that its profile means; as it is if that is sRGB, damaged, or of other modes."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        if "sRGB" in ImageCms.getProfileDescription(profile):
            return image
        alpha = image.convert("RGBA").getchannel("A")
        mode = {"LA": "L", "1": "L", "L": "L", "CMYK": "CMYK"}.get(image.mode, "RGB")
        srgb = ImageCms.createProfile("sRGB")
        colors = ImageCms.profileToProfile(image.convert(mode), profile, srgb, outputMode="RGB")
        assert colors is not None  # only with inPlace
        colors.putalpha(alpha)
    except Exception:  # other programs ignore such a profile too
        return image
    return colors
