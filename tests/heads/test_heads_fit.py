import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from m1pipe.config import HeadConfig
from m1pipe.data.targets import OwnGenes, Targets
from m1pipe.data.units import Units
from m1pipe.errors import InputError
from m1pipe.heads import features, linear_fit
from m1pipe.heads import fit as fitting
from m1pipe.heads.features import Covariance, rotate
from m1pipe.heads.fit import fit_head, fit_heads
from m1pipe.heads.fitted import FittedHead
from m1pipe.heads.head_data import AddedRows, HeadData, HeadJob
from m1pipe.heads.inner_folds import deal_inner, is_lower, judging_folds, stepped_rows
from m1pipe.heads.linear import LinearChoice, LinearPart
from m1pipe.heads.logistic import fit_logistic
from m1pipe.models.heads import Head, mean_head

N, P = 300, 12
KINDS = ["regression", "binary", "multiclass", "multilabel"]
QUICK = HeadConfig(hidden=(32,), epochs=60, patience=8, lr=5e-3)


def _inputs(n: int = N) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.normal(20, 5, size=(n, P)).astype(np.float32)


def _targets(kind: str, X: np.ndarray, *, curved: bool = False) -> Targets:
    generator = np.random.default_rng(1)
    seen = (X[:, :P] - 20) / 5
    signal = (np.abs(seen) - 0.8 if curved else seen) @ generator.normal(size=(P, 3))
    if kind == "regression":
        values = 7 + signal + 0.3 * generator.normal(size=signal.shape)
        return Targets("regression", values.astype(np.float32), ("a", "b", "c"), Units("tpm"))
    if kind == "multiclass":
        return Targets("multiclass", signal.argmax(1), ("a", "b", "c"))
    if kind == "binary":
        return Targets("binary", (signal[:, 0] > 0).astype(np.int64), ("no", "yes"))
    return Targets("multilabel", (signal > 0).astype(np.float32), ("a", "b", "c"))


def _weights(head: FittedHead) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in head.module.parameters()])


def _chance(kind: str, targets: Targets, train: np.ndarray, test: np.ndarray) -> float:
    return _error(kind, targets, test, np.broadcast_to(_mean(kind, targets, train), (test.size, 3)))


def _mean(kind: str, targets: Targets, train: np.ndarray) -> np.ndarray:
    values = targets.values[train]
    if kind in ("regression", "multilabel"):
        return values.mean(0)
    return np.bincount(values, minlength=3) / train.size


