"""Rows a part at a time through a network, and together again."""

from collections.abc import Iterator

import numpy as np
import torch

CHUNK_ROWS = 1024


def chunks(
    X: np.ndarray, codes: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Some rows at a time, float32, and their classes.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_columns)
    codes : ndarray of int64, shape (n_samples,), or None
    """
    for start in range(0, len(X), CHUNK_ROWS):
        stop = start + CHUNK_ROWS
        yield np.asarray(X[start:stop], dtype=np.float32), part_of(codes, start, stop)


def part_of(codes: np.ndarray | None, start: int, stop: int) -> np.ndarray | None:
    """Classes of some rows.

    Parameters
    ----------
    codes : ndarray of int64, shape (n_samples,), or None
    start, stop : int
    """
    return None if codes is None else codes[start:stop]


def as_tensor(codes: np.ndarray | None) -> torch.Tensor | None:
    """Classes as the network takes them.

    Parameters
    ----------
    codes : ndarray of int64, shape (n_samples,), or None
    """
    return None if codes is None else torch.from_numpy(codes)


def joined(parts: list[np.ndarray], width: int) -> np.ndarray:
    """Rows of all parts, float32, shape (n_samples, width)."""
    if not parts:
        return np.empty((0, width), dtype=np.float32)
    return np.concatenate(parts).astype(np.float32, copy=False)
