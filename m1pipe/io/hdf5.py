"""HDF5 files opened for reading; damaged files and links to other files are refused."""

import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata._io.specs.registry import IORegistryError

from m1pipe.errors import InputError
from m1pipe.io.unreadable_formats import named_kind

_STRUCTURE = (
    *(KeyError, ValueError, IndexError, TypeError, AttributeError, OSError, RuntimeError),
    IORegistryError,  # no subclass of any of them
)


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Make errors of a foreign file's structure an InputError that names the file and the part.

    Parameters
    ----------
    path : Path
    what : str
        The part that is read within, such as "obs".

    Raises
    ------
    InputError
    """
    try:
        yield
    except InputError:
        raise
    except _STRUCTURE as error:
        reason = " ".join(str(error).strip("'\"").split())[:200] or type(error).__name__
        raise InputError(
            f"{path}: {what} could not be read ({reason}): the file was made by a program that "
            "lays it out in another way, or is damaged: read and write it with anndata"
        ) from None


def split_address(address: str | os.PathLike[str]) -> tuple[Path, str]:
    """File and part of FILE#layers/KEY or FILE#raw; the part of a plain FILE is empty.

    Examples
    --------
    >>> split_address("a.h5ad#layers/counts")[1], split_address("a#b.h5ad")[1]
    ('layers/counts', '')
    """
    path = Path(address)
    file, _, part = os.fspath(address).rpartition("#")
    if file and not path.exists() and (part in ("raw", "X") or part.startswith("layers/")):
        return Path(file), part
    return path, ""


LEAST_HOLLOW = 2**24  # bytes: what is smaller may be anything
MOST_PACKED = 2**15  # times: no filter makes more of what is stored
LOOK_FIRST = "M1PIPE_LOOK_FIRST"  # set to 1 by the command line
MOST_SECONDS = 60  # of CPU time, for the header of a file


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading.

    Raises
    ------
    InputError
        If it is missing, cannot be read, is cut short, is not HDF5, or holds links to other files
        or object references; in the command line also if reading it crashes or never ends.
    """
    if not path.exists():
        raise InputError(f"{path}: expected a file; there is none of that name")
    if path.is_dir():
        raise InputError(
            f"{path}: expected a file; found a folder: m1pipe convert reads those of 10x, DEE2, "
            "salmon, kallisto and RSEM"
        )
    if path.stat().st_size == 0:
        raise InputError(f"{path}: expected an HDF5 file; found an empty file")
    _look_first(path)
    try:
        handle = h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        reason = str(error)
    else:
        return _closed_on_refusal(handle, path)
    if "signature not found" in reason:
        with open(path, "rb") as handle:
            start = handle.read(4096)
        found = named_kind(start)
        if start.startswith(b"\x1f\x8b"):
            found = "a gzip file: unpack it (gunzip), or m1pipe convert where it is text"
        raise InputError(
            f"{path}: expected an HDF5 file (h5ad or flat); found "
            f"{found or 'another kind of file: text is turned into h5ad by `m1pipe convert`'}"
        )
    raise InputError(f"{path}: could not be read as HDF5: {reason}")


def _look_first(path: Path) -> None:
    """In the command line, refuse a file on which the library that reads HDF5 crashes or hangs.

    No exception says so: a forked child reads the header. With threads at work a fork is not safe.
    """
    if os.environ.get(LOOK_FIRST) != "1" or threading.active_count() > 1:
        return
    stat = path.stat()
    code = _exit_of_child(path, stat.st_size, stat.st_mtime_ns)
    if code < 0:
        how = "never ends" if -code == signal.SIGXCPU else f"ends by {signal.Signals(-code).name}"
        raise InputError(
            f"{path}: expected an HDF5 file; found one on which the library that reads them {how}: "
            "it is damaged"
        )


@lru_cache(maxsize=1024)
def _exit_of_child(path: Path, _size: int, _changed: int) -> int:
    """Exit code of a child that opens a file and walks through it; negative: a signal."""
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS + 1))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            with h5py.File(path, "r", locking="best-effort") as handle:
                refuse_links(handle, path)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def refuse_links(group: h5py.Group, path: Path, seen: set[int] | None = None) -> None:
    """Refuse whatever lies outside the file, or is found by address and not by name.

    Raises
    ------
    InputError
        On an external link, external or virtual storage, or a dataset of references.
    """
    seen = set() if seen is None else seen
    for name in group:
        where = f"{path}: {group.name.rstrip('/')}/{name}"
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise InputError(
                f"{where}: expected data; found a link to another file ({link.filename}): copy "
                "what it points to into this file"
            )
        if isinstance(link, h5py.SoftLink):
            continue  # points to something in this file, which is met by its own name
        item = group[name]
        address = h5py.h5o.get_info(item.id).addr
        if address in seen:
            continue
        seen.add(address)
        if isinstance(item, h5py.Group):
            refuse_links(item, path, seen)
        elif isinstance(item, h5py.Dataset):
            _refuse_foreign(item, where)


