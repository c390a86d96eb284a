"""Checks of settings: what was expected, what was found."""

from typing import Any, get_args

from m1pipe.errors import InputError


def check_choice(name: str, value: str, kind: Any) -> None:
    """Refuse a value that is not among those of a Literal.

    Raises
    ------
    InputError
    """
    if value not in get_args(kind):
        known = ", ".join(get_args(kind))
        raise InputError(f"{name}: expected one of {known}; found {value!r}")


def check_range(
    name: str, value: float, low: float, high: float = float("inf"), *, open_low: bool = False
) -> None:
    """Refuse a number outside [low, high], or (low, high].

    Raises
    ------
    InputError
    """
    if not (low < value if open_low else low <= value) or not value <= high:
        bracket = "(" if open_low else "["
        raise InputError(f"{name}: expected a number in {bracket}{low}, {high}]; found {value!r}")


def check_widths(name: str, widths: tuple[int, ...] | None) -> None:
    """Refuse layers without units.

    Raises
    ------
    InputError
    """
    if widths is not None and any(w < 1 for w in widths):
        raise InputError(f"{name}: expected layer widths of at least 1; found {widths!r}")
