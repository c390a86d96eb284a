"""Figure of a map of samples, and of new samples on an old one."""

import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from m1pipe.data.matrix import Matrix
from m1pipe.errors import InputError
from m1pipe.figures.samples import as_classes, column_of, is_number
from m1pipe.io.reader import choose_obsm, open_matrix, read_obsm
from m1pipe.plots import style
from m1pipe.plots.embedding import METHODS
from m1pipe.plots.scatter import legend_width, plot_background, plot_classes, plot_numbers

PathLike = str | os.PathLike[str]


def on_map(
    data: PathLike,
    onto: PathLike | None = None,
    *,
    label: str | None = None,
    key: str | None = None,
) -> Figure:
    """Samples where a map has them, coloured by a column of obs; old samples grey under them.

    Parameters
    ----------
    data : path
        h5ad with places in `obsm`, as `m1pipe map` writes it.
    onto : path, optional
        The old map, with the same array in `obsm`.
    label : str, optional
        Column of obs of `data`.
    key : str, optional
        Which array of `obsm`; needed where there are several.

    Raises
    ------
    InputError
        If there is no such map or label.
    """
    with open_matrix(data) as matrix:
        key, places = _read(matrix, key)
        column = None if label is None else column_of(matrix, label)
    below = None
    if onto is not None:
        with open_matrix(onto) as matrix:
            below = _read(matrix, key)[1]
    names = np.full(len(places), "new samples" if onto else "samples", dtype=object)
    if label is not None and column is not None and not is_number(column):
        names = as_classes(column, label)
    background = f"samples of {Path(onto).name}" if onto else ""
    figure, panels = style.panels(width=4.8 + legend_width([*names, background]), height=4.4)
    ax, name = panels[0, 0], METHODS.get(key.removeprefix("X_"), key)
    axes = (f"{name} 1", f"{name} 2")
    with style.styled():
        if below is not None:
            plot_background(ax, below, background)
        if label is not None and column is not None and is_number(column):
            plot_numbers(ax, places, column.to_numpy(dtype=float), axes=axes, label=label)
        else:
            plot_classes(ax, places, names, axes=axes, centroids=False)
        text = f"{Path(data).name}{f' on the map of {Path(onto).name}' if onto else ''}"
        figure.suptitle(text + (f" by {label}" if label else ""), fontsize=10, x=0.01, ha="left")
    return figure


def _read(matrix: Matrix, key: str | None) -> tuple[str, np.ndarray]:
    """Name of the map and its first two dimensions."""
    key = choose_obsm(matrix, key)
    places = read_obsm(matrix, key).to_numpy()
    if places.shape[1] < 2:
        raise InputError(f"{matrix.path}: obsm {key!r}: expected two columns; found one")
    return key, places[:, :2]
