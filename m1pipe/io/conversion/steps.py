"""What `convert` does to values: floor, normalisation, logarithm; and what it refuses to do.

Some is decided once the values are known: target sum, samples left out, labels, doubts.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from m1pipe.data.matrix import LARGEST
from m1pipe.data.survey import Survey, binary_genes
from m1pipe.data.unit_guess import MANY_GENES, guess_scale, unit_fault
from m1pipe.data.units import LN, MILLION, Units, convert_units, log2p1, log_units, scale_rows
from m1pipe.errors import InputError, M1Warning
from m1pipe.io.text.known_names import (
    doubtful_names,
    named_like_annotations,
    unlike_others,
)

Normalize = Literal["total", "median", "tpm"]
_MOSTLY_SIGNED = 0.2
NON_NEGATIVE = ("counts", "cpm", "tpm", "normalized")


@dataclass(frozen=True)
class Steps:
    """Steps from values as they are in a file to values as they are wanted.

    Attributes
    ----------
    units : Units
        Of the values in the file.
    floor : float or None
        Smaller values are raised to it, before anything else.
    normalize : "total", "median", "tpm" or None
        Each sample is scaled to one total; "median" is the median of the samples' totals, "tpm"
        divides by gene lengths first.
    target_sum : float or None
        The total. None for "median" until the totals are known.
    log : bool
        log2(1 + x), after everything else.
    lengths : ndarray of float64, shape (n_genes,), optional
        Gene lengths in bases, for "tpm".
    """

    units: Units
    floor: float | None = None
    normalize: Normalize | None = None
    target_sum: float | None = None
    log: bool = False
    lengths: np.ndarray | None = None

    @property
    def result(self) -> Units:
        """Units of the result.

        Raises
        ------
        InputError
            If a step makes no sense in the units that it meets.
        """
        if self.floor is not None and not (self.units.is_linear or self.units.name == "unknown"):
            raise InputError(f"floor: expected values on a linear scale; found {self.units}")
        units = self._normalized()
        return log_units(units) if self.log else units

    def describe(self) -> list[str]:
        """The steps in words, for the record."""
        words = [f"units {self.units}"]
        if self.floor is not None:
            words.append(f"floor {self.floor:g}")
        if self.normalize is not None:
            words.append(f"normalize {self.normalize} to {self.target_sum:.10g}")
        if self.log:
            natural = self.units.name == LN
            words.append("ln(1 + x) to log2(1 + x)" if natural else "log2(1 + x)")
        return words

    def _normalized(self) -> Units:
        if self.normalize is None:
            return self.units
        if self.units.name == "unknown":
            raise InputError("normalize: the units of the values are unknown: say them by --units")
        if not self.units.is_linear:
            raise InputError(f"normalize: expected values on a linear scale; found {self.units}")
        if self.normalize == "tpm":
            if not self.units.is_counts:
                raise InputError(f"normalize tpm: expected counts; found {self.units}")
            return Units("tpm")
        if self.target_sum == MILLION and self.units.name in ("counts", "cpm", "tpm"):
            return Units("tpm" if self.units.name == "tpm" else "cpm")
        return Units("normalized", self.target_sum)


def screen(
    X: np.ndarray, steps: Steps, samples: np.ndarray, genes: np.ndarray, *, where: str
) -> np.ndarray:
    """Values raised to the floor; refused: negative ones for a step, counts that cannot be whole.

    Parameters
    ----------
    X : ndarray of float32, shape (n_samples, n_genes)
        NaN stays NaN.
    steps : Steps
    samples, genes : ndarray of str, shapes (n_samples,) and (n_genes,)
        Names for the message.
    where : str
        The file, for the message.

    Raises
    ------
    InputError
        Naming sample and gene of the first value that cannot be.
    """
    if steps.floor is not None:
        X = np.maximum(X, np.float32(steps.floor))

    def refuse(wrong: np.ndarray, expected: str, advice: str) -> None:
        for row, column in np.argwhere(wrong)[:1]:
            raise InputError(
                f"{where}: expected {expected}; found {X[row, column]:g} in sample "
                f"{samples[row]!r}, gene {genes[column]!r}: {advice}"
            )

    if steps.units.is_counts and not np.max(X, initial=0) <= LARGEST:
        advice = "correct it, or leave the sample or gene out"
        refuse((X > LARGEST) & (X < np.inf), f"counts up to {LARGEST:g}", advice)
    reason = _no_negatives(steps)
    if reason and not np.min(X, initial=0) >= 0:
        refuse(X < 0, f"values of at least 0 for {reason}", _why_negative(X, steps))
    return X


def apply_steps(X: np.ndarray, steps: Steps, totals: np.ndarray) -> np.ndarray:
    """Normalise and log whole samples that were screened before.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_genes)
    steps : Steps
    totals : ndarray, shape (n_samples,)
        Sums of the samples over all genes; a sample whose total is 0 stays at 0.

    Returns
    -------
    ndarray of float32, shape (n_samples, n_genes)
    """
    if steps.normalize == "tpm":
        assert steps.lengths is not None
        X = X / (steps.lengths / 1000)
        totals = np.asarray(np.nansum(X, axis=1, dtype=np.float64))
    if steps.normalize is not None:
        assert steps.target_sum is not None
        X = scale_rows(X, totals, steps.target_sum)
    if steps.log and steps.units.name == LN:
        return convert_units(X, steps.units, steps.result)
    return log2p1(X) if steps.log else np.asarray(X, dtype=np.float32)


def _why_negative(X: np.ndarray, steps: Steps) -> str:
    """What negative values likely are, and the way out."""
    if steps.units.name == "intensity":
        return "intensities are raised by --floor"
    if np.mean(X < 0) > _MOSTLY_SIGNED:
        return (
            "so many negative values are z-scores or ratios: convert the values before they were "
            "scaled (FILE#raw or FILE#layers/KEY of an h5ad), or say --units zscore and no steps"
        )
    return "correct the value, or the units; background below 0 is raised by --floor"


def _no_negatives(steps: Steps) -> str:
    """Why negative values cannot be used; empty where they can."""
    if steps.log:
        return "the logarithm"
    if steps.normalize is not None:
        return "normalisation"
    return f"units {steps.units}" if steps.units.name in NON_NEGATIVE else ""


_NAMED = 6
ZeroTotal = Literal["error", "drop", "keep"]


def check_values(
    found: Survey,
    steps: Steps,
    genes: pd.Index,
    X: np.ndarray,
    *,
    where: str,
    may_hold_labels: bool,
) -> None:
    """Refuse infinities and logarithms that would be logged again; warn of what does not fit.

    Parameters
    ----------
    found : Survey
        Of the values before the steps, but for the floor.
    steps : Steps
    genes : Index, length n_genes
    X : ndarray, shape (n, n_genes)
        Some of the values.
    where : str
        The source, for messages.
    may_hold_labels : bool
        The source is of a kind that can hold labels among the genes.

    Raises
    ------
    InputError
        If a value is infinite, or linear values of many genes that are to be scaled or logged look
        like logarithms.
    """
    if found.n_infinite:
        raise InputError(f"{where}: expected finite values; found {found.n_infinite:,} infinite")
    few_logs = guess_scale(found) == "log" and len(genes) < MANY_GENES
    fault = "" if few_logs else unit_fault(steps.units, found, X)
    changed = steps.log or steps.normalize is not None
    if fault and changed and guess_scale(found) == "log":
        raise InputError(f"{where}: {fault}: say what they are by --units")
    doubts = doubtful_names(genes)
    if may_hold_labels:
        doubts += _label_doubts(found, genes)
    if fault:
        doubts.append(fault)
    elif steps.units.is_counts and not found.whole:
        doubts.append("units are counts, but not all values are whole numbers")
    elif steps.units.name in ("cpm", "tpm") and found.whole and len(genes) >= MANY_GENES:
        doubts.append(f"units are {steps.units}, but all values are whole numbers, as counts are")
    if steps.result.name == "unknown":
        doubts.append("the units are not known: say them by --units")
    for doubt in doubts:
        warnings.warn(f"{where}: {doubt}", M1Warning, stacklevel=2)


def _label_doubts(found: Survey, genes: pd.Index) -> list[str]:
    """Columns among the genes that may be labels: by their names or their values."""
    names = [str(name) for name in genes]
    binary = np.isin(np.arange(len(names)), binary_genes(found))
    named = named_like_annotations(names) | unlike_others(names)
    unlike = np.isin(np.arange(len(names)), found.unlike)
    ways = {"hold 0 and 1 only": binary, "are named unlike genes": named}
    ways["hold values unlike the others'"] = unlike
    said = [
        f"{mask.sum():,} {way} ({', '.join(genes[mask][:_NAMED])})"
        for way, mask in ways.items()
        if mask.any()
    ]
    if not said:
        return []
    columns = ",".join(genes[binary | named | unlike][:_NAMED])
    return [
        f"of the columns {'; '.join(said)}: if they are labels take them out of the genes, "
        f"--obs-columns {columns}"
    ]


def target_sum(found: Survey, steps: Steps) -> float | None:
    """What the samples are scaled to; for "median" the median of the totals above 0."""
    if steps.normalize == "median":
        positive = found.totals[found.totals > 0]
        return float(np.median(positive)) if len(positive) else None
    return MILLION if steps.normalize == "tpm" else steps.target_sum


def kept_samples(
    found: Survey, steps: Steps, samples: pd.Index, zero_total: ZeroTotal | None, *, where: str
) -> np.ndarray:
    """Which samples are written: all, but for those with a total of 0 that are to be dropped.

    Parameters
    ----------
    found : Survey
    steps : Steps
    samples : Index, length n_samples
    zero_total : "error", "drop", "keep" or None
        None: an error where samples are normalised.
    where : str
        The source, for messages.

    Returns
    -------
    ndarray of bool, shape (n_samples,)

    Raises
    ------
    InputError
        If a sample to be normalised has a total of 0 and that is an error, or all have.
    """
    zero = found.totals == 0
    everyone = np.ones(len(zero), dtype=bool)
    untold = zero_total is None and steps.normalize is None
    if not zero.any() or (untold and steps.units.name not in NON_NEGATIVE):
        return everyone
    if zero_total is None:
        zero_total = "keep" if steps.normalize is None else "error"
    names = ", ".join(map(repr, samples[zero][:3]))
    what = f"{where}: {zero.sum():,} of {len(zero):,} samples have a total of 0 ({names})"
    if zero_total == "error" or (zero.all() and not untold):
        raise InputError(
            f"{what}{' and cannot be normalised' if steps.normalize else ''}: --zero-total drop "
            "leaves them out, keep leaves them at 0"
        )
    done = "dropped" if zero_total == "drop" else "kept at 0"
    warnings.warn(f"{what}: {done}", M1Warning, stacklevel=2)
    return ~zero if zero_total == "drop" else everyone


def with_totals(obs: pd.DataFrame, found: Survey, steps: Steps) -> pd.DataFrame:
    """`obs` with `total_counts` before normalisation, unless it has those of the raw counts.

    Parameters
    ----------
    obs : DataFrame, shape (n_samples, n_columns)
    found : Survey
        Of the values before the steps.
    steps : Steps

    Returns
    -------
    DataFrame, shape (n_samples, n_columns or one more)
    """
    if steps.normalize is None or ("total_counts" in obs.columns and not steps.units.is_counts):
        return obs
    return obs.assign(total_counts=found.totals)
