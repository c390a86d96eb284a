"""`m1pipe fit`: fit the final head on an encoder."""

from typing import Any, get_args

import click

from m1pipe import settings
from m1pipe.cli.options import ALIASES, WIDTHS, is_own_gene
from m1pipe.config import FitConfig, HeadConfig, Sampler


@click.command()
@click.option("--x", required=True, type=click.Path(), help="Genes of the labelled samples.")
@click.option("--y", type=click.Path(), help="Levels to predict, paired by sample id.")
@click.option("--label", help="Column of X's obs to predict, instead of --y.")
@click.option("--encoder", type=click.Path(), help="RUN whose latents are the features.")
@click.option("--out", required=True, type=click.Path(), help="Folder of the model.")
@click.option("--targets", help="Columns of Y to predict, separated by commas.")
@click.option("--stratify", metavar="COL", help="Column kept in proportion by the inner split.")
@click.option(
    "--group",
    metavar="COL|REGEX",
    show_default="donor, patient, ..., if there",
    help="Groups that stay on one side of the inner split; none for none.",
)
@click.option(
    "--head-hidden",
    "hidden",
    type=WIDTHS,
    show_default=str(HeadConfig.hidden[0]),
    help="Widths of the hidden layers, or none.",
)
@click.option(
    "--head-epochs",
    "epochs",
    type=int,
    show_default=str(HeadConfig.epochs),
    help="Most passes over the rows.",
)
@click.option("--head-lr", "lr", type=float, show_default=str(HeadConfig.lr), help="Learning rate.")
@click.option(
    "--head",
    "own_gene",
    type=click.Choice(["plain", "own_gene"]),
    callback=is_own_gene,
    show_default="plain",
    help="With own_gene a multiple of each isoform's own gene stands beside the network.",
)
@click.option(
    "--conformal",
    type=float,
    metavar="SHARE",
    show_default=str(FitConfig.conformal),
    help="Share of the samples set aside for prediction intervals.",
)
@click.option(
    "--augment",
    metavar="balance|RATIO",
    help="Add synthetic samples: classes filled up to the largest, or to RATIO times their size.",
)
@click.option(
    "--augment-sampler",
    type=click.Choice(get_args(Sampler)),
    show_default=FitConfig.augment_sampler,
    help="Where their latents come from, as of generate.",
)
@click.option("--class-weight", type=click.Choice(["balanced"]), help="Weight classes inversely.")
@click.option(
    "--min-coverage",
    type=float,
    show_default=str(FitConfig.min_coverage),
    help="Smallest share of the encoder's genes that must be found.",
)
@ALIASES
@click.option("--seed", type=int, show_default=str(FitConfig.seed), help="Of everything drawn.")
@click.option("--config", "file", type=click.Path(), help="JSON or TOML with these settings.")
@click.option("--force", is_flag=True, help="Overwrite a model.")
def fit(
    *,
    x: str,
    y: str | None,
    encoder: str | None,
    out: str,
    targets: str | None,
    aliases: str | None,
    file: str | None,
    force: bool,
    **typed: Any,
) -> None:
    """Fit a feed-forward head on all labelled samples and keep it in a folder that stands alone.

    Without --encoder the features are the genes themselves.

    \b
    m1pipe fit --x x.h5ad --y y.h5ad --encoder runs/vae1 --out runs/head
    m1pipe fit --x x.h5ad --label tissue --encoder runs/vae1 --out runs/tissue
    """  # noqa: D301 - the backslash is click's mark for lines to be left as they are
    from m1pipe.training.device import tune_allocator
    from m1pipe.workflow.final_model import run_fit

    chosen = settings.build(
        FitConfig,
        settings.read_config_file(file) if file else {},
        {**typed, "targets": None if targets is None else tuple(targets.split(","))},
        where="fit",
    )
    tune_allocator()
    _, line = run_fit(x, out, chosen, y=y, encoder=encoder, aliases=aliases, force=force)
    click.echo(line)
