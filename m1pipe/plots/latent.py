"""Health of a latent space: which units carry anything, and how well the genes come back."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from m1pipe.plots.style import INK, MUTED, PALETTE, grid


def plot_unit_spectrum(
    ax: Axes, values: Sequence[ArrayLike], *, threshold: float, label: str, colour: str = PALETTE[0]
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

    Returns
    -------
    Axes
        The same axes.
    """
    for run in values:
        falling = np.sort(np.asarray(run, dtype=float))[::-1]
        ax.plot(np.arange(1, len(falling) + 1), falling, "-o", ms=3, color=colour, alpha=0.75)
    ax.axhline(threshold, color=INK, linestyle=(0, (4, 3)), linewidth=1)
    ax.set_yscale("symlog", linthresh=threshold)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("latent unit, in falling order")
    ax.set_ylabel(label)
    grid(ax, "y")
    return ax


def plot_reconstruction(
    ax: Axes, names: Sequence[str], own: Sequence[float], pca: Sequence[float], *, label: str
) -> Axes:
    """Share of the variance that comes back through each encoder, beside PCA of the same width.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    names : sequence of str
        Encoders, top to bottom.
    own, pca : sequence of float
        Reconstruction R2 of each encoder and of the PCA of its width on the same rows.
    label : str
        What the horizontal axis shows.

    Returns
    -------
    Axes
        The same axes.
    """
    places = np.arange(len(names))
    for place, one, other in zip(places, own, pca, strict=True):
        ax.plot([one, other], [place, place], color=MUTED, linewidth=1, zorder=1)
    ax.plot(own, places, "D", color=PALETTE[0], ms=6.5, mec="white", label="encoder")
    ax.plot(pca, places, "o", color=PALETTE[1], ms=6.5, mec="white", label="PCA, same width")
    ax.set_yticks(places, list(names))
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel(label)
    ax.legend(loc="best")
    grid(ax, "x")
    return ax
