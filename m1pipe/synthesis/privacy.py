"""Privacy: is anything of the training samples in the synthetic ones? Never a guarantee.

The only scores that look at training samples. Distances are taken in principal components of
training and held-out samples together, in equal numbers: in components of the training samples
alone these lie further out, and with no leak at all a synthetic sample would too often be closer
to a held-out one (measured: 35-41 % instead of 50 %).
"""

from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors
from statsmodels.stats.proportion import proportion_confint

from m1pipe.data.transforms import fit_gene_transform
from m1pipe.models.pca import fit_pca
from m1pipe.synthesis.c2st import auc
from m1pipe.synthesis.resampling import ResamplingPlan, Rows
from m1pipe.synthesis.scores import POSITIVE, SHARE, Z95, Definition, Score

WARNING = (
    "Distances to training samples do not measure the risk of disclosure: good values here are no "
    "guarantee of privacy, bad ones are a leak."
)
TOLERANCE = 0.01
_CANDIDATES = 5
_definition = partial(Definition, "privacy")
BY_DISTANCE = (
    _definition(
        "closer_to_train",
        "closer to training",
        "half",
        "share of samples nearer to a training sample than to a held-out one; above 0.5: a leak",
        SHARE,
    ),
    _definition(
        "dcr_median",
        "distance to the closest, median",
        "higher",
        "to a training sample; real: of a held-out sample to a training one",
        POSITIVE,
    ),
    _definition(
        "dcr_p5",
        "distance to the closest, 5th percentile",
        "higher",
        "the same, of the closest twentieth",
        POSITIVE,
    ),
    _definition(
        "nndr_p5",
        "nearest over second, 5th percentile",
        "higher",
        "near 0: a sample sits on one training sample; real: held-out samples",
        SHARE,
    ),
    _definition(
        "membership_auc",
        "membership inference, AUC",
        "half",
        "how well distance to the nearest synthetic sample tells members from held-out ones",
        SHARE,
    ),
)
COPIES = _definition(
    "copies",
    "copies",
    "lower",
    "share of samples within 1 % of every gene's range of a training sample",
    SHARE,
)
PRIVACY = (*BY_DISTANCE, COPIES)


class Distances(NamedTuple):
    """Distances from synthetic (s) and held-out (h) samples to training (x) and held-out ones."""

    s_x: np.ndarray
    s_h: np.ndarray
    h_x: np.ndarray

    def part(self, s: np.ndarray, x: np.ndarray, h: np.ndarray) -> "Distances":
        """Those of some of the rows.

        Parameters
        ----------
        s, x, h : ndarray of int, shape (n_rows,)
            Synthetic, training and held-out ones.
        """
        return Distances(self.s_x[np.ix_(s, x)], self.s_h[np.ix_(s, h)], self.h_x[np.ix_(h, x)])


def common_distances(X: np.ndarray, S: np.ndarray, H: np.ndarray, n_components: int) -> Distances:
    """Distances in principal components, standardised, fitted to X and H together.

    Parameters
    ----------
    X, S, H : ndarray, shape (n_samples, n_genes)
        Training, synthetic, hold-out; X and H with the same number of rows.
    n_components : int
    """
    pool = np.concatenate([X, H])
    transform = fit_gene_transform("standardize", [pool])
    pca = fit_pca(lambda: [transform.apply(pool)], n_components)
    x, s, h = (pca.scores(transform.apply(part)) for part in (X, S, H))
    return Distances(cdist(s, x), cdist(s, h), cdist(h, x))


def distance_values(d: Distances) -> dict[str, float]:
    """Scores in `BY_DISTANCE`; ties between training and hold-out count half.

    Parameters
    ----------
    d : Distances
        With as many training as held-out samples.
    """
    to_x, to_h = d.s_x.min(axis=1), d.s_h.min(axis=1)
    members, others = -d.s_x.min(axis=0), -d.s_h.min(axis=0)
    return {
        "closer_to_train": float(np.mean((to_x < to_h) + 0.5 * (to_x == to_h))),
        "dcr_median": float(np.median(to_x)),
        "dcr_p5": float(np.quantile(to_x, 0.05)),
        "nndr_p5": float(np.quantile(_nndr(d.s_x), 0.05)),
        "membership_auc": auc(members, others),
    }


