"""What values look like, found in one pass, and whether they can be in the units of the file.

Totals, zeros and range; columns that look like labels; values that look like counts or logarithms.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from m1pipe.data.units import BY_TOTAL, LN, LOG_OF, NAMES, Units, to_linear
from m1pipe.errors import InputError, M1Warning

_FIRST_ROWS = 256
_FEW_UNLIKE = 0.02
Block = tuple[int, int, np.ndarray]


@dataclass(frozen=True, eq=False)
class Survey:
    """What a matrix holds, found in one pass.

    Attributes
    ----------
    totals : ndarray of float64, shape (n_samples,)
        Sum of each sample over its genes, missing values left out.
    minimum, maximum : float
        Over all values but NaN; NaN where there are none.
    n_zero, n_missing, n_infinite, n_negative : int
        Numbers of values.
    whole : bool
        All values are whole numbers.
    ones : ndarray of int64, shape (n_genes,)
        Samples in which a gene is 1, for genes that are 0 or 1 and nothing else; else -1.
    unlike : ndarray of int64
        The few genes with fractions where the others' values are whole, or with negative values
        where there are none, by the first rows.
    """

    totals: np.ndarray
    minimum: float
    maximum: float
    n_zero: int
    n_missing: int
    n_infinite: int
    n_negative: int
    whole: bool
    ones: np.ndarray
    unlike: np.ndarray

    @property
    def n_values(self) -> int:
        """Number of values."""
        return len(self.totals) * len(self.ones)


def survey(blocks: Iterable[Block], n_samples: int, n_genes: int) -> Survey:
    """Pass over all rows once.

    Parameters
    ----------
    blocks : iterable of (start, stop, X)
        X : ndarray of float32, shape (stop - start, n_genes).
    n_samples, n_genes : int

    Returns
    -------
    Survey
    """
    totals = np.zeros(n_samples)
    counts = np.zeros(4, dtype=np.int64)
    minimum, maximum, whole = np.inf, -np.inf, True
    ones = np.zeros(n_genes, dtype=np.int64)
    unlike = np.empty(0, dtype=np.int64)
    for start, stop, X in blocks:
        with np.errstate(invalid="ignore"):  # infinities of both signs: counted below
            totals[start:stop] = X.sum(axis=1, dtype=np.float64)
            finite = bool(np.isfinite(totals[start:stop]).all())  # then every value is, too
            if not finite:
                totals[start:stop] = np.nansum(X, axis=1, dtype=np.float64)
        least, most = (np.min, np.max) if finite else (np.fmin.reduce, np.fmax.reduce)
        lowest = float(least(X, axis=None, initial=np.inf))
        counts += _count(X, finite=finite, negative=lowest < 0)
        minimum = min(minimum, lowest)
        maximum = max(maximum, float(most(X, axis=None, initial=-np.inf)))
        whole = whole and _is_whole(X)
        _count_ones(X, ones)
        if start == 0:
            unlike = _unlike(X[:_FIRST_ROWS])
    if minimum > maximum:
        minimum = maximum = np.nan
    n_zero, n_missing, n_infinite, n_negative = (int(n) for n in counts)
    return Survey(
        totals=totals,
        minimum=minimum,
        maximum=maximum,
        n_zero=n_zero,
        n_missing=n_missing,
        n_infinite=n_infinite,
        n_negative=n_negative,
        whole=whole,
        ones=ones,
        unlike=unlike,
    )


def binary_genes(found: Survey, *, few: int = 3, share: float = 0.05) -> np.ndarray:
    """Columns that look like a 0/1 label and not like a gene.

    Among values with fractions every column of only 0 and 1 does; among whole numbers, where rare
    genes are 0 or 1 too, only if such columns are few and balanced.

    Parameters
    ----------
    found : Survey
    few : int
        Most columns of whole numbers that can be taken for labels.
    share : float
        Smallest share of the rarer class among whole numbers.

    Returns
    -------
    ndarray of int64
        Their positions.
    """
    n_samples = len(found.totals)
    ones = found.ones
    if not found.whole:
        return np.flatnonzero((ones > 0) & (ones < n_samples))
    balanced = (ones >= share * n_samples) & (ones <= (1 - share) * n_samples) & (ones > 0)
    columns = np.flatnonzero(balanced)
    return columns if len(columns) <= few else columns[:0]


def _count(X: np.ndarray, *, finite: bool, negative: bool) -> np.ndarray:
    """Zeros, NaN, infinities and negatives among values."""
    n_zero = X.size - np.count_nonzero(X)
    n_negative = np.count_nonzero(X < 0) if negative else 0
    n_missing = n_infinite = 0
    if not finite:
        n_missing = int(np.isnan(X).sum())
        n_infinite = int(np.isinf(X).sum())
    return np.array([n_zero, n_missing, n_infinite, n_negative], dtype=np.int64)


def _unlike(X: np.ndarray) -> np.ndarray:
    """Few columns with fractions, or negative values, among many without."""
    found = np.zeros(X.shape[1], dtype=bool)
    for odd in ((X != np.rint(X)) & ~np.isnan(X), X < 0):
        columns = odd.any(axis=0)
        if 0 < columns.sum() <= _FEW_UNLIKE * X.shape[1]:
            found |= columns
    return np.flatnonzero(found)


def _is_whole(X: np.ndarray) -> bool:
    # Most matrices with fractions show one in the first row.
    return all(bool((part == np.rint(part)).all()) for part in (X[:1], X[1:]))


def _count_ones(X: np.ndarray, ones: np.ndarray) -> None:
    """Add the ones of columns that are still 0/1 to `ones`, in place; -1 marks the others."""
    candidates = np.flatnonzero(ones >= 0)
    if not len(candidates):
        return
    values = X if len(candidates) == X.shape[1] else X[:, candidates]
    is_one = values == 1
    binary = (is_one | (values == 0)).all(axis=0)
    ones[candidates] = np.where(binary, ones[candidates] + is_one.sum(axis=0), -1)


_LARGEST_LOG = 40.0
_LARGEST_LN = 25.0
_LOOKS_LOG = 25.0
_RAW_LOOKING = 100.0
MANY_GENES = 100
_EQUAL_SUMS = 1e-3
_NEAR_TARGET = 0.01
MIN_COUNT_LIKE = 100
_CENTRED = 0.3  # of a gene's standard deviation


def survey_rows(X: np.ndarray) -> Survey:
    """What some rows, shape (n_samples, n_genes), hold."""
    blocks: Iterable[tuple[int, int, np.ndarray]] = [(0, len(X), X)] if len(X) else []
    return survey(blocks, *X.shape)


def log_fault(units: Units, logarithm: str) -> str:
    """Why units and the logarithm that `uns["log1p"]` records do not go together; empty if so.

    Parameters
    ----------
    units : Units
    logarithm : "natural", "2", "10" or ""
    """
    if not logarithm or units.name == "unknown":
        return ""
    fitting = {"natural": (LN,), "2": tuple(LOG_OF.values())}.get(logarithm, ())
    if units.name in fitting:
        return ""
    words = "the natural logarithm" if logarithm == "natural" else f"the logarithm to {logarithm}"
    return f"units say {units}; uns['log1p'] says that {words} of 1 + x was taken"


def unit_fault(units: Units, found: Survey, X: np.ndarray) -> str:
    """Why values cannot be in their units; empty where they can.

    Parameters
    ----------
    units : Units
    found : Survey
        Of the values.
    X : ndarray, shape (n_samples, n_genes)
        Some of them.
    """
    looks_like = guess_scale(found)
    if looks_like == "empty" or found.n_infinite:
        return ""
    if units.is_counts:
        return _no_counts(found, looks_like, X)
    if units.name == LN and found.maximum > _LARGEST_LN:
        return f"units say {units}; {found.maximum:.6g} is too large for a natural logarithm"
    other = _other_base(units, X)
    if other:
        return f"units say {units}; by the sums of the samples they are {other}"
    if units.is_log and found.maximum > _LARGEST_LOG:
        return f"units say {units}; {found.maximum:.6g} is too large for a logarithm"
    if units.is_log and units.name != "log2_intensity" and _standardised(found, X):
        return f"units say {units}; genes are centred and scaled, as z-scores are"
    linear = units.name in LOG_OF and units.name != "intensity"
    if linear and looks_like == "signed":
        return f"units say {units}; values such as {found.minimum:.6g} are negative"
    if linear and looks_like == "log" and len(found.ones) >= MANY_GENES:
        return f"units say {units}; no value is above {found.maximum:.6g}: they look like logs"
    return ""


def _other_base(units: Units, X: np.ndarray) -> str:
    """The logarithm that brings rows to their target sum, where it is not that of the units."""
    if units.name not in BY_TOTAL or not units.is_log or units.target_sum is None:
        return ""
    own = "natural" if units.name == LN else "2"
    sums = _sums_by_base(X)
    other = "2" if own == "natural" else "natural"
    found = sums.get(other)
    if sums.get(own) is None and found is not None:
        off = abs(found / units.target_sum - 1)
        words = "natural logarithms" if other == "natural" else "logarithms to 2"
        return words if off < _NEAR_TARGET else ""
    return ""


def _sums_by_base(X: np.ndarray) -> dict[str, float | None]:
    """What rows sum to before the logarithm, if it was natural or to 2; empty where it is none."""
    if np.isnan(X).any() or X.max(initial=0.0) > _LARGEST_LN or X.min(initial=0.0) < 0:
        return {}
    levels = X.astype(np.float64)
    return {"natural": equal_sums(np.expm1(levels)), "2": equal_sums(np.exp2(levels) - 1)}


def _no_counts(found: Survey, looks_like: str, X: np.ndarray) -> str:
    if looks_like == "signed":
        return f"units say counts; values such as {found.minimum:.6g} are negative"
    if looks_like == "log":
        return (
            f"units say counts; the values have fractions and none is above {found.maximum:.6g}: "
            "they look like logarithms"
        )
    if looks_like == "linear" and equal_sums(X) is not None:
        return (
            "units say counts; the values have fractions and every sample has the same sum: they "
            "were normalised"
        )
    return ""


def equal_sums(X: np.ndarray) -> float | None:
    """What every row, shape (n_samples, n_genes), sums to; None where sums differ."""
    sums = X.sum(axis=1, dtype=np.float64)
    middle = float(np.median(sums)) if len(sums) else 0.0
    if len(sums) < 3 or not middle > 0 or np.ptp(sums) > _EQUAL_SUMS * middle:
        return None
    return float(f"{middle:.4g}")


def _standardised(found: Survey, X: np.ndarray) -> bool:
    """Whether genes are centred and scaled: many negative values, about half of each gene's."""
    if len(X) < 20 or found.n_negative < 0.3 * found.n_values:
        return False
    sd = X.std(axis=0)
    varying = sd > 0
    off = np.abs(X.mean(axis=0)[varying]) / sd[varying]
    return bool(varying.any() and np.median(off) < _CENTRED and 0.7 < np.median(sd[varying]) < 1.4)


