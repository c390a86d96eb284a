"""Models that compress, compared by what they reconstruct of test folds: tables and tests.

R2 is 1 - squared residuals / squared deviations from the training means, on standardised genes:
pooled over all levels of a test fold, by gene, and by contrast (sample).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from m1pipe.evaluation.class_metrics import ratio
from m1pipe.evaluation.significance import (
    benjamini_hochberg,
    bootstrap_interval,
    group_means,
    holm,
    nadeau_bengio,
)

HEADLINE = "r2"
METRICS = (HEADLINE, "r2_gene_mean", "r2_gene_median", "r2_contrast_mean", "r2_contrast_median")
NETWORKS, RIVALS = ("ae", "vae"), ("pca", "pca_fold")
BY_CONTRAST = "r2_contrast_mean"


@dataclass(frozen=True, eq=False)
class FoldScores:
    """What one model of one latent size leaves of one test fold.

    Attributes
    ----------
    repeat, fold : int
        From 0.
    model : str
    n_latent, n_components : int
        Units asked for, and units that there are: PCA has at most its rows less one.
    errors, deviations : ndarray, shape (n_samples,)
        Mean squared residual, and deviation from the training means, of each test sample.
    sse, sst : ndarray, shape (n_genes,)
        Sums of these squares over the test samples, of each gene.
    samples, genes : ndarray of int64, shapes (n_samples,) and (n_genes,)
        Which they are.
    """

    repeat: int
    fold: int
    model: str
    n_latent: int
    n_components: int
    errors: np.ndarray
    deviations: np.ndarray
    sse: np.ndarray
    sst: np.ndarray
    samples: np.ndarray
    genes: np.ndarray


def r2_of(residuals: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """1 - residuals / deviations, NaN where nothing deviates.

    Parameters
    ----------
    residuals, deviations : ndarray, shape (n,)
        Squares, or means or sums of them over the same levels.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    return 1.0 - ratio(residuals, deviations)


def fold_table(scores: Sequence[FoldScores]) -> pd.DataFrame:
    """One row a fold, model and latent size.

    Returns
    -------
    DataFrame
        Columns repeat, fold, model, n_latent, n_components, n_test and `METRICS`.
    """
    rows = []
    for s in scores:
        genes, contrasts = r2_of(s.sse, s.sst), r2_of(s.errors, s.deviations)
        found = (
            1 - s.sse.sum() / s.sst.sum(),
            *(np.nanmean(genes), np.nanmedian(genes)),
            *(np.nanmean(contrasts), np.nanmedian(contrasts)),
        )
        place = (s.repeat, s.fold, s.model, s.n_latent, s.n_components, s.samples.size)
        rows.append((*place, *found))
    columns = ["repeat", "fold", "model", "n_latent", "n_components", "n_test", *METRICS]
    return pd.DataFrame(rows, columns=columns)


def summary_table(folds: pd.DataFrame, n_folds: int) -> pd.DataFrame:
    """Mean over folds of every model and latent size, with the interval of the headline.

    Parameters
    ----------
    folds : DataFrame, shape (n_rows, n_columns)
        From `fold_table`.
    n_folds : int
        Of a repeat.

    Returns
    -------
    DataFrame
        Columns model, n_latent, n_components (the fewest), `METRICS`, ci_low, ci_high (of r2: 95 %,
        by the variance of Nadeau and Bengio).
    """
    rows = []
    for (n_latent, model), part in folds.groupby(["n_latent", "model"], sort=False):
        test = nadeau_bengio(part[HEADLINE].to_numpy(), n_folds)
        means = {name: part[name].mean() for name in METRICS}
        sizes = {"n_latent": n_latent, "n_components": part["n_components"].min()}
        rows.append(
            {"model": model, **sizes, **means, "ci_low": test.ci_low, "ci_high": test.ci_high}
        )
    return pd.DataFrame(rows)


