"""Trials are compared by validation rows alone, and the folder goes on where it was."""

import json
import re
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from m1pipe import load_encoder
from m1pipe.cli.main import run
from m1pipe.data.simulation.expression import ExpressionConfig, simulate_expression
from m1pipe.errors import InputError
from m1pipe.io.reader import open_matrix
from m1pipe.sweep.config import SweepConfig
from m1pipe.sweep.space import Span, halving_widths, parse_space, planned_settings, suggested
from m1pipe.sweep.trials import best_trial, run_trial, split_rows, unexplained


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    config = ExpressionConfig(n_training=120, n_held_out=8, n_genes=40)
    simulate_expression(folder / "sim", config)
    return folder / "sim/training.h5ad"


@pytest.mark.parametrize("total", [7, 100, 2000])
@pytest.mark.parametrize("n_layers", range(1, 11))
def test_layers_halve_and_sum_to_the_total(n_layers: int, total: int) -> None:
    widths = np.array(halving_widths(n_layers, total))
    assert len(widths) == n_layers and (widths >= 1).all()
    assert abs(widths.sum() - total) <= n_layers
    wide = widths[:-1] >= 50
    assert np.allclose((widths[1:] / widths[:-1])[wide], 0.5, atol=0.02)


def test_planned_trials_do_not_depend_on_each_other() -> None:
    space = {
        "lr": Span(1e-4, 1e-2, log=True),
        "n_latent": Span(2, 9, whole=True),
        "beta": [0.0, 1.0],
    }
    many, few = (
        planned_settings(SweepConfig(neurons=(4,), layers=(2,), total=30, trials=n), space)
        for n in (40, 3)
    )
    assert many[:2] == [{"hidden": (), "n_latent": 4}, {"hidden": (20,), "n_latent": 10}]
    assert many[:5] == few
    drawn = pd.DataFrame(many[2:])
    assert drawn["lr"].between(1e-4, 1e-2).all() and (drawn["lr"] < 1e-3).mean() > 0.25
    assert set(drawn["n_latent"]) == set(range(2, 10)) and set(drawn["beta"]) == {0.0, 1.0}


def test_groups_are_in_one_part() -> None:
    groups = np.repeat([f"g{i}" for i in range(40)], 5)
    split = split_rows(200, SweepConfig(), groups)
    parts = [split.training, split.validation, split.test]
    assert sorted(np.concatenate(parts).tolist()) == list(range(200))
    held = [set(groups[part]) for part in parts]
    assert not held[0] & held[1] and not held[0] & held[2] and not held[1] & held[2]
    assert [part.size for part in parts] == pytest.approx([140, 30, 30], abs=6)


def test_the_measure_is_the_residual_share_by_hand(data: Path) -> None:
    with open_matrix(data) as matrix:
        split = split_rows(matrix.n_samples, SweepConfig(), None)
        settings = {"hidden": (), "n_latent": 3, "beta": 0.0, "epochs": 3}
        encoder, found = run_trial(matrix, {}, settings, split)
        left, linear = unexplained(encoder, matrix, split.validation)
        X = matrix.take(np.arange(matrix.n_samples))
    assert left == pytest.approx(found["unexplained"], rel=1e-4)
    assert linear == pytest.approx(found["pca_unexplained"], rel=1e-4)
    train, held = X[split.training].astype(float), X[split.validation].astype(float)
    Z = (train - train.mean(0)) / train.std(0)
    _, _, components = np.linalg.svd(Z, full_matrices=False)
    H = (held - train.mean(0)) / train.std(0)
    residual = H - H @ components[:3].T @ components[:3]
    assert linear == pytest.approx((residual**2).sum() / (H**2).sum(), rel=1e-3)


def test_test_rows_have_no_say(data: Path) -> None:
    adata = anndata.read_h5ad(data)
    with open_matrix(data) as matrix:
        split = split_rows(matrix.n_samples, SweepConfig(), None)
    spoiled = adata.copy()
    spoiled.X[split.test] = np.random.default_rng(0).gamma(2, 2, spoiled.X[split.test].shape)
    settings = {"hidden": (8,), "n_latent": 3, "beta": 0.0, "epochs": 2}
    found = [run_trial(open_matrix(d), {}, settings, split)[1] for d in (adata, spoiled)]
    for one in found:
        one.pop("seconds")
    assert found[0] == found[1]


def _run(*arguments: object) -> int:
    return run(["-q", "sweep", *map(str, arguments)])


