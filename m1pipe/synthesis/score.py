"""What a quality score is: its definition, its value with all that it is read against."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Family = Literal["marginal", "dependence", "joint", "utility", "privacy"]
Ideal = Literal["higher", "lower", "one", "half", "shown"]
Values = Mapping[str, "float | str"]  # a text says why the score does not apply to these data

# What may go wrong while a score is computed and is shown in its row; anything else is our fault.
FAILURES = (ArithmeticError, ValueError, IndexError, MemoryError)
SHARE, CORRELATION, POSITIVE, ANY = (0.0, 1.0), (-1.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)
Z95 = 1.959964  # half-width of a 95 % interval in standard errors
_WIDE_ENOUGH = 1e-3  # a ceiling closer than this to the floor, relatively, calibrates nothing


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A score's name, what it says, and which way is better.

    Attributes
    ----------
    name : str
        Key in tables.
    family : str
        "marginal", "dependence", "joint", "utility" or "privacy".
    title : str
        Shown to readers.
    ideal : str
        "higher" or "lower" is better; "one": two-sided, a ratio that should be 1; "half":
        two-sided, a share that should be 0.5; "shown": neither way is better.
    meaning : str
        One line.
    within : (float, float)
        Least and largest value there can be; intervals end there.
    has_interval : bool
        False where resampling says nothing: p values, and counts of them.
    """

    name: str
    family: Family
    title: str
    ideal: Ideal
    meaning: str
    within: tuple[float, float] = ANY
    has_interval: bool = True


@dataclass(frozen=True, kw_only=True)
class Score:
    """One score of one set of samples, or why there is none.

    Attributes
    ----------
    definition : Definition
    value : float
        NaN where it was not computed.
    low, high : float
        95 % interval; NaN where there is none.
    ceiling : float
        The same score of real samples in the place of the synthetic ones.
    floor : float
        The same score of real samples made worthless (METRICS: mean only, or shuffled genes).
    corrupted : float
        The same score of real samples with a known, mild corruption.
    n_independent : int
        Samples or donors of the hold-out behind the value.
    error : str
        Why it could not be computed; empty where it could.
    not_applicable : str
        Why it does not apply to these data; empty where it does.
    """

    definition: Definition
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    ceiling: float = math.nan
    floor: float = math.nan
    corrupted: float = math.nan
    n_independent: int = 0
    error: str = ""
    not_applicable: str = ""

    def __post_init__(self) -> None:
        for end in ("low", "high"):
            within = float(np.clip(getattr(self, end), *self.definition.within))
            object.__setattr__(self, end, within)

    @property
    def calibrated(self) -> float:
        """(value - floor) / (ceiling - floor) of a one-sided score; NaN for all others."""
        if self.definition.ideal not in ("higher", "lower") or self.definition.family == "privacy":
            return math.nan
        gap = self.ceiling - self.floor
        if self.definition.ideal == "lower":
            gap = -gap
        if not gap > _WIDE_ENOUGH * max(abs(self.ceiling), abs(self.floor)):
            return math.nan
        return (self.value - self.floor) / (self.ceiling - self.floor)

    @property
    def abs_log_ratio(self) -> float:
        """|log value| of a two-sided ratio; NaN for all others."""
        if self.definition.ideal != "one" or not self.value > 0:
            return math.nan
        return abs(math.log(self.value))

    def row(self) -> dict[str, float | int | str]:
        """The score as a row of a table."""
        definition = self.definition
        return {
            "family": definition.family,
            "score": definition.name,
            "title": definition.title,
            "ideal": definition.ideal,
            "value": self.value,
            "ci_low": self.low,
            "ci_high": self.high,
            "ceiling": self.ceiling,
            "floor": self.floor,
            "corrupted": self.corrupted,
            "calibrated": self.calibrated,
            "abs_log_ratio": self.abs_log_ratio,
            "n_independent": self.n_independent,
            "error": self.error,
            "not_applicable": self.not_applicable,
            "meaning": definition.meaning,
        }


@dataclass(frozen=True)
class Alarm:
    """One thing that the reader should know before believing the scores.

    Attributes
    ----------
    name : str
        Short fixed name.
    severity : {"note", "warning", "severe"}
    text : str
        A plain sentence or two, with the numbers.
    """

    name: str
    severity: Literal["note", "warning", "severe"]
    text: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.text}"


def attempt(function: Callable[[], Values], names: tuple[str, ...]) -> tuple[Values, str]:
    """Values of a function, or NaN for every name and the reason where it fails."""
    try:
        return function(), ""
    except FAILURES as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return dict.fromkeys(names, math.nan), reason
