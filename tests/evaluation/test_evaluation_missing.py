"""Missing levels in a comparison: encoders take them, all else has the training rows' means."""

from dataclasses import replace
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from pages import Page
from sklearn.impute import SimpleImputer

from m1pipe import cross_validate, train_encoder
from m1pipe.config import CrossvalConfig, EncoderConfig, HeadConfig, ModelConfig, TrainingConfig
from m1pipe.data.targets import OwnGenes
from m1pipe.encoder import Encoder
from m1pipe.errors import InputError
from m1pipe.evaluation.compared_models import parse_model
from m1pipe.evaluation.cost import fold_bytes
from m1pipe.evaluation.folds import fill_fold, fill_own
from m1pipe.evaluation.inputs import fold_inputs, whole_inputs
from m1pipe.evaluation.plan import model_facts
from m1pipe.evaluation.problem import make_fold, make_problem
from m1pipe.evaluation.result import summary_dict
from m1pipe.reports.crossval_report import report_html
from m1pipe.workflow.augment import train_generator

pytestmark = pytest.mark.usefixtures("figures_undrawn")

N, P = 90, 12
TINY = EncoderConfig(
    model=ModelConfig(n_latent=3, hidden=(8,)),
    training=TrainingConfig(epochs=3, kl_warmup=0.0, device="cpu"),
)
QUICK = CrossvalConfig(folds=3, head=HeadConfig(hidden=(16,), epochs=10, lr=0.01, device="cpu"))


