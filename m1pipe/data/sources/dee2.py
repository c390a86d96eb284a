"""DEE2: counts of SRA runs, in bulk as HDF5 or, formerly, as one long table."""

import re
from pathlib import Path

import h5py
import pandas as pd

from m1pipe.data.hdf5 import open_hdf5, read_names
from m1pipe.data.stored import Stored, check_dense, dense_rows, transposed_rows
from m1pipe.data.units import Units
from m1pipe.errors import InputError

EXPERIMENT_COLUMNS = ("SRX_accession", "experiment_accession", "experiment", "SRX")
QUALITY = "QC_summary"
_VERDICT = re.compile(r"(PASS|WARN|FAIL)\b")
_BULK_NAME = re.compile(r"(.*_)?(se|ke)(\.h5)")
_KEYS = {"bigmatrix", "rownames", "colnames"}


def is_dee2(handle: h5py.File) -> bool:
    """Whether an open HDF5 file is laid out as DEE2's bulk files are."""
    return set(handle) >= _KEYS


def dee2_stored(handle: h5py.File, path: Path) -> Stored:
    """Rows of a bulk file of DEE2.

    R wrote it, as runs x genes; because R stores the first dimension fastest, the file itself
    holds genes as rows. Either way round is told by the lengths of the names.

    Raises
    ------
    InputError
        If the values are no numbers (the file of quality measures) or the names do not fit.
    """
    X = handle["bigmatrix"]
    if X.dtype.kind in "OS":
        raise InputError(
            f"{path}: bigmatrix: expected counts (se.h5, ke.h5); found text, as in the quality "
            "measures of qc.h5"
        )
    check_dense(X, f"{path}: bigmatrix")
    runs, genes = (read_names(handle[key]) for key in ("rownames", "colnames"))
    obs = pd.DataFrame(index=pd.Index(runs, dtype=object))
    var = pd.DataFrame(index=pd.Index(genes, dtype=object))
    if X.shape == (len(genes), len(runs)):
        return transposed_rows("dee2", X, obs, var, Units("counts"))
    if X.shape == (len(runs), len(genes)):
        return dense_rows("dee2", X, obs, var, Units("counts"))
    raise InputError(
        f"{path}: bigmatrix: expected {len(runs)} runs x {len(genes)} genes by its names, either "
        f"way round; found {X.shape[0]} x {X.shape[1]}"
    )


def quality_column(table: pd.DataFrame) -> str | None:
    """Column of the verdict of DEE2's quality control, in upper or lower case; None without.

    Parameters
    ----------
    table : DataFrame, shape (n_runs, n_columns)
    """
    return next((str(name) for name in table if str(name).lower() == QUALITY.lower()), None)


def quality_beside(path: Path) -> Path | None:
    """The file of quality measures that lies beside a bulk file, such as hsapiens_qc.h5."""
    named = _BULK_NAME.fullmatch(path.name)
    beside = path.with_name(f"{named[1] or ''}qc{named[3]}") if named else None
    return beside if beside is not None and beside.is_file() else None


def read_quality(path: Path) -> pd.Series:
    """Verdict on every run, from the bulk file of quality measures.

    The measures are text, runs x measures as R sees it. Their verdict is the measure named
    `QC_SUMMARY`, or, where the measures are only numbered, the one that holds verdicts alone.

    Returns
    -------
    Series of str
        PASS, WARN(...) or FAIL(...), by run.

    Raises
    ------
    InputError
        If the file is not laid out so, or no measure is a verdict.
    """
    with open_hdf5(path) as handle:
        if not is_dee2(handle) or handle["bigmatrix"].dtype.kind not in "OS":
            raise InputError(f"{path}: expected the quality measures of DEE2 (qc.h5) as text")
        runs, measures = (read_names(handle[key]) for key in ("rownames", "colnames"))
        X = handle["bigmatrix"]
        if X.shape not in ((len(measures), len(runs)), (len(runs), len(measures))):
            raise InputError(
                f"{path}: bigmatrix: expected {len(runs)} runs x {len(measures)} measures by its "
                f"names, either way round; found {X.shape[0]} x {X.shape[1]}"
            )
        values = X.asstr(errors="replace")[:]
        values = values.T if X.shape == (len(measures), len(runs)) else values
    table = pd.DataFrame(values, index=pd.Index(runs, dtype=object), columns=measures)
    column = quality_column(table)
    if column is None:
        verdicts = [str(name) for name in measures if table[name].str.match(_VERDICT).all()]
        column = verdicts[0] if len(verdicts) == 1 else None
    if column is None:
        raise InputError(f"{path}: expected a measure QC_SUMMARY of PASS, WARN or FAIL; found none")
    return table[column][~table.index.duplicated()]


def experiments(obs: pd.DataFrame, where: str) -> pd.Series:
    """Experiment of every run, by a column such as DEE2's `SRX_accession`.

    Parameters
    ----------
    obs : DataFrame, shape (n_runs, n_columns)
    where : str
        Named in messages.

    Returns
    -------
    Series of str, shape (n_runs,)

    Raises
    ------
    InputError
        If there is no such column, or a run has no experiment.
    """
    for column in EXPERIMENT_COLUMNS:
        if column in obs:
            lacking = obs.index[obs[column].isna()]
            if len(lacking):
                raise InputError(f"{where}: {column}: run {lacking[0]!r} has no experiment")
            return obs[column].astype(str)
    raise InputError(
        f"{where}: expected a column of experiments ({', '.join(EXPERIMENT_COLUMNS)}); found "
        f"{', '.join(map(str, obs.columns[:8])) or 'none'}"
    )
