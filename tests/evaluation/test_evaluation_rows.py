from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from m1pipe.config import CrossvalConfig, EncoderConfig, HeadConfig
from m1pipe.data.targets import Targets
from m1pipe.errors import InputError
from m1pipe.evaluation.ladder import head_config, ladder, linear_rival, tuned_settings
from m1pipe.evaluation.representations import EncoderRow, resolve_encoders
from m1pipe.evaluation.rows import Fold, fit_row, train_mean
from m1pipe.training.fit_heads import fit_head

QUICK = CrossvalConfig(head=HeadConfig(hidden=(8,), epochs=8))
TRAIN, TEST = np.arange(70), np.arange(70, 100)


@pytest.fixture
def X() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)


def make_split(targets: Targets) -> Fold:
    order = (np.arange(100) >= 70).astype(int)
    return Fold(targets, TRAIN, TEST, None, None, order, seed=1, order_seed=2)


@pytest.fixture
def levels(X: np.ndarray) -> Fold:
    noise = np.random.default_rng(1).normal(size=(100, 3)).astype(np.float32)
    return make_split(Targets("regression", X[:, :3] + 0.1 * noise + 2, ("a", "b", "c")))


@pytest.fixture
def classes(X: np.ndarray) -> Fold:
    codes = np.digitize(X[:, 0], [-0.5, 0.5]).astype(np.int64)
    return make_split(Targets("multiclass", codes, ("low", "mid", "high")))


def encoder_row(name: str, *, in_fold: bool) -> EncoderRow:
    configs = (EncoderConfig(),) if in_fold else ()
    frozen = () if in_fold else (object(),)
    return EncoderRow(name, frozen, configs, ("somewhere",))  # type: ignore[arg-type]


def test_the_ladder_of_levels_and_of_classes() -> None:
    vae, ae = encoder_row("vae", in_fold=False), encoder_row("ae", in_fold=True)
    assert ladder("regression", [vae, ae], None) == (
        *("mean", "ridge", "pca_ridge", "raw", "pca"),
        *("vae", "ae"),
    )
    assert ladder("regression", [ae], None)[-2:] == ("pca_fold", "ae")
    for kind in ("binary", "multiclass"):
        assert ladder(kind, [vae], None) == ("prior", "logistic", "raw", "pca", "vae")
    rows = ("prior", "logistic", "pca_logistic", "raw", "pca", "vae")
    assert ladder("multilabel", [vae], None) == rows


def test_rows_can_be_chosen_but_the_yardstick_and_the_encoders_stay() -> None:
    vae = encoder_row("vae", in_fold=False)
    assert ladder("regression", [vae], ["raw"]) == ("mean", "raw", "vae")
    assert ladder("binary", [vae], ["pca_logistic", "pca_fold"]) == (
        *("prior", "pca_logistic", "pca_fold"),
        "vae",
    )


@pytest.mark.parametrize(
    ("kind", "asked", "named"),
    [("regression", "logistic", "mean, ridge"), ("binary", "ridge", "prior, logistic")],
)
def test_a_row_that_is_not_of_this_ladder_is_refused(kind: str, asked: str, named: str) -> None:
    with pytest.raises(InputError, match=f"expected some of {named}.*found {asked}"):
        ladder(kind, [], [asked])


def test_pca_needs_a_run() -> None:
    with pytest.raises(InputError, match="pca needs a frozen encoder's run"):
        ladder("regression", [encoder_row("vae", in_fold=True)], ["pca"])


def test_the_linear_rival_is_ridge_or_logistic_unless_declared() -> None:
    assert linear_rival("regression", ["mean", "ridge"], None) == "ridge"
    assert linear_rival("binary", ["prior", "logistic"], None) == "logistic"
    assert linear_rival("regression", ["mean", "raw"], None) is None
    assert linear_rival("regression", ["mean", "pca_ridge"], "pca_ridge") == "pca_ridge"
    with pytest.raises(InputError, match="linear-rival: expected one of the rows mean, raw"):
        linear_rival("regression", ["mean", "raw"], "ridge")


def test_names_of_rows_are_reserved() -> None:
    for name in ("raw", "mean", "pca_ridge", "a/b", ""):
        with pytest.raises(InputError, match="encoder: expected a name"):
            resolve_encoders({name: EncoderConfig()}, reserved=("raw", "mean", "pca_ridge"))


