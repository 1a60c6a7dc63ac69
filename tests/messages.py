"""What a message of ours must be."""

from __future__ import annotations


def one_line(error: Exception, most: int = 1000) -> str:
    """The text of an error, after a look at it: one line, nothing that a terminal obeys, not endless."""
    text = str(error)
    assert text.isprintable(), text[:most]
    assert len(text) < most, text[:most]
    return text
