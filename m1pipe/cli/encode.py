"""`m1pipe encode`: latent means of a file's samples."""

import click

from m1pipe.cli.options import say, through_model
from m1pipe.errors import counted


@click.command()
@through_model
def encode(
    *, run: str, data: str, out: str, min_coverage: float, aliases: str | None, force: bool
) -> None:
    """Write the latent means of DATA's samples by the encoder in RUN.

    Genes are matched by name and units brought to those of training, raw counts included. What
    is said on the way: genes that are missing and what that does, and how far the samples lie
    from the training data.

    m1pipe encode runs/vae1 x.h5ad --out z.h5ad
    """
    from m1pipe.atomic import refuse_existing
    from m1pipe.console import log
    from m1pipe.data.recipe import missing_uns
    from m1pipe.encoder import load_encoder
    from m1pipe.encoder.drift import encode_with_drift
    from m1pipe.encoder.latent_files import write_latents
    from m1pipe.io.reader import open_matrix

    refuse_existing(out, force=force)
    encoder = load_encoder(run)
    with open_matrix(data, aliases=aliases) as matrix:
        Z, drift = encode_with_drift(encoder, matrix, min_coverage=min_coverage)
        for line in drift.lines():
            log.info("%s", line)
        write_latents(
            out,
            Z,
            obs=matrix.obs,
            digest=encoder.digest(),
            scale=encoder.latent_scale,
            record=missing_uns(drift.missing).get("m1pipe"),
            force=force,
        )
    say(
        f"{out}: {counted(len(Z), 'sample')} x {counted(encoder.n_latent, 'latent')}; "
        f"{drift.beyond:.1%} beyond the training data, {counted(len(drift.missing), 'gene')} "
        "missing"
    )
