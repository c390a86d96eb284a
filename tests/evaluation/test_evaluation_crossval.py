import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import log_loss

from m1pipe import cross_validate, train_encoder
from m1pipe.config import CrossvalConfig, EncoderConfig, HeadConfig, ModelConfig, TrainingConfig
from m1pipe.data.units import Units
from m1pipe.encoder import Encoder
from m1pipe.errors import InputError
from m1pipe.evaluation import inputs as inputs_module
from m1pipe.evaluation.cost import cost_text
from m1pipe.evaluation.crossval import close_share, open_share
from m1pipe.evaluation.encoders import fold_config, parse_encoder, resolve_encoders
from m1pipe.evaluation.fold_results import Share
from m1pipe.evaluation.inputs import encoder_rows, fold_inputs, whole_inputs
from m1pipe.evaluation.metrics import per_sample_loss
from m1pipe.evaluation.predictions import fit_opened
from m1pipe.evaluation.problem import make_fold, make_problem
from m1pipe.evaluation.result import score_intervals
from m1pipe.io.writer import write_matrix
from m1pipe.reports.terms import model_label

TINY = EncoderConfig(
    model=ModelConfig(n_latent=3, hidden=(8,)), training=TrainingConfig(epochs=3, kl_warmup=0.0)
)
QUICK = CrossvalConfig(folds=3, head=HeadConfig(hidden=(16,), epochs=15, lr=0.01))
N, P = 90, 12


