"""What a command shows while it works: logs and progress on stderr, a bar only on a terminal."""

import logging
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
Block = TypeVar("Block", bound=tuple[Any, ...])
PATIENCE = 2.0  # seconds without a sign of life
MINUTE = 60.0
LINE = 120  # characters
_FOLDERS = re.compile(r"[^\s/]*/(?=[^\s/])")
log = logging.getLogger("m1pipe")


def folded(text: str) -> str:
    """Text in lines of at most `LINE` characters, those that continue one set in.

    The folders of a path are not counted, and a path is never broken.

    >>> print(folded("one two " * 20).splitlines()[1])
      one two one two one two one two one two
    >>> folded("a/long/" * 20 + "path") == "a/long/" * 20 + "path"
    True
    """
    fold = textwrap.TextWrapper(
        LINE, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    ).fill
    lines = text.split("\n")
    return "\n".join(fold(x) if len(_FOLDERS.sub("", x)) > LINE else x for x in lines)


class _AboveBars(logging.StreamHandler):  # type: ignore[type-arg] # nor this one below 3.11
    """Log lines, each once, on lines of their own above the bars that are drawn."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Clear the bars, write the line, draw the bars again."""
        text = self.format(record)
        if text in self._said:
            return
        self._said.add(text)
        record = logging.makeLogRecord({**vars(record), "msg": folded(text), "args": None})
        with Bar.external_write_mode(file=self.stream):
            super().emit(record)


class Bar(tqdm):  # type: ignore[type-arg] # which has no subscript when it runs
    """A progress bar that is drawn from the first step on: at 0 % it would say nothing."""

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Draw the bar; whether there was anything to draw."""
        due = self.n > self.initial and time.time() >= (self.start_t or 0.0) + (self.delay or 0.0)
        shown: Any = super().display
        return due and shown(msg, pos)


def leads() -> bool:
    """Whether this process speaks and writes: alone, or the first that `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


def set_verbosity(verbose: int, quiet: bool) -> None:
    """Send m1pipe's log to stderr: `verbose` steps below INFO, or warnings only."""
    quiet = quiet or not leads()
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    handler = _AboveBars()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(level)
    log.propagate = False


@contextmanager
def speaking(verbose: bool | int) -> Iterator[None]:
    """Send the log to stderr while the block runs, where that is wanted and nothing receives it."""
    if not verbose or log.handlers:
        yield
        return
    level, propagates = log.level, log.propagate
    set_verbosity(int(verbose) - 1, quiet=False)
    try:
        yield
    finally:
        log.handlers.clear()
        log.setLevel(level)
        log.propagate = propagates


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
    shown: str | None = None,
) -> Any:
    """Progress bar, drawn only on a terminal, and only after `delay` seconds.

    Over `items` it is iterated; elsewhere than on a terminal the log has a line a minute then.
    Without `items` the bar is moved by its `update`; use it as a context manager.
    """
    if items is not None and not shows_bars():
        return _in_lines(items, total, label)
    return Bar(
        items,
        total=total,
        desc=label,
        unit=unit,
        unit_scale=total is not None and total > 1e5,
        leave=False,
        delay=delay,
        disable=not shows_bars(),
        bar_format=shown,
    )


def _in_lines(items: Iterable[T], total: float | None, label: str) -> Iterator[T]:
    """The items, with a line of the log at most once a minute."""
    said = time.monotonic()
    for n, item in enumerate(items, 1):
        yield item
        if time.monotonic() - said >= MINUTE:
            said = time.monotonic()
            log.info("%s: %d%s done", label, n, "" if total is None else f" of {total:,.0f}")


def over_rows(blocks: Iterable[Block], total: int) -> Iterator[Block]:
    """Blocks of rows as they come, the first entry of each being its start.

    What takes longer than `PATIENCE` seconds shows a bar of `total` samples.
    """
    with progress(total=total, label="samples", unit="samples", delay=PATIENCE) as bar:
        for block in blocks:
            bar.update(block[0] - bar.n)
            yield block
        bar.update(total - bar.n)
