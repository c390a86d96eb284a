"""Which rows make up each batch of an epoch, decided apart from reading them.

The order is a pure function of (seed, epoch): a run resumed in the middle of an epoch skips the
batches that it has had, and continues with the very same rows.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np

from m1pipe import seeds
from m1pipe.errors import InputError

Values = TypeVar("Values", bound=Any)  # ndarray or Tensor
WHOLE = (0, 1)
# A run of neighbours is as long as a disk needs it to be fast, where the buffer holds many such.
RUN_ROWS = 16
RUN_BYTES = 2**21
RUNS_A_BUFFER = 64


class RowSource(Protocol):
    """What streaming needs of a matrix."""

    @property
    def shape(self) -> tuple[int, int]:
        """Samples and genes."""

    def take(self, indices: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        """Rows by index, float32, shape (n_indices, n_genes); in `out` where that can be."""


def epoch_generator(seed: int, epoch: int) -> np.random.Generator:
    """Random generator of one epoch: the same numbers whatever ran before it."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)))


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """Order in which an epoch visits n rows.

    Returns
    -------
    ndarray of int64, shape (n,)
        A permutation, the same for the same seed and epoch.
    """
    return epoch_generator(seed, epoch).permutation(n)


def row_order(n: int, seed: int, epoch: int, folds: np.ndarray | None = None) -> np.ndarray:
    """Order in which an epoch visits n rows.

    Parameters
    ----------
    n, seed, epoch : int
        The order is a function of these and of the folds.
    folds : ndarray of int, shape (n,), optional
        Folds are spread evenly over the order, each in a random order of its own.

    Returns
    -------
    ndarray of int64, shape (n,)
        A permutation.
    """
    order = epoch_order(n, seed, epoch)
    if folds is None:
        return order
    jitter = epoch_generator(seed + seeds.ROW_JITTER, epoch).random(n)
    place = np.empty(n)
    for fold in np.unique(folds):
        own = order[folds[order] == fold]
        place[own] = (np.arange(own.size) + jitter[own]) / own.size
    return np.argsort(place, kind="stable")


class MemoryBatches:
    """Batches of arrays that are held in memory, as row indices.

    Parameters
    ----------
    arrays : sequence of array-like, each of length n_rows
        NumPy arrays or tensors whose rows belong together.
    batch_size : int
        Rows a batch; the last one may be smaller, down to a single row.
    seed : int
        Of the row order.
    shuffle : bool
        False visits the rows in their own order.
    part : (int, int)
        Process r of n takes the r-th part of each batch, which may be empty at the end.
    """

    def __init__(
        self,
        arrays: Sequence[Any],
        batch_size: int,
        seed: int,
        *,
        shuffle: bool = True,
        part: tuple[int, int] = WHOLE,
    ) -> None:
        lengths = {len(array) for array in arrays}
        if len(lengths) != 1:
            raise ValueError(f"batches: expected arrays of one length; found {sorted(lengths)}")
        self.arrays, self.batch_size, self.part = tuple(arrays), batch_size, part
        self.seed, self.shuffle = seed, shuffle
        self.n_rows = lengths.pop()
        self.n_steps = count_steps(self.n_rows, batch_size)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[np.ndarray]:
        """Row indices of each batch; every row occurs once.

        Parameters
        ----------
        epoch : int
            Number of the epoch, from 0.
        skip : int
            Batches at the start to leave out.

        Yields
        ------
        ndarray of int64, shape (at most batch_size,)
        """
        yield from self.parts(self.order(epoch), skip)

    def order(self, epoch: int) -> np.ndarray:
        """Order in which all rows are visited, an ndarray of int64, shape (n_rows,)."""
        n = self.n_rows
        return epoch_order(n, self.seed, epoch) if self.shuffle else np.arange(n)

    def parts(self, values: Values, skip: int = 0) -> Iterator[Values]:
        """What each batch takes of values that stand in the order of the rows, from `skip` on."""
        for start in range(skip * self.batch_size, self.n_rows, self.batch_size):
            yield own_part(values[start : start + self.batch_size], self.part)


