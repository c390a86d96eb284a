"""`m1pipe loadings`: what each latent unit says of the genes."""

import click

from m1pipe.cli.options import ALIASES, FORCE, MIN_COVERAGE, OUT, option, say


@click.command()
@click.argument("run", type=click.Path())
@OUT
@option(
    "--data",
    type=click.Path(),
    metavar="FILE",
    help="Correlate latents and genes over these samples, in place of asking the decoder.",
)
@MIN_COVERAGE
@ALIASES
@FORCE
def loadings(
    *,
    run: str,
    out: str,
    data: str | None,
    min_coverage: float,
    aliases: str | None,
    force: bool,
) -> None:
    """Write what each active latent unit of RUN says of every gene: units x genes.

    By the decoder: what the expected level of a gene gains over a standard deviation of the unit,
    at the mean sample. With --data: Pearson correlations. `m1pipe enrich` takes the result.

    m1pipe loadings runs/vae1 --out loadings.h5ad
    m1pipe enrich loadings.h5ad --gene-sets go.gmt --top 100 --out go.h5ad
    """
    from m1pipe.encoder.loadings import run_loadings

    line = run_loadings(
        run, out, data=data, min_coverage=min_coverage, aliases=aliases, force=force
    )
    say(line)
