"""Batches of tensors on the training device, held in memory or streamed from a matrix.

`data` decides which rows make a batch and reads them; here they are transformed and moved.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from m1pipe.data.batches import WHOLE, MemoryBatches, RowSource, StreamedBatches
from m1pipe.data.transforms import GeneTransform

Batch = tuple[Tensor, ...]
READ_BYTES = 64 * 2**20
# Of the memory, what streaming takes: the libraries are in it, too.
STREAMED_SHARE = 7 / 8


class Batches(Protocol):
    """What the training loop needs: the last tensor of a batch holds its row numbers."""

    @property
    def n_rows(self) -> int:
        """Rows an epoch."""

    @property
    def n_steps(self) -> int:
        """Batches an epoch."""

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Batches of an epoch (from 0) without the first `skip`; a function of the epoch alone."""


class _Counted:
    """Rows and batches of a feed, as those who decide its order count them."""

    batches: MemoryBatches | StreamedBatches

    @property
    def n_rows(self) -> int:
        """Rows an epoch."""
        return self.batches.n_rows

    @property
    def n_steps(self) -> int:
        """Batches an epoch."""
        return self.batches.n_steps


@dataclass(frozen=True)
class ResidentFeed(_Counted):
    """Batches of tensors that lie on the device.

    Attributes
    ----------
    tensors : tuple of Tensor, each of n_rows rows
        On the training device: levels, and for a conditional model classes.
    rows : ndarray of int, shape (n_rows,)
        Row number that each one had in its source.
    batches : MemoryBatches
        Decides the order.
    """

    tensors: Batch
    rows: np.ndarray
    batches: MemoryBatches

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Batches of an epoch: one slice of every tensor, then the row numbers (on the CPU)."""
        order = self.batches.order(epoch)
        # One copy to the device an epoch. Row numbers only name samples, so they stay behind.
        places = torch.from_numpy(order).to(self.tensors[0].device)
        numbers = torch.from_numpy(self.rows[order])
        both = zip(*(self.batches.parts(values, skip) for values in (places, numbers)), strict=True)
        for chosen, rows in both:
            yield (*(tensor.index_select(0, chosen) for tensor in self.tensors), rows)


@dataclass(frozen=True)
class StreamedFeed(_Counted):
    """Batches read from a matrix, transformed and moved to the device one by one.

    Attributes
    ----------
    batches : StreamedBatches
        Decides the order and reads.
    transform : GeneTransform
        Applied to every batch.
    device : torch.device
        Where the batches go.
    codes : Tensor of int, shape (n_samples,), or None
        Class of each row of the matrix, for a conditional model.
    """

    batches: StreamedBatches
    transform: GeneTransform
    device: torch.device
    codes: Tensor | None = None

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Batches of an epoch: transformed levels, any classes, row numbers (on the CPU)."""
        order = self.batches.indices(epoch, skip)
        for indices, X in zip(order, self.batches.epoch(epoch, skip), strict=True):
            rows = torch.from_numpy(indices)
            classes = () if self.codes is None else (self.codes[rows].to(self.device),)
            yield torch.from_numpy(self.transform.apply(X)).to(self.device), *classes, rows


Feed = ResidentFeed | StreamedFeed


def make_feed(
    matrix: RowSource,
    rows: np.ndarray,
    transform: GeneTransform,
    *,
    batch_size: int,
    seed: int,
    memory_bytes: int,
    device: torch.device,
    codes: np.ndarray | None = None,
    shuffle: bool = True,
    part: tuple[int, int] = WHOLE,
) -> Feed:
    """Batches of a matrix's rows, held on the device where they fit and streamed where not.

    Parameters
    ----------
    matrix : Matrix
        Anything with `shape` and `take(indices)`.
    rows : ndarray of int, shape (n_rows,)
        Rows to visit, each once an epoch.
    transform : GeneTransform
        Fitted on training rows.
    batch_size, seed : int
        Rows a batch; seed of the order.
    memory_bytes : int
        What the rows may take as float32.
    device : torch.device
        Where the batches go.
    codes : ndarray of int64, shape (n_samples,), optional
        Class of each row of the matrix, for a conditional model.
    shuffle : bool
        Held rows come in their own order if False; streamed ones are always shuffled.
    part : (int, int)
        Process r of n takes the r-th part of each batch.
    """
    needed = 4 * rows.size * matrix.shape[1]
    classes = None if codes is None else torch.from_numpy(codes)
    if needed > memory_bytes:
        room = int(STREAMED_SHARE * memory_bytes)
        streamed = StreamedBatches(matrix, rows, batch_size, seed, room, part=part)
        return StreamedFeed(streamed, transform, device, classes)
    X = torch.from_numpy(_read_transformed(matrix, rows, transform)).to(device)
    tensors = (X,) if classes is None else (X, classes[torch.from_numpy(rows)].to(device))
    held = MemoryBatches(tensors, batch_size, seed, shuffle=shuffle, part=part)
    return ResidentFeed(tensors, rows, held)


def whole(feed: Feed) -> Feed:
    """The same feed with all rows of each batch, whatever part of them this process takes."""
    batches = copy.copy(feed.batches)
    batches.part = WHOLE
    return replace(feed, batches=batches)  # type: ignore[arg-type]


def _read_transformed(matrix: RowSource, rows: np.ndarray, transform: GeneTransform) -> np.ndarray:
    """Transformed rows, read in pieces so that they are never held twice."""
    X = np.empty((rows.size, matrix.shape[1]), dtype=np.float32)
    step = max(1, READ_BYTES // (4 * max(matrix.shape[1], 1)))
    for start in range(0, rows.size, step):
        X[start : start + step] = transform.apply(matrix.take(rows[start : start + step]))
    return X
