"""Sizes of a difference between two paired vectors of losses."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def cohen_dz(differences: ArrayLike) -> float:
    """Mean over standard deviation of paired differences; 0 where all are 0, else NaN if flat.

    Parameters
    ----------
    differences : array_like, shape (n,)
    """
    d = as_losses(differences)
    if is_flat(d):
        return 0.0 if not d.any() else np.nan
    return float(d.mean() / d.std(ddof=1))


def hedges_gav(loss_a: ArrayLike, loss_b: ArrayLike) -> float:
    """Mean difference over the mean of both standard deviations, corrected for small samples.

    Parameters
    ----------
    loss_a, loss_b : array_like, shape (n,)
        Of the same samples.

    Returns
    -------
    float
        J * mean(a - b) / ((sd_a + sd_b) / 2) with J = 1 - 3 / (4 * (n - 1) - 1); NaN where
        neither loss varies.
    """
    a, b = as_losses(loss_a), as_losses(loss_b)
    spread = (a.std(ddof=1) + b.std(ddof=1)) / 2 if len(a) > 1 else 0.0
    correction = 1 - 3 / (4 * (len(a) - 1) - 1) if len(a) > 1 else np.nan
    return float(correction * (a - b).mean() / spread) if spread > 0 else np.nan


def relative_difference(loss_a: ArrayLike, loss_b: ArrayLike) -> float:
    """Mean difference as a share of b's mean loss: -0.1 is a reduction by a tenth.

    Parameters
    ----------
    loss_a, loss_b : array_like, shape (n,)
    """
    a, b = as_losses(loss_a), as_losses(loss_b)
    return float((a - b).mean() / b.mean()) if b.mean() else np.nan


def skill(loss: ArrayLike, yardstick: ArrayLike) -> float:
    """1 - loss / loss of the yardstick (the training mean or the prior): 0 is no better.

    Parameters
    ----------
    loss, yardstick : array_like, shape (n,)
    """
    return -relative_difference(loss, yardstick)


def is_flat(d: np.ndarray) -> bool:
    """Whether differences are all equal, up to the rounding of a subtraction.

    Parameters
    ----------
    d : ndarray, shape (n_units,)
    """
    return len(d) < 2 or float(np.ptp(d)) <= 1e-12 * float(np.abs(d).max())


def as_losses(values: ArrayLike) -> NDArray[np.float64]:
    """Losses, or differences of losses, as float64.

    Parameters
    ----------
    values : array_like, shape (n_units,)

    Raises
    ------
    ValueError
        If there is none, or one is not finite, or the shape is another.
    """
    d = np.asarray(values, dtype=np.float64)
    if d.ndim != 1 or not len(d) or not np.isfinite(d).all():
        raise ValueError(f"losses: expected finite numbers, shape (n,); found {d.shape}")
    return d
