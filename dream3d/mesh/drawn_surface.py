"""Views of a textured surface as a differentiable function of its vertices and its texture, in plain torch.

The rasteriser (:mod:`dream3d.mesh.raster`) says which face each pixel sees. From the face's corners follow, with
gradients, the place where the pixel's ray meets it, the texel there, the normal and its light: the pictures are those
of :func:`dream3d.mesh.shading.shade`. At outlines neighbouring pixels are mixed (:mod:`dream3d.mesh.outlines`).
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dream3d.cameras import Cameras
from dream3d.mesh.drawn_texture import look_up
from dream3d.mesh.layout import Layout
from dream3d.mesh.outlines import antialiased, crossings_of, edges_of
from dream3d.mesh.raster import rasterize
from dream3d.mesh.surface import Faces

GRAZING = 0.1
"""Cosine of ray and face from which on the place of a pixel on its face moves with the vertices. What is seen more
from the side moves so fast that a small step would be none."""


class DrawnSurface:
    """What stays of a textured surface while its vertices move."""

    def __init__(self, faces: Faces, layout: Layout, normal_map: NDArray[np.uint8] | None = None) -> None:
        """Of a surface with ``faces`` (F, 3) and their ``layout``; a normal map (H, W, 3) bends the light."""
        self._faces, self._edges = faces, edges_of(faces)
        self._places, self._corners = torch.from_numpy(faces), torch.from_numpy(layout.faces)
        self._source, self._uv = torch.from_numpy(layout.source), torch.from_numpy(layout.uv).float()
        self._bent = None if normal_map is None else torch.from_numpy(normal_map).movedim(-1, 0).float() / 255 * 2 - 1

    def draw(
        self,
        vertices: Tensor,
        texture: Tensor,
        cameras: Cameras,
        size: int,
        background: Tensor,
        *,
        supersample: int = 1,
        ambient: float = 0.5,
    ) -> Tensor:
        """(N, 3, size, size) pictures of the surface with ``vertices`` (V, 3) and a ``texture`` (3, H, W).

        Colours, those of the ``background`` (3,) too, are display values; a pixel is the mean of ``supersample``^2
        samples. Everything is on the CPU.
        """
        attributes = self._attributes(vertices)
        pictures = []
        for view in range(len(cameras)):
            camera = Cameras(cameras.c2w[view : view + 1], cameras.fovy_deg[view : view + 1])
            large = self._view(vertices, attributes, texture, camera, size * supersample, background, ambient)
            pictures.append(F.avg_pool2d(large, supersample)[0])
        return torch.stack(pictures)

    def _attributes(self, vertices: Tensor) -> Tensor:
        """(W, 6 or 12) of the layout's vertices: place in the image and a 0, normal; tangent and bitangent."""
        normals = vertex_normals(vertices, self._places).index_select(0, self._source)
        parts = [F.pad(self._uv, (0, 1)), normals]
        if self._bent is not None:
            parts += frames(vertices.index_select(0, self._source), normals, self._corners, self._uv)
        return torch.cat(parts, dim=1)

    def _view(
        self,
        vertices: Tensor,
        attributes: Tensor,
        texture: Tensor,
        camera: Cameras,
        size: int,
        background: Tensor,
        ambient: float,
    ) -> Tensor:
        """(1, 3, size, size) picture of one camera."""
        fragments = rasterize(vertices.detach().numpy(), self._faces, camera, size, size)
        owner = torch.from_numpy(fragments.face.reshape(-1))
        sample = (owner >= 0).nonzero()[:, 0]
        face = owner[sample]
        rays_o, rays_d = (rays.reshape(-1, 3)[sample].float() for rays in camera.rays(size, size))
        # The gradient of an embedding is summed in one order, whatever the number of threads; an index's is not.
        corners = F.embedding(self._places[face], vertices)
        weights = weights_at(corners, rays_o, rays_d)
        seen = (F.embedding(self._corners[face], attributes) * weights[..., None]).sum(dim=1)
        position = (corners * weights[..., None]).sum(dim=1)
        uv, normal = seen[:, :2], F.normalize(seen[:, 3:6], dim=1)
        if self._bent is not None:
            tangent, bitangent = F.normalize(seen[:, 6:9], dim=1), F.normalize(seen[:, 9:], dim=1)
            mapped = look_up(self._bent, uv)
            bent = mapped[:, :1] * tangent + mapped[:, 1:2] * bitangent + mapped[:, 2:] * normal
            normal = F.normalize(bent, dim=1)
        facing = (normal * F.normalize(rays_o - position, dim=1)).sum(dim=1, keepdim=True)
        colors = look_up(texture, uv) * (ambient + (1 - ambient) * facing.clamp(0, 1))
        picture = background.expand(size * size, 3).index_put((sample,), colors)
        screen, depth, focal = projected(vertices, camera, size)
        found = (screen.detach().double().numpy(), depth.detach().double().numpy())
        picture = antialiased(picture, screen, crossings_of(self._edges, *found, fragments.z[0], focal), size)
        return picture.t().reshape(1, 3, size, size)


