"""Samples and genes of a source chosen, runs of one experiment and genes of one name summed."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from m1pipe.console import log
from m1pipe.data.choose_samples import matching_samples, require_column
from m1pipe.data.groups import SERIES
from m1pipe.data.labels import listed_columns
from m1pipe.data.names import refuse_duplicates, resolve_aliases
from m1pipe.data.survey import Block
from m1pipe.data.units import Units
from m1pipe.errors import InputError, M1Warning, counted, did_you_mean
from m1pipe.io.conversion.config import ConvertConfig
from m1pipe.io.conversion.loaded import Loaded
from m1pipe.io.sources.archs4 import SINGLE_CELL
from m1pipe.io.sources.dee2 import (
    QUALITY,
    experiments,
    quality_beside,
    quality_column,
    read_quality,
)
from m1pipe.io.tables import read_aliases


def choose(data: Loaded, wanted: np.ndarray) -> Loaded:
    """Some of the samples; a matrix on disk is read only where they lie.

    Parameters
    ----------
    data : Loaded
    wanted : ndarray of bool, shape (n_samples,)

    Returns
    -------
    Loaded
    """
    if wanted.all():
        return data
    obs, rows = data.obs[wanted], np.flatnonzero(wanted)
    alone = data.chosen
    if alone is not None:
        return Loaded(obs, data.var, lambda: alone(rows), lambda some: alone(rows[some]))

    def blocks() -> Iterator[Block]:
        done = 0
        for start, stop, X in data.blocks():
            kept = X[wanted[start:stop]]
            yield done, done + len(kept), kept
            done += len(kept)

    return Loaded(obs, data.var, blocks)


def choose_genes(data: Loaded, kept: np.ndarray) -> Loaded:
    """Some of the genes, shape (n_genes,) of bool."""
    if kept.all():
        return data
    columns = np.flatnonzero(kept)

    def of_these(blocks: Iterator[Block]) -> Iterator[Block]:
        for start, stop, X in blocks:
            yield start, stop, X[:, columns]

    alone = data.chosen
    chosen = None if alone is None else lambda rows: of_these(alone(rows))
    return Loaded(data.obs, data.var[kept], lambda: of_these(data.blocks()), chosen)


def choose_samples(data: Loaded, config: ConvertConfig) -> Loaded:
    """The samples that are wanted, by all conditions at once.

    Raises
    ------
    InputError
        If a condition makes no sense, or no sample meets them all.
    """
    wanted = np.ones(len(data.obs), dtype=bool)
    if config.qc is not None:
        wanted &= _passing_runs(data.obs, config.qc)
    if config.series:
        wanted &= _samples_of_series(data.obs, config.series)
    if config.single_cell_below is not None:
        wanted &= _bulk_samples(data.obs, config.single_cell_below)
    if config.where is not None:
        wanted &= matching_samples(data.obs, config.where)
    if not wanted.any():
        raise InputError(
            f"samples: none of {len(wanted):,} meets all conditions together: leave out a --where"
        )
    return choose(data, wanted)


def _samples_of_series(obs: pd.DataFrame, series: Sequence[str]) -> np.ndarray:
    """Samples of GEO series, by the column `series_id`, which may name several to a sample."""
    require_column(obs, SERIES, "series")
    of_sample = obs[SERIES].astype(str).str.split(r"[,;\s]+", regex=True)
    lacking = sorted(set(series) - set(of_sample.explode()))
    if lacking:
        raise InputError(f"series: expected samples of {lacking[0]}; found none")
    wanted = set(series)
    return np.array([not wanted.isdisjoint(names) for names in of_sample], dtype=bool)


def _bulk_samples(obs: pd.DataFrame, bound: float) -> np.ndarray:
    """Samples that ARCHS4 holds for single cells with a probability below a bound."""
    require_column(obs, SINGLE_CELL, "--single-cell-below")
    chosen = np.asarray(obs[SINGLE_CELL].to_numpy(dtype=np.float64) < bound)
    if not chosen.any():
        raise InputError(f"single-cell-below: no sample is below {bound:g}")
    return chosen


def _passing_runs(obs: pd.DataFrame, bound: str) -> np.ndarray:
    """Runs that passed DEE2's quality control; with the bound "warn" those with warnings too."""
    column = quality_column(obs) or QUALITY
    require_column(obs, column, "qc")
    levels = ("PASS",) if bound == "pass" else ("PASS", "WARN")
    chosen = obs[column].astype(str).str.startswith(levels).to_numpy(dtype=bool)
    if not chosen.any():
        raise InputError(f"qc: none of {len(obs):,} runs has {' or '.join(levels)} in {column}")
    return chosen


def add_quality(data: Loaded, source: Path, config: ConvertConfig) -> Loaded:
    """The verdict of DEE2's quality control in `obs`, from its own file where no column has it.

    Raises
    ------
    InputError
        If that file is broken, or knows none of the runs.
    """
    if config.qc is None or (config.quality is None and quality_column(data.obs) is not None):
        return data
    path = quality_beside(source) if config.quality is None else Path(config.quality)
    if path is None:
        return data
    verdicts = read_quality(path).reindex(data.obs.index)
    n_known = int(verdicts.notna().sum())
    if not n_known:
        raise InputError(f"{path}: expected runs such as {data.obs.index[0]!r}; found none of them")
    log.info("%s: quality of %d of %d runs", path, n_known, len(data.obs))
    return replace(data, obs=data.obs.assign(**{QUALITY: verdicts}))


