"""What `convert` decides once the values are known: target, samples left out, labels, doubts."""

import warnings
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd

from m1pipe.data.conversion.steps import Steps
from m1pipe.data.sources.header import (
    describing_columns,
    named_like_annotations,
    no_genes,
    sums_of_others,
    turned_to_dates,
    unlike_others,
)
from m1pipe.data.sources.tables import join_labels
from m1pipe.data.spool import Loaded, choose, choose_genes
from m1pipe.data.survey import Survey, binary_genes
from m1pipe.data.units import MILLION
from m1pipe.errors import InputError, M1Warning

_NAMED = 6
_GTEX_ID = r"^(GTEX-[A-Z0-9]+)-"
ZeroTotal = Literal["error", "drop", "keep"]


def check_values(
    found: Survey, steps: Steps, genes: pd.Index, *, where: str, may_hold_labels: bool
) -> None:
    """Refuse infinities; warn of labels among the genes and of units that do not fit.

    Parameters
    ----------
    found : Survey
        Of the values before the steps, but for the floor.
    steps : Steps
    genes : Index, length n_genes
    where : str
        The source, for messages.
    may_hold_labels : bool
        The source is of a kind that can hold labels among the genes.

    Raises
    ------
    InputError
        If a value is infinite.
    """
    if found.n_infinite:
        raise InputError(f"{where}: expected finite values; found {found.n_infinite:,} infinite")
    doubts = []
    dates = turned_to_dates([str(gene) for gene in genes])
    if dates:
        doubts.append(
            f"{len(dates)} genes are named as dates ({', '.join(dates[:3])}): Excel turned their "
            "names, such as SEPT2 and MARCH1; take the table from its source"
        )
    if may_hold_labels:
        doubts += _label_doubts(found, genes)
    if steps.units.is_counts and not found.whole:
        doubts.append("units are counts, but not all values are whole numbers")
    if steps.result.name == "unknown":
        doubts.append("the units are not known: say them by --units")
    for doubt in doubts:
        warnings.warn(f"{where}: {doubt}", M1Warning, stacklevel=2)


def _described(data: Loaded, where: str) -> Loaded:
    """Rows that describe genes among samples, such as Length, moved to `var`."""
    names = [str(name) for name in data.obs.index]
    known = describing_columns(names, [])
    if not known:
        return data
    mask = data.obs.index.isin(known)
    values = np.concatenate([X for _, _, X in choose(data, mask).blocks()])
    var = data.var.assign(**dict(zip(np.array(names)[mask], values, strict=True)))
    text = f"{where}: rows that describe genes, not samples: {', '.join(known)} (kept in var)"
    warnings.warn(text, M1Warning, stacklevel=4)
    return choose(replace(data, var=var), ~mask)


def _label_doubts(found: Survey, genes: pd.Index) -> list[str]:
    """Columns among the genes that may be labels: by their names or their values."""
    names = [str(name) for name in genes]
    binary = np.isin(np.arange(len(names)), binary_genes(found))
    named = named_like_annotations(names) | unlike_others(names)
    unlike = np.isin(np.arange(len(names)), found.unlike)
    ways = {"hold 0 and 1 only": binary, "are named unlike genes": named}
    ways["hold values unlike the others'"] = unlike
    said = [
        f"{mask.sum():,} {way} ({', '.join(genes[mask][:_NAMED])})"
        for way, mask in ways.items()
        if mask.any()
    ]
    if not said:
        return []
    columns = ",".join(genes[binary | named | unlike][:_NAMED])
    return [
        f"of the columns {'; '.join(said)}: if they are labels take them out of the genes, "
        f"--obs-columns {columns}"
    ]


def target_sum(found: Survey, steps: Steps) -> float | None:
    """What the samples are scaled to; for "median" the median of the totals above 0."""
    if steps.normalize == "median":
        positive = found.totals[found.totals > 0]
        return float(np.median(positive)) if len(positive) else None
    return MILLION if steps.normalize == "tpm" else steps.target_sum


