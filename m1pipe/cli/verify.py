"""`m1pipe verify`: a result made again from its inputs, and compared."""

from pathlib import Path

import click

from m1pipe.cli.options import option, say
from m1pipe.errors import EXIT_INPUT


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@option("--fold", type=int, metavar="K", shown="all", help="Run only this fold again (from 0).")
@option("--repeat", type=int, metavar="R", help="Of this repeat (from 0).", shown="0")
@option(
    "--inputs",
    "search",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Look for inputs that were moved, by their SHA-256.",
)
@option(
    "--tolerance",
    type=click.FloatRange(min=0, max=1),
    metavar="T",
    shown="1e-6; 1e-4 with other libraries, processors or threads",
    help="Largest difference, as a share of the larger number.",
)
@click.pass_context
def verify(
    ctx: click.Context,
    folder: Path,
    *,
    fold: int | None,
    repeat: int | None,
    search: Path | None,
    tolerance: float | None,
) -> None:
    """Make the result in DIR again in a temporary folder, and compare its tables.

    DIR is of m1pipe train or m1pipe crossval. Inputs are found by the paths and digests in its
    provenance. The verdict is one line, with the first number that differs; exit code 0 where there
    is none, else 1. A fold alone takes its part of the time: the tables are then made again from
    the folds that are there.

    m1pipe verify runs/cv --fold 0
    m1pipe verify runs/vae1
    """
    from m1pipe.workflow.verify import verify as verify_folder

    if repeat is not None and fold is None:
        raise click.UsageError("--repeat names one repeat of one fold: give --fold as well")
    only = None if fold is None else (repeat or 0, fold)
    verified, line = verify_folder(folder, only=only, search=search, tolerance=tolerance)
    say(line)
    if not verified:
        ctx.exit(EXIT_INPUT)
