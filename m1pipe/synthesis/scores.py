"""Quality scores: value, ceiling, floor and interval, by the same rules for all."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from m1pipe.synthesis.resampling import ResamplingPlan, Sets

Family = Literal["marginal", "dependence", "joint", "utility", "privacy", "attack", "camda"]
Ideal = Literal["higher", "lower", "one", "half", "shown"]
Yardstick = tuple[float, float]  # ceiling and floor of a score
Values = Mapping[str, "float | str"]  # a text says why the score does not apply to these data

# What may go wrong while a score is computed and is shown in its row; anything else is our fault.
FAILURES = (ArithmeticError, ValueError, IndexError, MemoryError)
SHARE, CORRELATION, POSITIVE, ANY = (0.0, 1.0), (-1.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)
UNCALIBRATED = ("privacy", "attack", "camda")  # families without worthless samples to compare with
Z95 = 1.959964  # half-width of a 95 % interval in standard errors
_WIDE_ENOUGH = 1e-3  # a ceiling closer than this to the floor, relatively, calibrates nothing


@dataclass(frozen=True)
class Definition:
    """A score's name, what it says, and which way is better.

    Attributes
    ----------
    family : str
        "marginal", "dependence", "joint", "utility", "privacy", "attack" or "camda".
    name : str
        Key in tables.
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

    family: Family
    name: str
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
        The same score of real samples made worthless (their means alone, or shuffled genes); NaN
        where the score cannot see that: it is not worse than that of real samples.
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
        if self._is_one_sided and not self._gap > 0:
            object.__setattr__(self, "floor", math.nan)

    @property
    def _is_one_sided(self) -> bool:
        definition = self.definition
        return definition.ideal in ("higher", "lower") and definition.family not in UNCALIBRATED

    @property
    def _gap(self) -> float:
        """How much worse the floor is than the ceiling, of a one-sided score."""
        gap = self.ceiling - self.floor
        gap = -gap if self.definition.ideal == "lower" else gap
        return gap if gap > _WIDE_ENOUGH * max(abs(self.ceiling), abs(self.floor)) else math.nan

    @property
    def calibrated(self) -> float:
        """(value - floor) / (ceiling - floor) of a one-sided score; NaN for all others."""
        if not self._is_one_sided:
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


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Scores that one function computes together.

    Attributes
    ----------
    definitions : tuple of Definition
    function : callable
        (hold-out, samples to be scored) to values by name; both of shape (n, n_columns).
    sets : Sets
        What it is given.
    plan : ResamplingPlan
        Which rows.
    narrow : ndarray of int, optional
        Columns that intervals use. Left out: all.
    """

    definitions: tuple[Definition, ...]
    function: Callable[[np.ndarray, np.ndarray], Values]
    sets: Sets
    plan: ResamplingPlan
    narrow: np.ndarray | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scores."""
        return tuple(definition.name for definition in self.definitions)


def yardsticks(measure: Measure) -> dict[str, Yardstick]:
    """Ceiling (real against hold-out) and floor of every score; NaN where it cannot be computed.

    Parameters
    ----------
    measure : Measure
    """
    sets, draws = measure.sets, measure.plan.draws
    ceiling, floor = (
        _averages(measure, [(sets.holdout[d.holdout], samples[d.real]) for d in draws])[0]
        for samples in (sets.real, sets.floor)
    )
    return {
        name: (ceiling.get(name, math.nan), floor.get(name, math.nan)) for name in measure.names
    }


def scores(measure: Measure, known: Mapping[str, Yardstick]) -> list[Score]:
    """Every score of the synthetic samples, an error in its place where it fails.

    Parameters
    ----------
    measure : Measure
    known : mapping
        From `yardsticks`.
    """
    sets, plan = measure.sets, measure.plan
    pairs = [(sets.holdout[d.holdout], sets.synthetic[d.synthetic]) for d in plan.draws]
    values, reasons = _averages(measure, pairs)
    resampled = values and any(d.has_interval for d in measure.definitions)
    errors = _standard_errors(measure) if resampled else {}
    out = []
    for definition in measure.definitions:
        name = definition.name
        value = values.get(name, math.nan)
        half = Z95 * errors.get(name, math.nan) if definition.has_interval else math.nan
        reason, applies = reasons.get(name, ("", True))
        if applies and not reason and not math.isfinite(value):
            reason = "not a number: it needs values that vary on both sides"
        out.append(
            Score(
                definition=definition,
                value=value,
                low=value - half,
                high=value + half,
                ceiling=known[name][0],
                floor=known[name][1],
                n_independent=plan.n_independent,
                error=reason if applies else "",
                not_applicable="" if applies else reason,
            )
        )
    return out


def failed(definitions: Sequence[Definition], reason: str) -> list[Score]:
    """A row for each score that says why it could not be computed."""
    return [Score(definition=definition, error=reason) for definition in definitions]


def _averages(
    measure: Measure, pairs: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[dict[str, float], dict[str, tuple[str, bool]]]:
    """Mean over draws of every score, and (reason, whether it applies) where there is none."""
    values: dict[str, list[float]] = {name: [] for name in measure.names}
    reasons: dict[str, tuple[str, bool]] = {}
    for holdout, samples in pairs:
        try:
            found = measure.function(holdout, samples)
        except FAILURES as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            reasons |= dict.fromkeys(measure.names, (reason, True))
            continue
        for name in measure.names:
            value = found[name]
            if isinstance(value, str):
                reasons[name] = (value, False)
            else:
                values[name].append(value)
    means = {name: float(np.mean(v)) for name, v in values.items() if v and name not in reasons}
    return means, reasons


def _standard_errors(measure: Measure) -> dict[str, float]:
    """Standard error of every score from half-samples; none where too many of these fail."""
    sets, narrow = measure.sets, measure.narrow
    values: dict[str, list[float]] = {name: [] for name in measure.names}
    for half in measure.plan.halves:
        h, a = sets.holdout[half.holdout], sets.synthetic[half.synthetic]
        if narrow is not None:
            h, a = h[:, narrow], a[:, narrow]
        try:
            found = measure.function(h, a)
        except FAILURES:
            continue
        for name in measure.names:
            value = found[name]
            if not isinstance(value, str) and math.isfinite(value):
                values[name].append(value)
    enough = len(measure.plan.halves) / 2
    return {
        name: float(np.std(v, ddof=1)) * measure.plan.inflation
        for name, v in values.items()
        if len(v) > max(enough, 1)
    }
