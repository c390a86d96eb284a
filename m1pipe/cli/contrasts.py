"""`m1pipe contrasts`: log fold changes of many studies."""

from typing import Any

import click

from m1pipe.cli.options import CONFIG, FORCE, OUT, configured, from_config, option, say
from m1pipe.contrasts.config import ContrastsConfig


@click.command()
@click.argument("counts", type=click.Path())
@OUT
@option(
    "--design",
    type=click.Path(),
    help="Table of the samples; without it the columns are looked for in COUNTS.",
)
@option(
    "--held-out",
    metavar="FILE",
    help="Split each study's samples into halves: --out has the contrasts of one, FILE the same "
    "contrasts of the other.",
)
@from_config(
    ContrastsConfig,
    "subject seed study condition control experiment covariates method min_samples min_count "
    "unexpressed n_jobs",
)
@CONFIG
@FORCE
def contrasts(
    *,
    counts: str,
    out: str,
    design: str | None,
    held_out: str | None,
    config_file: str | None,
    force: bool,
    **options: Any,
) -> None:
    """Log2 fold changes of each condition against its study's controls, from raw COUNTS.

    One contrast a study and condition, by limma-trend (extra `limma`) or DESeq2 (extra `deseq2`),
    with moderated statistics and adjusted p-values. What cannot be compared is skipped and named.

    Example:
      m1pipe contrasts counts.h5ad --design samples.tsv --out lfc.h5ad
      m1pipe contrasts counts.h5ad --condition gender --control female --out lfc.h5ad

    Gene sets enriched in fold changes are functions of these: to predict them, make them from other
    samples, as here.

      m1pipe contrasts counts.h5ad --unexpressed zero --out lfc.h5ad --held-out others.h5ad
      m1pipe enrich others.h5ad --gene-sets go.gmt --out go.h5ad
      m1pipe crossval --x lfc.h5ad --multilabel go.h5ad --group study --out cv
    """
    from m1pipe.contrasts.files import run_contrasts

    if held_out is None and options["subject"] is not None:
        raise click.UsageError("--subject needs --held-out: without it there are no halves.")
    config = configured(ContrastsConfig, config_file, options, "contrasts")
    say(run_contrasts(counts, design, out, config, held_out=held_out, force=force))
