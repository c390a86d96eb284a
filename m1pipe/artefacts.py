"""Files that m1pipe wrote, read back, and the arrays of models in them.

A damaged file is refused in one line that names the way out. Arrays are held and stored in C order,
one row after another: how an operand lies in memory decides which kernel multiplies it, and so the
last bits of the product, so that a loaded model computes what the saved one did.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from m1pipe.errors import InputError

MOST_BYTES = 2**30
AGAIN = "make it again"
SEAL = "digest"
DAMAGE = (
    *(ArithmeticError, AttributeError, AssertionError, EOFError, LookupError, OSError),
    *(RuntimeError, SafetensorError, TypeError, ValueError, zlib.error, zipfile.BadZipFile),
)


@contextmanager
def reading(path: str | os.PathLike[str], what: str, *, remedy: str = AGAIN) -> Iterator[None]:
    """Turn whatever a damaged file leads to into one line.

    Parameters
    ----------
    path : path
    what : str
        What was expected, such as "a share of a cross-validation".
    remedy : str
        What to do about it.

    Raises
    ------
    InputError
        That names the file, and the reason.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: expected {what}; found no such file: {remedy}") from None
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200]
        if isinstance(error, KeyError):
            reason = f"no {reason} in it"
        raise InputError(
            f"{path}: expected {what}; {reason or type(error).__name__}: {remedy}"
        ) from None


def read_json(path: str | os.PathLike[str], what: str, *, remedy: str = AGAIN) -> dict[str, Any]:
    """Object in a JSON file.

    Raises
    ------
    InputError
        If the file is missing or damaged, too large, nested too deep, holds no object, or another
        one than the digest in it is of.
    """
    with reading(path, what, remedy=remedy):
        size = os.stat(path).st_size
        if size > MOST_BYTES:
            raise ValueError(f"{size:,} bytes are more than m1pipe writes")
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"a {type(value).__name__} in the place of an object")
        if value.pop(SEAL, None) not in (None, _digest(value)):
            raise ValueError("it is not as it was written")
    return value


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a record with its digest, by which `read_json` knows it as it was written."""
    plain = json.loads(json.dumps(value))
    return {**plain, SEAL: _digest(plain)}


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_table(
    path: str | os.PathLike[str],
    what: str,
    columns: Sequence[str] = (),
    *,
    remedy: str = AGAIN,
    dtype: Any = None,
) -> pd.DataFrame:
    """Table in a CSV file, numbers bit for bit; "NaN" alone is missing.

    Parameters
    ----------
    path : path
    what : str
    columns : sequence of str
        That must be in it.
    remedy : str
    dtype : optional
        As pandas takes it.

    Raises
    ------
    InputError
        If the file is missing or damaged, or lacks a column.
    """
    with reading(path, what, remedy=remedy):
        table = pd.read_csv(
            path,
            dtype=dtype,
            keep_default_na=False,
            na_values=[] if dtype is str else ["NaN"],
            float_precision="round_trip",
            compression=None,
        )
        lacking = [name for name in columns if name not in table]
        if lacking:
            raise ValueError(f"no column {lacking[0]!r} in it")
    return table


def read_arrays(
    path: str | os.PathLike[str],
    what: str,
    *,
    remedy: str = AGAIN,
    finite: bool = True,
    free: Collection[str] = (),
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays of a safetensors file, and its texts.

    Parameters
    ----------
    path : path
    what, remedy : str
    finite : bool
        Refuse NaN and infinity: a model with such weights predicts nothing.
    free : collection of str
        Arrays that may hold them all the same, as a scale that shuts a feature off is infinite.

    Raises
    ------
    InputError
        If the file is missing or damaged, or a number is not finite.
    """
    with reading(path, what, remedy=remedy):
        with safe_open(path, "np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}
            texts = dict(file.metadata() or {})
        if finite:
            _refuse_not_finite(arrays, free)
    return arrays, texts


def _refuse_not_finite(arrays: Mapping[str, np.ndarray], free: Collection[str]) -> None:
    for name, array in arrays.items():
        if name not in free and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name} holds numbers that are not finite")


def hold_in_rows(model: Any) -> None:
    """Put every array that a dataclass holds in C order; called when the dataclass is made."""
    for name, value in vars(model).items():
        if isinstance(value, np.ndarray):
            object.__setattr__(model, name, np.asarray(value, order="C"))  # also where frozen


def pack_arrays(
    arrays: Mapping[str, np.ndarray],
    *,
    metadata: dict[str, str] | None = None,
    finite: bool = True,
    free: Collection[str] = (),
) -> bytes:
    """Arrays as safetensors holds them, each in C order.

    Parameters
    ----------
    arrays : mapping of str to ndarray
    metadata : dict of str to str, optional
        Text beside them.
    finite, free
        As `read_arrays` takes them: what it would refuse is not written.

    Raises
    ------
    InputError
        If a number is not finite.
    """
    if finite:
        try:
            _refuse_not_finite(arrays, free)
        except ValueError as error:
            raise InputError(
                f"model: {error}: it is not written; look for levels that are too large, or that "
                "do not vary"
            ) from None
    in_rows = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    packed: bytes = save(in_rows, metadata=metadata)
    return packed
