"""Writing h5ad: X contiguous and uncompressed, by row blocks; the name appears when complete."""

import errno
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem

from m1pipe._version import __version__
from m1pipe.atomic import atomic_file, refuse_existing
from m1pipe.data.units import Units
from m1pipe.errors import InputError, M1Warning

FLOAT16_MAX = float(np.finfo(np.float16).max)
_EMPTY_PARTS = ("layers", "obsm", "varm", "obsp", "varp")


class MatrixWriter:
    """An h5ad file in the making, a context manager; `anndata.read_h5ad` reads the result.

    Rows may be written in any order and in blocks of any size; all must be. The file takes its
    name only when the block of the `with` statement ends well.

    Parameters
    ----------
    path : path
        The file to make.
    obs, var : DataFrame
        Annotations, indexed by sample and by gene names; text columns become categoricals.
    units : Units
        Recorded in `uns`.
    dtype : "float32" or "float16"
        float16 for log units only.
    force : bool
        Replace a file of that name.
    uns : dict, optional
        More entries of `uns`, such as how the values were made.
    layers : dict of str to ndarray of shape (n_samples, n_genes), optional
        More values of the same samples and genes, written at once.
    obsm : dict of str to ndarray of shape (n_samples, n_columns), optional
        Other arrays of the samples, written at once.

    Raises
    ------
    InputError
        If the file exists and `force` is not given, names come twice, or the disk is full.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        obs: pd.DataFrame,
        var: pd.DataFrame,
        units: Units,
        dtype: Literal["float32", "float16"] = "float32",
        force: bool = False,
        uns: dict[str, Any] | None = None,
        layers: Mapping[str, np.ndarray] | None = None,
        obsm: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.path = refuse_existing(path, force=force)
        if dtype == "float16" and not units.is_log:
            raise InputError(f"{self.path}: float16 holds log units only; found {units}")
        self.obs = plain_frame(obs, f"{self.path}: sample")
        self.var = plain_frame(var, f"{self.path}: gene")
        self.units = units
        self.dtype = np.dtype(dtype)
        self._uns = {**(uns or {}), **units.to_uns(), "m1pipe_version": __version__}
        self._layers, self._obsm = dict(layers or {}), dict(obsm or {})
        self._rows_written = 0
        self._force = force
        self._n_infinite = 0
        self._file: h5py.File
        self._stack: ExitStack

    @property
    def shape(self) -> tuple[int, int]:
        """(n_samples, n_genes)."""
        return len(self.obs), len(self.var)

    def __enter__(self) -> "MatrixWriter":
        n_bytes = self.shape[0] * self.shape[1] * self.dtype.itemsize
        _check_space(self.path, n_bytes + sum(layer.nbytes for layer in self._layers.values()))
        with ExitStack() as stack:
            part = stack.enter_context(atomic_file(self.path, fresh=not self._force))
            frames = (self.obs, self.var)
            small = 2**21 + 2 * int(sum(f.memory_usage(deep=True).sum() for f in frames))
            self._file = stack.enter_context(_new_hdf5(part, self.path, small))
            self._write_parts()
            self._stack = stack.pop_all()
        return self

    def write(self, start: int, rows: np.ndarray) -> None:
        """Write consecutive rows.

        Parameters
        ----------
        start : int
            Index of the first.
        rows : ndarray, shape (n, n_genes)

        Raises
        ------
        InputError
            If the disk is full, or a value does not fit float16.
        """
        rows = np.ascontiguousarray(rows)
        if self.dtype == np.float16 and np.nanmax(np.abs(rows), initial=0) > FLOAT16_MAX:
            raise InputError(f"{self.path}: a value is too large for float16: write float32")
        if not len(rows):
            return
        self._n_infinite += int(np.isinf(rows).sum())
        stop = start + len(rows)
        try:
            self._file["X"].write_direct(
                rows.astype(self.dtype, copy=False), None, np.s_[start:stop]
            )
        except OSError as error:
            raise _cannot_write(self.path, error) from None
        self._rows_written += len(rows)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None and self._rows_written != len(self.obs):
            lacking = RuntimeError(f"{self._rows_written} of {len(self.obs)} rows were written")
            self._stack.__exit__(RuntimeError, lacking, None)
            raise lacking
        self._stack.__exit__(kind, error, trace)
        if error is None and self._n_infinite:
            message = f"{self.path}: {self._n_infinite:,} values are infinite"
            warnings.warn(message, M1Warning, stacklevel=2)

    def _write_parts(self) -> None:
        root = self._file
        root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        X = root.create_dataset("X", shape=self.shape, dtype=self.dtype)
        X.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        parts: dict[str, Any] = {"obs": self.obs, "var": self.var, "uns": self._uns}
        parts |= {key: {} for key in _EMPTY_PARTS} | {"layers": self._layers, "obsm": self._obsm}
        try:
            for key, value in parts.items():
                write_elem(root, key, value)
        except OSError as error:
            raise _cannot_write(self.path, error) from None


def write_matrix(
    path: str | os.PathLike[str],
    X: np.ndarray,
    *,
    obs: pd.DataFrame,
    var: pd.DataFrame,
    units: Units,
    uns: dict[str, Any] | None = None,
    layers: Mapping[str, np.ndarray] | None = None,
    obsm: Mapping[str, np.ndarray] | None = None,
    force: bool = False,
) -> None:
    """Write an array and its annotations as h5ad.

    Parameters
    ----------
    path : path
    X : ndarray, shape (n_samples, n_genes)
    obs, var : DataFrame
        Indexed by sample and by gene names.
    units : Units
    uns : dict, optional
        More entries of `uns`.
    layers : dict of str to ndarray of shape (n_samples, n_genes), optional
    obsm : dict of str to ndarray of shape (n_samples, n_columns), optional
    force : bool
        Replace a file of that name.
    """
    if X.shape != (len(obs), len(var)):
        raise ValueError(f"X is {X.shape}; obs and var say {(len(obs), len(var))}")
    with MatrixWriter(
        path, obs=obs, var=var, units=units, force=force, uns=uns, layers=layers, obsm=obsm
    ) as writer:
        step = max(2**25 // max(X.shape[1], 1), 1)
        for start in range(0, len(X), step):
            writer.write(start, X[start : start + step])


def plain_frame(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Copy of a table that anndata can write: all names text, text and dates categorical.

    A slash in a column's name, which HDF5 cannot hold, becomes an underscore, with a warning.

    Parameters
    ----------
    frame : DataFrame, shape (n_rows, n_columns)
    where : str
        Named in messages.

    Returns
    -------
    DataFrame, shape (n_rows, n_columns)

    Raises
    ------
    InputError
        If a row's or a column's name comes twice, or a column has the reserved name `_index`.
    """
    columns = [str(name).replace("/", "_") for name in frame.columns]
    for what, names in (("names", frame.index), ("columns", pd.Index(columns))):
        twice = names[names.duplicated()]
        if len(twice):
            raise InputError(f"{where} {what}: expected each once; found {twice[0]!r} again")
    if "_index" in columns:
        raise InputError(f"{where} columns: the name '_index' is reserved: rename the column")
    changed = [f"{a} -> {b}" for a, b in zip(frame.columns, columns, strict=True) if str(a) != b]
    if changed:
        message = f"{where} columns: renamed for HDF5: {', '.join(changed)}"
        warnings.warn(message, M1Warning, stacklevel=2)
    index_name = None if frame.index.name in columns else frame.index.name
    index = pd.Index(frame.index.astype(str), dtype=object).rename(index_name)
    return frame.set_axis(index).set_axis(columns, axis=1).apply(_plain_column)


