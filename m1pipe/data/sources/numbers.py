"""Decimal numbers out of text, thousands at a time: eight characters to a 64-bit word.

A token of up to sixteen characters is loaded as one or two words, its decimal point taken out by
shifts, and its digits added up pairwise within the word. The digits make a whole number below 2**53
and the places behind the point a power of ten that float64 holds, so that one division gives the
float64 that is nearest to the text (Clinger 1990, "How to read floating point numbers accurately",
the exact case). Tokens of another kind are left to the caller.
"""

import re
from dataclasses import dataclass

import numpy as np

# What must be readable before the first token, since words are loaded by their last character.
PADDING = 16
MISSING = frozenset(
    {"", "NA", "NaN", "nan", "NAN", "N/A", "n/a", "na", "NULL", "null", "#N/A", "<NA>", "#NA"}
)
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_STEP = 2**14
_U = np.uint64
_ZEROS = _U(0x3030303030303030)
_DOTS = _U(0x1E1E1E1E1E1E1E1E)  # "." once "0" is taken off every byte
_ONES = _U(0x0101010101010101)
_HIGH = _U(0x8080808080808080)
_ABOVE_NINE = _U(0x7676767676767676)
_LAST = np.array([0, *(2**64 - 2 ** (64 - 8 * n) for n in range(1, 9))], dtype=np.uint64)
_PLACES = _U(0x0706050403020100)
_POWERS = 10.0 ** np.arange(17)


