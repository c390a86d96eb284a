"""How probable it is that two models are practically the same: the Bayesian correlated t-test.

With a flat prior the posterior of the mean difference over the folds of a cross-validation is a
Student t, shifted and scaled, whose variance has the same correction for overlapping training sets
as the headline test. Differences within a region of practical equivalence count as none.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from m1pipe.config import CrossvalConfig
from m1pipe.evaluation.compare import fold_differences
from m1pipe.evaluation.compared_models import Pair
from m1pipe.evaluation.significance import as_losses

ROPE = CrossvalConfig.rope
"""Half width of the region of practical equivalence, as a share of the second model's loss."""


def correlated_t(differences: ArrayLike, n_folds: int, *, rope: float) -> dict[str, float]:
    """Posterior of the mean difference over the folds of (repeated) k-fold.

    Parameters
    ----------
    differences : array_like, shape (n_repeats * n_folds,)
        Difference of the mean test losses of every fold.
    n_folds : int
        k of one repeat: the correlation of two folds is taken as 1 / k.
    rope : float
        Half width of the region of practical equivalence, in units of the loss; >= 0.

    Returns
    -------
    dict of str to float
        p_lower (d below -rope: a is better), p_same (within) and p_higher (above it: a is worse),
        which add up to 1, of a Student t with J - 1 degrees of freedom, location mean(d) and
        squared scale (1/J + 1/(k-1)) * s^2. Where all differences are equal, all of it lies at
        their mean.

    Raises
    ------
    ValueError
        If there are fewer than two folds or differences, or the region is negative.

    References
    ----------
    Corani & Benavoli 2015, Machine Learning 100:285 (equation 13); Benavoli, Corani, Demsar &
    Zaffalon 2017, JMLR 18(77):1 (section 4.1).
    """
    d = as_losses(differences)
    if n_folds < 2 or d.size < 2:
        raise ValueError(f"folds: expected at least 2; found {n_folds} and {d.size} differences")
    if rope < 0:
        raise ValueError(f"rope: expected a width of at least 0; found {rope}")
    mean, variance = d.mean(), (1 / d.size + 1 / (n_folds - 1)) * d.var(ddof=1)
    if variance <= 0:
        lower, higher = float(mean < -rope), float(mean > rope)
    else:
        posterior = stats.t(d.size - 1, loc=mean, scale=variance**0.5)
        lower, higher = float(posterior.cdf(-rope)), float(posterior.sf(rope))
    return {"p_lower": lower, "p_same": 1 - lower - higher, "p_higher": higher}


def equivalence(
    losses: Mapping[str, np.ndarray],
    folds: np.ndarray,
    *,
    pairs: Iterable[Pair],
    rope_share: float = ROPE,
) -> list[dict[str, Any]]:
    """Posterior probabilities of some pairs.

    Parameters
    ----------
    losses : mapping of str to ndarray, shape (n_repeats, n_samples)
    folds : ndarray of int, shape (n_repeats, n_samples)
    pairs : iterable of (str, str)
        First minus second.
    rope_share : float
        Half width of the region of practical equivalence, as a share of the second's mean loss.

    Returns
    -------
    list of dict
        model_a, model_b, rope (in units of the loss), p_lower, p_same, p_higher.
    """
    n_folds = int(folds.max()) + 1
    found = []
    for a, b in pairs:
        rope = rope_share * float(losses[b].mean())
        posterior = correlated_t(fold_differences(losses[a], losses[b], folds), n_folds, rope=rope)
        found.append({"model_a": a, "model_b": b, "rope": rope, **posterior})
    return found