def _error(kind: str, targets: Targets, test: np.ndarray, p: np.ndarray) -> float:
    values = targets.values[test]
    if kind == "regression":
        return float(((p - values) ** 2).mean())
    if kind == "multilabel":
        return float(-np.log(np.where(values > 0, p, 1 - p) + 1e-9).mean())
    return float(-np.log(p[np.arange(test.size), values] + 1e-9).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_signal_is_learned_and_shuffled_targets_are_not(kind: str) -> None:
    X, train, test = _inputs(), np.arange(200), np.arange(200, N)
    targets = _targets(kind, X)
    chance = _chance(kind, targets, train, test)
    head = fit_head(X, targets, QUICK, rows=train, seed=0)
    prediction = head.predict(X[test])
    assert prediction.dtype == np.float32
    assert prediction.shape == (test.size, 2 if kind == "binary" else 3)
    assert _error(kind, targets, test, prediction) < 0.6 * chance
    order = np.random.default_rng(2).permutation(N)
    null = fit_head(X, targets.take(order), QUICK, rows=train, seed=0)
    assert _error(kind, targets.take(order), test, null.predict(X[test])) > 0.9 * chance


@pytest.mark.parametrize("kind", KINDS)
def test_where_the_truth_is_linear_the_head_is_the_linear_model(kind: str) -> None:
    X, rows = _inputs(), np.arange(100)
    targets = _targets(kind, X)
    head = fit_head(X, targets, QUICK, rows=rows, seed=0)
    alone = fit_head(X, targets, replace(QUICK, hidden=()), rows=rows, seed=0)
    assert head.chosen["epochs"] == 0 and head.is_linear and alone.is_linear
    np.testing.assert_array_equal(head.predict(X), alone.predict(X))
    assert head.chosen["inner_loss"] == head.chosen["inner_loss_linear"]


@pytest.mark.parametrize("kind", ["regression", "binary"])
def test_where_the_truth_is_curved_a_network_is_kept_and_pays(kind: str) -> None:
    X, train, test = _inputs(1500), np.arange(1000), np.arange(1000, 1500)
    targets = _targets(kind, X, curved=True)
    head = fit_head(X, targets, QUICK, rows=train, seed=0)
    assert head.chosen["epochs"] > 0 and not head.is_linear
    linear = head.linear_part()
    assert linear.is_linear
    with_network = _error(kind, targets, test, head.predict(X[test]))
    assert with_network < 0.7 * _error(kind, targets, test, linear.predict(X[test]))
    assert head.chosen["inner_loss"] < head.chosen["inner_loss_linear"]
    assert linear.chosen["inner_loss"] == head.chosen["inner_loss_linear"]
    assert len(head.curve) > head.chosen["epochs"]
    assert head.chosen["inner_loss"] == pytest.approx(head.curve[head.chosen["epochs"]])


def test_of_labels_an_overconfident_linear_part_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The network alone takes its place, and the linear model on the inputs stays what it was."""
    X, train, test = _inputs(), np.arange(200), np.arange(200, N)
    targets = _targets("multilabel", X)
    exact = linear_fit.fit_linear

    def overconfident(*args: Any, **settings: Any) -> LinearChoice:
        fit = exact(*args, **settings)
        return replace(fit, whole=_steeper(fit.whole), inner=tuple(map(_steeper, fit.inner)))

    monkeypatch.setattr(linear_fit, "fit_linear", overconfident)
    head = fit_head(X, targets, QUICK, rows=train, seed=0)
    only = fit_head(X, targets, replace(QUICK, hidden=()), rows=train, seed=0)
    assert head.chosen["linear"] is False and not head.is_linear
    np.testing.assert_array_equal(head.linear_part().predict(X), only.predict(X))
    loss = _error("multilabel", targets, test, head.predict(X[test]))
    assert loss < 0.6 * _chance("multilabel", targets, train, test)
    assert loss < _error("multilabel", targets, test, only.predict(X[test]))
    kept = FittedHead.from_state(*head.to_state())
    np.testing.assert_array_equal(kept.predict(X), head.predict(X))


def _steeper(part: LinearPart) -> LinearPart:
    return LinearPart(20 * part.weight, 20 * part.bias)


def test_the_linear_part_is_scikit_learns_ridge_on_scaled_inputs() -> None:
    X, rows = _inputs(), np.arange(100)
    targets = _targets("regression", X)
    head = fit_head(X, targets, replace(QUICK, hidden=()), rows=rows, seed=0, scale="one")
    Z = (X - X[rows].mean(axis=0)) / np.sqrt(X[rows].var(axis=0).mean())
    oracle = Ridge(alpha=head.chosen["alpha"]).fit(Z[rows], targets.values[rows])
    np.testing.assert_allclose(head.predict(X), oracle.predict(Z), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_class_probabilities_sum_to_one(kind: str) -> None:
    X = _inputs()
    p = fit_head(X, _targets(kind, X), QUICK, rows=np.arange(200), seed=0).predict(X)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    assert (p >= 0).all()


@pytest.mark.parametrize("n_train", [10, 40, 200])
@pytest.mark.parametrize("linear", [True, False])
def test_other_rows_are_never_looked_at(n_train: int, linear: bool) -> None:
    X, train = _inputs(), np.arange(n_train)
    targets = _targets("regression", X, curved=True)
    config = replace(QUICK, linear=linear)
    a = fit_head(X, targets, config, rows=train, seed=0)
    X_other, y_other = X.copy(), targets.values.copy()
    X_other[n_train:], y_other[n_train:] = 1e6, -1e6
    changed = Targets("regression", y_other, targets.names)
    b = fit_head(X_other, changed, config, rows=train, seed=0)
    assert torch.equal(_weights(a), _weights(b))
    np.testing.assert_array_equal(a.features.scaler.location, b.features.scaler.location)
    np.testing.assert_allclose(a.features.scaler.location, X[train].mean(0), rtol=1e-5)


def test_the_same_seed_gives_the_same_head_and_leaves_the_global_generator_alone() -> None:
    X = _inputs()
    targets, before = _targets("multiclass", X), torch.get_rng_state()
    config = replace(QUICK, linear=False)
    a, b, c = (fit_head(X, targets, config, rows=np.arange(200), seed=s) for s in (3, 3, 4))
    assert torch.equal(_weights(a), _weights(b))
    assert _weights(a).shape != _weights(c).shape or not torch.equal(_weights(a), _weights(c))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("n_train", [30, 200])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("linear", [True, False])
def test_a_gene_constant_in_the_training_rows_never_blows_a_prediction_up(
    kind: str, n_train: int, linear: bool
) -> None:
    """Dividing by sd + 1e-6 made the error 366,177 times that of the mean."""
    X, train, test = _inputs(), np.arange(n_train), np.arange(200, N)
    X[:200, 3] = 0.0
    X[200:, 3] = 9.0
    targets = _targets(kind, _inputs())
    head = fit_head(X, targets, replace(QUICK, linear=linear, epochs=8), rows=train, seed=0)
    calm = X[test].copy()
    calm[:, 3] = 0.0
    assert (X[train, 3] == 0).all() and (X[test, 3] != 0).all()
    np.testing.assert_array_equal(head.predict(X[test]), head.predict(calm))


@pytest.mark.parametrize("kind", KINDS)
def test_a_gene_that_hardly_varies_in_the_training_rows_does_not_either(kind: str) -> None:
    X, train, test = _inputs(), np.arange(30), np.arange(200, N)
    X[:200, 3] = 0.0
    X[4, 3] = 1e-5
    X[200:, 3] = 9.0
    targets = _targets(kind, _inputs())
    head = fit_head(X, targets, QUICK, rows=train, seed=0)
    error = _error(kind, targets, test, head.predict(X[test]))
    assert error < 30 * _chance(kind, targets, train, test)


def test_the_scale_of_the_targets_changes_nothing_else() -> None:
    X, train = _inputs(), np.arange(200)
    targets = _targets("regression", X, curved=True)
    plain = fit_head(X, targets, QUICK, rows=train, seed=0)
    scaled = Targets("regression", targets.values * 1e5, targets.names)
    big = fit_head(X, scaled, QUICK, rows=train, seed=0)
    assert big.chosen["epochs"] == plain.chosen["epochs"]
    np.testing.assert_allclose(big.predict(X), 1e5 * plain.predict(X), rtol=2e-3, atol=300)


def test_a_constant_target_is_predicted_exactly() -> None:
    X = _inputs()
    targets = Targets("regression", np.full((N, 1), 42.0, np.float32), ("a",))
    head = fit_head(X, targets, QUICK, rows=np.arange(200), seed=0)
    np.testing.assert_allclose(head.predict(X), 42.0, atol=1e-3)


def test_a_network_alone_starts_at_the_log_odds() -> None:
    X = _inputs()
    for kind in ("binary", "multiclass", "multilabel"):
        targets = _targets(kind, X)
        config = replace(QUICK, linear=False, epochs=1, lr=1e-9, validation=0.0)
        head = fit_head(X * 0, targets, config, rows=np.arange(200), seed=0)
        share = _mean(kind, targets, np.arange(200))
        assert head.module.linear is not None
        bias = head.module.linear.bias.detach()
        found = torch.softmax(bias, 0) if kind == "multiclass" else torch.sigmoid(bias)
        np.testing.assert_allclose(found, share[1:2] if kind == "binary" else share, atol=0.01)


def test_balanced_weights_raise_the_rare_class() -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(400, P)).astype(np.float32)
    codes = (X[:, 0] + generator.normal(size=400) > 2.2).astype(np.int64)
    assert 0.03 < codes.mean() < 0.12
    targets = Targets("binary", codes, ("no", "yes"))
    rows = np.arange(400)
    plain = fit_head(X, targets, QUICK, rows=rows, seed=0).predict(X)[:, 1]
    weighted = replace(QUICK, class_weight="balanced")
    balanced = fit_head(X, targets, weighted, rows=rows, seed=0).predict(X)[:, 1]
    assert balanced.mean() > 2 * plain.mean()
    given = np.array([1.0, 1.0])
    unweighted = fit_head(X, targets, weighted, rows=rows, seed=0, class_weight=given)
    np.testing.assert_allclose(unweighted.predict(X)[:, 1], plain, atol=1e-6)


def test_published_recipe_neither_scales_nor_starts_at_the_mean() -> None:
    X = _inputs()
    targets = _targets("regression", X)
    config = HeadConfig(
        hidden=(256, 32),
        linear=False,
        standardize=False,
        initialize_bias=False,
        validation=0.0,
        epochs=2,
        patience=0,
    )
    head = fit_head(X, targets, config, rows=np.arange(200), seed=0)
    scaler = head.features.scaler
    assert (
        (scaler.location == 0).all() and (scaler.scale == 1).all() and head.features.basis is None
    )
    widths = [m.out_features for m in head.module.modules() if isinstance(m, torch.nn.Linear)]
    assert widths == [256, 32, 3] and head.module.linear is None
    assert head.chosen["epochs"] == 2
    assert head.chosen["train_loss"] > 5  # in squared units of the targets, mean 7


def test_a_network_alone_stops_where_inner_folds_say_and_sees_all_rows_then() -> None:
    X, rows = _inputs(), np.arange(200)
    targets = _targets("regression", X)
    head = fit_head(X, targets, replace(QUICK, linear=False), rows=rows, seed=3)
    assert head.chosen["epochs"] == 1 + int(np.argmin(head.curve[1:]))
    assert head.chosen["n_seeds"] == 1 and "inner_loss_linear" not in head.chosen


def test_groups_are_never_on_both_sides_of_an_inner_fold() -> None:
    X = _inputs()
    groups = np.arange(N) // 10
    folds = deal_inner(_targets("multiclass", X), groups, 0, 0.2)
    assert set(folds) == set(range(5))
    assert all(np.unique(folds[groups == g]).size == 1 for g in np.unique(groups))
    assert set(deal_inner(_targets("multiclass", X), np.zeros(N), 0, 0.2)) == set(range(5))


def test_one_fold_judges_where_rows_are_many_and_none_where_nothing_is_left() -> None:
    folds = np.arange(100) % 5
    np.testing.assert_array_equal(judging_folds(folds, None, 3), np.arange(5))
    np.testing.assert_array_equal(judging_folds(folds, None, 100), [0])
    np.testing.assert_array_equal(judging_folds(np.tile(folds, 5), None, 3), [0])
    np.testing.assert_array_equal(judging_folds(folds, folds, 100), np.arange(5))  # few groups
    assert judging_folds(folds[:7], None, 5).size == 0
    assert judging_folds(np.zeros(9, dtype=int), None, 5).size == 0
    assert judging_folds(np.full(9, -1), None, 5).size == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_train", [2, 3, 7])
def test_a_handful_of_rows_works(kind: str, n_train: int) -> None:
    X = _inputs()
    head = fit_head(X, _targets(kind, X), QUICK, rows=np.arange(n_train), seed=0)
    assert np.isfinite(head.predict(X)).all() and head.is_linear


def test_more_features_than_rows_work_and_are_kept_in_the_rows_own_space() -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(60, 500)).astype(np.float32)
    targets = Targets("binary", (X[:, :20].sum(axis=1) > 0).astype(np.int64), ("no", "yes"))
    head = fit_head(X, targets, QUICK, rows=np.arange(40), seed=0)
    assert head.features.basis is not None and head.features.n_inputs == 39
    away = generator.normal(size=500)
    Z = head.features.scaler.apply(X[:40]).astype(np.float64)
    away -= np.linalg.lstsq(Z.T, away, rcond=None)[0] @ Z  # orthogonal to every training row
    moved = X[40:] + (away * head.features.scaler.scale).astype(np.float32)
    np.testing.assert_allclose(head.predict(moved), head.predict(X[40:]), atol=1e-4)


def test_one_group_among_few_rows_works() -> None:
    X = _inputs()
    head = fit_head(X, _targets("binary", X), QUICK, rows=np.arange(20), seed=0, groups=np.zeros(N))
    assert np.isfinite(head.predict(X)).all()


def test_one_row_is_refused() -> None:
    X = _inputs()
    with pytest.raises(InputError, match="at least two training rows; found 1"):
        fit_head(X, _targets("regression", X), QUICK, rows=np.array([4]), seed=0)


def test_a_gain_counts_only_where_it_is_sure() -> None:
    rng = np.random.default_rng(0)
    assert is_lower(rng.normal(-1, 1, 50)) and not is_lower(rng.normal(1, 1, 50))
    assert not is_lower(np.array([-1.0])) and not is_lower(np.zeros(20))
    found = np.mean([is_lower(rng.normal(0, 1, 30)) for _ in range(4000)])
    assert abs(found - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 4000)  # four standard errors


def test_the_mean_of_heads_is_one_head() -> None:
    torch.manual_seed(0)
    heads = [Head(5, 3, (7, 4)) for _ in range(3)]
    x = torch.randn(9, 5)
    expected = torch.stack([head(x) for head in heads]).mean(0)
    torch.testing.assert_close(mean_head(heads)(x), expected)
    assert mean_head(heads[:1]) is heads[0]
    with pytest.raises(ValueError, match="hidden layers to put side by side"):
        mean_head([Head(5, 3, ()), Head(5, 3, ())])


def test_the_best_of_several_settings_is_taken() -> None:
    X, rows = _inputs(), np.arange(200)
    targets = _targets("regression", X, curved=True)
    bad, good = replace(QUICK, hidden=(2,), lr=1e-6), replace(QUICK, hidden=(64,))
    job = HeadJob(X, rows, (bad, good), 0)
    head = fit_heads([job], HeadData(targets, 0))[0]
    alone = fit_head(X, targets, good, rows=rows, seed=0)
    assert head.chosen["hidden"] == [64] and head.chosen["n_tried"] == 2
    np.testing.assert_allclose(head.predict(X), alone.predict(X), rtol=1e-4, atol=1e-4)


def test_added_rows_are_trained_on_set_no_scale_and_are_not_held_out() -> None:
    X, rows = _inputs(), np.arange(150)
    targets = _targets("binary", X)
    kept = stepped_rows(targets, rows, None, 0, QUICK.validation)
    assert 0 < kept.size < rows.size and np.isin(kept, rows).all()
    again = AddedRows(X[kept], targets.values[kept])
    plain = fit_head(X, targets, QUICK, rows=rows, seed=0)
    more = fit_head(X, targets, QUICK, rows=rows, seed=0, added=again)
    np.testing.assert_array_equal(more.features.scaler.location, plain.features.scaler.location)
    wrong = AddedRows(X[kept], 1 - targets.values[kept])
    spoilt = fit_head(X, targets, QUICK, rows=rows, seed=0, added=wrong)
    errors = [
        _error("binary", targets, np.arange(150, N), h.predict(X[150:])) for h in (more, spoilt)
    ]
    assert errors[0] < 0.5 * errors[1]


def test_genes_and_latents_together_are_no_worse_than_the_better_of_both() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 60)).astype(np.float32)
    Z = (X[:, :5] + 0.1 * rng.normal(size=(400, 5))).astype(np.float32)
    targets = Targets(
        "regression", X[:, :5] + 0.5 * rng.normal(size=(400, 5)).astype(np.float32), tuple("abcde")
    )
    train, test = np.arange(40), np.arange(40, 400)

    def error(**job: Any) -> tuple[float, dict[str, Any]]:
        settings = replace(QUICK, hidden=())
        features = job.pop("X")
        head = fit_heads([HeadJob(features, train, (settings,), 0, **job)], HeadData(targets, 0))[0]
        return _error("regression", targets, test, head.predict(features[test])), head.chosen

    both, chosen = error(X=np.concatenate([X, Z], axis=1), n_beside=5)
    genes, latents = error(X=X)[0], error(X=Z, scale="one")[0]
    assert latents < 0.7 * genes  # the fixture's premise
    assert chosen["share"] > 0 and both < 1.05 * latents
    noise = rng.normal(size=(400, 5)).astype(np.float32)
    useless, chosen = error(X=np.concatenate([X, noise], axis=1), n_beside=5)
    assert useless < 1.05 * genes


def test_a_prior_of_other_samples_helps_where_it_is_true() -> None:
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(3, 80))
    X = (rng.normal(size=(500, 3)) @ loadings + rng.normal(size=(500, 80))).astype(np.float32)
    targets = Targets("regression", (X @ loadings.T / 80).astype(np.float32), tuple("abc"))
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    values, vectors = np.linalg.eigh(np.cov(Z.T))
    prior = Covariance(vectors[:, -3:].T, values[-3:], float(values[:-3].mean()))
    train, test = np.arange(20), np.arange(20, 500)
    settings = (replace(QUICK, hidden=()),)
    plain, told = (
        fit_heads([HeadJob(X, train, settings, 0, covariance=c)], HeadData(targets, 0))[0]
        for c in (None, prior)
    )
    assert told.chosen["power"] > 0
    errors = [_error("regression", targets, test, h.predict(X[test])) for h in (plain, told)]
    assert errors[1] < 0.9 * errors[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("curved", [False, True])
def test_stored_head_predicts_the_same(kind: str, curved: bool) -> None:
    X = _inputs()
    head = fit_head(X, _targets(kind, X, curved=curved), QUICK, rows=np.arange(200), seed=0)
    arrays, meta = head.to_state()
    again = FittedHead.from_state(arrays, json.loads(json.dumps(meta)))
    np.testing.assert_array_equal(head.predict(X), again.predict(X))
    assert (again.kind, again.units, again.names) == (head.kind, head.units, head.names)
    assert again.chosen == head.chosen and again.curve == head.curve
    del arrays["head.linear.bias"]
    with pytest.raises(InputError, match=r"expected a stored head; .*linear\.bias"):
        FittedHead.from_state(arrays, meta)


def test_a_stored_head_with_own_genes_predicts_the_same() -> None:
    X = _inputs()
    targets = _targets("regression", X)
    own = OwnGenes(X[:, :2].copy(), np.array([0, 1, -1]))
    head = fit_head(X[:, 4:], targets, QUICK, rows=np.arange(200), seed=0, own=own)
    assert head.own is not None and head.own.slope[:2].all()
    arrays, meta = head.to_state()
    again = FittedHead.from_state(arrays, json.loads(json.dumps(meta)))
    np.testing.assert_array_equal(
        head.predict(X[:, 4:], X[:, :2]), again.predict(X[:, 4:], X[:, :2])
    )
    with pytest.raises(ValueError, match="levels of its targets' own genes"):
        head.predict(X[:, 4:])


def test_a_head_of_version_0_1_opens_and_predicts_as_it_did() -> None:
    """A network alone; what its own genes told beyond its activations came on top."""
    torch.manual_seed(0)
    X, own = _inputs(20), _inputs(20)[:, :2].copy()
    module = Head(P, 3, (8,))
    rng = np.random.default_rng(0)
    term = {
        "own.column": np.array([1, -1, 0]),
        "own.slope": np.array([0.7, 0.0, -1.3], dtype=np.float32),
        "own.location": np.array([20.0, 19.0], dtype=np.float32),
        "own.scale": np.array([5.0, 4.0], dtype=np.float32),
        "own.center": rng.normal(size=8).astype(np.float32),
        "own.weights": rng.normal(size=(8, 2)).astype(np.float32),
    }
    arrays = {f"head.{k}": v.numpy() for k, v in module.state_dict().items()}
    arrays |= {"scaler.location": X.mean(0), "scaler.scale": X.std(0)} | term
    meta = {
        "kind": "regression",
        "names": ["a", "b", "c"],
        "units": {"name": "tpm", "target_sum": None},
        "hidden": [8],
        "scaler": "standardize",
        "history": {"rows": [], "best_epoch": 3},
        "n_epochs": 3,
        "own": {"ridge": 1.0, "penalty": 0.1},
    }
    head = FittedHead.from_state(arrays, meta)
    with torch.no_grad():
        x = torch.from_numpy((X - X.mean(0)) / X.std(0))
        assert module.hidden is not None
        h = module.hidden(x).numpy()
        expected = module(x).numpy()
    free = (own - term["own.location"]) / term["own.scale"] - (h - term["own.center"]) @ term[
        "own.weights"
    ]
    expected[:, 0] += free[:, 1] * 0.7
    expected[:, 2] += free[:, 0] * -1.3
    np.testing.assert_allclose(head.predict(X, own), expected, rtol=1e-4, atol=1e-4)


def test_predicting_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    X = _inputs()
    head = fit_head(X, _targets("multiclass", X), QUICK, rows=np.arange(200), seed=0)
    whole = head.predict(X)
    monkeypatch.setattr("m1pipe.heads.fitted.PREDICT_ROWS", 7)
    np.testing.assert_allclose(head.predict(X), whole, atol=1e-6)
    assert head.predict(X[:0]).shape == (0, 3)


def test_non_finite_inputs_are_refused() -> None:
    X = _inputs()
    X[5, 2] = np.nan
    with pytest.raises(InputError, match="expected finite"):
        fit_head(X, _targets("regression", X), QUICK, rows=np.arange(200), seed=0)


@pytest.mark.slow
def test_wide_heads_learn() -> None:
    generator = np.random.default_rng(0)
    Z = generator.normal(size=(991, 10))
    X = (Z @ generator.normal(size=(10, 968)) + generator.normal(size=(991, 968))).astype(
        np.float32
    )
    Y = (Z @ generator.normal(size=(10, 1505))).astype(np.float32)
    Y += generator.normal(size=Y.shape).astype(np.float32)
    targets = Targets("regression", Y, tuple(str(j) for j in range(1505)))
    head = fit_head(X, targets, HeadConfig(), rows=np.arange(793), seed=0)
    test = slice(793, None)
    share = ((head.predict(X[test]) - Y[test]) ** 2).mean() / Y[test].var()
    assert share < 0.5


def test_the_device_is_that_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    original = fitting.resolve_device
    monkeypatch.setattr(fitting, "resolve_device", lambda name: seen.append(name) or original(name))
    X = _inputs()
    fit_head(X, _targets("binary", X), replace(QUICK, device="cpu"), rows=np.arange(50), seed=0)
    assert seen == ["cpu"]


@pytest.mark.parametrize("kind", KINDS)
def test_heads_of_the_same_features_share_their_exact_part(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    X = _inputs(90)
    targets, rows = _targets(kind, X), np.arange(70)
    plain = HeadJob(X, rows, (HeadConfig(hidden=()),), 3)
    with_network = HeadJob(X, rows, (QUICK,), 3)
    other_rows = HeadJob(X, rows[:60], (HeadConfig(hidden=()),), 3)
    alone = [fit_heads([job], HeadData(targets, 0))[0] for job in (plain, with_network, other_rows)]
    rotated: list[int] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        rotated.append(len(arguments[0]))
        return features.fit_features(*arguments, **options)

    monkeypatch.setattr(linear_fit, "fit_features", counted)
    together = fit_heads([plain, with_network, other_rows], HeadData(targets, 0))
    assert rotated == [70, 60]  # not once for each of the three
    for own, shared in zip(alone, together, strict=True):
        np.testing.assert_allclose(shared.predict(X), own.predict(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_networks_of_classes_are_judged_with_half_a_missed_row(kind: str) -> None:
    """At its start a network is the linear part: both are judged by one criterion."""
    X = _inputs(60)
    targets = _targets(kind, X)
    job = HeadJob(X, np.arange(60), (QUICK,), 3)
    with_network = fit_heads([job], HeadData(targets, 0))[0]
    alone = fit_heads([replace(job, configs=(HeadConfig(hidden=()),))], HeadData(targets, 0))[0]
    judged = with_network.chosen["inner_loss_linear"]
    assert judged == pytest.approx(alone.chosen["inner_loss"], rel=1e-4)
    folds = deal_inner(targets, None, 3, QUICK.validation)
    fit = fit_logistic(
        rotate(alone.features.apply(X)),
        targets.values,
        kind=kind,
        n_classes=3,
        folds=folds,
        alphas=[alone.chosen["alpha"]],
    )
    assert judged > 1.005 * fit.losses[0]
    assert judged == pytest.approx(fit.criterion[0], rel=1e-3)  # solved from another start


def test_the_best_of_many_has_to_be_surer() -> None:
    changes = np.tile([-1.5, 0.6], 10)  # t = -1.9
    assert is_lower(changes) and not is_lower(changes, n_tried=20)
    assert is_lower(changes - 1, n_tried=20)
