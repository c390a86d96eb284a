"""Designs beside plain folds: fewer training rows, strata left out; and the view by target."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from pages import Page
from scipy import stats
from sklearn.metrics import r2_score

from m1pipe import cross_validate
from m1pipe.config import CrossvalConfig, HeadConfig
from m1pipe.data.splits import draw_subset, leave_out_folds
from m1pipe.data.targets import Targets
from m1pipe.data.units import Units
from m1pipe.errors import InputError
from m1pipe.evaluation.crossval import run_plan
from m1pipe.evaluation.folds import Fold
from m1pipe.evaluation.metrics import fraction_r2, gene_blocks
from m1pipe.evaluation.per_target import TargetTally, r2_summary, target_table
from m1pipe.evaluation.plan import make_plan
from m1pipe.evaluation.problem import make_fold, make_problem
from m1pipe.evaluation.significance import benjamini_hochberg
from m1pipe.reports.crossval_report import report_html

N, P = 90, 8
ROWS = ("mean", "ridge", "gene", "ridge_gene")
QUICK = CrossvalConfig(folds=3, models=ROWS, head=HeadConfig(hidden=(8,), epochs=4))


@pytest.fixture(scope="module")
def data() -> dict[str, anndata.AnnData]:
    """Genes and two isoforms of each, which follow it; three tissues, 30 donors."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, P)) + 6
    obs = pd.DataFrame(
        {
            "tissue": np.repeat(["gut", "lung", "skin"], 30),
            "donor": [f"d{i % 30}" for i in range(N)],
        },
        index=[f"s{i}" for i in range(N)],
    )
    genes = [f"g{j}" for j in range(P)]
    Y = np.repeat(X, 2, axis=1) - 1 + 0.3 * rng.normal(size=(N, 2 * P))
    var = pd.DataFrame(
        {"gene_id": np.repeat(genes, 2)}, index=[f"g{j}-{k}" for j in range(P) for k in (1, 2)]
    )
    x = anndata.AnnData(X.astype(np.float32), obs=obs, var=pd.DataFrame(index=genes))
    y = anndata.AnnData(Y.astype(np.float32), obs=obs[[]], var=var, uns={"units": "log2_tpm1"})
    return {"x": x, "y": y}


@pytest.fixture(scope="module")
def curve(data: dict[str, Any]) -> Any:
    config = replace(QUICK, train_sizes=(12, 30), stratify="tissue", group="none")
    return cross_validate(data["x"], data["y"], config=config)


def test_subsets_are_nested_and_hold_every_stratum() -> None:
    rows = np.arange(5, 65)
    strata = np.array(["a"] * 50 + ["b"] * 12 + ["c"] * 8, dtype=object)
    sets = [set(draw_subset(rows, n, 3, strata=strata).tolist()) for n in (3, 10, 30, 60)]
    assert [len(s) for s in sets] == [3, 10, 30, 60]
    assert sets[0] < sets[1] < sets[2] < sets[3] == set(rows.tolist())
    assert {strata[i] for i in sets[0]} == {"a", "b", "c"}
    share = np.mean([strata[i] == "a" for i in sets[2]])
    assert share == pytest.approx(np.mean(strata[rows] == "a"), abs=0.08)


def test_the_headline_may_count_every_target_alike(data: dict[str, Any]) -> None:
    """A target that varies little weighs as much as others; one that never varies does not."""
    y = data["y"].copy()
    y.X[:, 0], y.X[:, 1] = 3, 0.2 * y.X[:, 1]
    config = replace(QUICK, models=("mean", "ridge"), loss="standardized_mse", group="none")
    result = cross_validate(data["x"], y, config=config)
    Y = np.asarray(y.X, dtype=float)[:, 1:]
    for fold in range(3):
        train = result.folds[0] != fold
        expected = ((Y[~train] - Y[train].mean(axis=0)) / Y[train].std(axis=0)) ** 2
        found = result.losses["mean"][0][~train]
        np.testing.assert_allclose(found, expected.mean(axis=1), rtol=1e-4)
    of_mean = result.scores.query("model == 'mean' and metric == 'standardized_mse'")["value"]
    assert result.metric == "standardized_mse"
    assert of_mean.mean() == pytest.approx(result.losses["mean"].mean(), rel=1e-6)
    assert "squared error of a target over its variance" in report_html(
        result, provenance={}, config={}
    )
    with pytest.raises(InputError, match="loss: expected levels to predict; found multiclass"):
        make_problem(data["x"], label="tissue", config=config)


def test_the_same_test_rows_with_fewer_training_rows(data: dict[str, Any]) -> None:
    config = replace(QUICK, train_sizes=(12,), stratify="tissue", group="none")
    problem = make_problem(data["x"], data["y"], config=config)
    whole, part = make_fold(problem, 0, 1), make_fold(replace(problem, train_size=12), 0, 1)
    np.testing.assert_array_equal(part.test, whole.test)
    assert part.train.size == 12
    assert set(part.train) < set(whole.train)


