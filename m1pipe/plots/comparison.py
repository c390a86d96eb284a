"""Models compared: by fold, by difference, by number of labels, by target, by calibration."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from m1pipe.plots.style import FAINT, INK, MUTED, PALETTE, grid, spread

LOWEST_R2 = -0.5
LONGEST_NAME = 30
FEWEST_CELLS = 20  # of a bin of probabilities that is drawn
_DASHES = ("-", "--", ":", "-.")
_MARKERS_OF_CURVES = "o^s"
_MARKERS_OF_BINS = "osD^v*"
_TICKS = [0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1]


def plot_losses(
    ax: Axes,
    folds: pd.DataFrame,
    order: Sequence[str],
    *,
    label: str,
    colours: Mapping[str, str],
    reference: float | None = None,
    beyond: bool = False,
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
    beyond : bool
        The last model, whose loss this is, is far above all others: its number stands at the edge.

    Returns
    -------
    Axes
        The same axes.
    """
    for place, model in enumerate(order[:-1] if beyond else order):
        losses = folds.loc[folds["model"] == model, "loss"].to_numpy(float)
        rows = place + spread(len(losses), 0.18)
        ax.plot(losses, rows, "o", ms=3.4, color=colours[model], alpha=0.45, mew=0)
        if np.isfinite(losses).any():
            ax.plot(np.nanmean(losses), place, "D", ms=6.5, color=colours[model], mec="white")
    if beyond:
        edge = (1, len(order) - 1)
        text, where = f"{reference:g} \N{RIGHTWARDS ARROW}", ("axes fraction", "data")
        ax.annotate(text, edge, xycoords=where, color=MUTED, ha="right", va="center")
    elif reference is not None:
        ax.axvline(reference, color=MUTED, linestyle=(0, (4, 3)), linewidth=1, zorder=0)
    _name_rows(ax, order)
    ax.set_xlabel(label)
    grid(ax, "x")
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
        ax.plot(values, place + spread(len(values), 0.18), "o", ms=3, color=MUTED, alpha=0.5, mew=0)
    for place, (middle, low, high) in enumerate(numbers):
        ax.plot([low, high], [place, place], color=shades[place], linewidth=2.2)
        ax.plot(middle, place, "D", color=shades[place], ms=6, mec="white")
    _name_rows(ax, table["name"].tolist())
    ax.set_xlabel(label)
    grid(ax, "x")
    return ax


