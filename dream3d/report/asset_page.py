"""The page of one asset: the model to turn, its views, how it came about, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from dream3d.report.page import data_uri, html_page, viewer_element, viewer_licence, viewer_script

_STYLE = """
main { max-width: 1120px; margin: 0 auto; padding: 1.6rem 1.2rem 3rem }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere }
h2 { font-size: 1.05rem; margin: 2.2rem 0 .7rem }
.sub { color: var(--faint); margin: .2rem 0 1.2rem }
.top { display: grid; grid-template-columns: minmax(0, 3fr) minmax(270px, 2fr); gap: 1.4rem; align-items: start }
@media (max-width: 760px) { .top { grid-template-columns: minmax(0, 1fr) } }
.stage { position: relative; aspect-ratio: 1; background: var(--stage); border-radius: 10px; overflow: hidden }
model-viewer { width: 100%; height: 100%; --poster-color: transparent }
.stage p { position: absolute; inset: auto 0 .6rem; margin: 0; text-align: center; color: var(--faint);
  font-size: .85rem; pointer-events: none }
.stage > img { width: 100%; height: 100%; object-fit: contain }
table { width: 100%; border-collapse: collapse; font-size: .93rem }
td { padding: .32rem 0; border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere }
td:last-child { text-align: right; padding-left: 1rem; font-variant-numeric: tabular-nums }
td small, .hint { color: var(--faint); font-size: .85rem }
.note { border-left: 3px solid var(--bad); padding: .1rem .7rem; margin: .8rem 0 0 }
.views { display: grid; grid-template-columns: repeat(auto-fill, minmax(118px, 1fr)); gap: .6rem }
figure { margin: 0 } figcaption { color: var(--faint); font-size: .85rem; text-align: center; padding-top: .15rem }
.views img, video { display: block; width: 100%; border-radius: 8px; background: #fff }
.targets { max-width: 100%; border-radius: 8px; image-rendering: pixelated }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 1.2rem }
.pair figcaption { text-align: left } video { max-width: 300px }
svg { display: block; width: 100%; background: var(--card); border: 1px solid var(--line); border-radius: 8px }
svg path.grid { stroke: var(--line); fill: none } svg .tick { fill: var(--faint); font-size: 15px }
svg polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round } svg .band { fill: var(--accent); opacity: .22 }
[class^=key] { display: inline-block; white-space: nowrap; margin-left: .8em }
.line0 { stroke: var(--accent) } .line1 { stroke: var(--second) }
.key0::before, .key1::before { content: ""; display: inline-block; width: .9em; height: .2em;
  margin: 0 .35em .25em 0; background: var(--accent) } .key1::before { background: var(--second) }
