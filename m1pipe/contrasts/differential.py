"""Log2 fold changes with moderated statistics, study by study, by the libraries of the field."""

import importlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import starmap
from multiprocessing import get_context
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control
from scipy.stats import t as student_t

from m1pipe.console import progress
from m1pipe.contrasts.config import ContrastsConfig
from m1pipe.contrasts.design import CONTROL, Skipped, StudyDesign, design_matrix, plan_studies
from m1pipe.data.matrix import Matrix, check_finite
from m1pipe.data.unit_guess import check_units
from m1pipe.errors import InputError
from m1pipe.settings import optional_package

_PRIOR_COUNT = 2.0
_MIN_TOTAL = 15.0
_FEWEST_GENES = 10
Statistics = list[np.ndarray]  # lfc, statistic and padj, each (n_cases, n_genes)


@dataclass(frozen=True, eq=False)
class Contrasts:
    """Log fold changes of many contrasts.

    Attributes
    ----------
    obs : DataFrame
        Index: STUDY:CONDITION. Columns: study, condition, n_case, n_control, samples (their ids,
        separated by semicolons), n_genes (tested).
    lfc, statistic, padj : ndarray of float32, shape (n_contrasts, n_genes)
        log2 fold change of the condition against the controls; its moderated t (limma) or Wald
        statistic (DESeq2); p-value adjusted within the contrast by Benjamini and Hochberg. NaN for
        genes too rare to test, unless zero was asked for.
    skipped : list of Skipped
    silent : tuple of str
        Samples without any count, which took no part.
    """

    obs: pd.DataFrame
    lfc: np.ndarray
    statistic: np.ndarray
    padj: np.ndarray
    skipped: list[Skipped]
    silent: tuple[str, ...] = ()


def compute_contrasts(
    matrix: Matrix,
    design: pd.DataFrame | None,
    config: ContrastsConfig,
    *,
    half: int | None = None,
) -> Contrasts:
    """Compare every condition of every study with the study's controls.

    Parameters
    ----------
    matrix : Matrix
        Raw counts.
    design : DataFrame, shape (n_samples, n_columns), or None
        As for `plan_studies`.
    config : ContrastsConfig
    half : int, optional
        As for `plan_studies`.

    Returns
    -------
    Contrasts

    Raises
    ------
    InputError
        If the values are not counts, nothing can be compared, or the library is not installed.
    """
    _check_library(config)
    if not matrix.units.is_counts:
        raise InputError(
            f"{matrix.path or 'counts'}: expected raw counts; found {matrix.units}: convert the "
            "source with --units counts and neither --normalize nor --log2p1"
        )
    check_units(matrix)
    counted = _counted(matrix)
    studies, skipped = plan_studies(matrix, design, config, half=half, usable=counted)
    if not studies:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped[:3])
        raise InputError(f"contrasts: expected a study with cases and controls; found {reasons}")
    fitted: list[Statistics] = []
    done = progress(_fit_all(matrix, studies, config), total=len(studies), label="studies")
    for study, found in zip(studies, done, strict=True):
        if isinstance(found, str):
            skipped.append((study.name, found))
        else:
            fitted.append(found)
    lost = {name for name, _ in skipped}
    used = [study for study in studies if study.name not in lost]
    gathered = _gathered(used, fitted, skipped, matrix.samples)
    return replace(gathered, silent=tuple(map(str, matrix.samples[~counted])))


def compute_halves(
    matrix: Matrix, design: pd.DataFrame | None, config: ContrastsConfig
) -> tuple[Contrasts, Contrasts]:
    """Contrasts of two disjoint halves of the samples, the same ones in the same order.

    Parameters
    ----------
    matrix : Matrix
        Raw counts.
    design : DataFrame, shape (n_samples, n_columns), or None
        As for `compute_contrasts`.
    config : ContrastsConfig

    Returns
    -------
    first, second : Contrasts
        No sample of a contrast (nor subject, with `config.subject`) is in both. A contrast that
        only one half has is among the skipped ones.

    Raises
    ------
    InputError
        If no contrast has samples enough in both halves.
    """
    first, second = (compute_contrasts(matrix, design, config, half=half) for half in (1, 2))
    shared = [name for name in first.obs.index if name in second.obs.index]
    if not shared:
        raise InputError(
            f"contrasts: expected one with {config.min_samples} samples a side in each half; found "
            "none: lower --min-samples, or leave out --held-out"
        )
    return _only(first, shared), _only(second, shared)


