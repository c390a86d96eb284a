"""Synthetic samples beside real ones: scores, genes, components."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from m1pipe.plots.style import INK, MUTED, PALETTE, grid, spread

SHOWN = (-0.25, 1.25)
_N_BINS = 30
_MANY_ZEROS = 0.2


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
    for model, offset in zip(models, spread(len(models), 0.22), strict=True):
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
    ax.set_xlabel("0: worthless samples; 1: real samples")
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
    ax.set(title=title, xlabel=f"hold-out, {unit}", ylabel=f"synthetic, {unit}")
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
    for name, rows, colour in (("hold-out", real, MUTED), ("synthetic", synthetic, PALETTE[1])):
        rows = np.pad(rows[:1000], ((0, 0), (0, max(0, 2 - rows.shape[1]))))
        ax.plot(rows[:, 0], rows[:, 1], ".", ms=4, color=colour, alpha=0.55, mew=0, label=name)
    ax.set(title=title, xlabel="PC 1 of the real samples", ylabel="PC 2")
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
    ax.set(title=title, xlabel="KS of a gene (dashed: real, mean)", ylabel="genes")
    grid(ax, "y")
    return ax


def plot_gene(ax: Axes, real: np.ndarray, synthetic: np.ndarray, *, title: str, unit: str) -> Axes:
    """Distribution of one gene in real (filled) and synthetic samples (outline).

    Where many values are exactly zero, the bars are those of the others, and the shares of zeros
    are written beside them.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    real, synthetic : ndarray, shape (n_samples,)
        Levels of the gene.
    title, unit : str
        Heading of the panel and unit of the levels.

    Returns
    -------
    Axes
        The same axes.
    """
    zeros = [float((values == 0).mean()) for values in (real, synthetic)]
    apart = max(zeros) > _MANY_ZEROS
    shown = [values[values != 0] if apart else values for values in (real, synthetic)]
    both = np.concatenate(shown)
    low, high = (float(both.min()), float(both.max())) if both.size else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1, _N_BINS + 1)
    shares = [
        100 * np.histogram(part, edges)[0] / len(values)
        for part, values in zip(shown, (real, synthetic), strict=True)
    ]
    ax.stairs(shares[0], edges, fill=True, color=PALETTE[0], alpha=0.45, label="real")
    ax.stairs(shares[1], edges, color=PALETTE[1], linewidth=1.5, label="synthetic")
    if apart:
        text = f"zeros:\n{zeros[0]:.0%} real\n{zeros[1]:.0%} synthetic"
        ax.text(0.97, 0.95, text, transform=ax.transAxes, ha="right", va="top", fontsize=7.5)
    ax.set_ylim(0, 1.25 * max(float(np.max(shares)), 1e-9))
    ax.set_title(title, fontsize=8.5 if len(title) < 24 else 7.5)
    ax.set(xlabel=unit, ylabel="% of samples")
    grid(ax, "y")
    return ax


def plot_mean_variance(ax: Axes, real: np.ndarray, synthetic: np.ndarray, *, unit: str) -> Axes:
    """Variance of every gene by its mean, in real and synthetic samples, with their trends.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    real, synthetic : ndarray, shape (n_samples, n_genes)
    unit : str
        Of the levels.

    Returns
    -------
    Axes
        The same axes.
    """
    sides = (("real", real, PALETTE[0], "o"), ("synthetic", synthetic, PALETTE[1], "^"))
    for name, X, colour, mark in sides:
        mean, variance = X.mean(axis=0, dtype=np.float64), X.var(axis=0, dtype=np.float64)
        varies = variance > 0
        mean, variance = mean[varies], variance[varies]
        size = 1.5 if mean.size > 3000 else 2.5
        ax.plot(mean, variance, mark, ms=size, color=colour, alpha=0.25, mew=0, rasterized=True)
        at, middle = _trend(mean, variance)
        ax.plot(at, middle, "-" + mark, color=colour, ms=5, mec="white", linewidth=2, label=name)
    ax.set(yscale="log", xlabel=f"mean of a gene ({unit})", ylabel=f"variance ({unit}, squared)")
    ax.legend(loc="best")
    grid(ax)
    return ax


def plot_variance_ratio(ax: Axes, real: np.ndarray, synthetic: np.ndarray, *, unit: str) -> Axes:
    """Variance of synthetic samples over that of real ones, by a gene's mean; 1 is right.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    real, synthetic : ndarray, shape (n_samples, n_genes)
    unit : str
        Of the levels.

    Returns
    -------
    Axes
        The same axes.
    """
    variance = [X.var(axis=0, dtype=np.float64) for X in (real, synthetic)]
    varies = (variance[0] > 0) & (variance[1] > 0)
    mean = real.mean(axis=0, dtype=np.float64)[varies]
    ratio = variance[1][varies] / variance[0][varies]
    ax.axhline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    size = 1.5 if mean.size > 3000 else 2.5
    ax.plot(mean, ratio, "o", ms=size, color=PALETTE[1], alpha=0.3, mew=0, rasterized=True)
    at, middle = _trend(mean, ratio)
    ax.plot(at, middle, "-o", color=PALETTE[1], ms=5, mec="white", linewidth=2)
    ax.set_yscale("log", base=2)
    ax.set_ylim(min(0.5, 0.9 * float(ratio.min(initial=1))), max(2, 1.1 * ratio.max(initial=1)))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set(xlabel=f"mean of a gene in real samples ({unit})", ylabel="variance, synthetic / real")
    grid(ax)
    return ax


def _trend(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Medians in ten bins of equal numbers of genes."""
    parts = [part for part in np.array_split(np.argsort(x, kind="stable"), 10) if part.size]
    at = np.array([np.median(x[part]) for part in parts])
    return at, np.array([np.median(y[part]) for part in parts])
