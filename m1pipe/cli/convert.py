"""`m1pipe convert`: text and other formats to h5ad."""

from pathlib import Path
from typing import Any

import click

from m1pipe.cli.options import CONFIG, configured, from_config
from m1pipe.data.units import NAMES
from m1pipe.io.conversion.config import ConvertConfig
from m1pipe.io.conversion.convert import convert as convert_source


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("dest", type=click.Path(path_type=Path))
@from_config(ConvertConfig, "format genes_as_rows")
@click.option("--units", type=click.Choice(NAMES), metavar="U", help=f"One of {', '.join(NAMES)}.")
@from_config(
    ConvertConfig,
    "floor normalize target_sum lengths log2p1 labels var obs_columns var_columns decimal "
    "thousands zero_total missing where series single_cell_below runs sum_runs qc quality "
    "isoforms gene_names tx2gene aliases duplicates",
)
@CONFIG
@click.option("--force", is_flag=True, help="Replace DEST.")
def convert(source: Path, dest: Path, config_file: str | None, force: bool, **options: Any) -> None:
    r"""Turn text, GCT, ARCHS4, DEE2, 10x, zarr, quantifiers' folders or h5ad into h5ad.

    Counts of samples x genes to log2 of counts per 10,000:
      m1pipe convert genes.tsv.gz x.h5ad --units counts --normalize total \
          --target-sum 1e4 --log2p1 --labels labels.tsv
    Liver samples of ARCHS4, no single cells, genes of one symbol summed:
      m1pipe convert human_gene_v2.h5 u.h5ad --where 'source_name_ch1~liver' \
          --single-cell-below 0.5 --gene-names symbol --duplicates sum
    Isoforms of salmon, kallisto or RSEM, and their sums by gene in x.genes.h5ad:
      m1pipe convert quants/ x.h5ad --from salmon --tx2gene tx2gene.tsv --log2p1
    """
    config = configured(ConvertConfig, config_file, options, "convert")
    click.echo(convert_source(source, dest, config, force=force))
