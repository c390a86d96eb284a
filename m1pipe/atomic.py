"""Files that appear under their final name only when they are complete."""

import errno
import glob
import json
import os
import shutil
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from m1pipe.errors import InputError

_REFUSALS = frozenset(
    getattr(errno, name)
    for name in (
        *("EACCES", "EDQUOT", "EFBIG", "EIO", "EISDIR", "ELOOP", "ENAMETOOLONG", "ENOENT"),
        *("ENOSPC", "ENOTDIR", "EPERM", "EROFS", "EEXIST", "ENOTEMPTY", "EBUSY", "EXDEV"),
    )
)


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what the file system refuses, while `path` is written, into one line for the user.

    Raises
    ------
    InputError
        In the place of an OSError that says why: the disk is full, a name too long, ...
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        other = f" ({error.filename})" if str(error.filename or path) != str(path) else ""
        raise InputError(
            f"{path}: could not be written: {error.strerror}{other}: make room or choose another "
            "place"
        ) from error


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder and those above it, where they are not there.

    Raises
    ------
    InputError
        If it cannot be.
    """
    with writing(path):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def refuse_existing(path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Return `path` as a Path, refusing one that exists unless `force` is given.

    Raises
    ------
    InputError
        If something is there already, or the folder that should hold it is not.
    """
    path = Path(path)
    if path.exists() and not force:
        raise InputError(f"{path} exists already: choose another name, or overwrite with --force")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{path}: expected a folder to write in; {path.parent} is none") from None
    return path


def refuse_other_files(
    folder: str | os.PathLike[str], names: Collection[str], *, force: bool = False
) -> Path:
    """Return `folder` as a Path, refusing one that `force` does not let go, or of other files.

    Parameters
    ----------
    folder : path
        To be made.
    names : collection of str
        Files that may be in it already, with `force`.
    force : bool

    Raises
    ------
    InputError
        If it is there and `force` is not given, or holds anything else.
    """
    path = refuse_existing(folder, force=force)
    if path.exists() and not (path.is_dir() and {p.name for p in path.iterdir()} <= set(names)):
        raise InputError(f"{path} holds other files: choose another name")
    return path


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the final name when the block ends well.

    On any exception, Ctrl-C included, the temporary file is removed and `path` is untouched. What
    a killed process left is removed by the next one that writes the same name on that host.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str], *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it takes the final name when the block ends well.

    With `force` an existing folder is replaced, and only after the new one is complete.
    """
    path = refuse_existing(path, force=force)
    temporary = _temporary(path)
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path) -> Path:
    """Name beside `path` for this process, after sweeping those of dead processes of this host."""
    start = f".{path.name}.{socket.gethostname()}-"
    for left in path.parent.glob(f"{glob.escape(start)}*.part"):
        pid = left.name.removeprefix(start).removesuffix(".part")
        if pid.isdecimal() and not _is_alive(int(pid)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
    return path.with_name(f"{start}{os.getpid()}.part")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` (UTF-8) atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON atomically; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
