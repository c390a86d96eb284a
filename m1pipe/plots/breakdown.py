"""Errors broken down: by number of labels, by target."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from m1pipe.plots.style import MUTED, grid

LOWEST_R2 = -0.5
_DASHES = ("-", "--", ":", "-.")
_MARKERS = ("o", "^", "s")


def plot_label_efficiency(
    ax: Axes,
    curve: pd.DataFrame,
    order: Sequence[str],
    *,
    yardstick: str,
    label: str,
    colours: Mapping[str, str],
) -> Axes:
    """Loss as a share of the yardstick's by number of training samples, one line a model.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    curve : DataFrame, shape (n_scores, n_columns)
        Columns model, n_train, value; the mean of a model's rows at one number is drawn. With
        columns ci_low and ci_high, one row a model and number: its interval as well.
    order : sequence of str
        Models; those of one colour differ by their dashes and marks.
    yardstick : str
        Model whose mean loss at the same number is 1.
    label : str
        What the vertical axis shows.
    colours : mapping of str to str
        Colour of each model.

    Returns
    -------
    Axes
        The same axes.
    """
    means = curve.pivot_table(index="n_train", columns="model", values="value", aggfunc="mean")
    shares = means[list(order)].div(means[yardstick], axis=0)
    seen: dict[str, int] = {}
    for model in order:
        colour = colours[model]
        place = seen[colour] = seen.get(colour, -1) + 1
        marker = _MARKERS[place // len(_DASHES) % len(_MARKERS)]
        line = _DASHES[place % len(_DASHES)]
        ax.plot(shares.index, shares[model], line, marker=marker, color=colour, label=model, ms=4.5)
        if "ci_low" in curve:
            own = curve[curve["model"] == model].set_index("n_train").reindex(shares.index)
            low, high = (own[end].to_numpy() / means[yardstick] for end in ("ci_low", "ci_high"))
            beside = shares.index.to_numpy() * (1 + 0.012 * (list(order).index(model) % 5 - 2))
            ax.vlines(beside, low, high, color=colour, linewidth=1, alpha=0.45)
    ax.axhline(1, color=MUTED, linestyle=(0, (4, 3)), linewidth=1, zorder=0)
    ax.set_xscale("log")
    ax.set_xticks(list(shares.index), [f"{n:,}" for n in shares.index])
    ax.minorticks_off()
    top = float(np.nanmax(shares.to_numpy()))
    if top > 2:
        ax.set_ylim(top=2)
    ax.set_xlabel("labelled training samples")
    ax.set_ylabel(label)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    grid(ax, "y")
    return ax


def plot_r2_histogram(
    ax: Axes, r2: Mapping[str, np.ndarray], *, colours: Mapping[str, str]
) -> Axes:
    """Distribution of the targets' R2 under several models, as outlines.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    r2 : mapping of str to ndarray, shape (n_targets,)
        R2 of every target; NaN is left out, values below `LOWEST_R2` are counted there.
    colours : mapping of str to str
        Colour of each model.

    Returns
    -------
    Axes
        The same axes.
    """
    edges = np.linspace(LOWEST_R2, 1, 61)
    for model, values in r2.items():
        known = np.clip(values[np.isfinite(values)], LOWEST_R2, 1)
        counts, _ = np.histogram(known, edges)
        ax.stairs(counts, edges, color=colours[model], label=model, linewidth=1.5)
    ax.axvline(0, color=MUTED, linewidth=1, zorder=0)
    ax.set_xlabel("R2 of a target")
    ax.set_ylabel("targets")
    ax.legend(loc="upper right")
    grid(ax, "y")
    return ax
