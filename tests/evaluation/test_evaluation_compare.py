"""The table of comparisons: families, donors, folds, and pairing by sample id."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from m1pipe.errors import InputError
from m1pipe.evaluation.compare import (
    COLUMNS,
    EFFECTS,
    compare,
    compare_tables,
    declared_family,
    fold_differences,
    fold_tests,
)

N, REPEATS, FOLDS = 60, 2, 5


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def folds(rng) -> np.ndarray:
    return np.stack([rng.permutation(N) % FOLDS for _ in range(REPEATS)])


@pytest.fixture
def losses(rng) -> dict[str, np.ndarray]:
    hard = rng.gamma(2, size=N)  # some samples are hard for every model
    levels = {"mean": 1.0, "ridge": 0.7, "raw": 0.75, "pca": 0.7, "vae": 0.68, "ae": 0.72}
    return {
        name: level * hard + 0.05 * rng.gamma(2, size=(REPEATS, N))
        for name, level in levels.items()
    }


def test_family_is_encoders_against_raw_mean_and_the_declared_linear_row(losses):
    family = declared_family(["vae", "ae"], list(losses), "ridge")
    assert family == [(e, r) for e in ("vae", "ae") for r in ("raw", "mean", "ridge")]
    classes = declared_family(["vae"], ["prior", "raw", "logistic"], "logistic")
    assert classes == [("vae", "raw"), ("vae", "prior"), ("vae", "logistic")]
    assert declared_family(["vae"], ["mean"], None) == [("vae", "mean")]


def test_columns_and_tests_of_one_pair(losses, folds):
    table = compare(losses, folds, pairs=[("vae", "raw")], metric="mse")
    assert tuple(table.columns) == COLUMNS
    fold_names = {f"paired_t_repeat{r}_fold{k}" for r in range(REPEATS) for k in range(FOLDS)}
    expected = {"nadeau_bengio", "paired_t", "wilcoxon", "sign_flip", "bootstrap"} | fold_names
    assert set(table["test"]) == expected
    assert expected - fold_names <= set(EFFECTS)
    assert table["p_holm"].isna().all()
    assert (table["metric"] == "mse").all()


def test_headline_is_the_corrected_t_over_all_folds_of_all_repeats(losses, folds):
    row = compare(losses, folds, pairs=[("vae", "raw")]).set_index("test").loc["nadeau_bengio"]
    d = [
        losses["vae"][r][folds[r] == k].mean() - losses["raw"][r][folds[r] == k].mean()
        for r in range(REPEATS)
        for k in range(FOLDS)
    ]
    se = np.sqrt((1 / 10 + 1 / 4) * np.var(d, ddof=1))
    assert row["difference"] == pytest.approx(np.mean(d))
    assert row["p"] == pytest.approx(2 * stats.t.sf(abs(np.mean(d)) / se, 9), rel=1e-10)
    assert row["n_independent"] == 10
    gain = losses["vae"].mean() / losses["raw"].mean() - 1
    assert row["effect"] == pytest.approx(gain)
    assert row["difference"] < 0  # vae is better: its loss is smaller


def test_sample_test_averages_over_repeats_and_counts_each_sample_once(losses, folds):
    row = compare(losses, folds, pairs=[("vae", "raw")]).set_index("test").loc["paired_t"]
    oracle = stats.ttest_rel(losses["vae"].mean(axis=0), losses["raw"].mean(axis=0))
    assert row["p"] == pytest.approx(oracle.pvalue, rel=1e-10)
    assert row["n_independent"] == N


def test_fold_tests_are_the_paired_t_of_each_fold(losses, folds):
    table = fold_tests(losses, folds, pairs=[("vae", "mean")])
    assert len(table) == REPEATS * FOLDS
    row = table.iloc[7]
    here = folds[row["repeat"]] == row["fold"]
    oracle = stats.ttest_rel(losses["vae"][1][here], losses["mean"][1][here])
    assert row["repeat"] == 1
    assert row["p"] == pytest.approx(oracle.pvalue, rel=1e-10)
    assert row["loss_b"] == pytest.approx(losses["mean"][1][here].mean())
    assert row["n_test"] == here.sum()


def test_holm_is_taken_over_the_declared_family_only(losses, folds):
    family = declared_family(["vae", "ae"], list(losses), "ridge")
    table = compare(losses, folds, pairs=[("vae", "pca"), ("ridge", "raw")], family=family)
    head = table[table["test"] == "nadeau_bengio"]
    claimed = head[head["p_holm"].notna()]
    assert list(zip(claimed["model_a"], claimed["model_b"], strict=True)) == family
    oracle = multipletests(claimed["p"], method="holm")[1]
    np.testing.assert_allclose(claimed["p_holm"], oracle, rtol=1e-10)
    assert table.loc[table["test"] != "nadeau_bengio", "p_holm"].isna().all()


def test_shown_pairs_do_not_change_the_claims(losses, folds):
    family = [("vae", "raw"), ("vae", "mean")]
    alone = compare(losses, folds, family=family)
    beside = compare(losses, folds, family=family, pairs=[("ae", "pca"), ("vae", "raw")])
    shared = beside.merge(alone, on=["model_a", "model_b", "test"])
    np.testing.assert_array_equal(shared["p_holm_x"], shared["p_holm_y"])
    assert len(shared) == len(alone)


def test_donors_are_the_unit_where_they_are_known(losses, folds):
    groups = np.arange(N) % 12
    table = compare(losses, folds, pairs=[("vae", "raw")], groups=groups).set_index("test")
    for test in ("clustered_t", "wilcoxon", "sign_flip", "bootstrap"):
        assert table.loc[test, "n_independent"] == 12
    assert table.loc["paired_t", "n_independent"] == N


def test_sign_flip_may_be_the_headline_of_unequal_folds(losses, folds):
    table = compare(losses, folds, family=[("vae", "raw")], headline="sign_flip")
    assert list(table.loc[table["p_holm"].notna(), "test"]) == ["sign_flip"]


def test_equal_models_give_p_of_one_and_flat_gaps_nan_without_a_warning(losses, folds):
    losses = losses | {"copy": losses["vae"], "shifted": losses["vae"] + 0.25}
    table = compare(losses, folds, family=[("vae", "copy"), ("shifted", "vae")])
    equal = table[table["model_b"] == "copy"]
    assert (equal["difference"] == 0).all()
    assert (equal["p"].dropna() == 1).all()
    flat = table[(table["model_a"] == "shifted") & table["test"].str.contains("_t|bengio")]
    assert flat["p"].isna().all()
    assert flat["difference"].to_numpy() == pytest.approx(0.25)


def test_one_fold_vector_pairs_folds_not_rows(losses, folds):
    d = fold_differences(losses["vae"], losses["raw"], folds)
    assert d.shape == (REPEATS * FOLDS,)
    pooled = np.average(d, weights=[np.sum(f == k) for f in folds for k in range(FOLDS)])
    assert pooled == pytest.approx((losses["vae"] - losses["raw"]).mean())


def as_tables(losses, folds):
    ids = pd.Index([f"s{i}" for i in range(N)], name="sample")
    tables = {name: pd.DataFrame(loss.T, index=ids) for name, loss in losses.items()}
    return tables, pd.DataFrame(folds.T, index=ids)


def test_tables_pair_by_sample_id_in_any_order(losses, folds, rng):
    tables, fold_table = as_tables(losses, folds)
    shuffled = {name: t.sample(frac=1, random_state=4) for name, t in tables.items()}
    groups = pd.Series(np.arange(N) % 6, index=fold_table.index)
    got = compare_tables(
        shuffled,
        fold_table,
        pairs=[("vae", "raw")],
        family=[("vae", "mean")],
        groups=groups.sample(frac=1, random_state=5),
    )
    expected = compare(
        losses, folds, pairs=[("vae", "raw")], family=[("vae", "mean")], groups=np.arange(N) % 6
    )
    pd.testing.assert_frame_equal(got, expected)
    every = compare_tables({"a": tables["vae"][0], "b": tables["raw"][0]}, fold_table[0])
    assert set(zip(every["model_a"], every["model_b"], strict=True)) == {("a", "b")}


def test_tables_of_other_samples_are_refused(losses, folds):
    tables, fold_table = as_tables(losses, folds)
    renamed = tables | {"raw": tables["raw"].rename(index={"s3": "t3"})}
    with pytest.raises(InputError, match=r"losses of raw.*'s3', 't3'.*paired by id"):
        compare_tables(renamed, fold_table)
    short = tables | {"raw": tables["raw"].drop(index="s5")}
    with pytest.raises(InputError, match=r"losses of raw.*found 59.*'s5'"):
        compare_tables(short, fold_table)
    twice = tables | {"raw": pd.concat([tables["raw"], tables["raw"].iloc[:1]])}
    with pytest.raises(InputError, match=r"losses of raw.*'s0' occurs more than once"):
        compare_tables(twice, fold_table)


def test_batches_of_two_shuffled_loaders_are_no_pairs(rng):
    """The original paired batch means of two loaders shuffled apart: what they share is lost."""
    hard = rng.gamma(2, size=600)
    a, b = hard, 1.02 * hard + 0.01 * rng.normal(size=600)
    batches_a, batches_b = (rng.permutation(600).reshape(-1, 60) for _ in range(2))
    apart = np.corrcoef(a[batches_a].mean(axis=1), b[batches_b].mean(axis=1))[0, 1]
    together = np.corrcoef(a[batches_a].mean(axis=1), b[batches_a].mean(axis=1))[0, 1]
    assert abs(apart) < 0.7 < 0.99 < together
    shuffled = stats.ttest_rel(a[batches_a].mean(axis=1), b[batches_b].mean(axis=1)).pvalue
    ids = pd.Index([f"s{i}" for i in range(600)])
    order = rng.permutation(600)
    tables = {"a": pd.Series(a, index=ids), "b": pd.Series(b[order], index=ids[order])}
    by_id = compare_tables(tables, pd.Series(np.arange(600) % 5, index=ids)).set_index("test")
    assert shuffled > 0.05 > 1e-6 > by_id.loc["paired_t", "p"]


def test_wrong_arrays_are_refused(losses, folds):
    with pytest.raises(ValueError, match="no losses of 'vea'"):
        compare(losses, folds, pairs=[("vea", "raw")])
    with pytest.raises(ValueError, match="losses of raw: expected"):
        compare(losses | {"raw": np.ones((1, 3))}, folds, pairs=[("vae", "raw")])
    broken = losses["raw"].copy()
    broken[0, 0] = np.nan
    with pytest.raises(ValueError, match="losses of raw: expected finite"):
        compare(losses | {"raw": broken}, folds, pairs=[("vae", "raw")])