class StreamedBatches:
    """Batches read from a matrix that is too large for memory.

    Rows are read in short runs of neighbours, which begin elsewhere in every epoch, the runs in
    random order; many runs fill a buffer, and the rows are shuffled inside it. A thread fills one
    buffer while batches are cut from the other. Every row is as likely to come at any place of an
    epoch, however long the runs and large the buffers are.

    Parameters
    ----------
    matrix : Matrix
        Anything with `shape` and `take(indices)`.
    rows : ndarray of int, shape (n_rows,) or None
        Rows of the matrix to visit, each once an epoch; None: all.
    batch_size : int
        Rows a batch; the last one may be smaller, down to a single row.
    seed : int
        Of the row order, which depends on `buffer_bytes` too.
    buffer_bytes : int
        What both buffers and the batches cut from them may take together.
    part : (int, int)
        As for `MemoryBatches`; only the rows of this part are read.

    Raises
    ------
    InputError
        If that is too little for two batches and two runs of rows.
    """

    def __init__(
        self,
        matrix: RowSource,
        rows: np.ndarray | None,
        batch_size: int,
        seed: int,
        buffer_bytes: int,
        *,
        part: tuple[int, int] = WHOLE,
    ) -> None:
        self.matrix, self.batch_size, self.seed, self.part = matrix, batch_size, seed, part
        self.rows = np.arange(matrix.shape[0]) if rows is None else np.sort(np.asarray(rows))
        self.n_rows = self.rows.size
        self.n_steps = count_steps(self.n_rows, batch_size)
        row_bytes = 4 * matrix.shape[1]
        buffer_rows = (buffer_bytes // row_bytes - 2 * batch_size) // 2
        if buffer_rows < RUN_ROWS:
            needed = (2 * batch_size + 2 * RUN_ROWS) * row_bytes
            raise InputError(
                f"memory: expected at least {needed} bytes to stream batches of {batch_size} rows "
                f"of {matrix.shape[1]} genes; found {buffer_bytes}: raise --memory or lower "
                "--batch-size"
            )
        self.run_rows = max(RUN_ROWS, min(RUN_BYTES // row_bytes, buffer_rows // RUNS_A_BUFFER))
        self.buffer_rows = buffer_rows // self.run_rows * self.run_rows

    def order(self, epoch: int) -> np.ndarray:
        """Matrix rows in the order in which the epoch visits them.

        Returns
        -------
        ndarray of int64, shape (n_rows,)
            Positions k * buffer_rows to (k + 1) * buffer_rows are read together.
        """
        generator = epoch_generator(self.seed, epoch)
        first = int(generator.integers(1, self.run_rows + 1))
        runs = np.array_split(self.rows, range(first, self.n_rows, self.run_rows))
        order = np.concatenate([runs[r] for r in generator.permutation(len(runs))])
        for start in range(0, self.n_rows, self.buffer_rows):
            generator.shuffle(order[start : start + self.buffer_rows])
        return order

    def indices(self, epoch: int, skip: int = 0) -> Iterator[np.ndarray]:
        """Matrix rows of each batch that `epoch` yields, without reading them."""
        order = self.order(epoch)
        for start in range(skip * self.batch_size, self.n_rows, self.batch_size):
            yield own_part(order[start : start + self.batch_size], self.part)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[np.ndarray]:
        """Values of each batch; every row occurs once.

        Parameters
        ----------
        epoch : int
            Number of the epoch, from 0.
        skip : int
            Batches at the start to leave out; their buffers are not read.

        Yields
        ------
        ndarray of float32, shape (at most batch_size, n_genes)
        """
        pieces: list[np.ndarray] = []
        batches = list(self.indices(epoch))
        full = len(batches[0])
        wanted, start = full, skip * full
        for first, X, place in self._buffers(np.concatenate(batches), start):
            at = max(start - first, 0)
            while at < len(place):
                cut = place[at : at + wanted]
                pieces.append(X[cut])
                at, wanted = at + len(cut), wanted - len(cut)
                if not wanted:
                    yield pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
                    pieces, wanted = [], full
        if pieces or (skip < len(batches) and len(batches[-1]) == 0):
            yield np.concatenate([np.empty((0, self.matrix.shape[1]), np.float32), *pieces])

    def _buffers(
        self, order: np.ndarray, start: int
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Position, rows and their places of every buffer from `start` on; one is read ahead."""
        firsts = range(start - start % self.buffer_rows, len(order), self.buffer_rows)
        parts = [order[first : first + self.buffer_rows] for first in firsts]
        if not parts:
            return
        spare = [np.empty((len(part), self.matrix.shape[1]), np.float32) for part in parts[:2]]
        with ThreadPoolExecutor(1, thread_name_prefix="m1pipe-read") as reader:
            coming = reader.submit(self._read, parts[0], spare[0])
            for i, first in enumerate(firsts):
                X, place = coming.result()
                if i + 1 < len(parts):
                    coming = reader.submit(self._read, parts[i + 1], spare[(i + 1) % 2])
                yield first, X, place

    def _read(self, wanted: np.ndarray, buffer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows in ascending order, which is how a disk likes them, and where each one lies."""
        by_row = np.argsort(wanted, kind="stable")
        place = np.empty_like(by_row)
        place[by_row] = np.arange(by_row.size)
        return self.matrix.take(wanted[by_row], out=buffer[: len(wanted)]), place


def count_steps(n_rows: int, batch_size: int) -> int:
    """Batches that n_rows make; the last may be small."""
    return -(-n_rows // batch_size)


def own_part(rows: Values, part: tuple[int, int]) -> Values:
    """The r-th of n parts of a batch's rows, in order; sizes differ by one at most.

    Parameters
    ----------
    rows : ndarray or Tensor, shape (n_rows, ...)
    part : (int, int)
        r, from 0, and n.

    Returns
    -------
    ndarray or Tensor, shape (n_own, ...)
    """
    r, n = part
    own: Values = rows[len(rows) * r // n : len(rows) * (r + 1) // n]
    return own
