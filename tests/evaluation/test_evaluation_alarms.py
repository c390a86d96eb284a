"""Every alarm is raised by a planted fault and stays silent without it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats.contingency import association

from m1pipe.data.confounding import confounded_label, cramers_v
from m1pipe.data.duplicates import row_signatures
from m1pipe.encoder.drift import Drift
from m1pipe.evaluation import alarms, leakage
from m1pipe.evaluation.compare import compare


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2)


def only(alarms, name, severity):
    assert [a.name for a in alarms] == [name]
    assert alarms[0].severity == severity
    return alarms[0].text


def test_dead_relu_network_on_raw_inputs_is_a_collapsed_predictor(rng):
    """The original's network: all-positive inputs, every hidden unit off, one constant output."""
    X, y = rng.gamma(2, size=(80, 200)), rng.normal(size=(80, 12)) + 4
    hidden = np.maximum(X @ -np.abs(rng.normal(size=(200, 32))), 0)
    assert (hidden == 0).all()
    prediction = np.float32(hidden @ rng.normal(size=(32, 12)) + y.mean(axis=0))
    assert "same for every sample" in only(
        alarms.collapsed_predictor("raw", prediction, y), "collapsed_predictor", "severe"
    )
    assert only(alarms.dead_relus("raw", float((np.ptp(hidden, axis=0) == 0).mean())),
                "dead_units", "severe")  # fmt: skip
    weak = prediction + 0.01 * rng.normal(size=y.shape)
    assert alarms.collapsed_predictor("raw", weak, y) == []
    assert alarms.dead_relus("raw", 0.05) == []


def test_constant_probabilities_are_a_collapsed_predictor(rng):
    assert alarms.collapsed_predictor("raw", np.tile([0.3, 0.7], (20, 1)))
    assert alarms.collapsed_predictor("raw", rng.dirichlet([1, 1], 20)) == []
    assert alarms.collapsed_predictor("raw", np.ones((1, 3))) == []
    assert alarms.collapsed_predictor("raw", np.ones((9, 2)), np.ones((9, 2))) == []


def test_a_head_that_does_not_beat_the_mean_is_named(rng):
    folds = np.arange(60)[None] % 5
    base = rng.gamma(2, size=(1, 60))
    partly = np.where(folds == 2, base + 0.1, base - 0.1)
    losses = {"mean": base, "raw": base * 1.01, "vae": base * 0.8, "ae": partly}
    found = alarms.below_yardstick(losses, folds, yardstick="mean", metric="mse")
    assert [(a.severity, a.text.split()[0]) for a in found] == [("warning", "raw"), ("note", "ae")]
    assert "in 1 of 5 folds" in found[1].text
    assert "mse" in found[0].text


def test_collapsed_latents():
    assert alarms.collapsed_units("vae", 32, 32) == []
    only(alarms.collapsed_units("vae", 30, 32), "collapsed_latents", "note")
    text = only(alarms.collapsed_units("vae", 10, 32), "collapsed_latents", "warning")
    assert "22 of 32" in text
    only(alarms.collapsed_units("vae", 0, 32), "collapsed_latents", "severe")


def test_latent_axes_that_follow_library_size(rng):
    depth = rng.normal(size=200)
    Z = rng.normal(size=(200, 4))
    Z[:, 2] = -depth + 0.1 * rng.normal(size=200)
    r = [np.corrcoef(Z[:, j], depth)[0, 1] for j in range(4)]
    text = only(alarms.library_size_axes("vae", r, "detected genes"), "latent_follows_depth",
                "warning")  # fmt: skip
    assert "latent 3 follows detected genes" in text
    assert alarms.library_size_axes("vae", [0.5, np.nan]) == []


def test_samples_of_another_depth():
    text = only(alarms.depth_apart("vae", 29_700.0, 2_600.0), "depth_differs", "warning")
    assert "median of 29,700 counts; those here have 2,600" in text and "--thin-to" in text
    text = only(alarms.depth_apart("vae", 1_000.0, 2_000.0), "depth_differs", "warning")
    assert "--thin-to" not in text
    assert alarms.depth_apart("vae", 1_000.0, 1_900.0) == []
    assert alarms.depth_apart("vae", None, 1.0) == alarms.depth_apart("vae", 1.0, None) == []