def test_every_feed_forward_row_has_the_same_budget() -> None:
    assert {head_config(row, QUICK) for row in ("raw", "pca", "pca_fold", "vae")} == {QUICK.head}


def test_the_published_heads() -> None:
    published = replace(QUICK, recipe="published", head=HeadConfig())
    raw, vae = head_config("raw", published), head_config("vae", published)
    assert (raw.hidden, vae.hidden) == ((256, 32), (32,))
    assert replace(raw, hidden=()) == replace(vae, hidden=())
    assert (raw.standardize, raw.initialize_bias, raw.patience, raw.validation) == (0, 0, 0, 0)
    assert (raw.lr, raw.epochs, raw.batch_size) == (1e-3, HeadConfig().epochs, 64)


def test_train_mean_against_numpy(levels: Fold, classes: Fold) -> None:
    expected = levels.targets.values[:70].astype(float).mean(axis=0)
    np.testing.assert_allclose(train_mean(levels), expected)
    counts = np.bincount(classes.targets.values[:70], minlength=3)
    np.testing.assert_allclose(train_mean(classes), counts / 70)


def test_the_constant_row_predicts_the_mean_of_all_training_rows(levels: Fold) -> None:
    prediction = fit_row("mean", None, levels, QUICK).prediction
    assert prediction.shape == (30, 3)
    np.testing.assert_allclose(prediction, np.tile(train_mean(levels), (30, 1)))


def test_ridge_is_scikit_learns_on_standardised_genes(levels: Fold, X: np.ndarray) -> None:
    scaler = StandardScaler().fit(X[TRAIN])
    Z = scaler.transform(X[TRAIN].astype(float))
    alphas = np.mean(np.linalg.eigvalsh(Z.T @ Z)) * np.logspace(4, -4, 17)
    oracle = RidgeCV(alphas=alphas).fit(Z, levels.targets.values[TRAIN])
    found = fit_row("ridge", X, levels, QUICK).prediction
    np.testing.assert_allclose(found, oracle.predict(scaler.transform(X[TEST])), atol=2e-3)


@pytest.mark.parametrize("row", ["ridge", "pca_ridge", "raw", "vae"])
def test_a_level_row_never_looks_at_other_test_rows(row: str, levels: Fold, X: np.ndarray) -> None:
    before = fit_row(row, X, levels, QUICK).prediction
    spoilt_X, values = X.copy(), levels.targets.values.copy()
    spoilt_X[80:], values[70:] = 1e6, -1e6
    spoilt = replace(levels, targets=Targets("regression", values, ("a", "b", "c")))
    after = fit_row(row, spoilt_X, spoilt, QUICK).prediction
    np.testing.assert_array_equal(after[:10], before[:10])
    assert not np.array_equal(after[10:], before[10:])


@pytest.mark.parametrize("row", ["logistic", "pca_logistic", "raw", "vae"])
def test_a_class_row_never_looks_at_other_test_rows(row: str, classes: Fold, X: np.ndarray) -> None:
    before = fit_row(row, X, classes, QUICK).prediction
    spoilt_X, codes = X.copy(), classes.targets.values.copy()
    spoilt_X[80:], codes[70:] = 1e3, 0
    spoilt = replace(classes, targets=replace(classes.targets, values=codes))
    after = fit_row(row, spoilt_X, spoilt, QUICK).prediction
    np.testing.assert_array_equal(after[:10], before[:10])
    np.testing.assert_allclose(before.sum(axis=1), 1, rtol=1e-5)


def test_only_the_input_differs_between_feed_forward_rows(levels: Fold, X: np.ndarray) -> None:
    predictions = [fit_row(row, X, levels, QUICK).prediction for row in ("raw", "pca", "ae", "vae")]
    for other in predictions[1:]:
        np.testing.assert_array_equal(other, predictions[0])


@pytest.mark.parametrize("row", ["ridge", "raw", "vae"])
def test_a_gene_constant_in_the_training_rows_does_not_blow_up(
    row: str, levels: Fold, X: np.ndarray
) -> None:
    planted = X.copy()
    planted[TRAIN, 5] = 1.0
    planted[TEST, 5] = 4.0
    loss = (
        (fit_row(row, planted, levels, QUICK).prediction - levels.targets.values[TEST]) ** 2
    ).mean()
    constant = ((train_mean(levels) - levels.targets.values[TEST]) ** 2).mean()
    assert loss < 3 * constant


