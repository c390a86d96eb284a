"""`m1pipe convert`: text and other formats to h5ad."""

import dataclasses
from pathlib import Path
from typing import Any, get_args

import click

from m1pipe.data.units import NAMES
from m1pipe.io.conversion.config import (
    ConvertConfig,
    Decimal,
    Duplicates,
    Format,
    Missing,
    Quality,
)
from m1pipe.io.conversion.convert import convert as convert_source
from m1pipe.io.conversion.steps import Normalize, ZeroTotal
from m1pipe.settings import build, read_config_file

_DEFAULTS = {f.name: f.default for f in dataclasses.fields(ConvertConfig)}


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    """A comma-separated list of names."""
    return None if value is None else [name.strip() for name in value.split(",") if name.strip()]


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("dest", type=click.Path(path_type=Path))
@click.option(
    "--from",
    "format",
    type=click.Choice(get_args(Format)),
    help=f"Format of SOURCE.  [default: {_DEFAULTS['format']}, by its content]",
)
@click.option("--genes-as-rows", is_flag=True, default=None, help="Columns are samples.")
@click.option("--units", type=click.Choice(NAMES), metavar="U", help=f"One of {', '.join(NAMES)}.")
@click.option("--floor", type=float, metavar="F", help="Raise smaller values to F, first.")
@click.option("--normalize", type=click.Choice(get_args(Normalize)), help="Scale every sample.")
@click.option(
    "--target-sum",
    type=float,
    metavar="F",
    help=f"For --normalize total.  [default: {_DEFAULTS['target_sum']:g}]",
)
@click.option("--lengths", metavar="TSV", help="Gene lengths in bases, for --normalize tpm.")
@click.option("--log2p1", is_flag=True, default=None, help="log2(1 + x), last.")
@click.option("--labels", metavar="TSV", help="Sample labels, joined by sample id.")
@click.option("--var", metavar="TSV", help="Gene annotations; a column `gene` becomes gene_id.")
@click.option(
    "--obs-columns", callback=_names, metavar="A,B", help="Labels that sit among the genes."
)
@click.option(
    "--var-columns",
    callback=_names,
    metavar="A,B",
    help="What describes genes among the samples, beside known names such as Length.",
)
@click.option(
    "--decimal",
    type=click.Choice(get_args(Decimal)),
    help=f"Before fractions in text.  [default: {_DEFAULTS['decimal']}]",
)
@click.option("--thousands", metavar="C", help="Between thousands in text, such as ','.")
@click.option(
    "--zero-total",
    type=click.Choice(get_args(ZeroTotal)),
    help="Samples whose total is 0.  [default: error where they are normalised]",
)
@click.option(
    "--missing",
    type=click.Choice(get_args(Missing)),
    help=f"Empty fields, NA, NaN.  [default: {_DEFAULTS['missing']}]",
)
@click.option("--where", metavar="COND", help="Samples wanted: COLUMN~REGEX, or a condition.")
@click.option("--series", callback=_names, metavar="A,B", help="Samples wanted: of GEO series.")
@click.option(
    "--single-cell-below", type=float, metavar="F", help="Samples wanted: ARCHS4's probability."
)
@click.option("--runs", metavar="TSV", help="Runs and experiments; runs of one are summed.")
@click.option(
    "--sum-runs", is_flag=True, default=None, help="The same, by what the source says of its runs."
)
@click.option("--qc", type=click.Choice(get_args(Quality)), help="Runs wanted, by DEE2's quality.")
@click.option(
    "--quality", metavar="H5", help="For --qc: DEE2's measures.  [default: qc.h5 beside SOURCE]"
)
@click.option("--isoforms", is_flag=True, default=None, help="Transcripts of a DEE2 study.")
@click.option("--gene-names", metavar="COLUMN", help="Name genes by their annotation.")
@click.option("--tx2gene", metavar="TSV", help="Transcript, gene: of salmon, kallisto or RSEM.")
@click.option("--aliases", metavar="TSV", help="Other names of genes: alias, name.")
@click.option(
    "--duplicates",
    type=click.Choice(get_args(Duplicates)),
    help=f"Genes of one name.  [default: {_DEFAULTS['duplicates']}]",
)
@click.option("--config", "config_file", metavar="FILE", help="These options as JSON or TOML.")
@click.option("--force", is_flag=True, help="Replace DEST.")
def convert(source: Path, dest: Path, config_file: str | None, force: bool, **options: Any) -> None:
    """Turn text, GCT, ARCHS4, DEE2, 10x, zarr, quantifiers' folders or h5ad into h5ad.

    \b
    Counts of samples x genes to log2 of counts per 10,000:
      m1pipe convert genes.tsv.gz x.h5ad --units counts --normalize total \\
          --target-sum 1e4 --log2p1 --labels labels.tsv
    Liver samples of ARCHS4, no single cells, genes of one symbol summed:
      m1pipe convert human_gene_v2.h5 u.h5ad --where 'source_name_ch1~liver' \\
          --single-cell-below 0.5 --gene-names symbol --duplicates sum
    Isoforms of salmon, kallisto or RSEM, and their sums by gene in x.genes.h5ad:
      m1pipe convert quants/ x.h5ad --from salmon --tx2gene tx2gene.tsv --log2p1
    """  # noqa: D301 - click wants this character itself
    layers = [read_config_file(config_file)] if config_file else []
    config = build(ConvertConfig, *layers, options, where=config_file or "convert")
    click.echo(convert_source(source, dest, config, force=force))