@pytest.fixture(scope="module")
def world() -> dict[str, pd.DataFrame]:
    """Genes of labelled and unlabelled samples, isoforms, and labels, from three factors."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(3, P))
    Z = rng.normal(size=(N + 200, 3))
    X = Z @ loadings + 0.5 * rng.normal(size=(N + 200, P)) + 5
    names = [f"s{i}" for i in range(N + 200)]
    x = pd.DataFrame(X, index=names, columns=[f"g{j}" for j in range(P)])
    Y = Z[:N] @ rng.normal(size=(3, 7)) + 0.3 * rng.normal(size=(N, 7))
    y = pd.DataFrame(Y, index=names[:N], columns=[f"t{j}" for j in range(7)])
    obs = pd.DataFrame(
        {
            "status": np.where(Z[:N, 0] > 0, "ill", "well"),
            "tissue": rng.choice(["gut", "lung", "skin"], N),
            "donor": [f"d{i // 3}" for i in range(N)],
        },
        index=names[:N],
    )
    return {"x": x.iloc[:N], "u": x.iloc[N:], "y": y, "obs": obs}


def as_adata(world: dict[str, pd.DataFrame], *columns: str) -> anndata.AnnData:
    return anndata.AnnData(
        world["x"].to_numpy(np.float32),
        obs=world["obs"][list(columns)],
        var=pd.DataFrame(index=world["x"].columns),
    )


@pytest.fixture(scope="module")
def encoders(world: dict[str, pd.DataFrame]) -> list[Encoder]:
    return [
        train_encoder(world["u"], replace(TINY, training=replace(TINY.training, seed=seed)))
        for seed in (0, 1)
    ]


@pytest.fixture(scope="module")
def result(world: dict[str, pd.DataFrame], encoders: list[Encoder]) -> Any:
    return cross_validate(world["x"], world["y"], encoders={"vae": encoders}, config=QUICK)


def test_every_row_of_the_ladder_is_there(result: Any) -> None:
    assert result.models == [
        *("mean", "ridge", "pca_linear", "raw", "pca"),
        *("vae_linear", "vae_ridge", "vae_ensemble", "vae"),
    ]
    assert repr(result).startswith("CrossvalResult(90 samples, 3 folds; mse: mean ")
    assert set(result.to_frame().columns) == {"mse", "mae", "r2", "pearson"}


def test_every_sample_is_tested_once_a_repeat(world: dict[str, pd.DataFrame]) -> None:
    config = replace(QUICK, repeats=2, models=("mean",))
    result = cross_validate(world["x"], world["y"], config=config)
    assert result.folds.shape == (2, N)
    assert [sorted(np.bincount(row)) for row in result.folds] == [[30, 30, 30]] * 2
    assert not np.array_equal(result.folds[0], result.folds[1])
    assert np.isfinite(result.losses["mean"]).all()


def test_the_mean_row_by_hand(result: Any, world: dict[str, pd.DataFrame]) -> None:
    """Its mean is of the whole training fold: a mean of the last batch inflates the loss."""
    Y = world["y"].loc[list(result.samples)].to_numpy(np.float32).astype(float)
    expected = np.empty(N)
    for k in range(3):
        test = result.folds[0] == k
        expected[test] = ((Y[test] - Y[~test].mean(axis=0)) ** 2).mean(axis=1)
    np.testing.assert_allclose(result.losses["mean"][0], expected, rtol=1e-6)


def test_scores_are_means_of_the_losses(result: Any) -> None:
    mse = result.scores[result.scores["metric"] == "mse"].set_index(["model", "repeat", "fold"])
    for row in result.models:
        for k in range(3):
            expected = result.losses[row][0, result.folds[0] == k].mean()
            assert mse.loc[(row, 0, k), "value"] == pytest.approx(expected)


def test_a_planted_signal_is_found_and_the_rows_agree_with_the_truth(result: Any) -> None:
    loss = {row: values.mean() for row, values in result.losses.items()}
    assert loss["ridge"] < 0.35 * loss["mean"]
    for row in ("pca_linear", "raw", "pca", "vae"):
        assert loss[row] < 0.7 * loss["mean"], row


def test_shuffled_labels_are_not_predicted(world: dict[str, pd.DataFrame]) -> None:
    shuffled = world["y"].sample(frac=1, random_state=0)
    shuffled.index = world["y"].index
    config = replace(QUICK, models=("mean", "ridge"))
    result = cross_validate(world["x"], shuffled, encoders={"vae": TINY}, config=config)
    for row in ("ridge", "vae"):
        assert result.losses[row].mean() > 0.95 * result.losses["mean"].mean()


def test_several_seeds_are_averaged_a_sample_at_a_time(result: Any) -> None:
    assert list(result.seed_losses) == ["vae_linear", "vae_ridge", "vae"]
    assert result.seed_losses["vae"].shape == (2, 1, N)
    np.testing.assert_array_equal(result.losses["vae"], result.seed_losses["vae"].mean(axis=0))
    assert not np.array_equal(*result.seed_losses["vae"])
    own = result.seed_scores[result.seed_scores["model"] == "vae"]
    seeds = own.groupby(["fold", "metric"])["value"].mean()
    means = result.scores[result.scores["model"] == "vae"].set_index(["fold", "metric"])["value"]
    np.testing.assert_allclose(seeds.sort_index(), means.sort_index())


@pytest.mark.parametrize("kind", ["levels", "classes"])
def test_the_ensemble_is_the_mean_of_its_seeds_predictions(
    world: dict[str, pd.DataFrame], encoders: list[Encoder], kind: str
) -> None:
    models = ("vae_linear", "vae_ensemble")
    given: dict[str, Any] = {"x": world["x"], "y": world["y"]}
    if kind == "classes":
        given = {"x": as_adata(world, "tissue"), "label": "tissue"}
    problem = make_problem(
        **given, encoders={"vae": encoders}, config=replace(QUICK, models=models)
    )
    assert [m.name for m in problem.models[1:]] == ["vae_linear", "vae_ensemble", "vae"]
    share = open_share(problem, whole_inputs(problem), 0, 1)
    (heads,) = fit_opened(problem, [share])
    assert list(heads) == ["vae"], "one fit a seed, none of the ensemble's own"
    found = close_share(problem, share, heads)
    test = share.split.test
    each = [head.predict(Z[test]).astype(np.float64) for head, Z in heads["vae"]]
    assert len(each) == 2 and not np.allclose(*each)
    tested = problem.targets.values[test]
    expected = per_sample_loss(problem.targets.kind, np.mean(each, axis=0), tested)
    alone = [per_sample_loss(problem.targets.kind, one, tested) for one in each]
    assert found.losses["vae_ensemble"].shape == (1, test.size)
    np.testing.assert_allclose(found.losses["vae_ensemble"][0], expected, rtol=1e-6)
    np.testing.assert_allclose(found.losses["vae"], alone, rtol=1e-6)
    assert (expected <= np.mean(alone, axis=0) + 1e-12).all(), "the loss is convex"


def test_an_ensemble_is_shown_and_never_declared(result: Any) -> None:
    table = result.comparisons
    assert "vae_ensemble" in set(table["model_a"])
    assert not set(table.loc[table["p_holm"].notna(), "model_a"]) - {"vae"}
    assert "vae_ensemble" not in result.seed_losses
    label = model_label("vae_ensemble", result.info["encoders"])
    assert label == "mean prediction of the 2 seeds of vae"
    assert result.info["rows"]["vae_ensemble"]["prediction"] == "mean of the 2 seeds of vae"


def test_one_seed_has_no_ensemble(world: dict[str, pd.DataFrame], encoders: list[Encoder]) -> None:
    config = replace(QUICK, models=("mean", "vae_ensemble"))
    with pytest.raises(InputError, match=r"found vae_ensemble: _ensemble needs an encoder of sev"):
        make_problem(world["x"], world["y"], encoders={"vae": encoders[:1]}, config=config)
    with pytest.raises(InputError, match=r"does not end in .*_ensemble"):
        make_problem(world["x"], world["y"], encoders={"my_ensemble": encoders}, config=QUICK)


def test_the_declared_family_and_its_test(result: Any) -> None:
    table = result.comparisons
    family = table[table["p_holm"].notna()]
    assert set(zip(family["model_a"], family["model_b"], strict=True)) == {
        ("vae", "raw"),
        ("vae", "mean"),
        ("vae", "ridge"),
    }
    by_sample = table[table["test"] == "paired_t"].set_index(["model_a", "model_b"])
    oracle = stats.ttest_rel(result.losses["vae"][0], result.losses["raw"][0])
    assert by_sample.loc[("vae", "raw"), "p"] == pytest.approx(oracle.pvalue, rel=1e-9)
    assert result.info["linear_rival"] == "ridge"


def test_what_each_row_saw_is_told(result: Any) -> None:
    rows = result.info["rows"]
    assert rows["mean"] == {"model": "training samples of the fold", "sees": "target labels"}
    assert rows["vae"]["sees"] == "target labels, target genes, other samples"
    assert rows["vae"]["encoder"] == "180 samples of Encoder, Encoder"
    assert rows["pca"]["pca"] == "180 samples of Encoder"
    assert "penalty by leave-one-out, epochs by inner folds" in rows["raw"]["head"]
    runs = result.info["encoders"]["vae"]["runs"]
    assert [run["seed"] for run in runs] == [0, 1]
    assert len(runs[0]["history"]) == 3


def test_paths_tables_and_anndata_give_the_same(
    result: Any, world: dict[str, pd.DataFrame], encoders: list[Encoder], tmp_path: Path
) -> None:
    empty = pd.DataFrame(index=world["x"].columns)
    write_matrix(
        tmp_path / "x.h5ad",
        world["x"].to_numpy(np.float32),
        obs=pd.DataFrame(index=world["x"].index),
        var=empty,
        units=Units(),
    )
    shuffled = world["y"].iloc[::-1]
    for x in (tmp_path / "x.h5ad", as_adata(world)):
        other = cross_validate(x, shuffled, encoders={"vae": encoders}, config=QUICK)
        for row in result.models:
            np.testing.assert_array_equal(other.losses[row], result.losses[row])


def test_genes_are_matched_to_the_encoder_by_name(
    result: Any, world: dict[str, pd.DataFrame], encoders: list[Encoder]
) -> None:
    turned = world["x"][world["x"].columns[::-1]]
    config = replace(QUICK, models=("mean", "pca"))
    other = cross_validate(turned, world["y"], encoders={"vae": encoders}, config=config)
    for row in ("pca", "vae"):
        np.testing.assert_allclose(other.losses[row], result.losses[row], rtol=1e-4)
    few = world["x"].iloc[:, :6]
    with pytest.raises(InputError, match=r"expected at least 80% of the encoder's 12 genes"):
        cross_validate(few, world["y"], encoders={"vae": encoders}, config=config)


def test_classes_are_stratified_by_themselves(world: dict[str, pd.DataFrame]) -> None:
    config = replace(QUICK, models=("logistic", "raw"))
    result = cross_validate(as_adata(world, "status"), label="status", config=config)
    ill = (world["obs"]["status"] == "ill").to_numpy()
    shares = [ill[result.folds[0] == k].sum() for k in range(3)]
    assert max(shares) - min(shares) <= 1
    assert result.info["stratify"] == "the label"
    assert result.info["classes"] == {"ill": ill.sum(), "well": (~ill).sum()}
    test = result.folds[0] == 0
    p = ill[~test].mean()
    expected = np.where(ill[test], -np.log(p), -np.log1p(-p))
    np.testing.assert_allclose(result.losses["prior"][0, test], expected)
    assert result.losses["logistic"].mean() < 0.9 * result.losses["prior"].mean()
    assert result.to_frame().loc["prior", "log_loss"] == pytest.approx(
        log_loss(ill, np.full(N, ill.mean())), rel=0.01
    )


def test_donors_stay_in_one_fold_and_it_is_said_aloud(
    world: dict[str, pd.DataFrame], caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(QUICK, models=("mean",))
    with caplog.at_level("INFO", logger="m1pipe"):
        result = cross_validate(as_adata(world, "donor"), world["y"], config=config)
    donors = world["obs"]["donor"].to_numpy()
    assert all(len(set(donors[result.folds[0] == k])) == 10 for k in range(3))
    assert "grouped by the column donor" in caplog.text
    assert result.info["n_groups"] == 30
    assert "clustered_t" in set(result.comparisons["test"]) or result.comparisons.empty


def test_donors_on_both_sides_raise_an_alarm(world: dict[str, pd.DataFrame]) -> None:
    config = replace(QUICK, models=("mean",), group="none")
    result = cross_validate(as_adata(world, "donor"), world["y"], config=config)
    assert "group_on_both_sides" in {alarm.name for alarm in result.alarms}


def test_folds_can_be_stratified_by_a_column(world: dict[str, pd.DataFrame]) -> None:
    config = replace(QUICK, models=("mean",), stratify="tissue")
    result = cross_validate(as_adata(world, "tissue"), world["y"], config=config)
    tissue = world["obs"]["tissue"].to_numpy()
    counts = np.array(
        [[(tissue[result.folds[0] == k] == t).sum() for k in range(3)] for t in set(tissue)]
    )
    assert (np.ptp(counts, axis=1) <= 1).all()
    assert result.info["strata"] == dict(world["obs"]["tissue"].value_counts())


@pytest.mark.parametrize(
    ("column", "said"),
    [("nothing", "expected a column of obs.*found 'nothing'"), ("id", "a value of its own")],
)
def test_a_stratum_that_cannot_be(world: dict[str, pd.DataFrame], column: str, said: str) -> None:
    adata = as_adata(world, "tissue")
    adata.obs["id"] = adata.obs_names
    with pytest.raises(InputError, match=said):
        cross_validate(adata, world["y"], config=replace(QUICK, stratify=column))


def test_an_encoder_trained_in_the_fold_sees_training_rows_only(
    world: dict[str, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    train = inputs_module.train_in_fold

    def spy(*arguments: Any, **named: Any) -> list[Encoder]:
        trained = train(*arguments, **named)
        seen.append([{*e.samples, *e.validation_samples} for e in trained])
        return trained

    monkeypatch.setattr(inputs_module, "train_in_fold", spy)
    config = replace(QUICK, models=("mean", "pca_fold"))
    result = cross_validate(world["x"], world["y"], encoders={"vae": [TINY, TINY]}, config=config)
    assert len(seen) == 3
    for k, both in enumerate(seen):
        train_samples = set(result.samples[result.folds[0] != k])
        assert both == [train_samples, train_samples]
    runs = result.info["encoders"]["vae"]["runs"]
    assert [run["path"] for run in runs[:3]] == [
        "repeat 1, fold 1, seed 0",
        "repeat 1, fold 1, seed 1",
        "repeat 1, fold 2, seed 0",
    ]


def test_no_test_row_changes_what_the_fold_fits(world: dict[str, pd.DataFrame]) -> None:
    """Latents and PCA scores of the training rows are the same whatever the test rows hold."""
    found = []
    for spoil in (1.0, 50.0):
        x = world["x"].copy()
        problem = make_problem(x, world["y"], encoders={"vae": TINY}, config=QUICK)
        split = make_fold(problem, 0, 1)
        x.iloc[split.test] *= spoil
        problem = make_problem(x, world["y"], encoders={"vae": TINY}, config=QUICK)
        made = fold_inputs(problem, whole_inputs(problem), split).arrays
        found.append({row: made[row][0][split.train] for row in ("vae", "pca_fold")})
    for row in ("vae", "pca_fold"):
        np.testing.assert_array_equal(found[0][row], found[1][row])


def test_samples_without_a_label_serve_the_encoder_but_not_with_a_tested_donor(
    world: dict[str, pd.DataFrame],
) -> None:
    adata = as_adata(world, "status", "donor")
    adata.obs.loc[adata.obs_names[80:], "status"] = np.nan
    problem = make_problem(adata, label="status", encoders={"vae": TINY}, config=QUICK)
    assert problem.rows.tolist() == list(range(80))
    assert {why: len(ids) for why, ids in problem.dropped.items()} == {"samples without status": 10}
    with_partner = 0
    for k in range(3):
        split = make_fold(problem, 0, k)
        usable = encoder_rows(problem, split)
        assert not set(usable) & set(split.test)
        donors = adata.obs["donor"].to_numpy()
        assert not set(donors[usable]) & set(donors[split.test])
        extra = usable[usable >= 80]
        with_partner += len(extra) < 10
        assert len(extra) >= 9
    assert with_partner == 1  # sample 80 shares its donor with samples 78 and 79


def test_finished_folds_are_not_run_again(
    result: Any, world: dict[str, pd.DataFrame], encoders: list[Encoder]
) -> None:
    shares: list[Share] = []
    arguments = {"encoders": {"vae": encoders}, "config": QUICK}
    cross_validate(world["x"], world["y"], on_share=shares.append, **arguments)
    assert [(s.repeat, s.fold) for s in shares] == [(0, 0), (0, 1), (0, 2)]
    again: list[Share] = []
    other = cross_validate(
        world["x"], world["y"], on_share=again.append, done=shares[:2], **arguments
    )
    assert [(s.repeat, s.fold) for s in again] == [(0, 2)]
    for row in result.models:  # heads of three folds in one pass, and of one: to rounding
        np.testing.assert_allclose(other.losses[row], result.losses[row], rtol=1e-4, atol=1e-6)


def test_shares_of_other_samples_are_refused(world: dict[str, pd.DataFrame]) -> None:
    shares: list[Share] = []
    config = replace(QUICK, models=("mean",))
    cross_validate(world["x"], world["y"], config=config, on_share=shares.append)
    with pytest.raises(InputError, match="repeat 0 fold 0 has other samples or models"):
        cross_validate(world["x"], world["y"], config=replace(config, seed=1), done=shares)


def test_parse_encoder() -> None:
    assert parse_encoder("vae=a/b, c") == ("vae", ["a/b", "c"])
    for text in ("vae", "vae=", "=run", "vae=a,,b", "a b=run"):
        with pytest.raises(InputError, match="expected NAME=RUN"):
            parse_encoder(text)


def test_fold_config_from_everywhere(tmp_path: Path, encoders: list[Encoder]) -> None:
    assert fold_config("default") == EncoderConfig()
    assert fold_config("notebook").model.hidden == (256, 128, 64)
    (tmp_path / "a.toml").write_text("beta = 0.0\nn_latent = 5\n")
    assert fold_config(str(tmp_path / "a.toml")).model == ModelConfig(beta=0.0, n_latent=5)
    (tmp_path / "config.json").write_text(
        '{"model": {"n_latent": 4}, "training": {"seed": 3}, "selection": {"rows": "a == 1"}}'
    )
    found = fold_config(str(tmp_path))
    assert (found.model.n_latent, found.training.seed, found.selection.rows) == (4, 3, None)
    with pytest.raises(InputError, match="found none of these"):
        fold_config("nowhere.json")
    (tmp_path / "run.zip").write_bytes(b"PK\x03\x04\xff")
    with pytest.raises(InputError, match=r"run\.zip: .*a run's folder.*found none of these"):
        fold_config(str(tmp_path / "run.zip"))


def test_seeds_of_repeated_settings_differ() -> None:
    other = replace(TINY, model=replace(TINY.model, n_latent=2))
    (row,) = resolve_encoders({"vae": [TINY, TINY, other, TINY]})
    assert [c.training.seed for c in row.configs] == [0, 1, 0, 3]
    assert row.n_seeds == 4


def test_an_in_fold_encoder_that_drops_a_gene_is_one_that_never_had_it(
    world: dict[str, pd.DataFrame],
) -> None:
    flat = world["x"].copy()
    flat["g4"] = 5 + 0.01 * (flat["g4"] - 5)
    vae = replace(TINY, model=replace(TINY.model, min_variance=0.1))
    config = replace(QUICK, models=("mean",))
    losses = [
        cross_validate(x, world["y"], encoders={"vae": vae}, config=config).losses["vae"]
        for x in (flat, flat.drop(columns="g4"))
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_frozen_and_in_fold_do_not_mix(encoders: list[Encoder]) -> None:
    with pytest.raises(InputError, match="either frozen runs or fold: settings; found both"):
        resolve_encoders({"vae": [TINY, encoders[0]]})


def test_encoders_of_different_width_are_noted(
    world: dict[str, pd.DataFrame], encoders: list[Encoder]
) -> None:
    narrow = replace(TINY, model=replace(TINY.model, n_latent=1))
    config = replace(QUICK, models=("mean",))
    rows = {"vae": encoders[0], "narrow": narrow}
    result = cross_validate(world["x"], world["y"], encoders=rows, config=config)
    (alarm,) = [alarm for alarm in result.alarms if alarm.name == "widths_differ"]
    assert "vae 3, narrow 1" in alarm.text


def test_an_encoder_that_saw_the_samples_is_reported(world: dict[str, pd.DataFrame]) -> None:
    seen = train_encoder(world["x"], TINY)
    config = replace(QUICK, models=("mean",))
    result = cross_validate(world["x"], world["y"], encoders={"vae": seen}, config=config)
    (alarm,) = [alarm for alarm in result.alarms if alarm.name == "seen_by_encoder"]
    assert "81 trained it and 9 stopped its training" in alarm.text


def test_a_dead_predictor_raises_an_alarm(world: dict[str, pd.DataFrame]) -> None:
    """Positive, unscaled inputs kill the published network, as they did the original."""
    x = np.abs(world["x"]) * 1e5
    config = replace(QUICK, recipe="published", models=("mean", "raw"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = cross_validate(x, world["y"], config=config)
    names = {alarm.name for alarm in result.alarms}
    assert names & {"collapsed_predictor", "below_yardstick", "dead_units"}


def test_targets_choose_columns_of_y(world: dict[str, pd.DataFrame]) -> None:
    config = replace(QUICK, models=("mean",))
    result = cross_validate(world["x"], world["y"], targets=["t3", "t1"], config=config)
    assert result.info["target_names"] == ["t3", "t1"]
    only = cross_validate(world["x"], world["y"][["t1", "t3"]], config=config)
    np.testing.assert_allclose(result.losses["mean"], only.losses["mean"], rtol=1e-12)


def test_labels_of_several_kinds_at_once(world: dict[str, pd.DataFrame]) -> None:
    marks = (world["y"].iloc[:, :3] > 0).astype(float)
    result = cross_validate(
        world["x"], multilabel=marks, config=replace(QUICK, models=("logistic", "raw"))
    )
    assert result.info["kind"] == "multilabel"
    assert result.losses["logistic"].mean() < result.losses["prior"].mean()
    assert result.labels["label"].tolist() == ["t0", "t1", "t2"]
    assert (result.labels["verdict"] == "learned").all()
    assert set(result.calibration["model"]) == {"prior", "logistic", "raw"}
    ap = result.labels[["average_precision_logistic", "average_precision_prior"]]
    assert (ap.iloc[:, 0] > ap.iloc[:, 1]).all()
    top = result.info["at_the_top"]
    assert top["chance"] == pytest.approx(marks.to_numpy().mean())


def test_shuffled_labels_are_named_as_not_learned(world: dict[str, pd.DataFrame]) -> None:
    marks = (world["y"] > 0).astype(float)
    rng = np.random.default_rng(1)
    mixed = marks.apply(lambda column: rng.permutation(column.to_numpy()))
    both = pd.concat([marks, mixed.add_prefix("mixed_")], axis=1)
    result = cross_validate(
        world["x"], multilabel=both, config=replace(QUICK, models=("logistic",))
    )
    verdict = result.labels.set_index("label")["verdict"]
    assert (verdict[marks.columns] == "learned").all()
    unlearned = verdict.index[verdict == "not learned"]
    # beside seven true ones q < 0.05 is about p < 0.05: of seven by chance four or more in 2e-4
    assert len(unlearned) >= 4 and all(name.startswith("mixed_") for name in unlearned)
    (alarm,) = [a for a in result.alarms if a.name == "labels_not_learned"]
    assert alarm.severity == "note" and all(name in alarm.text for name in unlearned)


def test_score_intervals_are_of_the_corrected_test(world: dict[str, pd.DataFrame]) -> None:
    marks = (world["y"] > 0).astype(float)
    config = replace(QUICK, models=("logistic", "pca_linear"))
    result = cross_validate(world["x"], multilabel=marks, config=config)
    found = score_intervals(result).set_index(["model", "metric"])
    ap = result.scores.query("metric == 'average_precision'").pivot(
        index="fold", columns="model", values="value"
    )
    half = stats.t.ppf(0.975, 2) * np.sqrt((1 / 3 + 1 / 2) * ap["logistic"].var(ddof=1))
    line = found.loc[("logistic", "average_precision")]
    assert line["value"] == pytest.approx(ap["logistic"].mean())
    assert line["ci_high"] - line["value"] == pytest.approx(half)
    paired = (ap["pca_fold_linear"] - ap["logistic"]).mean()
    assert found.loc[("pca_fold_linear", "average_precision"), "difference"] == pytest.approx(
        paired
    )


def test_the_same_seed_gives_the_same_result(
    result: Any, world: dict[str, pd.DataFrame], encoders: list[Encoder]
) -> None:
    again = cross_validate(world["x"], world["y"], encoders={"vae": encoders}, config=QUICK)
    np.testing.assert_array_equal(again.losses["raw"], result.losses["raw"])
    other = cross_validate(world["x"], world["y"], config=replace(QUICK, seed=1))
    assert not np.array_equal(other.folds, result.folds)


def test_the_cost_is_told_before(world: dict[str, pd.DataFrame], encoders: list[Encoder]) -> None:
    problem = make_problem(
        world["x"], world["y"], encoders={"vae": encoders, "own": TINY}, config=QUICK
    )
    text = cost_text(problem)
    lines = {line.split()[0]: line.split() for line in text.splitlines()}
    assert lines["raw"][1:4] == ["12", "3", f"{12 * 16 + 16 + 16 * 7 + 7 + 13 * 7}"]
    assert lines["vae"][1:3] == ["3", "6"]
    assert "own: trains 3 encoders inside the folds" in text
    assert lines["memory:"]
