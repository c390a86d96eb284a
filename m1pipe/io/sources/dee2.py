"""DEE2: counts of SRA runs, in bulk as HDF5 or, formerly, as one long table; or of one study.

A study, or a choice of runs, comes as a zip of tables, packed or unpacked.
"""

import csv
import io
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np
import pandas as pd

from m1pipe.data.labels import label_column, listed_columns
from m1pipe.data.matrix import Matrix
from m1pipe.data.units import Units
from m1pipe.errors import InputError
from m1pipe.io.conversion.config import ConvertConfig
from m1pipe.io.conversion.loaded import Loaded, append, load_text, row_blocks
from m1pipe.io.hdf5 import open_hdf5, read_names
from m1pipe.io.rows import check_dense, dense_rows, transposed_rows
from m1pipe.io.text.lines import open_chunks, whole_lines

EXPERIMENT_COLUMNS = ("SRX_accession", "experiment_accession", "experiment", "SRX")
QUALITY = "QC_summary"
_VERDICT = re.compile(r"(PASS|WARN|FAIL)\b")
_BULK_NAME = re.compile(r"(.*_)?(se|ke)(\.h5)")
_KEYS = {"bigmatrix", "rownames", "colnames"}


def is_dee2(handle: h5py.File) -> bool:
    """Whether an open HDF5 file is laid out as DEE2's bulk files are."""
    return set(handle) >= _KEYS


def read_dee2(handle: h5py.File, path: Path) -> Matrix:
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
    rows = transposed_rows if _is_transposed(X, runs, genes, "genes", path) else dense_rows
    return rows("dee2", X, obs, var, Units("counts"))


def _is_transposed(
    X: h5py.Dataset, runs: np.ndarray, others: np.ndarray, what: str, path: Path
) -> bool:
    """Whether the file holds runs as columns, by the lengths of the names."""
    if X.shape not in ((len(others), len(runs)), (len(runs), len(others))):
        raise InputError(
            f"{path}: bigmatrix: expected {len(runs)} runs x {len(others)} {what} by its names, "
            f"either way round; found {X.shape[0]} x {X.shape[1]}"
        )
    return bool(X.shape == (len(others), len(runs)))


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
        transposed = _is_transposed(X, runs, measures, "measures", path)
        values = X.asstr(errors="replace")[:]
        values = values.T if transposed else values
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
        f"{listed_columns(obs)}"
    )


_FIRST_LINE = re.compile(rb"(dataset\t|[SED]RR\d+\t)[^\t]+\t[^\t]+")
_FIELDS = ("run", "gene", "count")


def looks_long(first_line: bytes) -> bool:
    """Whether a text begins as a long table of DEE2 does."""
    return _FIRST_LINE.fullmatch(first_line.rstrip()) is not None


def load_long(path: Path, raw: BinaryIO) -> Loaded:
    """Parse a long table once into `raw`, a row a run.

    The genes of the first run are those of the table; every run must list each of them once, in
    whatever order. A run's lines stand together.

    Raises
    ------
    InputError
        If a line is no run, gene and count, a run comes again after another, or its genes are not
        those of the first.
    """
    runs: dict[str, None] = {}
    genes: pd.Index | None = None
    for run, table in _runs(path):
        if run in runs:
            raise InputError(f"{path}: expected the lines of a run together; found {run} again")
        if genes is None:
            genes = pd.Index(table["gene"], dtype=object)
            if not genes.is_unique:
                twice = genes[genes.duplicated()][0]
                raise InputError(f"{path}: run {run}: expected each gene once; found {twice} again")
        runs[run] = None
        append(raw, _in_order(table, genes, f"{path}: run {run}"))
    if genes is None:
        raise InputError(f"{path}: expected lines of run, gene and count; found none")
    obs = pd.DataFrame(index=pd.Index(list(runs), dtype=object))
    data = row_blocks(raw, len(runs), len(genes))
    return Loaded(obs, pd.DataFrame(index=genes), data)


def _in_order(table: pd.DataFrame, genes: pd.Index, where: str) -> np.ndarray:
    """Counts of one run in the order of the genes."""
    counts = table.set_index("gene")["count"]
    if not counts.index.equals(genes):
        n_known = int(genes.isin(counts.index).sum())
        if not len(counts) == len(genes) == n_known:
            raise InputError(
                f"{where}: expected the {len(genes)} genes of the first run, each once; found "
                f"{n_known} of them on {len(counts)} lines"
            )
        counts = counts.reindex(genes)
    return counts.to_numpy(dtype=np.float32)


