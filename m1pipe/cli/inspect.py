"""`m1pipe inspect`: what a file holds, and what it shares with another."""

from pathlib import Path

import click

from m1pipe.cli.options import ALIASES, option, say
from m1pipe.io.inspect import inspect_matrix, overlap
from m1pipe.io.reader import open_matrix


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Compare genes, samples and units with another file.",
)
@ALIASES
def inspect(file: Path, against: Path | None, aliases: str | None) -> None:
    """Layout, shape, units, labels, zeros, missing values and sums of FILE.

    Does x have the genes that an encoder trained on u wants?
      m1pipe inspect x.h5ad --against u.h5ad
    """
    with open_matrix(file, aliases=aliases) as matrix:
        say(inspect_matrix(matrix))
        if against is None:
            return
        with open_matrix(against) as other:
            say(f"against {against}")
            say(overlap(matrix, other))