def _only(found: Contrasts, names: list[str]) -> Contrasts:
    """Some of the contrasts; the others are skipped."""
    rows = found.obs.index.get_indexer(pd.Index(names))
    others = found.obs.index.drop(names)
    lost = [(str(name), "not in the other half") for name in others]
    parts = {name: getattr(found, name)[rows] for name in ("lfc", "statistic", "padj")}
    return replace(found, obs=found.obs.iloc[rows], skipped=[*found.skipped, *lost], **parts)


def _counted(matrix: Matrix) -> np.ndarray:
    """Which samples have any count: without one no library size can be estimated."""
    found = np.zeros(matrix.n_samples, dtype=bool)
    for start, stop, X in matrix.blocks():
        found[start:stop] = (X != 0).any(axis=1)
    return found


def fit_study(counts: np.ndarray, study: StudyDesign, config: ContrastsConfig) -> Statistics | str:
    """Statistics of one study.

    Parameters
    ----------
    counts : ndarray, shape (n_samples, n_genes)
        Of the study's samples, runs summed.
    study : StudyDesign
    config : ContrastsConfig

    Returns
    -------
    list of ndarray of float32, shape (n_cases, n_genes), or str
        Log fold changes, statistics, adjusted p-values; or why nothing could be fitted.
    """
    fewest = min(int((study.condition == c).sum()) for c in (CONTROL, *study.cases))
    kept = expressed(counts, fewest, config.min_count)
    if kept.sum() < _FEWEST_GENES:
        return f"{int(kept.sum())} genes with enough counts"
    way = _by_limma if config.method == "limma" else _by_deseq2
    shape = (len(study.cases), counts.shape[1])
    rest = 0.0 if config.unexpressed == "zero" else np.nan
    parts = []
    try:
        found = way(counts[:, kept], study)
    except (ValueError, ArithmeticError, LookupError, np.linalg.LinAlgError, RuntimeError) as error:
        return f"could not be fitted by {config.method}: {' '.join(str(error).split())[:200]}"
    for values, fill in zip(found, (rest, rest, 1.0 + rest), strict=True):
        whole = np.full(shape, fill, dtype=np.float32)
        whole[:, kept] = values
        parts.append(whole)
    return parts


def expressed(counts: np.ndarray, n_samples: int, min_count: float) -> np.ndarray:
    """Genes with counts enough to be tested (edgeR's filterByExpr; Chen, Lun, Smyth 2016).

    Parameters
    ----------
    counts : ndarray, shape (n_samples, n_genes)
    n_samples : int
        Samples in which a gene must reach the level that is `min_count` in a library of the
        median size.
    min_count : float

    Returns
    -------
    ndarray of bool, shape (n_genes,)
    """
    totals = counts.sum(axis=1)
    level = min_count / max(float(np.median(totals)), 1.0)
    often = (counts >= level * totals[:, None]) & (counts > 0)
    return np.asarray((often.sum(axis=0) >= n_samples) & (counts.sum(axis=0) >= _MIN_TOTAL))