def guess_scale(found: Survey) -> str:
    """What values look like, by their range and by whether they are whole numbers.

    Returns
    -------
    str
        "counts" (whole, none negative), "log" (none negative, all small), "linear" (none
        negative), "signed", or "empty".
    """
    if np.isnan(found.minimum):
        return "empty"
    if found.n_negative:
        return "signed"
    if found.whole:
        return "counts"
    return "log" if found.maximum < _LOOKS_LOG else "linear"


def looks_other(X: np.ndarray, want: Units) -> str:
    """What values of unknown units look like, if not like the logarithms wanted; or nothing."""
    found = survey_rows(X)
    looks_like = guess_scale(found)
    large = _RAW_LOOKING if looks_like == "counts" else _LARGEST_LOG
    if looks_like in ("counts", "linear") and found.maximum > large:
        return "counts" if looks_like == "counts" else "levels before the logarithm"
    if looks_like == "signed" and want.name in BY_TOTAL and _standardised(found, X):
        return "z-scores"
    if looks_like == "log" and want.name in BY_TOTAL and want.target_sum is not None:
        sums = _sums_by_base(X)
        natural = sums.get("natural") is not None and sums.get("2") is None
        return f"natural logarithms ({LN})" if natural and want.name != LN else ""
    return ""


def refuse_counts(units: Units, blocks: Iterable[np.ndarray], where: str) -> None:
    """Refuse counts where a Gaussian likelihood expects logarithms; warn of other linear units.

    Parameters
    ----------
    units : Units
        As recorded.
    blocks : iterable of ndarray, each of shape (n_rows, n_genes)
        Looked at only where the units are unknown, until a value that is no count turns up.
    where : str
        Named in the message.

    Raises
    ------
    InputError
        Naming what brings counts to logarithms.
    """
    advice = "m1pipe convert --units counts --normalize total --log2p1"
    if units.is_counts:
        raise InputError(
            f"{where}: expected logarithms for a Gaussian; found counts: m1pipe train "
            "--normalize total --log2p1 (--target-sum as the labelled samples have it), or "
            "--thin-to their file"
        )
    if units.is_linear:
        warnings.warn(
            f"{where}: {units} under a Gaussian: a few high genes decide everything; "
            "convert with --log2p1",
            M1Warning,
            stacklevel=3,
        )
    if units.name == "unknown" and _look_like_counts(blocks):
        raise InputError(
            f"{where}: expected logarithms for a Gaussian; found whole numbers only, some above "
            f"{MIN_COUNT_LIKE}, in units unknown: if they are counts, {advice}; "
            "if they are not, say what they are with m1pipe convert --units"
        )