def projected(vertices: Tensor, camera: Cameras, size: int) -> tuple[Tensor, Tensor, float]:
    """(V, 2) columns and rows, in pixels of a square picture, of vertices (V, 3), and (V,) depths along the axis.

    As the rasteriser has them, for one camera; last the focal length in pixels. What is not in front has some place.
    """
    pose = camera.c2w[0].to(vertices)
    local = (vertices - pose[:3, 3]) @ pose[:3, :3]
    depth = -local[:, 2]
    focal = size / 2 / math.tan(math.radians(float(camera.fovy_deg[0])) / 2)
    safe = depth.clamp(min=1e-4)
    return size / 2 + focal * torch.stack([local[:, 0] / safe, -local[:, 1] / safe], dim=1), depth, focal


def weights_at(corners: Tensor, rays_o: Tensor, rays_d: Tensor) -> Tensor:
    """(P, 3) weights of triangles' corners (P, 3, 3) where rays, origins and unit directions (P, 3), meet their planes.

    Their sum is 1 (Möller and Trumbore 1997). Without a gradient where a ray meets its triangle at a cosine below
    :data:`GRAZING`; a third each for a triangle that is a line.
    """
    a, edge_1, edge_2 = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    across = torch.linalg.cross(edge_1, edge_2)
    from_a = rays_o - a
    moment = torch.linalg.cross(from_a, rays_d)
    volume = -(across * rays_d).sum(dim=1)
    flat = volume.abs() < 1e-14
    safe = torch.where(flat, 1.0, volume)
    second, third = (edge_2 * moment).sum(dim=1) / safe, -(edge_1 * moment).sum(dim=1) / safe
    weights = torch.stack([1 - second - third, second, third], dim=1)
    grazing = volume.abs() < GRAZING * across.norm(dim=1)
    weights = torch.where(flat[:, None], 1 / 3, weights)
    return torch.where((flat | grazing)[:, None], weights.detach(), weights)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """(V, 3) unit normals of vertices (V, 3) of faces (F, 3), as :func:`dream3d.mesh.surface.vertex_normals`."""
    a, b, c = F.embedding(faces, vertices).unbind(dim=1)
    total = _summed(torch.linalg.cross(b - a, c - a), faces, len(vertices))
    up = torch.tensor([0.0, 0.0, 1.0])
    return F.normalize(torch.where(total.norm(dim=1, keepdim=True) < 1e-20, up, total), dim=1, eps=1e-20)


def frames(vertices: Tensor, normals: Tensor, faces: Tensor, uv: Tensor) -> tuple[Tensor, Tensor]:
    """Tangents and bitangents (V, 3) as :mod:`dream3d.mesh.tangents` has them, of vertices with unit normals (V, 3)."""
    a, b, c = F.embedding(faces, vertices).unbind(dim=1)
    first, second, third = uv[faces].unbind(dim=1)
    (u_1, v_1), (u_2, v_2) = (second - first).t(), (third - first).t()
    area = u_1 * v_2 - u_2 * v_1
    right = area.sign()[:, None] * ((b - a) * v_2[:, None] - (c - a) * v_1[:, None])
    total = _summed(right, faces, len(vertices))
    tangent = F.normalize(total - (total * normals).sum(dim=1, keepdim=True) * normals, dim=1, eps=1e-12)
    sign = torch.where(_summed(-area[:, None], faces, len(vertices)) < 0, -1.0, 1.0)
    return tangent, torch.linalg.cross(normals, tangent) * sign


def _summed(values: Tensor, faces: Tensor, count: int) -> Tensor:
    """(count, C) sums at vertices of values (F, C) of the faces (F, 3) around them."""
    return values.new_zeros(count, values.shape[1]).index_add(0, faces.reshape(-1), values.repeat_interleave(3, dim=0))
