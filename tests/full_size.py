"""Convert one checkpoint and print the peak memory of this process, bytes: run by test_convert_full.py."""

import resource
import sys
from pathlib import Path

from dream3d.prior.official.convert import convert


def peak_bytes() -> int:
    """Peak resident memory, mapped files included.

    Linux counts the parent of a fresh process in ``ru_maxrss``, so its own high-water mark is read.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
    print(peak_bytes())  # noqa: T201
