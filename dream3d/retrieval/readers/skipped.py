"""What a reader left out: all counted, the first ones told."""

from __future__ import annotations

from dataclasses import dataclass, field

MOST_LINES = 20
"""Reasons that are kept."""


@dataclass
class Skipped:
    """Filled while a source is read."""

    count: int = 0
    reasons: list[str] = field(default_factory=list)
    """One line each, with the picture's place; at most :data:`MOST_LINES`."""

    def add(self, where: object, reason: object) -> None:
        """One more that was left out."""
        self.count += 1
        if len(self.reasons) < MOST_LINES:
            self.reasons.append(f"{where}: {reason}")

    def merge(self, other: Skipped) -> None:
        """All that another one counted."""
        self.count += other.count
        self.reasons += other.reasons[: max(0, MOST_LINES - len(self.reasons))]
