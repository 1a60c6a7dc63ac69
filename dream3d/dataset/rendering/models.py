"""Model files as VTK actors. Files are checked by :mod:`dream3d.dataset.check.file` first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dream3d.dataset.check.limits import LIMITS, TEXTURES
from dream3d.dataset.decoding import opened, rgba_of
from dream3d.errors import DatasetError
from dream3d.mesh.srgb import srgb_from_linear

MIN_AREA = 1e-9
"""Of the surface, for a model scaled to the unit sphere."""


def load_actors(path: Path) -> list[Any]:
    """The actors of a model file, in its own coordinates. Raises :class:`DatasetError` for what cannot be loaded."""
    try:
        # VTK's reader is the faster one, but gives up on some files without a word.
        actors = _obj_actors(path) if path.suffix.lower() == ".obj" else []
        actors = actors or _trimesh_actors(path)
    except (DatasetError, MemoryError):
        raise
    except Exception as error:  # a damaged file makes its readers raise nearly anything
        raise DatasetError(f"it cannot be loaded ({type(error).__name__}: {str(error)[:100]})") from error
    _check_surface(actors)
    return actors


def keep_vtk_quiet() -> None:
    """Keep what VTK has to say from the terminal."""
    from vtkmodules.vtkCommonCore import vtkLogger, vtkOutputWindow, vtkStringOutputWindow

    vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)
    vtkOutputWindow.SetInstance(vtkStringOutputWindow())


def points_of(actor: Any) -> NDArray[np.float64]:
    """(N, 3) points of an actor in the file's coordinates: those that a face uses."""
    points, used, _ = _polygons(actor)
    if len(used) and (used.min() < 0 or used.max() >= len(points)):
        raise DatasetError("a face names a vertex that is not there")
    return points[np.unique(used)]


def _polygons(actor: Any) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """(N, 3) points, the polygons' corners one after the other, and where each polygon begins and ends in them."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    shape = actor.GetMapper().GetInput()
    cells = shape.GetPolys()
    points = vtk_to_numpy(shape.GetPoints().GetData()).astype(np.float64)
    return points, vtk_to_numpy(cells.GetConnectivityArray()), vtk_to_numpy(cells.GetOffsetsArray())


def _check_surface(actors: list[Any]) -> None:
    points = [points_of(actor) for actor in actors]
    if not sum(map(len, points)):
        raise DatasetError("it has no surface: not one triangle")
    every = np.concatenate(points)
    _check_finite("vertex", every)
    size = float(np.linalg.norm(np.ptp(every, axis=0)))
    if not 1e-12 < size < 1e12:
        raise DatasetError(f"its size is {size:.3g}, so it cannot be scaled")
    if sum(_area(actor, size) for actor in actors) < MIN_AREA:
        raise DatasetError("its surface has no area")


def _check_finite(what: str, *values: Any) -> None:
    if not all(np.isfinite(one).all() for one in values):
        raise DatasetError(f"a {what} is not finite (NaN or infinity)")


def _area(actor: Any, size: float) -> float:
    """Area of an actor's triangles (polygons as fans), with ``size`` as the unit of length."""
    points, corners, offsets = _polygons(actor)
    sides = np.diff(offsets)
    first = np.repeat(offsets[:-1], sides)
    position = np.arange(len(corners)) - first
    last = position + 1 == np.repeat(sides, sides)
    at = np.nonzero((position > 0) & ~last)[0]
    a, b, c = (points[corners[index]] / size for index in (first[at], at, at + 1))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def _obj_actors(path: Path) -> list[Any]:
    from vtkmodules import vtkRenderingOpenGL2  # noqa: F401  (the code behind vtkRenderWindow)
    from vtkmodules.vtkIOImport import vtkOBJImporter
    from vtkmodules.vtkRenderingCore import vtkRenderer, vtkRenderWindow

    keep_vtk_quiet()
    window, renderer = vtkRenderWindow(), vtkRenderer()  # never rendered: the importer wants one to fill
    window.AddRenderer(renderer)
    importer = vtkOBJImporter()
    importer.SetFileName(str(path))
    library = re.search(rb"^mtllib[ \t]+(.+?)\s*$", path.read_bytes(), re.M)
    if library:
        importer.SetFileNameMTL(str(path.parent / library.group(1).decode("latin-1").replace("\\", "/")))
    importer.SetTexturePath(str(path.parent))
    importer.SetRenderWindow(window)
    importer.Update()
    everything: Any = renderer.GetActors()
    actors = [a for a in list(everything) if a.GetMapper() and a.GetMapper().GetInput().GetNumberOfPoints()]
    decoded = list[Any]()
    for actor in actors:
        texture = actor.GetTexture()
        if texture is not None and texture not in decoded:  # materials with one file may share its texture
            # VTK's own readers take 16 bits for an index into rainbow colours, and CMYK for RGBA.
            name = Path(texture.GetInputAlgorithm().GetFileName())
            with opened(name, LIMITS.max_texture_pixels, TEXTURES) as image:
                pixels = rgba_of(image)
            opaque = bool((pixels[..., 3] == 255).all())
            texture.SetInputData(_grid(pixels[..., :3] if opaque else pixels))
            decoded.append(texture)
        # Many exporters write a black or dark diffuse colour beside a texture and mean the texture.
        if actor.GetTexture() is not None and max(actor.GetProperty().GetDiffuseColor()) < 0.3:
            actor.GetProperty().SetDiffuseColor(1, 1, 1)
    renderer.RemoveAllViewProps()
    window.RemoveRenderer(renderer)
    return actors


