"""Membership attacks: who has the synthetic samples guesses which samples were trained on.

An attack is a function of synthetic samples, reference samples and candidates, all standardised
alike, to a score for each candidate; a high score says member. Reference samples are real and are
neither members nor candidates: every fifth of the hold-out in turn is candidates and the rest is
the reference, so that without a leak members and held-out candidates are scored alike. These are
the attacks that the CAMDA health privacy challenge (2025) gives as baselines
(https://github.com/PMBio/Health-Privacy-Challenge). What they find is a leak. That they find none
is no guarantee: other attacks may.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import gaussian_kde
from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel
from sklearn.svm import SVC

from m1pipe import seeds
from m1pipe.data.transforms import fit_gene_transform
from m1pipe.models.pca import fit_pca
from m1pipe.synthesis.c2st import auc
from m1pipe.synthesis.config import QualityConfig
from m1pipe.synthesis.resampling import bootstrapped, units_of_rows
from m1pipe.synthesis.scores import FAILURES, SHARE, Definition, Score

N_FOLDS = 5
N_COMPONENTS = 20
FEWEST_A_COMPONENT = 4  # samples, for a density in so many components
WITHIN_REACH = 0.1  # of the reference samples have a synthetic one in their ball
SOFTNESS = 10.0  # C of the support vector machine
DRAWS_A_RESAMPLE = 8
FALSE_POSITIVES = {"tpr10": 0.1, "tpr1": 0.01}
ONE_OF_FIVE = 2.576 / 1.96  # an interval that five attacks keep together, over that of one


def monte_carlo(S: np.ndarray, R: np.ndarray, C: np.ndarray) -> np.ndarray:
    """Share of the synthetic samples in a ball about the candidate.

    Parameters
    ----------
    S, R, C : ndarray, shape (n_samples, n_genes)
        Synthetic, reference, candidates. A tenth of the reference samples have a synthetic one in
        a ball of the same radius.

    Returns
    -------
    ndarray, shape (n_candidates,)

    References
    ----------
    Hilprecht et al. 2019, PoPETs 2019(4):232.
    """
    radius = np.quantile(euclidean_distances(R, S).min(axis=1), WITHIN_REACH)
    return np.asarray((euclidean_distances(C, S) < radius).mean(axis=1))


def gan_leaks(S: np.ndarray, R: np.ndarray, C: np.ndarray) -> np.ndarray:
    """Nearness of the nearest synthetic sample, the negative of its distance.

    Parameters and result are those of `monte_carlo`; the reference is not used.

    References
    ----------
    Chen et al. 2020, ACM CCS, arXiv:1909.03935: the attacker has samples alone.
    """
    return np.asarray(-euclidean_distances(C, S).min(axis=1))


def gan_leaks_calibrated(S: np.ndarray, R: np.ndarray, C: np.ndarray) -> np.ndarray:
    """How much nearer the nearest synthetic sample is than the nearest reference sample.

    Parameters and result are those of `monte_carlo`.

    References
    ----------
    Chen et al. 2020, ACM CCS, arXiv:1909.03935, there with samples of a reference generator.
    """
    return np.asarray(gan_leaks(S, R, C) - gan_leaks(R, R, C))


def logan(S: np.ndarray, R: np.ndarray, C: np.ndarray) -> np.ndarray:
    """How synthetic the candidate looks to a classifier of synthetic and reference samples.

    A support vector machine, which can memorise and needs no tuning: its kernel falls to 1 / e at
    the median distance from a reference to the nearest synthetic sample.
    Parameters and result are those of `monte_carlo`.

    References
    ----------
    Hayes et al. 2019, PoPETs 2019(1):133, there with a network.
    """
    both, is_synthetic = np.concatenate([S, R]), np.repeat([1, 0], [len(S), len(R)])
    width = max(float(np.median(euclidean_distances(R, S).min(axis=1))), 1e-6)
    gamma = width**-2
    model = SVC(C=SOFTNESS, kernel="precomputed", class_weight="balanced")
    model.fit(rbf_kernel(both, gamma=gamma), is_synthetic)
    return np.asarray(model.decision_function(rbf_kernel(C, both, gamma=gamma)))


def domias(S: np.ndarray, R: np.ndarray, C: np.ndarray) -> np.ndarray:
    """Log ratio of the densities of synthetic and of reference samples at the candidate.

    Kernel densities in at most `N_COMPONENTS` principal components of both.
    Parameters and result are those of `monte_carlo`.

    References
    ----------
    van Breugel et al. 2023, AISTATS, arXiv:2302.12580.
    """
    n_components = min(N_COMPONENTS, *(len(part) // FEWEST_A_COMPONENT for part in (S, R)))
    pca = fit_pca(lambda: [np.concatenate([S, R])], max(n_components, 1))
    s, r, c = (pca.scores(part).T.astype(np.float64) for part in (S, R, C))
    return np.asarray(gaussian_kde(s).logpdf(c) - gaussian_kde(r).logpdf(c))


class Attack(NamedTuple):
    """An attack, the name that readers know, and what it tells members by."""

    score: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    title: str
    told_by: str


ATTACKS = {
    "monte_carlo": Attack(monte_carlo, "Monte Carlo", "how many synthetic samples lie about one"),
    "gan_leaks": Attack(gan_leaks, "GAN-Leaks", "the distance to the nearest synthetic sample"),
    "gan_leaks_calibrated": Attack(
        gan_leaks_calibrated, "calibrated GAN-Leaks", "that less the distance to a reference"
    ),
    "logan": Attack(logan, "LOGAN", "a classifier of synthetic and reference samples"),
    "domias": Attack(domias, "DOMIAS", "the density of synthetic over that of reference samples"),
}


def _definitions(name: str, attack: Attack) -> tuple[Definition, ...]:
    """AUC, and true positive rates at two false positive rates, of an attack."""
    told = (
        f"how well members are distinguished from held-out samples by {attack.told_by}; chance: 0.5"
    )
    found = [Definition("attack", f"{name}_auc", f"{attack.title} AUC", "half", told, SHARE)]
    for rate, share in FALSE_POSITIVES.items():
        percent = f"{100 * share:g} %"
        says = f"members found while {percent} of held-out samples are taken for one"
        title = f"{attack.title} TPR at {percent} FPR"
        found.append(Definition("attack", f"{name}_{rate}", title, "lower", says, SHARE))
    return tuple(found)


ATTACKED = {name: _definitions(name, attack) for name, attack in ATTACKS.items()}


def attack_scores(
    X: np.ndarray,
    S: np.ndarray,
    H: np.ndarray,
    config: QualityConfig,
    groups: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> list[Score]:
    """AUC and true positive rates of every attack, with bootstrap intervals over candidates.

    Parameters
    ----------
    X, S, H : ndarray, shape (n_samples, n_genes)
        Training samples, which are the members, synthetic and held-out samples.
    config : QualityConfig
        At most `max_samples` of each set are used.
    groups : pair of ndarray of str or None
        Donors of X and of H: those of a candidate are not in the reference, and are drawn whole.
    """
    rng = seeds.rng(config.seed, seeds.MEMBERSHIP_ATTACKS)
    x, s, h = (np.sort(rng.permutation(len(part))[: config.max_samples]) for part in (X, S, H))
    units = [
        units_of_rows(rows.size, None if of is None else of[rows])
        for rows, of in zip((x, h), groups, strict=True)
    ]
    scored, reasons = _candidates(X[x], S[s], H[h], [_folds(of, rng) for of in units])
    draws = [
        [bootstrapped(of, rng) for of in units]
        for _ in range(DRAWS_A_RESAMPLE * config.n_resamples)
    ]
    found = []
    for name, definitions in ATTACKED.items():
        if name in reasons:
            found += [Score(definition=of, error=reasons[name]) for of in definitions]
            continue
        members, others = scored[name]
        values = attack_values(members, others)
        spread = [attack_values(members[m], others[o]) for m, o in draws]
        found += [
            _score(of, values, spread, rate, len(units[1]))
            for of, rate in zip(definitions, values, strict=True)
        ]
    return found


def attack_values(members: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """AUC and true positive rates of an attack's scores; no rate that needs more held-out samples.

    Parameters
    ----------
    members, others : ndarray, shape (n,), (m,)
        Scores of training and of held-out samples.

    Returns
    -------
    dict of "auc" and every name in `FALSE_POSITIVES` to float
        NaN where the share of false positives would be less than one sample.
    """
    found = {"auc": auc(members, others)}
    for name, share in FALSE_POSITIVES.items():
        threshold = np.quantile(others, 1 - share, method="higher")
        enough = len(others) * share >= 1
        found[name] = float(np.mean(members > threshold)) if enough else float("nan")
    return found


def succeeded(scores: Sequence[Score]) -> list[Score]:
    """AUCs above 0.5 by intervals that hold for all five attacks together, strongest first."""
    above = [
        score
        for score in scores
        if score.definition.name.removesuffix("_auc") in ATTACKS
        and score.value - ONE_OF_FIVE * (score.value - score.low) > 0.5
    ]
    return sorted(above, key=lambda score: -score.value)


def _folds(units: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Fold of every row; the rows of a unit in one."""
    fold = np.empty(sum(map(len, units)), dtype=int)
    for k, unit in enumerate(rng.permutation(len(units))):
        fold[units[unit]] = k % N_FOLDS
    return fold


