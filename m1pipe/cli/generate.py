"""`m1pipe generate`: synthetic samples of a trained model."""

from typing import get_args

import click

from m1pipe.config import Sampler
from m1pipe.errors import InputError
from m1pipe.synthesis.config import GenerateConfig


@click.command()
@click.argument("run", type=click.Path())
@click.option("-n", "n", type=int, help="Samples in all.")
@click.option(
    "--sampler",
    type=click.Choice(get_args(Sampler)),
    default=GenerateConfig.sampler,
    show_default=True,
    help="Where latents come from: a mixture fitted to those of the training samples, N(0, I), or "
    "training samples themselves (not private).",
)
@click.option(
    "--condition",
    "conditions",
    metavar="COL=VALUE:N",
    multiple=True,
    help="N samples of a class; may be given again.  [default: shares of the training rows]",
)
@click.option("--mean", is_flag=True, help="The expected level, without observation noise.")
@click.option("--data", type=click.Path(), help="The training data, if they were moved.")
@click.option(
    "--seed", type=int, default=GenerateConfig.seed, show_default=True, help="Of everything drawn."
)
@click.option("--out", required=True, type=click.Path(), help="The h5ad file to write.")
@click.option("--force", is_flag=True, help="Overwrite the file.")
def generate(
    *,
    run: str,
    n: int | None,
    sampler: Sampler,
    conditions: tuple[str, ...],
    mean: bool,
    data: str | None,
    seed: int,
    out: str,
    force: bool,
) -> None:
    """Write synthetic samples of the model in RUN.

    The mixture of latents is fitted when it is first needed, from the training data, and kept in
    RUN. Samples resemble the training data and may tell of them: m1pipe quality measures how far.

    \b
    m1pipe generate runs/vae1 -n 1000 --out s.h5ad
    m1pipe generate runs/cvae --condition cell_type=B:200 --condition cell_type=NK:50 --out s.h5ad
    """  # noqa: D301 - the backslash is click's mark for lines to be left as they are
    config = GenerateConfig(
        n=n,
        sampler=sampler,
        condition=tuple(parse_condition(text) for text in conditions),
        noise=not mean,
        seed=seed,
    )
    from m1pipe.synthesis.generate import run_generate

    click.echo(run_generate(run, out, config, data=data, force=force))


def parse_condition(text: str) -> tuple[str, str, int]:
    """Column, class and number of one `--condition COL=VALUE:N`.

    >>> parse_condition("cell_type=CD14+ Monocytes:200")
    ('cell_type', 'CD14+ Monocytes', 200)

    Raises
    ------
    InputError
        If it is not of that form.
    """
    rest, _, number = text.rpartition(":")
    column, _, value = rest.partition("=")
    if not (column and value and number.isdecimal()):
        raise InputError(
            f"condition: expected COL=VALUE:N, such as tissue=Liver:50; found {text!r}"
        )
    return column, value, int(number)