@pytest.fixture(scope="module")
def world() -> dict[str, Any]:
    """Genes with gaps, whole ones of unlabelled samples, levels and labels, from three factors."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(3, P))
    Z = rng.normal(size=(N + 200, 3))
    X = (Z @ loadings + 0.5 * rng.normal(size=(N + 200, P)) + 5).astype(np.float32)
    names, genes = [f"s{i}" for i in range(N + 200)], [f"g{j}" for j in range(P)]
    x = pd.DataFrame(X, index=names, columns=genes)
    y = pd.DataFrame(Z[:N] @ rng.normal(size=(3, 4)), index=names[:N], columns=list("abcd"))
    gaps = x.iloc[:N].mask(rng.random((N, P)) < 0.15)
    assert gaps.isna().to_numpy().sum() > 100
    return {"x": gaps, "u": x.iloc[N:], "y": y, "ill": np.where(Z[:N, 0] > 0, "ill", "well")}


@pytest.fixture(scope="module")
def encoder(world: dict[str, Any]) -> Encoder:
    return train_encoder(world["u"], TINY)


def test_what_fills_a_gap_is_the_mean_of_the_training_rows(world: dict[str, Any]) -> None:
    X, train = world["x"].to_numpy(np.float32), np.arange(10, N)
    expected = SimpleImputer().fit(X[train]).transform(X)
    np.testing.assert_allclose(fill_fold(X, train), expected, rtol=1e-6)
    whole = np.nan_to_num(X)
    assert fill_fold(whole, train) is whole
    assert fill_own(None, train) is None
    own = fill_own(OwnGenes(X, np.arange(P)), train)
    assert own is not None
    np.testing.assert_allclose(own.values, expected, rtol=1e-6)


def test_a_gene_without_a_training_level_says_nothing_of_any_row(world: dict[str, Any]) -> None:
    X, train = world["x"].to_numpy(np.float32, copy=True), np.arange(10, N)
    X[train, 3] = np.nan
    assert np.isfinite(X[:10, 3]).any()
    filled = fill_fold(X, train)
    assert (filled[:, 3] == 0).all() and np.isfinite(filled).all()


def test_a_fold_is_as_if_its_gaps_had_been_filled_before(world: dict[str, Any]) -> None:
    """Each fold alone, of a table that scikit-learn has imputed for it, gives the same losses."""
    config = replace(QUICK, models=("mean", "ridge", "raw", "pca_fold"))
    found = cross_validate(world["x"], world["y"], config=config)
    for k in range(3):
        test = found.folds[0] == k
        ids = found.samples[~test]
        exact = world["x"].astype(float)  # its means, as ours, are rounded to float32 once
        filled = SimpleImputer().fit(exact.loc[ids]).transform(exact)
        table = pd.DataFrame(filled, index=world["x"].index, columns=world["x"].columns)
        alone = cross_validate(table, world["y"], config=config)
        np.testing.assert_array_equal(alone.folds, found.folds)
        for row in found.models:
            expected = alone.losses[row][0, test]
            np.testing.assert_allclose(found.losses[row][0, test], expected, rtol=1e-4)


def test_held_out_rows_have_no_part_in_what_is_filled_in(
    world: dict[str, Any], encoder: Encoder
) -> None:
    """Half of a test fold is changed beyond measure: the other half is predicted as before."""
    given: dict[str, Any] = {
        "encoders": {"vae": [encoder], "own": TINY},
        "config": replace(QUICK, models=("mean", "ridge", "raw", "pca", "pca_fold", "vae", "own")),
    }
    before = cross_validate(world["x"], world["y"], **given)
    tested = np.flatnonzero(before.folds[0] == 0)
    changed, kept = np.split(tested, 2)
    x = world["x"].copy()
    x.iloc[changed] = x.iloc[changed].to_numpy() * 1000
    x.iloc[changed, ::2] = np.nan
    after = cross_validate(x, world["y"], **given)
    np.testing.assert_array_equal(after.folds, before.folds)
    for row in before.models:
        np.testing.assert_array_equal(after.losses[row][0, kept], before.losses[row][0, kept])
        if row != "mean":
            assert (after.losses[row][0, changed] != before.losses[row][0, changed]).all()


def test_encoders_take_the_gaps_themselves(world: dict[str, Any], encoder: Encoder) -> None:
    problem = make_problem(
        world["x"], world["y"], encoders={"vae": [encoder], "own": TINY}, config=QUICK
    )
    split, inputs = make_fold(problem, 0, 0), whole_inputs(problem)
    made = fold_inputs(problem, inputs, split)
    found, facts = made.arrays, made.encoders
    np.testing.assert_array_equal(found["vae"][0], encoder.transform(world["x"]))
    np.testing.assert_array_equal(found["pca"][0], encoder.pca_scores(world["x"]))
    assert np.isfinite(found["own"][0]).all() and np.isfinite(found["genes"][0]).all()
    again = train_encoder(world["x"], TINY, rows=problem.rows[split.train])
    np.testing.assert_array_equal(found["own"][0], again.transform(world["x"]))
    assert again.summary["n_missing"] > 0 and len(facts["own"]) == 1


def test_a_gene_that_a_fold_knows_nothing_of_is_left_out_of_its_encoder(
    world: dict[str, Any],
) -> None:
    config = replace(QUICK, models=("mean", "ridge", "own"))
    folds = make_problem(world["x"], world["y"], encoders={"own": TINY}, config=config).folds
    x = world["x"].copy()
    x.iloc[folds[0] != 1, 4] = np.nan
    assert x["g4"].notna().sum() > 10
    problem = make_problem(x, world["y"], encoders={"own": TINY}, config=config)
    found = fold_inputs(problem, whole_inputs(problem), make_fold(problem, 0, 1)).arrays
    without = train_encoder(x.drop(columns="g4"), TINY, rows=np.flatnonzero(problem.folds[0] != 1))
    np.testing.assert_allclose(found["own"][0], without.transform(x.drop(columns="g4")), atol=1e-5)
    result = cross_validate(x, world["y"], encoders={"own": TINY}, config=config)
    assert all(np.isfinite(losses).all() for losses in result.losses.values())
    with pytest.raises(InputError, match="found none of 1 gene"):
        train_encoder(x.assign(g4=np.nan), TINY)


def test_the_number_of_imputed_levels_is_said(world: dict[str, Any], encoder: Encoder) -> None:
    n = int(world["x"].isna().to_numpy().sum())
    config = replace(QUICK, models=("mean", "ridge", "vae"))
    result = cross_validate(world["x"], world["y"], encoders={"vae": [encoder]}, config=config)
    summary = summary_dict(result)
    assert summary["info"]["n_missing"] == n
    (line,) = [w for w in summary["warnings"] if w["name"] == "missing_levels"]
    assert line["severity"] == "note" and line["text"].startswith(f"{n:,} of {N * P:,} levels of X")
    rows = Page(report_html(result, provenance={}, config={})).rows
    assert ["missing levels", f"{n:,} of {N * P:,} levels of X"] in rows
    fitted = summary["info"]["rows"]
    assert fitted["ridge"]["missing levels"] == "means of training samples of the fold"
    assert "that the encoder was trained on" in fitted["vae"]["missing levels"]
    config = replace(QUICK, models=("mean",))
    whole = cross_validate(world["x"].fillna(0), world["y"], config=config)
    assert whole.info["n_missing"] == 0
    assert "missing_levels" not in {alarm.name for alarm in whole.alarms}


def test_classes_augmented_and_parts_of_the_training_rows_go_on_with_gaps(
    world: dict[str, Any], encoder: Encoder
) -> None:
    adata = anndata.AnnData(
        world["x"].to_numpy(np.float32),
        obs=pd.DataFrame({"status": world["ill"]}, index=world["x"].index),
        var=pd.DataFrame(index=world["x"].columns),
    )
    result = cross_validate(
        adata,
        label="status",
        encoders={"vae": [encoder]},
        config=replace(QUICK, folds=5, augment="balance", train_sizes=(60,)),
        generator=train_generator,
    )
    assert {"logistic", "raw", "raw_augmented", "vae_augmented"} <= set(result.models)
    assert all(np.isfinite(losses).all() for losses in result.losses.values())
    assert np.isfinite(result.curve["value"]).all()


def test_own_genes_and_their_gaps(world: dict[str, Any], encoder: Encoder) -> None:
    y = anndata.AnnData(
        world["y"].to_numpy(np.float32),
        obs=pd.DataFrame(index=world["y"].index),
        var=pd.DataFrame({"gene_id": ["g0", "g1", "g1", "none"]}, index=world["y"].columns),
    )
    problem = make_problem(world["x"], y, encoders={"vae": [encoder]}, config=QUICK)
    assert any(model.name == "ridge_gene" for model in problem.models)
    fold = make_fold(problem, 0, 1)
    assert fold.own is not None and np.isfinite(fold.own.values).all()
    assert "trained on" not in model_facts(problem, parse_model("gene"))["missing levels"]
    result = cross_validate(world["x"], y, encoders={"vae": [encoder]}, config=QUICK)
    assert all(np.isfinite(losses).all() for losses in result.losses.values())


def test_a_pass_has_the_genes_of_each_of_its_folds_in_memory(world: dict[str, Any]) -> None:
    gaps, whole = (
        fold_bytes(make_problem(x, world["y"], config=QUICK))
        for x in (world["x"], world["x"].fillna(0))
    )
    assert gaps - whole == 4 * N * P


def test_no_level_at_all_and_infinity_are_refused(world: dict[str, Any]) -> None:
    x = world["x"].copy()
    x.iloc[4] = np.nan
    with pytest.raises(InputError, match=r"at least one gene in every sample; found none in 's4'"):
        cross_validate(x, world["y"], config=QUICK)
    x = world["x"].copy()
    x.iloc[4, 2] = np.inf
    with pytest.raises(InputError, match=r"expected finite numbers; found inf in sample 's4'"):
        cross_validate(x, world["y"], config=QUICK)
