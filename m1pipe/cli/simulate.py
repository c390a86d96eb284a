"""`m1pipe simulate`: data with a known truth."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from m1pipe.cli.options import (
    CONFIG,
    Commands,
    OneOf,
    configured,
    from_config,
    option,
    say,
    usage_checked,
)
from m1pipe.data.simulation.contrasts import (
    N_PROGRAMMES,
    ContrastsSimulation,
    simulate_contrasts,
)
from m1pipe.data.simulation.counts import CountsConfig, simulate_counts
from m1pipe.data.simulation.expression import ExpressionConfig, simulate_expression
from m1pipe.data.simulation.m1 import SIZES, M1Config, simulate_m1

DEFAULT = M1Config()


@click.group(cls=Commands)
def simulate() -> None:
    """Make data with a known truth.

    Example:
      m1pipe simulate m1 --out sim
    """


@simulate.command()
@option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@option(
    "--size",
    type=OneOf(list(SIZES)),
    help="How much: seconds for tiny, small and medium, 25 GB for paper.",
    shown=DEFAULT.size,
)
@from_config(M1Config, "seed n_unlabelled n_labelled n_genes text")
@CONFIG
@option("--force", is_flag=True, help="Replace an earlier simulation.")
def m1(out: Path, config_file: str | None, force: bool, **options: Any) -> None:
    """Unlabelled expression, and labelled expression with isoforms.

    Writes unlabelled.h5ad, genes.h5ad and isoforms.h5ad in log2(TPM + 1), and what was planted as
    truth.h5. The labelled samples have a tissue and a donor; the unlabelled ones come from
    studies and are shifted against them. --text adds counts as a sequencing study has them:
    genes_unlabeled.tsv.gz, genes.tsv.gz, isoforms.tsv.gz, labels.tsv and tx2gene.tsv.

    Example:
      m1pipe simulate m1 --out sim --size small --seed 1
      m1pipe train sim/unlabelled.h5ad --out runs/vae
    """
    config = configured(M1Config, config_file, options, "simulate m1")
    made = simulate_m1(out, **dataclasses.asdict(config), force=force)
    say(
        f"{out}: {made.n_unlabelled:,} unlabelled and {made.n_labelled:,} labelled samples, "
        f"{made.n_genes:,} genes, {made.n_isoforms:,} isoforms, {made.n_tissues} tissues, "
        f"{made.n_donors} donors"
    )


@simulate.command()
@option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@from_config(ExpressionConfig, "layout n_training n_held_out n_genes seed")
@option("--force", is_flag=True, help="Replace an earlier simulation.")
def expression(out: Path, force: bool, **options: Any) -> None:
    """Training and held-out samples of one distribution, to try generators on.

    Writes training.h5ad and held_out.h5ad in log2(TPM + 1), with a column class, and what was
    planted as truth.npz.

    Example:
      m1pipe simulate expression --layout clusters --out sim
      m1pipe train sim/training.h5ad --out runs/vae --transform normal_score
      m1pipe generate runs/vae -n 1000 --out s.h5ad
    """
    config = usage_checked(ExpressionConfig, options, where="simulate expression")
    simulate_expression(out, config, force=force)
    say(
        f"{out}: {config.n_training:,} training and {config.n_held_out:,} held-out samples x "
        f"{config.n_genes:,} genes, {config.layout}"
    )


@simulate.command()
@option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@from_config(CountsConfig, "n_training n_held_out n_genes n_types n_donors seed")
@option("--force", is_flag=True, help="Replace an earlier simulation.")
def counts(out: Path, force: bool, **options: Any) -> None:
    r"""Counts of single cells, of several types and donors.

    Writes training.h5ad and held_out.h5ad, cells of other donors, with columns cell_type and
    donor, and what was planted as truth.npz.

    Example:
      m1pipe simulate counts --out sim
      m1pipe train sim/training.h5ad --out runs/nb --likelihood negative_binomial \
          --transform none
    """
    config = usage_checked(CountsConfig, options, where="simulate counts")
    simulate_counts(out, config, force=force)
    say(
        f"{out}: {config.n_training:,} training and {config.n_held_out:,} held-out cells x "
        f"{config.n_genes:,} genes, {config.n_types} types, {config.n_donors} donors"
    )


@simulate.command()
@option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@from_config(ContrastsSimulation, "size effect seed")
@option("--force", is_flag=True, help="Replace an earlier simulation.")
def contrasts(out: Path, force: bool, **options: Any) -> None:
    """Counts of studies, cases against controls, with programmes of genes turned on.

    Writes counts.h5ad, design.tsv, the programmes among gene_sets.gmt, and as truth.tsv which of
    them are on in which contrast.

    Example:
      m1pipe simulate contrasts --out sim
      m1pipe contrasts sim/counts.h5ad --experiment experiment --out lfc.h5ad
      m1pipe enrich lfc.h5ad --gene-sets sim/gene_sets.gmt --out go.h5ad
    """
    config = usage_checked(ContrastsSimulation, options, where="simulate contrasts")
    simulate_contrasts(out, config, force=force)
    say(f"{out}: counts of {config.size} studies, {N_PROGRAMMES} programmes turned on in some")
