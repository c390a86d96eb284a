"""`m1pipe contrasts`: log fold changes of many studies."""

from typing import Any, get_args

import click

from m1pipe.contrasts.config import ContrastsConfig, Method, Unexpressed
from m1pipe.settings import build, read_config_file

_DEFAULTS = ContrastsConfig()


@click.command()
@click.argument("counts", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="The h5ad file to write.")
@click.option(
    "--design",
    type=click.Path(),
    help="Table of the samples; without it the columns are looked for in COUNTS.",
)
@click.option(
    "--held-out",
    metavar="FILE",
    help="Split each study's samples into halves: --out has the contrasts of one, FILE the same "
    "contrasts of the other.",
)
@click.option("--subject", metavar="COL", help="Whose samples stay in one half.")
@click.option("--seed", type=int, help=f"Of the halves.  [default: {_DEFAULTS.seed}]")
@click.option("--study", metavar="COL", help=f"[default: {_DEFAULTS.study}]")
@click.option("--condition", metavar="COL", help=f"[default: {_DEFAULTS.condition}]")
@click.option(
    "--control",
    metavar="VALUE[,VALUE]",
    help=f"What other conditions are compared with.  [default: {_DEFAULTS.control}]",
)
@click.option("--experiment", metavar="COL", help="Runs of one experiment are summed first.")
@click.option("--covariates", metavar="COL[,COL]", help="Their effect in a study is taken out.")
@click.option(
    "--method", type=click.Choice(get_args(Method)), help=f"[default: {_DEFAULTS.method}]"
)
@click.option(
    "--min-samples",
    type=int,
    help=f"On each side of a contrast.  [default: {_DEFAULTS.min_samples}]",
)
@click.option(
    "--min-count",
    type=float,
    help=f"Counts of a gene worth testing.  [default: {_DEFAULTS.min_count:g}]",
)
@click.option(
    "--unexpressed",
    type=click.Choice(get_args(Unexpressed)),
    help=f"What stands for the other genes.  [default: {_DEFAULTS.unexpressed}]",
)
@click.option("--n-jobs", type=int, help=f"Processes.  [default: {_DEFAULTS.n_jobs}]")
@click.option("--config", "config_file", metavar="FILE", help="These options as JSON or TOML.")
@click.option("--force", is_flag=True, help="Overwrite the file.")
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

    \b
    Example:
      m1pipe contrasts counts.h5ad --design samples.tsv --out lfc.h5ad
      m1pipe contrasts counts.h5ad --condition gender --control female --out lfc.h5ad

    Gene sets enriched in fold changes are functions of these: to predict them, make them from other
    samples, as here.

    \b
      m1pipe contrasts counts.h5ad --unexpressed zero --out lfc.h5ad --held-out others.h5ad
      m1pipe enrich others.h5ad --gene-sets go.gmt --out go.h5ad
      m1pipe crossval --x lfc.h5ad --multilabel go.h5ad --group study --out cv
    """  # noqa: D301 - click wants this character itself
    from m1pipe.contrasts.files import run_contrasts

    if held_out is None and options["subject"] is not None:
        raise click.UsageError("--subject needs --held-out: without it there are no halves.")
    if options["covariates"] is not None:
        options["covariates"] = tuple(options["covariates"].split(","))
    layers = [read_config_file(config_file)] if config_file else []
    config = build(ContrastsConfig, *layers, options, where=config_file or "contrasts")
    click.echo(run_contrasts(counts, design, out, config, held_out=held_out, force=force))