def compare_models(
    scores: Sequence[FoldScores], n_folds: int, *, groups: np.ndarray | None = None, seed: int = 0
) -> pd.DataFrame:
    """Differences of R2 between models of equal latent size.

    Parameters
    ----------
    scores : sequence of FoldScores
    n_folds : int
        Of a repeat.
    groups : ndarray, shape (n_samples,), optional
        Studies: the unit of the bootstrap.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        Columns n_latent, model_a, model_b, metric, test, difference (above 0: a is better),
        ci_low, ci_high, statistic, p, p_bh, p_holm, n_independent. The headline is Nadeau and
        Bengio's corrected t over folds; its corrections are over the declared family: every
        network against either PCA, at every latent size, in pooled R2. The bootstrap over
        contrasts (or studies), of the trained models at hand, has an interval and no p.
    """
    table = fold_table(scores)
    rows = []
    for n_latent in dict.fromkeys(table["n_latent"].tolist()):
        part = table[table["n_latent"] == n_latent]
        for a, b in _pairs(list(dict.fromkeys(part["model"]))):
            pair = {"n_latent": n_latent, "model_a": a, "model_b": b}
            for metric in METRICS:
                d = _by_fold(part, a, metric) - _by_fold(part, b, metric)
                test = vars(nadeau_bengio(d, n_folds))
                rows.append({**pair, "metric": metric, "test": "nadeau_bengio", **test})
            d = _by_contrast(scores, n_latent, a, b)
            units = d if groups is None else group_means(d, groups)
            low, high = bootstrap_interval(units, seed=seed)
            found = {"difference": units.mean(), "ci_low": low, "ci_high": high}
            rows.append(
                {
                    **pair,
                    "metric": BY_CONTRAST,
                    "test": "bootstrap",
                    **found,
                    "n_independent": len(units),
                }
            )
    return _corrected(pd.DataFrame(rows).drop(columns="effect"))


def _pairs(models: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Networks against both PCA, then against each other."""
    networks = [name for name in NETWORKS if name in models]
    yield from ((a, b) for a in networks for b in RIVALS if b in models)
    if len(networks) > 1:
        yield "vae", "ae"


def _by_fold(table: pd.DataFrame, model: str, metric: str) -> np.ndarray:
    """A metric of a model in every fold, in their order."""
    own = table[table["model"] == model].sort_values(["repeat", "fold"])
    return own[metric].to_numpy(dtype=np.float64)


def _by_contrast(scores: Sequence[FoldScores], n_latent: int, a: str, b: str) -> np.ndarray:
    """Difference of every sample's R2, mean over repeats; 0 where nothing deviates."""
    n = 1 + max(int(s.samples.max()) for s in scores)
    total, count = np.zeros(n), np.zeros(n)
    for s in scores:
        if s.n_latent == n_latent and s.model in (a, b):
            sign = 1.0 if s.model == a else -1.0
            total[s.samples] += sign * np.nan_to_num(r2_of(s.errors, s.deviations))
            count[s.samples] += 0.5
    return np.asarray(total / count)


def _corrected(table: pd.DataFrame) -> pd.DataFrame:
    """With adjusted p values over the declared family."""
    declared = (
        (table["metric"] == HEADLINE)
        & (table["test"] == "nadeau_bengio")
        & table["model_b"].isin(RIVALS)
    ).to_numpy()
    for name, adjust in (("p_bh", benjamini_hochberg), ("p_holm", holm)):
        table[name] = np.nan
        table.loc[declared, name] = adjust(table.loc[declared, "p"].to_numpy())
    order = ["n_latent", "model_a", "model_b", "metric", "test", "difference", "ci_low", "ci_high"]
    return table[[*order, "statistic", "p", "p_bh", "p_holm", "n_independent"]]


def gene_table(scores: Sequence[FoldScores], names: Mapping[int, str]) -> pd.DataFrame:
    """R2 of every gene over all test folds: columns gene, model, n_latent, r2."""
    parts = [
        pd.DataFrame(
            {"gene": s.genes, "model": s.model, "n_latent": s.n_latent, "sse": s.sse, "sst": s.sst}
        )
        for s in scores
    ]
    keys = ["n_latent", "model", "gene"]
    sums = pd.concat(parts).groupby(keys, sort=False)[["sse", "sst"]].sum().reset_index()
    sums["r2"] = r2_of(sums["sse"].to_numpy(), sums["sst"].to_numpy())
    sums["gene"] = sums["gene"].map(names)
    return sums[["gene", "model", "n_latent", "r2"]]


def contrast_table(scores: Sequence[FoldScores], names: Mapping[int, str]) -> pd.DataFrame:
    """R2 of every sample in its test fold: columns sample, repeat, fold, model, n_latent, r2."""
    parts = [
        pd.DataFrame(
            {
                "sample": [names[i] for i in s.samples],
                "repeat": s.repeat,
                "fold": s.fold,
                "model": s.model,
                "n_latent": s.n_latent,
                "r2": r2_of(s.errors, s.deviations),
            }
        )
        for s in scores
    ]
    return pd.concat(parts, ignore_index=True)
