"""Batches for heads: one order of rows that heads of several folds and models can share."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from m1pipe.data.batches import count_steps, epoch_generator, epoch_order
from m1pipe.training.feed import Batch


@dataclass(frozen=True, eq=False)
class HeadFeed:
    """Batches of a head: pieces of one order over all rows, restricted to the head's own rows.

    The order is that of all rows, whichever of them a head may see, so that heads of several
    folds and models can be trained together on the same pieces; a piece without any is left out.

    Attributes
    ----------
    x, y : Tensor, of n rows
        Features and targets of all rows.
    mask : ndarray of bool, shape (n,)
        Rows that this feed yields.
    scale_x, scale_y : pair of Tensor
        Location to subtract and scale to divide by.
    batch_size, seed : int
        Rows a piece; seed of the order.
    folds : ndarray of int, shape (n,), optional
        Each piece holds the folds in equal proportions, as nearly as it can.
    shuffle : bool
        False visits the rows in their own order.
    """

    x: Tensor
    y: Tensor
    mask: np.ndarray
    scale_x: tuple[Tensor, Tensor]
    scale_y: tuple[Tensor, Tensor] | None
    batch_size: int
    seed: int
    folds: np.ndarray | None = None
    shuffle: bool = True

    @property
    def n_rows(self) -> int:
        """Rows an epoch."""
        return int(self.mask.sum())

    @property
    def n_steps(self) -> int:
        """Pieces an epoch, those without rows of this head included."""
        return count_steps(self.mask.size, self.batch_size)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Standardised features, targets, and row numbers of each piece."""
        n = self.mask.size
        order = row_order(n, self.seed, epoch, self.folds) if self.shuffle else np.arange(n)
        for start in range(skip * self.batch_size, n, self.batch_size):
            piece = order[start : start + self.batch_size]
            rows = torch.from_numpy(piece[self.mask[piece]])
            if rows.numel() == 0:
                continue
            chosen = rows.to(self.x.device)
            x = self.x.index_select(0, chosen).sub_(self.scale_x[0]).div_(self.scale_x[1])
            y = self.y.index_select(0, chosen)
            if self.scale_y is not None:
                y = y.sub_(self.scale_y[0]).div_(self.scale_y[1])
            yield x, y, rows


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
    jitter = epoch_generator(seed + 1, epoch).random(n)
    place = np.empty(n)
    for fold in np.unique(folds):
        own = order[folds[order] == fold]
        place[own] = (np.arange(own.size) + jitter[own]) / own.size
    return np.argsort(place, kind="stable")
