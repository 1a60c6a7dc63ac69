"""A gallery as one HTML page with relative links, which works without a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from urllib.parse import quote

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; color: #222 }
h1 { font-size: 1.3rem } .sum { color: #666 }
ul { list-style: none; padding: 0; display: grid; gap: 1.2rem }
ul { grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)) }
li { border: 1px solid #ddd; border-radius: 8px; overflow: hidden } li div { padding: .5rem .8rem }
img { display: block; width: 100%; background: #6b8fc7 } small { color: #666 } .failed { border-color: #c66 }
.failed small { color: #a33 } a { color: #2457a6 }
"""


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

    def html(self) -> str:
        """One ``<li>``."""
        title = escape(self.title)
        line = f"<b>{title}</b><br><small>{escape(self.details)}</small>"
        if not self.image:
            return f"<li class={self.state}><div>{line}<br><small>{escape(self.note)}</small></div></li>"
        anchors = " · ".join(f'<a href="{quote(target)}">{escape(name)}</a>' for name, target in self.links.items())
        image = f'<img src="{quote(self.image)}" alt="four views of {title}" loading=lazy>'
        note = f"<br><small>{escape(self.note)}</small>" if self.note else ""
        return f"<li>{image}<div>{line}{note}<br>{anchors}</div></li>"


def gallery_page(title: str, summary: str, items: Sequence[GalleryItem]) -> str:
    """The whole page."""
    cards = "\n".join(item.html() for item in items)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style>\n<h1>{escape(title)}</h1><p class=sum>{escape(summary)}</p>\n"
        f"<ul>\n{cards}\n</ul></html>\n"
    )
