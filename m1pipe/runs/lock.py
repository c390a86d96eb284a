"""One process at a result at a time; elements of a job array beside each other."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from m1pipe.atomic import make_folder
from m1pipe.console import log
from m1pipe.errors import InputError


def take_lock(folder: Path, *, shared: bool = False) -> int:
    """Lock a folder; the kernel lifts the lock when the process ends, however.

    Parameters
    ----------
    folder : Path
    shared : bool
        With others that share it, as elements of a job array do.

    Returns
    -------
    int
        A descriptor to close in the end.

    Raises
    ------
    InputError
        If another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InputError(
            f"{folder}: another process is at work in this folder; "
            "wait for it, or choose another name"
        ) from None
    except OSError:
        log.debug("%s: the file system has no locks", folder)
    return descriptor


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a folder in a block; the parameters are those of `take_lock`.

    The folder is made where it is not there, and goes again if nothing has come into it.
    """
    made = not folder.exists()
    descriptor = take_lock(make_folder(folder), shared=shared)
    try:
        yield
    finally:
        os.close(descriptor)
        if made and not any(folder.iterdir()):
            folder.rmdir()
