"""`m1pipe enrich`: gene sets enriched among log fold changes."""

from typing import Any, get_args

import click

from m1pipe.contrasts.config import Direction, EnrichConfig, Test
from m1pipe.settings import build, read_config_file

_DEFAULTS = EnrichConfig()


@click.command()
@click.argument("lfc", type=click.Path())
@click.option("--gene-sets", required=True, type=click.Path(), help="A GMT file.")
@click.option("--out", required=True, type=click.Path(), help="The h5ad file to write.")
@click.option(
    "--method",
    type=click.Choice(get_args(Test)),
    help=f"Over-representation, or by ranks (extra `gsea`).  [default: {_DEFAULTS.method}]",
)
@click.option(
    "--gene-alpha",
    type=float,
    help=f"A gene changed below this adjusted p-value.  [default: {_DEFAULTS.gene_alpha}]",
)
@click.option("--top", type=int, metavar="N", help="Instead, the N genes that changed most.")
@click.option(
    "--direction",
    type=click.Choice(get_args(Direction)),
    help=f"Changes that count.  [default: {_DEFAULTS.direction}]",
)
@click.option(
    "--alpha", type=float, help=f"A set is enriched below it.  [default: {_DEFAULTS.alpha}]"
)
@click.option(
    "--min-size", type=int, help=f"Measured genes of a set.  [default: {_DEFAULTS.min_size}]"
)
@click.option("--max-size", type=int, help=f"[default: {_DEFAULTS.max_size}]")
@click.option(
    "--min-prevalence",
    type=float,
    help=f"Share of contrasts a set is enriched in.  [default: {_DEFAULTS.min_prevalence}]",
)
@click.option("--max-prevalence", type=float, help=f"[default: {_DEFAULTS.max_prevalence}]")
@click.option("--permutations", type=int, help=f"Of prerank.  [default: {_DEFAULTS.permutations}]")
@click.option("--seed", type=int, help=f"Of prerank.  [default: {_DEFAULTS.seed}]")
@click.option("--n-jobs", type=int, help=f"Threads of prerank.  [default: {_DEFAULTS.n_jobs}]")
@click.option("--config", "config_file", metavar="FILE", help="These options as JSON or TOML.")
@click.option("--force", is_flag=True, help="Overwrite the file.")
def enrich(
    *, lfc: str, gene_sets: str, out: str, config_file: str | None, force: bool, **options: Any
) -> None:
    """Which gene sets are enriched in each contrast of LFC: a table of zeros and ones.

    Tests are corrected within a contrast (Benjamini-Hochberg). The background of a contrast is all
    genes measured in it. The result is what `m1pipe crossval --multilabel` predicts.

    Each set is tested by itself, as the file lists it. GOfuncR's tests know the ontology: they pass
    genes on to parent terms, and take a family-wise error from permutations; here a parent holds
    only what the file says, nested terms may be found for one reason, and the error is the false
    discovery rate.

    \b
    Example:
      m1pipe enrich lfc.h5ad --gene-sets go.gmt --out go.h5ad
      m1pipe enrich signatures.h5ad --gene-sets go.gmt --top 100 --out go.h5ad
    """  # noqa: D301 - click wants this character itself
    from m1pipe.contrasts.files import run_enrich

    layers = [read_config_file(config_file)] if config_file else []
    config = build(EnrichConfig, *layers, options, where=config_file or "enrich")
    click.echo(run_enrich(lfc, gene_sets, out, config, force=force))