def test_a_dead_network_is_seen(levels: Fold, X: np.ndarray) -> None:
    alive = fit_row("raw", X, levels, QUICK)
    assert alive.dead_share < 0.5
    published = CrossvalConfig(recipe="published", head=HeadConfig(epochs=8))
    shifted = np.abs(X) * 1e4
    dying = fit_row("raw", shifted, levels, published)
    head = fit_head(
        shifted,
        levels.targets,
        head_config("raw", published),
        rows=TRAIN,
        seed=levels.seed,
        order_seed=levels.order_seed,
        folds_order=levels.order,
    )
    assert dying.dead_share == pytest.approx(_dead_by_hand(head, shifted[TRAIN]))


def _dead_by_hand(head: object, X: np.ndarray) -> float:
    """Share of units with one output for all rows, by matrix products in NumPy."""
    out, dead = X.astype(np.float64), []
    state = head.module.hidden.state_dict()  # type: ignore[attr-defined]
    for name in [key.removesuffix(".weight") for key in state if key.endswith(".weight")]:
        W, b = state[f"{name}.weight"].double().numpy(), state[f"{name}.bias"].double().numpy()
        out = np.maximum(out @ W.T + b, 0)
        dead.append(np.ptp(out, axis=0) <= 1e-6)
    return float(np.concatenate(dead).mean())


def test_own_genes_and_strata_lengthen_the_ladder() -> None:
    vae = encoder_row("vae", in_fold=False)
    assert ladder("regression", [vae], None, strata=True, own_genes=True) == (
        *("mean", "stratum_mean", "ridge", "pca_ridge", "raw", "pca"),
        *("gene", "ridge_gene", "pca_gene", "vae_gene", "vae"),
    )
    assert ladder("regression", [vae], ["vae_gene"], own_genes=True) == ("mean", "vae_gene", "vae")
    with pytest.raises(InputError, match="gene needs a column gene_id of Y's annotations"):
        ladder("regression", [vae], ["vae_gene"])
    with pytest.raises(InputError, match="stratum_mean needs --stratify"):
        ladder("regression", [vae], ["stratum_mean"])


def test_the_stratum_mean_is_told_the_test_samples_stratum(levels: Fold) -> None:
    strata = np.array(["a", "b"] * 50, dtype=object)
    strata[TEST[0]] = "new"
    found = fit_row("stratum_mean", None, replace(levels, strata=strata), QUICK).prediction
    values = levels.targets.values[TRAIN]
    np.testing.assert_allclose(found[0], values.mean(axis=0), rtol=1e-6)
    for k, row in enumerate(TEST[1:], start=1):
        expected = values[strata[TRAIN] == strata[row]].mean(axis=0)
        np.testing.assert_allclose(found[k], expected, rtol=1e-6)


def test_a_small_training_set_is_fitted_as_if_there_were_no_others(
    X: np.ndarray, levels: Fold
) -> None:
    few = replace(levels, train=TRAIN[:30])
    alone = Fold(
        levels.targets.take(np.r_[TRAIN[:30], TEST]),
        np.arange(30),
        np.arange(30, 60),
        None,
        None,
        np.zeros(60, dtype=int),
        seed=1,
        order_seed=levels.order_seed,
    )
    found = fit_row("raw", X, few, QUICK).prediction
    expected = fit_row("raw", X[np.r_[TRAIN[:30], TEST]], alone, QUICK).prediction
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_tuning_takes_the_setting_with_the_lowest_inner_loss(
    X: np.ndarray, levels: Fold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m1pipe.evaluation.ladder.TUNED_WIDTHS", ((2,), (16,)))
    monkeypatch.setattr("m1pipe.evaluation.ladder.TUNED_RATES", (1e-5, 1e-2))
    config = replace(QUICK, tune=True)
    tried = tuned_settings(config)
    assert [(s.hidden, s.lr) for s in tried] == [
        ((2,), 1e-5),
        ((2,), 1e-2),
        ((16,), 1e-5),
        ((16,), 1e-2),
    ]
    fit = fit_row("raw", X, levels, config)
    found = fit.prediction
    assert (fit.chosen["hidden"], fit.chosen["lr"], fit.chosen["n_tried"]) == ([16], 1e-2, 4)
    alone = [fit_row("raw", X, levels, replace(QUICK, head=s)).prediction for s in tried]
    assert np.array_equal(found, alone[3])
    assert tuned_settings(QUICK) == [QUICK.head]
