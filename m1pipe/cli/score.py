"""`m1pipe score`: how probable a model finds samples."""

import click

from m1pipe.atomic import refuse_existing
from m1pipe.cli.options import ALIASES, MIN_COVERAGE


@click.command()
@click.argument("run", type=click.Path())
@click.argument("data", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="The h5ad file to write.")
@click.option(
    "--compare",
    metavar="RUN2,...",
    help="Other runs: say how probable each model finds DATA, on one scale.",
)
@MIN_COVERAGE
@ALIASES
@click.option("--force", is_flag=True, help="Overwrite the file.")
def score(
    *,
    run: str,
    data: str,
    out: str,
    compare: str | None,
    min_coverage: float,
    aliases: str | None,
    force: bool,
) -> None:
    """Write the log-likelihood of DATA's samples, and its percentile among training samples.

    A low percentile marks a sample unlike those of training. The bound is importance-weighted.
    --compare also prints held-out log-likelihoods of several models, whatever their likelihoods and
    transforms, on one scale: probabilities of counts, densities of other levels.

    \b
    m1pipe score runs/vae1 x.h5ad --out scores.h5ad
    """  # noqa: D301 - the backslash is click's mark for lines to be left as they are
    from m1pipe.encoder.apply import run_score

    table = ""
    if compare is not None:
        from m1pipe.synthesis.likelihood import compare_runs

        refuse_existing(out, force=force)
        table = "\n" + compare_runs([run, *compare.split(",")], data, aliases=aliases)
    line = run_score(run, data, out, min_coverage=min_coverage, aliases=aliases, force=force)
    click.echo(line + table)
