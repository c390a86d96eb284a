"""Sums on the way: genes that share a name, runs of one experiment."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from m1pipe.data.names import refuse_duplicates
from m1pipe.data.spool import Loaded
from m1pipe.data.survey import Block
from m1pipe.data.units import Units
from m1pipe.errors import InputError


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


def refuse_repeated_genes(data: Loaded, *, where: str) -> None:
    """Raise an InputError that names the first gene that comes twice, and the way out."""
    try:
        refuse_duplicates(list(data.var.index), f"{where}: genes")
    except InputError as error:
        raise InputError(f"{error}, or sum them with --duplicates sum") from None


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


def rename_genes(data: Loaded, names: list[str]) -> Loaded:
    """The same values under other gene names; the old ones stay in `var["source_name"]`."""
    old = data.var.index
    if list(old) == names:
        return data
    var = data.var.assign(source_name=np.asarray(old, dtype=object))
    return replace(data, var=var.set_axis(pd.Index(names, dtype=object)))
