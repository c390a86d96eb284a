"""Labels of other studies: what is matched, what is left out, what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from m1pipe import cross_validate, train_encoder
from m1pipe.config import CrossvalConfig, EncoderConfig, HeadConfig, ModelConfig, TrainingConfig
from m1pipe.data.matrix import Matrix
from m1pipe.data.recipe import Recipe
from m1pipe.data.targets import Targets, load_targets
from m1pipe.data.units import Units
from m1pipe.errors import InputError
from m1pipe.evaluation.deploy import fit_predictor
from m1pipe.io.reader import open_matrix
from m1pipe.predictor import load_predictor
from m1pipe.source_labels import Sources, SourceScore, fit_source_score

GENES = [f"g{j}" for j in range(60)]
LINEAR = CrossvalConfig(folds=3, head=HeadConfig(hidden=()), models=("logistic",))


def study(name: str, seed: int, labels: list[str], n: int = 40, **more: Any) -> anndata.AnnData:
    """Samples of one study: `ill` raises the first ten genes, every study has a shift."""
    rng = np.random.default_rng(seed)
    status = np.array(labels)[np.arange(n) % len(labels)]
    X = rng.normal(size=(n, 60)) + 5 + 2 * rng.normal(size=60)
    X[:, :10] += 1.2 * (status == "ill")[:, None]
    obs = pd.DataFrame({"status": status, "study": name, **more})
    obs.index = [f"{name}{i}" for i in range(n)]
    units = Units("log2_tpm1").to_uns()
    return anndata.AnnData(X.astype(np.float32), obs=obs, var=pd.DataFrame(index=GENES), uns=units)


@pytest.fixture
def target() -> anndata.AnnData:
    return study("t", 0, ["ill", "well"])


@pytest.fixture
def others() -> anndata.AnnData:
    parts = [study(name, i, ["ill", "well"]) for i, name in enumerate("abc", start=1)]
    return anndata.concat(parts, uns_merge="same")


def score_of(x: anndata.AnnData, *files: Any, group: str | None = None) -> SourceScore:
    matrix: Matrix = open_matrix(x)
    _, targets, _ = load_targets(matrix, label="status")
    recipe = Recipe(tuple(GENES), matrix.units, np.zeros(60, dtype=np.float32), matrix.var)
    sources = Sources(files=files)
    return fit_source_score(
        sources, matrix, recipe, targets, label="status", group=group, min_coverage=0.5
    )


def test_the_score_finds_what_the_sources_show(target: Any, others: Any) -> None:
    found = score_of(target, others)
    assert found.weight.shape == (60, 1)
    assert found.weight[:10].mean() < -5 * np.abs(found.weight[10:].mean())  # well is the second
    assert found.facts["n_studies"] == 3 and found.facts["classes"] == {"ill": 60, "well": 60}
    assert not found.alarms


def test_genes_are_matched_by_name_and_those_a_source_lacks_count_nothing(
    target: Any, others: Any
) -> None:
    whole = score_of(target, others).weight
    turned = others[:, GENES[::-1]].copy()
    np.testing.assert_allclose(score_of(target, turned).weight, whole, atol=1e-3)
    found = score_of(target, turned[:, 10:].copy()).weight
    assert (found[50:] == 0).all() and (found[:50] != 0).all()


def test_no_label_of_the_samples_at_hand_is_seen(target: Any, others: Any) -> None:
    before = score_of(target, others).weight
    target.obs["status"] = target.obs["status"].to_numpy()[::-1]
    np.testing.assert_array_equal(score_of(target, others).weight, before)


def test_samples_patients_and_copies_that_are_at_hand_are_left_out(others: Any) -> None:
    target = study("t", 0, ["ill", "well"], patient=[f"p{i}" for i in range(40)])
    others.obs["patient"] = [f"q{i}" for i in range(120)]
    plain = score_of(target, others)
    copy = target[:3].copy()
    copy.obs_names, copy.obs["patient"] = ["u0", "u1", "u2"], ["r0", "r1", "r2"]
    same_patient = study("d", 9, ["ill"], n=4, patient=["p1", "p2", "p3", "p4"])
    pot = anndata.concat([others, target[5:9], copy, same_patient], uns_merge="same")
    found = score_of(target, pot)
    np.testing.assert_allclose(found.weight, plain.weight, atol=1e-6)
    assert found.facts["n_samples"] == 120
    (alarm,) = found.alarms
    assert "4 have the id of a sample of X (such as t5)" in alarm.text
    assert "3 are near-identical to one under another name (such as u0)" in alarm.text
    assert "4 are of its patients (such as d0)" in alarm.text
    assert score_of(target, pot, group="none").facts["n_samples"] == 120  # of one class: no part


def test_classes_are_matched_by_name(target: Any, others: Any) -> None:
    more = study("d", 7, ["ill", "well", "mild"], n=60)
    assert score_of(target, others, more).facts["classes"] == {"ill": 80, "well": 80}
    one = study("e", 8, ["ill", "healthy", "other"], n=60)
    found = score_of(target, one)
    assert found.facts["classes"] == {"all others": 40, "ill": 20}
    assert found.weight[:10].mean() < 0
    three = study("t", 0, ["ill", "well", "worse"], n=60)
    weight = score_of(three, others).weight
    np.testing.assert_allclose(weight[:, 0], -weight[:, 1])
    assert not weight[:, 2].any()


def test_what_cannot_be_matched_is_refused(target: Any, others: Any) -> None:
    with pytest.raises(InputError, match=r"expected two classes .* ill, well; found mild, severe"):
        score_of(target, study("d", 1, ["mild", "severe"]))
    with pytest.raises(InputError, match="not in X; found none: all 40 are there"):
        score_of(target, target)
    others.obs["status"] = np.linspace(0, 1, 120)
    with pytest.raises(InputError, match=r"expected a class, as the label .*; found a level"):
        score_of(target, others)
    target.uns = Units("counts").to_uns()
    with pytest.raises(InputError, match="expected samples on a log scale; found counts"):
        score_of(target, others)


def test_a_level_is_transferred(target: Any, others: Any) -> None:
    for data in (target, others):
        data.obs["status"] = np.asarray(data.X)[:, 20:25].sum(axis=1) / 3
    config = CrossvalConfig(folds=3, head=HeadConfig(hidden=()), models=("ridge", "transfer_ridge"))
    result = cross_validate(target, label="status", sources=Sources(files=(others,)), config=config)
    assert result.losses["transfer_ridge"].mean() < 0.5 * result.losses["ridge"].mean()


def test_labels_elsewhere_help_where_labels_are_few(target: Any, others: Any) -> None:
    config = CrossvalConfig(
        folds=2,
        head=HeadConfig(hidden=()),
        models=("logistic", "transfer_logistic", "raw_transfer"),
        train_sizes=(8,),
        draws=3,
    )
    sources = Sources(files=(others,))
    result = cross_validate(target, label="status", sources=sources, config=config)
    curve = result.curve[result.curve["metric"] == "log_loss"]
    at_8 = curve[curve["n_train"] == 8].groupby("model")["value"].mean()
    assert at_8["transfer_logistic"] < at_8["logistic"] - 0.1
    assert ("transfer_logistic", "logistic") in set(
        zip(result.curve_tests["model_a"], result.curve_tests["model_b"], strict=True)
    )
    rows = result.info["rows"]
    assert rows["logistic"]["sees"] == "target labels, target genes"
    assert rows["transfer_logistic"]["sees"] == "target labels, target genes, other labels"
    assert "120 labelled samples of 3 studies" in rows["transfer_logistic"]["score"]


def test_a_comparison_refuses_sources_without_a_label(target: Any, others: Any) -> None:
    sources, y = Sources(files=(others,)), target[:, :5].copy()
    config = replace(LINEAR, models=("ridge",))
    with pytest.raises(InputError, match=r"expected label .* found targets of another file"):
        cross_validate(target, y, sources=sources, config=config)
    with pytest.raises(InputError, match="transfer needs labels of other studies"):
        config = CrossvalConfig(models=("transfer_logistic",))
        cross_validate(target, label="status", config=config)


def test_targets_of_several_columns_are_refused(target: Any, others: Any) -> None:
    matrix = open_matrix(target)
    recipe = Recipe(tuple(GENES), matrix.units, np.zeros(60, dtype=np.float32), matrix.var)
    targets = Targets("regression", np.zeros((40, 2), dtype=np.float32), ("a", "b"))
    with pytest.raises(InputError, match=r"one column of labels .*found 2 targets"):
        fit_source_score(
            Sources(files=(others,)), matrix, recipe, targets, label="status", min_coverage=0.5
        )


@pytest.mark.parametrize("model", ["transfer_logistic", "vae_transfer"])
def test_a_fitted_model_scores_new_samples_as_those_it_was_fitted_to(
    model: str, target: Any, others: Any, tmp_path: Path
) -> None:
    """Stored and read back, with genes in another order, it predicts as the comparison would."""
    shape = ModelConfig(n_latent=3, hidden=(8,))
    encoder = train_encoder(
        others, EncoderConfig(model=shape, training=TrainingConfig(epochs=2, kl_warmup=0.0))
    )
    given = {"vae": encoder} if model == "vae_transfer" else None
    predictor = fit_predictor(
        target[:20].copy(),
        encoder=given,
        sources=Sources(files=(others,)),
        label="status",
        model=model,
        hidden=(),
    )
    predictor.save(tmp_path / "head")
    new = target[20:, GENES[::-1]].copy()
    found = load_predictor(tmp_path / "head").predict(new)
    np.testing.assert_array_equal(found.X, predictor.predict(new).X)
    right = (found.obs["predicted_status"].astype(str) == new.obs["status"]).mean()
    assert right > 0.7
    assert "a score of other studies' labels" in repr(predictor)
