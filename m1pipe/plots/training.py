"""Training curves by epoch, and the health of latent spaces."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from m1pipe.plots.style import FAINT, INK, MUTED, PALETTE, grid, spread

MOST_LINES = 10
TERMS = (("loss", "loss"), ("reconstruction", "reconstruction"), ("kl", "KL divergence"))
_LOOKS: dict[str, dict[str, Any]] = {
    "train": {"linestyle": (0, (3, 2)), "alpha": 0.55, "linewidth": 1.0},
    "val": {"linestyle": "solid", "linewidth": 1.5},
}


def plot_term(
    ax: Axes,
    histories: Sequence[pd.DataFrame],
    term: str,
    *,
    title: str,
    unit: str,
    colour: str = INK,
) -> Axes:
    """One term of the training loss by epoch: a pair of lines a run, or bands for many runs.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    histories : sequence of DataFrame, each of shape (n_epochs, n_columns)
        One a run: column `epoch` and any of `train_TERM` and `val_TERM`.
    term : str
        Such as "loss", "reconstruction", "kl".
    title, unit : str
        Heading of the panel and unit of its values.
    colour : str
        Of all lines; training is dashed and pale, validation solid. More than ten runs are drawn
        as their median and range.

    Returns
    -------
    Axes
        The same axes.
    """
    drawn = [_plot_part(ax, histories, f"{part}_{term}", colour, part) for part in _LOOKS]
    ax.set(title=title, xlabel="epoch", ylabel=unit)
    grid(ax, "y")
    if not any(drawn):
        say_missing(ax)
    return ax


def plot_history(
    axes: Sequence[Axes] | np.ndarray,
    histories: Sequence[pd.DataFrame],
    *,
    name: str,
    colour: str = INK,
    best: Sequence[float] = (),
) -> Sequence[Axes] | np.ndarray:
    """Loss, reconstruction and KL divergence by epoch, side by side.

    Parameters
    ----------
    axes : sequence of Axes
        Three, where to draw.
    histories : sequence of DataFrame, each of shape (n_epochs, n_columns)
        One a run, as `plot_term` takes them.
    name : str
        Of the encoder, for the heading.
    colour : str
        Of all lines.
    best : sequence of float
        Epochs whose weights were kept.

    Returns
    -------
    sequence of Axes
        The same axes.
    """
    for ax, (term, title) in zip(axes, TERMS, strict=True):
        if term == "kl" and all(_is_plain(history) for history in histories):
            ax.set_title(title)
            say_missing(ax, "an autoencoder has none")
            continue
        heading = f"{name}: {title}" if term == "loss" else title
        plot_term(ax, histories, term, title=heading, unit="nats per sample", colour=colour)
        mark_epochs(ax, best)
        if term != "kl":
            clip_start(ax, histories, term)
    return axes


def _is_plain(history: pd.DataFrame) -> bool:
    """Whether a run has a KL divergence that is 0 all along, as an autoencoder's is."""
    kl = history.filter(regex="_kl$")
    return bool(kl.shape[1]) and bool((kl == 0).to_numpy().all())


def _plot_part(
    ax: Axes, histories: Sequence[pd.DataFrame], column: str, colour: str, part: str
) -> bool:
    """Draw one column of all runs; False where none has it."""
    found = [h[["epoch", column]].dropna() for h in histories if column in h]
    found = [history for history in found if len(history)]
    if len(found) <= MOST_LINES:
        for history in found:
            ax.plot(history["epoch"], history[column], color=colour, **_LOOKS[part])
        return bool(found)
    by_epoch = pd.concat(found).groupby("epoch")[column]
    middle = by_epoch.median()
    ax.fill_between(middle.index, by_epoch.min(), by_epoch.max(), color=colour, alpha=0.2, lw=0)
    ax.plot(middle.index, middle, color=colour, **_LOOKS[part])
    return True


def mark_epochs(ax: Axes, epochs: Sequence[float]) -> Axes:
    """Mark the epochs whose weights were kept by triangles on the lower edge."""
    for epoch in sorted(set(epochs)):
        ax.plot(epoch, 0, "^", transform=ax.get_xaxis_transform(), color=MUTED, ms=5, clip_on=False)
    return ax


def clip_start(
    ax: Axes,
    histories: Sequence[pd.DataFrame],
    term: str,
    *,
    parts: Sequence[str] = ("train", "val"),
) -> Axes:
    """Let the first tenth of the epochs leave the panel, where it would flatten the rest.

    Parameters
    ----------
    ax : Axes
    histories : sequence of DataFrame, each of shape (n_epochs, n_columns)
        Those that are drawn.
    term : str
        As for `plot_term`.
    parts : sequence of str
        Of "train" and "val", those that are drawn.

    Returns
    -------
    Axes
        The same axes.
    """
    columns = [f"{part}_{term}" for part in parts]
    late = [h[h["epoch"] >= h["epoch"].max() / 10].filter(columns) for h in histories if len(h)]
    values = [float(v) for h in late for v in h.to_numpy().ravel() if pd.notna(v)]
    if values and max(values) > min(values):
        margin = 0.06 * (max(values) - min(values))
        ax.set_ylim(min(values) - margin, max(values) + margin)
    return ax


def say_missing(ax: Axes, text: str = "not recorded") -> Axes:
    """Say in the middle of an empty panel why it is empty."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=MUTED)
    ax.set_xticks([])
    ax.set_yticks([])
    return ax


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
    ax.set(xlabel="latent unit, in falling order", ylabel=label)
    grid(ax, "y")
    return ax


def plot_reconstruction(
    ax: Axes, scores: Mapping[str, Sequence[ArrayLike]], *, label: str, colours: Mapping[str, str]
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
        rows = place + spread(len(own), 0.2)
        ax.hlines(rows, own, pca, color=MUTED, linewidth=0.8, zorder=1)
        ax.plot(pca, rows, "o", mfc="none", mec=INK, ms=8, zorder=3)
        ax.plot(own, rows, "D", color=colours[name], mec="white", ms=6)
    ax.set_yticks(np.arange(len(scores)), list(scores))
    ax.set(ylim=(len(scores) - 0.4, -0.6), xlabel=label)
    ax.locator_params(axis="x", nbins=6)
    grid(ax, "x")
    return ax
