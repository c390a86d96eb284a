"""`m1pipe generate`: synthetic samples of a trained model."""

from typing import Any

import click

from m1pipe.cli.options import FORCE, OUT, from_config, option, say, usage_checked
from m1pipe.errors import SettingError
from m1pipe.synthesis.config import GenerateConfig


@click.command()
@click.argument("run", type=click.Path())
@from_config(GenerateConfig, "n sampler")
@option(
    "--condition",
    "conditions",
    metavar="COL=VALUE:N",
    multiple=True,
    help="N samples of a class; may be given again.",
    shown="shares of the training samples",
)
@option("--mean", is_flag=True, help="The expected level, without observation noise.")
@option("--data", type=click.Path(), help="The training data, if they were moved.")
@from_config(GenerateConfig, "seed")
@OUT
@FORCE
def generate(
    *,
    run: str,
    conditions: tuple[str, ...],
    mean: bool,
    data: str | None,
    out: str,
    force: bool,
    **typed: Any,
) -> None:
    """Write synthetic samples of the model in RUN.

    The mixture of latents is fitted when it is first needed, from the training data, and kept in
    RUN. Samples resemble the training data and may tell of them: m1pipe quality measures how far.

    m1pipe generate runs/vae1 -n 1000 --out s.h5ad
    m1pipe generate runs/cvae --condition cell_type=B:200 --condition cell_type=NK:50 --out s.h5ad
    """
    from m1pipe.synthesis.generate import run_generate

    named = {"condition": tuple(map(parse_condition, conditions)), "noise": not mean}
    config = usage_checked(GenerateConfig, {**typed, **named}, where="generate")
    say(run_generate(run, out, config, data=data, force=force))


def parse_condition(text: str) -> tuple[str, str, int]:
    """Column, class and number of one `--condition COL=VALUE:N`.

    >>> parse_condition("cell_type=CD14+ Monocytes:200")
    ('cell_type', 'CD14+ Monocytes', 200)

    Raises
    ------
    SettingError
        If it is not of that form.
    """
    rest, _, number = text.rpartition(":")
    column, _, value = rest.partition("=")
    if not (column and value and number.isdecimal()):
        raise SettingError(
            f"condition: expected COL=VALUE:N, such as tissue=Liver:50; found {text!r}"
        )
    return column, value, int(number)
