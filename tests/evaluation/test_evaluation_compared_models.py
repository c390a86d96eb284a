from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from m1pipe.config import CrossvalConfig, EncoderConfig, HeadConfig
from m1pipe.data.targets import OwnGenes, Targets
from m1pipe.errors import InputError
from m1pipe.evaluation.compared_models import (
    augmented_pairs,
    head_config,
    ladder,
    linear_rival,
    own_gene_pairs,
    parse_model,
    refuse_names,
    tuned_settings,
)
from m1pipe.evaluation.encoders import ComparedEncoder
from m1pipe.evaluation.folds import Fold, train_mean
from m1pipe.evaluation.predictions import (
    Prediction,
    dead_share,
    head_jobs,
    predict_constant,
    predict_model,
)
from m1pipe.heads.fit import fit_heads
from m1pipe.heads.head_data import HeadData

QUICK = CrossvalConfig(head=HeadConfig(hidden=(8,), epochs=8))
TRAIN, TEST = np.arange(70), np.arange(70, 100)


def fit_row(
    name: str, X: np.ndarray, fold: Fold, config: CrossvalConfig, **more: Any
) -> Prediction:
    """Fit one model alone, as a comparison fits many."""
    (job,) = head_jobs(parse_model(name), [X], fold, config, **more)
    design = HeadData(fold.targets, fold.order_seed, fold.order, fold.groups)
    return predict_model(parse_model(name), fit_heads([job], design)[0], job.X, fold)


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


def encoder_row(name: str, *, in_fold: bool) -> ComparedEncoder:
    configs = (EncoderConfig(),) if in_fold else ()
    frozen = () if in_fold else (object(),)
    return ComparedEncoder(name, frozen, configs, ("somewhere",))  # type: ignore[arg-type]


def names(
    kind: str, encoders: list[ComparedEncoder], models: list[str] | None, **more: bool
) -> tuple[str, ...]:
    config = CrossvalConfig(models=None if models is None else tuple(models))
    return tuple(model.name for model in ladder(kind, encoders, config, **more))


def test_the_ladder_of_levels_and_of_classes() -> None:
    vae, ae = encoder_row("vae", in_fold=False), encoder_row("ae", in_fold=True)
    assert names("regression", [vae, ae], None) == (
        *("mean", "ridge", "pca_linear", "raw", "pca"),
        *("vae_linear", "vae_ridge", "ae_linear", "ae_ridge", "vae", "ae"),
    )
    assert names("regression", [ae], None) == (
        *("mean", "ridge", "pca_fold_linear", "raw", "pca_fold", "ae_linear", "ae_ridge", "ae"),
    )
    for kind in ("binary", "multiclass", "multilabel"):
        assert names(kind, [vae], None) == (
            *("prior", "logistic", "pca_linear", "raw", "pca", "vae_linear", "vae"),
        )
    assert names("binary", [vae], ["vae_ridge"]) == ("prior", "vae_ridge", "vae")


def test_models_can_be_chosen_but_the_yardstick_and_the_encoders_stay() -> None:
    vae = encoder_row("vae", in_fold=False)
    assert names("regression", [vae], ["raw"]) == ("mean", "raw", "vae")
    assert names("binary", [vae], ["pca_linear", "pca_fold"]) == (
        *("prior", "pca_linear", "pca_fold"),
        "vae",
    )
    assert names("regression", [vae], ["ridge_prior"]) == ("mean", "ridge_prior", "vae")


@pytest.mark.parametrize("old", ["pca_ridge", "pca_logistic"])
def test_names_of_version_0_1_are_understood(old: str) -> None:
    kind = "regression" if old == "pca_ridge" else "binary"
    frozen, in_fold = (encoder_row("vae", in_fold=way) for way in (False, True))
    assert names(kind, [frozen], [old])[1:] == ("pca_linear", "vae")
    assert names(kind, [in_fold], [old])[1:] == ("pca_fold_linear", "vae")
    assert linear_rival(kind, ["mean", "pca_linear"], old) == "pca_linear"


