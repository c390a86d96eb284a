"""What a command shows while it works: logs and progress on stderr, a bar only on a terminal."""

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
Block = TypeVar("Block", bound=tuple[Any, ...])
PATIENCE = 2.0  # seconds without a sign of life
log = logging.getLogger("m1pipe")


def leads() -> bool:
    """Whether this process speaks and writes: alone, or the first that `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


def set_verbosity(verbose: int, quiet: bool) -> None:
    """Send m1pipe's log to stderr: `verbose` steps below INFO, or warnings only."""
    quiet = quiet or not leads()
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(level)
    log.propagate = False


def shows_bars() -> bool:
    """Whether progress bars are drawn: stderr is a terminal and the log is not silenced."""
    return sys.stderr.isatty() and log.isEnabledFor(logging.INFO)


def progress(
    items: Iterable[T] | None = None,
    *,
    total: float | None = None,
    label: str = "",
    unit: str = "it",
    delay: float = 0.0,
) -> "tqdm[T]":
    """Progress bar over `items`, drawn only on a terminal, and only after `delay` seconds.

    Without `items` the bar is moved by its `update`; use it as a context manager then.
    """
    options: dict[str, Any] = {"unit_scale": total is not None and total > 1e5, "leave": False}
    options["delay"] = delay
    if items is None:
        return tqdm(total=total, desc=label, unit=unit, disable=not shows_bars(), **options)
    return tqdm(items, total=total, desc=label, unit=unit, disable=not shows_bars(), **options)


def over_rows(blocks: Iterable[Block], total: int) -> Iterator[Block]:
    """Blocks of rows as they come, the first entry of each being its start.

    What takes longer than `PATIENCE` seconds shows a bar of `total` samples.
    """
    bar: Any = progress(total=total, label="samples", unit=" samples", delay=PATIENCE)
    with bar:
        for block in blocks:
            bar.update(block[0] - bar.n)
            yield block
        bar.update(total - bar.n)
