"""`m1pipe score`: how probable a model finds samples."""

import click

from m1pipe.atomic import refuse_existing
from m1pipe.cli.options import option, say, through_model


@click.command()
@through_model
@option(
    "--compare",
    metavar="RUN2,...",
    help="Other runs: say how probable each model finds DATA, on one scale.",
)
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

    m1pipe score runs/vae1 x.h5ad --out scores.h5ad
    """
    from m1pipe.encoder.reconstruct import run_score

    table = ""
    if compare is not None:
        from m1pipe.synthesis.likelihood import compare_runs

        refuse_existing(out, force=force)
        table = "\n" + compare_runs([run, *compare.split(",")], data, aliases=aliases)
    line = run_score(run, data, out, min_coverage=min_coverage, aliases=aliases, force=force)
    say(line + table)
