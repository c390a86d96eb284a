"""`m1pipe loadings`: what each latent unit says of the genes."""

import click

from m1pipe.cli.options import ALIASES, MIN_COVERAGE


@click.command()
@click.argument("run", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="The h5ad file to write.")
@click.option(
    "--data",
    type=click.Path(),
    metavar="FILE",
    help="Correlate latents and genes over these samples, in place of asking the decoder.",
)
@MIN_COVERAGE
@ALIASES
@click.option("--force", is_flag=True, help="Overwrite the file.")
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

    \b
    m1pipe loadings runs/vae1 --out loadings.h5ad
    m1pipe enrich loadings.h5ad --gene-sets go.gmt --top 100 --out go.h5ad
    """  # noqa: D301 - the backslash is click's mark for lines to be left as they are
    from m1pipe.encoder.loadings import run_loadings

    line = run_loadings(
        run, out, data=data, min_coverage=min_coverage, aliases=aliases, force=force
    )
    click.echo(line)
