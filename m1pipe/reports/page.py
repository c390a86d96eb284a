"""How a page is made: numbers as text, and the templates, which hold the prose.

A number has no more digits than its interval supports, and one that could not be computed says so.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count as counter
from typing import Any, Literal

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from m1pipe.errors import counted
from m1pipe.plots import style

ABSENT = "not computed"
DASH = "\N{EN DASH}"
ALPHA = 0.05  # a difference is claimed where p after Holm is below it
WIDTH = 9.2  # of a figure, in inches
BESIDE = 5.3  # of one beside the answer
TAGS = {"better": "better", "worse": "worse", "open": "not shown", "failed": "failed"}
Kind = Literal["better", "worse", "open", "failed"]
Row = Mapping[Any, Any]  # one of a table, by the names of its columns


@dataclass(frozen=True)
class Verdict:
    """One comparison, or one score, in words.

    Attributes
    ----------
    kind : str
        "better", "worse", "open" (no difference is shown) or "failed" (not computed).
    text : str
        The sentence, with its numbers.
    row : mapping
        Those numbers by the names of the columns of `comparisons.csv`, for a comparison.
    word : str
        What the tag beside the sentence says, where it is not as usual.
    """

    kind: Kind
    text: str
    row: Mapping[Any, Any] = field(default_factory=dict, repr=False)
    word: str = ""

    @property
    def tag(self) -> str:
        """The word beside the sentence."""
        return self.word or TAGS[self.kind]


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
    return counted(int(n), noun, plural) if noun else f"{int(n):,}"


def listing(items: Iterable[object], joiner: str = "and") -> str:
    """Join words as a sentence does; whole numbers have their thousands separated.

    Examples
    --------
    >>> listing(["vae"]), listing(["vae", "ae"]), listing(["a", "b", "c"])
    ('vae', 'vae and ae', 'a, b and c')
    """
    words = [f"{item:,}" if isinstance(item, int) else str(item) for item in items]
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {joiner} {words[-1]}"


def pair_name(row: Row) -> str:
    """Name of a comparison: its two models."""
    return f"{row['model_a']} {DASH} {row['model_b']}"


def difference_cells(row: Row) -> list[str]:
    """Cells of a comparison: its name, the difference, its interval, and it relatively."""
    digits = decimals_for((row["ci_high"] - row["ci_low"]) / 2)
    return [
        pair_name(row),
        number(row["difference"], digits),
        interval(row["ci_low"], row["ci_high"], digits),
        percent(row["effect"], 1),
    ]


def tally(counts: Mapping[str, int] | None, most: int = 12) -> str:
    """List what was counted, the largest first; what was never found is left out.

    Examples
    --------
    >>> tally({"liver": 12, "lung": 30, "skin": 0}), tally({"a": 1, "b": 2, "c": 3}, most=1)
    ('lung (30), liver (12)', 'c (3), and 2 more')
    """
    ranked = sorted((counts or {}).items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{name} ({n:,})" for name, n in ranked if n]
    more = [f"and {len(shown) - most} more"] if len(shown) > most else []
    return ", ".join(shown[:most] + more)


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


def shown_path(file: Mapping[str, Any]) -> str:
    """Path of an input from the result's folder, where it is of the same tree; else absolute."""
    return str(file.get("relative") or file.get("path", ""))


def plain(value: object) -> str:
    """Write a recorded value: lists and tables on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {item}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return str(value)


def picture(
    draw: Callable[[np.ndarray], object],
    n_rows: int = 1,
    n_columns: int = 1,
    *,
    width: float = WIDTH,
    height: float,
) -> str:
    """Address of a figure whose panels, shape (n_rows, n_columns), `draw` fills."""
    figure, axes = style.panels(n_rows, n_columns, width=width, height=height)
    with style.styled():
        draw(axes)
    return style.data_uri(figure)


def keep_together(text: str) -> Markup:
    r"""Join by no-break spaces what a line must not break: `p < 0.001`, `95 % CI`, `12 %`.

    Text is escaped first, markup is taken as it is.

    >>> keep_together("p < 0.001, 95 % CI")
    Markup('p\xa0&lt;\xa00.001, 95\xa0%\xa0CI')
    """
    space, html = "\N{NO-BREAK SPACE}", str(escape(text))
    html = re.sub(r"\bp (=|&lt;|&gt;) (?=\d)", rf"p{space}\1{space}", html)
    html = re.sub(r"(&lt;|&gt;) (?=\d)", rf"\1{space}", html)
    html = re.sub(r"(?<=\d) %", f"{space}%", html)
    return Markup(html.replace("% CI", f"%{space}CI"))


def render(template: str, **content: Any) -> str:
    """Fill in a template of `m1pipe/reports/templates`.

    All that is filled in is escaped, and every name in a template has to be given.
    """
    environment = Environment(
        loader=PackageLoader("m1pipe.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        lstrip_blocks=True,
    )
    tables, figures = counter(1), counter(1)
    environment.globals.update(
        absent=ABSENT,
        dash=DASH,
        alpha=ALPHA,
        word_break=Markup("<wbr>"),
        interval=interval,
        next_table=lambda: next(tables),
        next_figure=lambda: next(figures),
    )
    environment.filters.update(
        tight=keep_together,
        capital=lambda text: text[:1].upper() + text[1:],
        count=count,
        listing=listing,
        number=number,
        p_cell=p_cell,
        p_value=p_value,
        percent=percent,
        plain=plain,
        shown_path=shown_path,
        size=size,
        tally=tally,
    )
    return environment.get_template(template).render(**content)