def test_the_curve_falls_and_ends_at_the_whole_folds(curve: Any) -> None:
    mse = curve.curve[curve.curve["metric"] == "mse"]
    wide = mse.groupby(["model", "n_train"])["value"].mean().unstack()
    assert wide.columns.tolist() == [12, 30, 60]
    assert wide.loc["ridge_gene", 60] < wide.loc["ridge_gene", 12]
    whole = curve.scores[curve.scores["metric"] == "mse"].groupby("model")["value"].mean()
    np.testing.assert_allclose(wide[60], whole.reindex(wide.index))


def test_the_curve_by_hand(curve: Any, data: dict[str, Any]) -> None:
    """The mean row at 12 labels, from the rows that the split names."""
    config = replace(QUICK, train_sizes=(12, 30), stratify="tissue", group="none")
    problem = make_problem(data["x"], data["y"], config=config)
    split = make_fold(replace(problem, train_size=12), 0, 2)
    Y = problem.targets.values.astype(float)
    expected = ((Y[split.test] - Y[split.train].mean(axis=0)) ** 2).mean()
    c = curve.curve
    mine = c[
        (c["model"] == "mean") & (c["n_train"] == 12) & (c["fold"] == 2) & (c["metric"] == "mse")
    ]
    assert mine["value"].item() == pytest.approx(expected, rel=1e-5)


def test_sizes_that_no_fold_has_are_refused(data: dict[str, Any]) -> None:
    config = replace(QUICK, train_sizes=(60,), group="none")
    with pytest.raises(InputError, match=r"expected sizes below the 60 training rows.*found 60"):
        cross_validate(data["x"], data["y"], config=config)


def test_shares_of_all_sizes_are_planned_and_run_apart(data: dict[str, Any]) -> None:
    config = replace(QUICK, train_sizes=(12,), group="none")
    problem = make_problem(data["x"], data["y"], config=config)
    plan = make_plan(problem)
    assert plan.shares == [(0, k, n, 0) for n in (None, 12) for k in range(3)]
    found = list(run_plan(problem, [(0, 1, 12, 0), (0, 2, None, 0)]))
    assert [share.key for share in found] == [(0, 2, None, 0), (0, 1, 12, 0)]


def test_every_stratum_is_left_out_once(data: dict[str, Any]) -> None:
    config = replace(QUICK, leave_out="tissue", linear_rival="ridge")
    result = cross_validate(data["x"], data["y"], config=config)
    tissue = data["x"].obs["tissue"].to_numpy()
    assert [set(tissue[result.folds[0] == k]) for k in range(3)] == [{"gut"}, {"lung"}, {"skin"}]
    table = result.comparisons
    row = table[(table["test"] == "strata_flip") & (table["model_b"] == "mean")].iloc[0]
    d = [
        (result.losses[row["model_a"]] - result.losses["mean"])[0, result.folds[0] == k].mean()
        for k in range(3)
    ]
    oracle = stats.permutation_test(
        (np.array(d), np.zeros(3)), lambda a, b: np.mean(a - b), permutation_type="samples"
    )
    assert row["p"] == pytest.approx(oracle.pvalue)
    assert row["n_independent"] == 3
    assert not (table["test"] == "nadeau_bengio").any()
    alarm = next(a for a in result.alarms if a.name == "group_on_both_sides")
    assert alarm.severity == "warning"
    assert "30 of 30 donors have samples of several values of tissue" in alarm.text


def test_strata_that_cannot_be_left_out_are_refused(data: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"leave_out: expected a column of obs.*found 'age'"):
        cross_validate(data["x"], data["y"], config=replace(QUICK, leave_out="age"))
    with pytest.raises(InputError, match=r"is not the label \(.*found 'tissue'$"):
        cross_validate(data["x"], label="tissue", config=replace(QUICK, leave_out="tissue"))
    with pytest.raises(InputError, match="expected repeats 1"):
        replace(QUICK, leave_out="tissue", repeats=2)
    with pytest.raises(InputError, match="at least two strata; found 1"):
        leave_out_folds(np.array(["a", "a"]))


def test_r2_within_strata_is_against_their_means(curve: Any, data: dict[str, Any]) -> None:
    config = replace(QUICK, models=(*ROWS, "stratum_mean"), stratify="tissue", group="none")
    result = cross_validate(data["x"], data["y"], config=config)
    within = result.scores[result.scores["metric"] == "r2_within"].groupby("model")["value"].mean()
    assert within["stratum_mean"] == pytest.approx(0)
    expected = [
        1 - result.losses["ridge"][0, test].mean() / result.losses["stratum_mean"][0, test].mean()
        for test in (result.folds[0] == k for k in range(3))
    ]
    assert within["ridge"] == pytest.approx(np.mean(expected))
    assert "r2_within" not in set(curve.scores["metric"])


