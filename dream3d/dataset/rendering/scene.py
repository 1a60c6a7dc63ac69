"""An off-screen scene that shows one model at a time, in the frame of :mod:`dream3d.cameras`, under fixed lights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dream3d.dataset.records import Pass, SourceAsset
from dream3d.dataset.rendering.models import keep_vtk_quiet, load_actors, points_of

SUPERSAMPLE = 2
"""Pixels rendered for one pixel, along each side."""
DEPTH_STEPS = 65534
"""Of the depth images: from the front of the unit sphere's bounding slab to its back."""


@dataclass(frozen=True)
class Lighting:
    """Lights that are fixed in the world, so that a surface has one brightness in all views."""

    lights: tuple[tuple[tuple[float, float, float], float], ...]
    """Direction towards each light (x front, y the object's left, z up) and its strength."""
    ambient: float
    """Share of a surface's colour that is seen without light."""


LIGHTS = {
    # Faces of a box differ clearly.
    "studio": Lighting(
        (((0.15, 0.1, 1.0), 0.42), ((1.0, 0.25, 0.25), 0.40), ((-0.35, 1.0, 0.2), 0.28), ((-0.6, -1.0, 0.2), 0.16)),
        0.34,
    ),
    "soft": Lighting(
        (((0.0, 0.0, 1.0), 0.25), ((1.0, 0.3, 0.3), 0.18), ((-0.4, 1.0, 0.2), 0.14), ((-0.6, -1.0, 0.2), 0.1)), 0.6
    ),
    "left": Lighting((((0.3, 1.0, 0.6), 0.75), ((0.5, -1.0, 0.3), 0.12)), 0.36),
    "right": Lighting((((0.3, -1.0, 0.6), 0.75), ((0.5, 1.0, 0.3), 0.12)), 0.36),
    "above": Lighting((((0.1, 0.05, 1.0), 0.75), ((1.0, 0.2, 0.1), 0.14)), 0.38),
}


@dataclass(frozen=True)
class RenderedView:
    """One view."""

    rgba: NDArray[np.uint8]
    """(S, S, 4), sRGB, straight alpha; colour is 0 where alpha is."""
    depth: NDArray[np.uint16] | None = None
    """(S, S): 0 where nothing is, else 1 + 32767 (z - distance + 1), with z along the camera's axis in radii."""
    normal: NDArray[np.uint8] | None = None
    """(S, S, 3): 127.5 (n + 1) of the unit normal in the world's frame, turned towards the camera; 0: nothing."""


def model_frame(asset: SourceAsset) -> NDArray[np.float64]:
    """(3, 3) rotation from the model's own coordinates to the world's: x front, y left, z up."""
    turn = np.radians(asset.turn_deg)
    c, s = np.cos(turn), np.sin(turn)
    upright = np.array([[0, 0, 1.0], [1, 0, 0], [0, 1, 0]]) if asset.up == "y" else np.eye(3)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]) @ upright @ np.array(asset.rotation).reshape(3, 3)


