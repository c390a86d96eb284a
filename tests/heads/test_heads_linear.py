"""Ridge against brute-force leave-one-out, logistic against scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV

from m1pipe.data.targets import Targets
from m1pipe.errors import M1Warning
from m1pipe.heads.features import rotate
from m1pipe.heads.inner_folds import inner_folds
from m1pipe.heads.linear import class_weights, fit_linear
from m1pipe.heads.logistic import fit_logistic
from m1pipe.heads.logistic_solver import LogisticProblem, solve
from m1pipe.heads.ridge import fit_ridge


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def levels(rng, n, p, t, dtype=np.float64):
    X = rng.normal(size=(n, p))
    X[:, : p // 2] += rng.normal(size=(n, 1))
    Y = X[:, :4] @ rng.normal(size=(4, t)) + rng.normal(size=(n, t)) + 5
    return X.astype(dtype), Y.astype(dtype)


def brute_force(X, Y, alpha):
    """Leave-one-out mean squared error by refitting scikit-learn's ridge n times."""
    errors = []
    for i in range(len(X)):
        keep = np.arange(len(X)) != i
        model = Ridge(alpha=alpha).fit(X[keep], Y[keep])
        errors.append((model.predict(X[i : i + 1]) - Y[i]) ** 2)
    return float(np.mean(errors))


@pytest.mark.parametrize(("n", "p", "t"), [(15, 40, 3), (20, 20, 3), (21, 20, 30), (40, 6, 50)])
def test_leave_one_out_is_exact_for_few_and_many_samples(rng, n, p, t):
    X, Y = levels(rng, n, p, t)
    alphas = [1e4, 100.0, 1.0, 1e-2, 1e-6]
    fit = fit_ridge(X, Y, alphas=alphas)
    expected = [brute_force(X, Y, a) for a in alphas]
    np.testing.assert_allclose(fit.losses, expected, rtol=1e-6)
    assert fit.alpha == alphas[int(np.argmin(expected))]


@pytest.mark.parametrize(("n", "p"), [(40, 10), (31, 30), (30, 100)])
def test_leaving_groups_out_is_exact_for_few_and_many_samples(rng, n, p):
    X, Y = levels(rng, n, p, 4)
    groups = np.array([f"donor{i // 4}" for i in range(n)])[rng.permutation(n)]
    alphas = [1e3, 10.0, 0.1, 1e-4]
    fit = fit_ridge(X, Y, alphas=alphas, groups=groups)
    for alpha, loss in zip(alphas, fit.losses, strict=True):
        errors = np.empty_like(Y)
        for group in np.unique(groups):
            out = groups == group
            errors[out] = Ridge(alpha=alpha).fit(X[~out], Y[~out]).predict(X[out]) - Y[out]
        assert loss == pytest.approx(np.mean(errors**2), rel=1e-5)
    one = fit_ridge(X, Y, alphas=alphas, groups=np.zeros(n))
    np.testing.assert_array_equal(one.losses, fit_ridge(X, Y, alphas=alphas).losses)


@pytest.mark.parametrize(("n", "p"), [(40, 10), (31, 30), (30, 100)])
def test_ridges_of_inner_folds_are_those_of_the_other_rows(rng, n, p):
    X, Y = levels(rng, n, p, 4)
    folds = np.arange(n) % 3
    targets = Targets("regression", Y.astype(np.float32), ("a", "b", "c", "d"))
    fit = fit_linear(rotate(X), targets, folds=folds, groups=None, weight=None, judged=np.arange(3))
    assert len(fit.inner) == 3
    for fold, part in enumerate(fit.inner):
        out = folds == fold
        expected = Ridge(alpha=fit.chosen["alpha"]).fit(X[~out], Y[~out]).predict(X)
        np.testing.assert_allclose(X @ part.weight.T + part.bias, expected, rtol=1e-3, atol=1e-3)


def test_logistic_fits_of_inner_folds_are_those_of_the_other_rows(rng):
    X, y = classes(rng, 70, 6, 3)
    folds = inner_folds(y, "multiclass", None, 0)
    targets = Targets("multiclass", y, ("a", "b", "c"))
    fit = fit_linear(rotate(X), targets, folds=folds, groups=None, weight=None, judged=np.arange(3))
    for fold, part in enumerate(fit.inner):
        kept = folds != fold
        model = LogisticRegression(C=1 / fit.chosen["alpha"], tol=1e-8, max_iter=10000)
        logits = X @ part.weight.T + part.bias
        expected = model.fit(X[kept], y[kept]).predict_proba(X)
        found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found, expected, atol=5e-3)


