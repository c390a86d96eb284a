"""Sources of every format on their way to h5ad: recognised, opened, chosen from, named."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, get_args

import anndata as ad

from m1pipe.data.matrix import Matrix
from m1pipe.data.unit_guess import check_units, inferred_sum
from m1pipe.data.units import LN, Units
from m1pipe.errors import InputError, M1Warning
from m1pipe.io.conversion.config import ConvertConfig
from m1pipe.io.conversion.loaded import (
    Loaded,
    load_genes,
    load_matrix,
    load_text,
)
from m1pipe.io.hdf5 import reading, split_address
from m1pipe.io.reader import open_matrix
from m1pipe.io.sources.dee2 import (
    is_study_folder,
    load_long,
    load_study,
    looks_long,
    unpacked,
)
from m1pipe.io.sources.gct import load_gct, looks_like_gct
from m1pipe.io.sources.quant import Quantifier, quantifier_of
from m1pipe.io.sources.tenx import load_folder
from m1pipe.io.text.lines import open_lines
from m1pipe.io.unreadable_formats import is_zarr, named_kind

_HDF5_MAGIC = b"\x89HDF"
_ZIP_MAGIC = b"PK\x03\x04"
_TEXTS = ("text", "gct", "dee2_long", "dee2_study", "10x", "zarr", *get_args(Quantifier))


def find_format(source: Path, config: ConvertConfig) -> str:
    """Format of a source, as told or by its content; "hdf5" for any layout of HDF5."""
    source, part = split_address(source)
    if part:
        return "zarr" if source.is_dir() else "hdf5"
    if config.format != "auto":
        return config.format if config.format in _TEXTS else "hdf5"
    if source.is_dir() and is_zarr(source):
        return "zarr"
    quantifier = quantifier_of(source) if source.is_dir() else None
    if quantifier is not None:
        return quantifier
    if source.is_dir():
        return "dee2_study" if is_study_folder(source) else "10x"
    if not source.is_file():
        return "text"
    with open(source, "rb") as handle:
        start = handle.read(4096)
    if "Excel" in (kind := named_kind(start)):
        raise InputError(f"{source}: expected a table or HDF5; found {kind}")
    magic = start[:4]
    if magic in (_HDF5_MAGIC, _ZIP_MAGIC):
        return "hdf5" if magic == _HDF5_MAGIC else "dee2_study"
    with open_lines(source) as lines:
        first = next(lines, b"")
    if first.startswith(b"%%MatrixMarket"):
        raise InputError(
            f"{source}: expected names beside the values; found matrix.mtx alone: give its folder, "
            "with features.tsv and barcodes.tsv"
        )
    if looks_like_gct(first):
        return "gct"
    return "dee2_long" if looks_long(first) else "text"


def load_source(
    source: Path, dest: Path, config: ConvertConfig, stack: ExitStack
) -> tuple[Loaded, Units]:
    """Values and units of a source as it is; what must stay open is left to `stack`.

    Parameters
    ----------
    source, dest : Path
        A temporary copy of text is put beside `dest`.
    config : ConvertConfig
    stack : ExitStack

    Returns
    -------
    Loaded, Units

    Raises
    ------
    InputError
        If the source is broken, or is not of the format that was told.
    """
    told = Units(config.units or "unknown")
    kind = find_format(source, config)
    _refuse_options(kind, source, config)
    keep_missing = config.missing == "keep"
    if kind == "zarr":
        matrix = open_matrix(read_zarr(source))
        return load_matrix(matrix, keep_missing=keep_missing), _told_units(matrix, told)
    if kind == "hdf5":
        return _load_hdf5(source, dest, config, told, stack)
    raw = stack.enter_context(_temporary_file(dest))
    if kind in ("dee2_study", "10x", "dee2_long"):
        units = Units("counts") if told.name == "unknown" else told
        return _load_counts(kind, source, raw, config, dest), units
    if kind == "gct":
        return load_gct(source, raw, config), told
    loaded = load_text(source, raw, config)
    if told.name == LN:
        told = inferred_sum(told, next(iter(loaded.blocks()))[2])
    return loaded, told


def _refuse_options(kind: str, source: Path, config: ConvertConfig) -> None:
    """Refuse options that are for sources of another kind."""
    if kind != "text" and (config.genes_as_rows or config.obs_columns or config.var_columns):
        found = "HDF5" if kind == "hdf5" else kind
        names = "--genes-as-rows, --obs-columns and --var-columns"
        raise InputError(f"{source}: {names} are for text; found {found}")
    if kind != "dee2_study" and config.isoforms:
        raise InputError(f"{source}: --isoforms is for a study of DEE2; found {kind}")


def _load_hdf5(
    source: Path, dest: Path, config: ConvertConfig, told: Units, stack: ExitStack
) -> tuple[Loaded, Units]:
    matrix = stack.enter_context(open_matrix(source))
    if config.format not in ("auto", matrix.layout.removesuffix("_csr").removesuffix("_csc")):
        raise InputError(f"{source}: expected {config.format}; found {matrix.layout}")
    units = _told_units(matrix, told)
    if matrix.whole_genes is not None:
        return load_genes(matrix, stack.enter_context(_temporary_file(dest))), units
    return load_matrix(matrix, keep_missing=config.missing == "keep"), units


def _load_counts(
    kind: str, source: Path, raw: BinaryIO, config: ConvertConfig, dest: Path
) -> Loaded:
    """A source that holds counts: a study or a long table of DEE2, a folder of 10x."""
    if kind == "10x":
        return load_folder(source, raw)
    if kind == "dee2_long":
        return load_long(source, raw)
    with _temporary_folder(dest) as room, unpacked(source, room) as folder:
        return load_study(folder, raw, isoforms=config.isoforms)


def _temporary_file(dest: Path) -> BinaryIO:
    """A file without a name, which the system removes even after a kill."""
    try:
        return tempfile.TemporaryFile(dir=dest.parent, buffering=0)
    except OSError as error:
        raise InputError(f"{dest.parent}: cannot be written to: {error.strerror}") from None


@contextmanager
def _temporary_folder(dest: Path) -> Iterator[Path]:
    """A hidden folder beside `dest`, removed in the end."""
    try:
        folder = tempfile.TemporaryDirectory(dir=dest.parent, prefix=f".{dest.name}.")
    except OSError as error:
        raise InputError(f"{dest.parent}: cannot be written to: {error.strerror}") from None
    with folder as path:
        yield Path(path)


def _told_units(matrix: Matrix, told: Units) -> Units:
    if told.name == "unknown":
        check_units(matrix)
        return matrix.units
    if matrix.n_samples and matrix.n_genes:
        told = inferred_sum(told, matrix.some_rows())
    if matrix.units.name not in ("unknown", told.name):
        message = f"{matrix.path}: says its units are {matrix.units}; taken as {told} as asked"
        warnings.warn(message, M1Warning, stacklevel=2)
    return told


def read_zarr(address: Path) -> ad.AnnData:
    """AnnData of a store, or with #layers/KEY or #raw that part of it as X.

    Raises
    ------
    InputError
        If the store is of something else, or lacks the part.
    """
    path, part = split_address(address)
    try:
        from anndata.io import read_zarr as read
    except ImportError:
        raise InputError(
            f"{path}: expected the package zarr to read it: pip install zarr"
        ) from None
    with reading(path, "the store"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on formats of the store, which concern its writers
        data = read(path)
    if part == "raw" and data.raw is not None:
        return data.raw.to_adata()
    name = part.removeprefix("layers/")
    if part and part != "X":
        if name not in data.layers:
            found = ", ".join(f"layers/{key}" for key in data.layers) or "X alone"
            raise InputError(f"{path}: expected {part}; found {found}")
        data.X = data.layers[name]
        data.uns = {"units": "counts"} if "count" in name else {}
    return data