h2 + div + details { margin-top: 2rem }
details { border-top: 1px solid var(--line); padding: .5rem 0 }
details:last-of-type { border-bottom: 1px solid var(--line) }
summary { cursor: pointer; font-weight: 600 } pre { white-space: pre-wrap; font-size: .8rem; color: var(--faint) }
details td:last-child { font-family: ui-monospace, monospace; font-size: .85rem }
body.bare main { padding: 0; max-width: none } body.bare main > :not(.top), body.bare .facts { display: none }
body.bare .top { display: block } body.bare .stage { height: 100vh; aspect-ratio: auto; border-radius: 0 }
"""

_SCRIPT = """
if (location.hash === "#viewer") document.body.classList.add("bare");
for (const model of document.querySelectorAll("model-viewer")) {
  const hint = model.parentElement.querySelector("p");
  model.addEventListener("load", () => { document.documentElement.dataset.model = "loaded"; });
  model.addEventListener("error", () => { hint.textContent = "This browser cannot show the model (it needs WebGL)."; });
}
"""


@dataclass(frozen=True)
class Fact:
    """A line of a table: plain text, escaped here."""

    name: str
    value: str
    hint: str = ""
    """Smaller, under the name."""

    def html(self) -> str:
        """One ``<tr>``."""
        hint = f"<br><small>{escape(self.hint)}</small>" if self.hint else ""
        return f"<tr><td>{escape(self.name)}{hint}</td><td>{escape(self.value)}</td></tr>"


@dataclass(frozen=True)
class Plot:
    """A picture of numbers."""

    svg: str
    """As :func:`dream3d.report.plots.line_plot` makes it."""
    caption: str
    keys: Sequence[str] = ()
    """Names of its lines, if there is more than one."""

    def html(self) -> str:
        """One ``<figure>``."""
        keys = "".join(f'<span class="key{index}">{escape(key)}</span>' for index, key in enumerate(self.keys))
        return f"<figure>{self.svg}<figcaption>{escape(self.caption)}{keys}</figcaption></figure>"


@dataclass(frozen=True)
class AssetPage:
    """All that the page shows; what is empty or None is left out. Text is plain."""

    title: str
    subtitle: str
    glb: bytes | None = None
    views: Sequence[tuple[str, bytes]] = ()
    """Names and PNGs of views of the mesh; the first one stands for the model until it can be turned."""
    facts: Sequence[Fact] = ()
    """What was measured."""
    notes: Sequence[str] = ()
    """What a user should know of it: sentences."""
    turntable: bytes | None = None
    """An mp4."""
    preview: bytes | None = None
    """A PNG of the field's renders."""
    targets: bytes | None = None
    """A PNG of what the prior drew."""
    plots: Sequence[Plot] = ()
    tables: Mapping[str, Sequence[Fact]] = field(default_factory=dict)
    """By their titles; they begin closed."""

    def html(self) -> str:
        """The whole page, one file."""
        parts = [
            f"<h1>{escape(self.title)}</h1>\n<p class=sub>{escape(self.subtitle)}</p>",
            self._top(),
            self._views(),
            self._pictures(),
            _section("How the run went", "pair", [plot.html() for plot in self.plots]),
            *(_table(title, facts) for title, facts in self.tables.items()),
        ]
        if self.glb is not None:
            parts.append(
                "<details><summary>Licence of the viewer in this page</summary><p class=hint>The model is shown by "
                "model-viewer, copyright Google LLC and others, under the licence below; the libraries in it keep "
                f"their own notices.</p><pre>{escape(viewer_licence())}</pre></details>"
            )
        body = "<main>\n" + "\n".join(part for part in parts if part) + "\n</main>"
        scripts = () if self.glb is None else (viewer_script(),)
        classic = "" if self.glb is None else _SCRIPT
        return html_page(self.title, _STYLE, body, scripts=scripts, classic=classic)

    def _top(self) -> str:
        poster = self.views[0][1] if self.views else None
        stage = ""
        if self.glb is not None:
            viewer = viewer_element(self.glb, self.title, poster)
            stage = f'<div class="stage" id="viewer">{viewer}<p>drag to turn, scroll to zoom</p></div>'
        elif poster is not None:
            stage = f'<div class="stage"><img src="{data_uri("image/png", poster)}" alt="{escape(self.title)}"></div>'
        rows = "".join(fact.html() for fact in self.facts)
        notes = "".join(f"<p class=note>{escape(note)}</p>" for note in self.notes)
        facts = f'<div class="facts">{f"<table>{rows}</table>" if rows else ""}{notes}</div>'
        return f'<div class="top">{stage}{facts}</div>' if stage else facts

    def _views(self) -> str:
        images = [
            f'<figure><img src="{data_uri("image/png", png)}" alt="{escape(name)}"><figcaption>{escape(name)}'
            "</figcaption></figure>"
            for name, png in self.views
        ]
        return _section("The mesh from all sides", "views", images)

    def _pictures(self) -> str:
        figures = []
        drawn = (
            ("What the prior drew on the way", self.targets),
            ("The field that was fitted to it", self.preview),
        )
        for caption, png in drawn:
            if png is not None:
                image = f'<img class="targets" src="{data_uri("image/png", png)}" alt="{escape(caption)}">'
                figures.append(f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>")
        if self.turntable is not None:
            film = f'<video src="{data_uri("video/mp4", self.turntable)}" autoplay loop muted playsinline></video>'
            figures.append(f"<figure>{film}<figcaption>The mesh, turning</figcaption></figure>")
        return _section("From the prior to the mesh", "pair", figures)


def _section(title: str, kind: str, parts: Sequence[str]) -> str:
    return f'<h2>{escape(title)}</h2>\n<div class="{kind}">\n{"".join(parts)}\n</div>' if parts else ""


def _table(title: str, facts: Sequence[Fact]) -> str:
    rows = "".join(fact.html() for fact in facts)
    return f"<details><summary>{escape(title)}</summary><table>{rows}</table></details>" if rows else ""
