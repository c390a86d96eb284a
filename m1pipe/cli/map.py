"""`m1pipe map`: samples laid out by their latents, and new samples on an old map."""

import click

from m1pipe.cli.options import ALIASES, FORCE, MIN_COVERAGE, OUT, option, say
from m1pipe.cli.plot import method_option
from m1pipe.clustering.config import MapConfig

_DEFAULTS = MapConfig()


@click.command()
@click.argument("source", type=click.Path(), metavar="RUN|Z.h5ad")
@click.argument("data", type=click.Path(), required=False)
@OUT
@method_option(_DEFAULTS.method)
@option(
    "--onto", metavar="OLD.h5ad", type=click.Path(), help="Place the samples on this file's map."
)
@option("--key", help="Which array of OLD's obsm, where there are several.")
@option(
    "--neighbors",
    type=click.IntRange(1),
    default=_DEFAULTS.neighbors,
    show_default=True,
    help="Old samples that a new one is placed by.",
)
@option("--seed", type=click.IntRange(0), default=_DEFAULTS.seed, show_default=True)
@MIN_COVERAGE
@ALIASES
@FORCE
def map(
    *,
    source: str,
    data: str | None,
    out: str,
    method: str,
    onto: str | None,
    key: str | None,
    neighbors: int,
    seed: int,
    min_coverage: float,
    aliases: str | None,
    force: bool,
) -> None:
    """Lay DATA's samples out in two dimensions by the latent means of RUN, or those of a file.

    With --onto they are placed on the map that OLD.h5ad holds, at the median of the places of
    their nearest neighbours in latent space; OLD stays as it is, and may be any file of latents
    by the same encoder with a map in obsm, scanpy's included. It says how many samples lie
    further from the old ones than these from each other.

    m1pipe map runs/vae1 x.h5ad --method umap --out atlas.h5ad
    m1pipe map runs/vae1 new.h5ad --onto atlas.h5ad --out placed.h5ad
    """
    from m1pipe.clustering.map import run_map

    line = run_map(
        source,
        data,
        out,
        MapConfig(method=method, neighbors=neighbors, seed=seed),
        onto=onto,
        key=key,
        min_coverage=min_coverage,
        aliases=aliases,
        force=force,
    )
    say(line)
