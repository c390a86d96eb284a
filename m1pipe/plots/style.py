"""One look for every figure: colour-blind safe, legible in print, the same as SVG and as PNG.

Nothing here touches matplotlib's global state: figures are made without pyplot and drawn inside
`styled()`.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from m1pipe.atomic import atomic_file
from m1pipe.errors import InputError

# Okabe & Ito 2008, without black; in an order in which the first four stay apart for all.
PALETTE = ("#0072B2", "#D55E00", "#56B4E9", "#E69F00", "#CC79A7", "#009E73", "#F0E442")
INK = "#222222"
MUTED = "#767676"
FAINT = "#D9D9D9"
LEVELS = "viridis"  # colour map of what grows from one end
BALANCE = "RdBu_r"  # of what goes both ways from zero
FORMATS = ("svg", "png", "pdf")
MARKS = "os^DvP*X"

_SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.limits": (-4, 5),
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "m1pipe",
}


@contextmanager
def styled() -> Iterator[None]:
    """Settings of the style while the block runs; they also have to hold while saving."""
    with mpl.rc_context(_SETTINGS):
        yield


def panels(
    n_rows: int = 1, n_columns: int = 1, *, width: float = 7.2, height: float = 3.0
) -> "tuple[Figure, np.ndarray]":
    """Make a figure that lays itself out, with a grid of empty panels.

    Parameters
    ----------
    n_rows, n_columns : int
        Panels down and across.
    width, height : float
        Of the whole figure, in inches.

    Returns
    -------
    figure : Figure
    axes : numpy.ndarray of Axes, shape (n_rows, n_columns)
    """
    with styled():
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(n_rows, n_columns, squeeze=False)


def head(figure: Figure, *lines: str) -> Figure:
    """Write lines over all panels, at the left; empty ones are left out."""
    with styled():
        figure.suptitle("\n".join(filter(None, lines)), fontsize=10, x=0.01, ha="left")
    return figure


def spread(n: int, half: float) -> np.ndarray:
    """Fixed offsets, n of them from -half to half, that keep equal values apart; 0 for one."""
    return np.linspace(-half, half, n) if n > 1 else np.zeros(n)


def colours(names: Sequence[str]) -> dict[str, str]:
    """Colour of each name by its place; names beyond the palette are grey."""
    padded = [*PALETTE, *[MUTED] * len(names)]
    return dict(zip(names, padded, strict=False))


def looks(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and mark of each name by its place; marks change where the colours begin anew."""
    shades = (*PALETTE, INK)
    n = len(shades)
    return {name: (shades[i % n], MARKS[i // n % len(MARKS)]) for i, name in enumerate(names)}


def grid(ax: Axes, axis: str = "both") -> None:
    """Draw faint lines at the ticks of one axis ("x", "y") or of both."""
    ax.grid(True, axis=axis)  # type: ignore[arg-type]


def svg_bytes(figure: Figure) -> bytes:
    """SVG of a figure; the same figure always gives the same bytes."""
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Type": None})
    return buffer.getvalue()


def data_uri(figure: Figure) -> str:
    """Address that holds the figure itself, for the `src` of an HTML image."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg_bytes(figure)).decode("ascii")


def format_of(path: str | Path) -> str:
    """Format that the name ends in, one of `FORMATS`.

    Raises
    ------
    InputError
        If it is another one.
    """
    found = Path(path).suffix.lower().removeprefix(".")
    if found not in FORMATS:
        raise InputError(f"{path}: expected a name that ends in .svg, .png or .pdf")
    return found


def save(figure: Figure, path: str | Path, *, dpi: int = 200) -> None:
    """Write a figure, atomically, in the format that the name ends in: SVG, PNG or PDF.

    The same figure always gives the same bytes.

    Raises
    ------
    InputError
        If the name ends in something else.
    """
    kind = format_of(path)
    metadata = {"svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None}}
    with atomic_file(path) as temporary, styled():
        figure.savefig(temporary, format=kind, dpi=dpi, metadata=metadata.get(kind))