def _candidates(
    X: np.ndarray, S: np.ndarray, H: np.ndarray, folds: list[np.ndarray]
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, str]]:
    """Scores of members and held-out samples by attack; reasons of the attacks that failed."""
    scored = {name: (np.empty(len(X)), np.empty(len(H))) for name in ATTACKS}
    reasons: dict[str, str] = {}
    for k in range(N_FOLDS):
        x, h = (fold == k for fold in folds)
        pool = fit_gene_transform("standardize", [np.concatenate([S, H[~h]])])
        s, r, c = (pool.apply(part) for part in (S, H[~h], np.concatenate([X[x], H[h]])))
        for name in ATTACKS.keys() - reasons.keys():
            try:
                values = ATTACKS[name].score(s, r, c)
            except FAILURES as error:
                reasons[name] = " ".join(str(error).split())
                continue
            scored[name][0][x], scored[name][1][h] = values[: x.sum()], values[x.sum() :]
    return scored, reasons


def _score(
    definition: Definition,
    values: dict[str, float],
    spread: list[dict[str, float]],
    rate: str,
    n_units: int,
) -> Score:
    chance = FALSE_POSITIVES.get(rate, 0.5)
    if np.isnan(values[rate]):
        fewest = round(1 / chance)
        return Score(definition=definition, not_applicable=f"{fewest} held-out samples are needed")
    low, high = np.quantile([draw[rate] for draw in spread], [0.025, 0.975])
    return Score(
        definition=definition,
        value=values[rate],
        low=float(low),
        high=float(high),
        ceiling=chance,
        n_independent=n_units,
    )