def _look_like_counts(blocks: Iterable[np.ndarray]) -> bool:
    highest = 0.0
    for block in blocks:
        if (block < 0).any() or (block != np.floor(block)).any():
            return False
        highest = max(highest, float(block.max(initial=0.0)))
    return highest > MIN_COUNT_LIKE


def inferred_sum(units: Units, X: np.ndarray) -> Units:
    """Units with the target sum that rows show, where they are made by totals and say none.

    Parameters
    ----------
    units : Units
    X : ndarray, shape (n_samples, n_genes)
        Some rows.
    """
    if units.target_sum is not None or units.name not in BY_TOTAL or np.isnan(X).any():
        return units
    if units.is_log and X.max(initial=0.0) > _LARGEST_LN:
        return units
    found = equal_sums(to_linear(X.astype(np.float64), units))
    return units if found is None else Units(units.name, found)


def part_units(part: str, X: np.ndarray, logarithm: str) -> Units:
    """Units of a layer or of `raw`, by its name and by what its values look like.

    Parameters
    ----------
    part : str
        "layers/KEY" or "raw".
    X : ndarray, shape (n_samples, n_genes)
        Some of its rows.
    logarithm : str
        That the file says was taken.
    """
    name = part.removeprefix("layers/").lower()
    looks_like = guess_scale(survey_rows(X))
    if looks_like == "counts" and (name == "raw" or "count" in name or "umi" in name):
        return Units("counts")
    if name in NAMES and name not in ("counts", "raw"):
        return Units(name)
    if name == "raw" and looks_like == "log" and logarithm == "natural":
        return Units(LN)
    return Units()
