"""Membership attacks find what is planted, and nothing where there is nothing."""

from collections.abc import Callable

import anndata
import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.svm import SVC

from m1pipe.config import EncoderConfig, ModelConfig, TrainingConfig
from m1pipe.encoder import train_encoder
from m1pipe.io.reader import open_matrix
from m1pipe.synthesis import attacks
from m1pipe.synthesis.attacks import (
    ATTACKS,
    FALSE_POSITIVES,
    attack_scores,
    attack_values,
    domias,
    gan_leaks,
    gan_leaks_calibrated,
    logan,
    monte_carlo,
    succeeded,
)
from m1pipe.synthesis.config import QualityConfig
from m1pipe.synthesis.latents import aggregated_posterior, draw_posterior
from m1pipe.synthesis.sample import decode_samples
from m1pipe.synthesis.scores import Score

Made = Callable[..., anndata.AnnData]
QUICK = QualityConfig(n_resamples=5)
Sets = tuple[np.ndarray, np.ndarray, np.ndarray]


def _drawn(rng: np.random.Generator, n: int = 100, p: int = 80) -> np.ndarray:
    """Samples of one distribution with six factors."""
    loadings = 0.5 * np.random.default_rng(99).normal(size=(6, p))
    return rng.normal(size=(n, 6)) @ loadings + rng.normal(size=(n, p))


def _by_name(scores: list[Score]) -> dict[str, Score]:
    return {score.definition.name: score for score in scores}


@pytest.fixture(scope="module")
def copied() -> list[Score]:
    """Scores of noisy copies of the training samples."""
    rng = np.random.default_rng(0)
    X, H = _drawn(rng), _drawn(rng)
    S = np.tile(X, (3, 1)) + 0.3 * rng.normal(size=(300, 80))
    return attack_scores(X, S, H, QUICK)


def test_distances_are_those_of_the_definitions() -> None:
    rng = np.random.default_rng(1)
    S, R, C = (rng.normal(size=(n, 5)) for n in (30, 25, 12))
    to_s, to_r = cdist(C, S), cdist(C, R)
    np.testing.assert_allclose(gan_leaks(S, R, C), -to_s.min(axis=1))
    np.testing.assert_allclose(gan_leaks_calibrated(S, R, C), to_r.min(axis=1) - to_s.min(axis=1))
    radius = np.quantile(cdist(R, S).min(axis=1), 0.1)
    within = [np.mean([np.linalg.norm(c - s) < radius for s in S]) for c in C]
    np.testing.assert_allclose(monte_carlo(S, R, C), within)


def test_densities_and_discriminator_are_those_of_the_libraries() -> None:
    rng = np.random.default_rng(2)
    S, R, C = (rng.normal(size=(n, 1)) for n in (40, 30, 20))
    expected = stats.gaussian_kde(S.T).logpdf(C.T) - stats.gaussian_kde(R.T).logpdf(C.T)
    np.testing.assert_allclose(domias(S, R, C), expected, atol=1e-4)
    gamma = np.median(cdist(R, S).min(axis=1)) ** -2
    model = SVC(C=10, gamma=gamma, class_weight="balanced")
    model.fit(np.concatenate([S, R]), np.repeat([1, 0], [40, 30]))
    np.testing.assert_allclose(logan(S, R, C), model.decision_function(C), atol=0.01)


def test_rates_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    members, others = rng.normal(0.5, 1, 150), rng.normal(0, 1, 200)
    truth, both = np.repeat([1, 0], [150, 200]), np.append(members, others)
    got = attack_values(members, others)
    assert got["auc"] == pytest.approx(roc_auc_score(truth, both))
    false, true, _ = roc_curve(truth, both, drop_intermediate=False)
    for name, share in FALSE_POSITIVES.items():
        assert got[name] == pytest.approx(true[false < share].max()), name
    few = attack_values(members, others[:99])
    assert np.isfinite(few["tpr10"]) and np.isnan(few["tpr1"])