def test_a_folder_is_made_resumed_and_guarded(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s"
    (tmp_path / "space.toml").write_text("lr = {low = 1e-4, high = 1e-2, log = true}\n")
    arguments = [data, "--out", out, "--neurons", "1,4", "--layers", "2", "--total", 12]
    arguments += ["--space", tmp_path / "space.toml", "--trials", 2, "--beta", 0, "--epochs", 2]
    assert _run(*arguments, "--trial", 2) == 0
    assert {p.name for p in (out / "trials").iterdir()} == {"0002", "0002.json"}
    before = (out / "trials/0002.json").read_bytes()
    assert _run(*arguments) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert (out / "trials/0002.json").read_bytes() == before
    assert {p.name for p in out.iterdir()} == {
        "best", "best.json", "config.json", "provenance.json", "sweep.csv", "sweep.json",
        "sweep.png", "trials",
    }  # fmt: skip
    table, result = pd.read_csv(out / "sweep.csv"), json.loads((out / "sweep.json").read_text())
    assert table["trial"].tolist() == [1, 2, 3, 4, 5]
    assert result["best"]["trial"] == table.loc[table["unexplained"].idxmin(), "trial"]
    assert f"trials {result['best']['trial']} is best" in line
    encoder = load_encoder(out / "best")
    with open_matrix(data) as matrix:
        split = split_rows(matrix.n_samples, SweepConfig(), None)
        left, _ = unexplained(encoder, matrix, split.test)
    assert left == pytest.approx(result["test"]["unexplained"], rel=1e-5)
    assert (
        run(
            [
                "-q",
                "train",
                str(data),
                "--config",
                str(out / "best.json"),
                "--dry-run",
                "--out",
                "x",
            ]
        )
        == 0
    )
    assert _run(*arguments[:-1], 3) == 1
    assert "a sweep of other settings or data" in capsys.readouterr().err
    assert _run(*arguments[:-1], 3, "--force") == 0


def test_a_trial_that_fails_is_kept_with_its_reason(data: Path, tmp_path: Path) -> None:
    text = 'likelihood = ["gaussian", "bernoulli"]\ntransform = ["standardize"]\n'
    (tmp_path / "space.toml").write_text(text)
    arguments = [data, "--out", tmp_path / "s", "--space", tmp_path / "space.toml", "--epochs", 1]
    assert _run(*arguments, "--trials", 6) == 0
    table = pd.read_csv(tmp_path / "s/sweep.csv")
    failed = table["likelihood"] == "bernoulli"
    assert 0 < failed.sum() < 6
    assert (
        table.loc[failed, "unexplained"].isna().all() and table.loc[failed, "error"].notna().all()
    )
    assert table.loc[~failed, "error"].isna().all()
    assert json.loads((tmp_path / "s/sweep.json").read_text())["n_failed"] == failed.sum()


def test_optuna_comes_nearer_than_it_began() -> None:
    pytest.importorskip("optuna")
    space = {"lr": Span(1e-4, 1.0, log=True), "hidden": [(), (8,), (16, 8)]}
    done: list[tuple[dict[str, Any], float]] = []
    for _ in range(40):
        settings = suggested(space, SweepConfig(sampler="optuna"), done)
        score = abs(np.log10(settings["lr"]) + 2) + (settings["hidden"] != (8,))
        done.append((settings, score))
    scores = np.array([score for _, score in done])
    assert np.median(scores[-15:]) < 0.6 * np.median(scores[:10])


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"lr": 3}, "lr: expected a list of values, or a table"),
        ({"lr": {"low": 2, "high": 1}}, "lr: expected low <= high"),
        ({"lr": {"low": 0, "high": 1, "log": True}}, "above 0 with log"),
        ({"colour": [1]}, "colour"),
        ({}, "expected settings to search over"),
    ],
)
def test_a_wrong_space_is_said(entry: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=re.escape(reason)):
        parse_space(entry, "space.toml")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"neurons": (0,)}, "neurons: expected numbers of at least 1"),
        ({"trials": 0}, "trials: expected at least 1"),
        ({"sampler": "grid"}, "sampler: expected random or optuna"),
        ({"validation": 0.6, "test": 0.5}, "leave rows to train on"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        SweepConfig(**settings)


def test_nothing_to_try_is_said(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(data, "--out", tmp_path / "s") == 1
    assert "expected --neurons, --layers or --space" in capsys.readouterr().err
    with pytest.raises(InputError, match="expected a trial that ended"):
        best_trial([{"unexplained": None}])
