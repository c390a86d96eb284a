"""Arrays read straight from a position of an open file, without HDF5 in between."""

import os

import numpy as np


def read_at(descriptor: int, out: np.ndarray, offset: int) -> None:
    """Fill an array with the bytes at a position of a file.

    Parameters
    ----------
    descriptor : int
        Of a file open for reading; its own position does not matter and is left alone.
    out : ndarray of any shape, C-contiguous
    offset : int
        In bytes.

    Raises
    ------
    OSError
        If the file cannot be read, or ends early.
    """
    if not out.size:
        return
    view = out.data.cast("B")
    while view:
        n_read = os.preadv(descriptor, [view], offset)
        if n_read == 0:
            raise OSError("the file ends early")
        view, offset = view[n_read:], offset + n_read


def prefetch(descriptor: int, offset: int, n_bytes: int) -> None:
    """Tell the system that some bytes will be read soon, where it listens."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, offset, n_bytes, os.POSIX_FADV_WILLNEED)