def make_split(rng: np.random.Generator, n_targets: int = 5) -> Fold:
    values = rng.normal(size=(40, n_targets)).astype(np.float32)
    values[:, -1] = 3
    targets = Targets("regression", values, tuple(f"t{j}" for j in range(n_targets)))
    groups = np.array([f"d{i // 2}" for i in range(40)], dtype=object)
    return Fold(targets, np.arange(20), np.arange(20, 40), None, groups, np.zeros(40), 0, 0)


def test_tallies_are_the_t_tests_of_donor_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m1pipe.evaluation.per_target._BLOCK_CELLS", 40)  # two targets a block
    rng = np.random.default_rng(1)
    split = make_split(rng)
    tally = TargetTally(split, split.targets.values[split.test], [("a", "b")])
    Y = split.targets.values[split.test].astype(float)
    predicted = {"a": [Y + rng.normal(size=Y.shape) for _ in range(2)], "b": [Y + 1.5]}
    for row, several in predicted.items():
        tally.add(row, [p.astype(np.float32) for p in several])
    sums = tally.close()
    table = target_table(split.targets.names, None, sums, sums)
    loss = {row: np.mean([(p - Y) ** 2 for p in s], axis=0) for row, s in predicted.items()}
    np.testing.assert_allclose(sums.sse["a"], loss["a"].sum(axis=0), rtol=1e-5)
    sst = ((Y - split.targets.values[:20].mean(axis=0)) ** 2).sum(axis=0)
    np.testing.assert_allclose(
        table["r2_a"][:4], 1 - loss["a"].sum(axis=0)[:4] / sst[:4], rtol=1e-4
    )
    assert np.isnan(table["r2_a"][4])
    donors = (loss["a"] - loss["b"]).reshape(10, 2, 5).mean(axis=1)
    oracle = stats.ttest_1samp(donors, 0)
    np.testing.assert_allclose(table["p_a_b"][:4], oracle.pvalue[:4], rtol=1e-3)
    assert np.isnan(table["p_a_b"][4])
    assert sums.n_units == 10


def test_a_target_that_hardly_varies_has_no_r2_and_is_counted() -> None:
    """Its R2 by scikit-learn is far below -1,000, which would be the mean of all."""
    rng = np.random.default_rng(3)
    split = make_split(rng)
    split.targets.values[:, 3] = 2 + 1e-4 * rng.normal(size=40)
    tested = split.targets.values[split.test]
    predicted = (tested + 0.5 * rng.normal(size=tested.shape)).astype(np.float32)
    tally = TargetTally(split, tested, [("a", "b")])
    for row in ("a", "b"):
        tally.add(row, [predicted])
    sums = tally.close()
    table = target_table(split.targets.names, None, sums, sums)
    assert r2_score(tested[:, 3], predicted[:, 3]) < -1000
    assert table["varies"].tolist() == ["yes", "yes", "yes", "hardly", "no"]
    assert table["r2_a"].isna().tolist() == [False, False, False, True, True]
    assert np.isfinite(table["difference_a_b"][:4]).all() and len(table) == 5
    found = r2_summary(table, ["a", "b"])
    assert (found["n_targets"], found["n_hardly_vary"], found["n_constant"]) == (5, 1, 1)
    expected = np.median([1 - sums.sse["a"][j] / sums.sst[j] for j in range(3)])
    assert found["models"] == [
        {"model": row, "median": pytest.approx(expected), "above_zero": 1.0} for row in ("a", "b")
    ]


def test_the_report_gives_medians_and_the_number_without_r2(data: dict[str, Any]) -> None:
    y = data["y"].copy()
    y.X[:, 0] = 1e-5 * y.X[:, 0] + 1
    y.X[:, 1] = 3
    config = replace(QUICK, models=("mean", "ridge", "raw"), group="none")
    result = cross_validate(data["x"], y, config=config)
    r2 = result.targets["r2_raw"].to_numpy(float)
    assert np.isnan(r2[:2]).all() and np.isfinite(r2[2:]).all()
    page = Page(report_html(result, provenance={}, config={}))
    column = "median R2 \N{UPWARDS ARROW}"
    head = next(row for row in page.rows if column in row)
    row = next(row for row in page.rows if row[0] == "raw" and len(row) == len(head))
    assert row[head.index(column)] == f"{np.median(r2[2:]):.3f}"
    assert f"2 of {len(r2)} targets have no R2" in page.text
    assert "1 are the same in all test samples, 1 hardly vary" in page.text


