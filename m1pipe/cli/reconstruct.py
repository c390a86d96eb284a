"""`m1pipe reconstruct`: samples as a model sees them, denoised."""

import click

from m1pipe.cli.options import say, through_model


@click.command()
@through_model
def reconstruct(
    *, run: str, data: str, out: str, min_coverage: float, aliases: str | None, force: bool
) -> None:
    """Write what the model in RUN expects of DATA's samples, given their latent means.

    Noise that no latent carries is left out, and with it variance: these are no new samples.

    m1pipe reconstruct runs/vae1 x.h5ad --out denoised.h5ad
    """
    from m1pipe.encoder.reconstruct import run_reconstruct

    line = run_reconstruct(run, data, out, min_coverage=min_coverage, aliases=aliases, force=force)
    say(line)