def test_rows_of_no_fold_are_always_trained_on(rng):
    X, y = classes(rng, 60, 6, 2)
    folds = np.where(np.arange(60) < 15, 0, -1)
    fit = fit_logistic(X, y, kind="binary", folds=folds, alphas=[30.0, 3.0, 0.3])
    for alpha, loss in zip(fit.alphas, fit.losses, strict=True):
        model = LogisticRegression(C=1 / alpha, tol=1e-8, max_iter=10000).fit(X[15:], y[15:])
        p = model.predict_proba(X[:15])[np.arange(15), y[:15]]
        assert loss == pytest.approx(-np.log(p).mean(), abs=5e-3)


def test_duplicate_samples_and_features_keep_leave_one_out_exact(rng):
    X, Y = levels(rng, 14, 30, 2)
    X[3], X[:, 7] = X[2], X[:, 6]
    fit = fit_ridge(X, Y, alphas=[30.0, 1e-3])
    np.testing.assert_allclose(fit.losses, [brute_force(X, Y, a) for a in (30.0, 1e-3)], rtol=1e-6)


@pytest.mark.parametrize(("n", "p"), [(30, 80), (80, 30)])
def test_fit_and_prediction_match_scikit_learn(rng, n, p):
    X, Y = levels(rng, n, p, 5)
    fit = fit_ridge(X, Y, alphas=[7.0])
    oracle = Ridge(alpha=7.0).fit(X, Y)
    np.testing.assert_allclose(fit.coef, oracle.coef_.T, atol=1e-10)
    np.testing.assert_allclose(fit.intercept, oracle.intercept_, atol=1e-10)
    new = rng.normal(size=(9, p))
    np.testing.assert_allclose(fit.predict(new), oracle.predict(new), atol=1e-10)


def test_chosen_penalty_matches_ridge_cv_and_is_not_beaten_nearby(rng):
    X, Y = levels(rng, 60, 25, 4)
    fit = fit_ridge(X, Y)
    oracle = RidgeCV(alphas=np.unique(fit.alphas)).fit(X, Y)
    assert fit.alpha == pytest.approx(oracle.alpha_)
    best = fit.losses.min()
    for factor in (0.5, 0.8, 1.25, 2):
        assert fit_ridge(X, Y, alphas=[factor * fit.alpha]).losses[0] > best * 0.999


