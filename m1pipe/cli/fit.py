"""`m1pipe fit`: fit a model of the comparison to all labelled samples."""

from typing import Any

import click

from m1pipe.cli.options import (
    ALIASES,
    OneOf,
    from_config,
    is_own_gene,
    name_sources,
    option,
    say,
    usage_checked,
)
from m1pipe.config import FitConfig
from m1pipe.settings import read_config_file


@click.command()
@option("--x", required=True, type=click.Path(), help="Genes of the labelled samples.")
@option("--y", type=click.Path(), help="Levels to predict, paired by sample id.")
@option("--multilabel", metavar="FILE|obsm:KEY", help="Zeros and ones to predict, instead of --y.")
@from_config(FitConfig, "label model")
@option(
    "--encoder",
    metavar="[NAME=]RUN",
    help="Encoder of a model on latents, vae where it has no NAME; or NAME=fold:CONFIG, trained "
    "on X as crossval does.",
)
@name_sources
@option("--out", required=True, type=click.Path(), help="Folder of the model.")
@from_config(FitConfig, "targets stratify group recipe hidden epochs lr tune")
@option(
    "--head",
    "own_gene",
    type=OneOf(["plain", "own_gene"]),
    callback=is_own_gene,
    shown="plain",
    help="With own_gene a multiple of each isoform's own gene stands beside the network.",
)
@from_config(FitConfig, "conformal augment augment_sampler class_weight min_coverage")
@ALIASES
@from_config(FitConfig, "seed")
@option("--config", "file", type=click.Path(), help="JSON or TOML with these settings.")
@option("--force", is_flag=True, help="Overwrite a model.")
def fit(
    *,
    x: str,
    y: str | None,
    multilabel: str | None,
    encoder: str | None,
    source: tuple[str, ...],
    source_label: str | None,
    source_study: str | None,
    out: str,
    aliases: str | None,
    file: str | None,
    force: bool,
    **typed: Any,
) -> None:
    """Fit a model of the comparison on all labelled samples and keep it in a folder of its own.

    --model takes the name that crossval gives it: ridge, ridge_gene, pca, raw, ... and with
    --encoder NAME=RUN also NAME, NAME_linear, NAME_ridge, ...; with --source also NAME_transfer.

    m1pipe fit --x x.h5ad --y y.h5ad --model ridge --out runs/ridge
    m1pipe fit --x x.h5ad --y y.h5ad --encoder vae=runs/vae1 --model vae_ridge --out runs/best
    m1pipe fit --x x.h5ad --label tissue --encoder runs/vae1 --out runs/tissue
    """
    from m1pipe.source_labels import Sources
    from m1pipe.training.device import tune_allocator
    from m1pipe.workflow.final_model import run_fit

    chosen = usage_checked(
        FitConfig,
        read_config_file(file) if file else {},
        typed,
        where="fit",
    )
    tune_allocator()
    sources = None
    if source:
        sources = Sources(files=source, label=source_label, study=source_study)
    _, line = run_fit(
        x,
        out,
        chosen,
        y=y,
        multilabel=multilabel,
        encoder=encoder,
        sources=sources,
        aliases=aliases,
        force=force,
    )
    say(line)
