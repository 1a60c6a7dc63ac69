"""The command line: one file per command, shared options in ``options``, the terminal display in ``display``."""

import time

LOADED_AT = time.monotonic()
"""When the process began, less than 0.1 s before: everything heavy is imported later."""
