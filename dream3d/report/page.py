"""What all pages share: a document that loads nothing, and the viewer of 3D models inside it."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence
from html import escape
from importlib.resources import files

COLORS = """
:root { color-scheme: light dark; --paper: #fbfbfa; --ink: #23272b; --faint: #666e76; --line: #dfe1e3; --card: #fff;
  --stage: #e9ebee; --accent: #2f6f9f; --second: #c2762f; --bad: #a8372f }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --ink: #e4e6e8; --faint: #9aa2aa; --line: #33383d;
  --card: #1e2125; --stage: #2b2f34; --accent: #79b3dd; --second: #e2a468; --bad: #ee8a80 } }
* { box-sizing: border-box }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper) }
a { color: var(--accent) }
"""


def data_uri(kind: str, content: bytes) -> str:
    """The content, of a MIME type, as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def html_page(
    title: str,
    style: str,
    body: str,
    *,
    scripts: Sequence[str] = (),
    classic: str = "",
    beside: bool = False,
    served: bool = False,
) -> str:
    """A whole document. ``body``, and only it, is HTML already.

    A Content-Security-Policy forbids the network, all addresses but data inside the page, and all scripts but these:
    ``scripts`` are modules, ``classic`` is one that runs before them. With ``beside``, images and frames may come from
    the page's own place. With ``served``, the page may ask the server that it came from.
    ValueError for a script that cannot stand in a page.
    """
    for script in (*scripts, classic):
        if "</script" in script.lower() or "<script" in script.lower():
            raise ValueError("a script in a page cannot hold the words that begin or end one")
    hashes = [_hash(script) for script in (*scripts, classic) if script]
    # The viewer's decoder of compressed meshes is WebAssembly.
    allowed = " ".join([*hashes, "'wasm-unsafe-eval'"] if scripts else hashes) or "'none'"
    own = "'self' file:" if beside else ""
    server = " 'self'" if served else ""
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {allowed}",
            "style-src 'unsafe-inline'",
            f"img-src data: blob:{server} {own}".strip(),
            "media-src data:",
            f"connect-src data: blob:{server}",
            f"frame-src {own}" if own else "frame-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    first = f"<script>{classic}</script>\n" if classic else ""
    modules = "".join(f'<script type="module">{script}</script>\n' for script in scripts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n'
        f"<style>{COLORS}{style}</style>\n</head>\n<body>\n{body}\n{first}{modules}</body>\n</html>\n"
    )


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@functools.lru_cache
def viewer_script() -> str:
    """model-viewer (Apache-2.0), which shows a GLB in an element of its own; a script for a module."""
    source = _vendored("model-viewer.min.js")
    return source.rsplit("//# sourceMappingURL=", 1)[0]  # browsers' tools would look for it


@functools.lru_cache
def viewer_licence() -> str:
    """The licence of :func:`viewer_script`."""
    return _vendored("LICENSE")


def _vendored(name: str) -> str:
    return (files("dream3d.report") / "model_viewer" / name).read_text("utf-8")


def viewer_element(glb: bytes, description: str, poster: bytes | None = None) -> str:
    """A ``<model-viewer>`` of a GLB, turned by mouse or fingers; a PNG is shown until it is ready."""
    shown = f' poster="{data_uri("image/png", poster)}"' if poster else ""
    return (
        f'<model-viewer src="{data_uri("model/gltf-binary", glb)}" alt="{escape(description)}"{shown} '
        'camera-controls touch-action="pan-y" interaction-prompt="none" '
        'shadow-intensity="0.8" shadow-softness="0.9" camera-orbit="25deg 72deg 110%">'
        '<div slot="progress-bar"></div></model-viewer>'
    )
