"""Per-gene transforms: fitted on training rows, streamed, applied to any rows.

What is fitted is returned as numbers; nothing is kept elsewhere. The scale has a floor, so that
a gene that is constant in the training rows never blows up on others.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from m1pipe.artefacts import hold_in_rows
from m1pipe.data import normal_scores
from m1pipe.errors import InputError
from m1pipe.settings import check_choice

KINDS = ("standardize", "center", "minmax", "none", "normal_score")
FLOOR_SHARE = 0.1
# Known levels, mean, sum of squared deviations, smallest and largest, each of shape (n_genes,).
Moments = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class GeneTransform:
    """A map per gene: affine, ``(X - location) / scale``, or normal scores.

    Attributes
    ----------
    kind : str
        One of `KINDS`; says where the numbers come from.
    location, scale : ndarray of float32, shape (n_genes,)
        In units of the data; every scale is positive.
    levels : ndarray of float32, shape (n_knots, n_genes), or None
        Quantiles of the training rows, for normal scores; location and scale are 0 and 1 then.
    """

    kind: str
    location: np.ndarray
    scale: np.ndarray
    levels: np.ndarray | None = None

    def __post_init__(self) -> None:
        hold_in_rows(self)

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
        if self.levels is not None:
            return normal_scores.to_scores(X, self.levels)
        out: np.ndarray = np.subtract(X, self.location, dtype=np.float32, order="C")
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
        if self.levels is not None:
            return normal_scores.from_scores(X, self.levels)
        out: np.ndarray = np.multiply(X, self.scale, dtype=np.float32)
        out += self.location
        return out

    def invert_draws(self, X: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
        """Rows in units of the data, of values drawn from a model that varies as the data do.

        `invert`, but normal scores go by their place in N(0, 1), which gives levels that many
        samples share, such as zero, their share; or by their place among a gene's other draws,
        whose quantiles `own` are, shape (n_knots, n_genes), so that levels vary as in training.
        """
        if self.levels is None:
            return self.invert(X)
        self._check_width(X)
        if own is not None:
            X = normal_scores.to_places(X, own)
        return normal_scores.from_places(X, self.levels)

    def log_slope(self, X: np.ndarray) -> np.ndarray:
        """Natural log of the slope of `apply` about levels X, float64, of the shape of X.

        Of normal scores over a tenth of the gene's spread, lest it follow single knots.
        """
        self._check_width(X)
        if self.levels is None:
            return np.broadcast_to(-np.log(self.scale.astype(np.float64)), X.shape)
        step = np.maximum(0.05 * self.levels.std(axis=0), 1e-6)
        rise = self.apply(X + step).astype(np.float64) - self.apply(X - step)
        return np.asarray(np.log(np.maximum(rise, 1e-12) / (2 * step)))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and strings, exact for JSON, without levels; `from_dict` takes it back."""
        return {
            "kind": self.kind,
            "location": self.location.tolist(),
            "scale": self.scale.tolist(),
        }

    @classmethod
    def from_dict(
        cls, stored: Mapping[str, Any], levels: np.ndarray | None = None
    ) -> "GeneTransform":
        """Transform stored by `to_dict`, with its levels where it has some.

        Parameters
        ----------
        stored : mapping
        levels : ndarray of float32, shape (n_knots, n_genes), optional
            Quantiles, for normal scores.

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
        if (levels is not None) != (kind == "normal_score"):
            raise InputError("transform: expected levels with normal_score and with no other")
        usable = location.ndim == 1 and location.shape == scale.shape and bool((scale > 0).all())
        if kind not in KINDS or not usable:
            raise InputError(
                f"transform: expected one of {', '.join(KINDS)} with equally many locations and "
                f"positive scales; found {kind!r}, {location.size} and {scale.size}"
            )
        return cls(kind, location, scale, levels)

    def _check_width(self, X: np.ndarray) -> None:
        if X.ndim != 2 or X.shape[1] != self.location.size:
            raise ValueError(
                f"transform: expected rows of {self.location.size} genes; found shape {X.shape}"
            )


def fit_gene_transform(
    kind: str, blocks: Iterable[np.ndarray], *, keep_missing: bool = False
) -> GeneTransform:
    """Fit a per-gene transform to rows that come in blocks.

    Parameters
    ----------
    kind : {"standardize", "center", "minmax", "none", "normal_score"}
        "standardize": mean and standard deviation (divisor n); "center": mean and 1;
        "minmax": smallest value and range, so that training rows lie in [0, 1]; "none": 0 and 1;
        "normal_score": places in the gene's distribution as normal quantiles, fitted to a random
        few thousand of the rows where there are more.
    blocks : iterable of ndarray, each of shape (n_rows, n_genes)
        The training rows in any blocking; accumulated in float64.
    keep_missing : bool
        Fit to the levels that are there, where others are NaN, in place of refusing NaN.

    Returns
    -------
    GeneTransform
        Standard deviations and ranges are floored, see `floored_scale`.

    Raises
    ------
    InputError
        If the kind is unknown, there are no rows, or a value is not finite; where NaN is kept: if
        a gene has no level.
    """
    check_choice("--transform", kind, KINDS)
    if kind == "normal_score":
        return _fit_normal_scores(blocks, keep_missing=keep_missing)
    count, location, squares, low, high = _moments(blocks, keep_missing=keep_missing)
    scale = np.ones_like(location)
    if kind == "standardize":
        scale = floored_scale(np.where(high > low, np.sqrt(squares / count), 0.0))
    elif kind == "minmax":
        location, scale = low, floored_scale(high - low)
    elif kind == "none":
        location = np.zeros_like(location)
    return GeneTransform(kind, location.astype(np.float32), scale.astype(np.float32))


def _fit_normal_scores(blocks: Iterable[np.ndarray], *, keep_missing: bool) -> GeneTransform:
    """Quantiles of a uniform sample of the rows, by one pass (Vitter 1985, algorithm R)."""
    rng = np.random.default_rng(0)
    kept: list[np.ndarray] = []
    seen = 0
    for block in blocks:
        for row in np.asarray(block):
            if len(kept) < normal_scores.MOST_ROWS:
                kept.append(row.copy())
            elif (place := int(rng.integers(seen + 1))) < len(kept):
                kept[place] = row.copy()
            seen += 1
    if not kept:
        raise InputError("transform: expected at least one training row; found none")
    rows = np.stack(kept)
    lacking = np.isnan(rows).all(axis=0) if keep_missing else ~np.isfinite(rows).all(axis=0)
    _refuse_genes(lacking)
    levels = normal_scores.fit_levels(rows)
    n_genes = levels.shape[1]
    ones = np.ones(n_genes, dtype=np.float32)
    return GeneTransform("normal_score", np.zeros(n_genes, dtype=np.float32), ones, levels)


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
    return np.asarray(np.maximum(spread, FLOOR_SHARE * np.median(varying)))


def _moments(blocks: Iterable[np.ndarray], *, keep_missing: bool) -> Moments:
    """Moments of all rows; refused where one is not finite, or with `keep_missing` none is."""
    known: Moments | None = None
    n_rows = 0
    for block in blocks:
        n_rows += block.shape[0]
        if block.shape[0]:
            known = _with_block(known, block)
    if known is None:
        raise InputError("transform: expected at least one training row; found none")
    lacking = known[0] < (1 if keep_missing else n_rows)
    _refuse_genes(lacking | ~np.isfinite(known[1]))
    return known


def _with_block(known: Moments | None, X: np.ndarray) -> Moments:
    """Moments with those of a block, by the pairwise update of Chan, Golub and LeVeque (1979)."""
    n = np.full(X.shape[1], X.shape[0])
    mean = X.mean(axis=0, dtype=np.float64)
    deviations = X - mean
    if np.isnan(mean).any():
        n = n - np.isnan(X).sum(axis=0)
        mean = np.nansum(X, axis=0, dtype=np.float64) / np.maximum(n, 1)
        deviations = np.nan_to_num(X - mean)
    squares = np.einsum("ij,ij->j", deviations, deviations)
    low, high = np.fmin.reduce(X, axis=0), np.fmax.reduce(X, axis=0)
    if known is None:
        return n, mean, squares, low.astype(np.float64), high.astype(np.float64)
    total, delta = known[0] + n, mean - known[1]
    mean = known[1] + delta * (n / np.maximum(total, 1))
    squares = known[2] + squares + delta**2 * (known[0] * n / np.maximum(total, 1))
    return total, mean, squares, np.fmin(known[3], low), np.fmax(known[4], high)


def _refuse_genes(refused: np.ndarray) -> None:
    """Refuse genes, a mask of shape (n_genes,), whose levels cannot be fitted to."""
    if refused.any():
        raise InputError(
            f"transform: expected finite values in the training rows; found NaN or infinity in "
            f"gene column {int(refused.argmax())}: drop the gene or fill it in before training"
        )