def parse_decimals(
    text: np.ndarray, starts: np.ndarray, ends: np.ndarray, *, signed: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers without exponent from positions of a text.

    Parameters
    ----------
    text : ndarray of uint8
        With at least `PADDING` bytes before the first token.
    starts, ends : ndarray of int64, shape (n,)
        First character of each token, and the one behind its last.
    signed : bool
        There may be a minus before a number.

    Returns
    -------
    values : ndarray of float32, shape (n,)
        The nearest to the nearest float64; anything where `odd`.
    odd : ndarray of int64
        Tokens that are not digits with at most one point among them and a minus before, or are
        longer than sixteen characters: to be read in another way.
    """
    words = np.ndarray((max(len(text) - 7, 0),), dtype="<u8", buffer=text, strides=(1,))
    values = np.empty(len(starts), dtype=np.float32)
    odd = []
    for first in range(0, len(starts), _STEP):
        part = slice(first, first + _STEP)
        values[part], strange = _parse(text, words, starts[part], ends[part], signed=signed)
        odd.append(np.flatnonzero(strange) + first)
    return values, np.concatenate(odd) if odd else np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Notation:
    """How numbers are written.

    Attributes
    ----------
    decimal : str
        Stands before the fraction.
    thousands : str
        Parts thousands; empty where nothing does.
    """

    decimal: str = "."
    thousands: str = ""

    def number(self, field: str) -> float | None:
        """A finite float32, NaN for a missing one, None for anything else."""
        if self.thousands:
            whole = field.strip().split(self.decimal)[0]
            if self.thousands in whole and not re.fullmatch(
                rf"[+-]?\d{{1,3}}({re.escape(self.thousands)}\d{{3}})+", whole
            ):
                return None
            field = field.replace(self.thousands, "")
        if self.decimal != ".":
            if "." in field:
                return None
            field = field.replace(self.decimal, ".")
        return one_number(field)

    def fault(self, field: str, delimiter: str) -> str:
        """What is likely the matter with text that is no number; empty where nobody knows."""
        field = field.strip()
        if self.decimal == "," and "." in field:
            return "a point, where commas are decimal: --thousands . where it parts thousands"
        groups = re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", field)
        if groups and delimiter != ";":
            return "thousands: --thousands , reads them (--decimal , where the comma is decimal)"
        if re.fullmatch(r"[+-]?\d*,\d+([eE][+-]?\d+)?", field):
            return "decimal commas: --decimal , reads them"
        if re.fullmatch(r"[+-]?\d{1,3}([.,' \u00a0\u202f]\d{3})+([.,]\d+)?", field):
            mark = next(c for c in field if not c.isdigit() and c not in "+-")
            return f"thousands: --thousands '{mark}' reads them (and --decimal , where it is one)"
        return ""


PLAIN = Notation()


def one_number(field: str) -> float | None:
    """A finite float32 from any notation, NaN for a missing one, None for anything else."""
    field = field.strip()
    if field in MISSING:
        return float("nan")
    try:
        value = float(field)
    except ValueError:
        return None
    if "_" in field or not abs(value) <= _FLOAT32_MAX:
        return None
    return value


def _parse(
    text: np.ndarray, words: np.ndarray, starts: np.ndarray, ends: np.ndarray, *, signed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Values of some tokens, and which of them are odd."""
    lengths = ends - starts
    minus = None
    if signed:
        minus = text[starts] == ord("-")
        lengths -= minus
    mantissa, places, strange = _short(words[ends - 8], lengths)
    long = np.flatnonzero(lengths > 8)
    if len(long):
        mantissa[long], places[long], strange[long] = _long(
            words[ends[long] - 16], words[ends[long] - 8], lengths[long]
        )
    values = mantissa.astype(np.float64)
    values /= _POWERS.take(places.view(np.int64))
    if minus is not None:
        np.negative(values, out=values, where=minus)
    with np.errstate(over="ignore"):
        return values.astype(np.float32), strange


def _short(word: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Digits as a number, places behind the point and whether odd, for up to eight characters."""
    word = _cut(word, lengths)
    digits, places, has_point = _without_point(word)
    n_others = lengths - has_point
    n_others -= 1
    strange = _no_digits(digits)
    strange |= n_others.view(np.uint64) > 7  # none at all is a large number here
    return _whole(digits), places, strange


def _long(
    first: np.ndarray, last: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same for nine to sixteen characters, in two words."""
    first = _cut(first, lengths - 8)
    last = last ^ _ZEROS
    tail, places, in_last = _without_point(last)
    tail |= np.where(in_last, first >> _U(56), _U(0))
    head, more, in_first = _without_point(first)
    head = np.where(in_last, first << _U(8), head)
    strange = (lengths > 16) | _no_digits(head) | _no_digits(tail)
    places = np.where(in_first & ~in_last, more + _U(8), places)
    return _whole(head) * _U(10**8) + _whole(tail), places, strange


def _cut(word: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Values of the last characters of a word as digits; 0 before them."""
    word = word ^ _ZEROS
    word &= _LAST.take(lengths, mode="clip")
    return word


def _without_point(word: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A word without its first point, the digits behind it, and whether there was one."""
    found = word ^ _DOTS
    lowest = ~found
    found -= _ONES
    lowest &= found
    lowest &= _HIGH
    lowest &= ~lowest + _U(1)  # the lowest bit alone: the first point
    lowest >>= _U(7)
    has_point = lowest != 0
    places = lowest * _PLACES
    places >>= _U(56)
    before = lowest - _U(1)  # all bits where there is no point
    out = word & before
    out <<= has_point.astype(np.uint64) << _U(3)
    before <<= _U(8)
    before |= _U(0xFF)
    out |= word & ~before
    return out, places, has_point


def _no_digits(word: np.ndarray) -> np.ndarray:
    """Whether any byte is above nine."""
    high = word + _ABOVE_NINE
    high |= word
    high &= _HIGH
    return np.asarray(high != 0)


def _whole(digits: np.ndarray) -> np.ndarray:
    """Number that eight digits make, the first in the lowest byte."""
    out = digits * _U(2561)
    out >>= _U(8)
    out &= _U(0x00FF00FF00FF00FF)
    out *= _U(6553601)
    out >>= _U(16)
    out &= _U(0x0000FFFF0000FFFF)
    out *= _U(42949672960001)
    out >>= _U(32)
    return out
