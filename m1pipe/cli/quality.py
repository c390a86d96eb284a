"""`m1pipe quality`: synthetic samples scored against held-out ones."""

from typing import Any

import click

from m1pipe import settings
from m1pipe.cli.options import ALIASES
from m1pipe.console import log
from m1pipe.synthesis.config import QualityConfig


@click.command()
@click.option("--real", required=True, type=click.Path(), help="What the generator trained on.")
@click.option("--synthetic", required=True, type=click.Path(), help="The samples that it made.")
@click.option("--holdout", required=True, type=click.Path(), help="Real samples that it never saw.")
@click.option("--out", required=True, type=click.Path(), help="Folder of the report.")
@click.option("--label", metavar="COL", help="Column with classes: adds utility scores.")
@click.option(
    "--group",
    metavar="COL|REGEX",
    show_default="donor, patient, ..., if there",
    help="Donors, never on both sides; none for none.",
)
@click.option("--rivals", is_flag=True, default=None, help="Score simple generators beside.")
@click.option(
    "--max-genes",
    type=int,
    show_default=str(QualityConfig.max_genes),
    help="Genes drawn for correlations, classifiers and intervals.",
)
@click.option(
    "--max-samples",
    type=int,
    show_default=str(QualityConfig.max_samples),
    help="Samples a side where all pairs are looked at.",
)
@click.option(
    "--resamples",
    "n_resamples",
    type=int,
    show_default=str(QualityConfig.n_resamples),
    help="Resamples behind an interval.",
)
@click.option(
    "--min-coverage",
    type=float,
    show_default=str(QualityConfig.min_coverage),
    help="Smallest share of the real samples' genes that the others must have.",
)
@ALIASES
@click.option("--seed", type=int, show_default=str(QualityConfig.seed), help="Of everything drawn.")
@click.option("--config", "file", type=click.Path(), help="JSON or TOML with these settings.")
@click.option("--force", is_flag=True, help="Overwrite a report.")
def quality(
    *,
    real: str,
    synthetic: str,
    holdout: str,
    out: str,
    file: str | None,
    force: bool,
    **typed: Any,
) -> None:
    """Score synthetic samples against real ones that their generator never saw.

    Fidelity is measured against the hold-out only, beside what real samples reach (ceiling) and
    what worthless ones do (floor). Writes OUT/quality.html, quality.json and quality.csv.

    \b
    m1pipe quality --real train.h5ad --synthetic s.h5ad --holdout h.h5ad --out runs/quality
    m1pipe quality --real train.h5ad --synthetic s.h5ad --holdout h.h5ad --label tissue \\
        --rivals --out runs/quality
    """  # noqa: D301 - the backslash is click's mark for lines to be left as they are
    from m1pipe.workflow.quality_run import run_quality

    chosen = settings.build(
        QualityConfig,
        settings.read_config_file(file) if file else {},
        typed,
        where="quality",
    )
    report, line = run_quality(real, synthetic, holdout, out, chosen, force=force)
    for alarm in report.alarms:
        log.warning("%s", alarm)
    click.echo(line)
