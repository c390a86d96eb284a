"""`m1pipe cluster`: clusters of samples in latent space."""

from typing import Any, get_args

import click

from m1pipe.cli.options import ALIASES, MIN_COVERAGE
from m1pipe.clustering.config import ClusterConfig, ClusterMethod, Distance
from m1pipe.settings import build, read_config_file

_DEFAULTS = ClusterConfig()


@click.command()
@click.argument("source", type=click.Path(), metavar="RUN[,RUN2,...]|Z.h5ad")
@click.argument("data", type=click.Path(), required=False)
@click.option("--out", required=True, type=click.Path(), help="The h5ad file to write.")
@click.option(
    "--method",
    type=click.Choice(get_args(ClusterMethod)),
    help=f"leiden needs the extra `leiden`.  [default: {_DEFAULTS.method}]",
)
@click.option(
    "--distance",
    type=click.Choice(get_args(Distance)),
    help="Latent units weighed by what the decoder makes of them, or as they are.  "
    f"[default: {_DEFAULTS.distance}; of Z.h5ad latent]",
)
@click.option("--k", type=int, help="Clusters of k-means.  [default: the widest silhouette]")
@click.option(
    "--max-k", type=int, help=f"Most clusters tried without --k.  [default: {_DEFAULTS.max_k}]"
)
@click.option(
    "--resolution",
    type=float,
    help=f"Of leiden: higher makes more clusters.  [default: {_DEFAULTS.resolution:g}]",
)
@click.option(
    "--neighbors", type=int, help=f"Of a sample, for leiden.  [default: {_DEFAULTS.neighbors}]"
)
@click.option("--seed", type=int, help=f"[default: {_DEFAULTS.seed}]")
@click.option("--label", metavar="COL", help="Column of obs to compare the clusters with.")
@MIN_COVERAGE
@ALIASES
@click.option("--config", "config_file", metavar="FILE", help="These options as JSON or TOML.")
@click.option("--force", is_flag=True, help="Overwrite the file.")
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

    \b
    m1pipe cluster runs/vae1 x.h5ad --label tissue --out clusters.h5ad
    m1pipe cluster runs/vae1,runs/vae2,runs/vae3 x.h5ad --k 8 --out clusters.h5ad
    m1pipe cluster z.h5ad --method leiden --out clusters.h5ad
    """  # noqa: D301 - the backslash is click's mark for lines to be left as they are
    from m1pipe.clustering.clusters import run_cluster

    layers = [read_config_file(config_file)] if config_file else []
    line = run_cluster(
        source.split(","),
        data,
        out,
        build(ClusterConfig, *layers, options, where=config_file or "cluster"),
        label=label,
        min_coverage=min_coverage,
        aliases=aliases,
        force=force,
    )
    click.echo(line)
