"""USDZ: one mesh as a text layer of Universal Scene Description, and its texture, in an archive that is not compressed.

The layout is that of the USDZ File Format Specification (Pixar, version 1.3): a zip without compression or encryption,
the layer as its first file, the data of every file at a multiple of 64 bytes. Colours of vertices are linear, as USD
wants its colours; the texture is a PNG of display values, a normal map one of directions.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image
from trimesh.visual.material import PBRMaterial

from dream3d.files import parse_json
from dream3d.images import png_bytes
from dream3d.mesh.appearance import Texture, VertexColors
from dream3d.mesh.formats.base import Exporter, ExportMesh
from dream3d.mesh.srgb import display_values, linear_from_srgb
from dream3d.mesh.surface import seamless_normals, vertex_normals
from dream3d.version import __version__

ALIGNMENT = 64
"""Bytes: so the data can be used where it lies in the file."""
LAYER, IMAGE, NORMALS = "model.usda", "texture.png", "normal.png"
MAX_BYTES = 2**30
"""Of the layer, and of the image, that are read."""
_PADDING_ID = 0x1986
"""Of the zip's extra field whose only purpose is its length; the one that Pixar's own writer uses."""
_LOCAL_HEADER_BYTES = 30
_OLDEST = (1980, 1, 1, 0, 0, 0)
"""The only time that says nothing: the same mesh gives the same bytes."""


def encode(mesh: ExportMesh) -> bytes:
    """A whole .usdz file; the same mesh gives the same bytes."""
    files = {LAYER: _layer(mesh).encode("ascii")}
    if isinstance(mesh.appearance, Texture):
        files[IMAGE] = png_bytes(mesh.appearance.image)
        if mesh.appearance.normals is not None:
            files[NORMALS] = png_bytes(mesh.appearance.normals)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, _OLDEST)
            info.create_system = 3  # also on Windows
            info.external_attr = 0o644 << 16
            before = stream.tell() + _LOCAL_HEADER_BYTES + len(name) + 4  # with the field's own head
            padding = -before % ALIGNMENT
            info.extra = struct.pack("<HH", _PADDING_ID, padding) + bytes(padding)
            archive.writestr(info, data)
    return stream.getvalue()


def _layer(mesh: ExportMesh) -> str:
    """The scene: one mesh with one material."""
    textured = isinstance(mesh.appearance, Texture)
    bent = isinstance(mesh.appearance, Texture) and mesh.appearance.normals is not None
    smooth = seamless_normals if textured else vertex_normals
    # JSON escapes all but ASCII; USD reads the backslashes of a string a second time.
    made_by = json.dumps(mesh.provenance).replace("\\", "\\\\").replace('"', '\\"')
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    return f"""#usda 1.0
(
    customLayerData = {{
        string dream3d = "{made_by}"
    }}
    defaultPrim = "asset"
    doc = "dream3d {__version__}"
    metersPerUnit = 1
    upAxis = "Y"
)

