import json
import shutil

import numpy as np
import pandas as pd
import pytest

from m1pipe.cli.main import run
from m1pipe.errors import Alarm
from m1pipe.evaluation.fold_results import Plan, Share
from m1pipe.workflow.crossval_shares import share_folder, write_plan, write_share

LEVELS = {"mean": 1.0, "ridge": 0.5, "vae": 0.7}
MARKS = {"config": "a", "data": "b", "folds": "c"}


def make_share(plan, fold):
    tested = plan.tested(0, fold)
    rng = np.random.default_rng(fold)
    losses = {m: v + 0.01 * rng.normal(size=(1, len(tested))) for m, v in LEVELS.items()}
    scores = pd.DataFrame(
        [
            {"model": m, "seed": 0, "repeat": 0, "fold": fold, "metric": "mse", "value": v.mean()}
            for m, v in losses.items()
        ]
    )
    alarms = {"vae": [Alarm("collapsed", "warning", "2 units of vae carry nothing.")]}
    return Share(0, fold, plan.samples[tested], losses, scores, alarms, {})


@pytest.fixture
def folder(tmp_path):
    """A cross-validation run as an array of three jobs, not gathered yet."""
    plan = Plan(
        samples=np.array([f"s{i}" for i in range(30)]),
        folds=(np.arange(30) % 3)[None],
        groups=None,
        ladder=tuple(LEVELS),
        encoders=("vae",),
        rival="ridge",
        alarms=[],
        info={
            "kind": "regression",
            "metric": "mse",
            "linear_rival": "ridge",
            "encoders": {"vae": {"n_latent": 2, "beta": 1.0, "mode": "frozen", "runs": []}},
        },
    )
    cv = tmp_path / "cv"
    write_plan(cv / "shares", plan, MARKS)
    for fold in range(3):
        write_share(cv / "shares", make_share(plan, fold), MARKS)
    (cv / "provenance.json").write_text('{"m1pipe": "0.1.0", "command": "m1pipe crossval"}')
    (cv / "config.json").write_text('{"crossval": {"folds": 3, "seed": 0}}')
    return cv


def test_gathers_the_folds_and_says_the_answer_and_who_won(folder, capsys):
    assert run(["report", str(folder)]) == 0
    shown = capsys.readouterr()
    answer, losses = shown.out.splitlines()
    assert answer.startswith("No: ") and "is worse than ridge (+" in answer
    assert losses.startswith(f"{folder / 'report.html'}: mse ridge 0.")
    assert "warning: 2 units of vae carry nothing (in 3 of 3 folds)." in shown.err
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["models"]["ridge"]["mse"] == pytest.approx(0.5, abs=0.01)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "2 units of vae carry nothing (in 3 of 3 folds)." in page
    assert "the one trained vae encoder is worse than ridge (+" in page


def test_a_second_call_writes_the_same(folder):
    assert run(["report", str(folder)]) == 0
    files = [path for path in folder.iterdir() if path.is_file() and path.suffix != ".h5"]
    first = {path.name: path.read_bytes() for path in files}
    assert run(["report", str(folder)]) == 0
    assert {path.name: path.read_bytes() for path in files} == first


def test_the_tables_are_enough_where_the_shares_are_cleared_away(folder):
    assert run(["report", str(folder)]) == 0
    page = (folder / "report.html").read_bytes()
    shutil.rmtree(folder / "shares")
    (folder / "report.html").unlink()
    assert run(["report", str(folder)]) == 0
    assert (folder / "report.html").read_bytes() == page


def test_a_missing_fold_is_named(folder, capsys):
    shutil.rmtree(share_folder(folder / "shares", 0, 1))
    assert run(["report", str(folder)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "repeat 0 fold 1" in error
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("content", [None, "notes.txt"])
def test_what_is_no_cross_validation_is_refused(tmp_path, capsys, content):
    cv = tmp_path / "cv"
    if content:
        cv.mkdir()
        (cv / content).write_text("hello")
    assert run(["report", str(cv)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("m1pipe: error:")
    assert error.count("\n") == 1
    assert str(cv) in error


def test_help_has_an_example(capsys):
    assert run(["report", "--help"]) == 0
    assert "m1pipe report runs/cv" in capsys.readouterr().out
