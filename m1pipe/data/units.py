"""Units of expression values: their names, what may be done with them, conversion between them."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from m1pipe.errors import InputError, M1Warning, counted
from m1pipe.settings import check_choice

NAMES = (
    *("counts", "cpm", "log2_cpm1", "tpm", "log2_tpm1", "normalized", "log2_normalized1"),
    *("ln_normalized1", "intensity", "log2_intensity", "log_fold_change", "zscore"),
    *("normal_score", "latent", "unknown"),
)
NAMES_ELSEWHERE = {
    "rsem": "expected_count is counts, TPM is tpm",
    "expected": "expected_count is counts",
    "raw": "raw counts are counts",
    "umi": "counts of molecules are counts",
    "read": "counts of reads are counts",
    "fpkm": "scaled to a common sum they are tpm: say normalized, with --normalize total",
    "rpkm": "scaled to a common sum they are tpm: say normalized, with --normalize total",
    "rma": "log2_intensity",
    "array": "intensity, or log2_intensity",
    "log": "which logarithm, of what? see those that begin with log2 or ln",
}
"""What is written for units elsewhere, and which of `NAMES` it is."""
LOG_OF = {
    "cpm": "log2_cpm1",
    "tpm": "log2_tpm1",
    "normalized": "log2_normalized1",
    "intensity": "log2_intensity",
}
LN = "ln_normalized1"  # as scanpy leaves it: the natural logarithm of 1 + x
MILLION = 1e6
_PER_MILLION = ("cpm", "log2_cpm1", "tpm", "log2_tpm1")
BY_TOTAL = ("cpm", "log2_cpm1", "normalized", "log2_normalized1", LN)


@dataclass(frozen=True)
class Units:
    """What the values of a matrix are.

    Attributes
    ----------
    name : str
        One of `NAMES`.
    target_sum : float or None
        What a sample's values sum to, before the logarithm where there is one; always a million
        for cpm and tpm, None where it does not apply or is not known.

    Raises
    ------
    InputError
        On an unknown name, or a target sum that cannot be.
    """

    name: str = "unknown"
    target_sum: float | None = None

    def __post_init__(self) -> None:
        check_choice("--units", self.name, NAMES)
        if self.name in _PER_MILLION:
            if self.target_sum not in (None, MILLION):
                raise InputError(f"units: {self.name} sums to 1e6; found {self.target_sum}")
            object.__setattr__(self, "target_sum", MILLION)
        elif self.target_sum is not None:
            if self.name not in BY_TOTAL:
                raise InputError(f"units: {self.name} has no target sum; found {self.target_sum}")
            if not 0 < self.target_sum < float("inf"):
                raise InputError(f"units: expected a positive target sum; found {self.target_sum}")
            object.__setattr__(self, "target_sum", float(self.target_sum))

    @property
    def is_counts(self) -> bool:
        """Raw counts."""
        return self.name == "counts"

    @property
    def is_log(self) -> bool:
        """Logarithms, of levels or of ratios."""
        return self.name in (*LOG_OF.values(), LN, "log_fold_change")

    @property
    def is_linear(self) -> bool:
        """Proportional to the amount of RNA: sums and ratios of values mean something."""
        return self.is_counts or self.name in LOG_OF

    @property
    def is_by_total(self) -> bool:
        """Counts scaled to one total a sample, or their logarithms."""
        return self.name in BY_TOTAL

    @property
    def label(self) -> str:
        """For the axis of a figure: `log2(TPM + 1)`."""
        if self.name == LN:
            return "ln(normalized + 1)"
        linear = next((name for name, log in LOG_OF.items() if log == self.name), self.name)
        words = linear.upper() if linear in ("cpm", "tpm") else linear.replace("_", " ")
        if linear == self.name:
            return words
        return f"log2({words})" if linear == "intensity" else f"log2({words} + 1)"

    def __str__(self) -> str:
        if self.target_sum is None or self.name in _PER_MILLION:
            return self.name
        return f"{self.name} (target sum {self.target_sum:.10g})"

    def to_uns(self) -> dict[str, Any]:
        """Entries for `uns` of an h5ad file, read back by `read_units`."""
        entries: dict[str, Any] = {"units": self.name}
        if self.target_sum is not None:
            entries["target_sum"] = self.target_sum
        return entries


def read_units(uns: Mapping[str, Any], where: str = "data") -> Units:
    """Units recorded in `uns`; "unknown", with a warning, where they are not one of `NAMES`.

    Parameters
    ----------
    uns : mapping
        Keys `units`, `target_sum`, and, where units are not recorded, scanpy's `log1p`.
    where : str
        The file, for the message.

    Raises
    ------
    InputError
        If the target sum does not go with the units.
    """
    name = _single(uns.get("units", "unknown"))
    if isinstance(name, str) and name.strip().lower() in NAMES:
        name = name.strip().lower()
    if name == "unknown":
        name = {"natural": LN, "2": "log2_normalized1"}.get(read_logarithm(uns), name)
    if not isinstance(name, str) or name not in NAMES:
        text = f"{where}: units {name!r} are not known: taken as unknown"
        warnings.warn(text, M1Warning, stacklevel=2)
        return Units()
    target_sum = _single(uns.get("target_sum"))
    try:
        return Units(name, None if target_sum is None else float(target_sum))
    except InputError as error:
        raise InputError(f"{where}: {error}: correct uns, or convert the file again") from None


def _single(value: Any) -> Any:
    """A value that may stand alone in an array, as R writes it, or be bytes."""
    value = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def read_logarithm(uns: Mapping[str, Any]) -> str:
    """The logarithm that scanpy says it took of 1 + x, in `uns["log1p"]`; empty where it took none.

    Parameters
    ----------
    uns : mapping

    Returns
    -------
    "natural", or its base such as "2", or ""
    """
    entry = uns.get("log1p")
    if not isinstance(entry, Mapping):
        return ""
    base = _single(entry.get("base"))
    if base is None or abs(float(base) - np.e) < 1e-6:
        return "natural"
    return f"{float(base):g}"


def log_units(have: Units) -> Units:
    """Units of log2(1 + x) of values in the units `have`.

    Raises
    ------
    InputError
        Where the logarithm makes no sense: of logarithms, scores, counts before normalisation.
    """
    if have.name in LOG_OF:
        return Units(LOG_OF[have.name], have.target_sum)
    if have.name == LN:
        return Units("log2_normalized1", have.target_sum)
    if have.is_counts:
        raise InputError(
            "log2p1: counts are normalised before the logarithm: add --normalize total"
        )
    if have.name == "unknown":
        raise InputError("log2p1: the units of the values are unknown: say them with --units")
    raise InputError(f"log2p1: expected values on a linear scale; found {have}")


def log2p1(X: np.ndarray) -> np.ndarray:
    """log2(1 + x), worked in float64 and returned as float32.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_genes)
        Values of at least 0 (not checked here); NaN stays NaN.

    Returns
    -------
    ndarray of float32, shape (n_samples, n_genes)
        0 exactly where X is 0.
    """
    return np.asarray(np.log1p(X, dtype=np.float64) / np.log(2.0), dtype=np.float32)


def to_linear(X: np.ndarray, units: Units) -> np.ndarray:
    """Values before their logarithm; as they are where there is none, or one of ratios.

    Parameters
    ----------
    X : ndarray of float64, shape (n_samples, n_genes)
    units : Units
    """
    if units.name == LN:
        return np.asarray(np.expm1(X))
    return np.asarray(np.exp2(X) - 1) if units.name in LOG_OF.values() else X


def scale_rows(X: np.ndarray, totals: np.ndarray, target_sum: float) -> np.ndarray:
    """Rows of X times target_sum / totals; a row whose total is 0 stays as it is.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_genes)
    totals : ndarray, shape (n_samples,)
    target_sum : float

    Returns
    -------
    ndarray of float64, shape (n_samples, n_genes)
    """
    totals = np.asarray(totals, dtype=np.float64)
    factors = np.divide(target_sum, totals, out=np.ones_like(totals), where=totals != 0)
    return np.asarray(np.asarray(X, dtype=np.float64) * factors[:, None])


def convert_units(
    X: np.ndarray, have: Units, want: Units, totals: np.ndarray | None = None
) -> np.ndarray:
    """Values in other units, by the recipe counts -> normalised -> log2(1 + x) or ln(1 + x).

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_genes)
        Values in the units `have`.
    have, want : Units
        Where either is unknown X is returned as it is, with a warning.
    totals : ndarray, shape (n_samples,), optional
        Counts of each sample over the gene universe that the target sum refers to. Left out:
        the sums of the rows of X.

    Returns
    -------
    ndarray of float32, shape (n_samples, n_genes)

    Raises
    ------
    InputError
        If there is no way from `have` to `want`, a sample without counts would be normalised,
        or a negative value would be logged.
    """
    X = np.asarray(X)
    if have == want:
        return X.astype(np.float32, copy=False)
    if "unknown" in (have.name, want.name):
        message = f"units: values in {have} are taken as they are where {want} is expected"
        warnings.warn(message, M1Warning, stacklevel=2)
        return X.astype(np.float32, copy=False)
    linear, logged = _linear_units(want), _linear_units(have)
    alike = logged.target_sum == linear.target_sum  # cpm is normalised to a million
    alike = alike and {logged.name, linear.name} <= {"cpm", "normalized"}
    if logged != have and alike and LN in (have.name, want.name):
        factor = np.log(2.0) if want.name == LN else 1 / np.log(2.0)
        return np.asarray(np.asarray(X, dtype=np.float64) * factor, dtype=np.float32)
    if have.name == LN:
        if logged.target_sum is None:
            raise InputError(
                f"units: expected {want}; found {have} of no known target sum, as where genes were "
                "left out after scaling: give the counts (FILE#layers/counts), or all genes"
            )
        X, have = to_linear(np.asarray(X, dtype=np.float64), have), logged
    if have != linear:
        X = scale_rows(X, *_scaling(X, have, linear, want, totals=totals))
    if linear == want:
        return X.astype(np.float32)
    if (X < 0).any():
        raise InputError(f"units: {have} to {want}: expected values of at least 0 before the log")
    return np.log1p(X, dtype=np.float64).astype(np.float32) if want.name == LN else log2p1(X)


def is_way(have: Units, want: Units) -> bool:
    """Whether `convert_units` takes the one to the other."""
    try:
        convert_units(np.ones((1, 1), dtype=np.float32), have, want)
    except InputError:
        return False
    return True


def _linear_units(want: Units) -> Units:
    """The linear units whose logarithm `want` is, or `want` itself."""
    if want.name == LN:
        return Units("normalized", want.target_sum)
    for linear, logged in LOG_OF.items():
        if want.name == logged:
            return Units(linear, want.target_sum)
    return want


def _scaling(
    X: np.ndarray, have: Units, linear: Units, want: Units, *, totals: np.ndarray | None
) -> tuple[np.ndarray, float]:
    """Totals and target sum that bring `have` to `linear`; InputError where nothing does."""
    made = linear.name in BY_TOTAL and linear.target_sum is not None
    if made and have.is_counts:
        totals = X.sum(axis=1, dtype=np.float64) if totals is None else np.asarray(totals)
        empty = np.flatnonzero(~(totals > 0))
        if len(empty):
            raise InputError(
                f"units: {have} to {want}: {counted(len(empty), 'sample has', 'samples have')} "
                f"no counts (row {empty[0]} first): leave them out"
            )
        return totals, cast(float, linear.target_sum)
    if made and have.name in ("cpm", "normalized") and have.target_sum is not None:
        return np.full(len(X), have.target_sum), cast(float, linear.target_sum)
    raise InputError(
        f"units: expected {want}; found {have}, and there is no way between them: convert the "
        "source again"
    )