def _runs(path: Path) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each run with its lines."""
    held: list[pd.DataFrame] = []
    for table in _tables(path):
        cuts = np.flatnonzero(table["run"].to_numpy()[1:] != table["run"].to_numpy()[:-1]) + 1
        for first, last in zip([0, *cuts], [*cuts, len(table)], strict=True):
            part = table.iloc[first:last]
            if held and held[0]["run"].iloc[0] != part["run"].iloc[0]:
                yield held[0]["run"].iloc[0], pd.concat(held)
                held = []
            held.append(part)
    if held:
        yield held[0]["run"].iloc[0], pd.concat(held)


def _tables(path: Path) -> Iterator[pd.DataFrame]:
    """The lines, some megabytes at a time, as tables of run, gene and count."""
    line = 1
    with open_chunks(path) as chunks:
        for text in whole_lines(chunks):
            if line == 1 and text.startswith(b"dataset\t"):
                text = text[text.find(b"\n") + 1 :]
                line += 1
            n_lines = text.count(b"\n") + (not text.endswith(b"\n"))
            if text:
                yield _table(text, n_lines, f"{path}: lines {line} to {line + n_lines - 1}")
            line += n_lines


def _table(text: bytes, n_lines: int, where: str) -> pd.DataFrame:
    kinds = {"run": str, "gene": str, "count": np.float64}
    try:
        table = pd.read_csv(
            io.BytesIO(text),
            sep="\t",
            header=None,
            names=_FIELDS,
            dtype=kinds,
            index_col=False,
            keep_default_na=False,
            skip_blank_lines=False,
            quoting=3,
        )
    except (ValueError, pd.errors.ParserWarning) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{where}: expected run, gene and count; {reason}") from None
    wrong = ~(table["count"] >= 0) | np.isinf(table["count"])
    if len(table) != n_lines or wrong.any():
        raise InputError(f"{where}: expected run, gene and a count of at least 0 on every line")
    return table


GENE_COUNTS = "GeneCountMatrix.tsv"
TRANSCRIPT_COUNTS = "TxCountMatrix.tsv"
_INFO = {GENE_COUNTS: "GeneInfo.tsv", TRANSCRIPT_COUNTS: "TxInfo.tsv"}
_METADATA = "MetadataSummary.tsv"
_MEASURES = "QC_Matrix.tsv"
_MEMBERS = (*_INFO, *_INFO.values(), _METADATA, _MEASURES)
_GENE_COLUMNS = {"GeneSymbol": "symbol", "GeneID": "gene_id"}


def is_study_folder(folder: Path) -> bool:
    """Whether a folder holds the unpacked tables of a study."""
    return any((folder / name).is_file() for name in _INFO)


@contextmanager
def unpacked(path: Path, room: Path) -> Iterator[Path]:
    """Yield the folder of a study's tables: `path` itself, or, where that is a zip, its content.

    Parameters
    ----------
    path : Path
        Folder or zip; inside the zip the tables may lie in a folder.
    room : Path
        An empty folder for what is in the zip.

    Raises
    ------
    InputError
        If the zip is damaged or holds no counts, or the disk is full. What is refused in a table
        names the zip.
    """
    if path.is_dir():
        yield path
        return
    try:
        with zipfile.ZipFile(path) as archive:
            found = [name for name in archive.namelist() if Path(name).name in _MEMBERS]
            if not {Path(name).name for name in found} & set(_INFO):
                inside = ", ".join(archive.namelist()[:4]) or "nothing"
                raise InputError(
                    f"{path}: expected a zip of DEE2 with {GENE_COUNTS}; found {inside}: unpack it "
                    "and convert the table"
                )
            for name in found:
                with archive.open(name) as packed, open(room / Path(name).name, "xb") as plain:
                    shutil.copyfileobj(packed, plain)
    except FileExistsError as error:
        name = Path(error.filename).name
        raise InputError(f"{path}: expected one study; found {name} twice") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
        raise InputError(f"{path}: could not be unpacked: {error}") from None
    try:
        yield room
    except InputError as error:
        raise InputError(str(error).replace(str(room), str(path))) from None


def load_study(folder: Path, raw: BinaryIO, *, isoforms: bool) -> Loaded:
    """Counts of a study with what its tables say of runs and genes.

    Parameters
    ----------
    folder : Path
        Of the tables.
    raw : binary file
        As `load_text` needs it.
    isoforms : bool
        kallisto's transcripts instead of STAR's genes.

    Returns
    -------
    Loaded
        `obs` from the summary of the metadata, with the quality from the matrix of measures where
        that summary lacks it; `var` from the table of genes or transcripts.

    Raises
    ------
    InputError
        If the counts are not there, or a table is broken.
    """
    name = TRANSCRIPT_COUNTS if isoforms else GENE_COUNTS
    if not (folder / name).is_file():
        raise InputError(f"{folder}: expected {name} as DEE2 has it; found none")
    data = load_text(folder / name, raw, ConvertConfig(genes_as_rows=True))
    obs, var = data.obs, data.var
    if (folder / _METADATA).is_file():
        obs = obs.join(_described(folder / _METADATA, obs.index))
    if quality_column(obs) is None and (folder / _MEASURES).is_file():
        measures = _described(folder / _MEASURES, None).T
        column = quality_column(measures)
        if column is not None:
            obs = obs.assign(**{QUALITY: measures[column].reindex(obs.index)})
    if (folder / _INFO[name]).is_file():
        var = var.join(_described(folder / _INFO[name], var.index).rename(columns=_GENE_COLUMNS))
    return Loaded(obs, var, data.blocks)


def _described(path: Path, names: pd.Index | None) -> pd.DataFrame:
    """A table with names in its first column, of `names` alone; titles in it may hold quotes."""
    try:
        table = pd.read_csv(
            path,
            sep="\t",
            dtype=str,
            quoting=csv.QUOTE_NONE,
            keep_default_na=False,
            encoding="utf-8",
            encoding_errors="replace",
        )
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: could not be read: {str(error).splitlines()[0]}") from None
    # A header one field short, as R writes it, makes the names the index.
    table = table if table.index.dtype == object else table.set_index(table.columns[0])
    table = table[~table.index.duplicated()]
    if names is None:
        return table
    table = table[table.index.isin(names)]
    columns = {str(name): label_column(table[name].fillna("").tolist()) for name in table}
    return pd.DataFrame(columns, index=table.index)
