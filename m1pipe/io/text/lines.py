"""Lines of a text file that may be compressed, with a bar, and clear words when it is broken."""

import bz2
import gzip
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, cast

from m1pipe.console import progress
from m1pipe.errors import InputError
from m1pipe.io.unreadable_formats import named_kind
from m1pipe.settings import parse_bytes

GzipReader: Callable[..., Any]
FastZlibError: type[Exception]
try:  # the extra `fast`: inflates three times as fast
    from isal import igzip, isal_zlib

    GzipReader, FastZlibError = igzip.IGzipFile, cast(type[Exception], isal_zlib.error)
except ImportError:
    GzipReader, FastZlibError = gzip.GzipFile, zlib.error

LINE_OPTION, LONGEST_LINE = "M1PIPE_LONGEST_LINE", "256M"
_READ_BYTES = 2**20
_N_AHEAD = 4
_HDF5_MAGIC = b"\x89HDF"
BOM = b"\xef\xbb\xbf"  # that Windows programs put before UTF-8


@contextmanager
def open_lines(path: Path) -> Iterator[Iterator[bytes]]:
    """Yield the lines of a text file, plain, gzip or bzip2, without their ends.

    Raises
    ------
    InputError
        As `open_chunks`.
    """
    with open_chunks(path) as chunks:
        yield iter(TextReader(chunks).line, None)


@contextmanager
def open_chunks(path: Path) -> Iterator[Iterator[bytes]]:
    """Yield the text of a file, plain, gzip or bzip2, in pieces of about a megabyte.

    A thread reads and inflates a few pieces ahead. A bar shows the progress by bytes of the file.

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
    bar = progress(total=path.stat().st_size, label=f"reading {path.name}", unit="B")
    with raw, bar, _decompressed(raw) as stream:
        chunks = _chunks(stream, path, lambda: bar.update(raw.tell() - bar.n))
        with _ahead(_bounded(chunks, path)) as ahead:
            yield ahead


class TextReader:
    """Text of an open file by lines or by pieces of whole lines, whichever is asked for next."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._pieces = whole_lines(chunks)
        self._held = b""
        self._at = 0

    def line(self) -> bytes | None:
        """The next line without its end (either kind); None at the end."""
        if self._at >= len(self._held):
            self._held, self._at = next(self._pieces, b""), 0
            if not self._held:
                return None
        end = self._held.find(b"\n", self._at)
        end = len(self._held) if end < 0 else end
        line = self._held[self._at : end]
        self._at = end + 1
        return line.rstrip(b"\r")

    def piece(self) -> bytes | None:
        """All the next lines that are at hand, some megabyte; None at the end."""
        held, self._held = self._held[self._at :], b""
        self._at = 0
        return held or next(self._pieces, None)

    def back(self, lines: Sequence[bytes]) -> None:
        """Put lines back, so that they are the next."""
        before = b"".join(line + b"\n" for line in lines)
        self._held, self._at = before + self._held[self._at :], 0

    def ahead(self, n: int) -> list[bytes]:
        """The next lines, n at most, which stay the next."""
        found: list[bytes] = []
        while len(found) < n and (line := self.line()) is not None:
            found.append(line)
        self.back(found)
        return found


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


@contextmanager
def _ahead(chunks: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
    """The same pieces, fetched a few ahead by a thread: inflating lets others work meanwhile."""
    with ThreadPoolExecutor(1, thread_name_prefix="m1pipe-inflate") as pool:
        coming = deque(pool.submit(next, chunks, None) for _ in range(_N_AHEAD))

        def pieces() -> Iterator[bytes]:
            while (piece := coming.popleft().result()) is not None:
                coming.append(pool.submit(next, chunks, None))
                yield piece

        try:
            yield pieces()
        finally:
            pool.shutdown(cancel_futures=True)


def _decompressed(raw: BufferedReader) -> BinaryIO:
    """The stream of text inside, by the file's first bytes and not by its name."""
    magic = raw.peek(4)[:4]
    if magic[:2] == b"\x1f\x8b":
        return cast(BinaryIO, GzipReader(fileobj=raw))
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
        except (OSError, zlib.error, FastZlibError, ValueError) as error:
            raise InputError(f"{path}: could not be read: {error}") from None
        kind = named_kind(chunk[:4096]) if first else ""
        if kind:
            raise InputError(f"{path}: expected delimited text; found {kind}")
        if first and (chunk.startswith(_HDF5_MAGIC) or b"\0" in chunk[:4096]):
            raise InputError(f"{path}: expected delimited text; found a binary file")
        if not chunk:
            return
        first = False
        tick()
        yield chunk


def _bounded(chunks: Iterator[bytes], path: Path) -> Iterator[bytes]:
    """The same pieces, as long as a line in them ends: a small file can hold a line without end."""
    most = parse_bytes(os.environ.get(LINE_OPTION, LONGEST_LINE))
    length = 0
    for chunk in chunks:
        end = chunk.rfind(b"\n")
        length = length + len(chunk) if end < 0 else len(chunk) - end - 1
        if length > most:
            raise InputError(
                f"{path}: expected lines of at most {most:,} bytes; found a longer one: if it is "
                f"right, set {LINE_OPTION}=2G in the environment"
            )
        yield chunk
