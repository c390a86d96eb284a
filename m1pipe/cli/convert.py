"""`m1pipe convert`: text and other formats to h5ad."""

from pathlib import Path
from typing import Any

import click

from m1pipe.cli.options import CONFIG, OneOf, Sections, configured, from_config, option, say
from m1pipe.data.units import NAMES, NAMES_ELSEWHERE
from m1pipe.io.conversion.config import ConvertConfig
from m1pipe.io.conversion.convert import convert as convert_source


@click.command(cls=Sections)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("dest", type=click.Path(path_type=Path))
@from_config(ConvertConfig, "format genes_as_rows")
@option(
    "--units",
    type=OneOf(NAMES, meant=NAMES_ELSEWHERE),
    metavar="U",
    help=f"What the values are. One of {', '.join(NAMES)}.",
    section="Source",
)
@from_config(
    ConvertConfig,
    "normalize target_sum lengths log2p1 missing zero_total labels where var gene_names "
    "duplicates tx2gene",
)
@CONFIG
@option("--force", is_flag=True, help="Replace DEST.", section="Output")
@from_config(
    ConvertConfig,
    "floor obs_columns var_columns decimal thousands series single_cell_below runs sum_runs qc "
    "quality isoforms aliases",
)
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
    say(convert_source(source, dest, config, force=force))
