"""GCT 1.2 and 1.3, as GTEx and the Broad Institute write them: genes as rows, annotated."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from m1pipe.errors import InputError
from m1pipe.io.text.lines import BOM, TextReader, open_chunks
from m1pipe.io.text.numbers import PLAIN, Notation
from m1pipe.io.text.table import TextTable

_VERSIONS = {b"#1.2": 2, b"#1.3": 4}
_TRANSCRIPTS = b"transcript_id\tgene_id\t"
_NUMBERED = b"id\tname\t"
_COLUMNS = {"description": "symbol", "Description": "symbol"}


@dataclass(frozen=True)
class Gct:
    """A GCT file that is being read, made by `open_gct`.

    Attributes
    ----------
    table : TextTable
        Genes as rows; its columns are `annotations`, then the samples.
    annotations : list of str
        Columns of text that describe the genes.
    n_genes : int or None
        By the line of dimensions; None in a file without.
    sample_labels : dict of str to list of str
        Rows of text that describe the samples (1.3).
    """

    table: TextTable
    annotations: list[str]
    n_genes: int | None
    sample_labels: dict[str, list[str]]


def looks_like_gct(first_line: bytes) -> bool:
    """Whether a text begins as GCT, or as GTEx's transcripts without the lines above the header."""
    first_line = first_line.removeprefix(BOM)
    return first_line.rstrip() in _VERSIONS or first_line.startswith(_TRANSCRIPTS)


@contextmanager
def open_gct(path: Path, notation: Notation = PLAIN) -> Iterator[Gct]:
    """Open a GCT file, compressed or not, and read what stands above its rows.

    Raises
    ------
    InputError
        If it is not GCT, or its line of dimensions does not fit the header; later as `open_table`.
    """
    with open_chunks(path) as chunks:
        reader = TextReader(chunks)
        first = (reader.line() or b"").removeprefix(BOM)
        if first.startswith(_TRANSCRIPTS):
            reader.back([first])
            yield Gct(TextTable(path, reader, notation=notation), ["gene_id"], None, {})
            return
        n_dimensions = _VERSIONS.get(first.rstrip())
        if n_dimensions is None:
            raise InputError(
                f"{path}: line 1: expected #1.2 or #1.3 as GCT has; found "
                f"{first[:20].decode('latin-1')!r}"
            )
        dimensions = _dimensions(reader.line() or b"", n_dimensions, path)
        yield _below(path, reader, dimensions, notation)


def annotation_name(column: str) -> str:
    """Name of a gene annotation in `var`: the description of GCT is a symbol."""
    return _COLUMNS.get(column, column)


def check_n_rows(gct: Gct, n_rows: int) -> None:
    """Refuse a file whose number of genes is not that of its line of dimensions."""
    if gct.n_genes is not None and n_rows != gct.n_genes:
        raise InputError(
            f"{gct.table.path}: line 2: expected {gct.n_genes} rows by the line of dimensions; "
            f"found {n_rows}: the file was cut short or changed"
        )


def _below(path: Path, reader: TextReader, dimensions: list[int], notation: Notation) -> Gct:
    """What stands below the line of dimensions."""
    n_genes, n_samples, n_columns, n_rows = dimensions
    header = reader.line() or b""
    numbered = header.lower().startswith(_NUMBERED)  # as GTEx has it by tissue
    n_fields = len(header.split(b"\t")) - numbered
    if n_fields != 1 + n_columns + n_samples:
        raise InputError(
            f"{path}: line 2: says {n_samples} samples and {n_columns} columns of annotations; "
            f"found {n_fields} fields in the header, not {1 + n_columns + n_samples}"
        )
    labels = {}
    for number in range(4, 4 + n_rows):
        fields = (reader.line() or b"").decode("utf-8", "replace").split("\t")
        if len(fields) != n_fields + numbered:
            raise InputError(
                f"{path}: line {number}: expected {n_fields} fields as in the header; found "
                f"{len(fields)}"
            )
        labels[fields[0]] = fields[1 + numbered + n_columns :]
    reader.back([header])
    table = TextTable(
        path, reader, header_line=3, skipped=n_rows, notation=notation, numbering=("id",)
    )
    return Gct(table, table.columns[:n_columns], n_genes, labels)


def _dimensions(line: bytes, n: int, path: Path) -> list[int]:
    """Genes, samples, columns that describe genes, rows that describe samples."""
    fields = line.split()
    if len(fields) != n or not all(field.isdigit() for field in fields):
        raise InputError(
            f"{path}: line 2: expected {n} whole numbers, the dimensions; found "
            f"{line[:40].decode('latin-1')!r}"
        )
    numbers = [int(field) for field in fields]
    return numbers if n == 4 else [*numbers, 1, 0]