@pytest.mark.parametrize(
    ("name", "inputs", "head"),
    [
        ("mean", (), "constant"),
        ("gene", (), "linear"),
        ("ridge", ("genes",), "linear"),
        ("ridge_gene", ("genes",), "linear"),
        ("raw", ("genes",), "network"),
        ("pca_fold_linear", ("pca_fold",), "linear"),
        ("vae", ("vae",), "network"),
        ("vae_linear_gene", ("vae",), "linear"),
        ("vae_ridge_gene", ("genes", "vae"), "linear"),
        ("vae_augmented", ("vae",), "network"),
        ("vae_ensemble", ("vae",), "ensemble"),
        ("ridge_prior", ("genes",), "linear_prior"),
    ],
)
def test_what_a_name_stands_for(name: str, inputs: tuple[str, ...], head: str) -> None:
    model = parse_model(name)
    assert (model.name, model.inputs, model.head) == (name, inputs, head)
    assert model.own_gene == (name == "gene" or name.endswith("_gene"))
    assert model.adds_genes == ("vae_ridge" in name)
    assert model.variant == ("augmented" if name.endswith("_augmented") else None)


def test_an_encoder_is_known_by_its_name_whatever_that_ends_in() -> None:
    assert parse_model("my_linear").inputs == ("my",)
    assert parse_model("my_linear", ["my_linear"]).inputs == ("my_linear",)
    own = parse_model("my_linear_gene", ["my_linear"])
    assert (own.inputs, own.head, own.own_gene) == (("my_linear",), "network", True)


def test_pairs_are_found_by_what_models_are_and_not_by_their_names() -> None:
    names = "mean ridge gene ridge_gene vae vae_gene vae_ridge_gene vae_weighted vae_augmented"
    models = [parse_model(name) for name in names.split()]
    assert own_gene_pairs(models) == [("ridge_gene", "ridge"), ("vae_gene", "vae")]
    assert augmented_pairs(models) == [("vae_augmented", "vae"), ("vae_augmented", "vae_weighted")]


def test_a_linear_model_is_the_linear_part_of_the_head_on_the_same_inputs() -> None:
    found = {
        name: parse_model(name).fitted_as(QUICK)
        for name in ("ridge", "pca_linear", "vae_linear", "gene")
    }
    assert found == {"ridge": "raw", "pca_linear": "pca", "vae_linear": "vae", "gene": "gene"}
    published = replace(QUICK, recipe="published")
    assert parse_model("ridge").fitted_as(published) == "ridge"
    assert parse_model("vae_ridge").fitted_as(QUICK) == "vae_ridge"


def test_without_a_frozen_encoder_pca_is_that_of_the_training_fold() -> None:
    for encoders in ([], [encoder_row("vae", in_fold=True)]):
        found = names("regression", encoders, ["pca", "pca_linear"])
        assert found[:3] == ("mean", "pca_fold_linear", "pca_fold")
    frozen = [encoder_row("vae", in_fold=False)]
    assert names("regression", frozen, ["pca", "pca_fold"]) == ("mean", "pca", "pca_fold", "vae")


def test_the_linear_rival_is_ridge_or_logistic_unless_declared() -> None:
    assert linear_rival("regression", ["mean", "ridge"], None) == "ridge"
    assert linear_rival("binary", ["prior", "logistic"], None) == "logistic"
    assert linear_rival("regression", ["mean", "raw"], None) is None
    assert linear_rival("regression", ["mean", "pca_ridge"], "pca_ridge") == "pca_ridge"
    with pytest.raises(InputError, match="linear_rival: expected one of the models mean, raw"):
        linear_rival("regression", ["mean", "raw"], "ridge")


def test_names_of_rows_are_reserved() -> None:
    for name in ("raw", "mean", "pca_ridge", "vae_linear", "vae_ridge", "a/b", ""):
        with pytest.raises(InputError, match="encoder: expected a name"):
            refuse_names([name])


def test_every_feed_forward_row_has_the_same_budget() -> None:
    assert {head_config(parse_model(row), QUICK) for row in ("raw", "pca", "pca_fold", "vae")} == {
        QUICK.head
    }


def test_the_published_heads() -> None:
    published = replace(QUICK, recipe="published", head=HeadConfig())
    raw, vae = (
        head_config(parse_model("raw"), published),
        head_config(parse_model("vae"), published),
    )
    assert (raw.hidden, vae.hidden) == ((256, 32), (32,))
    assert replace(raw, hidden=(32,)) == vae
    assert (raw.standardize, raw.initialize_bias, raw.patience, raw.validation) == (0, 0, 0, 0)
    assert not raw.linear and head_config(parse_model("ridge"), published).linear
    assert (raw.lr, raw.epochs, raw.batch_size) == (1e-3, HeadConfig().epochs, 64)


