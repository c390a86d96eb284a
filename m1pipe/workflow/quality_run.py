"""What `m1pipe quality` does: scores, and a folder with the report around them."""

import pandas as pd

from m1pipe.atomic import PathLike, atomic_folder, refuse_folder, write_json, write_text
from m1pipe.data.recipe import MISSING_FILE
from m1pipe.provenance import make_provenance
from m1pipe.reports.quality_report import PAGE, QUALITY_FILES, summary_line, write_quality
from m1pipe.settings import to_dict
from m1pipe.synthesis.config import QualityConfig
from m1pipe.synthesis.quality import QualityReport, quality

WHAT = "a quality report"
OWN_FILES = (*QUALITY_FILES, PAGE, "config.json", "provenance.json", MISSING_FILE)


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
        The answer in short.

    Raises
    ------
    InputError
        If the folder is taken, or the files do not fit together.
    """
    out = refuse_folder(out, OWN_FILES, what=WHAT, force=force)
    inputs = {"real": real, "synthetic": synthetic, "holdout": holdout}
    if config.aliases is not None:
        inputs["aliases"] = config.aliases
    provenance = make_provenance(inputs, folder=out, seed=config.seed)
    report = quality(real, synthetic, holdout, config=config)
    with atomic_folder(out, OWN_FILES, what=WHAT, force=force) as temporary:
        write_json(temporary / "config.json", to_dict(config))
        write_json(temporary / "provenance.json", provenance)
        write_quality(report, temporary, provenance=provenance)
        lacking = report.info["missing_genes"]
        rows = [(role, gene) for role, genes in lacking.items() for gene in genes]
        table = pd.DataFrame(rows, columns=["set", "gene"])
        write_text(temporary / MISSING_FILE, table.to_csv(index=False))
    return report, f"{out / PAGE}: {summary_line(report)}"
