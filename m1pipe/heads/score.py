"""A score fitted to other studies' labels: how it is fitted, and how much of it a head takes.

The head adds a multiple of the score, from 0 to 1, to its own penalised linear map. With few
labels of its own inner folds cannot tell the multiples apart: each weighs by its likelihood there,
and their mean is taken. What the genes add is fitted beside it, and drawn to the score by its
penalty where the head's own labels say nothing.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from m1pipe.data.targets import Targets
from m1pipe.data.transforms import GeneTransform
from m1pipe.errors import InputError
from m1pipe.heads.features import FeatureMap, rotate
from m1pipe.heads.inner_folds import inner_folds
from m1pipe.heads.linear import LinearPart, fit_linear

SHARES = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
FEWEST_STUDIES = 3
"""From so many on the penalty is chosen by leaving studies out."""
_SMALLEST_SPREAD = 0.1  # of the median one: a gene that hardly varies does not count for more


def fit_score(X: np.ndarray, targets: Targets, studies: np.ndarray) -> NDArray[np.float32]:
    """Ridge or logistic regression on genes, within studies.

    Shifts between studies are fitted beside the effects of the classes (or of the level) and taken
    off, so that neither these shifts nor the studies' shares of a class have a part in the score.
    Genes are scaled by their spread within studies and classes.

    Parameters
    ----------
    X : ndarray of float32, shape (n_samples, n_genes)
        Of other studies than those whose samples the score is to serve.
    targets : Targets
        Classes, or one level; of `contrasted` samples.
    studies : ndarray, shape (n_samples,)

    Returns
    -------
    ndarray of float32, shape (n_genes, n_outputs)
        What genes, in their units, are multiplied by: levels about a mean, or logits about a
        constant.
    """
    _, place = np.unique(studies.astype(str), return_inverse=True)
    in_study = np.eye(place.max() + 1)[place]
    if targets.is_classes:
        design = np.concatenate([in_study, np.eye(len(targets.names))[targets.values]], axis=1)
    else:
        values = (
            targets.values - in_study @ np.linalg.lstsq(in_study, targets.values, rcond=None)[0]
        )
        targets = replace(targets, values=values.astype(np.float32))
        design = np.concatenate([in_study, values], axis=1)
    effects = np.linalg.lstsq(design, X.astype(np.float64), rcond=None)[0]
    spread = (X - design @ effects).std(axis=0)
    spread = np.maximum(spread, _SMALLEST_SPREAD * (np.median(spread) or 1.0))
    centred = X - in_study @ effects[: in_study.shape[1]]
    several = in_study.shape[1] >= FEWEST_STUDIES
    fit = fit_linear(
        rotate(centred / spread),
        targets,
        folds=place if several else inner_folds(targets.values, targets.kind, None, 0),
        groups=studies if several else None,
        weight=None,
        judged=np.zeros(0, dtype=np.intp),
    )
    return np.asarray(fit.whole.weight.T / spread[:, None], dtype=np.float32)


def contrasted(targets: Targets, studies: np.ndarray) -> NDArray[np.intp]:
    """Rows of the studies that have two classes or more; all rows of levels.

    Raises
    ------
    InputError
        If there is none: a class that goes with its study cannot be told from it.
    """
    if not targets.is_classes:
        return np.arange(targets.n)
    table = pd.crosstab(studies.astype(str), targets.values)
    kept = table.index[(table > 0).sum(axis=1) > 1]
    rows = np.flatnonzero(np.isin(studies.astype(str), kept))
    if not rows.size:
        raise InputError(
            "source: expected a study that has samples of two classes; found none: a class that "
            "goes with its study cannot be told from it"
        )
    return rows


def mean_share(losses: np.ndarray, n_units: int, *, squared: bool) -> float:
    """Mean of `SHARES`, each weighed by its likelihood on left-out rows.

    Parameters
    ----------
    losses : ndarray, shape (n_shares,)
        Mean log losses, or mean squared errors of normal levels; NaN where nothing was left out.
    n_units : int
        Rows, or groups of them, that were left out.
    squared : bool
        Which of the two.

    >>> round(mean_share(np.array([9.0, 9.0, 9.0, 9.0, 1.0]), 20, squared=False), 3)
    1.0
    """
    if not np.isfinite(losses).all():
        return float(SHARES.mean())
    nats = n_units * (0.5 * np.log(np.maximum(losses, 1e-300)) if squared else losses)
    weight = np.exp(nats.min() - nats)
    return float(np.sum(SHARES * weight) / weight.sum())


def beside_score(features: FeatureMap, centre: np.ndarray) -> FeatureMap:
    """A map of features to which a score comes last; the score is centred, not scaled.

    Parameters
    ----------
    features : FeatureMap
        Of the other features.
    centre : ndarray, shape (n_outputs,)
        Mean score of the training rows.
    """
    scaler, n = features.scaler, centre.size
    location = np.concatenate([scaler.location, centre]).astype(np.float32)
    scale = np.concatenate([scaler.scale, np.ones(n)]).astype(np.float32)
    basis = features.basis
    if basis is not None:
        wide = np.zeros((len(basis) + n, basis.shape[1] + n), dtype=np.float32)
        wide[: len(basis), : basis.shape[1]] = basis
        wide[len(basis) :, basis.shape[1] :] = np.eye(n)
        basis = wide
    return FeatureMap(GeneTransform(scaler.kind, location, scale), basis)


def add_score(linear: LinearPart, share: float) -> LinearPart:
    """A linear map with a multiple of the score, whose columns come last."""
    own = share * np.eye(len(linear.weight), dtype=np.float32)
    return replace(linear, weight=np.concatenate([linear.weight, own], axis=1))