def test_train_mean_against_numpy(levels: Fold, classes: Fold) -> None:
    expected = levels.targets.values[:70].astype(float).mean(axis=0)
    np.testing.assert_allclose(train_mean(levels), expected)
    counts = np.bincount(classes.targets.values[:70], minlength=3)
    np.testing.assert_allclose(train_mean(classes), counts / 70)


def test_the_constant_row_predicts_the_mean_of_all_training_rows(levels: Fold) -> None:
    prediction = predict_constant(parse_model("mean"), levels).values
    assert prediction.shape == (30, 3)
    np.testing.assert_allclose(prediction, np.tile(train_mean(levels), (30, 1)))


def test_ridge_is_scikit_learns_on_standardised_genes(levels: Fold, X: np.ndarray) -> None:
    scaler = StandardScaler().fit(X[TRAIN])
    Z = scaler.transform(X[TRAIN].astype(float))
    alphas = np.mean(np.linalg.eigvalsh(Z.T @ Z)) * np.logspace(4, -4, 17)
    oracle = RidgeCV(alphas=alphas).fit(Z, levels.targets.values[TRAIN])
    found = fit_row("ridge", X, levels, QUICK).values
    np.testing.assert_allclose(found, oracle.predict(scaler.transform(X[TEST])), atol=2e-3)


@pytest.mark.parametrize("row", ["ridge", "pca_linear", "raw", "vae"])
def test_a_level_row_never_looks_at_other_test_rows(row: str, levels: Fold, X: np.ndarray) -> None:
    before = fit_row(row, X, levels, QUICK).values
    spoilt_X, values = X.copy(), levels.targets.values.copy()
    spoilt_X[80:], values[70:] = 1e6, -1e6
    spoilt = replace(levels, targets=Targets("regression", values, ("a", "b", "c")))
    after = fit_row(row, spoilt_X, spoilt, QUICK).values
    np.testing.assert_array_equal(after[:10], before[:10])
    assert not np.array_equal(after[10:], before[10:])


@pytest.mark.parametrize("row", ["logistic", "pca_linear", "raw", "vae"])
def test_a_class_row_never_looks_at_other_test_rows(row: str, classes: Fold, X: np.ndarray) -> None:
    before = fit_row(row, X, classes, QUICK).values
    spoilt_X, codes = X.copy(), classes.targets.values.copy()
    spoilt_X[80:], codes[70:] = 1e3, 0
    spoilt = replace(classes, targets=replace(classes.targets, values=codes))
    after = fit_row(row, spoilt_X, spoilt, QUICK).values
    np.testing.assert_array_equal(after[:10], before[:10])
    np.testing.assert_allclose(before.sum(axis=1), 1, rtol=1e-5)


def test_only_the_input_and_its_scale_differ_between_models(levels: Fold, X: np.ndarray) -> None:
    predictions = [fit_row(row, X, levels, QUICK).values for row in ("pca", "ae", "vae")]
    for other in predictions[1:]:
        np.testing.assert_array_equal(other, predictions[0])
    wide = X * np.float32([1, 1, 1, 1, 1, 50])
    raw, pca = (fit_row(row, wide, levels, QUICK).values for row in ("raw", "pca"))
    np.testing.assert_allclose(fit_row("raw", X, levels, QUICK).values, raw, atol=1e-4)
    assert np.abs(raw - pca).max() > 0.01


@pytest.mark.parametrize("row", ["ridge", "raw", "vae"])
def test_a_gene_constant_in_the_training_rows_does_not_blow_up(
    row: str, levels: Fold, X: np.ndarray
) -> None:
    planted = X.copy()
    planted[TRAIN, 5] = 1.0
    planted[TEST, 5] = 4.0
    loss = ((fit_row(row, planted, levels, QUICK).values - levels.targets.values[TEST]) ** 2).mean()
    constant = ((train_mean(levels) - levels.targets.values[TEST]) ** 2).mean()
    assert loss < 3 * constant


