"""`m1pipe evaluate`: a fitted model on an outside labelled set."""

import click

from m1pipe.cli.options import ALIASES, MIN_COVERAGE, option, say
from m1pipe.console import log


@click.command()
@click.argument("model", type=click.Path())
@option("--x", required=True, type=click.Path(), help="Genes of the outside samples.")
@option("--y", type=click.Path(), help="Their levels, paired by sample id.")
@option("--label", shown="the model's own", help="Column of X's obs, instead of --y.")
@option(
    "--group",
    metavar="COL|REGEX",
    shown="donor, patient, ..., if there",
    help="Samples of one group are one unit of the tests; none for none.",
)
@option("--out", required=True, type=click.Path(), help="Folder to make.")
@MIN_COVERAGE
@ALIASES
@option("--force", is_flag=True, help="Overwrite an evaluation.")
def evaluate(
    *,
    model: str,
    x: str,
    y: str | None,
    label: str | None,
    group: str | None,
    out: str,
    min_coverage: float,
    aliases: str | None,
    force: bool,
) -> None:
    """Score MODEL, a folder made by m1pipe fit, on labelled samples that it has not seen.

    Beside it stand the training mean (or the class frequencies) and a linear model on the genes,
    both fitted to the samples that the model was fitted to.

    m1pipe evaluate runs/head --x other.h5ad --y levels.h5ad --out runs/outside
    m1pipe evaluate runs/tissue --x other.h5ad --label tissue --out runs/outside
    """
    from m1pipe.workflow.final_model import run_evaluate

    result, line = run_evaluate(
        model,
        x,
        out,
        y=y,
        label=label,
        group=group,
        min_coverage=min_coverage,
        aliases=aliases,
        force=force,
    )
    for alarm in result.alarms:
        log.warning("%s", alarm)
    say(line)
