"""Heat maps: genes along a way through latent space, correlations of genes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from m1pipe.plots.style import BALANCE, FAINT

_MOST_NAMED = 60


def plot_way(
    ax: Axes,
    X: np.ndarray,
    share: np.ndarray,
    genes: Sequence[str],
    *,
    unit: str,
    ends: tuple[str, str] = ("start", "end"),
) -> Axes:
    """Change of genes along a way between two samples or groups.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    X : ndarray, shape (n_steps, n_genes)
        Levels at every step.
    share : ndarray, shape (n_steps,)
        Place of the step on the way, 0 to 1.
    genes : sequence of str, shape (n_genes,)
        Top to bottom.
    unit : str
        Of the levels.
    ends : (str, str)
        Names of the two ends.

    Returns
    -------
    Axes
        The same axes.
    """
    change = (X - X[0]).T
    bound = max(float(np.abs(change).max()), 1e-12)
    half = 0.5 / max(len(share) - 1, 1)
    image = ax.imshow(
        change,
        aspect="auto",
        interpolation="nearest",
        cmap=BALANCE,
        vmin=-bound,
        vmax=bound,
        extent=(float(share[0]) - half, float(share[-1]) + half, len(genes) - 0.5, -0.5),
    )
    ax.figure.colorbar(image, ax=ax, label=f"change from {ends[0]} ({unit})", pad=0.02)
    ax.set(xlabel=f"share of the way from {ends[0]} to {ends[1]}", ylabel="gene")
    _name_genes(ax, genes)
    return ax


def correlation_of(X: np.ndarray) -> np.ndarray:
    """Pearson correlations of genes, NaN for one that is constant, shape (n_genes, n_genes)."""
    values = np.asarray(X, dtype=np.float64)
    values = values - values.mean(axis=0)
    norms = np.linalg.norm(values, axis=0)
    tiny = norms <= 1e-9 * np.sqrt(len(values))
    scaled = np.divide(values, norms, out=np.full_like(values, np.nan), where=~tiny)
    return np.clip(scaled.T @ scaled, -1, 1)


def cluster_order(correlation: np.ndarray) -> np.ndarray:
    """Order of genes in which those that correlate are neighbours.

    Average linkage on 1 - r, the leaves in their optimal order.

    Parameters
    ----------
    correlation : ndarray, shape (n_genes, n_genes)
        Without NaN.

    Returns
    -------
    ndarray of int, shape (n_genes,)
    """
    if len(correlation) < 3:
        return np.arange(len(correlation))
    distance = 1 - (correlation + correlation.T) / 2
    np.fill_diagonal(distance, 0)
    condensed = squareform(np.maximum(distance, 0), checks=False)
    return leaves_list(optimal_leaf_ordering(linkage(condensed, "average"), condensed))


def plot_correlation(
    ax: Axes,
    correlation: np.ndarray,
    genes: Sequence[str],
    *,
    title: str,
    label: str = "Pearson correlation",
    names: bool = True,
) -> Axes:
    """Correlations of genes, or differences of correlations, as a square of colours.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    correlation : ndarray, shape (n_genes, n_genes)
        In the order to be drawn; NaN is grey. Colours end at -1 and 1.
    genes : sequence of str, shape (n_genes,)
        Named where there are at most 60.
    title, label : str
        Heading of the panel, and what the colours show.
    names : bool
        Name the genes at the left.

    Returns
    -------
    Axes
        The same axes.
    """
    ax.set_facecolor(FAINT)
    image = ax.imshow(correlation, cmap=BALANCE, vmin=-1, vmax=1, interpolation="nearest")
    ax.figure.colorbar(
        image,
        ax=ax,
        orientation="horizontal",
        label=label,
        fraction=0.05,
        pad=0.03,
        ticks=[-1, -0.5, 0, 0.5, 1],
    )
    ax.set(title=title, xlabel=f"{len(genes):,} genes")
    ax.set_xticks([])
    _name_genes(ax, genes if names else [])
    return ax


def _name_genes(ax: Axes, genes: Sequence[str]) -> None:
    """Names at the left, as many as can be read; else none."""
    if not 0 < len(genes) <= _MOST_NAMED:
        ax.set_yticks([])
        return
    size = 8.0 if len(genes) <= 25 else 6.5 if len(genes) <= 40 else 5.0
    ax.set_yticks(np.arange(len(genes)), list(genes), fontsize=size)
    ax.tick_params(axis="y", length=0)