def Xform "asset" (
    kind = "component"
)
{{
    def Mesh "mesh" (
        prepend apiSchemas = ["MaterialBindingAPI"]
    )
    {{
        uniform bool doubleSided = 0
        float3[] extent = {_tuples(np.stack([low, high]))}
        int[] faceVertexCounts = [{", ".join(["3"] * len(mesh.faces))}]
        int[] faceVertexIndices = [{", ".join(map(str, mesh.faces.reshape(-1).tolist()))}]
        rel material:binding = </asset/material>
        normal3f[] normals = {_tuples(smooth(mesh.vertices, mesh.faces))} (
            interpolation = "vertex"
        )
        point3f[] points = {_tuples(mesh.vertices)}
        {_primvar(mesh.appearance)} (
            interpolation = "vertex"
        )
        uniform token subdivisionScheme = "none"
    }}

    def Material "material"
    {{
        token outputs:surface.connect = </asset/material/surface.outputs:surface>

        def Shader "surface"
        {{
            uniform token info:id = "UsdPreviewSurface"
            color3f inputs:diffuseColor.connect = </asset/material/color.outputs:{"rgb" if textured else "result"}>
            float inputs:metallic = 0{_BENT if bent else ""}
            float inputs:roughness = 0.9
            token outputs:surface
        }}
{_TEXTURE if textured else _COLORS}{_NORMALS if bent else ""}
    }}
}}
"""


_COLORS = """
        def Shader "color"
        {
            uniform token info:id = "UsdPrimvarReader_float3"
            string inputs:varname = "displayColor"
            float3 outputs:result
        }"""
_TEXTURE = f"""
        def Shader "place"
        {{
            uniform token info:id = "UsdPrimvarReader_float2"
            string inputs:varname = "st"
            float2 outputs:result
        }}

        def Shader "color"
        {{
            uniform token info:id = "UsdUVTexture"
            asset inputs:file = @{IMAGE}@
            token inputs:sourceColorSpace = "sRGB"
            float2 inputs:st.connect = </asset/material/place.outputs:result>
            token inputs:wrapS = "clamp"
            token inputs:wrapT = "clamp"
            float3 outputs:rgb
        }}"""
_BENT = """
            normal3f inputs:normal.connect = </asset/material/bent.outputs:rgb>"""
_NORMALS = f"""

        def Shader "bent"
        {{
            uniform token info:id = "UsdUVTexture"
            float4 inputs:bias = (-1, -1, -1, 0)
            asset inputs:file = @{NORMALS}@
            float4 inputs:scale = (2, 2, 2, 1)
            token inputs:sourceColorSpace = "raw"
            float2 inputs:st.connect = </asset/material/place.outputs:result>
            token inputs:wrapS = "clamp"
            token inputs:wrapT = "clamp"
            float3 outputs:rgb
        }}"""


def _primvar(appearance: VertexColors | Texture) -> str:
    """Colours of the vertices, or their places in the image: these are counted from its lower left corner."""
    if isinstance(appearance, VertexColors):
        colors = linear_from_srgb(display_values(appearance.values))
        return f"color3f[] primvars:displayColor = {_tuples(colors)}"
    places = appearance.uv.astype(np.float64) * (1, -1) + (0, 1)
    return f"texCoord2f[] primvars:st = {_tuples(places)}"


def _tuples(values: NDArray[np.floating]) -> str:
    """(N, C) numbers, nine digits each, so that single precision comes back as it was."""
    return "[" + ", ".join("(" + ", ".join(f"{one:.9g}" for one in row) + ")" for row in values.tolist()) + "]"


def decode(data: bytes) -> trimesh.Trimesh:
    """The mesh in a .usdz of ours, as trimesh has one; ValueError, KeyError or BadZipFile for anything else."""
    layer, image, normals = _files(data)
    vertices = _numbers(layer, "point3f[] points", 3)
    faces = _numbers(layer, "int[] faceVertexIndices", 3).astype(np.int64)
    counts = _numbers(layer, "int[] faceVertexCounts", 1)
    if len(counts) != len(faces) or (counts != 3).any():
        raise ValueError(f"it has {len(counts)} faces and corners for {len(faces)} triangles")
    if len(faces) and not (faces.min() >= 0 and faces.max() < len(vertices)):
        raise ValueError("faces name vertices that are not there")
    visual: Any
    if image is not None:
        picture, bent = (one and Image.open(io.BytesIO(one), formats=["PNG"]) for one in (image, normals))
        places = _numbers(layer, "texCoord2f[] primvars:st", 2)
        material = PBRMaterial(baseColorTexture=picture, normalTexture=bent)  # type: ignore[no-untyped-call]
        visual = trimesh.visual.TextureVisuals(uv=places, material=material)  # type: ignore[no-untyped-call]
    else:
        visual = trimesh.visual.TextureVisuals()  # type: ignore[no-untyped-call]
        visual.vertex_attributes["color"] = _numbers(layer, "color3f[] primvars:displayColor", 3).astype(np.float32)
    return trimesh.Trimesh(vertices, faces, visual=visual, process=False, validate=False)


def provenance_of(data: bytes) -> dict[str, Any]:
    """The provenance in a .usdz of ours; raises ValueError, KeyError or BadZipFile if there is none."""
    found = re.search(r'string dream3d = "((?:[^"\\\n]|\\.)*)"\n', _files(data)[0])
    if found is None:
        raise KeyError("dream3d")
    made_by: dict[str, Any] = parse_json(re.sub(r"\\(.)", r"\1", found[1]))
    return made_by


def _files(data: bytes) -> tuple[str, bytes | None, bytes | None]:
    """The layer, and the image and the normal map if there are; stored as they are, which bounds what they can be."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > min(MAX_BYTES, len(data)):
                raise ValueError(f"a file in it is compressed or larger than {MAX_BYTES} bytes")
        image, normals = (archive.read(one) if one in archive.namelist() else None for one in (IMAGE, NORMALS))
        return archive.read(LAYER).decode("ascii"), image, normals


def _numbers(layer: str, name: str, columns: int) -> NDArray[np.float64]:
    """The (N, columns) numbers of an attribute."""
    found = re.search(rf"^ +{re.escape(name)} = \[([-+0-9.e(), ]*)\]", layer, re.MULTILINE)
    if found is None:
        raise KeyError(name)
    text = found[1].replace("(", "").replace(")", "")
    return np.array([float(one) for one in text.split(",")] if text else []).reshape(-1, columns)


EXPORTER = Exporter(encode, (VertexColors, Texture), read_provenance=provenance_of, decode=decode)
