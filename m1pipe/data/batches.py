"""Which rows make up each batch of an epoch, decided apart from reading them.

The order is a pure function of (seed, epoch): a run resumed in the middle of an epoch skips the
batches it has had, and goes on with the very same rows.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from m1pipe.errors import InputError

BLOCK_ROWS = 16


class RowSource(Protocol):
    """What streaming needs of a matrix."""

    @property
    def shape(self) -> tuple[int, int]:
        """Samples and genes."""

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Rows by index, float32."""


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
    """

    def __init__(
        self, arrays: Sequence[Any], batch_size: int, seed: int, *, shuffle: bool = True
    ) -> None:
        lengths = {len(array) for array in arrays}
        if len(lengths) != 1:
            raise ValueError(f"batches: expected arrays of one length; found {sorted(lengths)}")
        self.arrays = tuple(arrays)
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
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
        order = (
            epoch_order(self.n_rows, self.seed, epoch) if self.shuffle else np.arange(self.n_rows)
        )
        for start in range(skip * self.batch_size, self.n_rows, self.batch_size):
            yield order[start : start + self.batch_size]


class StreamedBatches:
    """Batches read from a matrix that is too large for memory.

    Rows are read in short runs of neighbours, the runs in random order; many runs fill a buffer,
    and the rows are shuffled inside it. A larger buffer mixes farther and changes nothing else.

    Parameters
    ----------
    matrix : Matrix
        Anything with `shape` and `take(indices)`.
    rows : ndarray of int, shape (n_rows,) or None
        Rows of the matrix to visit, each once an epoch; None: all.
    batch_size : int
        Rows a batch; the last one may be smaller, down to a single row.
    seed : int
        Of the row order.
    buffer_bytes : int
        What the buffer and the batches cut from it may take together.

    Raises
    ------
    InputError
        If that is too little for two batches and one run of rows.
    """

    def __init__(
        self,
        matrix: RowSource,
        rows: np.ndarray | None,
        batch_size: int,
        seed: int,
        buffer_bytes: int,
    ) -> None:
        self.matrix = matrix
        self.rows = np.arange(matrix.shape[0]) if rows is None else np.sort(np.asarray(rows))
        self.batch_size = batch_size
        self.seed = seed
        self.n_rows = self.rows.size
        self.n_steps = count_steps(self.n_rows, batch_size)
        row_bytes = 4 * matrix.shape[1]
        blocks = (buffer_bytes // row_bytes - 2 * batch_size) // BLOCK_ROWS
        if blocks < 1:
            needed = (2 * batch_size + BLOCK_ROWS) * row_bytes
            raise InputError(
                f"memory: expected at least {needed} bytes to stream batches of {batch_size} rows "
                f"of {matrix.shape[1]} genes; found {buffer_bytes}: raise --memory or lower "
                "--batch-size"
            )
        self.buffer_rows = blocks * BLOCK_ROWS

    def order(self, epoch: int) -> np.ndarray:
        """Matrix rows in the order in which the epoch visits them.

        Returns
        -------
        ndarray of int64, shape (n_rows,)
            Positions k * buffer_rows to (k + 1) * buffer_rows are read together.
        """
        generator = epoch_generator(self.seed, epoch)
        blocks = np.array_split(self.rows, range(BLOCK_ROWS, self.n_rows, BLOCK_ROWS))
        order = np.concatenate([blocks[b] for b in generator.permutation(len(blocks))])
        for start in range(0, self.n_rows, self.buffer_rows):
            generator.shuffle(order[start : start + self.buffer_rows])
        return order

    def indices(self, epoch: int, skip: int = 0) -> Iterator[np.ndarray]:
        """Matrix rows of each batch that `epoch` yields, without reading them."""
        order = self.order(epoch)
        for start in range(skip * self.batch_size, self.n_rows, self.batch_size):
            yield order[start : start + self.batch_size]

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[np.ndarray]:
        """Values of each batch; every row occurs once.

        Parameters
        ----------
        epoch : int
            Number of the epoch, from 0.
        skip : int
            Batches at the start to leave out; they are not read.

        Yields
        ------
        ndarray of float32, shape (at most batch_size, n_genes)
        """
        order = self.order(epoch)
        held, buffer, place = range(0), np.empty((0, 0), dtype=np.float32), np.empty(0, dtype=int)
        for start in range(skip * self.batch_size, self.n_rows, self.batch_size):
            stop = min(start + self.batch_size, self.n_rows)
            pieces = []
            while start < stop:
                if start not in held:
                    del buffer  # before the next one is read, so that there is only one
                    first = start - start % self.buffer_rows
                    held = range(first, min(first + self.buffer_rows, self.n_rows))
                    buffer, place = self._read(order[held.start : held.stop])
                end = min(stop, held.stop)
                pieces.append(buffer[place[start - held.start : end - held.start]])
                start = end
            yield pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _read(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows in ascending order, which is how a disk likes them, and where each one lies."""
        by_row = np.argsort(wanted, kind="stable")
        place = np.empty_like(by_row)
        place[by_row] = np.arange(by_row.size)
        return self.matrix.take(wanted[by_row]), place


def count_steps(n_rows: int, batch_size: int) -> int:
    """Batches that n_rows make; the last may be small."""
    return -(-n_rows // batch_size)
