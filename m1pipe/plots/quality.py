"""Synthetic samples beside held-out ones: scores on one axis, genes, correlations, components."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from m1pipe.plots.style import INK, MUTED, PALETTE, grid

SHOWN = (-0.25, 1.25)


def plot_calibrated(
    ax: Axes, table: pd.DataFrame, models: Sequence[str], *, colours: Mapping[str, str]
) -> Axes:
    """Every one-sided score between its floor (0) and its ceiling (1), one row a score.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    table : DataFrame, shape (n_models * n_scores, n_columns)
        Columns model, title, calibrated; values beyond the panel are drawn at its edge, hollow.
    models : sequence of str
        The first is drawn largest.
    colours : mapping of str to str
        Colour of each model.

    Returns
    -------
    Axes
        The same axes.
    """
    titles = list(dict.fromkeys(table["title"]))
    offsets = np.linspace(-0.22, 0.22, len(models)) if len(models) > 1 else np.zeros(1)
    for model, offset in zip(models, offsets, strict=True):
        mine = table[table["model"] == model].set_index("title")["calibrated"].reindex(titles)
        value = mine.to_numpy(float)
        inside = np.clip(value, *SHOWN)
        rows = np.arange(len(titles)) + offset
        marker, size = ("D", 6) if model == models[0] else ("o", 4)
        look: dict[str, Any] = {"marker": marker, "ms": size, "mec": colours[model], "ls": "none"}
        at_edge = inside != value
        ax.plot(inside[~at_edge], rows[~at_edge], mfc=colours[model], label=model, **look)
        ax.plot(inside[at_edge], rows[at_edge], mfc="white", **look)
    for place, style in ((0, (0, (1, 2))), (1, (0, (4, 3)))):
        ax.axvline(place, color=MUTED, linestyle=style, linewidth=1, zorder=0)
    ax.set_xlim(SHOWN[0] - 0.03, SHOWN[1] + 0.03)
    ax.set_yticks(np.arange(len(titles)), titles)
    ax.set_ylim(len(titles) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("0: floor (worthless); 1: ceiling (real samples)")
    grid(ax, "x")
    return ax


def plot_agreement(
    ax: Axes, real: np.ndarray, synthetic: np.ndarray, *, title: str, unit: str
) -> Axes:
    """Values of synthetic samples against those of held-out ones, with the line of equals.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    real, synthetic : ndarray, shape (n,)
        One a gene or a pair of genes; many are drawn as hexagons.
    title, unit : str
        Heading of the panel and what is shown.

    Returns
    -------
    Axes
        The same axes.
    """
    usable = np.isfinite(real) & np.isfinite(synthetic)
    real, synthetic = real[usable], synthetic[usable]
    if real.size > 3000:
        ax.hexbin(real, synthetic, gridsize=60, bins="log", cmap="Blues", mincnt=1, linewidths=0)
    else:
        ax.plot(real, synthetic, ".", ms=3, color=PALETTE[0], alpha=0.5, mew=0)
    if real.size:
        ends = [min(real.min(), synthetic.min()), max(real.max(), synthetic.max())]
        ax.plot(ends, ends, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    ax.set_title(title)
    ax.set_xlabel(f"hold-out, {unit}")
    ax.set_ylabel(f"synthetic, {unit}")
    grid(ax)
    return ax


def plot_components(ax: Axes, real: np.ndarray, synthetic: np.ndarray, *, title: str) -> Axes:
    """First two principal components of held-out and synthetic samples.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    real, synthetic : ndarray, shape (n_samples, n_components)
        At most a thousand of each are drawn; one component is drawn against zero.
    title : str
        Heading of the panel.

    Returns
    -------
    Axes
        The same axes.
    """
    for name, rows, colour in (
        ("hold-out", real, MUTED),
        ("synthetic", synthetic, PALETTE[1]),
    ):
        rows = np.pad(rows[:1000], ((0, 0), (0, max(0, 2 - rows.shape[1]))))
        ax.plot(rows[:, 0], rows[:, 1], ".", ms=4, color=colour, alpha=0.55, mew=0, label=name)
    ax.set_title(title)
    ax.set_xlabel("PC 1 of the real samples")
    ax.set_ylabel("PC 2")
    ax.legend(loc="best", markerscale=2)
    grid(ax)
    return ax


def plot_ks(ax: Axes, ks: np.ndarray, *, title: str, ceiling: float | None = None) -> Axes:
    """Distribution over genes of the Kolmogorov-Smirnov statistic.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    ks : ndarray, shape (n_genes,)
    title : str
        Heading of the panel.
    ceiling : float, optional
        Mean of real samples, drawn as a dashed line.

    Returns
    -------
    Axes
        The same axes.
    """
    ax.hist(ks, bins=40, range=(0, max(float(np.max(ks)), 0.1)), color=PALETTE[0], alpha=0.8)
    if ceiling is not None and np.isfinite(ceiling):
        ax.axvline(ceiling, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    ax.set_title(title)
    ax.set_xlabel("KS of a gene (dashed: real, mean)")
    ax.set_ylabel("genes")
    grid(ax, "y")
    return ax