@pytest.mark.parametrize("name", ATTACKS)
def test_copies_are_caught(copied: list[Score], name: str) -> None:
    found = _by_name(copied)
    assert found[f"{name}_auc"].low > 0.85
    assert found[f"{name}_auc"].value > 0.9
    assert found[f"{name}_tpr10"].value > 0.5
    assert found[f"{name}_auc"] in succeeded(copied)


def test_samples_of_posteriors_are_caught_by_every_attack(profiles: Made) -> None:
    """Latents of training samples, decoded with noise: what `--sampler posterior` draws."""
    real, holdout = profiles(100, 120, seed=1), profiles(100, 120, seed=2)
    config = EncoderConfig(
        model=ModelConfig(n_latent=90, hidden=(64,), beta=0.01),
        training=TrainingConfig(epochs=20, validation=0, seed=0),
    )
    encoder = train_encoder(real, config)
    codes, rng = np.zeros(400, dtype=np.int64), np.random.default_rng(0)
    Z = draw_posterior(aggregated_posterior(encoder, open_matrix(real)), codes, rng)
    S = np.concatenate([X for _, X in decode_samples(encoder, Z, codes, noise=True, seed=0)])
    found = _by_name(attack_scores(np.asarray(real.X), S, np.asarray(holdout.X), QUICK))
    assert min(found[f"{name}_auc"].value for name in ATTACKS) > 0.9


def test_fresh_samples_read_one_half() -> None:
    """Mean over worlds within three of its standard errors; intervals of eight worlds hold 0.5.

    The attacks of a world agree, and 40 resamples make rough ends: two thirds, not 95 %.
    """
    values: dict[str, list[float]] = {name: [] for name in ATTACKS}
    held = []
    for world in range(8):
        rng = np.random.default_rng([4, world])
        found = attack_scores(*(_drawn(rng, 60, 40) for _ in range(3)), QUICK)
        for name in ATTACKS:
            score = _by_name(found)[f"{name}_auc"]
            values[name].append(score.value)
            held.append(score.low <= 0.5 <= score.high)
    for name, found_values in values.items():
        error = np.std(found_values) / np.sqrt(8)
        assert error < 0.03 and abs(np.mean(found_values) - 0.5) < 3 * error, name
    assert np.mean(held) > 0.65


def test_a_candidates_donor_is_never_in_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Donors are read off the first gene, whose standardisation keeps their order."""
    seen = []

    def spy(S: np.ndarray, R: np.ndarray, C: np.ndarray) -> np.ndarray:
        seen.append(set(R[:, 1].round(4)) & set(C[:, 1].round(4)))
        return np.zeros(len(C))

    monkeypatch.setattr(attacks, "ATTACKS", {"gan_leaks": ATTACKS["gan_leaks"]._replace(score=spy)})
    monkeypatch.setattr(attacks, "ATTACKED", {"gan_leaks": attacks.ATTACKED["gan_leaks"]})
    rng = np.random.default_rng(5)
    X, S, H = (rng.normal(size=(60, 3)) for _ in range(3))
    donors = np.repeat([f"d{i}" for i in range(20)], 3)
    H[:, 1] = np.repeat(np.arange(20.0), 3)
    (auc, *_) = attack_scores(X, S, H, QUICK, (None, donors))
    assert len(seen) == 5 and not any(seen)
    assert (auc.value, auc.n_independent) == (0.5, 20)


def test_an_attack_that_fails_says_why_and_leaves_the_others() -> None:
    rng = np.random.default_rng(6)
    X, H = _drawn(rng, 40, 20), _drawn(rng, 40, 20)
    found = _by_name(attack_scores(X, np.ones_like(X), H, QUICK))
    assert found["domias_auc"].error and not found["gan_leaks_auc"].error
    assert found["gan_leaks_tpr1"].not_applicable == "100 held-out samples are needed"
