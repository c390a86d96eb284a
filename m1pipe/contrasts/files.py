"""`m1pipe contrasts` and `m1pipe enrich`: files in, one h5ad out."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.atomic import PathLike, refuse_existing
from m1pipe.console import log
from m1pipe.contrasts.config import ContrastsConfig, EnrichConfig
from m1pipe.contrasts.differential import Contrasts, compute_contrasts, compute_halves
from m1pipe.contrasts.enrichment import enrich, names_in_sets, read_gmt
from m1pipe.data.duplicates import row_digests
from m1pipe.data.units import Units
from m1pipe.errors import InputError, M1Warning, counted
from m1pipe.io.reader import open_matrix, read_layer
from m1pipe.io.tables import read_table
from m1pipe.io.writer import write_matrix
from m1pipe.provenance import describe_input
from m1pipe.settings import in_words


def run_contrasts(
    counts: PathLike,
    design: PathLike | None,
    out: PathLike,
    config: ContrastsConfig,
    *,
    held_out: PathLike | None = None,
    force: bool = False,
) -> str:
    """Write the log fold changes of all studies: contrasts x genes.

    Parameters
    ----------
    counts : path
        Raw counts, samples x genes.
    design : path or None
        Table whose first column names the samples; None: the columns are among the annotations
        of `counts`.
    out : path
        h5ad: X log2 fold changes, layers statistic and padj, obs study, condition, n_case,
        n_control, samples, n_genes; what was skipped and why in `uns["m1pipe"]`.
    config : ContrastsConfig
    held_out : path, optional
        Another such file, of the same contrasts: each study's samples are split into two halves,
        one for either file.
    force : bool

    Returns
    -------
    str
        One line about what was written.
    """
    outs = [out] if held_out is None else [out, held_out]
    if held_out is not None and Path(held_out).resolve() == Path(out).resolve():
        raise InputError(f"--held-out: expected another file than --out; found {held_out}")
    for path in outs:
        refuse_existing(path, force=force)
    table = None if design is None else read_table(Path(design))
    with open_matrix(counts) as matrix:
        parts = (
            [compute_contrasts(matrix, table, config)]
            if held_out is None
            else compute_halves(matrix, table, config)
        )
        var = matrix.var
    source = _source(counts)
    for i, (path, found) in enumerate(zip(outs, parts, strict=True), start=1):
        half = "all" if held_out is None else f"half {i} of 2"
        record = _record(config, "contrasts") | source | {"samples": half}
        _write_contrasts(path, found, var, record, force=force)
    found = parts[0]
    n_studies = found.obs["study"].nunique()
    halves = "" if held_out is None else ", from disjoint halves of the samples"
    return (
        f"{' and '.join(map(str, outs))}: {counted(len(found.obs), 'contrast')} of {n_studies:,} "
        "studies x "
        f"{counted(len(var), 'gene')} by {config.method}{halves}, {len(found.skipped):,} skipped"
    )


def _write_contrasts(
    path: PathLike, found: Contrasts, var: pd.DataFrame, record: dict[str, Any], *, force: bool
) -> None:
    skipped = [f"{name}: {reason}" for name, reason in found.skipped]
    lost = {
        f"{len(found.skipped):,} comparisons": skipped,
        f"{counted(len(found.silent), 'sample')} without counts": list(found.silent),
    }
    for what, names in lost.items():
        if names:
            more = "; ..." if len(names) > 3 else ""
            log.warning("warning: %s: %s left out: %s%s", path, what, "; ".join(names[:3]), more)
    record["without_counts"] = _texts(list(found.silent))
    record["skipped"] = _texts(skipped)
    layers = {"statistic": found.statistic, "padj": found.padj}
    write_matrix(
        path, found.lfc, obs=found.obs, var=var, units=Units("log_fold_change"),
        uns={"m1pipe": record}, layers=layers, force=force,
    )  # fmt: skip


def run_enrich(
    lfc: PathLike, gene_sets: PathLike, out: PathLike, config: EnrichConfig, *, force: bool = False
) -> str:
    """Write which gene sets are enriched among the changes: contrasts x sets, 0 or 1.

    Parameters
    ----------
    lfc : path
        As `run_contrasts` writes, or any contrasts (signatures) x genes.
    gene_sets : path
        GMT.
    out : path
        h5ad: X 0 or 1, layers pvalue, padj and score, obs of `lfc` and fold_changes (a digest of
        those that a row was made from), var with the prevalence.
    config : EnrichConfig
    force : bool

    Returns
    -------
    str
        One line about what was written.
    """
    refuse_existing(out, force=force)
    sets = read_gmt(Path(gene_sets))
    with open_matrix(lfc) as matrix:
        values = matrix.take(np.arange(matrix.n_samples))
        genes = names_in_sets(matrix.var, sets)
        obs = matrix.obs.assign(fold_changes=row_digests(values))
        padj = read_layer(matrix, "padj")
    found = enrich(values, padj, genes, sets, config)
    for row, reason in found.skipped.items():
        text = f"{lfc}: {obs.index[row]} cannot be tested: {reason}; its row is NaN"
        warnings.warn(text, M1Warning, stacklevel=2)
    layers = {"pvalue": found.pvalue, "padj": found.padj, "score": found.score}
    record = (
        _record(config, "enrich")
        | _source(lfc)
        | {
            "background": "all genes measured in the contrast",
            "gene_sets": Path(gene_sets).name,
            "skipped": _texts([f"{obs.index[i]}: {why}" for i, why in found.skipped.items()]),
        }
    )
    write_matrix(
        out, found.enriched, obs=obs, var=found.var, units=Units(), uns={"m1pipe": record},
        layers=layers, force=force,
    )  # fmt: skip
    return (
        f"{out}: {counted(len(obs), 'contrast')} x {len(found.var):,} sets of {found.n_tested:,} "
        "tested, "
        f"{np.nanmean(found.enriched):.1%} enriched"
    )


def _record(config: Any, command: str) -> dict[str, Any]:
    return {"command": command, "settings": _texts(in_words(config))}


def _source(path: PathLike) -> dict[str, str]:
    """Name and SHA-256 of the file that something was made from."""
    return {"source": Path(path).name, "source_sha256": str(describe_input(path)["sha256"])}


def _texts(lines: list[str]) -> np.ndarray:
    return np.array(lines, dtype=object) if lines else np.array([""], dtype=object)
