"""Files and folders that appear only when they are complete, and belong to one process at a time.

A folder of results is cleared of the files that m1pipe wrote there, and of nothing else.
"""

import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from m1pipe.console import log
from m1pipe.errors import InputError

PathLike = str | os.PathLike[str]
LONGEST_NAME = 255
ASIDE = "-old.part"
_REFUSALS = frozenset(
    getattr(errno, name)
    for name in (
        *("EACCES", "EBUSY", "EDQUOT", "EEXIST", "EFBIG", "EINVAL", "EIO", "EISDIR", "ELOOP"),
        *("ENAMETOOLONG", "ENOENT", "ENOSPC", "ENOTDIR", "ENOTEMPTY", "EPERM", "EROFS", "EXDEV"),
    )
)


@contextmanager
def writing(path: PathLike) -> Iterator[None]:
    """Turn what the file system refuses, while `path` is written, into one line for the user.

    Raises
    ------
    InputError
        In the place of an OSError that says why: the disk is full, a name too long, ...
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        # HDF5 says why in words; at a close it raises a RuntimeError.
        told = re.search(r"error message = '([^']+)'", str(error))
        if told is None and getattr(error, "errno", None) not in _REFUSALS:
            raise
        there = os.path.dirname(os.path.abspath(path))
        file = getattr(error, "filename", None)
        named = os.path.abspath(os.fsdecode(file)) if file else there
        reason = told[1] if told else getattr(error, "strerror", error)
        other = "" if named.startswith(there) else f" ({file})"
        raise InputError(
            f"{path}: could not be written; {reason}{other}: make room there, or choose "
            "another place"
        ) from error


def make_folder(path: PathLike) -> Path:
    """Make a folder and those above it, where they are not there; InputError where it cannot be."""
    with writing(path):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def refuse_existing(path: PathLike, *, force: bool = False) -> Path:
    """Return the place to write, refusing one that exists unless `force` is given.

    A link stands for what it leads to.

    Raises
    ------
    InputError
        If something is there already, a link leads nowhere, another process is writing it, or the
        folder that should hold it cannot be written in.
    """
    path = _ready(path)
    if path.is_dir():
        raise InputError(f"{path} exists already and is a folder: choose the name of a file")
    if path.exists() and not force:
        raise InputError(f"{path} exists already: choose another name, or overwrite with --force")
    return path


def refuse_folder(
    folder: PathLike, own: Collection[str], *, what: str, force: bool = False
) -> Path:
    """Return the place of a folder, refusing one that holds what may not be replaced.

    Parameters
    ----------
    folder : path
        To be made. An empty one may be there.
    own : collection of str
        Files that the command writes, as `foreign_file` takes them: with `force` these may be
        there, and nothing else.
    what : str
        What it holds then, such as "a model".
    force : bool

    Raises
    ------
    InputError
        If it is taken, or cannot be made.
    """
    path = _ready(folder)
    if not path.exists():
        return path
    if not path.is_dir():
        raise InputError(f"{path} exists already and is no folder: choose another name")
    other = foreign_file(path, own)
    if other is not None:
        raise InputError(
            f"{path} exists already and holds {other}, which is no part of {what}: choose another "
            "name, or move that file"
        )
    if any(not is_part(name) for name in os.listdir(path)) and not force:
        raise InputError(
            f"{path} exists already and holds {what}: choose another name, or overwrite with "
            "--force"
        )
    if os.path.ismount(path):
        raise InputError(f"{path} is a mounted file system: choose a folder in it")
    return path


@contextmanager
def atomic_file(path: PathLike, *, fresh: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the final name when the block ends well.

    On any exception, Ctrl-C included, the temporary file is removed and `path` is untouched. What
    a killed process left is removed by the next one that writes the same name on that host.

    Parameters
    ----------
    path : path
    fresh : bool
        Refuse to replace what has come under that name meanwhile.

    Raises
    ------
    InputError
        If the file system refuses: the disk is full, a name too long, ...
    """
    path = Path(path)
    with writing(path):
        temporary = _temporary(path)
        try:
            yield temporary
            with open(temporary, "rb") as handle:
                os.fsync(handle.fileno())
            if fresh and path.exists():
                raise InputError(f"{path}: another process has written it meanwhile")
            os.replace(temporary, path)
        finally:
            _remove(temporary)


