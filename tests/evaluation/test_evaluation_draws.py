"""Several draws of every number of training rows: who is drawn, what is run, and its test."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from pages import Page
from scipy import stats
from scripts import load_script

from m1pipe import cross_validate
from m1pipe.config import CrossvalConfig, HeadConfig
from m1pipe.data.splits import draw_subset
from m1pipe.data.targets import Targets
from m1pipe.errors import InputError
from m1pipe.evaluation.cost import cost_text
from m1pipe.evaluation.folds import Fold, train_mean
from m1pipe.evaluation.learning_curve import curve_means
from m1pipe.evaluation.plan import make_plan
from m1pipe.evaluation.problem import Problem, make_fold, make_problem
from m1pipe.evaluation.significance import draws_t, nadeau_bengio
from m1pipe.reports.crossval_report import report_html
from m1pipe.reports.verdicts import label_efficiency, summary

N, P, K, DRAWS = 90, 6, 3, 4
SIZES = (8, 20)
QUICK = CrossvalConfig(
    folds=K,
    models=("logistic",),
    train_sizes=SIZES,
    draws=DRAWS,
    group="none",
    head=HeadConfig(hidden=(4,), epochs=2),
)


@pytest.fixture(scope="module")
def data() -> anndata.AnnData:
    """Genes that tell three classes apart, of 60, 20 and 10 samples."""
    rng = np.random.default_rng(0)
    kinds = np.repeat(["a", "b", "c"], (60, 20, 10))
    X = rng.normal(size=(N, P)) + 6
    X[kinds == "b", 0] += 2
    X[kinds == "c", 1] += 2
    obs = pd.DataFrame({"kind": kinds}, index=[f"s{i}" for i in range(N)])
    return anndata.AnnData(X.astype(np.float32), obs=obs)


@pytest.fixture(scope="module")
def problem(data: anndata.AnnData) -> Problem:
    return make_problem(data, label="kind", config=QUICK)


@pytest.fixture(scope="module")
def result(data: anndata.AnnData) -> Any:
    return cross_validate(data, label="kind", config=QUICK)


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    """The script that the test was chosen by; its result is kept in benchmarks/results."""
    return load_script("draws_simulation")


@pytest.mark.parametrize("seed", range(5))
def test_two_of_every_class_come_first(seed: int) -> None:
    rows = np.arange(3, 103)
    classes = np.array(["a"] * 80 + ["b"] * 20 + ["c"] * 3, dtype=object)
    strata = np.where(np.arange(103) % 2, "x", "y").astype(object)
    sets = [draw_subset(rows, n, seed, strata=strata, classes=classes) for n in (2, 3, 6, 30)]
    assert set(sets[0]) < set(sets[1]) < set(sets[2]) < set(sets[3])
    counts = [pd.Series(classes[s]).value_counts().to_dict() for s in sets]
    assert max(counts[0].values()) == 1
    assert counts[1] == {"a": 1, "b": 1, "c": 1}
    assert counts[2] == {"a": 2, "b": 2, "c": 2}
    assert np.mean(strata[sets[3]] == "x") == pytest.approx(0.5, abs=0.15)


def test_a_class_of_one_row_gives_that_row() -> None:
    classes = np.array(["a"] * 9 + ["b"], dtype=object)
    found = draw_subset(np.arange(10), 4, 0, classes=classes)
    assert 9 in found and found.size == 4


def test_draws_of_a_fold_differ_and_are_nested_over_sizes(problem: Problem) -> None:
    small, large = (replace(problem, train_size=n) for n in SIZES)
    drawn = [make_fold(small, 0, 1, d) for d in range(DRAWS)]
    assert len({tuple(split.train) for split in drawn}) == DRAWS
    for d, split in enumerate(drawn):
        np.testing.assert_array_equal(split.test, make_fold(problem, 0, 1).test)
        assert set(split.train) < set(make_fold(large, 0, 1, d).train)
        assert np.bincount(problem.targets.values[split.train], minlength=3).min() >= 2
        np.testing.assert_array_equal(split.train, make_fold(small, 0, 1, d).train)


def test_all_draws_are_planned_and_counted(problem: Problem) -> None:
    assert len(make_plan(problem).shares) == K * (1 + len(SIZES) * DRAWS)
    assert "each again with 8, 20 training samples (each drawn 4 times)" in cost_text(problem)


def test_every_draw_is_in_the_curve_and_the_same_for_all_models(
    result: Any, problem: Problem
) -> None:
    """The prior by hand: class frequencies of the rows that each draw names."""
    codes = problem.targets.values
    loss = result.curve[(result.curve["metric"] == "log_loss") & (result.curve["model"] == "prior")]
    assert len(loss) == K * (1 + len(SIZES) * DRAWS)
    for line in loss[loss["n_train"] == 8].itertuples():
        split = make_fold(replace(problem, train_size=8), 0, line.fold, line.draw)
        share = np.bincount(codes[split.train], minlength=3) / 8
        assert line.value == pytest.approx(-np.log(share[codes[split.test]]).mean())
    assert set(result.curve.groupby("model").size()) == {len(result.curve) // 2}


def test_one_draw_is_the_first_of_several(data: anndata.AnnData, result: Any) -> None:
    one = cross_validate(data, label="kind", config=replace(QUICK, draws=1)).curve
    first = result.curve[result.curve["draw"] == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(one, first, rtol=1e-5)


def test_draws_are_fitted_in_one_pass_a_size(
    data: anndata.AnnData, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="m1pipe"):
        cross_validate(data, label="kind", config=QUICK)
    lines = [line for line in caplog.messages if "in one pass" in line]
    assert lines == [
        "3 heads (1 model x 3 folds) in one pass",
        "12 heads (1 model x 12 draws of 8 training samples, from 3 folds) in one pass",
        "12 heads (1 model x 12 draws of 20 training samples, from 3 folds) in one pass",
    ]
    own = [line.partition(": ")[0] for line in caplog.messages if line.startswith("fold ")]
    sizes = ("", *(f", {n} training samples x {DRAWS} draws" for n in SIZES))
    assert own == [f"fold {k + 1}/{K}{size}" for size in sizes for k in range(K)]


def test_draws_without_sizes_are_refused() -> None:
    with pytest.raises(InputError, match=r"draws: expected train_sizes beside it.*found 3"):
        CrossvalConfig(draws=3)
    with pytest.raises(InputError, match="draws"):
        CrossvalConfig(draws=0, train_sizes=(8,))


def test_a_class_that_no_training_row_has_counts_half_a_row() -> None:
    targets = Targets("multiclass", np.array([0, 0, 0, 1, 2]), ("a", "b", "c"))
    fold = Fold(targets, np.arange(4), np.array([4]), None, None, np.zeros(5), 0, 0)
    np.testing.assert_allclose(train_mean(fold), np.array([3, 1, 0.5]) / 4.5)
    labels = np.array([[0, 1, 1], [0, 1, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0]])
    several = replace(fold, targets=Targets("multilabel", labels, ("p", "q", "r")))
    np.testing.assert_allclose(train_mean(several), [0.5 / 5, 4.5 / 5, 1 / 4])


def test_draws_t_by_hand() -> None:
    """Two folds, two draws: means 2 and 4, s_b^2 = 2, s_w^2 = 1; m / n = 1/4, m / N = 1/2.

    V = (1/2 + 1) (2 - 1/2) + (1/4 + 3/4 / 4) / (1/2) = 2.25 + .875 = 3.125.
    """
    d = np.array([[2 - np.sqrt(0.5), 2 + np.sqrt(0.5)], [4 - np.sqrt(0.5), 4 + np.sqrt(0.5)]])
    found = draws_t(d, n_folds=2, n_train=10, n_samples=40)
    assert found.difference == pytest.approx(3)
    assert found.statistic == pytest.approx(3 / np.sqrt(3.125))
    df = 3.125**2 / (3.0**2 / 1 + (0.875 - 0.75) ** 2 / 2)
    assert found.p == pytest.approx(2 * stats.t.sf(3 / np.sqrt(3.125), df))
    assert found.ci_high - found.ci_low == pytest.approx(
        2 * stats.t.ppf(0.975, df) * np.sqrt(3.125)
    )


def test_draws_t_does_not_depend_on_the_unit() -> None:
    d = np.random.default_rng(5).normal(0.3, 1, size=(5, 3))
    one, other = (draws_t(factor * d, 5, 20, 100) for factor in (1, 7))
    assert other.p == pytest.approx(one.p)
    assert other.ci_high - other.ci_low == pytest.approx(7 * (one.ci_high - one.ci_low))


def test_draws_t_of_one_draw_is_nadeau_and_bengios() -> None:
    d = np.random.default_rng(3).normal(0.3, 1, size=10)
    assert draws_t(d[:, None], 5, 20, 100) == nadeau_bengio(d, 5)
    for n_train in (80, 90):  # four of five folds, and more
        with pytest.raises(ValueError, match=f"fewer than a fold has; found {n_train} of 100"):
            draws_t(np.random.default_rng(4).normal(size=(5, 2)), 5, n_train, 100)
    with pytest.raises(ValueError, match=r"expected shape \(folds, draws\)"):
        draws_t(d, 5, 20, 100)


def test_false_positives_of_the_test_over_draws(simulation: ModuleType) -> None:
    """Averaging the draws before the test of Nadeau and Bengio rejects true nulls."""
    design, size, n_runs = (100, 5, 5), 20, 200
    rng = np.random.default_rng(0)
    d = np.stack(
        [
            simulation.fold_differences(rng, *design, size, ("ridge", "signal", 0.0))
            for _ in range(n_runs)
        ]
    )
    assert d.shape == (n_runs, 25, 10)
    p = simulation.p_values(d, *design[:2], size)
    for run in range(3):
        assert p["overlap"][run] == pytest.approx(draws_t(d[run], 5, size, 100).p)
        assert p["one_draw"][run] == pytest.approx(nadeau_bengio(d[run, :, 0], 5).p)
    rate = {name: float((values < 0.05).mean()) for name, values in p.items()}
    assert rate["overlap"] <= 0.05
    assert rate["fold_means"] > 0.1
    assert rate["plain"] > 0.5


def test_the_report_shows_means_and_intervals_of_all_models(result: Any) -> None:
    means = curve_means(result.curve, ["log_loss"], n_folds=K, n_samples=N, by_strata=False)
    values = result.curve.query("metric == 'log_loss' and model == 'logistic' and n_train == 20")
    line = means.query("model == 'logistic' and n_train == 20").iloc[0]
    wide = values.pivot(index="fold", columns="draw", values="value").to_numpy()
    expected = draws_t(wide, K, 20, N)
    assert wide.shape == (K, DRAWS)
    assert (line["value"], line["ci_low"]) == pytest.approx((wide.mean(), expected.ci_low))
    page = Page(report_html(result, provenance={}, config={}))
    assert "folds and 4 draws of the training samples of each" in page.text
    assert "Log loss by number of labelled training samples" in page.text
    assert "Balanced accuracy by number of labelled training samples" in page.text
    heads = [place for place, row in enumerate(page.rows) if row == ["model", "8", "20", "60"]]
    assert len(heads) == 2
    assert [row[0] for row in page.rows[heads[0] + 1 :][:2]] == ["prior", "logistic"]
    value, low, high = (f"{line[k]:.3f}" for k in ("value", "ci_low", "ci_high"))
    assert page.rows[heads[0] + 2][2] == f"{value} ({low} to {high})"


def test_one_sentence_says_from_where_on_an_encoder_is_ahead(result: Any) -> None:
    lines = [
        {"n_train": n, "model_a": "vae", "model_b": "logistic", "difference": d, "effect": d / 2}
        | {"ci_low": d - 0.01, "ci_high": d + 0.01}
        for n, d in ((8, -0.2), (20, -0.1), (60, -0.1))
    ]
    info = {**result.info, "encoders": {"vae": {}}, "linear_rival": "logistic"}

    def said(*p: float) -> str:
        table = pd.DataFrame(lines).assign(p=p)
        shown = replace(result, info=info, curve_tests=table)
        (text,) = label_efficiency(shown)
        assert text in summary(shown, "report.html").splitlines()
        return text

    assert said(0.01, 0.01, 1) == (
        "The one trained vae encoder is better than logistic at 8 and 20 labelled training samples "
        "(-10.0 % to -5.0 %) and not shown to differ from logistic at 60 labelled training samples "
        "(-5.0 %)."
    )
    assert "better than logistic from 20 labelled training samples on" in said(0.9, 0.01, 0.01)
    assert said(0.9, 0.9, 0.04) == (
        "At none of 8, 20 and 60 labelled training samples is vae shown to differ from logistic "
        "(-10.0 % to -5.0 %), with p adjusted over them."
    )
    for line in lines:
        line |= {"difference": 0.1, "ci_low": 0.09, "ci_high": 0.11, "effect": 0.05}
    assert "worse than logistic from 60 labelled training samples on (+5.0 %)" in said(0.9, 0.9, 0)
