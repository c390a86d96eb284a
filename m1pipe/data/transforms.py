"""Per-gene transforms: fitted on training rows, streamed, applied to any rows.

What is fitted is returned as numbers; nothing is kept elsewhere. The scale has a floor, so that
a gene that is constant in the training rows never blows up on others.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from m1pipe.errors import InputError

KINDS = ("standardize", "center", "minmax", "none")
FLOOR_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class GeneTransform:
    """An affine map per gene, ``(X - location) / scale``.

    Attributes
    ----------
    kind : str
        One of `KINDS`; says where the numbers come from.
    location, scale : ndarray of float32, shape (n_genes,)
        In units of the data; every scale is positive.
    """

    kind: str
    location: np.ndarray
    scale: np.ndarray

    def apply(self, X: np.ndarray) -> np.ndarray:
        """Transformed rows.

        Parameters
        ----------
        X : ndarray, shape (n_samples, n_genes)
            In units of the data.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_genes)
            A new array; `invert` takes it back.
        """
        self._check_width(X)
        out = np.subtract(X, self.location, dtype=np.float32)
        out /= self.scale
        return out

    def invert(self, X: np.ndarray) -> np.ndarray:
        """Rows in units of the data again.

        Parameters
        ----------
        X : ndarray, shape (n_samples, n_genes)
            Transformed rows.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_genes)
            A new array.
        """
        self._check_width(X)
        out = np.multiply(X, self.scale, dtype=np.float32)
        out += self.location
        return out

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and strings, exact for JSON; `from_dict` takes it back."""
        return {
            "kind": self.kind,
            "location": self.location.tolist(),
            "scale": self.scale.tolist(),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "GeneTransform":
        """Transform stored by `to_dict`.

        Raises
        ------
        InputError
            If something is missing or does not fit together.
        """
        try:
            location = np.asarray(stored["location"], dtype=np.float32)
            scale = np.asarray(stored["scale"], dtype=np.float32)
            kind = str(stored["kind"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"transform: expected kind, location and scale; found {error!r}: "
                "the file was not written by m1pipe or is damaged"
            ) from None
        usable = location.ndim == 1 and location.shape == scale.shape and bool((scale > 0).all())
        if kind not in KINDS or not usable:
            raise InputError(
                f"transform: expected one of {', '.join(KINDS)} with equally many locations and "
                f"positive scales; found {kind!r}, {location.size} and {scale.size}"
            )
        return cls(kind, location, scale)

    def _check_width(self, X: np.ndarray) -> None:
        if X.ndim != 2 or X.shape[1] != self.location.size:
            raise ValueError(
                f"transform: expected rows of {self.location.size} genes; found shape {X.shape}"
            )


@dataclass
class _Moments:
    """Running count, mean, sum of squared deviations, smallest and largest, per gene."""

    count: int
    mean: np.ndarray
    squares: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def add(self, X: np.ndarray) -> None:
        """Merge a block by the pairwise update of Chan, Golub and LeVeque (1979)."""
        n = X.shape[0]
        mean = X.mean(axis=0, dtype=np.float64)
        deviations = X - mean
        total = self.count + n
        delta = mean - self.mean
        self.mean += delta * (n / total)
        self.squares += np.einsum("ij,ij->j", deviations, deviations)
        self.squares += delta**2 * (self.count * n / total)
        np.minimum(self.low, X.min(axis=0), out=self.low)
        np.maximum(self.high, X.max(axis=0), out=self.high)
        self.count = total


def fit_gene_transform(kind: str, blocks: Iterable[np.ndarray]) -> GeneTransform:
    """Fit a per-gene transform to rows that come in blocks.

    Parameters
    ----------
    kind : {"standardize", "center", "minmax", "none"}
        "standardize": mean and standard deviation (divisor n); "center": mean and 1;
        "minmax": smallest value and range, so that training rows lie in [0, 1]; "none": 0 and 1.
    blocks : iterable of ndarray, each of shape (n_rows, n_genes)
        The training rows in any blocking; accumulated in float64.

    Returns
    -------
    GeneTransform
        Standard deviations and ranges are floored, see `floored_scale`.

    Raises
    ------
    InputError
        If the kind is unknown, there are no rows, or a value is not finite.
    """
    if kind not in KINDS:
        raise InputError(f"transform: expected one of {', '.join(KINDS)}; found {kind!r}")
    moments = _accumulate(blocks)
    location = moments.mean
    scale = np.ones_like(moments.mean)
    if kind == "standardize":
        spread = np.sqrt(moments.squares / moments.count)
        scale = floored_scale(np.where(moments.high > moments.low, spread, 0.0))
    elif kind == "minmax":
        location = moments.low
        scale = floored_scale(moments.high - moments.low)
    elif kind == "none":
        location = np.zeros_like(moments.mean)
    return GeneTransform(kind, location.astype(np.float32), scale.astype(np.float32))


def floored_scale(spread: np.ndarray) -> np.ndarray:
    """Spread per gene, raised to a tenth of the median spread of the genes that vary.

    Parameters
    ----------
    spread : ndarray, shape (n_genes,)
        Standard deviations or ranges; 0 where a gene is constant.

    Returns
    -------
    ndarray, shape (n_genes,)
        All positive: 1 everywhere if no gene varies.
    """
    varying = spread[spread > 0]
    if varying.size == 0:
        return np.ones_like(spread)
    return np.maximum(spread, FLOOR_SHARE * np.median(varying))


def _accumulate(blocks: Iterable[np.ndarray]) -> _Moments:
    moments: _Moments | None = None
    for block in blocks:
        if moments is None:
            p = block.shape[1]
            moments = _Moments(0, np.zeros(p), np.zeros(p), np.full(p, np.inf), np.full(p, -np.inf))
        if block.shape[0]:
            moments.add(block)
    if moments is None or moments.count == 0:
        raise InputError("transform: expected at least one training row; found none")
    if not np.isfinite(moments.mean).all():
        column = int(np.flatnonzero(~np.isfinite(moments.mean))[0])
        raise InputError(
            f"transform: expected finite values in the training rows; found NaN or infinity in "
            f"gene column {column}: drop the gene or fill it in before training"
        )
    return moments
