"""How numbers are written in a report: no more digits than the interval supports, never a blank."""

import math

ABSENT = "not computed"


def number(value: float | None, decimals: int | None = None) -> str:
    """Write a value with fixed decimals, or with four significant digits where none are given.

    Parameters
    ----------
    value : float or None
        NaN, infinity and None are written as "not computed".
    decimals : int, optional
        Digits after the point.

    Examples
    --------
    >>> number(0.12345), number(12345.6), number(2.0, 1), number(float("nan"))
    ('0.1235', '12,346', '2.0', 'not computed')
    """
    if value is None or not math.isfinite(value):
        return ABSENT
    if decimals is None:
        return _four_digits(value)
    text = f"{value:,.{decimals}f}"
    return text.removeprefix("-") if not any(c in "123456789" for c in text) else text


def _four_digits(value: float) -> str:
    """Four significant digits; powers of ten only where the plain number would be long."""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}" if size < 1e7 else f"{value:.3e}"
    return f"{value:.4g}" if size >= 1e-4 or size == 0 else f"{value:.1e}"


def decimals_for(*spreads: float | None, significant: int = 2, most: int = 6) -> int:
    """Decimals that show so many significant digits of the smallest usable spread.

    Examples
    --------
    >>> decimals_for(0.0412), decimals_for(12.0, 3.1), decimals_for(float("nan"))
    (3, 1, 3)
    """
    usable = [abs(s) for s in spreads if s is not None and math.isfinite(s) and s != 0]
    if not usable:
        return 3
    return min(most, max(0, significant - 1 - math.floor(math.log10(min(usable)))))


def p_value(p: float | None) -> str:
    """Write a p value with its relation, ready to follow "p".

    Examples
    --------
    >>> p_value(0.0004), p_value(0.0032), p_value(0.213), p_value(0.9999), p_value(None)
    ('< 0.001', '= 0.003', '= 0.21', '> 0.99', 'not computed')
    """
    if p is None or not math.isfinite(p):
        return ABSENT
    if p < 0.001:
        return "< 0.001"
    if p > 0.99:
        return "> 0.99"
    return f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def p_cell(p: float | None) -> str:
    """Write a p value for a table: without the equals sign."""
    return p_value(p).removeprefix("= ")


def interval(low: float | None, high: float | None, decimals: int) -> str:
    """Write the two ends of an interval with the same decimals.

    Examples
    --------
    >>> interval(0.0812, 0.1623, 3)
    '0.081 to 0.162'
    """
    return f"{number(low, decimals)} to {number(high, decimals)}"


def percent(share: float | None, decimals: int = 0) -> str:
    """Write a share as per cent.

    Examples
    --------
    >>> percent(0.1234), percent(0.0042, 1)
    ('12 %', '0.4 %')
    """
    return ABSENT if share is None or not math.isfinite(share) else f"{share * 100:.{decimals}f} %"


def count(n: int | float | None, noun: str = "", plural: str | None = None) -> str:
    """Write a count with thousands separated and its noun in the right number.

    Examples
    --------
    >>> count(17356, "sample"), count(1, "fold"), count(2, "class", "classes"), count(12)
    ('17,356 samples', '1 fold', '2 classes', '12')
    """
    if n is None:
        return ABSENT
    word = noun if n == 1 or not noun else plural or f"{noun}s"
    return f"{int(n):,} {word}".strip()


def listing(items: list[str], joiner: str = "and") -> str:
    """Join words as a sentence does.

    Examples
    --------
    >>> listing(["vae"]), listing(["vae", "ae"]), listing(["a", "b", "c"])
    ('vae', 'vae and ae', 'a, b and c')
    """
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {joiner} {items[-1]}"


def size(n_bytes: float | None) -> str:
    """Write a number of bytes in the unit that suits it.

    Examples
    --------
    >>> size(512), size(3_500_000)
    ('512 bytes', '3.5 MB')
    """
    if n_bytes is None:
        return ABSENT
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n_bytes >= limit:
            return f"{n_bytes / limit:.1f} {unit}"
    return f"{n_bytes:.0f} bytes"