@pytest.mark.parametrize(("beyond", "held_out"), [(0.75, 0.046), (0.1, None)])
def test_samples_unlike_the_training_data(beyond, held_out):
    facts = {"missing": (), "units": ("tpm", "tpm"), "n_missing": 0, "gap_shift": None}
    facts |= {"n_samples": 990, "n_genes": 968, "gene_shift": 1.6, "genes_shifted": 0.8}
    drift = Drift(beyond=beyond, beyond_held_out=held_out, **facts)
    text = only(alarms.far_from_training("vae", drift), "far_from_training", "warning")
    assert text.startswith(f"vae: {beyond:.1%} of samples are reconstructed worse than 99 % of the")
    assert ("(of held-out training samples: 4.6%)" in text) == (held_out is not None)
    assert alarms.far_from_training("vae", replace(drift, beyond=0.09)) == []
    assert alarms.far_from_training("vae", replace(drift, beyond_held_out=0.4)) == []
    assert alarms.far_from_training("vae", None) == []


def test_an_encoder_worse_than_its_pca():
    only(alarms.weak_encoder("vae", 0.4, 0.5), "weak_encoder", "warning")
    assert alarms.weak_encoder("vae", 0.46, 0.5) == []
    assert alarms.weak_encoder("vae", None, 0.5) == []


def test_pairs_without_a_p_value_are_said(rng):
    loss = rng.gamma(2, size=(1, 20))
    losses = {"mean": loss, "shifted": loss + 1, "vae": loss * rng.uniform(size=20)}
    table = compare(losses, np.arange(20)[None] % 4, pairs=[("shifted", "mean"), ("vae", "mean")])
    text = only(alarms.untested_pairs(table), "not_testable", "note")
    assert text.startswith("shifted against mean")


def test_donors_on_both_sides_of_a_split():
    donors = np.repeat(["a", "b", "c", "d"], 3)
    together = np.repeat([0, 1, 2, 3], 3)[None]
    assert leakage.groups_on_both_sides(donors, together) == []
    apart = np.vstack([together, together])
    apart[1, 0] = 2
    text = only(leakage.groups_on_both_sides(donors, apart), "group_on_both_sides", "severe")
    assert "1 of 4 donors" in text
    assert "(3 samples)" in text
    missing = np.array(["a", None, None, "b"], dtype=object)
    assert leakage.groups_on_both_sides(missing, np.array([[0, 0, 1, 1]])) == []


def test_copies_of_a_sample_on_both_sides_are_found(rng):
    X = rng.gamma(1, size=(300, 400)).astype(np.float32)
    samples = [f"s{i}" for i in range(300)]
    folds = np.arange(300)[None] % 5
    clean = leakage.copies_on_both_sides(row_signatures(X), folds, samples)
    assert clean == []
    X[17] = np.round(X[4], 4)  # written as text with four decimals
    X[20] = X[10]  # same fold: no leak
    assert folds[0, 17] != folds[0, 4]
    assert folds[0, 20] == folds[0, 10]
    blocks = [row_signatures(part) for part in np.array_split(X, 7)]
    text = only(
        leakage.copies_on_both_sides(np.vstack(blocks), folds, samples),
        "copies_on_both_sides",
        "severe",
    )
    assert text.startswith("2 samples")
    assert "s4 and s17" in text


def test_three_copies_and_all_equal_rows(rng):
    X = rng.normal(size=(50, 30))
    X[[3, 9, 21]] = X[3]
    found = leakage.copies_on_both_sides(row_signatures(X), np.arange(50)[None] % 5, range(50))
    assert found[0].text.startswith("3 samples")
    same = row_signatures(np.ones((20, 5)))
    assert leakage.copies_on_both_sides(same, np.arange(20)[None] % 2, range(20))


def test_labelled_samples_inside_the_unlabelled_matrix():
    assert leakage.samples_seen_by_encoder("vae", ["a", "b"], ["c"], ["d"]) == []
    text = only(
        leakage.samples_seen_by_encoder("vae", ["a", "b", "c"], ["a", "b", "x"], ["c"]),
        "seen_by_encoder",
        "warning",
    )
    assert "of the 3 labelled samples 2 trained it and 1 stopped its training" in text


def test_an_encoder_conditioned_on_the_label():
    text = only(
        leakage.encoder_conditioned("cvae", "tissue", label=None, stratify="tissue"),
        "conditioned_on_label",
        "severe",
    )
    assert "the stratum" in text
    assert leakage.encoder_conditioned("cvae", "batch", label="tissue") == []
    assert leakage.encoder_conditioned("vae", None, label=None) == []


