"""`m1pipe sweep`: many configurations of an encoder, one table."""

from typing import Any

import click

from m1pipe import settings
from m1pipe.cli.options import from_config
from m1pipe.config import presets
from m1pipe.settings import read_config_file
from m1pipe.sweep.config import SweepConfig


@click.command()
@click.argument("data", type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="Folder of the sweep.")
@from_config(SweepConfig, "neurons layers total")
@click.option("--space", type=click.Path(), help="TOML: a list or low and high for each setting.")
@from_config(SweepConfig, "trials sampler")
@click.option("--preset", type=click.Choice(list(presets.PRESETS)), help="Shared by all trials.")
@click.option("--config", "file", type=click.Path(), help="Settings of train that all share.")
@click.option("--epochs", type=int, help="Of every trial.")
@click.option("--beta", type=float, help="Of every trial; 0 is the plain autoencoder.")
@from_config(SweepConfig, "validation test folds repeats")
@click.option("--group", metavar="COL|REGEX", help="Groups that keep together; none for none.")
@from_config(SweepConfig, "seed")
@click.option("--trial", type=int, metavar="K", help="Only the K-th (from 1): an array's task.")
@click.option(
    "--together",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Trials of one shape in one pass: a little faster for small networks.",
)
@click.option("--n-jobs", type=int, default=1, show_default=True, help="Processes.")
@click.option("--force", is_flag=True, help="Overwrite a sweep of other settings.")
def sweep(
    *,
    data: str,
    out: str,
    space: str | None,
    preset: str | None,
    file: str | None,
    epochs: int | None,
    beta: float | None,
    group: str | None,
    trial: int | None,
    n_jobs: int,
    together: int,
    force: bool,
    **typed: Any,
) -> None:
    """Try many configurations on DATA: by width, by depth, or drawn from a space.

    Rows are split into training, validation and test; the best by validation is tested once. Run
    the same command again to resume after an interruption. best.json is a configuration for train.

    --neurons alone makes a layer without nonlinearity (but for --preset). With --folds it is the
    latent size of autoencoder and VAE as train makes them, beside PCA of equal size, and R2 of
    the test folds is compared: summary.csv, comparisons.csv.

    Example:
      m1pipe sweep lfc.h5ad --neurons 1,10,100,1000 --layers 1,2,3 --beta 0 --out sweep
      m1pipe sweep lfc.h5ad --folds 4 --neurons 50,200,1000 --group study --out compared
      m1pipe sweep u.h5ad --space space.toml --trials 30 --sampler optuna --out sweep
      m1pipe train u.h5ad --config sweep/best.json --out runs/best
    """
    from m1pipe.sweep.space import parse_space
    from m1pipe.training.device import tune_allocator
    from m1pipe.workflow.sweep_run import Sweep, run_sweep

    shared = {"epochs": epochs, "beta": beta, "seed": typed["seed"]}
    base = {
        **(presets.preset_options(preset) if preset else {}),
        **(read_config_file(file) if file else {}),
        **{name: value for name, value in shared.items() if value is not None},
    }
    table = read_config_file(space) if space else None
    config = settings.build(SweepConfig, typed, where="sweep")
    parsed = None if table is None or space is None else parse_space(table, space)
    tune_allocator()
    plan = Sweep(data, group, base, parsed, table, config)
    line = run_sweep(plan, out, trial=trial, n_jobs=n_jobs, together=together, force=force)
    click.echo(line)
