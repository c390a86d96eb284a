"""Folders of salmon, kallisto and RSEM: a table of transcripts a sample, and sums by gene."""

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from m1pipe.data.names import match_genes, refuse_duplicates
from m1pipe.errors import InputError, M1Warning
from m1pipe.io.tables import read_table
from m1pipe.io.text.known_names import names_a_gene
from m1pipe.io.text.table import open_table

Quantifier = Literal["salmon", "kallisto", "rsem"]
# File of a sample, and its columns: TPM, counts, effective length, length.
_FILES = {"salmon": "quant.sf", "kallisto": "abundance.tsv", "rsem": "*.isoforms.results"}
_COLUMNS = {
    "salmon": ("TPM", "NumReads", "EffectiveLength", "Length"),
    "kallisto": ("tpm", "est_counts", "eff_length", "length"),
    "rsem": ("TPM", "expected_count", "effective_length", "length"),
}


@dataclass(frozen=True, eq=False)
class Quantified:
    """Levels of all samples.

    Attributes
    ----------
    samples : list of str
    var : DataFrame, shape (n_features, n_columns)
        Indexed by transcript or gene; `length` in bases, `gene_id` where it is known.
    tpm, counts, effective_length : ndarray of float32, shape (n_samples, n_features)
    """

    samples: list[str]
    var: pd.DataFrame
    tpm: np.ndarray
    counts: np.ndarray
    effective_length: np.ndarray

    @property
    def layers(self) -> dict[str, np.ndarray]:
        """What stands beside X."""
        return {"counts": self.counts, "effective_length": self.effective_length}


def quantifier_of(folder: Path) -> Quantifier | None:
    """Which program a folder is of, by the files in it; None where it is of none."""
    kinds: tuple[Quantifier, ...] = ("salmon", "kallisto", "rsem")
    return next((kind for kind in kinds if _files(folder, kind)), None)


def _files(folder: Path, kind: Quantifier) -> list[Path]:
    patterns = (_FILES[kind], f"{_FILES[kind]}.gz")
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        inode = os.stat(place)
        if (inode.st_dev, inode.st_ino) in seen:
            folders.clear()
            continue
        seen.add((inode.st_dev, inode.st_ino))
        found += [Path(place, n) for n in names if any(fnmatch(n, p) for p in patterns)]
    return sorted(found)


def _warn_of_others(folder: Path, files: list[Path], kind: Quantifier) -> None:
    """Warn of folders beside those of the samples that hold no sample of this kind."""
    tops = {path.relative_to(folder).parts[0] for path in files}
    if kind == "rsem" or len(tops) < len(files):
        return
    others = [place.name for place in sorted(folder.iterdir()) if place.is_dir()]
    lacking = [name for name in others if name not in tops and not name.startswith(".")]
    if lacking:
        text = f"{folder}: {len(lacking):,} folders without {_FILES[kind]} are left out"
        warnings.warn(f"{text} (such as {lacking[0]!r})", M1Warning, stacklevel=3)


def read_quants(folder: Path, kind: Quantifier, tx2gene: str | None = None) -> Quantified:
    """Read the tables of all samples of a folder.

    Parameters
    ----------
    folder : Path
        A folder a sample, with `quant.sf` or `abundance.tsv` in it, or SAMPLE.isoforms.results.
    kind : "salmon", "kallisto" or "rsem"
    tx2gene : str, optional
        Table of transcripts and their genes.

    Returns
    -------
    Quantified
        Transcripts in the order of the first sample.

    Raises
    ------
    InputError
        If there is no such file, a table lacks a column or a transcript, or a value is no level.
    """
    files = _files(folder, kind)
    if not files:
        hint = ": abundance.h5 alone is not read: kallisto h5dump makes the text"
        more = hint if kind == "kallisto" and list(folder.rglob("abundance.h5")) else ""
        raise InputError(f"{folder}: expected {_FILES[kind]} of each sample; found none{more}")
    _warn_of_others(folder, files, kind)
    samples = _sample_names(folder, files, kind)
    refuse_duplicates(samples, f"{folder}: samples")
    first = _read_one(files[0], kind)
    shape = (len(files), len(first))
    arrays = {name: np.empty(shape, dtype=np.float32) for name in _COLUMNS[kind][:3]}
    for row, path in enumerate(files):
        table = first if row == 0 else _read_one(path, kind)
        if not table.index.equals(first.index):
            if len(table) != len(first) or set(table.index) != set(first.index):
                raise InputError(
                    f"{path}: expected the {len(first):,} transcripts of {files[0]}; found others: "
                    "quantify all samples with one index"
                )
            table = table.loc[first.index]
        for name, values in arrays.items():
            values[row] = table[name]
    tpm, counts, effective = arrays.values()
    var = pd.DataFrame({"length": first[_COLUMNS[kind][3]]}, first.index)
    if "gene_id" in first:
        var["gene_id"] = first["gene_id"]
    described = [name.split("|") for name in first.index]
    if all(len(parts) > 2 and names_a_gene(parts[1]) for parts in described):  # by GENCODE
        var["gene_id"] = [parts[1] for parts in described]
    if tx2gene is not None:
        var["gene_id"] = _genes_of(list(first.index), tx2gene)
    return Quantified(samples, var, tpm, counts, effective)