def _trimesh_actors(path: Path) -> list[Any]:
    import trimesh

    scene = trimesh.load_scene(str(path), process=False, skip_materials=False)
    linear = path.suffix.lower() in (".glb", ".gltf")
    actors = []
    for name in scene.graph.nodes_geometry:
        transform, geometry = scene.graph[name]
        mesh = scene.geometry[geometry]
        if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces):
            actors.append(_actor(mesh, np.asarray(transform, np.float64), linear))
    return actors


def _actor(mesh: Any, transform: NDArray[np.float64], linear: bool) -> Any:
    """One trimesh mesh as an actor; ``linear``: its colours (not its textures) are linear light, as in glTF."""
    from vtkmodules.util.numpy_support import numpy_to_vtkIdTypeArray
    from vtkmodules.vtkCommonCore import vtkPoints
    from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData
    from vtkmodules.vtkRenderingCore import vtkActor, vtkPolyDataMapper

    shape, points, cells = vtkPolyData(), vtkPoints(), vtkCellArray()
    _check_finite("vertex", mesh.vertices, transform)
    placed = np.asarray(mesh.vertices) @ transform[:3, :3].T + transform[:3, 3]
    points.SetData(_to_vtk(placed, np.float32))
    faces = np.asarray(mesh.faces, np.int64)
    if faces.min() < 0 or faces.max() >= len(placed):
        raise DatasetError("a face names a vertex that is not there")
    starts = numpy_to_vtkIdTypeArray(np.arange(0, faces.size + 1, 3, dtype=np.int64), deep=True)
    cells.SetData(starts, numpy_to_vtkIdTypeArray(np.ascontiguousarray(faces).ravel(), deep=True))
    shape.SetPoints(points)
    shape.SetPolys(cells)
    # Normals that the file holds; what trimesh makes up instead would round the edges of a box.
    if "vertex_normals" in mesh._cache:
        _check_finite("normal", mesh.vertex_normals)
        normals = np.asarray(mesh.vertex_normals) @ np.linalg.pinv(transform[:3, :3])
        shape.GetPointData().SetNormals(_to_vtk(normals, np.float32))
    mapper, actor = vtkPolyDataMapper(), vtkActor()
    mapper.SetInputData(shape)
    actor.SetMapper(mapper)
    _dress(actor, mapper, shape, mesh.visual, linear)
    return actor


