"""One score after another: value, ceiling, floor and interval, by the same rules for all."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from m1pipe.synthesis.resample import Plan, View
from m1pipe.synthesis.score import FAILURES, Z95, Definition, Score, Values, attempt

Function = Callable[[np.ndarray, np.ndarray], Values]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Scores that one function computes together.

    Attributes
    ----------
    definitions : tuple of Definition
    function : callable
        (hold-out, samples to be judged) to values by name; both of shape (n, n_columns).
    view : View
        What it is given.
    plan : Plan
        Which rows.
    narrow : ndarray of int, optional
        Columns that intervals use. Left out: all.
    """

    definitions: tuple[Definition, ...]
    function: Function
    view: View
    plan: Plan
    narrow: np.ndarray | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scores."""
        return tuple(definition.name for definition in self.definitions)


@dataclass(frozen=True)
class Yardstick:
    """Ceiling and floor of one score."""

    ceiling: float = math.nan
    floor: float = math.nan


def yardsticks(measure: Measure) -> dict[str, Yardstick]:
    """Ceiling (real against hold-out) and floor of every score; NaN where it cannot be computed.

    Parameters
    ----------
    measure : Measure
    """
    view, draws = measure.view, measure.plan.draws
    pairs = [(view.holdout[d.holdout], view.real[d.real]) for d in draws]
    ceiling, _ = _averages(measure, pairs)
    floor, _ = _averages(measure, [(view.holdout[d.holdout], view.floor[d.real]) for d in draws])
    return {
        name: Yardstick(ceiling.get(name, math.nan), floor.get(name, math.nan))
        for name in measure.names
    }


def scores(measure: Measure, found: dict[str, Yardstick]) -> list[Score]:
    """Every score of the synthetic samples, an error in its place where it fails.

    Parameters
    ----------
    measure : Measure
    found : dict
        From `yardsticks`.
    """
    view, plan = measure.view, measure.plan
    pairs = [(view.holdout[d.holdout], view.synthetic[d.synthetic]) for d in plan.draws]
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
                ceiling=found[name].ceiling,
                floor=found[name].floor,
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
    for holdout, judged in pairs:
        found, error = attempt(partial(measure.function, holdout, judged), measure.names)
        for name in measure.names:
            value = found[name]
            if isinstance(value, str):
                reasons[name] = (value, False)
            else:
                values[name].append(value)
                if error:
                    reasons[name] = (error, True)
    means = {name: float(np.mean(v)) for name, v in values.items() if v and name not in reasons}
    return means, reasons


def _standard_errors(measure: Measure) -> dict[str, float]:
    """Standard error of every score from half-samples; none where too many of these fail."""
    view, narrow = measure.view, measure.narrow
    values: dict[str, list[float]] = {name: [] for name in measure.names}
    for half in measure.plan.halves:
        h, a = view.holdout[half.holdout], view.synthetic[half.synthetic]
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
