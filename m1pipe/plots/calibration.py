"""Probabilities against frequencies."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from m1pipe.plots.style import MUTED, grid

FEWEST_CELLS = 20
_DASHES = ("-", "--", ":", "-.")
_MARKERS = "osD^v*"
_TICKS = [0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1]


def plot_calibration(
    ax: Axes, bins: pd.DataFrame, order: Sequence[str], *, colours: Mapping[str, str]
) -> Axes:
    """Share of true labels by predicted probability, one line a model, on square-root scales.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    bins : DataFrame, shape (n_bins, n_columns)
        Columns model, n, predicted and observed; bins of fewer than `FEWEST_CELLS` are left out.
    order : sequence of str
        Models; those of one colour differ by their dashes and marks.
    colours : mapping of str to str
        Colour of each model.

    Returns
    -------
    Axes
        The same axes; the diagonal is where probabilities are frequencies.
    """
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    seen: dict[str, int] = {}
    for model in order:
        colour = colours[model]
        place = seen[colour] = seen.get(colour, -1) + 1
        mine = bins[(bins["model"] == model) & (bins["n"] >= FEWEST_CELLS)]
        ax.plot(
            mine["predicted"],
            mine["observed"],
            _DASHES[place % len(_DASHES)],
            marker=_MARKERS[place % len(_MARKERS)],
            color=colour,
            label=model,
            ms=4.5,
        )
    scale = (_root, _square)
    ax.set_xscale("function", functions=scale)
    ax.set_yscale("function", functions=scale)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.set_xlabel("predicted probability (mean of a bin)")
    ax.set_ylabel("share of true labels")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    grid(ax)
    return ax


def _root(values: np.ndarray) -> np.ndarray:
    """Square root, with its sign."""
    found: np.ndarray = np.sign(values) * np.sqrt(np.abs(values))
    return found


def _square(values: np.ndarray) -> np.ndarray:
    """The inverse of `_root`."""
    found: np.ndarray = np.sign(values) * np.square(values)
    return found
