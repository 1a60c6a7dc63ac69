"""Loops over triangles and over samples of rays, compiled by numba: a tenth of the time of array operations.

Every sum is taken in the order of the array operations that the tests compare them with, so that not a bit differs.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dream3d.kernels.compiled import compiled

NEAREST = 1e-4
"""Triangles with a corner closer to the camera plane than this (world units), or behind it, are not drawn."""
EDGE_TOLERANCE = 1e-9
"""Barycentric slack, so that a pixel centre on the edge of two triangles cannot fall between them."""
SMALLEST_AREA = 1e-12
"""Twice the area, in square pixels, up to which a triangle is a line."""


@compiled
def cover(
    corners: NDArray[np.float64],
    corner_z: NDArray[np.float64],
    faces: NDArray[np.int64],
    nearest: bool,
    z_buffer: NDArray[np.float64],
    owner: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> None:
    """Fill in the face that each pixel sees: the ``nearest`` one, else the first; of equally near ones the first.

    ``corners`` (V, 2) are image positions of vertices, column and row, and ``corner_z`` (V,) their depths; ``faces``
    (F, 3). ``z_buffer`` (H, W) has infinities, ``owner`` (H, W) -1 where nothing is drawn yet; ``weights`` (H, W, 3)
    become perspective-correct. Pixel (row, column) has its centre at (row + 0.5, column + 0.5).
    """
    height, width = z_buffer.shape
    for face in range(len(faces)):
        a, b, c = faces[face]
        z_a, z_b, z_c = corner_z[a], corner_z[b], corner_z[c]
        if not (z_a > NEAREST and z_b > NEAREST and z_c > NEAREST):
            continue
        left, top = corners[a, 0], corners[a, 1]
        x_b, y_b, x_c, y_c = corners[b, 0] - left, corners[b, 1] - top, corners[c, 0] - left, corners[c, 1] - top
        area = x_b * y_c - y_b * x_c
        if not abs(area) > SMALLEST_AREA:
            continue
        x_low, x_high = min(left, corners[b, 0], corners[c, 0]), max(left, corners[b, 0], corners[c, 0])
        y_low, y_high = min(top, corners[b, 1], corners[c, 1]), max(top, corners[b, 1], corners[c, 1])
        first, last = int(max(math.ceil(x_low - 0.5), 0)), int(min(math.floor(x_high - 0.5), width - 1))
        upper, lower = int(max(math.ceil(y_low - 0.5), 0)), int(min(math.floor(y_high - 0.5), height - 1))
        for row in range(upper, lower + 1):
            y = row + 0.5 - top
            for column in range(first, last + 1):
                x = column + 0.5 - left
                weight_b = (x * y_c - y * x_c) / area
                weight_c = (y * x_b - x * y_b) / area
                weight_a = 1 - weight_b - weight_c
                if weight_a < -EDGE_TOLERANCE or weight_b < -EDGE_TOLERANCE or weight_c < -EDGE_TOLERANCE:
                    continue
                # 1 / z is linear on the image, z is not: divide by z, interpolate, and divide back.
                over_a, over_b, over_c = weight_a / z_a, weight_b / z_b, weight_c / z_c
                inverse_z = over_a + over_b + over_c
                z = 1 / inverse_z
                if (z < z_buffer[row, column]) if nearest else (owner[row, column] < 0):
                    z_buffer[row, column], owner[row, column] = z, face
                    weights[row, column, 0] = over_a / inverse_z
                    weights[row, column, 1] = over_b / inverse_z
                    weights[row, column, 2] = over_c / inverse_z


@compiled
def largest_along(
    grid: NDArray[np.float32],
    rays_o: NDArray[np.float32],
    rays_d: NDArray[np.float32],
    distance: NDArray[np.float32],
    peaks: NDArray[np.float32],
) -> None:
    """Fill in the largest value (N,) of a grid at points on rays, trilinear as torch's ``grid_sample``.

    ``grid`` (X, Y, Z) is on the corners of the cube [-1, 1]^3, and goes on beyond it; ``rays_o`` and ``rays_d`` (N, 3);
    ``distance`` (N, S).
    """
    zero, one, half = np.float32(0), np.float32(1), np.float32(0.5)  # a plain number would make them float64
    last_x, last_y, last_z = np.float32(grid.shape[0] - 1), np.float32(grid.shape[1] - 1), np.float32(grid.shape[2] - 1)
    for ray in range(len(distance)):
        o_x, o_y, o_z = rays_o[ray]
        d_x, d_y, d_z = rays_d[ray]
        peak = np.float32(-np.inf)
        for sample in range(distance.shape[1]):
            d = distance[ray, sample]
            x = min(last_x, max(zero, (o_x + d * d_x + one) * half * last_x))
            y = min(last_y, max(zero, (o_y + d * d_y + one) * half * last_y))
            z = min(last_z, max(zero, (o_z + d * d_z + one) * half * last_z))
            i, j, k = np.uint32(x), np.uint32(y), np.uint32(z)
            x_1, y_1, z_1 = x - np.float32(i), y - np.float32(j), z - np.float32(k)
            x_0, y_0, z_0 = np.float32(i) + one - x, np.float32(j) + one - y, np.float32(k) + one - z
            # What is further than the last corner has weight 0.
            i_1, j_1, k_1 = (
                np.uint32(min(x + one, last_x)),
                np.uint32(min(y + one, last_y)),
                np.uint32(min(z + one, last_z)),
            )
            # torch's order: its last axis changes fastest, and is the first factor of a weight.
            value = grid[i, j, k] * (z_0 * y_0 * x_0)
            value += grid[i, j, k_1] * (z_1 * y_0 * x_0)
            value += grid[i, j_1, k] * (z_0 * y_1 * x_0)
            value += grid[i, j_1, k_1] * (z_1 * y_1 * x_0)
            value += grid[i_1, j, k] * (z_0 * y_0 * x_1)
            value += grid[i_1, j, k_1] * (z_1 * y_0 * x_1)
            value += grid[i_1, j_1, k] * (z_0 * y_1 * x_1)
            value += grid[i_1, j_1, k_1] * (z_1 * y_1 * x_1)
            peak = max(peak, value)
        peaks[ray] = peak


@compiled
def mix_corners(
    owner: NDArray[np.int64],
    weights: NDArray[np.float32],
    faces: NDArray[np.int64],
    values: NDArray[np.float32],
    mixed: NDArray[np.float32],
) -> None:
    """Fill in the values (P, C) at pixels from those (V, C) of vertices: ``owner`` (P,) faces, ``weights`` (P, 3)."""
    for pixel in range(len(owner)):
        a, b, c = faces[owner[pixel]]
        w_a, w_b, w_c = weights[pixel]
        for channel in range(values.shape[1]):
            mixed[pixel, channel] = w_a * values[a, channel] + w_b * values[b, channel] + w_c * values[c, channel]


@compiled
def look_up(image: NDArray[np.uint8], uv: NDArray[np.float32], colors: NDArray[np.float32]) -> None:
    """Fill in the colours (N, 3), 0..1, of an image (H, W, 3) at (N, 2) places, see :class:`Texture`."""
    height, width, channels = image.shape
    for place in range(len(uv)):
        x = min(max(np.float64(uv[place, 0]) * width - 0.5, 0.0), width - 1.0)
        y = min(max(np.float64(uv[place, 1]) * height - 0.5, 0.0), height - 1.0)
        left, top = int(x), int(y)
        right, below = min(left + 1, width - 1), min(top + 1, height - 1)
        across, down = x - left, y - top
        for channel in range(channels):
            upper = image[top, left, channel] * (1 - across) + image[top, right, channel] * across
            lower = image[below, left, channel] * (1 - across) + image[below, right, channel] * across
            colors[place, channel] = (upper * (1 - down) + lower * down) / 255
