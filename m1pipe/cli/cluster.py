"""`m1pipe cluster`: clusters of samples in latent space."""

from typing import Any

import click

from m1pipe.cli.options import (
    ALIASES,
    CONFIG,
    FORCE,
    MIN_COVERAGE,
    OUT,
    configured,
    from_config,
    option,
    say,
)
from m1pipe.clustering.config import ClusterConfig


@click.command()
@click.argument("source", type=click.Path(), metavar="RUN[,RUN2,...]|Z.h5ad")
@click.argument("data", type=click.Path(), required=False)
@OUT
@from_config(ClusterConfig, "method distance k max_k resolution neighbors seed")
@option("--label", metavar="COL", help="Column of obs to compare the clusters with.")
@MIN_COVERAGE
@ALIASES
@CONFIG
@FORCE
def cluster(
    *,
    source: str,
    data: str | None,
    out: str,
    label: str | None,
    min_coverage: float,
    aliases: str | None,
    config_file: str | None,
    force: bool,
    **options: Any,
) -> None:
    """Cluster DATA's samples by the latent means of RUN, or the samples of a file of latents.

    The result has the latents and a column `cluster`. Of several runs, such as seeds of one
    encoder, the first is written and the others say how stable it is.

    m1pipe cluster runs/vae1 x.h5ad --label tissue --out clusters.h5ad
    m1pipe cluster runs/vae1,runs/vae2,runs/vae3 x.h5ad --k 8 --out clusters.h5ad
    m1pipe cluster z.h5ad --method leiden --out clusters.h5ad
    """
    from m1pipe.clustering.clusters import run_cluster

    line = run_cluster(
        source.split(","),
        data,
        out,
        configured(ClusterConfig, config_file, options, "cluster"),
        label=label,
        min_coverage=min_coverage,
        aliases=aliases,
        force=force,
    )
    say(line)
