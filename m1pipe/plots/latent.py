"""Health of a latent space: which units carry anything, and how well the genes come back."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from m1pipe.plots.style import INK, MUTED, PALETTE, grid


def plot_unit_spectrum(
    ax: Axes,
    values: Sequence[ArrayLike],
    *,
    threshold: float,
    label: str,
    colour: str = PALETTE[0],
    name: str = "",
) -> Axes:
    """What each latent unit carries, units in falling order, one line a run.

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
    for i, run in enumerate(values):
        falling = np.sort(np.asarray(run, dtype=float))[::-1]
        (line,) = ax.plot(np.arange(1, len(falling) + 1), falling, "-o", ms=3, color=colour)
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
        For each encoder, top to bottom, one pair a run: its R2, and that of the PCA.
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
        own, pca = np.asarray(pairs, dtype=float).reshape(-1, 2).T
        rows = place + (np.linspace(-0.2, 0.2, len(own)) if len(own) > 1 else np.zeros(1))
        ax.hlines(rows, own, pca, color=MUTED, linewidth=0.8, zorder=1)
        ax.plot(pca, rows, "o", color="white", mec=INK, ms=5)
        ax.plot(own, rows, "D", color=colours[name], mec="white", ms=6)
    ax.set_yticks(np.arange(len(scores)), list(scores))
    ax.set_ylim(len(scores) - 0.4, -0.6)
    ax.set_xlabel(label)
    ax.locator_params(axis="x", nbins=6)
    grid(ax, "x")
    return ax
