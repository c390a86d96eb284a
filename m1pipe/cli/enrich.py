"""`m1pipe enrich`: gene sets enriched among log fold changes."""

from typing import Any

import click

from m1pipe.cli.options import CONFIG, FORCE, OUT, configured, from_config, option, say
from m1pipe.contrasts.config import EnrichConfig


@click.command()
@click.argument("lfc", type=click.Path())
@option("--gene-sets", required=True, type=click.Path(), help="A GMT file.")
@OUT
@from_config(
    EnrichConfig,
    "method gene_alpha top direction alpha min_size max_size min_prevalence max_prevalence "
    "permutations seed n_jobs",
)
@CONFIG
@FORCE
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

    Example:
      m1pipe enrich lfc.h5ad --gene-sets go.gmt --out go.h5ad
      m1pipe enrich signatures.h5ad --gene-sets go.gmt --top 100 --out go.h5ad
    """
    from m1pipe.contrasts.files import run_enrich

    config = configured(EnrichConfig, config_file, options, "enrich")
    say(run_enrich(lfc, gene_sets, out, config, force=force))
