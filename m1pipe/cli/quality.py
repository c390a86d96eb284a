"""`m1pipe quality`: synthetic samples scored against held-out ones."""

from typing import Any

import click

from m1pipe.cli.options import ALIASES, from_config, option, say, usage_checked
from m1pipe.console import log
from m1pipe.settings import read_config_file
from m1pipe.synthesis.config import QualityConfig


@click.command()
@option("--real", required=True, type=click.Path(), help="What the generator trained on.")
@option("--synthetic", required=True, type=click.Path(), help="The samples that it made.")
@option("--holdout", required=True, type=click.Path(), help="Real samples that it never saw.")
@option("--out", required=True, type=click.Path(), help="Folder of the report.")
@from_config(
    QualityConfig, "label group rivals preset max_genes max_samples n_resamples min_coverage"
)
@ALIASES
@from_config(QualityConfig, "seed")
@option("--config", "file", type=click.Path(), help="JSON or TOML with these settings.")
@option("--force", is_flag=True, help="Overwrite a report.")
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
    r"""Score synthetic samples against real ones that their generator never saw.

    Fidelity is measured against the hold-out only, beside what real samples and worthless ones
    (the floor) reach. Writes OUT/quality.html, quality.json and quality.csv.

    m1pipe quality --real train.h5ad --synthetic s.h5ad --holdout h.h5ad --out runs/quality
    m1pipe quality --real train.h5ad --synthetic s.h5ad --holdout h.h5ad --label tissue \
        --rivals --out runs/quality
    """
    from m1pipe.workflow.quality_run import run_quality

    chosen = usage_checked(
        QualityConfig,
        read_config_file(file) if file else {},
        typed,
        where="quality",
    )
    report, line = run_quality(real, synthetic, holdout, out, chosen, force=force)
    for alarm in report.alarms:
        log.warning("%s", alarm)
    say(line)
