"""`m1pipe predict`: predict targets of new samples."""

import click

from m1pipe.cli.options import ALIASES, FORCE, MIN_COVERAGE, OUT, option, say
from m1pipe.errors import counted


@click.command()
@click.argument("model", type=click.Path())
@click.argument("data", type=click.Path())
@OUT
@option(
    "--interval",
    type=float,
    metavar="LEVEL",
    help="Intervals that hold this share (0.9, say): var's half_width, or with --linear factor.",
)
@option("--linear", is_flag=True, help="Levels before the logarithm.")
@MIN_COVERAGE
@ALIASES
@FORCE
def predict(
    *,
    model: str,
    data: str,
    out: str,
    linear: bool,
    interval: float | None,
    min_coverage: float,
    aliases: str | None,
    force: bool,
) -> None:
    """Predict levels or classes of DATA's samples with MODEL, a folder made by m1pipe fit.

    DATA may hold raw counts: they are normalised and logged as the training data were. Of classes
    the file has the probabilities as columns, and the likeliest in obs (predicted_CELL_TYPE, say).

    m1pipe predict runs/head new.h5ad --out pred.h5ad
    m1pipe predict runs/head new.h5ad --out pred.h5ad --interval 0.9
    """
    from m1pipe.atomic import refuse_existing
    from m1pipe.io.reader import open_matrix
    from m1pipe.predictor import load_predictor

    refuse_existing(out, force=force)
    predictor = load_predictor(model)
    with open_matrix(data, aliases=aliases) as matrix:
        n_samples, n_columns = predictor.write(
            matrix,
            out,
            linear=linear,
            interval=interval,
            min_coverage=min_coverage,
            force=force,
        )
    what = "class probabilities" if predictor.is_classes else "targets"
    say(f"{out}: {counted(n_samples, 'sample')} x {n_columns:,} {what}")
