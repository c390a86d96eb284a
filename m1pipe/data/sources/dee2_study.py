"""What DEE2 serves of a study or a choice of runs: a zip of tables, packed or unpacked."""

import csv
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pandas as pd

from m1pipe.data.labels import label_column
from m1pipe.data.sources.dee2 import QUALITY, quality_column
from m1pipe.data.spool import Loaded, load_text
from m1pipe.errors import InputError

GENE_COUNTS = "GeneCountMatrix.tsv"
TRANSCRIPT_COUNTS = "TxCountMatrix.tsv"
_INFO = {GENE_COUNTS: "GeneInfo.tsv", TRANSCRIPT_COUNTS: "TxInfo.tsv"}
_METADATA = "MetadataSummary.tsv"
_MEASURES = "QC_Matrix.tsv"
_MEMBERS = (*_INFO, *_INFO.values(), _METADATA, _MEASURES)
_COLUMNS = {"GeneSymbol": "symbol", "GeneID": "gene_id"}


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


def load_study(folder: Path, spool: BinaryIO, *, isoforms: bool) -> Loaded:
    """Counts of a study with what its tables say of runs and genes.

    Parameters
    ----------
    folder : Path
        Of the tables.
    spool : binary file
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
    data = load_text(folder / name, spool, genes_as_rows=True)
    obs, var = data.obs, data.var
    if (folder / _METADATA).is_file():
        obs = obs.join(_described(folder / _METADATA, obs.index))
    if quality_column(obs) is None and (folder / _MEASURES).is_file():
        measures = _described(folder / _MEASURES, None).T
        column = quality_column(measures)
        if column is not None:
            obs = obs.assign(**{QUALITY: measures[column].reindex(obs.index)})
    if (folder / _INFO[name]).is_file():
        var = var.join(_described(folder / _INFO[name], var.index).rename(columns=_COLUMNS))
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
