"""A fitted model, its rivals and its intervals on samples that it has not seen."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from pages import Page
from scipy import stats
from sklearn.impute import SimpleImputer

from m1pipe.cli.main import cli
from m1pipe.config import CrossvalConfig, EncoderConfig, FitConfig, HeadConfig
from m1pipe.data.targets import Targets
from m1pipe.encoder import train_encoder
from m1pipe.encoder.drift import encode_with_drift
from m1pipe.errors import InputError, SettingError
from m1pipe.evaluation.deploy import fit_predictor
from m1pipe.evaluation.design_checks import design_alarms
from m1pipe.evaluation.external_validation import evaluate_outside, fit_rivals, load_rivals
from m1pipe.evaluation.problem import make_problem
from m1pipe.heads.conformal import LEVELS, half_widths
from m1pipe.heads.ridge import fit_ridge
from m1pipe.predictor import load_predictor
from m1pipe.reports.evaluation_report import evaluation_html
from m1pipe.settings import build

QUICK = HeadConfig(hidden=(16,), epochs=25, lr=0.01)
Pair = dict[str, anndata.AnnData]


@pytest.fixture(scope="module")
def worlds(expression: Callable[..., anndata.AnnData]) -> dict[str, Pair]:
    """Two sets of one law: genes, and an isoform that follows each of the first ten."""
    found = {}
    for name, seed in (("train", 0), ("outside", 1)):
        x = expression(200, 40, seed=seed)
        rng = np.random.default_rng(seed)
        Y = x.X[:, :10] - 1 + 0.3 * rng.normal(size=(200, 10))
        var = pd.DataFrame({"gene_id": x.var_names[:10]}, index=[f"t{j}" for j in range(10)])
        y = anndata.AnnData(Y.astype(np.float32), obs=x.obs[[]], var=var, uns=dict(x.uns))
        found[name] = {"x": x, "y": y}
    return found


@pytest.fixture(scope="module")
def model(worlds: dict[str, Pair], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model fitted through the command, with own genes and intervals."""
    folder = tmp_path_factory.mktemp("model")
    for name, pair in worlds.items():
        for role, data in pair.items():
            data.write_h5ad(folder / f"{name}_{role}.h5ad")
    args = f"fit --x {folder}/train_x.h5ad --y {folder}/train_y.h5ad --head own_gene --group none "
    args += f"--conformal 0.3 --head-hidden 16 --head-epochs 20 --head-lr 0.01 --out {folder}/m"
    done = CliRunner().invoke(cli, args.split(), catch_exceptions=False)
    assert done.exit_code == 0
    return folder


def outside(folder: Path, *more: str) -> Any:
    args = ["evaluate", f"{folder}/m", "--x", f"{folder}/outside_x.h5ad", *more]
    return CliRunner().invoke(cli, args, catch_exceptions=False)


def test_evaluate_scores_model_mean_and_linear(model: Path, worlds: dict[str, Pair]) -> None:
    done = outside(model, "--y", f"{model}/outside_y.h5ad", "--out", f"{model}/e")
    assert done.exit_code == 0
    losses = pd.read_csv(model / "e" / "losses.csv", index_col="sample")
    Y = worlds["outside"]["y"].X.astype(float)
    mean = worlds["train"]["y"].X.mean(axis=0, dtype=float)
    np.testing.assert_allclose(losses["mean"], ((Y - mean) ** 2).mean(axis=1), rtol=1e-4)
    assert losses["model"].mean() < 0.5 * losses["mean"].mean()
    table = pd.read_csv(model / "e" / "comparisons.csv")
    row = table[(table["test"] == "clustered_t") & (table["model_b"] == "linear")].iloc[0]
    donors = (losses["model"] - losses["linear"]).groupby(
        worlds["outside"]["x"].obs["donor"].to_numpy()
    )
    assert row["p"] == pytest.approx(stats.ttest_1samp(donors.mean(), 0).pvalue)
    assert not table["test"].isin(["nadeau_bengio"]).any()
    page = (model / "e" / "evaluate.html").read_text(encoding="utf-8")
    assert f"{losses['model'].mean():.3g}"[:4] in page
    for part in ("Checks", "none found", "SHA-256"):
        assert part in page
    shown = Page(page).text
    beside = {"linear": "the linear model on the genes", "mean": "the training mean"}
    for rival, spoken in beside.items():
        of_pair = (table["test"] == "clustered_t") & (table["model_a"] == "model")
        row = table[of_pair & (table["model_b"] == rival)].iloc[0]
        gap = 100 * row["difference"] / losses[rival].mean()
        text = re.search(rf"{spoken} \(\+?(\S+) %\)", shown)[1]
        assert text == f"{gap:.{len(text.partition('.')[2])}f}"
    assert shown.index("The model is") < shown.index("Figure 1.") < shown.index("Table 1.")
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # nothing is fetched