@contextmanager
def atomic_folder(
    folder: PathLike, own: Collection[str], *, what: str, force: bool = False
) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; it takes the name when the block ends well.

    With `force` an existing folder is replaced, if it holds nothing but what the command writes,
    and only after the new one is complete. The parameters are those of `refuse_folder`.

    Raises
    ------
    InputError
        As `refuse_folder`, or if the file system refuses.
    """
    path = refuse_folder(folder, own, what=what, force=force)
    with writing(path):
        temporary = _temporary(path)
        aside = temporary.with_name(temporary.name.removesuffix(".part") + ASIDE)
        try:
            temporary.mkdir()
            yield temporary
            if path.exists():
                refuse_folder(path, own, what=what, force=force)  # it may have changed meanwhile
                os.replace(path, aside)
            os.replace(temporary, path)
        finally:
            _remove(temporary)
            _remove(aside)


def write_text(path: PathLike, text: str) -> None:
    """Write `text` (UTF-8) atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: PathLike, content: bytes) -> None:
    """Write bytes atomically."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: PathLike, value: Any) -> None:
    """Write `value` as indented JSON atomically; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def _ready(path: PathLike) -> Path:
    """The place to write, in a folder that is made and may be written in by this process."""
    with writing(path):
        place = Path(path)
        if place.is_symlink():
            place = Path(os.path.realpath(place))
            if not place.exists():
                raise InputError(
                    f"{path} is a link to {place}, which is not there: remove the link"
                )
        _sweep(place)
        place.exists()  # refuses a name that is too long
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            found = f"{place.parent} is none"
            raise InputError(f"{path}: expected a folder to write in; {found}") from None
        if not os.access(place.parent, os.W_OK | os.X_OK):
            found = f"{place.parent} may not be written"
            raise InputError(f"{place}: expected a folder to write in; {found}")
        for _, pid in _parts(place):
            if pid != os.getpid() and _is_alive(pid):
                raise InputError(
                    f"{place}: another process ({pid}) is writing it: wait for it, or choose "
                    "another name"
                )
    return place


def _temporary(path: Path) -> Path:
    """Name beside `path` for this process, after sweeping those of dead processes of this host."""
    _sweep(path)
    return path.with_name(f"{_start(path)}{os.getpid()}.part")


def _sweep(path: Path) -> None:
    """Remove what dead processes left; a folder that one had put aside comes back."""
    for left, pid in _parts(path):
        if not _is_alive(pid):
            if left.name.endswith(ASIDE) and not path.exists():
                os.replace(left, path)
            _remove(left)


def _parts(path: Path) -> list[tuple[Path, int]]:
    """What processes of this host are writing of a file or folder, or left of it."""
    start, found = _start(path), []
    for left in path.parent.glob(f"{glob.escape(start)}*.part"):
        pid = left.name.removeprefix(start).removesuffix(ASIDE).removesuffix(".part")
        if pid.isdecimal():
            found.append((left, int(pid)))
    return found


def _start(path: Path) -> str:
    """Beginning of the names of temporary files; a name that only just fits is shortened."""
    host = socket.gethostname()
    start = f".{path.name}.{host}-"
    if len(os.fsencode(start)) + len(f"4194304{ASIDE}") <= LONGEST_NAME:
        return start
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    return f".{digest}.{host[:64]}-"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def take_lock(folder: Path, *, shared: bool = False) -> int:
    """Lock a folder, and return a descriptor to close in the end.

    The kernel lifts the lock when the process ends, however. A lock that is `shared` holds beside
    others, as elements of a job array have it.

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


def foreign_file(folder: Path, own: Collection[str]) -> str | None:
    """First file of a folder, or of the folders in it, that is not a command's own.

    Parameters
    ----------
    folder : Path
    own : collection of str
        Paths below the folder with / between their parts; a part may hold the wildcards of a
        shell. One that ends with / is a folder.

    Returns
    -------
    str or None
        Below the folder. A link, and an empty folder that holds no own file, are foreign; what a
        killed process left of a file of its own is not.
    """
    wanted = [pattern.split("/") for pattern in own]
    folders = [parts[:depth] for parts in wanted for depth in range(1, len(parts))]
    for place, names, files in os.walk(folder):
        names.sort()
        parts = list(Path(place).relative_to(folder).parts)
        for name in list(names):
            link = os.path.islink(os.path.join(place, name))
            if is_part(name) and not link:
                names.remove(name)
            elif link or not _any([*parts, name], folders):
                return "/".join([*parts, name])
        for name in sorted(files):
            if not is_part(name) and not _any([*parts, name], wanted):
                return "/".join([*parts, name])
    return None


def clear(folder: Path, own: Collection[str]) -> None:
    """Remove a command's own files from a folder, and the folders in it that are empty then.

    They are named as `foreign_file` takes them. A link goes, and not what it leads to.
    """
    wanted = [pattern.split("/") for pattern in own]
    for place, names, files in os.walk(folder, topdown=False):
        here = Path(place)
        parts = here.relative_to(folder).parts
        for name in (*files, *(name for name in names if (here / name).is_symlink())):
            if _any([*parts, name], wanted) or is_part(name):
                (here / name).unlink()
        if parts and (not any(here.iterdir()) or is_part(here.name)):
            shutil.rmtree(here)


def is_part(name: str) -> bool:
    """Whether a name is that of a file which is being written, or was when a process was killed."""
    return name.startswith(".") and name.endswith(".part")


def below(folder: str, names: Iterable[str]) -> tuple[str, ...]:
    """The same files in a folder."""
    return tuple(f"{folder}/{name}" for name in names)


def _any(parts: list[str], patterns: list[list[str]]) -> bool:
    """Whether a path has the form of one of some patterns."""
    return any(
        len(parts) == len(pattern) and all(map(fnmatchcase, parts, pattern)) for pattern in patterns
    )
