"""A gallery as one HTML page with relative links, which works without a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from urllib.parse import quote

from dream3d.report.page import html_page

_STYLE = """
body { margin: 2rem auto; max-width: 1200px; padding: 0 1rem }
h1 { font-size: 1.3rem } .sum, small { color: var(--faint) }
ul { list-style: none; padding: 0; display: grid; gap: 1.2rem; align-items: start }
ul { grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)) }
li { border: 1px solid var(--line); border-radius: 8px; overflow: hidden; background: var(--card) }
li div { padding: .5rem .8rem; overflow-wrap: anywhere }
img { display: block; width: 100%; background: #6b8fc7 } .failed { border-color: var(--bad) }
.failed small { color: var(--bad) }
button { display: block; width: 100%; padding: 0; border: 0; background: none; cursor: pointer; position: relative }
button::after { content: "3D"; position: absolute; right: .5rem; top: .5rem; padding: .05rem .5rem; border-radius: 9px;
  background: #16181bcc; color: #fff; font: 600 12px system-ui, sans-serif }
button:hover::after, button:focus-visible::after { background: var(--accent) }
iframe { display: block; width: 100%; aspect-ratio: 1; border: 0 }
"""

_SCRIPT = """
const open = [];
for (const button of document.querySelectorAll("button[data-page]")) {
  button.addEventListener("click", () => {
    const frame = document.createElement("iframe");
    frame.title = button.title;
    frame.src = button.dataset.page + "#viewer";
    button.replaceWith(frame);
    open.push([frame, button]);
    if (open.length > 6) {
      const [oldest, before] = open.shift();
      oldest.replaceWith(before);
    }
  });
}
"""
"""A click on a picture puts the model in its place: the run's page, which shows only that. Browsers bear a few."""


@dataclass(frozen=True)
class GalleryItem:
    """A card of the page: plain text and relative paths, escaped here."""

    title: str
    details: str
    state: str = ""
    """CSS class of a card without an image, such as ``failed``."""
    note: str = ""
    image: str = ""
    links: Mapping[str, str] = field(default_factory=dict)
    """Path by what is written."""
    page: str = ""
    """Path of a page whose part ``#viewer`` is the model, to be turned."""

    def html(self) -> str:
        """One ``<li>``."""
        title = escape(self.title)
        line = f"<b>{title}</b><br><small>{escape(self.details)}</small>"
        if not self.image:
            return f"<li class={self.state}><div>{line}<br><small>{escape(self.note)}</small></div></li>"
        anchors = " · ".join(f'<a href="{quote(target)}">{escape(name)}</a>' for name, target in self.links.items())
        image = f'<img src="{quote(self.image)}" alt="four views of {title}" loading=lazy>'
        if self.page:
            image = f'<button data-page="{quote(self.page)}" title="turn {title}">{image}</button>'
        note = f"<br><small>{escape(self.note)}</small>" if self.note else ""
        return f"<li>{image}<div>{line}{note}<br>{anchors}</div></li>"


def gallery_page(title: str, summary: str, items: Sequence[GalleryItem]) -> str:
    """The whole page."""
    cards = "\n".join(item.html() for item in items)
    body = f"<h1>{escape(title)}</h1><p class=sum>{escape(summary)}</p>\n<ul>\n{cards}\n</ul>"
    script = _SCRIPT if any(item.page for item in items) else ""
    return html_page(title, _STYLE, body, classic=script, beside=True)
