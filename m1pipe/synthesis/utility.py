"""Utility: what a classifier learns from synthetic samples, beside what it learns from real."""

from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

from m1pipe import seeds
from m1pipe.synthesis.c2st import balanced_accuracy, logistic_scores
from m1pipe.synthesis.config import QualityConfig
from m1pipe.synthesis.marginal import pearson
from m1pipe.synthesis.resampling import bootstrapped, units_of_rows
from m1pipe.synthesis.scores import CORRELATION, SHARE, Definition, Score, Values

N_BOOTSTRAPS = 400
SHARE_DRAWN = 0.8
FDR = 0.05
FEWEST = 4  # samples of a class, for a test of differential expression
_definition = partial(Definition, "utility")
UTILITY = (
    _definition(
        "trtr", "TRTR", "shown", "balanced accuracy: trained on real, tested on hold-out", SHARE
    ),
    _definition("tstr", "TSTR", "higher", "trained on synthetic, tested on hold-out", SHARE),
    _definition(
        "trts", "TRTS", "shown", "trained on real, tested on synthetic: high also if easy", SHARE
    ),
    _definition(
        "tstr_over_trtr", "TSTR / TRTR, above chance", "one", "what of the real signal is learned"
    ),
    _definition("trts_over_trtr", "TRTS / TRTR, above chance", "one", "above 1: classes too clean"),
    _definition(
        "augmentation_gain",
        "augmentation gain",
        "higher",
        "balanced accuracy gained by adding as many synthetic to the real ones",
    ),
    _definition(
        "gain_bootstrap", "gain, bootstrap control", "shown", "the same, adding real ones again"
    ),
    _definition(
        "gain_class_gaussian",
        "gain, class-Gaussian control",
        "shown",
        "the same, adding samples of each class's own normal distribution",
    ),
)
EXPRESSION = (
    _definition(
        "de_r",
        "log fold changes, r",
        "higher",
        "each class against the rest: correlation over genes",
        CORRELATION,
    ),
    _definition(
        "de_recovery",
        "changed genes found",
        "higher",
        "of those found in the hold-out, at 5 % FDR",
        SHARE,
    ),
    _definition(
        "de_false",
        "changed genes, others",
        "lower",
        "share of those found that the hold-out lacks",
        SHARE,
    ),
)


class ClassedRows(NamedTuple):
    """Samples with their classes as whole numbers."""

    X: np.ndarray
    codes: np.ndarray

    def take(self, rows: np.ndarray) -> "ClassedRows":
        """Some of them."""
        return ClassedRows(self.X[rows], self.codes[rows])

    def with_more(self, other: "ClassedRows") -> "ClassedRows":
        """These and others."""
        return ClassedRows(*map(np.concatenate, zip(self, other, strict=True)))


