"""`m1pipe simulate`: data with a known truth."""

from pathlib import Path

import click

from m1pipe.data.simulate import DEFAULT_SEED, DEFAULT_SIZE, SIZES, simulate_m1


@click.group()
def simulate() -> None:
    """Make data with a known truth.

    \b
    Example:
      m1pipe simulate m1 --out sim
    """  # noqa: D301 - click wants this character itself


@simulate.command()
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@click.option(
    "--size",
    type=click.Choice(list(SIZES)),
    default=DEFAULT_SIZE,
    show_default=True,
    help="How much: seconds for tiny, small and medium; paper writes 25 GB.",
)
@click.option("--seed", type=click.IntRange(min=0), default=DEFAULT_SEED, show_default=True)
@click.option("--n-unlabelled", type=click.IntRange(min=1), help="Instead of the size's own.")
@click.option("--n-labelled", type=click.IntRange(min=1), help="Instead of the size's own.")
@click.option("--n-genes", type=click.IntRange(min=1), help="Instead of the size's own.")
@click.option("--force", is_flag=True, help="Replace an earlier simulation.")
def m1(
    out: Path,
    size: str,
    seed: int,
    *,
    n_unlabelled: int | None,
    n_labelled: int | None,
    n_genes: int | None,
    force: bool,
) -> None:
    """Unlabelled expression, and labelled expression with isoforms.

    Writes unlabelled.h5ad, genes.h5ad and isoforms.h5ad in log2(TPM + 1), and what was planted as
    truth.h5. The labelled samples have a tissue and a donor; the unlabelled ones come from
    studies and are shifted against them.

    \b
    Example:
      m1pipe simulate m1 --out sim --size small --seed 1
      m1pipe train sim/unlabelled.h5ad --out runs/vae
    """  # noqa: D301 - click wants this character itself
    made = simulate_m1(
        out,
        size,
        seed,
        n_unlabelled=n_unlabelled,
        n_labelled=n_labelled,
        n_genes=n_genes,
        force=force,
    )
    click.echo(
        f"{out}: {made.n_unlabelled:,} unlabelled and {made.n_labelled:,} labelled samples, "
        f"{made.n_genes:,} genes, {made.n_isoforms:,} isoforms, {made.n_tissues} tissues, "
        f"{made.n_donors} donors"
    )
