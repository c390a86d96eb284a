"""Regular expressions that users write, bounded in length, shape and time."""

import re
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from re import _constants, _parser  # type: ignore[attr-defined] # the only description of a pattern
from typing import Any

from m1pipe.errors import InputError

LONGEST_PATTERN = 1000
LONGEST_TEXT = 10_000
SECONDS = 10
_REPEATS = (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT)
_MANY = 16


def compile_pattern(text: str, where: str, *, flags: int = 0) -> re.Pattern[str]:
    """Compile a regular expression.

    Parameters
    ----------
    text : str
    where : str
        What it was given by, for messages.
    flags : int
        Of `re`.

    Returns
    -------
    re.Pattern

    Raises
    ------
    InputError
        If it is none, is too long, or repeats what is itself repeated, as (a+)+ does: such a
        pattern can take for ever on a short text.
    """
    if len(text) > LONGEST_PATTERN:
        raise InputError(
            f"{where}: expected a regular expression of at most {LONGEST_PATTERN:,} characters; "
            f"found {len(text):,}"
        )
    try:
        pattern = re.compile(text, flags)
        parts = _parser.parse(text, flags)
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(
            f"{where}: found {text!r}, which is no regular expression: {error}"
        ) from None
    if _nested(parts, inside=False):
        raise InputError(
            f"{where}: expected a regular expression without repeats inside repeats, such as "
            f"(a+)+; found {text!r}"
        )
    return pattern


def texts_with(pattern: re.Pattern[str], texts: Iterable[str], where: str) -> list[bool]:
    """Whether a pattern is found in each of some texts.

    Parameters
    ----------
    pattern : re.Pattern
    texts : iterable of str
        Of which the first `LONGEST_TEXT` characters count.
    where : str
        What the pattern was given by, for messages.

    Raises
    ------
    InputError
        If it takes longer than `SECONDS` of this process's time, where that can be measured: in
        the main thread.
    """
    with _limited(f"{where}: {pattern.pattern!r}"):
        return [pattern.search(text[:LONGEST_TEXT]) is not None for text in texts]


def _nested(node: Any, *, inside: bool) -> bool:
    """Whether a part that repeats often stands inside another one."""
    if isinstance(node, tuple) and any(node[0] is kind for kind in _REPEATS if node):
        _, most, body = node[1]
        often = most > _MANY
        return (often and inside) or _nested(body, inside=inside or often)
    if isinstance(node, tuple | list | _parser.SubPattern):
        return any(_nested(part, inside=inside) for part in node)
    return False


@contextmanager
def _limited(what: str) -> Iterator[None]:
    """Leave the block when it has used its time; `re` looks for signals as it works."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise InputError(f"{what} takes more than {SECONDS} s: write a simpler expression")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