def rows_with_class(X: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> ClassedRows:
    """Samples whose label is one of the classes.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_genes)
    labels : ndarray of str, shape (n_samples,)
    classes : ndarray of str, shape (n_classes,)
        Sorted.
    """
    known = np.isin(labels, classes)
    return ClassedRows(X[known], np.searchsorted(classes, labels[known]))


def utility_scores(
    real: ClassedRows,
    synthetic: ClassedRows,
    holdout: ClassedRows,
    config: QualityConfig,
    groups: np.ndarray | None = None,
) -> list[Score]:
    """All scores in `UTILITY`: the same learner, the same test samples, several draws.

    Parameters
    ----------
    real, synthetic, holdout : ClassedRows
        Standardised alike.
    config : QualityConfig
        Its seeds: each draws the same number of real and of synthetic training samples.
    groups : ndarray of str, shape (n_holdout,), optional
        Donors of the hold-out, which intervals are over.

    Raises
    ------
    ValueError
        If a set has fewer than two classes.
    """
    for name, rows in (("real", real), ("synthetic", synthetic), ("held-out", holdout)):
        n_classes = np.unique(rows.codes).size
        if n_classes < 2:
            raise ValueError(f"the {name} samples have {n_classes} of the classes: two are needed")
    size = int(SHARE_DRAWN * min(len(real.codes), len(synthetic.codes), config.max_samples))
    found = [_one_seed(real, synthetic, holdout, size, [config.seed, 6, i]) for i in
             range(config.n_seeds)]  # fmt: skip
    value = _summaries(_mean_accuracies(found, holdout.codes))
    rng = seeds.rng(config.seed, seeds.UTILITY_BOOTSTRAP)
    draws = _bootstrap(found, holdout.codes, groups, rng)
    n_units = len(holdout.codes) if groups is None else np.unique(groups).size
    return [_score(definition, value, draws, n_units) for definition in UTILITY]


class _Predictions(NamedTuple):
    """Predicted classes of one seed: of the hold-out by training set, and of synthetic samples."""

    on_holdout: dict[str, np.ndarray]
    on_synthetic: np.ndarray
    synthetic_codes: np.ndarray


def _one_seed(
    real: ClassedRows, synthetic: ClassedRows, holdout: ClassedRows, size: int, seed: list[int]
) -> _Predictions:
    rng = np.random.default_rng(seed)
    x = real.take(rng.permutation(len(real.codes))[:size])
    order = rng.permutation(len(synthetic.codes))
    s, tested = synthetic.take(order[:size]), synthetic.take(order[: len(holdout.codes)])
    again = x.take(rng.integers(0, size, size))
    sets = {
        "trtr": x,
        "tstr": s,
        "augmentation_gain": x.with_more(s),
        "gain_bootstrap": x.with_more(again),
        "gain_class_gaussian": x.with_more(class_gaussian(x, size, rng)),
    }
    return _Predictions(
        {name: _predict(train, holdout.X) for name, train in sets.items()},
        _predict(x, tested.X),
        tested.codes,
    )


def _predict(train: ClassedRows, X: np.ndarray) -> np.ndarray:
    classes = np.unique(train.codes)
    if classes.size < 2:
        raise ValueError("a draw of training samples has one class only: too few samples")
    return np.asarray(classes[logistic_scores(train.X, train.codes, X).argmax(axis=1)])


def class_gaussian(rows: ClassedRows, n: int, rng: np.random.Generator) -> ClassedRows:
    """Samples of a normal distribution with each class's mean and covariance, classes as they come.

    Parameters
    ----------
    rows : ClassedRows
    n : int
        Samples wanted.
    rng : Generator
    """
    codes = np.sort(rng.choice(rows.codes, n))
    parts = []
    for code, wanted in zip(*np.unique(codes, return_counts=True), strict=True):
        own = rows.X[rows.codes == code]
        mean = own.mean(axis=0)
        draw = rng.standard_normal((wanted, len(own))) / np.sqrt(max(len(own) - 1, 1))
        parts.append(mean + draw @ (own - mean))
    return ClassedRows(np.concatenate(parts).astype(rows.X.dtype), codes)


def _mean_accuracies(found: list[_Predictions], true: np.ndarray) -> dict[str, float]:
    """Balanced accuracies, mean over seeds; and those of chance."""
    out = {
        name: float(np.mean([balanced_accuracy(true, seed.on_holdout[name]) for seed in found]))
        for name in found[0].on_holdout
    }
    accuracies = [balanced_accuracy(s.synthetic_codes, s.on_synthetic) for s in found]
    out["trts"] = float(np.mean(accuracies))
    out["chance"] = 1 / np.unique(true).size
    out["chance_synthetic"] = float(np.mean([1 / np.unique(s.synthetic_codes).size for s in found]))
    return out


def _summaries(accuracy: dict[str, float]) -> dict[str, float]:
    """Every score in `UTILITY` from the accuracies."""
    out = {name: accuracy[name] for name in ("trtr", "tstr", "trts")}
    above = accuracy["trtr"] - accuracy["chance"]
    out["tstr_over_trtr"] = (accuracy["tstr"] - accuracy["chance"]) / above if above > 0 else np.nan
    above_synthetic = accuracy["trts"] - accuracy["chance_synthetic"]
    out["trts_over_trtr"] = above_synthetic / above if above > 0 else np.nan
    for name in ("augmentation_gain", "gain_bootstrap", "gain_class_gaussian"):
        out[name] = accuracy[name] - accuracy["trtr"]
    return out


def _bootstrap(
    found: list[_Predictions], true: np.ndarray, groups: np.ndarray | None, rng: np.random.Generator
) -> list[dict[str, float]]:
    """Summaries with donors (or samples) of the hold-out and seeds drawn with replacement."""
    units = units_of_rows(len(true), groups)
    draws = []
    for _ in range(N_BOOTSTRAPS):
        rows = bootstrapped(units, rng)
        drawn = [found[i] for i in rng.integers(0, len(found), len(found))]
        picked = [_resampled(seed, rows, rng) for seed in drawn]
        draws.append(_summaries(_mean_accuracies(picked, true[rows])))
    return draws


def _resampled(seed: _Predictions, rows: np.ndarray, rng: np.random.Generator) -> _Predictions:
    own = rng.integers(0, len(seed.synthetic_codes), len(seed.synthetic_codes))
    predicted = {name: p[rows] for name, p in seed.on_holdout.items()}
    return _Predictions(predicted, seed.on_synthetic[own], seed.synthetic_codes[own])


def _score(
    definition: Definition, value: dict[str, float], draws: list[dict[str, float]], n_units: int
) -> Score:
    here = value[definition.name]
    if not np.isfinite(here):
        reason = "a classifier trained on real samples is no better than chance"
        return Score(definition=definition, error=reason)
    drawn = np.array([draw[definition.name] for draw in draws])
    low, high = np.quantile(drawn[np.isfinite(drawn)], [0.025, 0.975])
    return Score(
        definition=definition,
        value=here,
        low=float(low),
        high=float(high),
        ceiling=value["trtr"] if definition.name == "tstr" else np.nan,
        floor=np.nan,
        n_independent=n_units,
    )


def expression_scores(H: np.ndarray, A: np.ndarray) -> Values:
    """Agreement on which genes tell each class from the rest, mean over classes.

    Welch's t per gene, Benjamini-Hochberg at `FDR`.

    Parameters
    ----------
    H, A : ndarray, shape (n_samples, n_genes + 1)
        Hold-out, and the samples to be scored; the last column is the class.

    Returns
    -------
    mapping of every name in `EXPRESSION` to a float

    Raises
    ------
    ValueError
        If no class has `FEWEST` samples, and as many beside it, in both.
    """
    out: dict[str, list[float]] = {definition.name: [] for definition in EXPRESSION}
    for code in np.unique(H[:, -1]):
        here = [rows[:, -1] == code for rows in (H, A)]
        if min(min(mask.sum(), (~mask).sum()) for mask in here) < FEWEST:
            continue
        (fold_h, found_h), (fold_a, found_a) = (
            _changes(rows[:, :-1], mask) for rows, mask in zip((H, A), here, strict=True)
        )
        both = (found_h & found_a).sum()
        out["de_r"].append(pearson(fold_h, fold_a))
        if found_h.any():
            out["de_recovery"].append(both / found_h.sum())
        if found_a.any():
            out["de_false"].append(1 - both / found_a.sum())
    if not out["de_r"]:
        raise ValueError(f"no class has {FEWEST} samples, and as many beside it, in both sets")
    return {
        name: float(np.mean(values)) if values else "no gene is found to change"
        for name, values in out.items()
    }


def _changes(X: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Difference of the class's mean to the others' for every gene, and which are significant."""
    a, b = X[mask].astype(np.float64), X[~mask].astype(np.float64)
    gap = a.mean(axis=0) - b.mean(axis=0)
    v_a, v_b = a.var(axis=0, ddof=1) / len(a), b.var(axis=0, ddof=1) / len(b)
    error = v_a + v_b
    varies = error > 1e-12
    p = np.ones(gap.size)
    df = error[varies] ** 2 / (v_a[varies] ** 2 / (len(a) - 1) + v_b[varies] ** 2 / (len(b) - 1))
    p[varies] = 2 * stats.t.sf(np.abs(gap[varies]) / np.sqrt(error[varies]), df)
    return gap, multipletests(p, alpha=FDR, method="fdr_bh")[0]
