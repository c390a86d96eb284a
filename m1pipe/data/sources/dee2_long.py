"""The older bulk files of DEE2: one long table of run, gene and count, run after run."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from m1pipe.data.sources.lines import open_chunks, whole_lines
from m1pipe.data.spool import Loaded, append, row_blocks
from m1pipe.errors import InputError

_FIRST_LINE = re.compile(rb"(dataset\t|[SED]RR\d+\t)[^\t]+\t[^\t]+")
_COLUMNS = ("run", "gene", "count")


def looks_long(first_line: bytes) -> bool:
    """Whether a text begins as a long table of DEE2 does."""
    return _FIRST_LINE.fullmatch(first_line.rstrip()) is not None


def load_long(path: Path, spool: BinaryIO) -> Loaded:
    """Parse a long table once into `spool`, a row a run.

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
        append(spool, _in_order(table, genes, f"{path}: run {run}"))
    if genes is None:
        raise InputError(f"{path}: expected lines of run, gene and count; found none")
    obs = pd.DataFrame(index=pd.Index(list(runs), dtype=object))
    data = row_blocks(spool, len(runs), len(genes))
    return Loaded(obs, pd.DataFrame(index=genes), data)


def _in_order(table: pd.DataFrame, genes: pd.Index, where: str) -> np.ndarray:
    """Counts of one run in the order of the genes."""
    names = table["gene"].to_numpy()
    counts = table["count"].to_numpy(dtype=np.float32)
    if len(names) == len(genes) and (names == genes.to_numpy()).all():
        return counts
    places = genes.get_indexer(pd.Index(names))
    if len(names) != len(genes) or (places < 0).any() or len(set(places)) != len(genes):
        raise InputError(
            f"{where}: expected the {len(genes)} genes of the first run, each once; found "
            f"{len(set(names) & set(genes))} of them on {len(names)} lines"
        )
    ordered = np.empty_like(counts)
    ordered[places] = counts
    return ordered


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
            names=_COLUMNS,
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
