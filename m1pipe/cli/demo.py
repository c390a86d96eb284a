"""`m1pipe demo`: the whole job on simulated data."""

from pathlib import Path

import click


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default="demo", show_default=True)
@click.option(
    "--size",
    type=click.Choice(["tiny", "small", "medium"]),
    default="small",
    show_default=True,
    help="Of the simulated data.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), help="Of each encoder.")
@click.option("--force", is_flag=True, help="Replace an earlier demo.")
def demo(out: Path, size: str, seed: int, epochs: int | None, force: bool) -> None:
    """Run the whole job on simulated data, in minutes.

    Simulates an unlabelled and a labelled set, trains encoders on the first, compares them on the
    second with the raw genes, PCA, ridge regression and the mean, and writes a report. Then makes
    synthetic samples with a conditional model and scores them against held-out ones.

    m1pipe demo --out demo
    """
    from m1pipe.training.device import tune_allocator
    from m1pipe.workflow.demo import run_demo

    tune_allocator()
    report, quality = run_demo(out, size=size, seed=seed, epochs=epochs, force=force)
    click.echo(f"synthetic samples: {quality}")
    click.echo(f"report: {report}")