def test_strata_smaller_than_the_folds_and_few_donors():
    strata = ["a"] * 10 + ["b"] * 3
    assert "b (3)" in only(alarms.small_strata(strata, 5), "small_strata", "warning")
    assert alarms.small_strata(strata, 3) == []
    text = only(alarms.few_groups(["x", "y", "z", "x", "w"]), "few_groups", "warning")
    assert "Only 4 donors" in text
    assert "p below 0.12" in text
    assert "sign-flip" not in alarms.few_groups(range(8))[0].text
    assert alarms.few_groups(range(12)) == []


def test_constant_targets_are_counted():
    values = np.random.default_rng(0).normal(size=(10, 4))
    assert alarms.constant_targets(values, list("abcd")) == []
    values[:, 1] = 2
    assert "1 of 4 targets are constant (b)" in only(
        alarms.constant_targets(values, list("abcd")), "constant_targets", "note"
    )


def test_cramers_v_is_scipys_but_for_the_bias_correction(rng):
    table = rng.integers(500, 1500, (3, 4))
    table[0, 0] += 4000
    assert cramers_v(table) == pytest.approx(association(table, method="cramer"), abs=2e-3)
    assert cramers_v([[50, 0], [0, 50]]) == pytest.approx(1)
    assert cramers_v([[10, 10], [10, 10]]) == 0
    assert cramers_v([[10, 0], [10, 0]]) == 0


def obs_like_tcga() -> pd.DataFrame:
    counts = {"ACC": (79, 0), "CHOL": (36, 9), "DLBC": (15, 0), "STAD": (37, 4), "UCS": (57, 0)}
    rows = [
        (cancer, kind)
        for cancer, (tumour, normal) in counts.items()
        for kind in ["tumor"] * tumour + ["normal"] * normal
    ]
    obs = pd.DataFrame(rows, columns=["cancer", "sample_type"])
    obs["patient"] = [f"P{i}" for i in range(len(obs))]
    return obs


def test_normals_in_two_cancer_types_only_are_said_in_words():
    obs = obs_like_tcga()
    text = only(
        confounded_label(obs["sample_type"], obs, name="sample_type"),
        "class_in_few_groups",
        "warning",
    )
    assert "sample_type is confounded with cancer" in text
    assert "all 13 samples of normal are in 2 of 5 values of cancer (CHOL 9, STAD 4)" in text
    assert confounded_label(obs["cancer"], obs, name="cancer") == []


def test_a_label_that_is_a_batch_is_severe_and_an_unrelated_column_is_silent(rng):
    label = np.repeat(["case", "control"], 60)
    obs = pd.DataFrame(
        {
            "batch": np.where(rng.uniform(size=120) < 0.95, label, "control"),
            "sex": rng.choice(["f", "m"], 120),
            "age": rng.normal(50, 10, 120),
            "site": "one",
            "empty": np.nan,
        }
    )
    text = only(confounded_label(label, obs), "confounded_label", "severe")
    assert "goes with batch" in text
    obs["age"] += 40 * (label == "case")
    names = [a.text for a in confounded_label(label, obs)]
    assert any("goes with age" in text for text in names)


def test_chance_alone_raises_no_confounding_alarm(rng):
    found = 0
    for _ in range(100):
        label = rng.choice(["a", "b", "c"], 60, p=[0.5, 0.4, 0.1])
        obs = pd.DataFrame({"batch": rng.choice(list("pqrst"), 60), "depth": rng.normal(size=60)})
        found += bool(confounded_label(label, obs))
    assert found <= 2


def test_the_real_tumour_set_is_found_confounded(test_data):
    table = pd.read_csv(test_data / "tcga_rnaseq_6cancers" / "labels.tsv", sep="\t", index_col=0)
    text = only(
        confounded_label(table["sample_type"], table, name="sample_type"),
        "class_in_few_groups",
        "warning",
    )
    assert "13 samples of normal are in 2 of 6 values of cancer (CHOL 9, STAD 4)" in text


def test_repeated_folds_of_few_samples() -> None:
    text = only(alarms.liberal_test(100, 10), "liberal_test", "warning")
    assert "10 repeats on 100 samples" in text
    assert alarms.liberal_test(100, 1) == []
    assert alarms.liberal_test(200, 10) == []
