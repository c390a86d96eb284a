"""How well classifiers, linear and by trees, tell samples from held-out ones."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from m1pipe.synthesis.learners import auc, auc_error, forest_scores, logistic_scores
from m1pipe.synthesis.score import SHARE, Z95, Definition, Score

N_FOLDS = 5
C2ST = (
    Definition(
        name="c2st_logistic",
        family="joint",
        title="logistic C2ST AUC",
        ideal="lower",
        within=SHARE,
        meaning="how well a linear classifier tells the samples from real ones; 0.5: not at all",
    ),
    Definition(
        name="c2st_forest",
        family="joint",
        title="forest C2ST AUC",
        ideal="lower",
        within=SHARE,
        meaning="the same by a random forest, which sees more than means",
    ),
)


@dataclass(frozen=True)
class Told:
    """Cross-validated AUC with its standard error."""

    auc: float
    error: float


def tell_apart(
    H: np.ndarray,
    A: np.ndarray,
    learner: str,
    *,
    groups: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
    seed: int,
) -> Told:
    """AUC of a classifier that tells A from H, on samples that it was not trained on.

    Parameters
    ----------
    H, A : ndarray, shape (n_samples, n_genes)
        Hold-out, and the samples to be judged, standardised alike; the same number of rows.
    learner : {"c2st_logistic", "c2st_forest"}
    groups : pair of ndarray of str or None
        Donors of H and of A: never on both sides of a fold.
    seed : int
        Of folds and forest.

    Returns
    -------
    Told

    References
    ----------
    Lopez-Paz & Oquab 2017, arXiv:1610.06545.
    """
    X = np.concatenate([H, A])
    truth = np.repeat([0, 1], [len(H), len(A)])
    units = _units(H, groups[0], "h") + _units(A, groups[1], "a")
    codes = np.unique(np.array(units, dtype=object), return_inverse=True)[1]
    donors = [np.unique(part).size for part in groups if part is not None]
    n_folds = min([N_FOLDS, *donors])
    if n_folds < 2:
        raise ValueError("all samples of one set are of one donor: there are no folds by donor")
    kind = StratifiedGroupKFold if donors else StratifiedKFold
    folds = kind(n_folds, shuffle=True, random_state=seed)
    found = []
    for train, test in folds.split(X, truth, codes if donors else None):
        if learner == "c2st_logistic":
            p = logistic_scores(X[train], truth[train], X[test])[:, 1]
        else:
            p = forest_scores(X[train], truth[train], X[test], seed=seed)[:, 1]
        found.append((p[truth[test] == 1], p[truth[test] == 0]))
    return _over_folds(found, by_donor=bool(donors))


def _over_folds(found: list[tuple[np.ndarray, np.ndarray]], *, by_donor: bool) -> Told:
    """Mean over folds of the AUC within each, weighted by pairs; folds of one set left out.

    Scores of different folds are not pooled: a fold with more of one set's samples to test has
    fewer to train on, which drives a pooled AUC below 0.5.
    """
    usable = [(a, h) for a, h in found if len(a) and len(h)]
    if not usable:
        raise ValueError("no fold holds samples of both sets: too few donors")
    weights = np.array([len(a) * len(h) for a, h in usable], dtype=float)
    weights /= weights.sum()
    values = np.array([auc(a, h) for a, h in usable])
    mean = float(weights @ values)
    if by_donor:
        spread = weights @ (values - mean) ** 2 / max(len(values) - 1, 1)
        error = float(np.sqrt(spread)) if len(values) > 1 else math.nan
    else:
        errors = np.array([auc_error(a, h) for a, h in usable])
        error = float(np.sqrt(np.sum((weights * errors) ** 2)))
    return Told(mean, error)


def _units(rows: np.ndarray, groups: np.ndarray | None, mark: str) -> list[str]:
    """Unit of each row: its donor where known, else itself."""
    if groups is None:
        return [f"{mark} {i}" for i in range(len(rows))]
    return [f"donor {name}" for name in groups]


def c2st_score(
    definition: Definition,
    told: Told,
    known: Mapping[tuple[str, str], Told],
    n_independent: int,
) -> Score:
    """An AUC as a score, beside those of real, shuffled and mildly corrupted samples.

    Parameters
    ----------
    definition : Definition
        One of `C2ST`.
    told : Told
    known : mapping of (score, "ceiling" or "floor" or "corrupted") to Told
    n_independent : int
    """
    nothing = Told(math.nan, math.nan)
    ceiling, floor, corrupted = (
        known.get((definition.name, role), nothing).auc
        for role in ("ceiling", "floor", "corrupted")
    )
    return Score(
        definition=definition,
        value=told.auc,
        low=told.auc - Z95 * told.error,
        high=told.auc + Z95 * told.error,
        n_independent=n_independent,
        ceiling=ceiling,
        floor=floor,
        corrupted=corrupted,
    )
