"""Training curves: losses by epoch, one panel a term of the objective."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from m1pipe.plots.style import INK, MUTED, grid

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
    """One term of the training loss by epoch, one pair of lines a run.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    histories : sequence of DataFrame
        One a run: column `epoch` and any of `train_TERM` and `val_TERM`.
    term : str
        Such as "loss", "reconstruction", "kl".
    title, unit : str
        Heading of the panel and unit of its values.
    colour : str
        Of all lines; training is dashed and pale, validation solid.

    Returns
    -------
    Axes
        The same axes.
    """
    drawn = False
    for history in histories:
        for part, look in _LOOKS.items():
            if f"{part}_{term}" in history and history[f"{part}_{term}"].notna().any():
                ax.plot(history["epoch"], history[f"{part}_{term}"], color=colour, **look)
                drawn = True
    ax.set_title(title)
    ax.set_xlabel("epoch")
    ax.set_ylabel(unit)
    grid(ax, "y")
    if not drawn:
        say_missing(ax)
    return ax


def mark_epochs(ax: Axes, epochs: Sequence[float]) -> Axes:
    """Mark the epochs whose weights were kept by ticks on the lower edge."""
    for epoch in epochs:
        ax.plot(epoch, 0, "^", transform=ax.get_xaxis_transform(), color=MUTED, ms=5, clip_on=False)
    return ax


def clip_start(ax: Axes, histories: Sequence[pd.DataFrame], term: str) -> Axes:
    """Let the first tenth of the epochs leave the panel, where it would flatten the rest."""
    columns = [f"train_{term}", f"val_{term}"]
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
