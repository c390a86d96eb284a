"""The report's numbers: planted corruptions are caught by the score made for them, by the rules."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest

import m1pipe
from m1pipe.errors import InputError, M1Warning
from m1pipe.synthesis import c2st
from m1pipe.synthesis.attacks import ATTACKS
from m1pipe.synthesis.config import QualityConfig
from m1pipe.synthesis.quality import DIFFERENT, QualityReport, quality
from m1pipe.synthesis.resampling import make_plan, mean_only, shuffled
from m1pipe.synthesis.scores import Score

Made = Callable[..., anndata.AnnData]
QUICK = QualityConfig(n_resamples=10, n_permutations=39, n_seeds=2, n_draws=2)
ROUGH = dataclasses.replace(QUICK, max_samples=40, n_resamples=2)  # where no value is looked at


@pytest.fixture(scope="module", autouse=True)
def _small_forests() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(c2st, "N_TREES", 25)
        yield


def _like(adata: anndata.AnnData, X: np.ndarray) -> anndata.AnnData:
    out = adata.copy()
    out.X = X.astype(np.float32)
    return out


@pytest.fixture(scope="module")
def reports(profiles: Made) -> dict[str, QualityReport]:
    """Scores of samples of the true law and of three spoilt ones."""
    real, holdout, true = (profiles(seed=i) for i in (1, 2, 3))
    rng = np.random.default_rng(0)
    sets = {
        "true": true,
        "collapsed": _like(true, true.X.mean(axis=0) + 0.5 * (true.X - true.X.mean(axis=0))),
        "shuffled": _like(true, rng.permuted(true.X, axis=0)),
        "copied": real[rng.permutation(120)].copy(),
    }
    return {
        name: quality(real, made, holdout, label="tissue", config=QUICK)
        for name, made in sets.items()
    }


def _value(report: QualityReport, name: str) -> float:
    score = report.score(name)
    assert not score.error, f"{name}: {score.error}"
    return score.value


def _error(score: Score) -> float:
    """Standard error, by the interval, of a value on the scale from floor to ceiling."""
    return (score.high - score.low) / (2 * 1.96) / abs(score.floor - score.ceiling)


def test_true_samples_are_at_the_ceiling(reports: dict[str, QualityReport]) -> None:
    for score in reports["true"].scores["synthetic"]:
        assert score.error == "", score
        assert np.isfinite(score.value) or score.not_applicable
    report = reports["true"]
    for name in ("ks_mean", "wasserstein_mean", "gamma", "correlation_rmse", "frechet"):
        score = report.score(name)
        tolerance = 3 * np.sqrt(2) * _error(score)  # of value and ceiling, both drawn
        assert tolerance < 0.4 and score.calibrated == pytest.approx(1, abs=tolerance), name
    for name in ("recall", "coverage"):
        assert report.score(name).calibrated == pytest.approx(1, abs=0.25), name
    forest = report.score("c2st_forest")  # an AUC's spread is 1.5 times that of its interval
    tolerance = 3 * np.sqrt(2) * 1.5 * _error(forest)
    assert tolerance < 0.9 and forest.calibrated == pytest.approx(1, abs=tolerance)
    assert report.score("variance_ratio").abs_log_ratio < 0.15
    score = report.score("closer_to_train")
    assert score.low < 0.5 < score.high
    assert _value(report, "mmd_p") > 0.025
    assert _value(report, "tstr_over_trtr") == pytest.approx(1, abs=0.1)
    differs = {"holdout_differs"} if forest.ceiling > DIFFERENT else set()  # 1.7 of its spreads
    for name in ATTACKS:  # one set in twenty is warned of by chance; spreads as of the forest's AUC
        score = report.score(f"{name}_auc")
        assert score.value - 0.5 < 3 * 1.5 * (score.high - score.low) / (2 * 1.96) < 0.2, name
    assert {alarm.name for alarm in report.alarms} - {"membership"} == {"privacy"} | differs


def test_each_corruption_is_caught_by_the_score_made_for_it(
    reports: dict[str, QualityReport],
) -> None:
    true, collapsed, mixed, copied = (
        reports[name] for name in ("true", "collapsed", "shuffled", "copied")
    )
    assert _value(collapsed, "variance_ratio") == pytest.approx(
        0.25 * _value(true, "variance_ratio"), rel=1e-3
    )
    assert _value(collapsed, "gamma") == pytest.approx(_value(true, "gamma"), abs=1e-3)
    assert collapsed.score("recall").calibrated < 0.5
    assert _value(collapsed, "c2st_forest") > 0.85
    assert _value(mixed, "ks_mean") == pytest.approx(_value(true, "ks_mean"))
    assert abs(mixed.score("gamma").calibrated) < 0.1
    assert _value(mixed, "mmd_p") == 1 / 40
    assert _value(mixed, "c2st_logistic") < 0.65
    assert _value(mixed, "c2st_forest") > 0.75
    assert copied.score("ks_mean").calibrated == pytest.approx(1, abs=1e-6)
    for name, leaked in (("closer_to_train", 1), ("copies", 1), ("membership_auc", 1)):
        assert _value(copied, name) == leaked
        assert _value(true, name) < 0.65
    assert _value(copied, "gan_leaks_tpr1") == 1


def test_alarms_name_what_is_wrong(reports: dict[str, QualityReport]) -> None:
    alarms = {name: {a.name for a in report.alarms} for name, report in reports.items()}
    assert "variance_collapse" in alarms["collapsed"]
    assert {"copies", "leak", "membership"} <= alarms["copied"]
    assert reports["copied"].alarms[0].severity == "severe"
    assert all("privacy" in names for names in alarms.values())


def test_calibration_is_for_one_sided_fidelity_only(reports: dict[str, QualityReport]) -> None:
    frame = reports["true"].to_frame().set_index("score")
    assert frame.loc[frame["ideal"].isin(["one", "half", "shown"]), "calibrated"].isna().all()
    assert frame.loc[frame["family"] == "privacy", "calibrated"].isna().all()
    assert frame.loc["gamma", "calibrated"] == pytest.approx(
        (frame.loc["gamma", "value"] - frame.loc["gamma", "floor"])
        / (frame.loc["gamma", "ceiling"] - frame.loc["gamma", "floor"])
    )
    assert frame.loc[["ks_significant", "mmd_p"], "ci_low"].isna().all()
    assert (frame["abs_log_ratio"].notna() == (frame["ideal"] == "one")).all()


def test_no_fidelity_score_sees_which_real_samples_were_trained_on(
    profiles: Made, reports: dict[str, QualityReport]
) -> None:
    """Other training samples leave value and interval of every score on genes as they are."""
    other = quality(profiles(seed=7), profiles(seed=3), profiles(seed=2), config=QUICK)
    for score in reports["true"].scores["synthetic"]:
        name = score.definition.name
        if score.definition.family in ("marginal", "dependence") and name not in (
            "frechet",
            "trend_excess",
        ):
            again = other.score(name)
            got, known = (again.value, again.low), (score.value, score.low)
            np.testing.assert_equal(got, known, err_msg=name)


def test_the_same_seed_gives_the_same_numbers(
    profiles: Made, reports: dict[str, QualityReport]
) -> None:
    real, holdout, true = (profiles(seed=i) for i in (1, 2, 3))
    again = m1pipe.quality(real, true, holdout, label="tissue", config=QUICK)
    np.testing.assert_equal(
        again.to_frame().to_dict("list"), reports["true"].to_frame().to_dict("list")
    )


def test_the_mean_itself_fails_aloud_where_it_has_no_score(profiles: Made) -> None:
    real, holdout = profiles(seed=1), profiles(seed=2)
    report = quality(real, _like(real, mean_only(real.X)), holdout, config=QUICK)
    assert "0 of 60 genes vary" in report.score("gamma").error
    assert "gamma" in {s.definition.name for s in report.scores["synthetic"]}
    assert _value(report, "variance_ratio") == 0
    assert report.score("ks_mean").calibrated == pytest.approx(0, abs=1e-6)
    assert any("gamma: not computed" in alarm.text for alarm in report.alarms)


def test_sizes_are_equal_and_draws_differ() -> None:
    plan = make_plan((50, 80, 30), QUICK)
    assert plan.size == 30
    assert len(plan.draws) == 2
    for draw in (*plan.draws, *plan.halves):
        assert len(draw.real) == len(draw.synthetic) == len(draw.holdout)
        assert all(len(set(rows)) == len(rows) for rows in (draw.real, draw.synthetic))
    assert set(plan.draws[0].real) != set(plan.draws[1].real)
    assert len(make_plan((30, 30, 30), QUICK).draws) == 1


def test_half_samples_take_whole_donors() -> None:
    groups = np.repeat([f"d{i}" for i in range(10)], 6)
    plan = make_plan((60, 60, 60), QUICK, groups=groups)
    assert plan.n_independent == 10
    for half in plan.halves:
        names, counts = np.unique(groups[half.holdout], return_counts=True)
        assert len(names) == 5
        assert (counts == 6).all()


def test_half_sample_errors_are_the_spread_of_fresh_draws(profiles: Made) -> None:
    """Oracle: the standard deviation over a hundred pairs of sets of one law, known to 7 %.

    Over six laws the errors of `ks_mean` are 1 to 1.4 of it, wide; four times 7 % about these.
    """
    from m1pipe.synthesis.marginal import marginal_scores

    config = QualityConfig(n_resamples=16)
    plan = make_plan((100, 100, 100), config)
    spread: dict[str, list[float]] = {name: [] for name in ("ks_mean", "variance_ratio", "sd_r")}
    errors: dict[str, list[float]] = {name: [] for name in spread}
    for world in range(100):
        H, S = profiles(100, seed=10 + world).X, profiles(100, seed=150 + world).X
        found = marginal_scores(H, S, is_log=True)
        for name in spread:
            spread[name].append(float(found[name]))
        if world < 12:
            halves = [
                marginal_scores(H[d.holdout], S[d.synthetic], is_log=True) for d in plan.halves
            ]
            for name in spread:
                errors[name].append(np.std([float(h[name]) for h in halves]) * plan.inflation)
    ratio = {name: np.mean(errors[name]) / np.std(spread[name]) for name in spread}
    assert 0.72 < ratio["ks_mean"] < 1.4 * 1.28
    assert ratio["variance_ratio"] == pytest.approx(1, abs=0.4)
    assert 1 < ratio["sd_r"] < 2.5  # near its bound the spread falls as 1 / n: wide, never narrow


def test_floors_keep_what_they_should(profiles: Made) -> None:
    X = profiles().X
    floor = shuffled(X, 0)
    np.testing.assert_array_equal(np.sort(floor, axis=0), np.sort(X, axis=0))
    assert not np.array_equal(floor, X)
    np.testing.assert_allclose(mean_only(X)[5], X.mean(axis=0), rtol=1e-5)


def test_components_of_shuffled_genes_are_those_of_the_shuffled_matrix(profiles: Made) -> None:
    from m1pipe.synthesis.fidelity import fit_space

    X = profiles().X
    space = fit_space(X, QUICK)
    rng = np.random.Generator(np.random.PCG64([5, 8]))  # the package's own, at every test seed
    expected = space.components(rng.permuted(X, axis=0))
    np.testing.assert_allclose(space.shuffled_components(X, 5), expected, atol=2e-3)


def test_no_leak_reads_one_half_with_more_genes_than_samples() -> None:
    """In components of the training samples alone it would read 0.35."""
    from m1pipe.synthesis.privacy import common_distances, distance_values

    shares = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        loadings = 0.5 * rng.normal(size=(8, 400))
        X, S, H = (
            rng.normal(size=(80, 8)) @ loadings + rng.normal(size=(80, 400)) for _ in range(3)
        )
        shares.append(distance_values(common_distances(X, S, H, 20))["closer_to_train"])
    assert np.mean(shares) == pytest.approx(0.5, abs=3 * 0.06 / np.sqrt(8))


def test_donors_on_both_sides_are_refused_or_told(profiles: Made) -> None:
    real, holdout, made = (profiles(seed=i) for i in (1, 2, 3))
    assert quality(real, made, holdout, group="person", config=ROUGH).info["n_independent"] == 40
    holdout.obs["person"] = real.obs["person"].to_numpy()
    with pytest.raises(InputError, match="found 40 on both sides"):
        quality(real, made, holdout, group="person", config=ROUGH)
    for adata in (real, holdout):
        adata.obs["donor"] = adata.obs["person"]
    report = quality(real, made, holdout, config=ROUGH)
    assert "shared_donors" in {alarm.name for alarm in report.alarms}


def test_classes_that_were_not_generated_are_told(profiles: Made) -> None:
    real, holdout, made = (profiles(seed=i) for i in (1, 2, 3))
    classes = sorted(set(holdout.obs["tissue"]))
    some = made[made.obs["tissue"] == classes[0]].copy()
    found = quality(real, some, holdout, label="tissue", config=ROUGH).alarms
    (text,) = (alarm.text for alarm in found if alarm.name == "absent_classes")
    assert text.startswith(f"No synthetic sample is of {len(classes) - 1} classes of the hold-out")
    assert f"such as {classes[1]!r}" in text
    whole = quality(real, made, holdout, label="tissue", config=ROUGH).alarms
    assert "absent_classes" not in {alarm.name for alarm in whole}


def test_a_holdout_out_of_the_training_samples_is_severe(profiles: Made) -> None:
    real = profiles(seed=1)
    report = quality(real, profiles(seed=3), real[:60].copy(), config=ROUGH)
    assert report.alarms[0].name == "holdout_leak"
    assert "60 held-out samples are in the training samples" in report.alarms[0].text


def test_rivals_stand_before_the_same_judge(profiles: Made) -> None:
    real, holdout, made = (profiles(seed=i) for i in (1, 2, 3))
    report = quality(real, made, holdout, rivals=True, config=ROUGH)
    assert list(report.scores) == [
        "synthetic",
        "gaussian copula",
        "factor analysis",
        "PCA + mixture",
    ]
    for model in report.scores:
        assert report.score("gamma", model).ceiling == report.score("gamma").ceiling
        assert report.score("gamma", model).calibrated > 0.7
        assert report.score("copies", model).value == 0


def test_genes_are_matched_by_name_and_units_must_agree(profiles: Made) -> None:
    real, holdout, made = (profiles(seed=i) for i in (1, 2, 3))
    order = np.random.default_rng(0).permutation(60)
    swapped = quality(real, made[:, order].copy(), holdout, config=ROUGH)
    plain = quality(real, made, holdout, config=ROUGH)
    assert swapped.score("gamma").value == plain.score("gamma").value
    with pytest.warns(M1Warning, match="6 of 60 genes are not in all three"):
        fewer = quality(real, made[:, 6:].copy(), holdout, config=ROUGH)
    assert fewer.info["n_genes"] == 54
    with pytest.raises(InputError, match="expected at least 80%"):
        quality(real, made[:, :30].copy(), holdout, config=ROUGH)
    made.uns["units"] = "zscore"
    with pytest.raises(InputError, match="expected the same in all three"):
        quality(real, made, holdout, config=ROUGH)


def test_counts_are_compared_as_logarithms(profiles: Made) -> None:
    sets = []
    for seed in (1, 3, 2):
        adata = profiles(seed=seed)
        adata.X = np.round(np.exp2(adata.X) - 1).astype(np.float32)
        adata.uns["units"] = "counts"
        sets.append(adata)
    report = quality(*sets, config=ROUGH)
    assert report.info["scale"] == "log2(1 + counts)"
    assert report.score("variance_ratio_raw").not_applicable == ""
    sets[0].X[0, 0] = -1
    with pytest.raises(InputError, match="units say counts; values such as -1 are negative"):
        quality(*sets, config=ROUGH)


def test_synthetic_samples_without_the_label_are_an_error_row(profiles: Made) -> None:
    real, holdout, made = (profiles(seed=i) for i in (1, 2, 3))
    del made.obs["tissue"]
    report = quality(real, made, holdout, label="tissue", config=ROUGH)
    assert "no column 'tissue'" in report.score("tstr").error
    with pytest.raises(InputError, match="label: expected a column"):
        quality(real, made, holdout, label="cancer", config=ROUGH)
    made.obs["tissue"] = "Liver"
    report = quality(real, made, holdout, label="tissue", config=ROUGH)
    assert "synthetic samples have 1 of the classes" in report.score("tstr").error


@pytest.mark.parametrize(
    ("change", "message"),
    [({"n_resamples": 1}, "n_resamples: expected at least 2"), ({"min_coverage": 2}, "min_cov")],
)
def test_settings_are_checked(change: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        QualityConfig(**change)


def test_too_few_samples_are_refused(profiles: Made, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holdout: expected at least 8 samples; found 3"):
        quality(profiles(seed=1), profiles(seed=3), profiles(3, seed=2), config=ROUGH)
