import json

import numpy as np
import pytest
import torch

from m1pipe.config import HeadConfig
from m1pipe.data.splits import inner_split
from m1pipe.data.targets import Targets
from m1pipe.data.units import Units
from m1pipe.errors import InputError
from m1pipe.models.heads import Head
from m1pipe.training import fit_heads
from m1pipe.training.fit_heads import fit_head
from m1pipe.training.fitted_head import FittedHead
from m1pipe.training.head_feed import HeadFeed, row_order

N, P = 300, 12
KINDS = ["regression", "binary", "multiclass", "multilabel"]
QUICK = HeadConfig(hidden=(32,), epochs=60, patience=8, lr=5e-3)


def _inputs(n: int = N) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.normal(20, 5, size=(n, P)).astype(np.float32)


def _targets(kind: str, X: np.ndarray) -> Targets:
    generator = np.random.default_rng(1)
    signal = (X - 20) @ generator.normal(size=(P, 3)) / 5
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


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_class_probabilities_sum_to_one(kind: str) -> None:
    X = _inputs()
    p = fit_head(X, _targets(kind, X), QUICK, rows=np.arange(200), seed=0).predict(X)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    assert (p >= 0).all()


@pytest.mark.parametrize("n_train", [40, 200])
def test_other_rows_are_never_looked_at(n_train: int) -> None:
    X, train = _inputs(), np.arange(n_train)
    targets = _targets("regression", X)
    a = fit_head(X, targets, QUICK, rows=train, seed=0)
    X_other, y_other = X.copy(), targets.values.copy()
    X_other[n_train:], y_other[n_train:] = 1e6, -1e6
    changed = Targets("regression", y_other, targets.names)
    b = fit_head(X_other, changed, QUICK, rows=train, seed=0)
    assert torch.equal(_weights(a), _weights(b))
    np.testing.assert_array_equal(a.scaler.location, b.scaler.location)
    np.testing.assert_allclose(a.scaler.location, X[train].mean(0), rtol=1e-5)


def test_the_same_seed_gives_the_same_head_and_leaves_the_global_generator_alone() -> None:
    X = _inputs()
    targets, before = _targets("multiclass", X), torch.get_rng_state()
    a, b, c = (fit_head(X, targets, QUICK, rows=np.arange(200), seed=s) for s in (3, 3, 4))
    assert torch.equal(_weights(a), _weights(b)) and not torch.equal(_weights(a), _weights(c))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("n_train", [30, 200])
@pytest.mark.parametrize("kind", KINDS)
def test_a_gene_constant_in_the_training_rows_never_blows_a_prediction_up(
    kind: str, n_train: int
) -> None:
    """Dividing by sd + 1e-6 made the error 366,177 times that of the mean."""
    X, train, test = _inputs(), np.arange(n_train), np.arange(200, N)
    X[:200, 3] = 0.0
    X[200:, 3] = 9.0
    targets = _targets(kind, _inputs())
    head = fit_head(X, targets, QUICK, rows=train, seed=0)
    calm = X[test].copy()
    calm[:, 3] = 0.0
    assert (X[train, 3] == 0).all() and (X[test, 3] != 0).all()
    np.testing.assert_allclose(head.predict(X[test]), head.predict(calm), rtol=1e-4, atol=1e-4)


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


def test_regression_starts_at_the_training_mean_whatever_the_scale_of_the_targets() -> None:
    X, train = _inputs(), np.arange(200)
    targets = _targets("regression", X)
    config = HeadConfig(hidden=(32,), epochs=40, lr=5e-3, patience=0)
    plain = fit_head(X, targets, config, rows=train, seed=0)
    scaled = Targets("regression", targets.values * 1e5, targets.names)
    big = fit_head(X, scaled, config, rows=train, seed=0)
    np.testing.assert_allclose(big.predict(X), 1e5 * plain.predict(X), rtol=2e-3, atol=300)
    start = plain.history.rows[0]["train_loss"]
    assert 0.3 < start < 1.6  # as a share of the variance, so the mean was known at once


