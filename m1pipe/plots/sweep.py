"""Sweeps: loss against what was varied, and the curves of all trials."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from m1pipe.plots.style import FAINT, INK, LEVELS, MUTED, PALETTE, colours, grid
from m1pipe.plots.training import clip_start

MOST_NAMED = 12


def plot_sweep(ax: Axes, table: pd.DataFrame, x: str, *, label: str, log: bool = False) -> Axes:
    """Unexplained share of the validation rows against a setting, the PCA's beside it.

    Parameters
    ----------
    ax : Axes
    table : DataFrame, shape (n_trials, n_columns)
        One row a trial, with the columns `x`, unexplained and pca_unexplained.
    x : str
        Column of the setting.
    label : str
        Of the axis.
    log : bool
        The setting's axis is logarithmic.

    Returns
    -------
    Axes
        The same axes; the best trial is ringed.
    """
    table = table.sort_values(x)
    values = table[x].to_numpy(dtype=float)
    ax.plot(values, table["pca_unexplained"], color=FAINT, linewidth=5, label="PCA, same width")
    ax.plot(
        values, table["unexplained"], color=PALETTE[0], marker="o", markersize=4, label="network"
    )
    best = int(np.argmin(table["unexplained"].to_numpy()))
    ring = ax.scatter(values[best], table["unexplained"].iloc[best], s=80, label="best")
    ring.set(facecolor="none", edgecolor=INK, zorder=3)
    if log:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.axhline(1.0, color=MUTED, linewidth=0.6)
    ax.set(xlabel=label, ylabel="unexplained variance (1 - R2)")
    grid(ax, "y")
    ax.legend()
    return ax


def plot_compression(
    ax: Axes, summary: pd.DataFrame, folds: pd.DataFrame, metric: str, *, label: str
) -> Axes:
    """R2 of the test folds against latent size: a line a model, a faint dot a fold.

    Parameters
    ----------
    ax : Axes
    summary : DataFrame, shape (n_models * n_sizes, n_columns)
        Columns model, n_latent and the metric; where there are ci_low and ci_high and the metric
        is r2, its interval is drawn.
    folds : DataFrame, shape (n_models * n_sizes * n_folds, n_columns)
        Columns model, n_latent and the metric, one row a fold.
    metric : str
    label : str
        Of the vertical axis.

    Returns
    -------
    Axes
        The same axes.
    """
    models = list(dict.fromkeys(summary["model"]))
    ordered = sorted(models, key=lambda name: name.startswith("pca"), reverse=True)
    shift = dict(zip(ordered, 1.05 ** (np.arange(len(models)) - len(models) / 2), strict=True))
    for model, colour in colours(ordered).items():
        own = summary[summary["model"] == model].sort_values("n_latent")
        x = own["n_latent"].to_numpy(dtype=float) * shift[model]
        ax.plot(x, own[metric], color=colour, marker="o", markersize=4, label=model)
        if metric == "r2" and "ci_low" in own:
            ax.vlines(x, own["ci_low"].clip(lower=-0.2), own["ci_high"], color=colour, alpha=0.5)
        dots = folds[folds["model"] == model]
        places = dots["n_latent"].to_numpy(dtype=float) * shift[model]
        ax.plot(places, dots[metric], ".", color=colour, alpha=0.35, markersize=4)
    ax.set_xscale("log")
    ax.set_xticks(sorted(summary["n_latent"].unique()))
    ax.minorticks_off()
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.axhline(0.0, color=MUTED, linewidth=0.6)
    ax.set(xlabel="latent units", ylabel=label)
    grid(ax, "y")
    ax.legend()
    return ax


def plot_trials(ax: Axes, table: pd.DataFrame) -> Axes:
    """Unexplained share of every trial in order, and the best so far.

    Parameters
    ----------
    ax : Axes
    table : DataFrame, shape (n_trials, n_columns)
        One row a trial, in order, with the column unexplained.

    Returns
    -------
    Axes
    """
    scores = table["unexplained"].to_numpy(dtype=float)
    order = np.arange(1, len(scores) + 1)
    ax.plot(order, scores, color=PALETTE[0], marker="o", markersize=4, linestyle="none",
            label="trial")  # fmt: skip
    ax.plot(
        order, np.fmin.accumulate(scores), color=INK, drawstyle="steps-post", label="best so far"
    )
    ax.set(xlabel="trial", ylabel="unexplained variance (1 - R2)")
    grid(ax, "y")
    ax.legend()
    return ax


def plot_trial_curves(
    axes: Sequence[Axes] | np.ndarray, histories: Mapping[str, pd.DataFrame], *, name: str
) -> Sequence[Axes] | np.ndarray:
    """Validation and training loss of many trials by epoch, and which is which.

    Parameters
    ----------
    axes : sequence of Axes
        Three: the two losses, and room for the names.
    histories : mapping of str to DataFrame, shape (n_epochs, 3)
        Trials by name, in order, dark to light: columns epoch, val_loss, train_loss.
    name : str
        Of the sweep, for the heading.

    Returns
    -------
    sequence of Axes
        The same axes.
    """
    shades = colormaps[LEVELS](np.linspace(0, 0.9, max(2, len(histories))))
    tables = list(histories.values())
    for ax, part, title in zip(axes, ("val", "train"), ("validation", "training"), strict=False):
        for table, colour in zip(tables, shades, strict=False):
            ax.plot(table["epoch"], table[f"{part}_loss"], color=colour, linewidth=1.2)
        ax.set(title=f"{name}: {title} loss", xlabel="epoch", ylabel="nats per sample")
        grid(ax, "y")
        clip_start(ax, tables, "loss", parts=(part,))
    last = axes[-1]
    last.axis("off")
    handles = [Line2D([], [], color=colour) for colour in shades[: len(histories)]]
    shown = dict(list(zip(histories, handles, strict=False))[:MOST_NAMED])
    more = f"and {len(histories) - MOST_NAMED} more" if len(histories) > MOST_NAMED else None
    last.legend(shown.values(), shown, loc="upper left", title=more)
    return axes