def sums_by_gene(found: Quantified) -> Quantified | None:
    """Sums over the transcripts of each gene; None where no gene is known.

    The effective length of a gene is the mean of its transcripts' lengths weighted by their levels
    in the sample; where the gene is not expressed, by their mean levels over samples, or alike.

    References
    ----------
    Soneson, Love & Robinson 2015, F1000Research 4:1521 (tximport).
    """
    if "gene_id" not in found.var or found.var["gene_id"].isna().all():
        return None
    known = found.var["gene_id"].notna().to_numpy()
    codes, genes = pd.factorize(found.var["gene_id"][known])
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(genes)))

    def summed(X: np.ndarray) -> np.ndarray:
        return np.add.reduceat(X[:, known][:, order].astype(np.float64), starts, axis=1)

    tpm, lengths = found.tpm, found.effective_length
    overall = np.broadcast_to(tpm.mean(axis=0), tpm.shape)
    effective = np.full((len(tpm), len(genes)), np.nan)
    for weights in (tpm, overall, np.ones_like(tpm)):
        total = summed(weights)
        empty = np.full(total.shape, np.nan)
        mean = np.divide(summed(weights * lengths), total, out=empty, where=total > 0)
        effective = np.where(np.isnan(effective), mean, effective)
    var = pd.DataFrame({"n_transcripts": np.bincount(codes)}, pd.Index(genes, dtype=object))
    parts = (summed(tpm), summed(found.counts), effective)
    return Quantified(found.samples, var, *(part.astype(np.float32) for part in parts))


def _sample_names(folder: Path, files: list[Path], kind: Quantifier) -> list[str]:
    """Names of the folders or files; of the first folder where that tells samples apart."""
    if kind == "rsem":
        return [path.name.split(".isoforms.results")[0] for path in files]
    ways = [path.relative_to(folder).parts[:-1] for path in files]
    if all(ways):
        tops = [way[0] for way in ways]
        return tops if len(set(tops)) == len(tops) else ["/".join(way) for way in ways]
    return [folder.name if not way else "/".join(way) for way in ways]


def _read_one(path: Path, kind: Quantifier) -> pd.DataFrame:
    """Table of one sample: the four columns as numbers, and the gene where it is there."""
    with open_table(path) as table:
        lacking = [name for name in _COLUMNS[kind] if name not in table.columns]
        if lacking:
            raise InputError(
                f"{path}: expected the columns {', '.join(_COLUMNS[kind])} of {kind}; found "
                f"{', '.join(table.columns[:6])}"
            )
        places = {name: 1 + table.columns.index(name) for name in _COLUMNS[kind]}
        if "gene_id" in table.columns:
            places["gene_id"] = 1 + table.columns.index("gene_id")
        rows = list(table.rows())
    names = [fields[0] for _, fields in rows]
    refuse_duplicates(names, f"{path}: transcripts")
    columns = {
        name: [fields[place] for _, fields in rows]
        if name == "gene_id"
        else list(_levels(rows, place, name, path))
        for name, place in places.items()
    }
    return pd.DataFrame(columns, index=pd.Index(names, dtype=object))


def _levels(
    rows: list[tuple[int, list[str]]], place: int, column: str, path: Path
) -> Iterator[float]:
    for line, fields in rows:
        try:
            value = float(fields[place])
        except ValueError:
            value = np.nan
        if not 0 <= value < np.inf:
            raise InputError(
                f"{path}: line {line}: expected a number of at least 0 in {column!r}; found "
                f"{fields[place]!r}"
            )
        yield value


def _genes_of(transcripts: list[str], tx2gene: str) -> np.ndarray:
    """Gene of every transcript, NaN where the table knows none."""
    table = read_table(Path(tx2gene))
    names = [name for name in table.columns if name.lower() in ("gene", "gene_id", "geneid")]
    if not len(table.columns):
        raise InputError(f"{tx2gene}: expected columns transcript, gene; found one column")
    column = names[0] if names else table.columns[0]
    match = match_genes(transcripts, [str(name) for name in table.index])
    if not match.coverage:
        raise InputError(
            f"{tx2gene}: expected transcripts such as {transcripts[0]!r} in its first column; "
            f"found {table.index[0]!r}, and none in common"
        )
    named = table[column].astype(object).to_numpy()
    found = np.where(match.columns >= 0, named[match.columns], np.nan)
    lacking = [t for t, gene in zip(transcripts, found, strict=True) if not isinstance(gene, str)]
    if lacking:
        warnings.warn(
            f"{tx2gene}: {len(lacking):,} of {len(transcripts):,} transcripts have no gene "
            f"(such as {lacking[0]!r}): left out of the sums by gene",
            M1Warning,
            stacklevel=4,
        )
    return found
