"""`m1pipe simulate`: data with a known truth."""

import dataclasses
from pathlib import Path
from typing import Any, get_args

import click

from m1pipe.data.simulation.contrasts import (
    N_PROGRAMMES,
    ContrastsSimulation,
    Size,
    simulate_contrasts,
)
from m1pipe.data.simulation.counts import CountsConfig, simulate_counts
from m1pipe.data.simulation.expression import ExpressionConfig, Layout, simulate_expression
from m1pipe.data.simulation.m1 import SIZES, M1Config, simulate_m1
from m1pipe.settings import build, read_config_file

DEFAULT = M1Config()


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
    help="How much: seconds for tiny, small and medium, 25 GB for paper.  "
    f"[default: {DEFAULT.size}]",
)
@click.option("--seed", type=int, help=f"Of all that is drawn.  [default: {DEFAULT.seed}]")
@click.option("--n-unlabelled", type=int, metavar="N", help="Instead of the size's own.")
@click.option("--n-labelled", type=int, metavar="N", help="Instead of the size's own.")
@click.option("--n-genes", type=int, metavar="N", help="Instead of the size's own.")
@click.option("--config", "config_file", metavar="FILE", help="These options as JSON or TOML.")
@click.option("--force", is_flag=True, help="Replace an earlier simulation.")
def m1(out: Path, config_file: str | None, force: bool, **options: Any) -> None:
    """Unlabelled expression, and labelled expression with isoforms.

    Writes unlabelled.h5ad, genes.h5ad and isoforms.h5ad in log2(TPM + 1), and what was planted as
    truth.h5. The labelled samples have a tissue and a donor; the unlabelled ones come from
    studies and are shifted against them.

    \b
    Example:
      m1pipe simulate m1 --out sim --size small --seed 1
      m1pipe train sim/unlabelled.h5ad --out runs/vae
    """  # noqa: D301 - click wants this character itself
    layers = [read_config_file(config_file)] if config_file else []
    config = build(M1Config, *layers, options, where=config_file or "simulate m1")
    made = simulate_m1(out, **dataclasses.asdict(config), force=force)
    click.echo(
        f"{out}: {made.n_unlabelled:,} unlabelled and {made.n_labelled:,} labelled samples, "
        f"{made.n_genes:,} genes, {made.n_isoforms:,} isoforms, {made.n_tissues} tissues, "
        f"{made.n_donors} donors"
    )


@simulate.command()
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@click.option(
    "--layout",
    type=click.Choice(get_args(Layout)),
    default=ExpressionConfig.layout,
    show_default=True,
    help="One cloud of samples, eight clusters, or three groups with genes of their own.",
)
@click.option(
    "--n-training", type=int, default=ExpressionConfig.n_training, show_default=True, metavar="N"
)
@click.option(
    "--n-held-out", type=int, default=ExpressionConfig.n_held_out, show_default=True, metavar="N"
)
@click.option(
    "--n-genes", type=int, default=ExpressionConfig.n_genes, show_default=True, metavar="N"
)
@click.option(
    "--seed", type=int, default=ExpressionConfig.seed, show_default=True, help="Of all drawn."
)
@click.option("--force", is_flag=True, help="Replace an earlier simulation.")
def expression(out: Path, force: bool, **options: Any) -> None:
    """Training and held-out samples of one law, to try generators on.

    Writes training.h5ad and held_out.h5ad in log2(TPM + 1), with a column class, and what was
    planted as truth.npz.

    \b
    Example:
      m1pipe simulate expression --layout clusters --out sim
      m1pipe train sim/training.h5ad --out runs/vae --transform normal_score
      m1pipe generate runs/vae -n 1000 --out s.h5ad
    """  # noqa: D301 - click wants this character itself
    config = build(ExpressionConfig, options, where="simulate expression")
    simulate_expression(out, config, force=force)
    click.echo(
        f"{out}: {config.n_training:,} training and {config.n_held_out:,} held-out samples x "
        f"{config.n_genes:,} genes, {config.layout}"
    )


@simulate.command()
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@click.option(
    "--n-training", type=int, default=CountsConfig.n_training, show_default=True, metavar="N"
)
@click.option(
    "--n-held-out", type=int, default=CountsConfig.n_held_out, show_default=True, metavar="N"
)
@click.option("--n-genes", type=int, default=CountsConfig.n_genes, show_default=True, metavar="N")
@click.option("--n-types", type=int, default=CountsConfig.n_types, show_default=True, metavar="N")
@click.option("--n-donors", type=int, default=CountsConfig.n_donors, show_default=True, metavar="N")
@click.option(
    "--seed", type=int, default=CountsConfig.seed, show_default=True, help="Of all drawn."
)
@click.option("--force", is_flag=True, help="Replace an earlier simulation.")
def counts(out: Path, force: bool, **options: Any) -> None:
    """Counts of single cells, of several types and donors.

    Writes training.h5ad and held_out.h5ad, cells of other donors, with columns cell_type and
    donor, and what was planted as truth.npz.

    \b
    Example:
      m1pipe simulate counts --out sim
      m1pipe train sim/training.h5ad --out runs/nb --likelihood negative_binomial \\
          --transform none
    """  # noqa: D301 - click wants this character itself
    config = build(CountsConfig, options, where="simulate counts")
    simulate_counts(out, config, force=force)
    click.echo(
        f"{out}: {config.n_training:,} training and {config.n_held_out:,} held-out cells x "
        f"{config.n_genes:,} genes, {config.n_types} types, {config.n_donors} donors"
    )


@simulate.command()
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@click.option(
    "--size",
    type=click.Choice(get_args(Size)),
    default=ContrastsSimulation.size,
    show_default=True,
    help="12 studies x 400 genes, 60 x 1,000 or 300 x 6,000.",
)
@click.option(
    "--effect",
    type=float,
    default=ContrastsSimulation.effect,
    show_default=True,
    help="Mean log2 fold change of a programme.",
)
@click.option(
    "--seed", type=int, default=ContrastsSimulation.seed, show_default=True, help="Of all drawn."
)
@click.option("--force", is_flag=True, help="Replace an earlier simulation.")
def contrasts(out: Path, force: bool, **options: Any) -> None:
    """Counts of studies, cases against controls, with programmes of genes turned on.

    Writes counts.h5ad, design.tsv, the programmes among gene_sets.gmt, and as truth.tsv which of
    them are on in which contrast.

    \b
    Example:
      m1pipe simulate contrasts --out sim
      m1pipe contrasts sim/counts.h5ad --experiment experiment --out lfc.h5ad
      m1pipe enrich lfc.h5ad --gene-sets sim/gene_sets.gmt --out go.h5ad
    """  # noqa: D301 - click wants this character itself
    config = build(ContrastsSimulation, options, where="simulate contrasts")
    simulate_contrasts(out, config, force=force)
    click.echo(
        f"{out}: counts of {config.size} studies, {N_PROGRAMMES} programmes turned on in some"
    )
