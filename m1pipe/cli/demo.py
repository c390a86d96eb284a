"""`m1pipe demo`: the whole job on simulated data."""

from pathlib import Path

import click

from m1pipe.cli.options import OneOf, option, say


@click.command()
@option("--out", type=click.Path(path_type=Path), default="demo", show_default=True)
@option(
    "--size",
    type=OneOf(["tiny", "small", "medium"]),
    default="small",
    show_default=True,
    help="Of the simulated data.",
)
@option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@option("--epochs", type=click.IntRange(min=1), help="Of each encoder.", shown="20")
@option("--force", is_flag=True, help="Replace an earlier demo.")
def demo(out: Path, size: str, seed: int, epochs: int | None, force: bool) -> None:
    """Run the whole job on simulated data, in a minute: where it pays, and where it does not.

    Trains encoders on cells without labels and predicts the types of other cells from 20 labels;
    trains one on tissues and predicts isoform levels from hundreds of labelled samples; both beside
    PCA and a linear model on the genes, each with a report. Then makes synthetic samples with a
    conditional model and scores them against held-out ones.

    m1pipe demo --out demo
    """
    from m1pipe.training.device import tune_allocator
    from m1pipe.workflow.demo import EPOCHS, run_demo

    tune_allocator()
    found = run_demo(out, size=size, seed=seed, epochs=epochs or EPOCHS, force=force)
    say(f"synthetic samples: {found.quality}")
    say(found.verdict)
    say(f"cell types: {found.cell_types}")
    say(f"isoform levels: {found.isoforms}")
