"""`m1pipe impute`: missing levels from the others of a sample."""

import click

from m1pipe.cli.options import say, through_model


@click.command()
@through_model
def impute(
    *, run: str, data: str, out: str, min_coverage: float, aliases: str | None, force: bool
) -> None:
    """Fill in the missing levels of DATA's samples, and the genes that it lacks.

    Levels that are there stay as they are; NaN, as `convert --missing keep` leaves it, becomes
    what the model in RUN expects given the others.

    m1pipe impute runs/vae1 gaps.h5ad --out filled.h5ad
    """
    from m1pipe.encoder.reconstruct import run_impute

    line = run_impute(run, data, out, min_coverage=min_coverage, aliases=aliases, force=force)
    say(line)
