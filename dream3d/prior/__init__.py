"""Multi-view diffusion priors: reading a folder as untrusted data, and asking its networks questions."""

import sys

from dream3d.errors import UsageError

if sys.flags.optimize > 1:
    raise UsageError("diffusers reads docstrings, which Python was told to leave out; unset PYTHONOPTIMIZE, or use -O")
