"""A matrix of samples x genes, read by rows and never whole unless asked."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from m1pipe.data.labels import tidy_frame
from m1pipe.data.names import GeneMatch, match_genes
from m1pipe.data.units import Units
from m1pipe.errors import InputError

BLOCK_BYTES = 2**25
SPANS_AHEAD = 12
LOOKED_AT = 96  # rows that show what the values are
LARGEST = 1e15  # no level is; float32 holds sums of squares of what is not larger


class Matrix:
    """Expression values with their names, annotations and units.

    Made by `m1pipe.io.reader.open_matrix`.

    Rows come out as fresh float32 arrays, whatever is stored. A context manager: a matrix that
    came from a file holds it open until it is closed.

    Parameters
    ----------
    read_into : callable
        (start, out): fills `out`, float32 of shape (n, n_genes), with the n rows from `start` on.
    obs, var, units, layout, band, whole_genes
        As the attributes.
    prefetch_rows : callable, optional
        (start, stop): asks the system to fetch rows that will be read soon.

    Attributes
    ----------
    path : Path or None
        The file, where there is one.
    handle : h5py.File or None
        The same, open.
    obs, var : DataFrame
        Annotations of samples and of genes, indexed by their names.
    units : Units
    layout : str
        "memory", "h5ad", "h5ad_csr", "h5ad_csc", "flat", "archs4", "dee2" or "10x_h5".
    band : int
        Rows that are stored together: reading one costs as much as reading all of them.
    whole_genes : Dataset or None
        Values (n_genes, n_samples) whose chunks hold so many samples that reading rows inflates
        them again and again: better transposed once, on disk.
    logarithm : str
        That scanpy's `uns["log1p"]` says was taken of 1 + x: "natural", its base, or empty.
    aliases : mapping of str to str
        Other names of genes, for whoever matches them; empty where none were given.
    """

    path: Path | None = None
    handle: h5py.File | None = None
    logarithm: str = ""
    aliases: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        read_into: Callable[[int, np.ndarray], None],
        obs: pd.DataFrame,
        var: pd.DataFrame,
        units: Units,
        *,
        layout: str = "memory",
        band: int = 1,
        prefetch_rows: Callable[[int, int], None] | None = None,
        whole_genes: h5py.Dataset | None = None,
    ) -> None:
        self._read_into, self._prefetch_rows = read_into, prefetch_rows
        self.obs, self.var, self.units = tidy_frame(obs), var, units
        self.layout, self.band, self.whole_genes = layout, band, whole_genes

    @property
    def samples(self) -> np.ndarray:
        """Sample ids: object array of str, shape (n_samples,)."""
        return self.obs.index.to_numpy(dtype=object)

    @property
    def genes(self) -> np.ndarray:
        """Gene names: object array of str, shape (n_genes,)."""
        return self.var.index.to_numpy(dtype=object)

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return len(self.obs)

    @property
    def n_genes(self) -> int:
        """Number of columns."""
        return len(self.var)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_samples, n_genes)."""
        return self.n_samples, self.n_genes

    @property
    def nbytes(self) -> int:
        """Bytes of the whole matrix as float32."""
        return 4 * self.n_samples * self.n_genes

    def rows(
        self,
        start: int,
        stop: int,
        columns: np.ndarray | None = None,
        *,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Consecutive rows.

        Parameters
        ----------
        start, stop : int
            As in a slice; `stop` beyond the end means the end.
        columns : ndarray of int, shape (n_columns,), optional
            Genes wanted, in any order. Left out: all.
        out : ndarray of float32, C-contiguous, shape (stop - start, n_genes), optional
            Filled and returned, in place of a fresh array; without `columns` only.

        Returns
        -------
        ndarray of float32, C-contiguous, shape (stop - start, n_genes or n_columns)
            Never a view of what is stored. NaN is not looked for: see `check_finite`.

        Raises
        ------
        InputError
            If the file cannot be read there.
        """
        stop = min(stop, self.n_samples)
        if self.handle is not None and not self.handle:
            raise ValueError(f"{self.path} is closed")
        if start < 0 or start > stop:
            raise IndexError(f"rows {start} to {stop} of a matrix with {self.n_samples}")
        X = np.empty((stop - start, self.n_genes), np.float32) if out is None else out
        try:
            self._read_into(start, X)
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{self.path}: rows {start} to {stop} could not be read: {error}"
            ) from None
        return X if columns is None else np.take(X, columns, axis=1)

    def take(
        self,
        indices: np.ndarray,
        columns: np.ndarray | None = None,
        *,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Rows by index, in the order given; an index may come twice.

        Rows that lie together on disk are read together.

        Parameters
        ----------
        indices : ndarray of int, shape (n,)
        columns : ndarray of int, shape (n_columns,), optional
        out : ndarray of float32, C-contiguous, shape (n, n_genes or n_columns), optional
            Filled and returned, in place of a fresh array.

        Returns
        -------
        ndarray of float32, C-contiguous, shape (n, n_genes or n_columns)
        """
        indices = np.asarray(indices, dtype=np.int64)
        if len(indices) and not 0 <= indices.min() <= indices.max() < self.n_samples:
            raise IndexError(f"row indices outside a matrix with {self.n_samples} rows")
        width = self.n_genes if columns is None else len(columns)
        if out is None:
            out = np.empty((len(indices), width), dtype=np.float32)
        order = np.argsort(indices, kind="stable")
        runs = [run for run in np.split(order, self._breaks(indices[order])) if len(run)]
        spans = [(int(indices[run[0]]), int(indices[run[-1]]) + 1) for run in runs]
        fetch = self._prefetch_rows or (lambda first, last: None)
        for first, last in spans[:SPANS_AHEAD]:
            fetch(first, last)
        for i, (run, (first, last)) in enumerate(zip(runs, spans, strict=True)):
            for ahead in spans[i + SPANS_AHEAD : i + SPANS_AHEAD + 1]:
                fetch(*ahead)
            as_stored = (np.diff(run) == 1).all() and (np.diff(indices[run]) == 1).all()
            if as_stored and columns is None:
                self.rows(first, last, out=out[run[0] : run[-1] + 1])
            else:
                out[run] = self.rows(first, last, columns)[indices[run] - first]
        return out

    def some_rows(self) -> np.ndarray:
        """Rows from all over, `LOOKED_AT` at most, or the first where many are stored together.

        float32, shape (n, n_genes).
        """
        n = min(self.n_samples, LOOKED_AT)
        if self.whole_genes is not None or self.band > 1:
            return self.rows(0, n)
        return self.take(np.unique(np.linspace(0, max(self.n_samples - 1, 0), n).astype(np.int64)))

    def blocks(
        self, n_rows: int | None = None, *, columns: np.ndarray | None = None
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """All rows in order: start, stop and float32 of shape (stop - start, n_genes or n_columns).

        Parameters
        ----------
        n_rows : int, optional
            Rows a block. Left out: what makes blocks of some 32 MB.
        columns : ndarray of int, shape (n_columns,), optional
        """
        step = n_rows or self._block_rows()
        for start in range(0, self.n_samples, step):
            stop = min(start + step, self.n_samples)
            yield start, stop, self.rows(start, stop, columns)

    def bands(self, rows: np.ndarray) -> list[np.ndarray]:
        """Ascending rows, shape (n,), cut into blocks, so that what lies together is read once.

        Together they are `rows`; each is worth some 32 MB at most, or one band of the file.
        """
        block = np.asarray(rows) // self._block_rows()
        cuts = np.flatnonzero(np.diff(block)) + 1
        return [part for part in np.split(np.asarray(rows), cuts) if len(part)]

    def read(self, columns: np.ndarray | None = None) -> np.ndarray:
        """The whole matrix, or some columns of it, float32 (n_samples, n_genes or n_columns)."""
        width = self.n_genes if columns is None else len(columns)
        out = np.empty((self.n_samples, width), dtype=np.float32)
        for start, stop, X in self.blocks(columns=columns):
            out[start:stop] = X
        return out

    def changed(
        self, change: Callable[[int, np.ndarray], None], *, obs: pd.DataFrame, units: Units
    ) -> "Matrix":
        """The same file with its values changed whenever rows are read; closed with this one.

        `change` is given the index of the first row and rows, float32 of shape (n, n_genes), which
        it changes in place to values in `units`; obs, shape (n_samples, n_columns), is new too.
        """

        def read_changed(start: int, out: np.ndarray) -> None:
            self._read_into(start, out)
            change(start, out)

        other = copy(self)
        other.obs, other.units, other.whole_genes = tidy_frame(obs), units, None
        other._read_into = read_changed
        return other

    def match(
        self,
        wanted: Iterable[str],
        var: pd.DataFrame | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> GeneMatch:
        """Where genes stand among those of the matrix, by name and by the aliases of both.

        `var`, shape (n_wanted, n_columns), and `aliases` are of the genes that are wanted.
        """
        return match_genes(
            list(wanted),
            self.genes.tolist(),
            available_var=self.var,
            wanted_var=var,
            aliases={**(aliases or {}), **self.aliases},
        )

    def close(self) -> None:
        """Close the file; a matrix in memory stays as it is."""
        if self.handle is not None:
            self.handle.close()

    def __enter__(self) -> "Matrix":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        where = self.path or "memory"
        return (
            f"<Matrix {self.n_samples:,} samples x {self.n_genes:,} genes, {self.units}, "
            f"{self.layout}: {where}>"
        )

    def _block_rows(self) -> int:
        """Rows of a default block: whole bands of about BLOCK_BYTES."""
        rows = BLOCK_BYTES // max(4 * self.n_genes, 1)
        return max(rows // self.band, 1) * self.band

    def _breaks(self, ordered: np.ndarray) -> np.ndarray:
        """Positions at which sorted row indices are cut into runs that are read at one go."""
        band = ordered // self.band
        block = ordered // self._block_rows()
        apart = (np.diff(ordered) > 1) & (np.diff(band) > 0)
        return np.flatnonzero(apart | (np.diff(block) > 0)) + 1


def are_levels(X: np.ndarray) -> bool:
    """Whether all values are finite, and small enough to be levels."""
    return bool(-LARGEST <= X.min(initial=0) and X.max(initial=0) <= LARGEST)  # not so with NaN


def check_finite(
    X: np.ndarray,
    matrix: Matrix,
    start: int | np.ndarray = 0,
    *,
    columns: np.ndarray | None = None,
    way: str = "impute it (m1pipe impute)",
) -> None:
    """Refuse NaN, infinity and what is too large to be a level among rows read from a matrix.

    Parameters
    ----------
    X : ndarray, shape (n, n_genes or n_columns)
    matrix : Matrix
        What X was read from; it gives the names.
    start : int or ndarray of int, shape (n,)
        Index of X's first row in the matrix, or of every row.
    columns : ndarray of int, shape (n_columns,), optional
        As it was read.
    way : str
        What may be done about NaN.

    Raises
    ------
    InputError
        Naming the sample and the gene of the first such value.
    """
    if are_levels(X):
        return
    row, column = np.argwhere(~(np.abs(X) <= LARGEST))[0]
    sample = matrix.samples[start + row if isinstance(start, int) else start[row]]
    gene = matrix.genes[column if columns is None else columns[column]]
    value = X[row, column]
    wanted = f"levels up to {LARGEST:g}" if np.isfinite(value) else "finite numbers"
    way = way if np.isnan(value) else "correct it"
    raise InputError(
        f"{matrix.path or 'matrix'}: expected {wanted}; found {value:g} in sample {sample!r}, gene "
        f"{gene!r}: {way}, or leave the sample or gene out"
    )


def in_memory(
    X: Any, obs: pd.DataFrame, var: pd.DataFrame, units: Units, *, layout: str = "memory"
) -> Matrix:
    """An array or a a scipy sparse matrix.

    Parameters
    ----------
    X : ndarray or scipy sparse matrix, shape (n_samples, n_genes)
    obs, var : DataFrame
    units : Units
    layout : str
        What the array was made from.
    """
    if X.shape != (len(obs), len(var)):
        raise InputError(
            f"matrix: expected {len(obs)} samples x {len(var)} genes by the names; "
            f"found an array of shape {X.shape}"
        )
    rows = _csr(X) if sparse.issparse(X) else X

    def read(start: int, out: np.ndarray) -> None:
        some = rows[start : start + len(out)]
        out[:] = some.toarray() if sparse.issparse(some) else some

    return Matrix(read, obs, var, units, layout=layout)


def _csr(X: Any) -> Any:
    """A scipy sparse matrix by rows, each place once."""
    coordinates = X.tocoo()
    rows = coordinates.tocsr()
    if rows.nnz != coordinates.nnz:
        raise InputError("matrix: expected every place of a sparse matrix once; found one twice")
    return rows