def _plain_column(column: pd.Series) -> pd.Series:
    kind = column.dtype
    if pd.api.types.is_numeric_dtype(kind) or isinstance(kind, pd.CategoricalDtype):
        return column.copy()
    return column.astype(str).where(column.notna()).astype("category")


def _check_space(path: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if n_bytes > free:
        raise InputError(
            f"{path}: needs {n_bytes / 1e6:,.2f} MB; the disk has {free / 1e6:,.2f} MB left: make "
            "room or choose another place"
        )


def _cannot_write(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: could not be written, nothing is left of it: {error}")


@contextmanager
def _new_hdf5(part: Path, path: Path, small_bytes: int) -> Iterator[h5py.File]:
    """Yield a new HDF5 file; failures of the disk, also on closing, become InputErrors.

    The first `small_bytes` are reserved: HDF5 can crash the process when the disk is too full for
    its own records, while a failure to write X is only an error.
    """
    try:
        _reserve(part, small_bytes)
        file = h5py.File(part, "w")
        _reserve(part, small_bytes)
    except OSError as error:
        raise _cannot_write(path, error) from None
    try:
        yield file
    finally:
        try:
            file.flush()
            n_bytes = file.id.get_filesize()
            file.close()
            os.truncate(part, n_bytes)
        except (OSError, RuntimeError) as error:
            raise _cannot_write(path, error) from None


def _reserve(part: Path, n_bytes: int) -> None:
    """Take disk space for the start of a file, where the file system can."""
    with open(part, "ab") as handle:
        try:
            os.posix_fallocate(handle.fileno(), 0, n_bytes)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
