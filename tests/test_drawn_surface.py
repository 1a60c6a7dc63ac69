"""Views as a function of vertices: the pictures of the shading, and gradients by hand and by differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from numpy.typing import NDArray
from test_mesh_raster import front_camera
from torch import Tensor

from dream3d.cameras import orbit
from dream3d.images import to_uint8
from dream3d.mesh import tangents
from dream3d.mesh.appearance import Texture
from dream3d.mesh.boxmap import box_layout
from dream3d.mesh.drawn_surface import DrawnSurface, frames, vertex_normals, weights_at
from dream3d.mesh.layout import Layout
from dream3d.mesh.outlines import edges_of
from dream3d.mesh.shading import shade
from dream3d.mesh.surface import vertex_normals as reference_normals

WHITE, BLACK = torch.ones(3, 2, 2), torch.zeros(3)


def square(half: float = 1.0) -> tuple[Tensor, DrawnSurface]:
    """In the plane x = 0, facing the front camera, which sees 4 x 4 units."""
    vertices = half * np.array([[0, -1, 1], [0, 1, 1], [0, 1, -1], [0, -1, -1]])
    faces = np.array([[0, 2, 1], [0, 3, 2]])
    layout = Layout(np.arange(4), faces, np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32))
    return torch.tensor(vertices, dtype=torch.float32), DrawnSurface(faces, layout)


def test_every_edge_is_there_once() -> None:
    edges = edges_of(np.array([[0, 2, 1], [0, 3, 2]]))
    assert edges.ends.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [2, 3]]
    assert edges.third.tolist() == [[2, -1], [1, 3], [2, -1], [0, -1], [0, -1]]
    # Three faces at one edge have no two sides.
    fan = edges_of(np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]]))
    assert fan.third[0].tolist() == [2, -1]


@pytest.mark.parametrize("shift", [-0.2, 0.0, 0.3, 0.49, 0.51])
def test_an_outline_covers_its_share_of_a_pixel(shift: float) -> None:
    # 8 pixels on 4 units: half a unit each. The square's right side is at 6 pixels, and moves by a share of one.
    vertices, surface = square()
    moved = vertices.clone()
    moved[1:3, 1] += shift / 2
    picture = surface.draw(moved, WHITE, front_camera(), 8, BLACK, ambient=1.0)[0, 0]
    expected = torch.tensor([0.0, 0, 1, 1, 1, 1 + min(shift, 0), max(shift, 0), 0])
    assert picture[4].tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_gradient_of_an_outline_by_hand() -> None:
    # Four rows of pixels, each half a unit, see the right side: moved by a unit it covers two pixels more in each.
    vertices, surface = square(1.1)
    vertices.requires_grad_(True)
    surface.draw(vertices, WHITE, front_camera(), 8, BLACK, ambient=1.0)[0, 0, 2:6].sum().backward()
    assert vertices.grad is not None
    assert vertices.grad[1:3, 1].sum().item() == pytest.approx(8, abs=1e-4)
    assert vertices.grad[[0, 3], 1].sum().item() == pytest.approx(-8, abs=1e-4)
    # The upper side moves what is above these rows.
    assert vertices.grad[:, 2].sum().item() == pytest.approx(0, abs=1e-4)


def test_the_gradient_of_a_colour_by_hand() -> None:
    # Red grows from left to right by 1/4 a unit between the centres of the texture's outer pixels. What moves to the
    # right by a unit shows what was a unit further left.
    vertices, surface = square(2.5)
    vertices.requires_grad_(True)
    texture = torch.linspace(0, 1, 5).expand(3, 5, 5)
    picture = surface.draw(vertices, texture, front_camera(), 8, BLACK, ambient=1.0)
    assert picture[0, 0, 3, 1].item() == pytest.approx((-1.25 + 2) / 4, abs=1e-5)
    picture[0, 0, 3, 1].backward()
    assert vertices.grad is not None
    assert vertices.grad[:, 1].sum().item() == pytest.approx(-1 / 4, abs=1e-5)


def test_a_slanted_outline_covers_the_area_that_it_encloses() -> None:
    corners = np.array([[0, -1.31, -0.9], [0, 1.13, -1.2], [0, 0.2, 1.4]])
    faces = np.array([[0, 1, 2]])
    surface = DrawnSurface(faces, Layout(np.arange(3), faces, np.zeros((3, 2), np.float32)))
    vertices = torch.tensor(corners, dtype=torch.float32, requires_grad=True)
    covered = surface.draw(vertices, WHITE, front_camera(), 64, BLACK, ambient=1.0)[0, 0].sum() / 16**2
    (_, a, b), (_, c, d), (_, e, f) = vertices
    area = ((c - a) * (f - b) - (e - a) * (d - b)) / 2
    assert covered.item() == pytest.approx(area.item(), rel=5e-3)
    found, expected = (torch.autograd.grad(one, vertices, retain_graph=True)[0][:, 1:] for one in (covered, area))
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


def ball(normal_map: bool = False) -> tuple[NDArray[Any], NDArray[np.int64], Layout, Texture]:
    sphere = trimesh.creation.icosphere(subdivisions=2, radius=0.8)
    vertices, faces = np.asarray(sphere.vertices, np.float32), np.asarray(sphere.faces, np.int64)
    layout = box_layout(vertices, faces, 64, 4)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    bent = np.random.default_rng(1).integers(120, 136, (64, 64, 3), dtype=np.uint8) | np.array([0, 0, 240], np.uint8)
    return vertices, faces, layout, Texture(layout.uv, image, bent if normal_map else None)


@pytest.mark.parametrize("normal_map", [False, True])
def test_within_outlines_the_pictures_are_those_of_the_shading(normal_map: bool) -> None:
    vertices, faces, layout, skin = ball(normal_map)
    cameras, background = orbit(2, elevation_deg=20), (0.2, 0.4, 0.6)
    texture = torch.from_numpy(skin.image).movedim(-1, 0).float() / 255
    surface = DrawnSurface(faces, layout, skin.normals)
    drawn = surface.draw(torch.from_numpy(vertices), texture, cameras, 48, torch.tensor(background))
    placed = vertices[layout.source]
    expected = shade(placed, layout.faces, skin, cameras, 48, 48, background=background)
    apart = np.abs(to_uint8(drawn.movedim(1, -1)).astype(int) - expected).max(axis=-1)
    plain = shade(placed, layout.faces, np.zeros_like(placed), cameras, 48, 48)[..., 0]
    assert (apart > 1).any()  # antialiased
    for view, covered in zip(apart, plain == 0, strict=True):
        neighbours = [np.roll(covered, (row, column), (0, 1)) for row in (-1, 0, 1) for column in (-1, 0, 1)]
        inside, outside = np.all(neighbours, axis=0), ~np.any(neighbours, axis=0)
        assert view[inside | outside].max() <= 1


def test_normals_and_frames_are_those_of_the_files() -> None:
    vertices, faces, layout, _ = ball()
    normals = vertex_normals(torch.from_numpy(vertices), torch.from_numpy(faces))
    assert normals.numpy() == pytest.approx(reference_normals(vertices, faces), abs=1e-5)
    placed, of_layout = vertices[layout.source], normals.numpy()[layout.source]
    parts = (torch.from_numpy(one) for one in (placed, of_layout, layout.faces, layout.uv))
    tangent, bitangent = frames(*parts)
    expected = tangents.tangents_of(placed, of_layout, layout.faces, layout.uv)
    assert tangent.numpy() == pytest.approx(expected[:, :3], abs=1e-4)
    assert bitangent.numpy() == pytest.approx(tangents.bitangents(of_layout, expected), abs=1e-4)


def test_weights_are_those_of_the_point_that_a_ray_meets() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(9, 3, 3, generator=generator)
    wanted = torch.rand(9, 3, generator=generator)
    wanted = wanted / wanted.sum(dim=1, keepdim=True)
    point = (corners * wanted[..., None]).sum(dim=1)
    origin = torch.tensor([3.0, 1.0, 2.0]).expand(9, 3)
    direction = torch.nn.functional.normalize(point - origin, dim=1)
    assert weights_at(corners, origin, direction).numpy() == pytest.approx(wanted.numpy(), abs=1e-3)
    # A triangle that is a line has no such point.
    assert weights_at(corners[:1, :1].expand(1, 3, 3), origin[:1], direction[:1]).tolist() == [
        [pytest.approx(1 / 3)] * 3
    ]


@pytest.mark.parametrize("normal_map", [False, True])
def test_the_gradient_is_that_of_small_steps(normal_map: bool) -> None:
    """Of light and outlines together: the ball swollen, moved, and with waves."""
    vertices, faces, layout, skin = ball(normal_map)
    surface = DrawnSurface(faces, layout, skin.normals)
    grey = torch.full((3, 4, 4), 0.7)  # a seam between colours would jump from pixel to pixel
    ramp = torch.linspace(0, 1, 48)
    weight = ramp + ramp[:, None]  # of pixels: nothing that is symmetric cancels
    base, camera = torch.from_numpy(vertices), orbit(1, elevation_deg=20)

    def loss(moved: Tensor) -> Tensor:
        pictures = surface.draw(moved, grey, camera, 48, torch.tensor([0.2, 0.4, 0.6]), supersample=2)
        return (pictures * weight).mean()

    start = base.clone().requires_grad_(True)
    loss(start).backward()
    assert start.grad is not None
    waves = base * torch.sin(6 * base[:, 2:])
    step = 1e-2  # half a sample, so that faces which begin to be seen count in the mean
    for direction in (base, torch.tensor([0.0, 0.3, 0.2]).expand_as(base), waves):
        with torch.no_grad():
            expected = float(loss(base + step * direction) - loss(base - step * direction)) / (2 * step)
        assert float((start.grad * direction).sum()) == pytest.approx(expected, rel=0.1, abs=2e-3)


def test_where_nothing_is_seen_there_is_the_background() -> None:
    vertices, surface = square()
    beside = (vertices + torch.tensor([0.0, 9.0, 0.0])).requires_grad_(True)
    picture = surface.draw(beside, WHITE, front_camera(), 4, torch.tensor([0.1, 0.2, 0.3]))
    assert (picture == torch.tensor([0.1, 0.2, 0.3])[:, None, None]).all()
    picture.sum().backward()
    assert beside.grad is not None
    assert not beside.grad.any()


def test_an_outline_behind_something_changes_nothing() -> None:
    # A small square behind a large one, whose outline lies between centres.
    near, _ = square(1.5)
    far, _ = square(0.6)
    vertices = torch.cat([near, far - torch.tensor([1.0, 0, 0])]).requires_grad_(True)
    faces = np.array([[0, 2, 1], [0, 3, 2], [4, 6, 5], [4, 7, 6]])
    surface = DrawnSurface(faces, Layout(np.arange(8), faces, np.full((8, 2), 0.5, np.float32)))
    surface.draw(vertices, WHITE, front_camera(), 16, BLACK, ambient=1.0).sum().backward()
    assert vertices.grad is not None
    assert vertices.grad[:4].abs().max() > 0
    assert not vertices.grad[4:].any()
