"""A tree of data and runs that is moved still finds what its commands open again."""

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from m1pipe.cli.main import run
from m1pipe.data.simulation.expression import ExpressionConfig, simulate_expression
from m1pipe.provenance import (
    describe_input,
    make_provenance,
    recorded_paths,
    seen_from,
    training_files,
)
from m1pipe.reports.page import shown_path

pytestmark = pytest.mark.usefixtures("figures_undrawn")

GENERATE = ["generate", "runs/vae", "-n", "5", "--out", "s.h5ad"]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """data/, runs/vae and a sweep, made in one place and moved to another, which is entered."""
    here, there = tmp_path / "here", tmp_path / "far/away"
    simulate_expression(here / "data", ExpressionConfig(n_training=80, n_held_out=30, n_genes=60))
    monkeypatch.chdir(here)
    train = ["train", "data/training.h5ad", "--out", "runs/vae", "--latent", "2", "--epochs", "2"]
    assert run(["-q", *train]) == 0
    assert run(["-q", *_SWEEP]) == 0
    shutil.copytree(here, there)  # the files look new: their contents must tell
    shutil.rmtree(here)
    monkeypatch.chdir(there)
    return there


_SWEEP = ["sweep", "data/training.h5ad", "--neurons", "1,2", "--epochs", "2", "--out", "sw"]


def test_commands_find_the_training_data_of_a_moved_run(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["-q", *GENERATE]) == 0
    assert run(["-q", "generate", "sw/best", "-n", "5", "--out", "s2.h5ad"]) == 0
    assert run(["-q", "score", "runs/vae", "data/held_out.h5ad", "--out", "score.h5ad"]) == 0
    (known,) = training_files("runs/vae")
    assert known == tree / "data/training.h5ad"
    capsys.readouterr()
    again = ["train", "data/training.h5ad", "--out", "runs/vae", "--latent", "2", "--epochs", "2"]
    assert run([*again, "--resume"]) == 0
    assert "finished already" in capsys.readouterr().err
    trials = {p.name: p.stat().st_mtime_ns for p in (tree / "sw/trials").iterdir()}
    assert run(["-q", *_SWEEP]) == 0
    assert {p.name: p.stat().st_mtime_ns for p in (tree / "sw/trials").iterdir()} == trials


def test_crossval_and_evaluate_go_on_in_a_moved_tree(tree: Path) -> None:
    matrix = anndata.read_h5ad("data/held_out.h5ad")
    up = np.where(np.asarray(matrix.X)[:, 0] > np.median(np.asarray(matrix.X)[:, 0]), "up", "down")
    matrix.obs["side"] = pd.Categorical(up)
    matrix.write_h5ad("x.h5ad")
    compare = ["crossval", "--x", "x.h5ad", "--label", "side", "--encoder", "vae=runs/vae"]
    design = ["--folds", "2", "--models", "prior,logistic", "--head-epochs", "2"]
    at = ["--fold", "0", "--repeat", "0"]
    assert run(["-q", *compare, *design, "--out", "cv", *at]) == 0
    fit = ["fit", "--x", "x.h5ad", "--label", "side", "--encoder", "runs/vae", "--out", "model"]
    assert run(["-q", *fit, "--head-epochs", "2"]) == 0
    nearer = tree.parent / "nearer"
    shutil.move(tree, nearer)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(nearer)
        assert run(["-q", *compare, *design, "--out", "cv"]) == 0
        assert run(["-q", "evaluate", "model", "--x", "x.h5ad", "--out", "e"]) == 0
        assert run(["-q", "report", "cv"]) == 0
        page = Path("cv/report.html").read_text()
        assert "../x.h5ad" in page and "input x" in page
        assert "data/training.h5ad" in page


def test_training_data_that_are_gone_or_changed_are_told_in_one_line(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.move("data/training.h5ad", "kept.h5ad")
    assert run(["-q", *GENERATE]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "found no file data/training.h5ad or " in line and "--data" in line
    shutil.copy("data/held_out.h5ad", "data/training.h5ad")
    assert run(["-q", *GENERATE]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "as they were; found another file" in line
    assert run(["-q", *GENERATE, "--data", "kept.h5ad"]) == 0


def test_only_files_of_the_same_tree_have_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("a/x.h5ad", "b/x.h5ad"):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).write_bytes(b"levels")
    monkeypatch.chdir(tmp_path / "b")
    assert describe_input("x.h5ad", "runs/v")["relative"] == "../../x.h5ad"
    assert "relative" not in describe_input("../a/x.h5ad", "runs/v")
    assert describe_input("../a/x.h5ad", "../a/v")["relative"] == "../x.h5ad"
    assert "relative" not in describe_input("x.h5ad")
    found = make_provenance({"data": "x.h5ad"}, folder="sw")
    best = seen_from(found, "sw/best", "sw")
    assert best["inputs"]["data"]["relative"] == "../../x.h5ad"
    assert found["inputs"]["data"]["relative"] == "../x.h5ad"
    assert shown_path(found["inputs"]["data"]) == "../x.h5ad"
    assert shown_path({"path": "/x.h5ad"}) == "/x.h5ad"


def test_a_run_of_an_earlier_version_is_found_by_its_absolute_path(tmp_path: Path) -> None:
    data = tmp_path / "x.h5ad"
    data.write_bytes(b"levels")
    assert recorded_paths(describe_input(data), tmp_path / "run") == [data]
    (tmp_path / "run").mkdir()
    record = json.dumps({"inputs": {"data": describe_input(data)}})
    (tmp_path / "run/provenance.json").write_text(record)
    assert training_files(str(tmp_path / "run")) == [data]
    assert recorded_paths({}, tmp_path) == []
