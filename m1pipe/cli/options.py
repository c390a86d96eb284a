"""Kinds of option values that several commands take."""

from typing import Any

import click

from m1pipe.config import CrossvalConfig


class Widths(click.ParamType):  # type: ignore[type-arg,unused-ignore] # generic since click 8.2
    """Layer widths such as "512" or "512,256"; "none" for no hidden layer."""

    name = "widths"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Tuple of widths."""
        if isinstance(value, tuple):
            return value
        if value == "none":
            return ()
        try:
            return tuple(int(width) for width in str(value).split(","))
        except ValueError:
            self.fail(f"expected widths such as 512 or 512,256, or none; found {value!r}")


def is_own_gene(ctx: click.Context, param: click.Parameter, value: str | None) -> bool | None:
    """What `--head plain|own_gene` says; None where it is not given."""
    return None if value is None else value == "own_gene"


WIDTHS = Widths()
ALIASES = click.option(
    "--aliases", type=click.Path(), metavar="TSV", help="Other names of genes: alias, name."
)
MIN_COVERAGE = click.option(
    "--min-coverage",
    type=click.FloatRange(0, 1),
    default=CrossvalConfig.min_coverage,
    show_default=True,
    help="Smallest share of the encoder's genes that must be found.",
)
