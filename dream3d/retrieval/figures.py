"""What a corpus holds, in lines for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dream3d.retrieval.lance import GUESSED, LanceStore
from dream3d.retrieval.memory import MemoryStore
from dream3d.retrieval.records import UNKNOWN

MOST = 8
"""Values of a field that are listed; the rest is counted."""


def figures(store: MemoryStore | LanceStore) -> list[str]:
    """Pictures, captions, licences, sources and authors."""
    names = ("caption", "licence", "source", "author")
    if isinstance(store, MemoryStore):
        columns = {name: [str(getattr(entry, name)) for entry in store.entries()] for name in names}
    else:
        columns = store.columns(names)
    guesses = store.columns((GUESSED,))[GUESSED] if isinstance(store, LanceStore) and store.has_guesses else []
    without = columns["caption"].count("")
    lines = [
        f"pictures   {len(columns['caption'])}",
        f"captions   {len(set(columns['caption']) - {''})} different ones",
        f"licences   {counted(columns['licence'])}",
        f"sources    {counted([source.partition(',')[0] for source in columns['source']])}",
        f"authors    {counted(columns['author'])}",
    ]
    if without:
        lines.insert(2, f"uncaptioned {without}, which 'dream3d corpus caption' can guess")
    if any(guesses):
        lines.insert(2, f"guessed    {counted([one for one in guesses if one])}")
    return lines


def counted(values: Sequence[str]) -> str:
    """The values with their counts, the most frequent first: "MIT 849, CC0 12"."""
    counts = Counter(value or UNKNOWN for value in values).most_common()
    said = ", ".join(f"{value} {count}" for value, count in counts[:MOST])
    return said + (f", and {len(counts) - MOST} more" if len(counts) > MOST else "") if counts else "none"