def test_a_dead_network_is_seen(levels: Fold, X: np.ndarray) -> None:
    assert fit_row("raw", X, levels, QUICK).dead_share < 0.5
    published = CrossvalConfig(recipe="published", head=HeadConfig(epochs=8))
    shifted = np.abs(X) * 1e4
    (job,) = head_jobs(parse_model("raw"), [shifted], levels, published)
    head = fit_heads([job], HeadData(levels.targets, levels.order_seed, levels.order))[0]
    assert dead_share(head, shifted[TRAIN]) == pytest.approx(_dead_by_hand(head, shifted[TRAIN]))
    linear = head_jobs(parse_model("ridge"), [X], levels, published)
    assert dead_share(fit_heads(linear, HeadData(levels.targets, 0))[0], X) == 0


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
    assert names("regression", [vae], None, strata=True, own_genes=True) == (
        *("mean", "stratum_mean", "ridge", "pca_linear", "raw", "pca"),
        *("gene", "ridge_gene", "pca_gene", "vae_gene", "vae_linear", "vae_ridge", "vae"),
    )
    assert names("regression", [vae], ["vae_gene"], own_genes=True) == ("mean", "vae_gene", "vae")
    assert names("regression", [vae], ["vae_ridge_gene"], own_genes=True)[1] == "vae_ridge_gene"
    with pytest.raises(InputError, match="gene needs a column gene_id of Y's annotations"):
        names("regression", [vae], ["vae_gene"])
    with pytest.raises(InputError, match="stratum_mean needs stratify"):
        names("regression", [vae], ["stratum_mean"])


def test_own_genes_are_a_part_of_the_model(levels: Fold, X: np.ndarray) -> None:
    own = OwnGenes(X[:, :3].copy(), np.array([0, 1, 2]))
    fold = replace(levels, own=own)
    truth = levels.targets.values[TEST]
    beside = fit_row("vae_gene", X[:, 3:], fold, QUICK)
    assert ((beside.values - truth) ** 2).mean() < 0.1
    without = fit_row("vae", X[:, 3:], fold, QUICK)
    assert ((without.values - truth) ** 2).mean() > 0.5


def test_genes_stand_beside_the_latents(levels: Fold, X: np.ndarray) -> None:
    found = fit_row("vae_ridge", X[:, :3], levels, QUICK, genes=X)
    assert 0 <= found.chosen["share"] <= 1
    (job,) = head_jobs(parse_model("vae_ridge"), [X[:, :3]], levels, QUICK, genes=X)
    assert job.X.shape == (100, 9) and job.n_beside == 3 and job.configs[0].hidden == ()


def test_the_stratum_mean_is_told_the_test_samples_stratum(levels: Fold) -> None:
    strata = np.array(["a", "b"] * 50, dtype=object)
    strata[TEST[0]] = "new"
    found = predict_constant(parse_model("stratum_mean"), replace(levels, strata=strata)).values
    values = levels.targets.values[TRAIN]
    np.testing.assert_allclose(found[0], values.mean(axis=0), rtol=1e-6)
    for k, row in enumerate(TEST[1:], start=1):
        expected = values[strata[TRAIN] == strata[row]].mean(axis=0)
        np.testing.assert_allclose(found[k], expected, rtol=1e-6)


def test_a_small_training_set_is_fitted_as_if_there_were_no_others(
    X: np.ndarray, levels: Fold
) -> None:
    few = replace(levels, train=TRAIN[:30])
    spoilt = X.copy()
    spoilt[30:70] = 1e6
    found = fit_row("raw", X, few, QUICK).values
    np.testing.assert_array_equal(fit_row("raw", spoilt, few, QUICK).values, found)


def test_tuning_takes_the_setting_with_the_lowest_inner_loss(
    X: np.ndarray, levels: Fold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m1pipe.evaluation.compared_models.TUNED_WIDTHS", ((2,), (16,)))
    monkeypatch.setattr("m1pipe.evaluation.compared_models.TUNED_RATES", (1e-5, 1e-2))
    config = replace(QUICK, tune=True)
    tried = tuned_settings(parse_model("raw"), config)
    assert [(s.hidden, s.lr) for s in tried] == [
        ((2,), 1e-5),
        ((2,), 1e-2),
        ((16,), 1e-5),
        ((16,), 1e-2),
    ]
    curved = np.abs(levels.targets.values - 2)
    fold = replace(levels, targets=replace(levels.targets, values=curved))
    fit = fit_row("raw", X, fold, config)
    assert fit.chosen["n_tried"] == 4
    alone = [fit_row("raw", X, fold, replace(QUICK, head=s)) for s in tried]
    losses = [one.chosen["inner_loss"] for one in alone]
    assert fit.chosen["inner_loss"] == pytest.approx(min(losses), rel=1e-4)
    assert tuned_settings(parse_model("raw"), QUICK) == (QUICK.head,)
    assert tuned_settings(parse_model("ridge"), config) == (
        head_config(parse_model("ridge"), QUICK),
    )