def log_cpm(counts: np.ndarray, size_factors: np.ndarray) -> np.ndarray:
    """log2 counts per million with edgeR's prior count, which shrinks changes of rare genes.

    The prior, 2 counts in an average library, is scaled with each library, so that equal
    proportions give equal values (Law et al. 2014; edgeR's `cpm(log=TRUE)`).

    Parameters
    ----------
    counts : ndarray, shape (n_samples, n_genes)
    size_factors : ndarray, shape (n_samples,)
        Relative sizes of the libraries.

    Returns
    -------
    ndarray of float64, shape (n_samples, n_genes)
    """
    totals = counts.sum(axis=1)
    sizes = size_factors / np.exp(np.log(size_factors).mean()) * np.exp(np.log(totals).mean())
    prior = _PRIOR_COUNT * sizes / sizes.mean()
    shares = (counts + prior[:, None]) / (sizes + 2 * prior)[:, None]
    return np.asarray(np.log2(shares) + np.log2(1e6))


def _by_limma(counts: np.ndarray, study: StudyDesign) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """limma-trend (Law et al. 2014; Phipson et al. 2016), as ported by inmoose."""
    limma = importlib.import_module("inmoose.limma")
    sizes = importlib.import_module("inmoose.deseq2.estimateSizeFactors")
    everywhere = bool((counts > 0).all(axis=0).any())
    kind = "ratio" if everywhere else "poscounts"
    factors = np.asarray(sizes.estimateSizeFactorsForMatrix(pd.DataFrame(counts), type_=kind))
    design = pd.DataFrame(design_matrix(study))
    design.columns = [f"x{i}" for i in range(design.shape[1])]
    fit = limma.lmFit(pd.DataFrame(log_cpm(counts, factors).T), design=design)
    lfc, unscaled = (np.asarray(part) for part in (fit.coefficients, fit.stdev_unscaled))
    t, p = moderated_t(
        lfc, unscaled, np.asarray(fit.sigma), np.asarray(fit.df_residual), np.asarray(fit.Amean)
    )
    cases = slice(1, 1 + len(study.cases))
    return lfc[:, cases].T, t[:, cases].T, adjusted(p[:, cases].T)


