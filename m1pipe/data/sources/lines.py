"""Lines of a text file that may be compressed, with a bar, and clear words when it is broken."""

import bz2
import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from m1pipe.console import progress
from m1pipe.errors import InputError

_READ_BYTES = 2**20
_HDF5_MAGIC = b"\x89HDF"


@contextmanager
def open_lines(path: Path) -> Iterator[Iterator[bytes]]:
    """Yield the lines of a text file, plain, gzip or bzip2, without their ends.

    Raises
    ------
    InputError
        As `open_chunks`.
    """
    with open_chunks(path) as chunks:
        yield _lines(chunks)


@contextmanager
def open_chunks(path: Path) -> Iterator[Iterator[bytes]]:
    """Yield the text of a file, plain, gzip or bzip2, in pieces of about a megabyte.

    A bar shows the progress by bytes of the file.

    Raises
    ------
    InputError
        If there is no such file or it is not text; and while it is read, if the file
        turns out to be cut short or broken.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "none of that name"
        raise InputError(f"{path}: expected a text file; found {found}")
    try:
        raw = open(path, "rb")
    except OSError as error:
        raise InputError(f"{path}: could not be read: {error.strerror}") from None
    bar: Any = progress(total=path.stat().st_size, label=f"reading {path.name}", unit="B")
    with raw, bar, _decompressed(raw) as stream:
        yield _chunks(stream, path, lambda: bar.update(raw.tell() - bar.n))


def whole_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same text in pieces that end where a line ends; the last line may lack its end."""
    rest = b""
    for chunk in chunks:
        end = chunk.rfind(b"\n") + 1
        if end:
            yield rest + chunk[:end]
            rest = chunk[end:]
        else:
            rest += chunk
    if rest:
        yield rest


def _decompressed(raw: BinaryIO) -> BinaryIO:
    """The stream of text inside, by the file's first bytes and not by its name."""
    magic = raw.read(4)
    raw.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    if magic[:3] == b"BZh":
        return cast(BinaryIO, bz2.BZ2File(raw))
    return raw


def _chunks(stream: BinaryIO, path: Path, tick: Callable[[], object]) -> Iterator[bytes]:
    """Pieces of the text, a tick each; a broken or cut file becomes an InputError."""
    first = True
    while True:
        try:
            chunk = stream.read(_READ_BYTES)
        except EOFError:
            raise InputError(
                f"{path}: the compressed file ends too early: copy or download it again"
            ) from None
        except (OSError, zlib.error, ValueError) as error:
            raise InputError(f"{path}: could not be read: {error}") from None
        if first and (chunk.startswith(_HDF5_MAGIC) or b"\0" in chunk[:4096]):
            raise InputError(f"{path}: expected delimited text; found a binary file")
        if not chunk:
            return
        first = False
        tick()
        yield chunk


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines without their ends (either kind)."""
    rest: list[bytes] = []
    for chunk in chunks:
        *complete, last = chunk.split(b"\n")
        for line in complete:
            rest.append(line)
            yield b"".join(rest).removesuffix(b"\r")
            rest = []
        rest.append(last)
    if any(rest):
        yield b"".join(rest).removesuffix(b"\r")