def read_whole(dataset: h5py.Dataset, *, kinds: str = "") -> np.ndarray:
    """Values of a dataset of one dimension, once its shape is known to fit what the file holds.

    Parameters
    ----------
    dataset : h5py.Dataset
    kinds : str
        Kinds of numbers that are wanted, as numpy's `dtype.kind` has them; empty: any values.

    Raises
    ------
    InputError
        If it is no dataset, of other dimensions or values, or says that it is larger than the file
        can hold.
    """
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"{_place(dataset)}: expected values; found {type(dataset).__name__}")
    if dataset.shape is None or dataset.ndim != 1 or (kinds and dataset.dtype.kind not in kinds):
        wanted = "whole numbers" if kinds == "iu" else "numbers" if kinds else "values"
        found = "none" if dataset.shape is None else f"{dataset.ndim} of {dataset.dtype}"
        raise InputError(f"{_place(dataset)}: expected 1 dimension of {wanted}; found {found}")
    check_size(dataset)
    return np.asarray(dataset[()])


def check_size(dataset: h5py.Dataset) -> None:
    """Refuse a dataset that says it is larger than its bytes in the file can be.

    Raises
    ------
    InputError
        Before anything of its size is asked for.
    """
    if dataset.shape is None:
        return
    stored = dataset.id.get_storage_size()
    packed = dataset.id.get_create_plist().get_nfilters() > 0
    if dataset.nbytes > max(LEAST_HOLLOW, stored * (MOST_PACKED if packed else 1)):
        raise InputError(
            f"{_place(dataset)}: expected {dataset.nbytes:,} bytes of values by its shape; found "
            f"{stored:,} in the file: it is damaged"
        )


def check_sizes(item: h5py.Group | h5py.Dataset) -> None:
    """`check_size` of a dataset, or of all in a group."""
    if isinstance(item, h5py.Dataset):
        check_size(item)
        return
    item.visititems(lambda _, part: check_size(part) if isinstance(part, h5py.Dataset) else None)


def read_names(dataset: h5py.Dataset) -> np.ndarray:
    """One-dimensional text dataset as an object array of str; numbers become their text.

    Text that is not UTF-8 is read as Latin-1.

    Raises
    ------
    InputError
        If it has other dimensions, or a name holds a NUL.
    """
    names = [as_text(value) for value in read_whole(dataset)]
    wrong = next((name for name in names if "\0" in name), None)
    if wrong is not None:
        raise InputError(f"{_place(dataset)}: expected names; found a NUL in {wrong!r}")
    return np.array(names, dtype=object)


def as_text(value: object) -> str:
    """A value as text; bytes are UTF-8, or where they are not, Latin-1."""
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def read_columns(group: h5py.Group, n_rows: int) -> pd.DataFrame:
    """One-dimensional datasets of a group that have an entry for every row.

    Returns
    -------
    DataFrame, shape (n_rows, n_columns)
        Numbers as numbers; text as text, or as a categorical where most of it repeats, which
        keeps long descriptions of many samples small.
    """
    columns: dict[str, object] = {}
    for name, item in group.items():
        if isinstance(item, h5py.Dataset) and item.shape == (n_rows,):
            numbers = item.dtype.kind in "fiub"
            columns[name] = read_whole(item) if numbers else _text_column(item)
    return pd.DataFrame(columns, index=range(n_rows))


def _text_column(dataset: h5py.Dataset) -> object:
    codes, levels = pd.factorize(np.asarray(read_whole(dataset), dtype=object))
    values = np.array([as_text(v) for v in levels], dtype=object)[codes]
    return values if 2 * len(levels) > len(values) else pd.Categorical(values)


def _place(item: h5py.Dataset | h5py.Group) -> str:
    return f"{item.file.filename}: {str(item.name).lstrip('/')}"


def _closed_on_refusal(handle: h5py.File, path: Path) -> h5py.File:
    try:
        refuse_links(handle, path)
    except (InputError, *_STRUCTURE) as error:
        handle.close()
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: could not be read as HDF5: {error}") from None
    return handle


def _refuse_foreign(dataset: h5py.Dataset, where: str) -> None:
    if dataset.external or dataset.is_virtual:
        raise InputError(f"{where}: expected data; found values kept in another file")
    kinds = [dataset.dtype, *(kind for kind, *_ in (dataset.dtype.fields or {}).values())]
    if any(h5py.check_ref_dtype(kind) is not None for kind in kinds):
        raise InputError(
            f"{where}: expected numbers or text; found object references, as MATLAB writes them: "
            "write a plain table instead"
        )