def _name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Names at the left of rows 0, 1, ... counted from the top; long ones lose their middle."""
    ax.set_yticks(np.arange(len(names)), [_shortened(name) for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_color(FAINT)


def _shortened(name: str) -> str:
    if len(name) <= LONGEST_NAME:
        return name
    half = LONGEST_NAME // 2
    return f"{name[: half - 1]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"


def plot_label_efficiency(
    ax: Axes,
    curve: pd.DataFrame,
    order: Sequence[str],
    *,
    baseline: str,
    label: str,
    colours: Mapping[str, str],
) -> Axes:
    """Loss as a share of the baseline's by number of training samples, one line a model.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    curve : DataFrame, shape (n_scores, n_columns)
        Columns model, n_train, value; the mean of a model's rows at one number is drawn. With
        columns ci_low and ci_high, one row a model and number: its interval as well.
    order : sequence of str
        Models; those of one colour differ by their dashes and marks.
    baseline : str
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
    shares = means[list(order)].div(means[baseline], axis=0)
    for model, colour, place in _with_places(order, colours):
        marker = _MARKERS_OF_CURVES[place // len(_DASHES) % len(_MARKERS_OF_CURVES)]
        line = _DASHES[place % len(_DASHES)]
        ax.plot(shares.index, shares[model], line, marker=marker, color=colour, label=model, ms=4.5)
        if "ci_low" in curve:
            own = curve[curve["model"] == model].set_index("n_train").reindex(shares.index)
            low, high = (own[end].to_numpy() / means[baseline] for end in ("ci_low", "ci_high"))
            beside = shares.index.to_numpy() * (1 + 0.012 * (list(order).index(model) % 5 - 2))
            ax.vlines(beside, low, high, color=colour, linewidth=1, alpha=0.45)
    ax.axhline(1, color=MUTED, linestyle=(0, (4, 3)), linewidth=1, zorder=0)
    ax.set_xscale("log")
    ax.set_xticks(list(shares.index), [f"{n:,}" for n in shares.index])
    ax.minorticks_off()
    top = float(np.nanmax(shares.to_numpy()))
    if top > 2:
        ax.set_ylim(top=2)
    ax.set(xlabel="labelled training samples", ylabel=label)
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
        R2 of every target; NaN is left out. Values of `LOWEST_R2` or less are one bar at the left
        with their number on it; it does not set the height of the panel.
    colours : mapping of str to str
        Colour of each model.

    Returns
    -------
    Axes
        The same axes; the legend gives each model's median, and the share of targets above 0.
    """
    edges, width = np.linspace(LOWEST_R2, 1, 61), 0.1 / max(len(r2), 1)
    tallest, low_counts = 1, {}
    for model, values in r2.items():
        known = values[np.isfinite(values)]
        counts, _ = np.histogram(np.minimum(known[known > LOWEST_R2], 1), edges)
        tallest = max(tallest, int(counts.max()))
        low_counts[model] = int((known <= LOWEST_R2).sum())
        middle, above = (np.median(known), (known > 0).mean()) if known.size else (np.nan, np.nan)
        label = f"{_shortened(model)} (median {middle:.2f}, {above:.0%} above 0)"
        ax.stairs(counts, edges, color=colours[model], label=label, linewidth=1.5)
    ax.set_ylim(0, 1.12 * tallest)
    for place, (model, n) in enumerate(low_counts.items()):
        at = LOWEST_R2 - 0.14 + (place + 0.5) * width
        ax.bar(at, n, 0.85 * width, color=colours[model], alpha=0.6)
        if n:
            top = min(n, 0.95 * tallest)
            ax.text(at, top, f" {n:,}", ha="center", va="bottom", fontsize=6.5, rotation=90)
    ticks = np.array([0, 0.25, 0.5, 0.75, 1])
    if any(low_counts.values()):
        ax.axvline(LOWEST_R2 - 0.02, color=FAINT, linewidth=1)
        ticks = np.array([LOWEST_R2 - 0.09, -0.25, *ticks])
    ax.set_xticks(ticks, [f"{LOWEST_R2:g} or less" if t < LOWEST_R2 else f"{t:g}" for t in ticks])
    ax.axvline(0, color=MUTED, linewidth=1, zorder=0)
    ax.set(xlabel="R2 of a target", ylabel="targets")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    grid(ax, "y")
    return ax


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
    for model, colour, place in _with_places(order, colours):
        mine = bins[(bins["model"] == model) & (bins["n"] >= FEWEST_CELLS)]
        ax.plot(
            mine["predicted"],
            mine["observed"],
            _DASHES[place % len(_DASHES)],
            marker=_MARKERS_OF_BINS[place % len(_MARKERS_OF_BINS)],
            color=colour,
            label=model,
            ms=4.5,
        )
    scale = (
        lambda values: np.sign(values) * np.sqrt(np.abs(values)),
        lambda values: np.sign(values) * np.square(values),
    )
    ax.set_xscale("function", functions=scale)
    ax.set_yscale("function", functions=scale)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
    ax.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="predicted probability (mean of a bin)",
        ylabel="share of true labels",
    )
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    grid(ax)
    return ax


def _with_places(
    order: Sequence[str], colours: Mapping[str, str]
) -> Iterator[tuple[str, str, int]]:
    """Models with their colours, and how many models before each have the same colour."""
    seen: dict[str, int] = {}
    for model in order:
        colour = colours[model]
        place = seen[colour] = seen.get(colour, -1) + 1
        yield model, colour, place
