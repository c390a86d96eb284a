"""What `convert` decides once the values are known: target, samples left out, labels, doubts."""

import warnings
from typing import Literal

import numpy as np
import pandas as pd

from m1pipe.data.conversion.steps import Steps
from m1pipe.data.sources.tables import join_labels
from m1pipe.data.survey import Survey, binary_genes
from m1pipe.data.units import MILLION
from m1pipe.errors import InputError, M1Warning

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
    suspects = genes[binary_genes(found)] if may_hold_labels else genes[:0]
    if len(suspects):
        doubts.append(
            f"{len(suspects):,} columns hold 0 and 1 only ({', '.join(suspects[:3])}): if they are "
            f"labels take them out of the genes, --obs-columns {','.join(suspects[:3])}"
        )
    if steps.units.is_counts and not found.whole:
        doubts.append("units are counts, but not all values are whole numbers")
    if steps.result.name == "unknown":
        doubts.append("the units are not known: say them by --units")
    for doubt in doubts:
        warnings.warn(f"{where}: {doubt}", M1Warning, stacklevel=2)


def target_sum(found: Survey, steps: Steps) -> float | None:
    """What the samples are scaled to; for "median" the median of the totals above 0."""
    if steps.normalize == "median":
        positive = found.totals[found.totals > 0]
        return float(np.median(positive)) if len(positive) else None
    return MILLION if steps.normalize == "tpm" else steps.target_sum


def kept_samples(
    found: Survey, steps: Steps, samples: pd.Index, zero_total: ZeroTotal, *, where: str
) -> np.ndarray:
    """Which samples are written: all, but for those with a total of 0 that are to be dropped.

    Parameters
    ----------
    found : Survey
    steps : Steps
    samples : Index, length n_samples
    zero_total : "error", "drop" or "keep"
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
    if steps.normalize is None or not zero.any():
        return everyone
    names = ", ".join(map(repr, samples[zero][:3]))
    what = f"{where}: {zero.sum():,} of {len(zero):,} samples have a total of 0 ({names})"
    if zero_total == "error" or zero.all():
        raise InputError(
            f"{what} and cannot be normalised: --zero-total drop leaves them out, keep leaves "
            "them at 0"
        )
    done = "dropped" if zero_total == "drop" else "kept at 0"
    warnings.warn(f"{what}: {done}", M1Warning, stacklevel=2)
    return ~zero if zero_total == "drop" else everyone


def annotate(
    frame: pd.DataFrame, table: pd.DataFrame | None, what: str
) -> tuple[pd.DataFrame, int | None]:
    """Join a table where there is one; its column `gene` becomes `gene_id`.

    Parameters
    ----------
    frame : DataFrame, shape (n, a)
    table : DataFrame, shape (m, b), or None
    what : str
        Named in messages.

    Returns
    -------
    joined : DataFrame, shape (n, a + b)
    n_matched : int or None
        Rows of `frame` that the table knows; None without a table.
    """
    if table is None:
        return frame, None
    if "gene_id" not in table.columns:
        table = table.rename(columns={"gene": "gene_id"})
    return join_labels(frame, table, what)


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
