"""How each process of this program's own begins; other programs that import us are left alone."""

from __future__ import annotations

from dream3d.lean_imports import leave_out_unused
from dream3d.threads import share_cores


def set_up() -> None:
    """Share the cores with other programs, and start without libraries that are not used. Twice is as good as once."""
    share_cores()
    leave_out_unused()
