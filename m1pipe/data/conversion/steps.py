"""What `convert` does to values: floor, normalisation, logarithm; and what it refuses to do."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from m1pipe.data.units import LN, MILLION, Units, convert_units, log2p1, log_units, scale_rows
from m1pipe.errors import InputError

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
    """Values raised to the floor; negative ones are refused where a step cannot use them.

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
        Naming sample and gene of the first negative value.
    """
    if steps.floor is not None:
        X = np.maximum(X, np.float32(steps.floor))
    reason = _no_negatives(steps)
    if reason and not np.min(X, initial=0) >= 0 and np.nanmin(X, initial=0) < 0:
        row, column = np.argwhere(X < 0)[0]
        raise InputError(
            f"{where}: expected values of at least 0 for {reason}; found {X[row, column]:g} in "
            f"sample {samples[row]!r}, gene {genes[column]!r}: {_why_negative(X, steps)}"
        )
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
