"""Whether values can be in the units of their file, and what units they look like."""

import warnings
from collections.abc import Iterable
from shlex import quote

import numpy as np

from m1pipe.data.matrix import Matrix
from m1pipe.data.survey import Survey, survey_rows
from m1pipe.data.units import BY_TOTAL, LN, LOG_OF, NAMES, Units, to_linear
from m1pipe.errors import InputError, M1Warning

_LARGEST_LOG = 40.0
_LARGEST_LN = 25.0
_LOOKS_LOG = 25.0
_RAW_LOOKING = 100.0
MANY_GENES = 100
_EQUAL_SUMS = 1e-3
_NEAR_TARGET = 0.01
MIN_COUNT_LIKE = 100
_CENTRED = 0.3  # of a gene's standard deviation


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
    own, other = ("natural", "2") if units.name == LN else ("2", "natural")
    sums = _sums_by_base(X)
    found = sums.get(other)
    if found is None or sums.get(own) is not None:
        return ""
    words = "natural logarithms" if other == "natural" else "logarithms to 2"
    return words if abs(found / units.target_sum - 1) < _NEAR_TARGET else ""


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
            "--thin-to their file of logarithms"
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


def check_units(matrix: Matrix) -> None:
    """Refuse a matrix whose values cannot be in the units that it says.

    Parameters
    ----------
    matrix : Matrix
        Some of its rows are read.

    Raises
    ------
    InputError
        With the way out.
    """
    if matrix.n_samples == 0 or matrix.n_genes == 0:
        return
    known = matrix.units.name not in ("unknown", "latent", "normal_score", "log_fold_change")
    fault = log_fault(matrix.units, matrix.logarithm)
    if not fault and known:
        X = matrix.some_rows()
        fault = unit_fault(matrix.units, survey_rows(X), X)
    if fault:
        where = str(matrix.path or "data")
        raise InputError(f"{where}: {fault}: {_way_out(matrix, fault)}")


def _way_out(matrix: Matrix, fault: str) -> str:
    """What mends units that values belie."""
    if matrix.logarithm not in ("", "natural", "2"):
        return f"take the logarithm back, X = {matrix.logarithm} ** X - 1, and say the units"
    natural = matrix.logarithm == "natural" or "natural" in fault
    if matrix.path is None:
        return f"correct uns['units'] ({LN!r} for ln(1 + x))"
    units = LN if natural else "UNITS (zscore, counts, tpm, ...)"
    command = f"m1pipe convert {quote(str(matrix.path))} NEW.h5ad --units {units}"
    return f"say what the values are, {command}"
