"""`m1pipe sweep`: many configurations of an encoder, one table."""

from typing import Any

import click

from m1pipe.cli.options import OneOf, from_config, option, say, usage_checked
from m1pipe.config import presets
from m1pipe.settings import read_config_file
from m1pipe.sweep.config import SweepConfig


@click.command()
@click.argument("data", type=click.Path())
@option("--out", required=True, type=click.Path(), help="Folder of the sweep.")
@from_config(SweepConfig, "neurons layers total")
@option("--space", type=click.Path(), help="TOML: a list or low and high for each setting.")
@from_config(SweepConfig, "trials sampler")
@option("--preset", type=OneOf(list(presets.PRESETS)), help="Shared by all trials.")
@option("--config", "file", type=click.Path(), help="Settings of train that all share.")
@option("--epochs", type=int, help="Of every trial.")
@option("--beta", type=float, help="Of every trial; 0 is the plain autoencoder.")
@from_config(SweepConfig, "validation test folds repeats")
@option("--group", metavar="COL|REGEX", help="Groups that keep together; none for none.")
@from_config(SweepConfig, "seed")
@option("--trial", type=int, metavar="K", help="Only the K-th (from 1): an array's task.")
@option(
    "--together",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Trials of one shape in one pass: a little faster for small networks.",
)
@option("--n-jobs", type=int, default=1, show_default=True, help="Processes.")
@option("--force", is_flag=True, help="Overwrite a sweep of other settings.")
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

    Samples are split into training, validation and test; the best by validation is tested once. Run
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
    config = usage_checked(SweepConfig, typed, where="sweep")
    parsed = None if table is None or space is None else parse_space(table, space)
    tune_allocator()
    plan = Sweep(data, group, base, parsed, table, config)
    line = run_sweep(plan, out, trial=trial, n_jobs=n_jobs, together=together, force=force)
    say(line)
