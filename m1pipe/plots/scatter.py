"""Samples as points in two dimensions: by class, by a number, real against synthetic."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from m1pipe.plots.style import FAINT, INK, LEVELS, MUTED, PALETTE, grid, looks

NO_LABEL = "no label"
_MOST_NAMED = 60
_RASTER_FROM = 1000


def plot_classes(
    ax: Axes,
    places: np.ndarray,
    labels: Sequence[str] | np.ndarray,
    *,
    axes: tuple[str, str],
    order: Sequence[str] | None = None,
    centroids: bool = True,
    legend: bool = True,
    counts: bool = True,
) -> Axes:
    """Samples coloured by class, and the centroid of every class.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    places : ndarray, shape (n_samples, 2)
    labels : sequence of str, shape (n_samples,)
        Class of each sample; "" where it has none, drawn grey.
    axes : (str, str)
        What the two axes are.
    order : sequence of str, optional
        Classes in the order of their colours. Left out: sorted.
    centroids : bool
        Mark the mean place of every class.
    legend : bool
        Name the classes beside the panel, all of `order` where it is given.
    counts : bool
        Say there how many samples each has.

    Returns
    -------
    Axes
        The same axes.
    """
    named = np.asarray(labels, dtype=object)
    classes = sorted(set(named) - {""}) if order is None else list(order)
    nameless = named == ""
    size = _size(len(places))
    if nameless.any():
        text = f"{NO_LABEL} ({int(nameless.sum()):,})"
        _dots(ax, places[nameless], FAINT, "o", text, size=size)
    found = looks(classes)
    for name, (colour, mark) in found.items():
        mine = named == name
        text = f"{name} ({int(mine.sum()):,})" if counts else name
        above = 3 - float(mine.mean())  # small classes over large ones
        _dots(ax, places[mine], colour, mark, text, size=size, zorder=above)
    for name, (colour, mark) in found.items() if centroids else ():
        if not (named == name).any():
            continue
        middle = places[named == name].mean(axis=0)
        ax.plot(
            *middle, mark, ms=9 if len(found) <= 20 else 7, color=colour, mec=INK, mew=1.4, zorder=4
        )
    _name_axes(ax, axes)
    if legend:
        _legend(ax, len(found) + int(nameless.any()), size)
    return ax


def plot_background(ax: Axes, places: np.ndarray, name: str) -> Axes:
    """Other samples, grey, under those that are drawn next.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    places : ndarray, shape (n_samples, 2)
    name : str
        What they are, for the legend.

    Returns
    -------
    Axes
        The same axes.
    """
    _dots(ax, places, FAINT, "o", f"{name} ({len(places):,})", size=_size(len(places)))
    return ax


def legend_width(labels: Sequence[str] | np.ndarray) -> float:
    """Inches that the names of the classes take beside a panel, for the width of a figure.

    Parameters
    ----------
    labels : sequence of str, shape (n_samples,)
    """
    names = set(labels)
    if len(names) > _MOST_NAMED:
        return 1.0
    font, n_columns = _legend_layout(len(names))
    n_letters = max(len(name or NO_LABEL) for name in names) + len(" (1,000)")
    return n_columns * (0.45 + 0.58 * n_letters * font / 72)


def plot_numbers(
    ax: Axes, places: np.ndarray, values: ArrayLike, *, axes: tuple[str, str], label: str
) -> Axes:
    """Samples coloured by a number, with the scale of colours beside them.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    places : ndarray, shape (n_samples, 2)
    values : array_like, shape (n_samples,)
        NaN is drawn grey.
    axes : (str, str)
        What the two axes are.
    label : str
        What the colours show, with its unit.

    Returns
    -------
    Axes
        The same axes.
    """
    numbers = np.asarray(values, dtype=float)
    known = np.isfinite(numbers)
    if not known.all():
        text = f"{NO_LABEL} ({int((~known).sum()):,})"
        _dots(ax, places[~known], FAINT, "o", text, size=_size(len(numbers)))
    points = ax.scatter(
        places[known, 0],
        places[known, 1],
        c=numbers[known],
        s=_size(len(numbers)) ** 2,
        cmap=LEVELS,
        alpha=0.85,
        linewidths=0,
        rasterized=len(numbers) > _RASTER_FROM,
    )
    ax.figure.colorbar(points, ax=ax, label=label, fraction=0.05, pad=0.02)
    _name_axes(ax, axes)
    if not known.all():
        ax.legend(loc="best")
    return ax


def plot_sides(ax: Axes, real: np.ndarray, synthetic: np.ndarray, *, axes: tuple[str, str]) -> Axes:
    """Real and synthetic samples over one another, in an order that hides neither.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    real, synthetic : ndarray, shape (n_samples, 2)
    axes : (str, str)
        What the two axes are.

    Returns
    -------
    Axes
        The same axes.
    """
    sides = (("real", real, PALETTE[0], "o"), ("synthetic", synthetic, PALETTE[1], "^"))
    n_layers = 8
    size = _size(len(real) + len(synthetic))
    for layer in range(n_layers):
        for name, places, colour, mark in sides:
            part = places[layer::n_layers]
            label = f"{name} ({len(places):,})" if layer == 0 else "_"
            _dots(ax, part, colour, mark, label, size=size)
    _name_axes(ax, axes)
    ax.legend(loc="best", markerscale=max(1.0, 5 / size))
    return ax


def _dots(
    ax: Axes,
    places: np.ndarray,
    colour: str,
    mark: str,
    label: str,
    *,
    size: float,
    zorder: float = 2.0,
) -> None:
    """Marks of one kind, of a width in points."""
    ax.plot(
        places[:, 0],
        places[:, 1],
        mark,
        ms=size,
        color=colour,
        alpha=0.65,
        mew=0,
        label=label,
        zorder=zorder,
        rasterized=len(places) > _RASTER_FROM / 8,
    )


def _size(n: int) -> float:
    """Width of a mark, in points: smaller the more there are."""
    return float(np.clip(110 / np.sqrt(max(n, 1)), 2.0, 5.5))


def _name_axes(ax: Axes, names: tuple[str, str]) -> None:
    ax.set(xlabel=names[0], ylabel=names[1])
    grid(ax)


def _legend_layout(n: int) -> tuple[float, int]:
    """Size of the letters and number of columns for n names."""
    return (8.5 if n <= 20 else 7.0), 1 + (n - 1) // 20


def _legend(ax: Axes, n: int, size: float) -> None:
    """Names of n classes right of the panel, by marks that can be seen; of very many none."""
    if n > _MOST_NAMED:
        ax.text(1.02, 0.5, f"{n} classes", transform=ax.transAxes, color=MUTED)
        return
    font, n_columns = _legend_layout(n)
    handles = ax.legend(
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        ncols=n_columns,
        fontsize=font,
        markerscale=5 / size,
    )
    for handle in handles.legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)
