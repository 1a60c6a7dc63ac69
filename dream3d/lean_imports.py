"""A quicker start: diffusers imports, where they are installed, libraries that this program never uses through it.

bitsandbytes, peft and scipy's statistics are a third of the CPU time until a prior can be used (1.8 of 6 seconds).
Only processes that are this program's own do without them: where another program imports ``dream3d``, diffusers
stays whole.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

FLAGS = {
    "diffusers.utils.import_utils": ("_bitsandbytes_available", "_peft_available", "_scipy_available"),
    "diffusers.utils": ("USE_PEFT_BACKEND",),  # else a network that runs for the first time imports peft
}
"""By the module that has them. What imports these libraries itself, as dreambooth does, still finds them."""
PARTS = ("diffusers.models", "diffusers.schedulers")
"""Packages that read the flags while they are imported; one of them is always the first."""


@functools.cache
def leave_out_unused() -> None:
    """From now on diffusers, when it is imported, takes the libraries of ``FLAGS`` for not installed.

    Nothing is imported by this call, and a version of diffusers without these flags is imported as it is.
    """
    sys.meta_path.insert(0, _BeforeParts())


class _BeforeParts(MetaPathFinder):
    """Finds nothing; it is asked for diffusers' packages when the flags are there and nothing has read them yet."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in PARTS:
            sys.meta_path.remove(self)
            for module, names in FLAGS.items():
                for name in names:
                    if hasattr(sys.modules.get(module), name):
                        setattr(sys.modules[module], name, False)
        return None