def test_a_constant_target_is_predicted_exactly() -> None:
    X = _inputs()
    targets = Targets("regression", np.full((N, 1), 42.0, np.float32), ("a",))
    head = fit_head(X, targets, QUICK, rows=np.arange(200), seed=0)
    np.testing.assert_allclose(head.predict(X), 42.0, atol=0.5)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_bias_starts_at_the_log_odds(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def spy(module: Head, *args: object, **options: object):
        seen["bias"] = module.output.bias.detach().clone()
        return original(module, *args, **options)

    original = fit_heads.fit
    monkeypatch.setattr(fit_heads, "fit", spy)
    X = _inputs()
    targets = _targets(kind, X)
    fit_head(X, targets, QUICK, rows=np.arange(200), seed=0)
    share = _mean(kind, targets, np.arange(200))
    bias = seen["bias"]
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
    weighted = HeadConfig(hidden=(32,), epochs=60, patience=8, lr=5e-3, class_weight="balanced")
    balanced = fit_head(X, targets, weighted, rows=rows, seed=0).predict(X)[:, 1]
    assert balanced.mean() > 2 * plain.mean()
    given = np.array([1.0, 1.0])
    unweighted = fit_head(X, targets, weighted, rows=rows, seed=0, class_weight=given)
    np.testing.assert_array_equal(unweighted.predict(X)[:, 1], plain)


def test_published_recipe_neither_scales_nor_starts_at_the_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X = _inputs()
    targets = _targets("regression", X)
    config = HeadConfig(
        hidden=(256, 32), standardize=False, initialize_bias=False, epochs=2, patience=0
    )
    head = fit_head(X, targets, config, rows=np.arange(200), seed=0)
    assert (head.scaler.location == 0).all() and (head.scaler.scale == 1).all()
    widths = [m.out_features for m in head.module.modules() if isinstance(m, torch.nn.Linear)]
    assert widths == [256, 32, 3]
    assert head.history.rows[0]["train_loss"] > 10  # in squared units of the targets, mean 7


def test_early_stopping_uses_the_inner_split_and_restores_the_best_weights() -> None:
    X, rows = _inputs(), np.arange(200)
    targets = _targets("regression", X)
    head = fit_head(X, targets, QUICK, rows=rows, seed=3)
    losses = [row["val_loss"] for row in head.history.rows]
    assert head.n_epochs == int(np.argmin(losses)) + 1
    _, held_out = inner_split(rows, QUICK.validation, 3)
    variance = ((targets.values[rows] - targets.values[rows].mean(0)) ** 2).mean()
    again = _error("regression", targets, held_out, head.predict(X[held_out])) / variance
    assert again == pytest.approx(min(losses), rel=1e-3)


def test_groups_are_never_on_both_sides_of_the_inner_split(monkeypatch: pytest.MonkeyPatch) -> None:
    X, feeds = _inputs(), []
    groups = np.arange(N) // 10
    original = fit_heads._feed

    def spy(task, rows, *args):
        feeds.append(set(groups[rows]))
        return original(task, rows, *args)

    monkeypatch.setattr(fit_heads, "_feed", spy)
    targets = _targets("regression", X)
    fit_head(X, targets, QUICK, rows=np.arange(200), seed=0, groups=groups)
    assert len(feeds) == 2 and all(feeds) and not feeds[0] & feeds[1]


def test_few_rows_train_for_a_number_of_epochs_from_inner_cross_validation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, sizes = _inputs(), []
    targets = _targets("multiclass", X)
    original = fit_heads._train

    def spy(task, rows, held_out=None, **options):
        sizes.append((rows.size, 0 if held_out is None else held_out.size))
        return original(task, rows, held_out, **options)

    monkeypatch.setattr(fit_heads, "_train", spy)
    head = fit_head(X, targets, QUICK, rows=np.arange(100, 159), seed=0)
    assert [a + b for a, b in sizes] == [59] * 6 and sizes[-1] == (59, 0)
    assert sum(b for _, b in sizes) == 59
    assert head.history.n_epochs == head.n_epochs <= QUICK.epochs
    assert "val_loss" not in head.history.rows[0]
    sizes.clear()
    fit_head(X, targets, QUICK, rows=np.arange(100, 160), seed=0)
    assert sizes == [(51, 9)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_train", [2, 3, 7])
def test_a_handful_of_rows_works(kind: str, n_train: int) -> None:
    X = _inputs()
    head = fit_head(X, _targets(kind, X), QUICK, rows=np.arange(n_train), seed=0)
    assert np.isfinite(head.predict(X)).all()


def test_one_group_among_few_rows_works() -> None:
    X = _inputs()
    head = fit_head(X, _targets("binary", X), QUICK, rows=np.arange(20), seed=0, groups=np.zeros(N))
    assert np.isfinite(head.predict(X)).all()


def test_one_row_is_refused() -> None:
    X = _inputs()
    with pytest.raises(InputError, match="at least two training rows; found 1"):
        fit_head(X, _targets("regression", X), QUICK, rows=np.array([4]), seed=0)


def test_a_batch_is_the_piece_of_one_common_order_that_belongs_to_the_head() -> None:
    n, seed = 70, 11
    x, y = torch.arange(n).float()[:, None], torch.arange(n)
    masks = [np.arange(n) % 3 != k for k in (0, 1)]
    scale = (torch.zeros(1), torch.ones(1))
    feeds = [HeadFeed(x, y, mask, scale, None, 16, seed) for mask in masks]
    for epoch in (0, 5):
        order = row_order(n, seed, epoch)
        np.testing.assert_array_equal(np.sort(order), np.arange(n))
        for mask, feed in zip(masks, feeds, strict=True):
            batches = list(feed.epoch(epoch))
            assert feed.n_rows == mask.sum() and feed.n_steps == len(batches) == 5
            for k, (features, codes, rows) in enumerate(batches):
                piece = order[16 * k : 16 * (k + 1)]
                np.testing.assert_array_equal(rows, piece[mask[piece]])
                np.testing.assert_array_equal(features[:, 0], rows)
                np.testing.assert_array_equal(codes, rows)
            late = list(feed.epoch(epoch, 3))
            assert torch.equal(late[0][2], batches[3][2])
    assert not np.array_equal(row_order(n, seed, 0), row_order(n, seed, 1))


def test_the_order_may_spread_the_folds_evenly() -> None:
    folds = np.repeat([0, 1, 2, 3, 4], [20, 20, 20, 20, 40])
    order = row_order(120, 0, 3, folds)
    np.testing.assert_array_equal(np.sort(order), np.arange(120))
    counts = np.stack(
        [np.bincount(folds[order[s : s + 30]], minlength=5) for s in range(0, 120, 30)]
    )
    np.testing.assert_allclose(counts, np.tile([5, 5, 5, 5, 10], (4, 1)), atol=1)
    assert not np.array_equal(order, row_order(120, 0, 4, folds))


def test_pieces_without_rows_of_the_head_are_left_out() -> None:
    X, rows = _inputs(), np.arange(60, 130)
    feed = HeadFeed(
        torch.from_numpy(X),
        torch.zeros(N),
        np.isin(np.arange(N), rows),
        (torch.zeros(P), torch.ones(P)),
        None,
        4,
        0,
    )
    assert len(list(feed.epoch(0))) < feed.n_steps
    config = HeadConfig(hidden=(8,), epochs=3, batch_size=4)
    head = fit_head(X, _targets("regression", X), config, rows=rows, seed=0)
    assert head.history.n_epochs == 3


@pytest.mark.parametrize("kind", KINDS)
def test_stored_head_predicts_the_same(kind: str) -> None:
    X = _inputs()
    head = fit_head(X, _targets(kind, X), QUICK, rows=np.arange(200), seed=0)
    arrays, meta = head.to_state()
    again = FittedHead.from_state(arrays, json.loads(json.dumps(meta)))
    np.testing.assert_array_equal(head.predict(X), again.predict(X))
    assert again.history.rows == head.history.rows and again.names == head.names
    assert (again.kind, again.units, again.n_epochs) == (head.kind, head.units, head.n_epochs)
    del arrays["head.output.bias"]
    with pytest.raises(InputError, match=r"expected a stored head; .*output\.bias"):
        FittedHead.from_state(arrays, meta)


def test_predicting_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    X = _inputs()
    head = fit_head(X, _targets("multiclass", X), QUICK, rows=np.arange(200), seed=0)
    whole = head.predict(X)
    monkeypatch.setattr("m1pipe.training.fitted_head.PREDICT_ROWS", 7)
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
