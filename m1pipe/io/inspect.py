"""What a matrix holds, and what it shares with another, as numbers and as text of 80 columns."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from m1pipe.console import over_rows
from m1pipe.data.depth import DepthRatio, depth_ratio
from m1pipe.data.matrix import Matrix
from m1pipe.data.survey import Survey, binary_genes, survey
from m1pipe.data.targets import genes_of, kind_of_columns, own_columns
from m1pipe.data.unit_guess import guess_scale, log_fault, unit_fault
from m1pipe.data.units import LOG_OF, Units, is_way
from m1pipe.errors import InputError, counted
from m1pipe.io.text.known_names import doubtful_names, named_like_annotations, no_genes

WIDTH = 80
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
_MOST_LEVELS = 12
_SHALLOW = 0.01


@dataclass(frozen=True, eq=False)
class Inspection:
    """What a matrix holds.

    Attributes
    ----------
    name : str
        The file's path, or "memory".
    layout : str
    shape : (int, int)
        (n_samples, n_genes).
    units : Units
        As recorded.
    looks_like : str
        What the values look like: "counts", "log", "linear", "signed" or "empty".
    found : Survey
        Totals, range, zeros.
    sums : ndarray of float64, shape (5,)
        Quantiles `QUANTILES` of the samples' sums.
    obs, var : dict of str to str
        Each column of annotations in a few words: levels with their numbers, or a range.
    doubts : tuple of str
        What does not fit together.
    column : str
        What a column is: "gene" or "isoform".
    """

    name: str
    layout: str
    shape: tuple[int, int]
    units: Units
    looks_like: str
    found: Survey
    sums: np.ndarray
    obs: dict[str, str]
    var: dict[str, str]
    doubts: tuple[str, ...]
    column: str = "gene"

    def __str__(self) -> str:
        found = self.found
        n_values = max(found.n_values, 1)
        names = ("min", "5 %", "median", "95 %", "max")
        sums = ", ".join(f"{n} {value:.6g}" for n, value in zip(names, self.sums, strict=True))
        lines = [
            _short(self.name),
            _line(
                "layout",
                f"{self.layout}, {counted(self.shape[0], 'sample')} x "
                f"{counted(self.shape[1], self.column)}",
            ),
            _line("units", f"{self.units}; the values look like {self.looks_like}"),
            _line(
                "values",
                f"{found.minimum:.6g} to {found.maximum:.6g}; zeros {found.n_zero / n_values:.1%}, "
                f"missing {found.n_missing:,}, infinite {found.n_infinite:,}, negative "
                f"{found.n_negative / n_values:.1%}",
            ),
            _line("sums", f"a sample's sum: {sums}"),
        ]
        for title, columns in (("obs", self.obs), ("var", self.var)):
            lines += [_line(title, f"{name}: {words}") for name, words in columns.items()]
        lines += [_line("doubt", doubt) for doubt in self.doubts]
        return "\n".join(lines)


def inspect_matrix(matrix: Matrix) -> Inspection:
    """Look through a matrix once, by blocks.

    Parameters
    ----------
    matrix : Matrix

    Returns
    -------
    Inspection
    """
    found = survey(over_rows(matrix.blocks(), matrix.n_samples), matrix.n_samples, matrix.n_genes)
    looks_like = guess_scale(found)
    return Inspection(
        name=str(matrix.path or "memory"),
        layout=matrix.layout,
        shape=matrix.shape,
        units=matrix.units,
        looks_like=looks_like,
        found=found,
        sums=np.quantile(found.totals if len(found.totals) else [np.nan], QUANTILES),
        obs={str(name): column_words(matrix.obs[name]) for name in matrix.obs.columns},
        var={str(name): column_words(matrix.var[name]) for name in matrix.var.columns},
        doubts=tuple(_doubts(matrix, found, looks_like)),
        column=kind_of_columns(matrix.var),
    )


def overlap(matrix: Matrix, against: Matrix) -> str:
    """Genes and samples that two matrices share, by name, as text; and how their depths differ.

    Parameters
    ----------
    matrix, against : Matrix
        Genes of `against` are looked for in `matrix`, by the aliases of both.
    """
    own = _own_genes(matrix, against)
    n_extra, missing, n_wanted = matrix.n_genes, [], against.n_genes
    n_found = 0
    try:
        match = matrix.match(against.genes, against.var, against.aliases)
        n_found, n_extra, how = n_wanted - len(match.missing), match.n_extra, match.how
        missing = match.missing[:3]
    except InputError as error:
        how = f"cannot be matched: {error}"
    share = n_found / max(n_wanted, 1)
    genes = f"{n_found:,} of {n_wanted:,} ({share:.1%}) are here: {how}"
    if missing:
        genes += f"; missing such as {', '.join(missing)}"
    genes += f"; {n_extra:,} more are here only"
    if own is not None and not n_found:
        genes = "these are isoforms, the others genes: none has the other's names"
    lines = [_line("genes", genes)]
    if own is not None:
        isoforms = f"the gene of {own[0]:,} of {own[1]:,} columns here (gene_id) is there"
        lines.append(_line("isoform", isoforms))
    n_samples = len(set(matrix.samples) & set(against.samples))
    lines.append(_line("samples", f"{n_samples:,} ids are in both"))
    lines.append(_line("units", _both_units(matrix.units, against.units)))
    depth = depth_ratio(matrix, against) if n_found else None
    return "\n".join(lines if depth is None else [*lines, _depth_line(depth)])


def _own_genes(matrix: Matrix, against: Matrix) -> tuple[int, int] | None:
    """Columns whose gene the other matrix has, and all of them."""
    genes = genes_of(matrix, matrix.genes.tolist())
    if genes is None or set(genes) == set(matrix.genes):
        return None
    found = own_columns(genes, against.genes.tolist(), against.var)
    return int((found >= 0).sum()), len(found)


def _both_units(here: Units, there: Units) -> str:
    """Units of two files, and what becomes of it where they differ."""
    found = f"{here} here, {there} there"
    if here == there:
        return f"the same: {found}"
    if "unknown" in (here.name, there.name):
        return f"{found}: say them by convert --units"
    if not (is_way(here, there) or is_way(there, here)):
        return f"DIFFERENT: {found}, and no way between them: convert one of the sources again"
    if here.is_counts or there.is_counts:
        way = "train --thin-to (or --normalize total), crossval and predict"
        return f"{found}: the counts are converted by {way}"
    return f"{found}: crossval and predict convert them to those of the encoder"


def _depth_line(depth: DepthRatio) -> str:
    """Depths of two files, and what to do where they are far apart."""
    if not depth.apart:
        return _line("depth", f"alike: {depth}")
    deeper, other = ("this file", "that one") if depth.ratio > 1 else ("that file", "this one")
    return _line(
        "depth",
        f"DIFFERENT: {depth}; an encoder of {deeper} serves {other} better if its counts are "
        f"thinned: m1pipe train --thin-to",
    )


def column_words(column: pd.Series) -> str:
    """A column of annotations in a few words.

    Text, categories and truth values give their levels, most frequent first, with numbers of
    rows; numbers give their range and median. Missing values are counted.
    """
    n_missing = int(column.isna().sum())
    lacking = f"; {n_missing:,} missing" if n_missing else ""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        known = column.dropna()
        if known.empty:
            return "all missing"
        return f"{known.min():.6g} to {known.max():.6g}, median {known.median():.6g}{lacking}"
    counts = column.dropna().astype(str).value_counts().sort_index()
    counts = counts.sort_values(ascending=False, kind="stable")
    if len(counts) == len(column) - n_missing and len(counts) > _MOST_LEVELS:
        return f"{len(counts):,} different values{lacking}"
    clipped = ((str(level), n) for level, n in counts.iloc[:_MOST_LEVELS].items())
    shown = [f"{x if len(x) <= 30 else f'{x[:27]}...'} ({n:,})" for x, n in clipped]
    more = len(counts) - len(shown)
    rest = f", and {more:,} more" if more else ""
    levels = "level" if len(counts) == 1 else "levels"
    return f"{len(counts):,} {levels}: {', '.join(shown)}{rest}{lacking}"


def _doubts(matrix: Matrix, found: Survey, looks_like: str) -> list[str]:
    """What does not fit together in a matrix."""
    doubts = [doubt for doubt in [_unit_doubt(matrix, found, looks_like)] if doubt]
    for what, index in (("sample ids", matrix.obs.index), ("gene names", matrix.var.index)):
        twice = index[index.duplicated()]
        if len(twice):
            doubts.append(f"{len(twice):,} {what} come more than once, such as {twice[0]!r}")
    odd = matrix.genes[no_genes([str(gene) for gene in matrix.genes])]
    if len(odd):
        doubts.append(f"{len(odd):,} names are of no genes, such as {odd[0]!r}: leave them out")
    doubts += doubtful_names(matrix.var.index)
    if found.n_missing:
        doubts.append(
            f"{counted(found.n_missing, 'value is', 'values are')} missing: train, crossval and "
            "fit take that, but not "
            "in counts"
        )
    n_zero = int((found.totals == 0).sum())
    if n_zero and not found.n_negative:
        first = matrix.samples[found.totals == 0][0]
        doubts.append(
            f"{counted(n_zero, 'sample is', 'samples are')} zero throughout, such as {first!r}"
        )
    shallow = _shallow(matrix, found)
    if len(shallow):
        doubts.append(
            f"{counted(len(shallow), 'sample has', 'samples have')} less than {_SHALLOW:.0%} of "
            "the median depth, such as "
            f"{shallow[0]!r}"
        )
    names = [str(gene) for gene in matrix.genes]
    ways = {
        "0 and 1 only": binary_genes(found),
        "named like labels": np.flatnonzero(named_like_annotations(names)),
    }
    for way, suspects in ways.items():
        if len(suspects):
            some = f"{counted(len(suspects), 'gene')}, such as {matrix.genes[suspects[0]]!r}"
            doubts.append(f"{way}: {some}: labels?")
    return doubts


def _shallow(matrix: Matrix, found: Survey) -> np.ndarray:
    """Samples with hardly any counts, where the depth is known; empty ones are left out."""
    if "total_counts" in matrix.obs and pd.api.types.is_numeric_dtype(matrix.obs["total_counts"]):
        depth = matrix.obs["total_counts"].to_numpy(dtype=np.float64)
    elif matrix.units.is_counts:
        depth = found.totals
    else:
        return matrix.samples[:0]
    return np.asarray(matrix.samples[(depth > 0) & (depth < _SHALLOW * np.median(depth))])


def _unit_doubt(matrix: Matrix, found: Survey, looks_like: str) -> str:
    """Why the recorded units cannot be right, or may not be; empty where they can."""
    units = matrix.units
    if units.name == "unknown":
        return f"the units are not recorded; the values look like {looks_like}"
    if looks_like == "empty":
        return "there are no values"
    fault = log_fault(units, matrix.logarithm) or unit_fault(units, found, matrix.some_rows())
    if fault:
        return fault
    if units.is_counts and looks_like != "counts":
        return f"units are counts; the values look like {looks_like}"
    linear = units.name in LOG_OF and units.name != "intensity"
    if linear and looks_like == "log":
        return f"units are {units}, a linear scale; the values look like {looks_like}"
    return ""


def _line(title: str, words: str) -> str:
    """A titled paragraph, hanging below its title."""
    indent = " " * 10
    return textwrap.fill(words, WIDTH, initial_indent=f"  {title:<8}", subsequent_indent=indent)


def _short(name: str) -> str:
    """A path that fits a line."""
    return name if len(name) <= WIDTH else f".../{Path(name).name}"[:WIDTH]
