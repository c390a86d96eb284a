"""Models against each other: the ladder, the paired folds, the intervals of differences."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from m1pipe.plots.style import FAINT, INK, MUTED, PALETTE, grid


def plot_ladder(
    ax: Axes,
    folds: pd.DataFrame,
    order: Sequence[str],
    *,
    label: str,
    colours: Mapping[str, str],
    reference: float | None = None,
) -> Axes:
    """Every model's loss: one small dot a fold, a diamond at the mean, best on top.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    folds : DataFrame, shape (n_models * n_folds, n_columns)
        Columns model and loss, one row a model and fold.
    order : sequence of str
        Models from top to bottom.
    label : str
        What the horizontal axis shows, with its unit.
    colours : mapping of str to str
        Colour of each model.
    reference : float, optional
        Drawn as a vertical dashed line, such as the loss of the training mean.

    Returns
    -------
    Axes
        The same axes.
    """
    for place, model in enumerate(order):
        losses = folds.loc[folds["model"] == model, "loss"].to_numpy(float)
        spread = _spread(len(losses))
        ax.plot(losses, place + spread, "o", ms=3.4, color=colours[model], alpha=0.45, mew=0)
        if np.isfinite(losses).any():
            ax.plot(np.nanmean(losses), place, "D", ms=6.5, color=colours[model], mec="white")
    if reference is not None:
        ax.axvline(reference, color=MUTED, linestyle=(0, (4, 3)), linewidth=1, zorder=0)
    _name_rows(ax, order)
    ax.set_xlabel(label)
    grid(ax, "x")
    return ax


def plot_fold_pairs(
    ax: Axes, folds: pd.DataFrame, order: Sequence[str], *, label: str, colour: str = PALETTE[0]
) -> Axes:
    """The same folds under every model, joined by lines, and their mean.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    folds : DataFrame, shape (n_models * n_folds, n_columns)
        Columns model, repeat, fold, loss.
    order : sequence of str
        Models from left to right.
    label : str
        What the vertical axis shows, with its unit.
    colour : str
        Of the mean over folds; the folds themselves are grey.

    Returns
    -------
    Axes
        The same axes.
    """
    wide = folds.pivot_table(index=["repeat", "fold"], columns="model", values="loss", sort=False)
    wide = wide.reindex(columns=list(order))
    places = np.arange(len(order))
    for _, losses in wide.iterrows():
        ax.plot(places, losses, "-o", color=MUTED, alpha=0.4, linewidth=0.8, ms=2.6, mew=0)
    ax.plot(places, wide.mean(), "-D", color=colour, linewidth=1.8, ms=5.5, mec="white")
    ax.set_xticks(places, list(order), rotation=30 if len(order) > 6 else 0, ha="center")
    ax.set_ylabel(label)
    grid(ax, "y")
    return ax


def plot_differences(
    ax: Axes,
    table: pd.DataFrame,
    *,
    label: str,
    points: Sequence[np.ndarray] = (),
    colours: Sequence[str] | None = None,
) -> Axes:
    """Differences with their intervals, zero marked; one row a comparison, first on top.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    table : DataFrame, shape (n_comparisons, 4)
        Columns name, difference, ci_low, ci_high.
    label : str
        What the horizontal axis shows, with its direction and unit.
    points : sequence of ndarray, each of shape (n_points,)
        For each row the differences behind its mean, drawn as small dots.
    colours : sequence of str, optional
        One a row.

    Returns
    -------
    Axes
        The same axes.
    """
    ax.axvline(0, color=INK, linewidth=1)
    shades = colours if colours is not None else [PALETTE[0]] * len(table)
    numbers = table[["difference", "ci_low", "ci_high"]].to_numpy(float)
    for place, values in enumerate(points):
        ax.plot(values, place + _spread(len(values)), "o", ms=3, color=MUTED, alpha=0.5, mew=0)
    for place, (middle, low, high) in enumerate(numbers):
        ax.plot([low, high], [place, place], color=shades[place], linewidth=2.2)
        ax.plot(middle, place, "D", color=shades[place], ms=6, mec="white")
    _name_rows(ax, table["name"].tolist())
    ax.set_xlabel(label)
    grid(ax, "x")
    return ax


def _name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Names at the left of rows 0, 1, ... counted from the top."""
    ax.set_yticks(np.arange(len(names)), list(names))
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_color(FAINT)


def _spread(n: int) -> np.ndarray:
    """Small fixed vertical offsets that keep equal values apart."""
    return np.linspace(-0.18, 0.18, n) if n > 1 else np.zeros(n)
