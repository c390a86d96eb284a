"""File formats that are not read, recognised by their first bytes, and what to do instead."""

import re
from pathlib import Path

_BY_MAGIC = {
    b"PAR1": "Parquet: read it with pandas and write h5ad or TSV",
    b"ARROW1": "Arrow or Feather: read it with pandas and write h5ad or TSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls): save the sheet as CSV",
    b"RDX": "R data (.RData): write a table with write.table, or h5ad, from R",
    b"RDA": "R data (.RData): write a table with write.table, or h5ad, from R",
    b"X\n\x00\x00": "R data (.rds): write a table with write.table, or h5ad, from R",
    b"A\n2\n": "R data (.rds): write a table with write.table, or h5ad, from R",
    b"\x93NUMPY": "a NumPy array (.npy): it has no names: make a DataFrame and write TSV or h5ad",
    b"\x80\x04": "a Python pickle: read it with pandas and write TSV or h5ad",
    b"\x80\x05": "a Python pickle: read it with pandas and write TSV or h5ad",
    b"%PDF": "a PDF: ask for the table itself",
    b"7z\xbc\xaf": "a 7-Zip archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"\xfd7zXZ": "text packed by xz: unpack it (xz -d)",
    b"\x28\xb5\x2f\xfd": "text packed by zstd: unpack it (zstd -d)",
    b"<!DO": "a web page: download the file itself",
    b"<htm": "a web page: download the file itself",
    b"<!do": "a web page: download the file itself",
    b"!Series_": "a GEO series matrix: keep the lines between !series_matrix_table_begin and _end",
    b"^DATABASE": "a SOFT file of GEO: take the series matrix, or the supplementary table",
}
_WAY = "save it as UTF-8 (iconv -f UTF-16 -t UTF-8)"


def named_kind(start: bytes) -> str:
    """What kind of file begins so, and what to do; empty where it may be a table.

    Parameters
    ----------
    start : bytes
        The first kilobytes.
    """
    for magic, words in _BY_MAGIC.items():
        if start.startswith(magic):
            return words
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return f"text in UTF-16: {_WAY}"
    if start.startswith(b"PK\x03\x04"):
        if re.search(rb"xl/|\[Content_Types\]", start):
            return "an Excel workbook (.xlsx): save the sheet as CSV or tab-separated text"
        return "a zip archive: unpack it first"
    nulls = start[:2000]
    if len(nulls) > 8 and nulls[1::2].count(0) > 0.4 * len(nulls[1::2]):
        return f"text in UTF-16: {_WAY}"
    if b"\r" in start and b"\n" not in start:
        return "line ends of old Macintosh programs: change them (tr '\\r' '\\n')"
    if start[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    return ""


def is_zarr(path: Path) -> bool:
    """Whether a folder is a store of zarr."""
    return any((path / name).is_file() for name in (".zgroup", "zarr.json", ".zattrs"))