class OffscreenScene:
    """An off-screen VTK window. VTK's own complaints are not printed."""

    def __init__(self, size: int) -> None:
        from vtkmodules import vtkRenderingOpenGL2  # noqa: F401  (the drawing code behind vtkRenderWindow)
        from vtkmodules.vtkRenderingCore import vtkRenderer, vtkRenderWindow

        keep_vtk_quiet()
        self.size = size
        self._actors: list[Any] = []
        self._renderer = vtkRenderer()
        self._renderer.SetAutomaticLightCreation(False)
        self._renderer.SetBackground(0, 0, 0)
        self._renderer.SetBackgroundAlpha(0)
        self._window = vtkRenderWindow()
        self._window.SetOffScreenRendering(True)
        self._window.SetMultiSamples(0)  # supersampling alone: three times faster in software
        self._window.SetAlphaBitPlanes(1)
        self._window.SetSize(size * SUPERSAMPLE, size * SUPERSAMPLE)
        self._window.AddRenderer(self._renderer)
        self._light = ""

    def close(self) -> None:
        """Free the window."""
        self.clear()
        self._window.Finalize()

    def clear(self) -> None:
        """Remove the shown model and free its textures."""
        self._renderer.RemoveAllViewProps()
        for actor in self._actors:
            actor.ReleaseGraphicsResources(self._window)
        self._actors = []

    def load(self, path: Path, asset: SourceAsset) -> None:
        """Show a model file instead: front to +x, z up, its box centred, its farthest vertex on the unit sphere.

        Raises :class:`DatasetError` for a model that cannot be rendered.
        """
        from vtkmodules.vtkCommonMath import vtkMatrix4x4

        self.clear()
        actors = load_actors(path)
        frame = model_frame(asset)
        points = np.concatenate([points_of(actor) for actor in actors]) @ frame.T
        centre = (points.min(0) + points.max(0)) / 2
        scale = 1 / np.linalg.norm(points - centre, axis=1).max()
        placed = np.eye(4)
        placed[:3, :3], placed[:3, 3] = scale * frame, -scale * centre
        matrix = vtkMatrix4x4()
        matrix.DeepCopy(placed.ravel().tolist())
        for actor in actors:
            actor.SetUserMatrix(matrix)
            properties = actor.GetProperty()
            properties.SetAmbientColor(properties.GetDiffuseColor())
            properties.SetDiffuse(1.0)
            properties.SetSpecular(0.0)
            self._renderer.AddActor(actor)
        self._actors, self._light = actors, ""

    def render(self, orbit: Pass, azimuth_deg: float, *, depth: bool = False, normal: bool = False) -> RenderedView:
        """One view of the model, from an azimuth of a pass."""
        self._aim(orbit, azimuth_deg)
        self._light_up(orbit.light)
        mean = self._blocks(self._grab().astype(np.float32)).mean((1, 3))
        # VTK's colours are multiplied by alpha, which is exact also at the edges.
        color = mean[..., :3] * (255 / np.maximum(mean[..., 3:], 1e-6))
        rgba = np.round(np.concatenate([color, mean[..., 3:]], -1)).clip(0, 255).astype(np.uint8)
        rgba[rgba[..., 3] == 0] = 0
        return RenderedView(rgba, self._depth(orbit) if depth else None, self._normal() if normal else None)

    def _aim(self, orbit: Pass, azimuth_deg: float) -> None:
        a, e = np.radians(azimuth_deg), np.radians(orbit.elevation_deg)
        back = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
        camera = self._renderer.GetActiveCamera()
        camera.SetPosition(*(orbit.distance * back))
        camera.SetFocalPoint(0, 0, 0)
        camera.SetViewUp(-np.sin(e) * np.cos(a), -np.sin(e) * np.sin(a), np.cos(e))
        camera.SetViewAngle(orbit.fovy_deg)
        camera.SetClippingRange(max(orbit.distance - 1.05, 0.01), orbit.distance + 1.05)

    def _light_up(self, name: str) -> None:
        from vtkmodules.vtkRenderingCore import vtkLight

        if name == self._light:
            return
        self._light, lighting = name, LIGHTS[name]
        self._renderer.RemoveAllLights()
        for direction, strength in lighting.lights:
            light = vtkLight()
            light.SetLightTypeToSceneLight()
            light.SetPositional(False)
            light.SetPosition(*direction)
            light.SetFocalPoint(0, 0, 0)
            light.SetIntensity(strength)
            self._renderer.AddLight(light)
        for actor in self._actors:
            actor.GetProperty().SetAmbient(lighting.ambient)

    def _grab(self) -> NDArray[np.uint8]:
        """(2S, 2S, 4) pixels, colour multiplied by alpha."""
        from vtkmodules.util.numpy_support import vtk_to_numpy
        from vtkmodules.vtkCommonCore import vtkUnsignedCharArray

        window: Any = self._window  # VTK's type hints lack this call's short form
        window.Render()
        n = self.size * SUPERSAMPLE
        out: Any = vtkUnsignedCharArray()
        window.GetRGBACharPixelData(0, 0, n - 1, n - 1, 0, out)
        return vtk_to_numpy(out).reshape(n, n, 4)[::-1]

    def _blocks(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """(2S, 2S, C) as (S, 2, S, 2, C): axes 1 and 3 run over the samples of a pixel."""
        return pixels.reshape(self.size, SUPERSAMPLE, self.size, SUPERSAMPLE, -1)

    def _depth(self, orbit: Pass) -> NDArray[np.uint16]:
        """The nearest of each pixel's samples: a mean across an edge would lie on no surface."""
        from vtkmodules.util.numpy_support import vtk_to_numpy
        from vtkmodules.vtkCommonCore import vtkFloatArray

        out, n = vtkFloatArray(), self.size * SUPERSAMPLE
        self._window.GetZbufferData(0, 0, n - 1, n - 1, out)
        stored = vtk_to_numpy(out).reshape(n, n)[::-1].astype(np.float64)
        near, far = self._renderer.GetActiveCamera().GetClippingRange()
        nearest = self._blocks(stored[..., None]).min((1, 3))[..., 0]
        z = near * far / (far - nearest * (far - near))
        steps = 1 + np.round((z - orbit.distance + 1) / 2 * DEPTH_STEPS)
        return np.where(nearest < 1, steps.clip(1, 65535), 0).astype(np.uint16)

    def _normal(self) -> NDArray[np.uint8]:
        self._show_normals(True)
        pixels = self._grab().astype(np.float64)
        self._show_normals(False)
        covered = pixels[..., 3:] > 127
        view = self._renderer.GetActiveCamera().GetViewTransformMatrix()
        to_world = np.array([[view.GetElement(j, i) for j in range(3)] for i in range(3)])
        normals = np.where(covered, (pixels[..., :3] / 127.5 - 1) @ to_world.T, 0)
        mean = self._blocks(normals).mean((1, 3))
        length = np.linalg.norm(mean, axis=-1, keepdims=True)
        coded = np.round((mean / np.maximum(length, 1e-6) + 1) * 127.5)
        return np.where(length > 0.05, coded, 0).astype(np.uint8)

    def _show_normals(self, on: bool) -> None:
        """Switch between lit surfaces and normals (in the camera's frame) as colours."""
        for actor in self._actors:
            shader = actor.GetShaderProperty()
            if on:
                code = "//VTK::Light::Impl\n  fragOutput0 = vec4(0.5 * normalVCVSOutput + 0.5, 1.0);\n"
                shader.AddFragmentShaderReplacement("//VTK::Light::Impl", True, code, False)
            else:
                shader.ClearFragmentShaderReplacement("//VTK::Light::Impl", True)
