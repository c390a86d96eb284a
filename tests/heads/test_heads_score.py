"""Scores of other studies' labels: fitted free of study shifts, taken as far as they serve."""

import numpy as np
import pytest
from scipy.special import expit

from m1pipe.config import HeadConfig
from m1pipe.data.targets import Targets
from m1pipe.errors import InputError
from m1pipe.heads.fit import fit_heads
from m1pipe.heads.fitted import FittedHead
from m1pipe.heads.head_data import HeadData, HeadJob
from m1pipe.heads.logistic import fit_logistic
from m1pipe.heads.score import contrasted, fit_score, mean_share

LINEAR = HeadConfig(hidden=())


def binary(codes: np.ndarray) -> Targets:
    return Targets("binary", codes.astype(np.int64), ("well", "ill"))


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_an_offset_has_a_share_in_the_gradient_and_none_in_the_penalty(kind: str) -> None:
    """At the minimum X'(p - y) + alpha w = 0, with p of the linear map and the offset together."""
    rng = np.random.default_rng(0)
    X, k = rng.normal(size=(60, 5)), 1 if kind == "binary" else 3
    codes = rng.integers(0, k + 1 if k == 1 else k, 60)
    offset = rng.normal(size=(60, k))
    fit = fit_logistic(X, codes, kind=kind, alphas=[2.0], offset=offset)
    logits = X @ fit.coef + fit.intercept + offset
    p, y = expit(logits), codes[:, None]
    if k > 1:
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        y = np.eye(k)[codes]
    np.testing.assert_allclose(X.T @ (p - y) + 2.0 * fit.coef, 0, atol=1e-4)
    np.testing.assert_allclose((p - y).sum(axis=0), 0, atol=1e-4)


def studies_with_shifts(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Genes, classes, studies and the effect; the share of the ill differs between studies."""
    rng = np.random.default_rng(seed)
    study, effect = np.repeat(["a", "b", "c"], 60), np.zeros(30)
    effect[:5] = 1.0
    codes = (rng.random(180) < np.repeat([0.2, 0.5, 0.8], 60)).astype(int)
    X = rng.normal(size=(180, 30)) + np.outer(codes, effect)
    return X.astype(np.float32), codes, study, effect


def test_shifts_of_studies_leave_the_score_as_it_is() -> None:
    X, codes, study, effect = studies_with_shifts()
    plain = fit_score(X, binary(codes), study)[:, 0]
    assert np.corrcoef(plain, effect)[0, 1] > 0.7
    shift = np.random.default_rng(1).normal(size=(3, 30)) * 5
    shifted = X + shift[np.unique(study, return_inverse=True)[1]].astype(np.float32)
    np.testing.assert_allclose(fit_score(shifted, binary(codes), study)[:, 0], plain, atol=2e-3)


def test_a_class_that_goes_with_its_study_is_no_evidence() -> None:
    X, codes, study, _ = studies_with_shifts()
    codes_more = np.concatenate([codes, np.ones(40, int)])
    rows = contrasted(binary(codes_more), np.concatenate([study, ["d"] * 40]))
    np.testing.assert_array_equal(rows, np.arange(180))
    level = Targets("regression", X[:, :1], ("age",))
    assert contrasted(level, np.array(["d"] * 180)).size == 180
    with pytest.raises(InputError, match="two classes; found none: a class that goes with its"):
        contrasted(binary(np.array([0, 1])), np.array(["a", "b"]))


def test_a_level_is_scored_in_its_units() -> None:
    X, _, study, effect = studies_with_shifts()
    level = X @ effect + np.repeat([10.0, 0.0, -10.0], 60)
    targets = Targets("regression", level[:, None].astype(np.float32), ("age",))
    np.testing.assert_allclose(fit_score(X, targets, study)[:, 0], effect, atol=0.05)


def test_shares_weigh_by_their_likelihood() -> None:
    losses = np.array([0.7, 0.6, 0.5, 0.45, 0.44])
    few, many = (mean_share(losses, n, squared=False) for n in (2, 200))
    assert 0.5 < few < 0.65 < 0.8 < many < 1
    assert mean_share(np.full(5, np.nan), 0, squared=False) == 0.5
    squared = mean_share(np.exp(2 * losses), 50, squared=True)
    assert squared == pytest.approx(mean_share(losses, 50, squared=False))


def fit_scored(
    X: np.ndarray, targets: Targets, n_train: int, config: HeadConfig, n_beside: int = 0
) -> FittedHead:
    n_score, rows = targets.n_outputs, np.arange(n_train)
    job = HeadJob(X, rows, (config,), seed=0, n_score=n_score, n_beside=n_beside)
    return fit_heads([job], HeadData(targets, 0))[0]


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("n_genes", [4, 80])
def test_a_good_score_is_taken_and_a_useless_one_is_not(kind: str, n_genes: int) -> None:
    rng = np.random.default_rng(2)
    k = 3 if kind == "multiclass" else 1
    truth = 3 * rng.normal(size=(500, k)).astype(np.float32)
    genes = rng.normal(size=(500, n_genes)).astype(np.float32)
    noise = 3 * rng.normal(size=(500, k)).astype(np.float32)
    if kind == "regression":
        values = truth + 0.1 * rng.normal(size=(500, 1)).astype(np.float32) + 4
        targets = Targets("regression", values, ("level",))
    elif kind == "binary":
        targets = binary(rng.random(500) < expit(truth[:, 0]))
    else:
        targets = Targets("multiclass", (truth + rng.gumbel(size=(500, 3))).argmax(1), tuple("abc"))
    good = fit_scored(np.concatenate([genes, truth], axis=1), targets, 400, LINEAR)
    useless = fit_scored(np.concatenate([genes, noise], axis=1), targets, 400, LINEAR)
    assert good.chosen["score"] > 0.75
    assert useless.chosen["score"] < 0.2
    X = np.concatenate([genes, truth], axis=1)[400:]
    again = FittedHead.from_state(*good.to_state()).predict(X)
    np.testing.assert_array_equal(again, good.predict(X))
    weight = good.module.linear.weight.detach().numpy()[:, -k:]
    np.testing.assert_allclose(weight, good.chosen["score"] * np.eye(k), atol=1e-6)


def test_latents_stand_between_genes_and_score() -> None:
    rng = np.random.default_rng(4)
    genes, latents = rng.normal(size=(300, 20)), rng.normal(size=(300, 2))
    score = rng.normal(size=(300, 1))
    level = 2 * latents[:, :1] + score + 0.1 * rng.normal(size=(300, 1))
    X = np.concatenate([genes, latents, score], axis=1).astype(np.float32)
    targets = Targets("regression", level.astype(np.float32), ("level",))
    head = fit_scored(X, targets, 200, LINEAR, n_beside=2)
    assert head.chosen["share"] > 0.5 and head.chosen["score"] > 0.9
    assert np.mean((head.predict(X[200:]) - level[200:]) ** 2) < 0.1


def test_a_network_stands_behind_the_score() -> None:
    rng = np.random.default_rng(3)
    genes = rng.normal(size=(200, 3)).astype(np.float32)
    score = (2 * genes[:, :1]).astype(np.float32)
    level = score + 3 * np.abs(genes[:, 1:2])
    targets = Targets("regression", level.astype(np.float32), ("level",))
    config = HeadConfig(hidden=(32,), epochs=60, lr=0.01, networks=1)
    head = fit_scored(np.concatenate([genes, score], axis=1), targets, 150, config)
    assert not head.is_linear
    assert head.linear_part().chosen["score"] == head.chosen["score"]