def _holdout_values(d: Distances) -> dict[str, float]:
    """What held-out samples in the place of the synthetic ones give, where they can stand."""
    to_x = d.h_x.min(axis=1)
    return {
        "dcr_median": float(np.median(to_x)),
        "dcr_p5": float(np.quantile(to_x, 0.05)),
        "nndr_p5": float(np.quantile(_nndr(d.h_x), 0.05)),
    }


def _nndr(distances: np.ndarray) -> np.ndarray:
    nearest = np.partition(distances, 1, axis=1)[:, :2]
    ratio = np.ones(len(nearest))
    np.divide(nearest[:, 0], nearest[:, 1], out=ratio, where=nearest[:, 1] > 0)
    ratio[nearest[:, 1] == 0] = 0.0
    return ratio


def distance_scores(
    X: np.ndarray, S: np.ndarray, H: np.ndarray, plan: ResamplingPlan, n_components: int
) -> list[Score]:
    """All scores by distance, averaged over the plan's draws, with intervals from its halves.

    Parameters
    ----------
    X, S, H : ndarray, shape (n_samples, n_genes)
        All training, synthetic and held-out samples.
    plan : ResamplingPlan
    n_components : int
    """
    values, beside, halves = [], [], []
    for i, draw in enumerate(plan.draws):
        d = common_distances(X[draw.real], S[draw.synthetic], H[draw.holdout], n_components)
        values.append(distance_values(d))
        beside.append(_holdout_values(d))
        halves += [
            distance_values(d.part(*_positions(draw, half)))
            for half in plan.halves[i :: len(plan.draws)]
        ]
    return [_score(definition, values, beside, halves, plan) for definition in BY_DISTANCE]


def _score(
    definition: Definition,
    values: list[dict[str, float]],
    beside: list[dict[str, float]],
    halves: list[dict[str, float]],
    plan: ResamplingPlan,
) -> Score:
    name = definition.name
    value = float(np.mean([v[name] for v in values]))
    half = Z95 * plan.inflation * float(np.std([v[name] for v in halves], ddof=1))
    real = [v[name] for v in beside if name in v]
    return Score(
        definition=definition,
        value=value,
        low=value - half,
        high=value + half,
        ceiling=float(np.mean(real)) if real else float("nan"),
        n_independent=plan.n_independent,
    )


def _positions(draw: Rows, half: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        np.searchsorted(draw.synthetic, half.synthetic),
        np.searchsorted(draw.real, half.real),
        np.searchsorted(draw.holdout, half.holdout),
    )


def copies_score(
    X: np.ndarray, S: np.ndarray, H: np.ndarray, places: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> Score:
    """Share of all synthetic samples that are near copies of a training sample.

    Parameters
    ----------
    X, S, H : ndarray, shape (n_samples, n_genes)
        All training, synthetic and held-out samples.
    places : three ndarray, shape (n_samples, n_components)
        Principal component scores of X, S and H, in which the candidates are looked for.
    """
    low, high = X.min(axis=0), X.max(axis=0)
    reach = TOLERANCE * (high - low)
    index = NearestNeighbors(n_neighbors=min(_CANDIDATES, len(X)), algorithm="brute")
    index.fit(places[0])
    found = _copied(S, X, index.kneighbors(places[1], return_distance=False), reach)
    real = _copied(H, X, index.kneighbors(places[2], return_distance=False), reach)
    ends = proportion_confint(int(found.sum()), len(found), method="wilson")
    return Score(
        definition=COPIES,
        value=float(found.mean()),
        low=float(ends[0]),
        high=float(ends[1]),
        ceiling=float(real.mean()),
        n_independent=len(found),
    )


def _copied(
    rows: np.ndarray, X: np.ndarray, candidates: np.ndarray, reach: np.ndarray
) -> np.ndarray:
    """Mask of rows that have a candidate within reach in every gene."""
    out = np.zeros(len(rows), dtype=bool)
    for column in candidates.T:
        for start in range(0, len(rows), 256):
            part = slice(start, start + 256)
            out[part] |= (np.abs(rows[part] - X[column[part]]) <= reach).all(axis=1)
    return out
