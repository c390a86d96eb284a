"""What `m1pipe quality` does: scores, and a folder with the report around them."""

import os
from pathlib import Path

import pandas as pd

from m1pipe.atomic import atomic_folder, write_json, write_text
from m1pipe.errors import InputError
from m1pipe.recipe import MISSING_FILE
from m1pipe.reports.quality import summary_line, write_quality
from m1pipe.runs.provenance import make_provenance
from m1pipe.settings import to_dict
from m1pipe.synthesis.config import QualityConfig
from m1pipe.synthesis.quality import QualityReport, quality

PathLike = str | os.PathLike[str]


def run_quality(
    real: PathLike,
    synthetic: PathLike,
    holdout: PathLike,
    out: PathLike,
    config: QualityConfig,
    *,
    force: bool = False,
) -> tuple[QualityReport, str]:
    """Score synthetic samples and write the report's folder.

    Parameters
    ----------
    real, synthetic, holdout : path
        Files of samples: trained on, made, and never seen.
    out : path
        Folder with quality.html, quality.json, quality.csv, config.json, provenance.json, and
        missing_genes.csv (columns set and gene).
    config : QualityConfig
    force : bool
        Overwrite an earlier report.

    Returns
    -------
    report : QualityReport
    line : str
        The headline scores.

    Raises
    ------
    InputError
        If the folder is taken, or the files do not fit together.
    """
    out = Path(out)
    _refuse_folder(out, force)
    inputs = {"real": real, "synthetic": synthetic, "holdout": holdout}
    if config.aliases is not None:
        inputs["aliases"] = config.aliases
    provenance = make_provenance(inputs, folder=out, seed=config.seed)
    report = quality(real, synthetic, holdout, config=config)
    with atomic_folder(out, force=True) as temporary:
        write_json(temporary / "config.json", to_dict(config))
        write_json(temporary / "provenance.json", provenance)
        write_quality(report, temporary, provenance=provenance)
        lacking = report.info["missing_genes"]
        rows = [(role, gene) for role, genes in lacking.items() for gene in genes]
        table = pd.DataFrame(rows, columns=["set", "gene"])
        write_text(temporary / MISSING_FILE, table.to_csv(index=False))
    return report, f"{out / 'quality.html'}: {summary_line(report)}"


def _refuse_folder(out: Path, force: bool) -> None:
    """Refuse a folder that is taken; with `force` only one that holds no quality report."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / "quality.json").exists():
        raise InputError(f"{out} exists already and is no quality report: choose another name")
    if not force:
        raise InputError(
            f"{out} holds a quality report: choose another name, or overwrite with --force"
        )
