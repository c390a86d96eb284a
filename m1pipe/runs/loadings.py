"""What `m1pipe loadings` does: a table of latent units by genes, as `m1pipe enrich` takes it."""

import os

import numpy as np

from m1pipe.atomic import refuse_existing
from m1pipe.console import log
from m1pipe.data.matrix import open_matrix
from m1pipe.data.writer import write_matrix
from m1pipe.encoder import load_encoder
from m1pipe.encoder.loadings import correlation_loadings, decoder_loadings

PathLike = str | os.PathLike[str]


def run_loadings(
    run: PathLike,
    out: PathLike,
    *,
    data: PathLike | None = None,
    min_coverage: float,
    aliases: PathLike | None = None,
    force: bool = False,
) -> str:
    """Write the loadings of every active latent unit.

    Parameters
    ----------
    run, out : path
    data : path, optional
        Samples over which latents and genes are correlated. Left out: by the decoder.
    min_coverage : float
        Smallest share of the encoder's genes that `data` must have.
    aliases : path, optional
        Other names of the genes of `data`.
    force : bool

    Returns
    -------
    str
        One line about what was written.
    """
    refuse_existing(out, force=force)
    encoder = load_encoder(run)
    if data is None:
        found, how = decoder_loadings(encoder), "decoder"
    else:
        with open_matrix(data, aliases=aliases) as matrix:
            found = correlation_loadings(encoder, matrix, min_coverage=min_coverage)
        how = "correlation"
    if len(found.obs) < encoder.n_latent:
        log.info("%d units that carry nothing left out", encoder.n_latent - len(found.obs))
    record = {"command": "loadings", "by": how}
    write_matrix(
        out, found.values, obs=found.obs, var=found.var, units=found.units,
        uns={"m1pipe": record}, force=force,
    )  # fmt: skip
    largest = np.nanmax(np.abs(found.values))
    return (
        f"{out}: {len(found.obs)} of {encoder.n_latent} latent units x {len(found.var):,} genes "
        f"by {how}, at most {largest:.2f} in size; next: m1pipe enrich {out} --top 100 ..."
    )
