"""What `m1pipe plot` does: a figure of files or runs, written under a name that says its format."""

import os
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from m1pipe.atomic import refuse_existing
from m1pipe.plots import style

PathLike = str | os.PathLike[str]


def run_plot(draw: Callable[[], Figure], out: PathLike, *, force: bool = False) -> str:
    """Draw a figure and write it.

    Parameters
    ----------
    draw : callable
        Makes the figure; called once the name is known to be good.
    out : path
        Ends in .svg, .png or .pdf.
    force : bool
        Replace a file of that name.

    Returns
    -------
    str
        One line: the file and what it shows.

    Raises
    ------
    InputError
        If the name is taken or ends in something else, or the figure cannot be drawn.
    """
    out = Path(out)
    style.format_of(out)
    refuse_existing(out, force=force)
    figure = draw()
    style.save(figure, out)
    return f"{out}: {_heading(figure)}"


def _heading(figure: Figure) -> str:
    """Title of the figure, or of its one panel, on one line."""
    text = figure.get_suptitle() or figure.axes[0].get_title(loc="left")
    return "; ".join(text.splitlines())
