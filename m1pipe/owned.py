"""Which files of a folder are a command's own: these it may replace, and no others."""

import os
import shutil
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from pathlib import Path


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

    Parameters
    ----------
    folder : Path
    own : collection of str
        As `foreign_file` takes them. A link goes, and not what it leads to.
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