def test_single_precision_agrees_and_stays_single(rng):
    X, Y = levels(rng, 50, 90, 12)
    exact = fit_ridge(X, Y)
    single = fit_ridge(X.astype(np.float32), Y.astype(np.float32))
    new = rng.normal(size=(8, 90))
    assert single.predict(new.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(single.predict(new), exact.predict(new), atol=1e-4)


def test_targets_read_in_blocks_give_the_same(rng, monkeypatch):
    X, Y = levels(rng, 25, 12, 31)
    whole = fit_ridge(X, Y)
    monkeypatch.setattr("m1pipe.heads.ridge._BLOCK_CELLS", 100)
    blocks = fit_ridge(X, Y)
    np.testing.assert_allclose(blocks.losses, whole.losses, rtol=1e-12)
    np.testing.assert_allclose(blocks.predict(X), whole.predict(X), rtol=1e-10)


def test_unrelated_inputs_shrink_to_the_mean(rng):
    X, Y = rng.normal(size=(40, 200)), rng.normal(size=(40, 30)) + 3
    fit = fit_ridge(X, Y)
    spread = np.std(fit.predict(rng.normal(size=(10, 200))) - Y.mean(axis=0))
    assert spread < 0.2 * np.std(Y)


def test_a_gene_constant_in_training_rows_does_not_blow_up(rng):
    """At 20 labels some genes are constant in training and not in the test rows."""
    X, Y = levels(rng, 20, 30, 4)
    new = X + rng.normal(size=X.shape)
    X[:, 11] = 0.1
    codes = (Y[:, 0] > Y[:, 0].mean()).astype(int)
    ordinary, moved = new.copy(), new.copy()
    ordinary[:, 11], moved[:, 11] = 0.1, 50.0
    fit = fit_ridge(X, Y)
    np.testing.assert_allclose(fit.predict(moved), fit.predict(ordinary), atol=1e-6)
    logistic = fit_logistic(X, codes, kind="binary")
    np.testing.assert_allclose(logistic.predict(moved), logistic.predict(ordinary), atol=1e-6)
    flat = fit_ridge(np.full((20, 5), 0.1), Y)
    np.testing.assert_allclose(flat.predict(moved[:, :5]), np.tile(Y.mean(axis=0), (20, 1)))


def test_rotation_reproduces_the_centred_matrix(rng):
    for shape in ((12, 50), (50, 12)):
        X = rng.normal(size=shape) + 3
        r = rotate(X)
        np.testing.assert_allclose((r.left * r.singular) @ r.basis.T + r.center, X, atol=1e-9)
        np.testing.assert_allclose(r.transform(X), r.left * r.singular, atol=1e-9)
        np.testing.assert_allclose(r.basis.T @ r.basis, np.eye(len(r.singular)), atol=1e-9)


def classes(rng, n, p, k):
    X = rng.normal(size=(n, p))
    logits = 1.5 * X[:, :3] @ rng.normal(size=(3, k))
    return X, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


@pytest.mark.parametrize(("n", "p"), [(60, 10), (40, 150)])
def test_binary_matches_scikit_learn(rng, n, p):
    X, y = classes(rng, n, p, 2)
    fit = fit_logistic(X, y, kind="binary", alphas=[2.5])
    oracle = LogisticRegression(C=1 / 2.5, tol=1e-10, max_iter=10000).fit(X, y)
    new = rng.normal(size=(20, p))
    np.testing.assert_allclose(fit.predict(new), oracle.predict_proba(new), atol=2e-5)
    np.testing.assert_allclose(fit.coef[:, 0], oracle.coef_[0], atol=2e-5)


@pytest.mark.parametrize(("n", "p"), [(90, 12), (60, 200)])
def test_multiclass_matches_scikit_learn(rng, n, p):
    X, y = classes(rng, n, p, 4)
    fit = fit_logistic(X, y, kind="multiclass", alphas=[1.3])
    oracle = LogisticRegression(C=1 / 1.3, tol=1e-10, max_iter=10000).fit(X, y)
    new = rng.normal(size=(20, p))
    np.testing.assert_allclose(fit.predict(new), oracle.predict_proba(new), atol=3e-5)


def test_multilabel_is_one_binary_model_a_label(rng):
    X = rng.normal(size=(80, 15))
    labels = (X[:, :3] + rng.normal(size=(80, 3)) > 0.4).astype(np.float32)
    fit = fit_logistic(X, labels, kind="multilabel", alphas=[3.0])
    for j in range(3):
        alone = fit_logistic(X, labels[:, j].astype(int), kind="binary", alphas=[3.0])
        np.testing.assert_allclose(fit.predict(X)[:, j], alone.predict(X)[:, 1], atol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_balanced_weights_match_scikit_learn(rng, n_classes):
    X, y = classes(rng, 200, 6, n_classes)
    kept = np.flatnonzero((y == 0) | (rng.uniform(size=200) < 0.3))
    X, y = X[kept], y[kept]
    kind = "binary" if n_classes == 2 else "multiclass"
    names = tuple("abc"[:n_classes])
    weight = class_weights(Targets(kind, y.astype(np.int64), names))
    fit = fit_logistic(X, y, kind=kind, weight=weight, alphas=[0.7])
    oracle = LogisticRegression(C=1 / 0.7, class_weight="balanced", tol=1e-10, max_iter=10000)
    np.testing.assert_allclose(fit.predict(X), oracle.fit(X, y).predict_proba(X), atol=3e-5)
    plain = fit_logistic(X, y, kind=kind, alphas=[0.7])
    assert np.abs(plain.predict(X) - fit.predict(X)).max() > 0.05


def test_balanced_labels_are_one_balanced_model_a_label(rng):
    X = rng.normal(size=(120, 5))
    labels = (X[:, :2] + rng.normal(size=(120, 2)) > 1).astype(np.float32)
    weight = class_weights(Targets("multilabel", labels, ("a", "b")))
    fit = fit_logistic(X, labels, kind="multilabel", weight=weight, alphas=[2.0])
    for j in range(2):
        oracle = LogisticRegression(C=1 / 2.0, class_weight="balanced", tol=1e-10, max_iter=10000)
        oracle.fit(X, labels[:, j])
        np.testing.assert_allclose(fit.predict(X)[:, j], oracle.predict_proba(X)[:, 1], atol=3e-5)


def test_penalty_is_chosen_by_the_inner_log_loss_and_half_a_missed_row(rng):
    """The curves over penalties equal scikit-learn's on the same inner folds."""
    X, y = classes(rng, 70, 30, 3)
    alphas = [300.0, 30.0, 3.0, 0.3]
    fit = fit_logistic(X, y, kind="multiclass", alphas=alphas, seed=4)
    folds = inner_folds(y, "multiclass", None, 4)
    expected, criterion = [], []
    for alpha in fit.alphas:
        loss, missed = np.empty(70), np.empty(70)
        for k in range(5):
            test = folds == k
            model = LogisticRegression(C=1 / alpha, tol=1e-8, max_iter=10000).fit(
                X[~test], y[~test]
            )
            p = model.predict_proba(X[test])
            loss[test] = -np.log(p[np.arange(test.sum()), y[test]])
            p[np.arange(test.sum()), y[test]] = 0
            missed[test] = -np.log(p.max(axis=1))
        expected.append(loss.mean())
        criterion.append((loss + 0.5 / 71 * (missed - loss)).mean())
    np.testing.assert_allclose(fit.losses, expected, atol=2e-3)
    np.testing.assert_allclose(fit.criterion, criterion, atol=2e-3)
    assert fit.alpha == alphas[int(np.argmin(criterion))]


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_a_handful_of_rows_does_not_make_it_sure(kind):
    """Of 16 rows that no inner fold misses, log loss alone would take ever weaker penalties."""
    by_loss, ours, sure = [], [], 0
    for seed in range(12):
        generator = np.random.default_rng(seed)
        y = generator.permutation(np.repeat([0, 1], [508, 508]))
        X = generator.normal(size=(1016, 60)) + 0.35 * y[:, None]
        rows, new = np.concatenate([np.flatnonzero(y == c)[:8] for c in (0, 1)]), slice(100, None)
        given = y[rows] if kind == "binary" else y[rows][:, None]
        fit = fit_logistic(X[rows], given, kind=kind, seed=seed)
        weakest = float(fit.alphas[int(np.argmin(fit.losses))])
        sure += weakest < fit.alpha
        for losses, alpha in ((by_loss, weakest), (ours, fit.alpha)):
            one = fit_logistic(X[rows], given, kind=kind, alphas=[alpha])
            p = one.predict(X[new])[:, -1]
            losses.append(-np.log(np.where(y[new] == 1, p, 1 - p)).mean())
    assert sure >= 3  # else there is nothing to see here
    assert np.mean(ours) < np.mean(by_loss)


def test_inner_folds_are_stratified_deterministic_and_keep_donors_together(rng):
    y = np.repeat([0, 1, 2], [50, 30, 10])
    folds = inner_folds(y, "multiclass", None, 0)
    table = np.array([[np.sum((folds == k) & (y == c)) for c in range(3)] for k in range(5)])
    assert (np.ptp(table, axis=0) <= 1).all()
    np.testing.assert_array_equal(folds, inner_folds(y, "multiclass", None, 0))
    donors = rng.integers(0, 12, 90)
    folds = inner_folds(y, "multiclass", donors, 0)
    assert all(len(set(folds[donors == d])) == 1 for d in np.unique(donors))
    assert len(set(folds)) == 5


def test_shuffled_labels_are_not_predicted(rng):
    """On new samples they are no better than the frequency of the labels, to 4 standard errors."""
    X, y = rng.normal(size=(100, 400)), rng.integers(0, 2, 100)
    new = rng.integers(0, 2, 2000)
    p = fit_logistic(X, y, kind="binary").predict(rng.normal(size=(2000, 400)))
    share = np.array([1 - y.mean(), y.mean()])
    worse = np.log(share[new]) - np.log(p[np.arange(2000), new])
    assert worse.mean() > -4 * worse.std() / np.sqrt(2000)
    assert np.abs(p[:, 1] - y.mean()).mean() < 0.25  # 0.5 without a penalty


def test_separable_classes_converge_without_a_warning(rng):
    X, y = classes(rng, 40, 300, 2)
    X[:, 0] = 6 * y
    fit = fit_logistic(X, y, kind="binary")
    assert fit.losses.min() < 0.3
    again = fit_logistic(X, y, kind="binary")
    np.testing.assert_array_equal(fit.weights, again.weights)


def test_classes_missing_from_training_rows_have_the_share_of_half_a_row(rng):
    X, y = classes(rng, 60, 8, 3)
    y[y == 1] = 0
    p = fit_logistic(X, y, kind="multiclass", n_classes=4, alphas=[1e6]).predict(X)
    assert p.shape == (60, 4)
    np.testing.assert_allclose(p[:, [1, 3]], 0.5 / 61, rtol=0.01)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    sharp = fit_logistic(X, y, kind="multiclass", n_classes=4).predict(X)
    assert (sharp[:, [1, 3]] < 1.5 / 60).all() and (sharp[:, [1, 3]] > 0).all()
    one = fit_logistic(X, np.zeros(60, int), kind="multiclass", n_classes=2).predict(X)
    np.testing.assert_allclose(one, np.tile([60 / 60.5, 0.5 / 60.5], (60, 1)), rtol=1e-6)


def test_a_label_that_never_varies_gets_half_a_row_more(rng):
    X = rng.normal(size=(50, 6))
    labels = np.column_stack([X[:, 0] > 0, np.zeros(50), np.ones(50)])
    p = fit_logistic(X, labels, kind="multilabel", alphas=[5.0]).predict(X)
    np.testing.assert_allclose(p[:, 1], 0.5 / 51, rtol=1e-6)
    np.testing.assert_allclose(p[:, 2], 50.5 / 51, rtol=1e-6)
    assert 0 < p[:, 0].min() < 0.5 < p[:, 0].max() < 1


def test_a_rare_class_of_two_samples_is_fitted(rng):
    X, y = classes(rng, 50, 8, 2)
    y[:2] = 2
    assert fit_logistic(X, y, kind="multiclass").predict(X).shape == (50, 3)


def test_stopping_short_is_said(rng, monkeypatch):
    X, y = classes(rng, 60, 20, 2)
    for name in ("_STEPS_A_RUN", "_MOST_STEPS"):
        monkeypatch.setattr(f"m1pipe.heads.logistic_solver.{name}", 2)
    r = rotate(X)
    problem = LogisticProblem(
        r.left * r.singular, y[:, None].astype(float), np.ones((60, 1)), softmax=False
    )
    everything = np.ones((60, 1), dtype=bool)
    with pytest.warns(M1Warning, match="short of its tolerance"):
        solve(problem, everything, 1e-9, tolerance=1e-12)


@pytest.mark.slow
def test_logistic_takes_many_genes_and_many_samples(rng):
    """It converges, without the warning of `test_stopping_short_is_said`, and has learned."""
    for n, p, k in ((317, 20531, 6), (12000, 1287, 8)):
        X, y = classes(rng, n, p, k)
        fit = fit_logistic(X, y, kind="multiclass")
        shares = np.bincount(y, minlength=k) / n
        prior = -(shares * np.log(shares)).sum()
        own = -np.log(fit.predict(X)[np.arange(n), y]).mean()
        assert own < prior
        assert (n < p) or fit.losses.min() < 0.8 * prior


def test_shapes_that_do_not_fit_are_refused(rng):
    X = rng.normal(size=(10, 3))
    with pytest.raises(ValueError, match="as many as X"):
        fit_ridge(X, np.zeros((9, 2)))
    with pytest.raises(ValueError, match="positive"):
        fit_ridge(X, np.zeros((10, 2)), alphas=[0.0])
    with pytest.raises(ValueError, match="finite matrix"):
        fit_ridge(np.full((10, 3), np.nan), np.zeros((10, 2)))
    with pytest.raises(ValueError, match="expected 10 rows; found 9"):
        fit_logistic(X, np.zeros(9, int), kind="binary")
    with pytest.raises(ValueError, match="does not fit the kind"):
        fit_logistic(X, np.zeros((10, 2)), kind="binary")