def test_bh_leaves_out_what_was_not_tested() -> None:
    from statsmodels.stats.multitest import multipletests

    p = np.array([0.01, np.nan, 0.04, 0.5, 0.03])
    found = benjamini_hochberg(p, missing="drop")
    np.testing.assert_allclose(
        found[[0, 2, 3, 4]], multipletests(p[[0, 2, 3, 4]], method="fdr_bh")[1]
    )
    assert np.isnan(found[1])


def test_the_table_of_targets_and_isoforms(curve: Any, data: dict[str, Any]) -> None:
    assert curve.targets["gene"].tolist() == data["y"].var["gene_id"].tolist()
    assert set(curve.targets["n_isoforms"]) == {2}
    assert (curve.targets["r2_gene"] > 0.7).all()
    kinds = {(k["model"], k["kind"]): k for k in curve.info["isoforms"]}
    assert kinds["gene", "several"]["n_targets"] == 2 * P
    pair = next(p for p in curve.info["per_target"] if p["model_a"] == "ridge_gene")
    assert (pair["model_b"], pair["n_targets"]) == ("ridge", 2 * P)


def test_fractions_by_hand() -> None:
    genes = ("a", "b", "a", "c", "b", "a")
    rng = np.random.default_rng(2)
    true, guess, mean = (rng.uniform(1, 4, size=(m, 6)) for m in (7, 7, 1))
    targets = Targets("regression", true, tuple("uvwxyz"), Units("log2_tpm1"), genes)

    def fractions(levels: np.ndarray) -> np.ndarray:
        linear = 2**levels - 1
        parts = [linear[:, c] / linear[:, c].sum(1, keepdims=True) for c in ([0, 2, 5], [1, 4])]
        return np.concatenate(parts, axis=1)

    sse = ((fractions(guess) - fractions(true)) ** 2).sum()
    base = ((fractions(mean) - fractions(true)) ** 2).sum()
    assert fraction_r2(guess, targets, mean[0]) == pytest.approx(1 - sse / base)
    assert fraction_r2(guess, replace(targets, genes=None), mean[0]) is None
    assert fraction_r2(guess, replace(targets, units=Units("zscore")), mean[0]) is None


def test_genes_are_cut_between_and_never_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m1pipe.evaluation.metrics._FRACTION_CELLS", 3)
    genes = ("a", "b", "a", "c", "b", "a", "d", "d")
    blocks = gene_blocks(genes, 1)
    found = [[genes[j] for j in columns] for columns, _ in blocks]
    assert found == [["a"] * 3, ["b"] * 2 + ["d"] * 2]
    assert [starts.tolist() for _, starts in blocks] == [[0], [0, 2]]


def test_a_folder_keeps_all_of_it(curve: Any, tmp_path: Path) -> None:
    from m1pipe.reports.crossval_report import write_report
    from m1pipe.reports.files import read_result

    page = write_report(curve, tmp_path).read_text(encoding="utf-8")
    again = read_result(tmp_path)
    pd.testing.assert_frame_equal(again.curve, curve.curve)
    pd.testing.assert_frame_equal(again.targets, curve.targets)
    assert again.strata is not None
    assert again.strata.tolist() == list(curve.strata)
    for text in ("How many labels it takes", "Target by target", "Within strata"):
        assert text in page


def test_the_report_of_left_out_strata_says_so(data: dict[str, Any], tmp_path: Path) -> None:
    from m1pipe.reports.crossval_report import write_report

    result = cross_validate(data["x"], data["y"], config=replace(QUICK, leave_out="tissue"))
    page = Page(write_report(result, tmp_path).read_text(encoding="utf-8")).text
    for text in (
        "sign-flip test over left-out strata",
        "p cannot be below 0.25",
        "a donor may be on both sides of a split",
        "Each of the 3 values of tissue was left out in turn",
    ):
        assert text in page
    assert "no donor on both sides" not in page
    assert "corrected resampled" not in page


@pytest.mark.parametrize("own_gene", [False, True])
def test_a_model_is_the_same_whatever_it_is_fitted_with(
    data: dict[str, Any], own_gene: bool
) -> None:
    """Folds and models go in one pass; the linear model on some inputs is the head's own part."""
    models = ("mean", "ridge", "ridge_gene", "gene", "raw", "raw_gene")
    config = replace(QUICK, models=models, head=replace(QUICK.head, own_gene=own_gene))
    together = cross_validate(data["x"], data["y"], config=config)
    for name in models[1:]:
        alone = cross_validate(data["x"], data["y"], config=replace(config, models=(name,)))
        np.testing.assert_allclose(together.losses[name], alone.losses[name], rtol=1e-3, atol=1e-5)
    different = together.losses["ridge_gene"].mean() != together.losses["ridge"].mean()
    assert different and together.losses["gene"].mean() != together.losses["mean"].mean()