def moderated_t(
    lfc: np.ndarray, unscaled: np.ndarray, sigma: np.ndarray, df: np.ndarray, level: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Student's t with variances drawn to their trend (Smyth 2004; Phipson et al. 2016).

    The prior is estimated by inmoose's `squeezeVar`, as its `eBayes(trend=True)` does, which
    itself fails where the prior has infinitely many degrees of freedom (0.9.1).

    Parameters
    ----------
    lfc, unscaled : ndarray, shape (n_genes, n_coefficients)
        Coefficients and their standard errors for a residual variance of 1.
    sigma, df, level : ndarray, shape (n_genes,)
        Residual standard deviation, its degrees of freedom, mean log expression.

    Returns
    -------
    t, p : ndarray of float64, shape (n_genes, n_coefficients)
        Two-sided p-values.
    """
    limma = importlib.import_module("inmoose.limma")
    found = limma.squeezeVar(sigma**2, df, covariate=level)
    t = lfc / unscaled / np.sqrt(np.asarray(found["var_post"]))[:, None]
    total = np.minimum(df + np.asarray(found["df_prior"]), df.sum())
    return t, 2 * student_t.sf(np.abs(t), np.broadcast_to(total, df.shape)[:, None])


def _by_deseq2(counts: np.ndarray, study: StudyDesign) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Negative binomial Wald tests (Love et al. 2014), as ported by PyDESeq2; no outlier filter."""
    dds = importlib.import_module("pydeseq2.dds")
    ds = importlib.import_module("pydeseq2.ds")
    names = [f"s{i}" for i in range(len(counts))]
    design = pd.DataFrame(design_matrix(study), index=names)
    design.columns = ["intercept", *(f"x{i}" for i in range(1, design.shape[1]))]
    table = pd.DataFrame(np.rint(counts).astype(np.int64), index=names)
    table.columns = [f"g{j}" for j in range(counts.shape[1])]
    data = dds.DeseqDataSet(counts=table, metadata=design, design=design, quiet=True, n_cpus=1)
    data.deseq2()
    found = []
    for i in range(len(study.cases)):
        contrast = np.eye(design.shape[1])[1 + i]
        options = {"cooks_filter": False, "independent_filter": False, "quiet": True, "n_cpus": 1}
        stats = ds.DeseqStats(data, contrast=contrast, **options)
        stats.summary()
        found.append(stats.results_df[["log2FoldChange", "stat", "pvalue"]].to_numpy().T)
    lfc, statistic, p = np.stack(found, axis=1)
    return lfc, statistic, adjusted(p)


def adjusted(pvalue: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg within each contrast; NaN stays.

    Parameters
    ----------
    pvalue : ndarray, shape (n_contrasts, n_tests)

    Returns
    -------
    ndarray of float64, shape (n_contrasts, n_tests)
    """
    out = np.full(pvalue.shape, np.nan)
    for row, values in zip(out, pvalue, strict=True):
        known = np.isfinite(values)
        row[known] = false_discovery_control(np.clip(values[known], 0, 1))
    return out


def _check_library(config: ContrastsConfig) -> None:
    module = {"limma": "inmoose", "deseq2": "pydeseq2"}[config.method]
    way = f" for --method {config.method}"
    optional_package(module, "contrasts", config.method, way=way)


def _fit_all(
    matrix: Matrix, studies: Sequence[StudyDesign], config: ContrastsConfig
) -> Iterator[Statistics | str]:
    """Results in the order of the studies; counts are read one study ahead of each process."""
    read = ((_counts(matrix, study), study, config) for study in studies)
    if config.n_jobs == 1 or len(studies) == 1:
        yield from starmap(fit_study, read)
        return
    with ProcessPoolExecutor(config.n_jobs, mp_context=get_context("spawn")) as pool:
        waiting: list[Any] = []
        for inputs in read:
            waiting.append(pool.submit(fit_study, *inputs))
            if len(waiting) > config.n_jobs:
                yield waiting.pop(0).result()
        for one in waiting:
            yield one.result()


def _counts(matrix: Matrix, study: StudyDesign) -> np.ndarray:
    """Counts of a study's samples, runs summed."""
    rows = np.concatenate(study.rows)
    order = np.argsort(rows, kind="stable")
    values = np.empty((rows.size, matrix.n_genes), dtype=np.float64)
    values[order] = matrix.take(rows[order])
    check_finite(values, matrix, rows)
    if (values < 0).any():
        raise InputError(
            f"{matrix.path or 'counts'}: expected counts; found negative values: give raw counts"
        )
    starts = np.cumsum([0, *(part.size for part in study.rows[:-1])])
    return np.add.reduceat(values, starts, axis=0)


def _gathered(
    studies: Sequence[StudyDesign],
    fitted: Sequence[Statistics],
    skipped: list[Skipped],
    samples: np.ndarray,
) -> Contrasts:
    if not fitted:
        raise InputError(f"contrasts: expected a study that can be fitted; {skipped[0][1]}")
    records = []
    for study in studies:
        n_control = int((study.condition == CONTROL).sum())
        for case in study.cases:
            n_case = int((study.condition == case).sum())
            ids = _named(study, case, samples)
            records.append((study.name, case, n_case, n_control, ids))
    lfc, statistic, padj = map(np.concatenate, zip(*fitted, strict=True))
    columns = ["study", "condition", "n_case", "n_control", "samples"]
    obs = pd.DataFrame(records, columns=columns)
    obs.index = pd.Index([f"{study}:{case}" for study, case, *_ in records], dtype=object)
    obs["n_genes"] = (np.isfinite(lfc) & (statistic != 0)).sum(axis=1)
    return Contrasts(obs, lfc, statistic, padj, skipped)


def _named(study: StudyDesign, case: str, samples: np.ndarray) -> str:
    """Ids of the samples that a condition and its controls have."""
    mine = np.isin(study.condition, (CONTROL, case))
    rows = np.concatenate([part for part, inside in zip(study.rows, mine, strict=True) if inside])
    return ";".join(samples[np.sort(rows)].astype(str))
