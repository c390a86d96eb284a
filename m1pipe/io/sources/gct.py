"""GCT 1.2 and 1.3, as GTEx and the Broad Institute write them: genes as rows, annotated."""

from pathlib import Path
from typing import BinaryIO

from m1pipe.errors import InputError
from m1pipe.io.conversion.config import ConvertConfig
from m1pipe.io.conversion.loaded import (
    Loaded,
    gene_frame,
    named_frame,
    store_rows,
    transposed_blocks,
)
from m1pipe.io.text.lines import BOM, TextReader, open_chunks
from m1pipe.io.text.numbers import Notation
from m1pipe.io.text.table import TextTable

_VERSIONS = {b"#1.2": 2, b"#1.3": 4}
_TRANSCRIPTS = b"transcript_id\tgene_id\t"
_NUMBERED = b"id\tname\t"
_COLUMNS = {"description": "symbol", "Description": "symbol"}


def looks_like_gct(first_line: bytes) -> bool:
    """Whether a text begins as GCT, or as GTEx's transcripts without the lines above the header."""
    first_line = first_line.removeprefix(BOM)
    return first_line.rstrip() in _VERSIONS or first_line.startswith(_TRANSCRIPTS)


def load_gct(path: Path, raw: BinaryIO, config: ConvertConfig) -> Loaded:
    """Parse GCT once into `raw`; parameters as `m1pipe.io.conversion.loaded.load_text`.

    Columns that describe the genes go to `var` (Description as `symbol`), rows that describe the
    samples to `obs`.

    Raises
    ------
    InputError
        If it is not GCT, or its dimensions do not fit what follows; else as `load_text`.
    """
    notation = config.notation
    with open_chunks(path) as chunks:
        reader = TextReader(chunks)
        first = (reader.line() or b"").removeprefix(BOM)
        labels: dict[str, list[str]] = {}
        if first.startswith(_TRANSCRIPTS):
            reader.back([first])
            table, annotations, n_genes = TextTable(path, reader, notation=notation), 1, None
        else:
            dimensions = _dimensions(first, reader.line() or b"", path)
            table, labels = _below(path, reader, dimensions, notation)
            n_genes, _, annotations, _ = dimensions
        described, columns = table.columns[:annotations], table.columns[annotations:]
        blocks = table.blocks(text_columns=described, keep_missing=config.missing == "keep")
        names, text = store_rows(blocks, raw, path, repeats=config.duplicates == "sum")
    if n_genes is not None and len(names) != n_genes:
        raise InputError(
            f"{path}: line 2: expected {n_genes} rows by the line of dimensions; found "
            f"{len(names)}: the file was cut short or changed"
        )
    var = {_COLUMNS.get(name, name): [row[i] for row in text] for i, name in enumerate(described)}
    data = transposed_blocks(raw, len(names), len(columns))
    return Loaded(named_frame(columns, labels), gene_frame(names, var), data)


def _below(
    path: Path, reader: TextReader, dimensions: list[int], notation: Notation
) -> tuple[TextTable, dict[str, list[str]]]:
    """The table below the line of dimensions, and its rows that describe the samples."""
    _, n_samples, n_columns, n_rows = dimensions
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
    return table, labels


def _dimensions(first: bytes, line: bytes, path: Path) -> list[int]:
    """Genes, samples, columns that describe genes, rows that describe samples."""
    n = _VERSIONS.get(first.rstrip())
    if n is None:
        raise InputError(
            f"{path}: line 1: expected #1.2 or #1.3 as GCT has; found "
            f"{first[:20].decode('latin-1')!r}"
        )
    fields = line.split()
    if len(fields) != n or not all(field.isdigit() for field in fields):
        raise InputError(
            f"{path}: line 2: expected {n} whole numbers, the dimensions; found "
            f"{line[:40].decode('latin-1')!r}"
        )
    numbers = [int(field) for field in fields]
    return numbers if n == 4 else [*numbers, 1, 0]
