"""Classifiers and their scores as the quality report uses them."""

import warnings

import numpy as np
from scipy import stats
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

N_TREES = 100
STRENGTH = 0.01


def logistic_scores(
    train: np.ndarray, codes: np.ndarray, test: np.ndarray, *, strength: float = STRENGTH
) -> np.ndarray:
    """Class probabilities by logistic regression with an L2 penalty.

    Where there are more columns than rows it is fitted in the coordinates of the rows, which
    gives the same solution.

    Parameters
    ----------
    train, test : ndarray, shape (n_samples, n_columns)
        Standardised alike.
    codes : ndarray of int, shape (n_train,)
        Columns of the result are the classes that occur, ascending.
    strength : float
        Inverse of the penalty (C of scikit-learn).

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
    model = LogisticRegression(C=strength, max_iter=300, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train, codes)
    found: np.ndarray = model.predict_proba(test)
    return found


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
    found: np.ndarray = model.predict_proba(test)
    return found


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a positive scores above a negative one, ties counted half.

    Parameters
    ----------
    positive, negative : ndarray, shape (n,), (m,)
    """
    n, m = len(positive), len(negative)
    ranks = stats.rankdata(np.concatenate([positive, negative]))
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def auc_error(
    positive: np.ndarray, negative: np.ndarray, groups: np.ndarray | None = None
) -> float:
    """Standard error of `auc`.

    Parameters
    ----------
    positive, negative : ndarray, shape (n,), (m,)
    groups : ndarray, shape (n,), optional
        Donors of the positive ones; their sums are then the independent units.

    References
    ----------
    DeLong et al. 1988, Biometrics 44:837; Obuchowski 1997, Biometrics 53:567 for clusters.
    """
    n, m = len(positive), len(negative)
    if min(n, m) < 2:
        return float("nan")
    both = stats.rankdata(np.concatenate([positive, negative]))
    v_pos = (both[:n] - stats.rankdata(positive)) / m
    v_neg = 1 - (both[n:] - stats.rankdata(negative)) / n
    centred = v_pos - v_pos.mean()
    codes = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(codes, weights=centred)
    if sums.size < 2:
        return float("nan")
    variance_pos = sums.size / (sums.size - 1) * (sums @ sums) / n**2
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
