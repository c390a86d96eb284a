"""Split-conformal prediction intervals: half widths from rows that nothing was fitted to."""

import numpy as np

from m1pipe.errors import InputError

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
_BLOCK_CELLS = 2**21


def half_widths(prediction: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Half width of every target's interval at each of `LEVELS`.

    Parameters
    ----------
    prediction, levels : ndarray, shape (n_rows, n_targets)
        Of calibration rows.

    Returns
    -------
    ndarray of float32, shape (len(LEVELS), n_targets)
        The absolute error of rank ceil((n + 1) * level): prediction +- half width holds a new
        exchangeable sample's level with at least that probability, averaged over draws of the
        calibration rows. NaN where there are too few rows for a level.

    References
    ----------
    Lei, G'Sell, Rinaldo, Tibshirani & Wasserman 2018, J Am Stat Assoc 113:1094, algorithm 2.
    """
    n, n_targets = levels.shape
    out = np.full((len(LEVELS), n_targets), np.nan, dtype=np.float32)
    step = max(1, _BLOCK_CELLS // max(1, n))
    for start in range(0, n_targets, step):
        columns = slice(start, start + step)
        errors = np.sort(np.abs(prediction[:, columns] - levels[:, columns]), axis=0)
        for i, level in enumerate(LEVELS):
            rank = int(np.ceil((n + 1) * level - 1e-9))
            if rank <= n:
                out[i, columns] = errors[rank - 1]
    return out


def choose_half_width(widths: np.ndarray | None, level: float) -> np.ndarray:
    """Half widths at one level, shape (n_targets,).

    Raises
    ------
    InputError
        If none were made, or not at this level.
    """
    if widths is None:
        raise InputError(
            "interval: expected a model fitted with --conformal; found one without calibration: "
            "fit it again with --conformal 0.2"
        )
    if level not in LEVELS:
        known = ", ".join(map(str, LEVELS))
        raise InputError(f"interval: expected one of {known}; found {level:g}")
    found: np.ndarray = widths[LEVELS.index(level)]
    if np.isnan(found).any():
        raise InputError(
            f"interval: expected more calibration samples for {level:g}; found too few: choose a "
            "lower one, or fit with a larger --conformal"
        )
    return found
