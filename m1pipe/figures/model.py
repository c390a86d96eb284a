"""Figures of a trained encoder: training curves, layers, latent space, interpolation, maps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from m1pipe.artefacts import read_json
from m1pipe.atomic import PathLike
from m1pipe.data.labels import listed_columns
from m1pipe.data.matrix import Matrix
from m1pipe.encoder import Encoder
from m1pipe.errors import InputError
from m1pipe.figures.samples import (
    as_classes,
    choose_genes,
    column_of,
    draw_rows,
    is_number,
    opened,
    read_rows,
)
from m1pipe.io.reader import choose_obsm, read_obsm
from m1pipe.plots import style
from m1pipe.plots.architecture import Shape, n_columns, plot_architecture
from m1pipe.plots.embedding import METHODS, Embedding, embed
from m1pipe.plots.heatmap import plot_way
from m1pipe.plots.scatter import legend_width, plot_background, plot_classes, plot_numbers
from m1pipe.plots.sweep import plot_trial_curves
from m1pipe.plots.training import plot_history

MOST_LATENTS = 2000
N_GENES = 40
TRIALS = "trials"  # of a sweep's folder
WIDTH = 9.2


def history(runs: Sequence[PathLike]) -> Figure:
    """Training curves of runs, a row of panels each; also of runs that are not finished.

    The folder of a sweep has the losses of all its trials in one row; with folds a colour stands
    for the same settings in every fold.

    Raises
    ------
    InputError
        If a folder has no history.
    """
    figure, axes = style.panels(len(runs), 3, width=WIDTH, height=0.7 + 2.2 * len(runs))
    names = [Path(run).name for run in runs]
    with style.styled():
        for row, run, name in zip(axes, runs, names, strict=True):
            if (Path(run) / TRIALS).is_dir():
                plot_trial_curves(row, _read_trials(Path(run)), name=name)
                continue
            table, best = _read_history(Path(run))
            plot_history(row, [table], name=name, colour=style.PALETTE[0], best=best)
    title = "Training curves (solid: validation, dashed: training, triangle: weights kept)"
    return style.head(figure, title)


def architecture(encoder: Encoder, *, name: str = "") -> Figure:
    """Layers of an encoder and its decoder, with their widths."""
    shape = shape_of(encoder)
    figure, axes = style.panels(width=max(5.0, 0.95 * n_columns(shape)), height=3.6)
    with style.styled():
        plot_architecture(axes[0, 0], shape)
    kind = "Variational autoencoder" if shape.is_variational else "Autoencoder"
    kind = f"Conditional {kind[0].lower()}{kind[1:]}" if shape.n_classes else kind
    trained = f"{encoder.module.n_parameters:,} parameters"
    return style.head(
        figure, f"{kind}{f' {name}' if name else ''}", f"{shape.likelihood} likelihood, {trained}"
    )


def shape_of(encoder: Encoder) -> Shape:
    """What the diagram shows of an encoder."""
    module, model = encoder.module, encoder.config.model
    widths = [
        tuple(layer.out_features for layer in part if isinstance(layer, nn.Linear))
        for part in (module.encoder, module.decoder)
    ]
    return Shape(
        n_genes=len(encoder.genes),
        encoder=widths[0],
        decoder=widths[1],
        n_latent=encoder.n_latent,
        n_classes=module.n_classes,
        n_outputs=module.likelihood.n_outputs,
        likelihood=model.likelihood.replace("_", " "),
        is_variational=model.beta > 0,
        has_skip=model.linear_skip,
    )


def latent(
    data: Any,
    encoder: Encoder | None = None,
    *,
    label: str | None = None,
    terms: Any = None,
    method: str = "tsne",
    max_samples: int = MOST_LATENTS,
    seed: int = 0,
) -> Figure:
    """Samples in latent space, coloured by a column of obs.

    Parameters
    ----------
    data : path, AnnData, DataFrame, (array, names) or Matrix
        Samples; without `encoder` their latents, as `m1pipe encode` writes them.
    encoder : Encoder, optional
    label : str, optional
        Classes with their centroids, or a number as shades. Left out: one colour.
    terms : path, AnnData, DataFrame or Matrix, optional
        Zeros and ones, paired with the samples by their ids, such as gene sets enriched in
        contrasts: `label` is then one of its columns.
    method : str
        Way to two dimensions where there are more latent units. Principal components say little
        of latents on the network's own scale, which all vary alike under their prior.
    max_samples : int
        More are drawn from.
    seed : int

    Raises
    ------
    InputError
        If the data do not fit the encoder, or the label is not there.
    """
    with opened(data) as matrix:
        rows = draw_rows(matrix.n_samples, max_samples, seed)
        Z = _latents(matrix, rows, encoder)
        column = None
        if label is not None:
            column = column_of(matrix, label) if terms is None else _term(terms, label, matrix)
            column = column.iloc[rows]
    found = _flat(Z, method, seed)
    beside = 1.2
    if label is not None and column is not None and not is_number(column):
        beside = legend_width(as_classes(column, label))
    figure, axes = style.panels(width=4.8 + beside, height=4.4)
    with style.styled():
        _colour(axes[0, 0], found, column, label)
    how = "" if Z.shape[1] == 2 else f", {METHODS[method]} of {Z.shape[1]} latent units"
    drawn = f"{rows.size:,} of {matrix.n_samples:,} samples drawn, seed {seed}"
    return style.head(
        figure,
        f"Latent space{f' by {label}' if label else ''}{how}",
        drawn if rows.size < matrix.n_samples else "",
    )


def interpolation(
    data: Any, genes: Sequence[str] | None = None, *, n_genes: int = N_GENES
) -> Figure:
    """Heat map of genes along a way, from what `m1pipe interpolate` writes.

    Parameters
    ----------
    data : path, AnnData or Matrix
        One sample a step, with `obs["share"]`.
    genes : sequence of str, optional
        Left out: those that change most.
    n_genes : int
        How many are then taken.

    Raises
    ------
    InputError
        If it is no way, or a gene is not there.
    """
    with opened(data) as matrix:
        X, share = read_rows(matrix, np.arange(matrix.n_samples)), _share(matrix)
    order = np.argsort(share, kind="stable")
    X, share = X[order], share[order]
    if genes is None:
        chosen = np.argsort(-np.ptp(X, axis=0), kind="stable")[:n_genes]
    else:
        chosen = choose_genes(matrix.genes, genes)
    chosen = chosen[np.argsort(X[0, chosen] - X[-1, chosen], kind="stable")]
    figure, axes = style.panels(width=6.4, height=1.6 + 0.13 * max(len(chosen), 12))
    with style.styled():
        names = matrix.genes[chosen].tolist()
        unit, ends = matrix.units.label, _ends(matrix)
        plot_way(axes[0, 0], X[:, chosen], share, names, unit=unit, ends=ends)
    which = "chosen" if genes is not None else f"{len(chosen)} of {matrix.n_genes:,}"
    title = f"Genes on the way through latent space: {which}, rising to falling"
    return style.head(figure, title)


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
    with opened(data) as matrix:
        key, places = _read_map(matrix, key)
        column = None if label is None else column_of(matrix, label)
    below = None
    if onto is not None:
        with opened(onto) as matrix:
            below = _read_map(matrix, key)[1]
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
    title = f"{Path(data).name}{f' on the map of {Path(onto).name}' if onto else ''}"
    return style.head(figure, title + (f" by {label}" if label else ""))


def _read_trials(sweep: Path) -> dict[str, pd.DataFrame]:
    """Losses of the trials of a sweep by epoch, named by their settings.

    Folds of the same settings are one table, with an empty row between them that breaks the line.
    """
    found: dict[str, list[pd.DataFrame]] = {}
    for file in sorted((sweep / TRIALS).glob("[0-9]*.json")):
        record = read_json(file, "what a trial of m1pipe sweep found")
        if record.get("history"):
            settings = ", ".join(f"{k} {v}" for k, v in record["settings"].items())
            name = settings if "fold" in record else f"{record['trial']}: {settings}"
            table = pd.DataFrame(record["history"])
            found.setdefault(name, []).append(table.reindex(range(len(table) + 1)))
    if not found:
        raise InputError(f"{sweep}: expected losses of a sweep's trials; found none: run it again")
    return {name: pd.concat(tables, ignore_index=True) for name, tables in found.items()}


def _read_history(run: Path) -> tuple[pd.DataFrame, list[int]]:
    """Epochs so far, and the one whose weights were kept, where that is decided."""
    path = run / "history.csv"
    if not path.is_file():
        raise InputError(f"{run}: expected the folder of m1pipe train; found no {path}")
    try:
        table = pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: expected a table of epochs; found {error}") from None
    if "epoch" not in table or not len(table):
        raise InputError(f"{path}: expected a table of epochs; found none in it")
    stored = run / "model.json"
    if not stored.is_file():
        return table, []
    summary = read_json(stored, "the model of m1pipe train").get("summary") or {}
    return table, [best for best in [summary.get("best_epoch")] if best is not None]


def _term(terms: Any, name: str, matrix: Matrix) -> pd.Series:
    """Whether each sample has a term: yes, no, or nothing where that is not known."""
    with opened(terms) as marks:
        place = np.flatnonzero(marks.genes == name)
        if not place.size:
            raise InputError(
                f"{marks.path or 'terms'}: expected a term such as {marks.genes[0]!r}; found no "
                f"{name!r}"
            )
        _, rows, found = np.intersect1d(matrix.samples, marks.samples, return_indices=True)
        if not rows.size:
            raise InputError(
                f"{marks.path or 'terms'}: expected samples such as {matrix.samples[0]}; found "
                f"{marks.samples[0]}"
            )
        values = marks.take(np.arange(marks.n_samples), place)[found, 0]
    if not np.isin(values, (0, 1)).all():
        raise InputError(
            f"{marks.path or 'terms'}: expected zeros and ones; found others in {name!r}"
        )
    known = np.full(matrix.n_samples, "", dtype=object)
    known[rows] = np.where(values == 1, "yes", "no")
    return pd.Series(known, index=matrix.samples)


def _latents(matrix: Matrix, rows: np.ndarray, encoder: Encoder | None) -> np.ndarray:
    """Latents of some rows: their values themselves, or what the encoder makes of them."""
    if encoder is None:
        if matrix.units.name not in ("latent", "unknown"):
            raise InputError(
                f"{matrix.path or 'data'}: expected latents, as m1pipe encode writes them; found "
                f"{matrix.units}: give the run too"
            )
        return read_rows(matrix, rows)
    return encoder.encode_array(encoder.align(matrix).take(rows), encoder.codes(matrix, rows))


def _flat(Z: np.ndarray, method: str, seed: int) -> Embedding:
    """Two latent units as they are; more by the method."""
    if Z.shape[1] == 1:
        Z = np.column_stack([Z, np.zeros(len(Z), dtype=Z.dtype)])
        return Embedding(Z, Z[:0], ("latent unit 1", ""), fitted_on_real=True)
    if Z.shape[1] == 2:
        return Embedding(Z, Z[:0], ("latent unit 1", "latent unit 2"), fitted_on_real=True)
    return embed(Z, None, method, seed=seed)


def _colour(ax: Axes, found: Embedding, column: pd.Series | None, label: str | None) -> None:
    places, axes = found.real, found.axes
    if column is None or label is None:
        samples = np.full(len(places), "samples", dtype=object)
        plot_classes(ax, places, samples, axes=axes, centroids=False, legend=False)
    elif is_number(column):
        values = pd.to_numeric(column).to_numpy(dtype=float, na_value=np.nan)
        plot_numbers(ax, places, values, axes=axes, label=label)
    else:
        plot_classes(ax, places, as_classes(column, label).tolist(), axes=axes)


def _share(matrix: Matrix) -> np.ndarray:
    if "share" not in matrix.obs.columns or matrix.n_samples < 2:
        raise InputError(
            f"{matrix.path or 'data'}: expected what m1pipe interpolate writes, with steps in "
            f'obs["share"]; found {matrix.n_samples:,} samples with the columns '
            f"{listed_columns(matrix.obs)}"
        )
    return matrix.obs["share"].to_numpy(dtype=float)


def _ends(matrix: Matrix) -> tuple[str, str]:
    """Names of the two ends, where the file says them."""
    if {"from", "to"} <= set(matrix.obs.columns):
        return str(matrix.obs["from"].iloc[0]), str(matrix.obs["to"].iloc[0])
    return "start", "end"


def _read_map(matrix: Matrix, key: str | None) -> tuple[str, np.ndarray]:
    """Name of the map and its first two dimensions."""
    key = choose_obsm(matrix, key)
    places = read_obsm(matrix, key).to_numpy()
    if places.shape[1] < 2:
        raise InputError(f"{matrix.path}: obsm {key!r}: expected two columns; found one")
    return key, places[:, :2]
