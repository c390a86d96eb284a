"""`m1pipe split`: a file into training and held-out samples."""

from pathlib import Path
from typing import Any

import click

from m1pipe.cli.options import CONFIG, configured, from_config, option, say
from m1pipe.io.reader import open_matrix
from m1pipe.io.split import SplitConfig, split_matrix


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@from_config(SplitConfig, "holdout where stratify group seed")
@CONFIG
@option("--force", is_flag=True, help="Replace the folder.")
def split(data: Path, out: Path, config_file: str | None, force: bool, **options: Any) -> None:
    r"""Write DATA's samples to training.h5ad and held_out.h5ad, each sample to one of them.

    A fifth of the donors for the final check, tissues in proportion:
      m1pipe split gtex.h5ad --out parts --holdout 0.2 --stratify tissue \
          --group '^GTEX-[A-Z0-9]+'
    """
    config = configured(SplitConfig, config_file, options, "split")
    with open_matrix(data) as matrix:
        say(split_matrix(matrix, out, config, force=force))