def join_runs(data: Loaded, runs: pd.DataFrame, where: str) -> Loaded:
    """What a table says of the runs, in `obs`; runs without a row are left out, with a warning.

    Raises
    ------
    InputError
        If the table, which is indexed by run, knows none of them.
    """
    known = data.obs.index.isin(runs.index)
    if not known.any():
        raise InputError(
            f"{where}: expected runs such as {data.obs.index[0]!r} in its first column; found "
            f"{runs.index[0]!r}, and none in common"
        )
    if not known.all():
        lacking = data.obs.index[~known]
        message = (
            f"{where}: {counted(len(lacking), 'run has', 'runs have')} no row (such as "
            f"{lacking[0]!r}): left out"
        )
        warnings.warn(message, M1Warning, stacklevel=2)
    data = choose(data, known)
    obs = data.obs.drop(columns=data.obs.columns.intersection(runs.columns)).join(runs)
    return Loaded(obs, data.var, data.blocks, data.chosen)


def sum_runs(data: Loaded, units: Units, where: str) -> Loaded:
    """Runs of one experiment summed."""
    return sum_samples(data, experiments(data.obs, where), units, where=where)


def sum_samples(data: Loaded, groups: pd.Series, units: Units, *, where: str) -> Loaded:
    """Samples of one group summed, such as the runs of an experiment.

    A sum leaves as soon as its last sample has passed, so that memory holds the open groups only:
    few, where runs of an experiment lie close together. The result is in the order in which
    groups end.

    Parameters
    ----------
    data : Loaded
    groups : Series of str, shape (n_samples,)
        Group of each sample, in the samples' order.
    units : Units
    where : str
        The source, for messages.

    Returns
    -------
    Loaded
        `obs` of each group's first sample, with `n_runs`, the number of samples summed.

    Raises
    ------
    InputError
        If the values are not known to be counts.
    """
    if not units.is_counts:
        raise InputError(f"{where}: expected counts to sum runs of; found {units}")
    codes, _ = pd.factorize(groups)
    last = pd.Series(np.arange(len(codes))).groupby(codes).max().to_numpy()
    obs = data.obs.assign(n_runs=groups.map(groups.value_counts()).to_numpy())
    obs = obs.set_axis(pd.Index(groups.to_numpy(), dtype=object))
    obs = obs[~obs.index.duplicated()].iloc[np.argsort(last)]

    def blocks() -> Iterator[Block]:
        """Sums in the order of the groups' last samples, each held until that one is read."""
        held: dict[int, np.ndarray] = {}
        done = 0
        for start, _, X in data.blocks():
            complete = []
            for row, values in enumerate(X):
                code = int(codes[start + row])
                total = held.pop(code, None)
                total = values.astype(np.float64) if total is None else total + values
                if last[code] == start + row:
                    complete.append(total.astype(np.float32))
                else:
                    held[code] = total
            if complete:
                yield done, done + len(complete), np.stack(complete)
                done += len(complete)

    return Loaded(obs, data.var, blocks)


def name_genes(data: Loaded, units: Units, config: ConvertConfig, where: str) -> Loaded:
    """Genes under the names that are wanted, those that share one summed if asked.

    Old names stay in `var["source_name"]`.

    Raises
    ------
    InputError
        If the column of names is not there, or names repeat and are not to be summed.
    """
    names = list(data.var.index)
    if config.gene_names is not None:
        if config.gene_names not in data.var:
            raise InputError(
                f"{where}: --gene-names: expected a column of the genes' annotations "
                f"({listed_columns(data.var)}); found {config.gene_names!r}"
                f"{did_you_mean(config.gene_names, data.var)}"
            )
        better = data.var[config.gene_names]
        usable = better.notna() & (better.astype(str).str.strip() != "")
        names = [str(b) if u else n for b, u, n in zip(better, usable, names, strict=True)]
    if config.aliases is not None:
        names = resolve_aliases(names, read_aliases(Path(config.aliases)))
    if names != list(data.var.index):
        var = data.var.assign(source_name=np.asarray(data.var.index, dtype=object))
        data = replace(data, var=var.set_axis(pd.Index(names, dtype=object)))
    if config.duplicates == "sum":
        return sum_genes(data, units, where=where)
    try:
        refuse_duplicates(list(data.var.index), f"{where}: genes")
    except InputError as error:
        raise InputError(f"{error}, or sum them with --duplicates sum") from None
    return data


def sum_genes(data: Loaded, units: Units, *, where: str) -> Loaded:
    """Genes of one name summed; names stand where they come first, with the first's annotations.

    Raises
    ------
    InputError
        If names repeat and the values are not known to be on a linear scale.
    """
    codes, names = pd.factorize(data.var.index)
    if len(names) == len(codes):
        return data
    if not units.is_linear:
        raise InputError(
            f"{where}: duplicates can be summed on a linear scale only; found {units}: name the "
            "genes apart, or say the units"
        )
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(names)))

    def blocks() -> Iterator[Block]:
        for start, stop, X in data.blocks():
            sums = np.add.reduceat(X[:, order], starts, axis=1, dtype=np.float64)
            yield start, stop, sums.astype(np.float32)

    var = data.var[~data.var.index.duplicated()]
    return Loaded(data.obs, var, blocks)
