"""Numbers of whole lines, read by compiled code that lets other threads work meanwhile.

Importing this needs numba (the extra `fast`). Digits are gathered as a whole number, which is
divided by a power of ten that float64 holds. Below 2**53 the quotient is the float64 that is
nearest to the text (Clinger 1990, "How to read floating point numbers accurately", the exact case);
above, it may be one unit in the last place off, and where that could change the float32 the token
is left to the caller, with all that is not a plain number.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

numba: Any = importlib.import_module("numba")

RAGGED, TOO_ODD = -1, -2
_POWERS = 10.0 ** np.arange(23)
_TEN, _ZERO, _NINE = (np.uint64(c) for c in (10, ord("0"), 9))
_MINUS, _PLUS, _POINT, _LINE, _UPPER, _LOWER = (np.uint8(ord(c)) for c in "-+.\nEe")
_EXACT = np.uint64(2**53)
_MOST_DIGITS, _LEAST_PLACES, _MOST_PLACES = 19, -19, 22  # within 64 bits and float32
_SLACK = 2.0**-51


def _compiled(signature: str) -> Callable[..., Any]:
    """Compiled on import, and kept beside the module where that can be written."""
    options = {"nogil": True, "error_model": "numpy"}
    compiler: Callable[..., Any]
    try:
        compiler = numba.njit(signature, cache=True, **options)
    except RuntimeError:  # there is no folder to keep it in
        compiler = numba.njit(signature, **options)
    return compiler


@numba.njit(inline="always", error_model="numpy")
def _mantissa(text: np.ndarray, at: int) -> tuple[int, np.uint64, int, int]:
    """Digits with at most one point: their end, the whole number, its length, places behind."""
    first, point, whole = at, -1, np.uint64(0)
    while True:
        digit = np.uint64(text[at]) - _ZERO
        if digit <= _NINE:
            whole = whole * _TEN + digit
        elif text[at] == _POINT and point < 0:
            point = at
        else:
            break
        at += 1
    if point < 0:
        return at, whole, at - first, 0
    return at, whole, at - first - 1, at - point - 1


@_compiled("Tuple((int64, int64, boolean))(Array(uint8, 1, 'C', readonly=True), int64)")
def _exponent(text: np.ndarray, at: int) -> tuple[int, int, bool]:
    """An exponent: its end, its value, and whether it lacks its digits."""
    down = text[at] == _MINUS
    at += down or text[at] == _PLUS
    exponent, first = 0, at
    while np.uint64(text[at]) - _ZERO <= _NINE and at < first + 4:
        exponent = exponent * 10 + text[at] - 48
        at += 1
    return at, -exponent if down else exponent, at == first


@_compiled(
    "int64(Array(uint8, 1, 'C', readonly=True), uint8, boolean[::1], int64[:, :, ::1],"
    " float32[:, ::1], int64[:, ::1])"
)
def scan(
    text: np.ndarray,
    delimiter: int,
    is_text: np.ndarray,
    spans: np.ndarray,
    values: np.ndarray,
    odd: np.ndarray,
) -> int:
    """Read whole lines of fields of text and of numbers.

    Parameters
    ----------
    text : ndarray of uint8, shape (n_bytes,)
        Lines that end in a newline each, one or more behind the last.
    delimiter : uint8
    is_text : ndarray of bool, shape (n_fields,)
        Which fields of a line are text.
    spans : ndarray of int64, shape (n_texts, n_rows, 2)
        Becomes where each field of text begins and ends.
    values : ndarray of float32, shape (n_rows, n_fields - n_texts)
        Becomes the numbers, each nearest to the float64 that is nearest to its text.
    odd : ndarray of int64, shape (n_most, 3)
        Becomes number among the values, start and end of each token that is no plain number.

    Returns
    -------
    int
        How many are odd; `RAGGED` where a line has another number of fields, `TOO_ODD` where `odd`
        is too short.
    """
    n_rows, n_columns = values.shape
    at, n_odd = 0, 0
    for row in range(n_rows):
        column, label = 0, 0
        for field in range(len(is_text)):
            start = at
            if is_text[field]:
                while text[at] != delimiter and text[at] != _LINE:
                    at += 1
                spans[label, row, 0], spans[label, row, 1] = start, at
                label += 1
            else:
                minus = text[at] == _MINUS
                at, whole, n_digits, places = _mantissa(text, at + minus)
                strange = n_digits < 1 or n_digits > _MOST_DIGITS
                if text[at] == _UPPER or text[at] == _LOWER:
                    at, exponent, bare = _exponent(text, at + 1)
                    places -= exponent
                    strange |= bare or places < _LEAST_PLACES or places > _MOST_PLACES
                if not strange:
                    value = np.float64(whole)
                    value = value / _POWERS[places] if places >= 0 else value * _POWERS[-places]
                    if whole >= _EXACT:
                        near = np.float32(value * (1 - _SLACK)), np.float32(value * (1 + _SLACK))
                        strange = near[0] != near[1]
                    values[row, column] = -value if minus else value
                if strange or (text[at] != delimiter and text[at] != _LINE):
                    while text[at] != delimiter and text[at] != _LINE:
                        at += 1
                    if n_odd == len(odd):
                        return TOO_ODD
                    odd[n_odd] = row * n_columns + column, start, at
                    n_odd += 1
                column += 1
            if (text[at] == _LINE) != (field == len(is_text) - 1):
                return RAGGED
            at += 1
    return n_odd
