"""Errors, by whose fault they are, each with an exit code; and alarms beside a result."""

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, get_args

Severity = Literal["note", "warning", "severe"]
EXIT_DONE = 0
EXIT_INPUT = 1
EXIT_USAGE = 2
EXIT_OURS = 70
EXIT_RESUMABLE = 75
EXIT_INTERRUPTED = 130


_names_options = ContextVar("names_options", default=False)
_OPTION = re.compile(r"(?<![\w/'\"-])--([a-z][a-z0-9]*(?:-[a-z0-9]+)*)(?![=\w-]|\.\w)")
_COMMAND = re.compile(r"m1pipe (?:[^:;.()]|\.(?! ))*$")
_PARAMETERS = {"latent": "n_latent", "leave-out-strata": "leave_out", "resamples": "n_resamples"}


def _for_reader(text: str) -> str:
    """A message written with the options of commands: in Python with the parameters they are."""
    return text if _names_options.get() else _OPTION.sub(_in_python, text)


class InputError(ValueError):
    """The user's input cannot be used.

    The message is one line that says what was expected, what was found, where, and what to do. It
    is written with the options of commands, and read in Python with the parameters that they are.
    """

    def __str__(self) -> str:
        return _for_reader(super().__str__())


def _in_python(found: re.Match[str]) -> str:
    """An option as Python names it; as it is where a command is quoted."""
    quoted = _COMMAND.search(found.string[: found.start()])
    return found[0] if quoted else parameter(found[1])


def parameter(option: str) -> str:
    """The parameter of Python that an option stands for.

    >>> parameter("train-sizes"), parameter("head-epochs"), parameter("latent")
    ('train_sizes', 'epochs', 'n_latent')
    """
    return _PARAMETERS.get(option, option.removeprefix("head-").replace("-", "_"))


@contextmanager
def naming_options() -> Iterator[None]:
    """Name options in messages while the block runs: a command was typed."""
    token = _names_options.set(True)
    try:
        yield
    finally:
        _names_options.reset(token)


class SettingError(InputError):
    """An option or setting cannot be what it is said to be: a usage error."""


class StoppedBySignalError(Exception):
    """A signal asked the run to stop; its state is saved and the run can be resumed."""


class PeerLostError(Exception):
    """Another process of the same run has ended; that one says why."""


class M1Warning(UserWarning):
    """Something was skipped, repaired or doubtful; the result stands but should be read with it.

    The message is written and read as an `InputError`'s.
    """

    def __str__(self) -> str:
        return _for_reader(super().__str__())


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """What ends a message on an unknown name: the nearest that is known, where one is near.

    >>> did_you_mean("Latnt", ["n_latent", "beta"]), did_you_mean("x", ["beta"])
    (': did you mean n_latent?', '')
    """
    names = {str(one).lower(): str(one) for one in known}
    near = get_close_matches(str(name).strip().lower(), names, n=1)
    return f": did you mean {names[near[0]]}?" if near else ""


def counted(n: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun, and a verb if it has one, in the right number.

    >>> counted(1700, "sample"), counted(1, "class", "classes"), counted(2, "is", "are")
    ('1,700 samples', '1 class', '2 are')
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def first_few(names: Sequence[object], most: int = 10) -> str:
    """Names as a message lists them: the first ones, and how many more there are.

    >>> first_few("abcd", most=2), first_few([])
    ('a, b and 2 more', 'none')
    """
    shown = ", ".join(map(str, names[:most]))
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown or "none"


@dataclass(frozen=True)
class Alarm:
    """One thing that the reader of a result should know before believing it.

    Attributes
    ----------
    name : str
        Short fixed name of the kind of alarm, such as "collapsed_predictor".
    severity : str
        "note", "warning", or "severe" (the result should not be believed as it stands).
    text : str
        One plain sentence or two, with the numbers.
    """

    name: str
    severity: Severity
    text: str

    def __post_init__(self) -> None:
        if self.severity not in get_args(Severity):
            raise ValueError(f"severity: expected one of {get_args(Severity)}: {self.severity!r}")

    def __str__(self) -> str:
        return f"{self.severity}: {self.text}"


def all_but(sample: object) -> str:
    """The condition of --where and --rows that leaves a sample out, as a shell takes it.

    Examples
    --------
    >>> print(all_but("s1"))
    'index != "s1"'
    """
    return shlex.quote(f'index != "{sample}"')
