"""`m1pipe split`: a file into training and held-out samples."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from m1pipe.io.reader import open_matrix
from m1pipe.io.split import SplitConfig, split_matrix
from m1pipe.settings import build, read_config_file

_DEFAULTS = {f.name: f.default for f in dataclasses.fields(SplitConfig)}


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option(
    "--holdout",
    type=float,
    metavar="F",
    help=f"Share to hold out.  [default: {_DEFAULTS['holdout']}]",
)
@click.option("--where", metavar="COND", help="Samples to deal: COLUMN~REGEX, or a condition.")
@click.option("--stratify", metavar="COL", help="Column whose levels keep their shares.")
@click.option(
    "--group",
    metavar="COL|REGEX",
    help="Never cut apart: a column, or a pattern in the ids.  [default: donor, patient, ...]",
)
@click.option("--seed", type=int, help=f"Of the draw.  [default: {_DEFAULTS['seed']}]")
@click.option("--config", "config_file", metavar="FILE", help="These options as JSON or TOML.")
@click.option("--force", is_flag=True, help="Replace the folder.")
def split(data: Path, out: Path, config_file: str | None, force: bool, **options: Any) -> None:
    """Write DATA's samples to training.h5ad and held_out.h5ad, each sample to one of them.

    \b
    A fifth of the donors for the final check, tissues in proportion:
      m1pipe split gtex.h5ad --out parts --holdout 0.2 --stratify tissue \\
          --group '^GTEX-[A-Z0-9]+'
    """  # noqa: D301 - click wants this character itself
    layers = [read_config_file(config_file)] if config_file else []
    config = build(SplitConfig, *layers, options, where=config_file or "split")
    with open_matrix(data) as matrix:
        click.echo(split_matrix(matrix, out, config, force=force))