def _dress(actor: Any, mapper: Any, shape: Any, visual: Any, linear: bool) -> None:
    """Give an actor its texture, or its colours per vertex or face, or its one colour."""
    if visual.kind == "vertex":
        return _paint(mapper, shape.GetPointData(), _display(np.asarray(visual.vertex_colors, np.uint8), linear))
    if visual.kind == "face":
        return _paint(mapper, shape.GetCellData(), _display(np.asarray(visual.face_colors, np.uint8), linear))
    material = getattr(visual, "material", None)
    if material is None:
        actor.GetProperty().SetColor(0.8, 0.8, 0.8)
        return
    factor = getattr(material, "baseColorFactor", None)
    if factor is None:
        factor = getattr(material, "diffuse", None)
    rgba = _display(np.asarray([255] * 4 if factor is None else factor, np.uint8).reshape(1, 4), linear)[0] / 255
    mode = getattr(material, "alphaMode", None) or "OPAQUE"
    painted = getattr(visual, "vertex_attributes", {}).get("color")
    if painted is not None and len(painted) == shape.GetNumberOfPoints():
        _check_finite("colour", painted)
        tints = _unit(painted) * (1 if factor is None else np.asarray(factor, np.float64) / 255)
        tints[:, 3:] = tints[:, 3:] if mode == "BLEND" else 1  # glTF: alpha counts only where the material says so
        _paint(mapper, shape.GetPointData(), _display(np.round(tints * 255).astype(np.uint8), linear))
        return
    actor.GetProperty().SetColor(*rgba[:3])
    actor.GetProperty().SetOpacity(float(rgba[3]) if mode == "BLEND" else 1.0)
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if image is not None and visual.uv is not None and len(visual.uv) == shape.GetNumberOfPoints():
        _check_finite("texture coordinate", visual.uv)
        shape.GetPointData().SetTCoords(_to_vtk(visual.uv, np.float32))
        actor.SetTexture(_texture(image, mode))
        if mode == "MASK":  # VTK takes a texture with alpha for glass, and would show what lies behind a leaf
            actor.ForceOpaqueOn()


def _to_vtk(values: NDArray[Any], dtype: type) -> Any:
    from vtkmodules.util.numpy_support import numpy_to_vtk

    return numpy_to_vtk(np.ascontiguousarray(values, dtype), deep=True)


def _paint(mapper: Any, data: Any, rgba: NDArray[np.uint8]) -> None:
    """Colours (N, 4) of the points or cells of a shape, as they are to be seen."""
    opaque = bool((rgba[:, 3] == 255).all())
    data.SetScalars(_to_vtk(rgba[:, :3] if opaque else rgba, np.uint8))
    mapper.SetColorModeToDirectScalars()


def _unit(colors: NDArray[Any]) -> NDArray[np.float64]:
    """glTF's ``COLOR_0``, (N, 3 or 4) floats or whole numbers, as (N, 4) in [0, 1]: trimesh hands it over raw."""
    scale = 1.0 if np.issubdtype(colors.dtype, np.floating) else float(np.iinfo(colors.dtype).max)
    values = np.asarray(colors, np.float64) / scale
    alpha = values[:, 3:4] if values.shape[1] > 3 else np.ones((len(values), 1))
    return np.clip(np.concatenate([values[:, :3], alpha], 1), 0, 1)


def _display(rgba: NDArray[np.uint8], linear: bool) -> NDArray[np.uint8]:
    """(N, 4) colours as sRGB display values; alpha stays."""
    if not linear:
        return rgba
    rgb = np.round(srgb_from_linear(rgba[:, :3] / 255) * 255).astype(np.uint8)
    return np.concatenate([rgb, rgba[:, 3:]], 1)


def _texture(image: Any, mode: str) -> Any:
    """A VTK texture from a Pillow image; alpha counts by glTF's alphaMode."""
    from vtkmodules.vtkRenderingCore import vtkTexture

    if image.format not in (None, *TEXTURES) or image.width * image.height > LIMITS.max_texture_pixels:
        raise DatasetError(f"a texture of {image.width} x {image.height} pixels in the format {image.format}")
    pixels = rgba_of(image)
    if mode == "MASK":
        pixels = np.concatenate([pixels[..., :3], np.where(pixels[..., 3:] < 128, 0, 255).astype(np.uint8)], -1)
    texture = vtkTexture()
    texture.SetInputData(_grid(pixels[..., :3] if mode == "OPAQUE" else pixels))
    texture.InterpolateOn()
    texture.RepeatOn()
    return texture


def _grid(pixels: NDArray[np.uint8]) -> Any:
    """Pixels (H, W, C) as VTK's image, whose first row is the lowest."""
    from vtkmodules.vtkCommonDataModel import vtkImageData

    height, width, channels = pixels.shape
    grid = vtkImageData()
    grid.SetDimensions(width, height, 1)
    grid.GetPointData().SetScalars(_to_vtk(pixels[::-1].reshape(-1, channels), np.uint8))
    return grid
