"""Training curves: losses by epoch, one panel a term of the objective."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from m1pipe.plots.style import INK, LEVELS, MUTED, grid

MOST_LINES = 10
MOST_NAMED = 12
TERMS = (
    ("loss", "loss"),
    ("reconstruction", "reconstruction"),
    ("kl", "KL divergence"),
)
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
    ax.set_title(title)
    ax.set_xlabel("epoch")
    ax.set_ylabel(unit)
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


def plot_trials(
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
    colours = colormaps[LEVELS](np.linspace(0, 0.9, max(2, len(histories))))
    tables = list(histories.values())
    for ax, part, title in zip(axes, ("val", "train"), ("validation", "training"), strict=False):
        for table, colour in zip(tables, colours, strict=False):
            ax.plot(table["epoch"], table[f"{part}_loss"], color=colour, linewidth=1.2)
        ax.set_title(f"{name}: {title} loss")
        ax.set_xlabel("epoch")
        ax.set_ylabel("nats per sample")
        grid(ax, "y")
        clip_start(ax, tables, "loss", parts=(part,))
    last = axes[-1]
    last.axis("off")
    handles = [Line2D([], [], color=colour) for colour in colours[: len(histories)]]
    shown = dict(list(zip(histories, handles, strict=False))[:MOST_NAMED])
    more = f"and {len(histories) - MOST_NAMED} more" if len(histories) > MOST_NAMED else None
    last.legend(shown.values(), shown, loc="upper left", title=more)
    return axes


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
