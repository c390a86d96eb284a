"""Classifier two-sample tests (C2ST), and the classifiers and scores that they rest on."""

import math
import warnings
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import stats
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from m1pipe.synthesis.scores import SHARE, Definition

N_TREES = 100
INVERSE_PENALTY = 0.01  # C of scikit-learn
N_FOLDS = 5
_definition = partial(Definition, "joint")
C2ST = (
    _definition(
        "c2st_logistic",
        "logistic C2ST AUC",
        "lower",
        "how well a linear classifier tells the samples from real ones; 0.5: not at all",
        SHARE,
    ),
    _definition(
        "c2st_forest",
        "forest C2ST AUC",
        "lower",
        "how well a random forest tells the samples from real ones; 0.5: not at all",
        SHARE,
    ),
)


class Auc(NamedTuple):
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
) -> Auc:
    """AUC of a classifier that tells A from H, on samples that it was not trained on.

    Parameters
    ----------
    H, A : ndarray, shape (n_samples, n_genes)
        Hold-out, and the samples to be scored, standardised alike; the same number of rows.
    learner : {"c2st_logistic", "c2st_forest"}
    groups : pair of ndarray of str or None
        Donors of H and of A: never on both sides of a fold.
    seed : int
        Of folds and forest.

    Returns
    -------
    Auc

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


def _over_folds(found: list[tuple[np.ndarray, np.ndarray]], *, by_donor: bool) -> Auc:
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
    return Auc(mean, error)


def _units(rows: np.ndarray, groups: np.ndarray | None, mark: str) -> list[str]:
    """Unit of each row: its donor where known, else itself."""
    if groups is None:
        return [f"{mark} {i}" for i in range(len(rows))]
    return [f"donor {name}" for name in groups]


def logistic_scores(train: np.ndarray, codes: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Class probabilities by logistic regression with an L2 penalty.

    Where there are more columns than rows it is fitted in the coordinates of the rows, which
    gives the same solution.

    Parameters
    ----------
    train, test : ndarray, shape (n_samples, n_columns)
        Standardised alike.
    codes : ndarray of int, shape (n_train,)
        Columns of the result are the classes that occur, ascending.

    Returns
    -------
    ndarray, shape (n_test, n_classes)

    Raises
    ------
    ValueError
        If there are fewer than two classes.
    """
    if train.shape[1] > len(train):
        basis, rows = np.linalg.qr(train.T)
        train, test = rows.T, test @ basis
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=300, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train, codes)
    return np.asarray(model.predict_proba(test))


def forest_scores(
    train: np.ndarray, codes: np.ndarray, test: np.ndarray, *, seed: int
) -> np.ndarray:
    """Class probabilities by a random forest.

    Parameters
    ----------
    train, test, codes
        As for `logistic_scores`.
    seed : int

    Returns
    -------
    ndarray, shape (n_test, n_classes)
    """
    model = RandomForestClassifier(N_TREES, min_samples_leaf=2, random_state=seed, n_jobs=1)
    model.fit(train, codes)
    return np.asarray(model.predict_proba(test))


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a positive scores above a negative one, ties counted half.

    Parameters
    ----------
    positive, negative : ndarray, shape (n,), (m,)
    """
    n, m = len(positive), len(negative)
    ranks = stats.rankdata(np.concatenate([positive, negative]))
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def auc_error(positive: np.ndarray, negative: np.ndarray) -> float:
    """Standard error of `auc`.

    Parameters
    ----------
    positive, negative : ndarray, shape (n,), (m,)

    References
    ----------
    DeLong et al. 1988, Biometrics 44:837.
    """
    n, m = len(positive), len(negative)
    if min(n, m) < 2:
        return float("nan")
    both = stats.rankdata(np.concatenate([positive, negative]))
    v_pos = (both[:n] - stats.rankdata(positive)) / m
    v_neg = 1 - (both[n:] - stats.rankdata(negative)) / n
    centred = v_pos - v_pos.mean()
    variance_pos = n / (n - 1) * (centred @ centred) / n**2
    return float(np.sqrt(variance_pos + v_neg.var(ddof=1) / m))


def balanced_accuracy(true: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over the classes that occur in `true` of the share of their samples that is found.

    Parameters
    ----------
    true, predicted : ndarray of int, shape (n_samples,)
    """
    classes, codes = np.unique(true, return_inverse=True)
    found = np.bincount(codes, weights=true == predicted, minlength=classes.size)
    return float((found / np.bincount(codes)).mean())
