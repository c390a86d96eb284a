"""`m1pipe interpolate`: the way between two samples or groups in latent space."""

import click

from m1pipe.cli.options import ALIASES, FORCE, OUT, option, say


@click.command()
@click.argument("run", type=click.Path())
@click.argument("data", type=click.Path())
@option("--from", "start", required=True, metavar="ID|COL=VALUE", help="Where it begins.")
@option("--to", "stop", required=True, metavar="ID|COL=VALUE", help="Where it ends.")
@option("--steps", type=click.IntRange(2), default=11, show_default=True, help="Ends included.")
@option(
    "--add",
    nargs=2,
    metavar="A B",
    help="Add the difference of latents, A less B, to the whole way.",
)
@ALIASES
@OUT
@FORCE
def interpolate(
    *,
    run: str,
    data: str,
    start: str,
    stop: str,
    steps: int,
    add: tuple[str, str] | None,
    aliases: str | None,
    out: str,
    force: bool,
) -> None:
    """Write levels on the way between two of DATA's samples or groups, in latent space.

    A group stands at the mean of its latents. A conditional model changes class half way.

    m1pipe interpolate runs/vae1 x.h5ad --from s1 --to s2 --out way.h5ad
    m1pipe interpolate runs/vae1 x.h5ad --from tissue=Liver --to tissue=Lung --out way.h5ad
    """
    from m1pipe.encoder.interpolation import run_interpolate

    line = run_interpolate(
        run,
        data,
        out,
        ends=(start, stop),
        n_steps=steps,
        difference=add,
        aliases=aliases,
        force=force,
    )
    say(line)
