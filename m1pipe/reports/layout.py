"""What a report page is made of: tables and figures with captions, and the page itself."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from m1pipe.reports.numbers import ABSENT


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of ready-made texts.

    Attributes
    ----------
    caption : str
        Says what is shown, without the number.
    head : sequence of str
        One a column; empty for a table without a head.
    rows : sequence of sequence of str
        Cells. "not computed" is shown as an error.
    note : str
        Below the table.
    groups : sequence of (str, int)
        Heads above the head, each with the number of columns it spans; empty for none.
    n_text : int
        Columns from the left that hold text; the others hold numbers, aligned to the right.
    strong : frozenset of int
        Rows set in bold.
    folded : bool
        Shown only when the reader opens it.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    groups: Sequence[tuple[str, int]] = ()
    n_text: int = 1
    strong: frozenset[int] = frozenset()
    folded: bool = False

    def __post_init__(self) -> None:
        width = len(self.head) or (len(self.rows[0]) if self.rows else 0)
        if any(len(row) != width for row in self.rows):
            raise ValueError(f"{self.caption}: every row needs {width} cells")
        if self.groups and sum(span for _, span in self.groups) != width:
            raise ValueError(f"{self.caption}: the upper heads do not span {width} columns")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure as it stands in the page.

    Attributes
    ----------
    caption : str
        Says what is shown and how to read it, without the number.
    alt : str
        What the figure shows, for whoever cannot see it.
    source : str
        Address that holds the image itself.
    """

    caption: str
    alt: str
    source: str


@dataclass(frozen=True)
class Section:
    """A part of the page under one heading.

    Attributes
    ----------
    name : str
        Anchor in the page.
    title : str
        Heading.
    texts : sequence of str
        Paragraphs before the tables and figures.
    parts : sequence of Table or Picture
        In order; the page numbers them.
    """

    name: str
    title: str
    texts: Sequence[str]
    parts: "Sequence[Table | Picture]"


def keep_together(text: str) -> str:
    r"""Join by no-break spaces what a line must not break: `p < 0.001`, `95 % CI`, `12 %`.

    >>> keep_together("p < 0.001, 95 % CI")
    'p\xa0<\xa00.001, 95\xa0%\xa0CI'
    """
    text = re.sub(r"\bp ([=<>]) (?=\d)", "p\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", text)
    text = re.sub(r"([<>]) (?=\d)", "\\1\N{NO-BREAK SPACE}", text)
    text = re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", text)
    return text.replace("% CI", "%\N{NO-BREAK SPACE}CI")


def render(template: str, **content: Any) -> str:
    """Fill in a template of `m1pipe/reports/templates`; every name in it has to be given."""
    environment = Environment(
        loader=PackageLoader("m1pipe.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(absent=ABSENT, word_break=Markup("<wbr>"))
    environment.filters["tight"] = keep_together
    return environment.get_template(template).render(**content)