def test_an_encoder_far_from_the_samples_raises_an_alarm(
    worlds: dict[str, Pair], expression: Callable[..., anndata.AnnData]
) -> None:
    """Of `evaluate` and of `crossval`, in the same words as `encode`."""
    config = build(EncoderConfig, {"n_latent": 5, "hidden": [16], "epochs": 10})
    encoder = train_encoder(expression(300, 40), config)
    train, new = worlds["train"], worlds["outside"]
    head = FitConfig(head=HeadConfig(hidden=(), epochs=1))
    predictor = fit_predictor(train["x"], config=head, y=train["y"], encoder=encoder)
    levels = Targets("regression", np.asarray(train["y"].X), tuple(train["y"].var_names))
    rivals = fit_rivals(np.asarray(train["x"].X), levels)
    folds = CrossvalConfig(folds=2, models=("mean",))
    for shift in (0, 6):
        x = new["x"].copy()
        x.X[:, :10] += shift * x.X[:, :10].std(axis=0)
        result = evaluate_outside(predictor, rivals, x, y=new["y"], min_coverage=0.8)
        problem = make_problem(x, new["y"], encoders={"vae": encoder}, config=folds)
        found = [a.text for a in result.alarms if a.name == "far_from_training"]
        compared = [a.text for a in design_alarms(problem) if a.name == "far_from_training"]
        assert len(found) == len(compared) == (shift > 0)
    _, drift = encode_with_drift(encoder, x)
    assert drift.beyond > 0.8
    assert found[0].startswith(f"the encoder: {drift.beyond:.1%} of samples are reconstructed")
    assert compared[0].startswith(f"vae: {drift.beyond:.1%} of samples are reconstructed")
    assert found[0] in Page(evaluation_html(result, provenance={}, config={})).text


def test_true_levels_and_labels_are_asked_for_by_name(model: Path) -> None:
    with pytest.raises(SettingError, match=r"the true levels of the \d+ targets .* file by y$"):
        outside(model, "--out", f"{model}/none")
    with pytest.raises(InputError, match=r"true labels .* in a column status; found tissue, donor"):
        outside(model, "--label", "status", "--out", f"{model}/none")


def test_samples_that_were_fitted_on_raise_an_alarm(model: Path) -> None:
    args = f"evaluate {model}/m --x {model}/train_x.h5ad --y {model}/train_y.h5ad --out {model}/s"
    assert CliRunner().invoke(cli, args.split()).exit_code == 0
    assert "200 of the 200 samples were fitted on" in (model / "s" / "summary.json").read_text()
    page = (model / "s" / "evaluate.html").read_text(encoding="utf-8")
    assert "Read this first" in page
    assert "200 of the 200 samples were fitted on" in page


def test_the_linear_row_is_a_ridge_on_the_genes(worlds: dict[str, Pair], tmp_path: Path) -> None:
    X, Y = worlds["train"]["x"].X, worlds["train"]["y"].X
    targets = Targets("regression", Y, tuple(worlds["train"]["y"].var_names))
    rivals = fit_rivals(X, targets)
    new = worlds["outside"]["x"].X
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    oracle = fit_ridge(Z, Y).predict((new - X.mean(axis=0)) / X.std(axis=0))
    np.testing.assert_allclose(rivals.predict(new), oracle, rtol=2e-3)
    rivals.save(tmp_path)
    np.testing.assert_array_equal(load_rivals(tmp_path).predict(new), rivals.predict(new))
    with pytest.raises(InputError, match="expected a model with its rivals"):
        load_rivals(tmp_path / "none")


def test_a_model_of_classes_outside(worlds: dict[str, Pair], tmp_path: Path) -> None:
    for name in ("train", "outside"):
        worlds[name]["x"].write_h5ad(tmp_path / f"{name}.h5ad")
    runner = CliRunner()
    fit = f"fit --x {tmp_path}/train.h5ad --label tissue --head-epochs 5 --out {tmp_path}/m"
    assert runner.invoke(cli, fit.split()).exit_code == 0
    args = f"evaluate {tmp_path}/m --x {tmp_path}/outside.h5ad --out {tmp_path}/e"
    done = runner.invoke(cli, args.split(), catch_exceptions=False)
    assert done.exit_code == 0
    scores = pd.read_csv(tmp_path / "e" / "scores.csv").set_index(["model", "metric"])["value"]
    share = (worlds["train"]["x"].obs["tissue"] == "Liver").mean()
    truth = (worlds["outside"]["x"].obs["tissue"] == "Liver").to_numpy()
    expected = -np.log(np.where(truth, share, 1 - share)).mean()
    assert scores["prior", "log_loss"] == pytest.approx(expected)
    assert scores["linear", "accuracy"] > 0.9
    x = worlds["outside"]["x"]
    one = x[(x.obs["donor"] == x.obs["donor"].iloc[0]).to_numpy()]
    predictor, rivals = load_predictor(tmp_path / "m"), load_rivals(tmp_path / "m")
    result = evaluate_outside(predictor, rivals, one, min_coverage=0.8)
    assert [a.name for a in result.alarms] == ["one_donor"]
    units = result.comparisons.set_index("test")["n_independent"]
    assert units["paired_t"].eq(len(one)).all() and "clustered_t" not in units


