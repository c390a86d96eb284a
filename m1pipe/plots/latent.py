"""Health of a latent space: which units carry anything, and how well the genes come back."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from m1pipe.plots.style import FAINT, INK, MUTED, PALETTE, grid
from m1pipe.plots.training import MOST_LINES


def plot_unit_spectrum(
    ax: Axes,
    values: Sequence[ArrayLike],
    *,
    threshold: float,
    label: str,
    colour: str = PALETTE[0],
    name: str = "",
) -> Axes:
    """What each latent unit carries, units in falling order: a line a run, or a band for many.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    values : sequence of array_like, shape (n_latent,)
        One a run: mean KL of each unit in nats, or the variance of its posterior mean.
    threshold : float
        Units above it count as active; drawn as a dashed line.
    label : str
        What the vertical axis shows, with its unit.
    colour : str
        Of the lines.
    name : str
        For a legend.

    Returns
    -------
    Axes
        The same axes.
    """
    runs = [np.sort(np.asarray(run, dtype=float))[::-1] for run in values]
    if len(runs) > MOST_LINES and len({len(run) for run in runs}) == 1:
        units = np.arange(1, len(runs[0]) + 1)
        ax.fill_between(units, np.min(runs, 0), np.max(runs, 0), color=colour, alpha=0.2, lw=0)
        runs = [np.median(runs, axis=0)]
    for i, run in enumerate(runs):
        (line,) = ax.plot(np.arange(1, len(run) + 1), run, "-o", ms=3, color=colour)
        line.set(alpha=0.75, label=name if name and i == 0 else "_")
    ax.axhline(threshold, color=INK, linestyle=(0, (4, 3)), linewidth=1)
    ax.set_yscale("symlog", linthresh=threshold)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("latent unit, in falling order")
    ax.set_ylabel(label)
    grid(ax, "y")
    return ax


def plot_reconstruction(
    ax: Axes,
    scores: Mapping[str, Sequence[ArrayLike]],
    *,
    label: str,
    colours: Mapping[str, str],
) -> Axes:
    """Share of the variance that comes back through each encoder, beside PCA of the same width.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    scores : mapping of str to sequence of array_like, shape (2,)
        For each encoder, top to bottom, one pair a run: its R2, and that of the PCA. More than
        ten runs are drawn as their medians and ranges.
    label : str
        What the horizontal axis shows.
    colours : mapping of str to str
        Colour of each encoder.

    Returns
    -------
    Axes
        The same axes.
    """
    for place, (name, pairs) in enumerate(scores.items()):
        runs = np.asarray(pairs, dtype=float).reshape(-1, 2)
        if len(runs) > MOST_LINES:
            ax.hlines([place] * 2, runs.min(0), runs.max(0), color=FAINT, linewidth=5, zorder=0)
            runs = np.median(runs, axis=0)[None]
        own, pca = runs.T
        rows = place + (np.linspace(-0.2, 0.2, len(own)) if len(own) > 1 else np.zeros(1))
        ax.hlines(rows, own, pca, color=MUTED, linewidth=0.8, zorder=1)
        ax.plot(pca, rows, "o", mfc="none", mec=INK, ms=8, zorder=3)
        ax.plot(own, rows, "D", color=colours[name], mec="white", ms=6)
    ax.set_yticks(np.arange(len(scores)), list(scores))
    ax.set_ylim(len(scores) - 0.4, -0.6)
    ax.set_xlabel(label)
    ax.locator_params(axis="x", nbins=6)
    grid(ax, "x")
    return ax