def kept_samples(
    found: Survey, steps: Steps, samples: pd.Index, zero_total: ZeroTotal | None, *, where: str
) -> np.ndarray:
    """Which samples are written: all, but for those with a total of 0 that are to be dropped.

    Parameters
    ----------
    found : Survey
    steps : Steps
    samples : Index, length n_samples
    zero_total : "error", "drop", "keep" or None
        None: an error where samples are normalised.
    where : str
        The source, for messages.

    Returns
    -------
    ndarray of bool, shape (n_samples,)

    Raises
    ------
    InputError
        If a sample to be normalised has a total of 0 and that is an error, or all have.
    """
    zero = found.totals <= 0
    everyone = np.ones(len(zero), dtype=bool)
    if zero_total is None:
        zero_total = "keep" if steps.normalize is None else "error"
        if steps.normalize is None:
            return everyone
    if not zero.any():
        return everyone
    names = ", ".join(map(repr, samples[zero][:3]))
    what = f"{where}: {zero.sum():,} of {len(zero):,} samples have a total of 0 ({names})"
    if zero_total == "error" or zero.all():
        raise InputError(
            f"{what}{' and cannot be normalised' if steps.normalize else ''}: --zero-total drop "
            "leaves them out, keep leaves them at 0"
        )
    done = "dropped" if zero_total == "drop" else "kept at 0"
    warnings.warn(f"{what}: {done}", M1Warning, stacklevel=2)
    return ~zero if zero_total == "drop" else everyone


def annotate(
    frame: pd.DataFrame, table: pd.DataFrame | None, what: str, *, genes: bool = False
) -> tuple[pd.DataFrame, int | None]:
    """Join a table where there is one; its column `gene` becomes `gene_id`.

    Parameters
    ----------
    frame : DataFrame, shape (n, a)
    table : DataFrame, shape (m, b), or None
    what : str
        Named in messages.
    genes : bool
        Rows are genes.

    Returns
    -------
    joined : DataFrame, shape (n, a + b)
    n_matched : int or None
        Rows of `frame` that the table knows; None without a table.
    """
    if table is None:
        return frame, None
    if genes and "gene_id" not in table.columns:
        table = table.rename(columns={"gene": "gene_id"})
    return join_labels(frame, table, what, genes=genes)


def leave_out(data: Loaded, where: str) -> Loaded:
    """A source without what is no gene or sample, named on the way: counters, totals.

    Parameters
    ----------
    data : Loaded
    where : str
        The source, for the warning.

    Warns
    -----
    M1Warning
        Naming what was left out.
    """
    genes = no_genes([str(name) for name in data.var.index])
    samples = sums_of_others([str(name) for name in data.obs.index])
    for what, index, odd in (("gene", data.var.index, genes), ("sample", data.obs.index, samples)):
        if odd.any() and not odd.all():
            names = ", ".join(map(str, index[odd][:6]))
            text = f"{where}: left out, being no {what}s: {names}{', ...' * int(odd.sum() > 6)}"
            warnings.warn(text, M1Warning, stacklevel=3)
    data = _described(data, where)
    samples = sums_of_others([str(name) for name in data.obs.index])
    if genes.any() and not genes.all():
        data = choose_genes(data, ~genes)
    return choose(data, ~samples) if samples.any() and not samples.all() else data


def gtex_columns(obs: pd.DataFrame) -> pd.DataFrame:
    """`tissue` and `donor` of GTEx's samples, where they are and go by other names.

    `SMTSD` of the sample attributes becomes `tissue`; ids such as GTEX-1117F-0226-SM-5GZZ7, if
    all samples have them, give the `donor` GTEX-1117F.

    Parameters
    ----------
    obs : DataFrame, shape (n_samples, n_columns)

    Returns
    -------
    DataFrame, shape (n_samples, n_columns + at most 2)
    """
    if "SMTSD" in obs and "tissue" not in obs:
        obs = obs.assign(tissue=obs["SMTSD"])
    donors = obs.index.astype(str).str.extract(_GTEX_ID, expand=False)
    if "donor" not in obs and len(obs) and donors.notna().all():
        obs = obs.assign(donor=donors.to_numpy())
    return obs


def with_totals(obs: pd.DataFrame, found: Survey, steps: Steps) -> pd.DataFrame:
    """`obs` with `total_counts` before normalisation, unless it has those of the raw counts.

    Parameters
    ----------
    obs : DataFrame, shape (n_samples, n_columns)
    found : Survey
        Of the values before the steps.
    steps : Steps

    Returns
    -------
    DataFrame, shape (n_samples, n_columns or one more)
    """
    if steps.normalize is None or ("total_counts" in obs.columns and not steps.units.is_counts):
        return obs
    return obs.assign(total_counts=found.totals)
