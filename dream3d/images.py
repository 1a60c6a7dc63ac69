"""Images as arrays: to bytes, side by side, contact sheets, PNG files and animations."""

from __future__ import annotations

import errno
import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from dream3d.files import write_atomically

Picture = NDArray[np.uint8]
"""(H, W, 3) sRGB."""


def to_uint8(images: Tensor) -> Picture:
    """Colours in [0, 1] of any shape to sRGB bytes."""
    pixels: Picture = (images.detach().clamp(0, 1) * 255).round().byte().cpu().numpy()
    return pixels


def side_by_side(pictures: Picture) -> Picture:
    """(N, H, W, 3) -> (H, N * W, 3)."""
    return np.concatenate(list(pictures), axis=1)


def enlarged(pictures: Picture, side: int) -> Picture:
    """(..., H, W, 3) with each pixel repeated until a picture's height is ``side`` pixels or just above."""
    factor = max(1, -(-side // pictures.shape[-3]))
    return pictures.repeat(factor, axis=-3).repeat(factor, axis=-2)


def contact_sheet(rows: list[Picture]) -> Picture:
    """A row for each (N, H, W, 3), one under the other, with white lines between the rows."""
    strips = [side_by_side(row) for row in rows]
    line = np.full((2, *strips[0].shape[1:]), 255, np.uint8)
    return np.concatenate([part for strip in strips for part in (line, strip)][1:])


def write_png(path: Path, picture: Picture, made_by: dict[str, Any] | None = None) -> None:
    """Write (H, W, 3) as a PNG, whole or not at all; ``made_by`` goes into its text chunk "dream3d" as JSON."""
    text = PngInfo()
    if made_by is not None:
        text.add_text("dream3d", json.dumps(made_by))
    write_atomically(path, lambda temporary: Image.fromarray(picture).save(temporary, pnginfo=text))


def png_bytes(picture: Picture) -> bytes:
    """A whole PNG of (H, W, 3)."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


def write_animation(path: Path, frames: Picture, frames_per_second: float) -> None:
    """(N, H, W, 3) as an endless GIF or an mp4, by the path's ending; mp4 needs sides of a multiple of 16 pixels.

    An mp4 is read back: OSError if a frame is missing.
    """
    options: dict[str, Any] = {"codec": "libx264", "fps": frames_per_second}
    if path.suffix.lower() == ".gif":
        options = {"duration": 1000 / frames_per_second, "loop": 0}

    def write(temporary: Path) -> None:
        iio.imwrite(temporary, frames, **options)
        if "codec" not in options:
            return
        written = 0
        with suppress(OSError, RuntimeError):  # ffmpeg's own failure, on a full disk for one, raises nothing above
            written, _ = imageio_ffmpeg.count_frames_and_secs(str(temporary))
        if written != len(frames):
            raise OSError(errno.EIO, f"it was written with {written} of {len(frames)} frames", str(path))

    write_atomically(path, write)
