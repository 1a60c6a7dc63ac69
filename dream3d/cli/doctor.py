"""``dream3d doctor``: what is installed, and what will be used."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator

from dream3d.cli.group import DebugOption
from dream3d.version import __version__

Row = tuple[str, str]


def doctor(debug: DebugOption = False) -> None:
    """Show versions, devices, priors, and the backends with the reason for each."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from dream3d.cli.console import make_console

    console = make_console()
    table = Table(box=box.SIMPLE, show_header=False, padding=(0, 1))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for rows in SECTIONS:
        for name, value in _guarded(rows):
            # Paths and reasons are data: rich must not read markup into them.
            table.add_row(Text(name), Text(value))
        table.add_section()
    console.print(table)


def _guarded(rows: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    """The rows of a section; a failure becomes a row, because what is broken is what doctor is asked about."""
    try:
        yield from rows()
    except Exception as error:  # any failure of a library that is being diagnosed
        yield rows.__name__.strip("_"), f"failed: {type(error).__name__}: {error}"


def _system() -> Iterator[Row]:
    yield "dream3d", __version__
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()})"
    yield "system", platform.platform()


def _torch() -> Iterator[Row]:
    import torch

    from dream3d.threads import available_cores

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    yield "torch", f"{torch.__version__}, built {'for ' if torch.version.cuda else ''}{build}"
    yield "CPU", f"{torch.get_num_threads()} threads on {available_cores()} cores"
    if not torch.cuda.is_available():
        yield "CUDA", "no device found; runs use the CPU"
        return
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        yield f"cuda:{index}", f"{device.name}, {device.total_memory / 1e9:.0f} GB"


def _backends() -> Iterator[Row]:
    from dream3d.cli.device import resolve_device
    from dream3d.kernels.operations import report

    for choice in report(resolve_device("auto")):
        yield choice.operation, f"{choice.name}: {choice.reason}"


def _priors() -> Iterator[Row]:
    from dream3d.weights.catalogue import catalogue

    for prior in catalogue():
        place = str(prior.path) if prior.present and prior.path else "not installed"
        yield f"prior {prior.name}", "\n".join(filter(None, (place, f"licence: {prior.licence}", prior.note)))


SECTIONS: tuple[Callable[[], Iterable[Row]], ...] = (_system, _torch, _backends, _priors)
"""What is shown, in order."""