def test_own_genes_serve_new_samples_in_any_order(model: Path, worlds: dict[str, Pair]) -> None:
    predictor = load_predictor(model / "m")
    x = worlds["outside"]["x"]
    turned = x[:, ::-1].copy()
    found, expected = predictor.predict(turned).X, predictor.predict(x).X
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    plain = fit_predictor(
        worlds["train"]["x"], config=FitConfig(head=QUICK, group="none"), y=worlds["train"]["y"]
    )
    error = [((p - worlds["outside"]["y"].X) ** 2).mean() for p in (expected, plain.predict(x).X)]
    assert error[0] < error[1]


def test_intervals_hold_what_they_say(model: Path, worlds: dict[str, Pair]) -> None:
    predictor = load_predictor(model / "m")
    found = predictor.predict(worlds["outside"]["x"], interval=0.9)
    inside = np.abs(found.X - worlds["outside"]["y"].X) <= found.var["half_width"].to_numpy()
    assert inside.mean() == pytest.approx(0.9, abs=0.04)
    with pytest.raises(InputError, match="found too few"):
        predictor.predict(worlds["outside"]["x"], interval=0.99)
    with pytest.raises(InputError, match=r"expected one of 0\.5"):
        predictor.predict(worlds["outside"]["x"], interval=0.85)


def test_intervals_before_the_logarithm_hold_the_same_samples(
    model: Path, worlds: dict[str, Pair]
) -> None:
    predictor, x = load_predictor(model / "m"), worlds["outside"]["x"]
    logged = predictor.predict(x, interval=0.9)
    plain = predictor.predict(x, interval=0.9, linear=True)
    assert "half_width" not in plain.var
    factor = plain.var["factor"].to_numpy()
    truth = np.exp2(worlds["outside"]["y"].X.astype(float)) - 1
    assert (truth > 0).mean() > 0.5  # levels below 0 are none of this scale
    low, high = (plain.X + 1) / factor - 1, (plain.X + 1) * factor - 1
    held = (np.maximum(low, 0) <= np.maximum(truth, 0)) & (truth <= high)
    assert held.mean() == pytest.approx(0.9, abs=0.04)
    near = np.abs(logged.X - worlds["outside"]["y"].X) <= logged.var["half_width"].to_numpy()
    positive = worlds["outside"]["y"].X > 0
    assert (held == near)[positive].mean() > 0.999


def test_conformal_coverage_over_many_draws() -> None:
    """Marginal coverage lies in [level, level + 1 / (n + 1)], whatever the law of the errors."""
    rng = np.random.default_rng(0)
    n, draws = 39, 4000
    errors = rng.standard_t(2, size=(n + 1, draws))
    widths = half_widths(np.zeros((n, draws)), errors[:n])
    for level, width in zip(LEVELS, widths, strict=True):
        if level > n / (n + 1):
            assert np.isnan(width).all()
            continue
        covered = (np.abs(errors[n]) <= width).mean()
        slack = 4 * np.sqrt(level * (1 - level) / draws)
        assert level - slack <= covered <= level + 1 / (n + 1) + slack


def test_gaps_go_through_fit_and_evaluate(
    worlds: dict[str, Pair], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The linear row has them at the means of the labelled rows, as scikit-learn's imputer has."""
    X, Y = {}, {name: np.asarray(pair["y"].X) for name, pair in worlds.items()}
    for name, pair in worlds.items():
        x = pair["x"].copy()
        x.X[np.random.default_rng(5).random(x.shape) < 0.1] = np.nan
        X[name] = np.asarray(x.X)
        x.write_h5ad(tmp_path / f"{name}_x.h5ad")
        pair["y"].write_h5ad(tmp_path / f"{name}_y.h5ad")
    at = f"--x {tmp_path}/train_x.h5ad --y {tmp_path}/train_y.h5ad --out {tmp_path}/m"
    done = CliRunner().invoke(cli, f"fit {at} --group none --head-epochs 5".split())
    assert done.exit_code == 0
    assert f"{np.isnan(X['train']).sum():,} levels are missing" in done.stderr
    done = outside(tmp_path, "--y", f"{tmp_path}/outside_y.h5ad", "--out", f"{tmp_path}/e")
    assert done.exit_code == 0
    losses = pd.read_csv(tmp_path / "e" / "losses.csv", index_col="sample")
    imputer = SimpleImputer().fit(X["train"])
    whole, new = (imputer.transform(X[name]).astype(np.float32) for name in ("train", "outside"))
    levels = Targets("regression", Y["train"], tuple(worlds["train"]["y"].var_names))
    predicted = fit_rivals(whole, levels).predict(new)
    expected = ((predicted - Y["outside"]) ** 2).mean(axis=1)
    np.testing.assert_allclose(losses["linear"], expected, rtol=1e-2)
