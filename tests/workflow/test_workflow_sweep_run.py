"""A sweep keeps the best encoder, trains nothing twice, and compares fold by fold."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import m1pipe.sweep.trials
from m1pipe import load_encoder
from m1pipe.atomic import write_json
from m1pipe.cli.main import run
from m1pipe.data.simulation.expression import ExpressionConfig, simulate_expression
from m1pipe.figures.model import history as curves
from m1pipe.workflow.sweep_folder import keep_if_best, read_records

pytestmark = pytest.mark.usefixtures("figures_undrawn")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs_sweep")
    simulate_expression(folder / "sim", ExpressionConfig(n_training=80, n_held_out=8, n_genes=20))
    return folder / "sim/training.h5ad"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Latent size of every encoder that is trained."""
    sizes: list[int] = []
    train = m1pipe.sweep.trials.train_encoder

    def spy(data: object, config: object, **more: object) -> object:
        sizes.append(config.model.n_latent)  # type: ignore[attr-defined]
        return train(data, config, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(m1pipe.sweep.trials, "train_encoder", spy)
    return sizes


def _run(*arguments: object) -> int:
    return run(["-q", "sweep", *map(str, arguments)])


def test_every_trial_is_trained_once_and_a_finished_sweep_not_at_all(
    data: Path, tmp_path: Path, trained: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s"
    arguments = [data, "--out", out, "--neurons", "1,4,2", "--beta", 0, "--epochs", 2]
    assert _run(*arguments) == 0
    assert trained == [1, 4, 2]
    first = capsys.readouterr().out
    best = json.loads((out / "sweep.json").read_text())["best"]
    assert [p.name for p in sorted((out / "trials").iterdir())] == [
        "0001.json", "0002.json", "0003.json",
    ]  # fmt: skip
    assert load_encoder(out / "best").n_latent == best["settings"]["n_latent"]
    history = json.loads((out / "trials/0002.json").read_text())["history"]
    assert history["epoch"] == [1, 2] and None not in history["val_loss"]
    assert "history" not in best and "history" not in pd.read_csv(out / "sweep.csv")
    names = [text.get_text() for text in curves([out]).axes[2].get_legend().get_texts()]
    assert names == [
        "1: hidden [], n_latent 1",
        "2: hidden [], n_latent 4",
        "3: hidden [], n_latent 2",
    ]
    card = (out / "best/model.md").read_text()
    assert card.startswith("# Model card: best") and "SHA-256" in card
    weights = (out / "best/model.safetensors").read_bytes()
    trained.clear()
    assert _run(*arguments) == 0
    assert trained == [] and capsys.readouterr().out == first
    assert (out / "best/model.safetensors").read_bytes() == weights


def test_weights_that_are_lost_are_trained_anew(
    data: Path, tmp_path: Path, trained: list[int]
) -> None:
    out = tmp_path / "s"
    arguments = [data, "--out", out, "--neurons", "1,4", "--beta", 0, "--epochs", 2]
    assert _run(*arguments) == 0
    weights = (out / "best/model.safetensors").read_bytes()
    best = json.loads((out / "sweep.json").read_text())["best"]["settings"]["n_latent"]
    shutil.rmtree(out / "best")
    trained.clear()
    assert _run(*arguments) == 0
    assert trained == [best]
    assert (out / "best/model.safetensors").read_bytes() == weights


def test_a_sweep_that_ends_at_its_last_step_trains_nothing_anew(
    data: Path, tmp_path: Path, trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "s"
    arguments = [data, "--out", out, "--neurons", "1,4", "--beta", 0, "--epochs", 2]
    with monkeypatch.context() as patch:
        patch.setattr("m1pipe.workflow.sweep_run.unexplained", None)  # settled, not measured
        assert _run(*arguments) == 70
    assert (out / "best/model.json").is_file() and not (out / "sweep.json").exists()
    trained.clear()
    assert _run(*arguments) == 0 and trained == []
    assert [p.name for p in (out / "trials").iterdir() if p.is_dir()] == []


def test_trials_in_any_order_keep_the_best(data: Path, tmp_path: Path, trained: list[int]) -> None:
    out = tmp_path / "s"
    arguments = [data, "--out", out, "--neurons", "1,4,2", "--beta", 0, "--epochs", 2]
    for number in (2, 1, 3):
        assert _run(*arguments, "--trial", number) == 0
    kept = [p.name for p in (out / "trials").iterdir() if p.is_dir()]
    scores = pd.Series(
        {p.stem: json.loads(p.read_text())["unexplained"] for p in (out / "trials").glob("*.json")}
    )
    assert kept == [scores.idxmin()]
    trained.clear()
    assert _run(*arguments) == 0 and trained == []


def test_every_record_is_read_once_and_those_of_other_tasks_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    text = Path.read_text

    def spy(path: Path, **more: str) -> str:
        read.append(path.name)
        return text(path, **more)

    monkeypatch.setattr(Path, "read_text", spy)
    for number in range(1, 9):
        keep_if_best(tmp_path, {"trial": number, "unexplained": 1 / number}, None)
    write_json(tmp_path / "0009.json", {"trial": 9, "unexplained": 0.01})  # by another task
    keep_if_best(tmp_path, {"trial": 10, "unexplained": 0.5}, None)
    assert [r["trial"] for r in read_records(tmp_path)] == list(range(1, 11))
    assert sorted(read) == sorted(f"{n:04d}.json" for n in range(1, 11))
    write_json(tmp_path / "0003.json", {"trial": 3, "unexplained": 0.7})  # a sweep made anew
    assert read_records(tmp_path)[2]["unexplained"] == 0.7


def test_trials_in_one_pass_find_what_they_find_alone(
    data: Path, tmp_path: Path, trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "space.toml").write_text("lr = [1e-3, 4e-3]\nn_latent = [2, 3]\n")
    sizes: list[int] = []
    together = m1pipe.sweep.trials.train_together

    def spy(plans: list[object]) -> object:
        sizes.append(len(plans))
        return together(plans)  # type: ignore[arg-type]

    monkeypatch.setattr(m1pipe.sweep.trials, "train_together", spy)
    arguments = ["--space", tmp_path / "space.toml", "--trials", 7, "--epochs", 3]
    tables = []
    for most in (1, 3):
        out = tmp_path / f"s{most}"
        assert _run(data, "--out", out, *arguments, "--together", most) == 0
        tables.append(pd.read_csv(out / "sweep.csv"))
    alone, joint = tables
    widths = alone["n_latent"].tolist()
    assert len(trained) == 7 + widths.count(2) % 3 % 2 + widths.count(3) % 3 % 2
    assert sum(sizes) + len(trained) - 7 == 7 and max(sizes) == 3
    assert joint["trial"].tolist() == alone["trial"].tolist()
    for name in ("unexplained", "val_loss"):
        assert joint[name].to_numpy() == pytest.approx(alone[name].to_numpy(), rel=1e-3)


def test_folds_leave_tables_and_go_on(
    data: Path, tmp_path: Path, trained: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "f"
    arguments = [data, "--out", out, "--folds", 2, "--neurons", "1,3", "--epochs", 2]
    assert _run(*arguments, "--trial", 3) == 0 and trained == [3]
    assert _run(*arguments) == 0
    assert sorted(trained) == [1] * 4 + [3] * 4
    best, tests = capsys.readouterr().out.splitlines()[-2:]
    assert "highest R2 of the test folds" in best and " of 8 tests: network ahead of PCA" in tests
    assert {p.name for p in out.iterdir()} == {
        "comparisons.csv", "config.json", "contrasts.csv.gz", "genes.csv.gz", "provenance.json",
        "summary.csv", "sweep.csv", "sweep.json", "sweep.png", "trials",
    }  # fmt: skip
    table, summary = pd.read_csv(out / "sweep.csv"), pd.read_csv(out / "summary.csv")
    assert len(table) == 2 * 2 * 4 and len(summary) == 2 * 4
    assert set(table["model"]) == {"ae", "vae", "pca", "pca_fold"}
    assert len(pd.read_csv(out / "contrasts.csv.gz")) == 80 * 2 * 4
    assert len(pd.read_csv(out / "genes.csv.gz")) == 20 * 2 * 4
    axes = curves([out]).axes
    names = [text.get_text() for text in axes[2].get_legend().get_texts()]
    assert names == [f"n_latent {n}, beta {b}" for n in (1, 3) for b in ("0.0", "1.0")]
    record = json.loads((out / "trials/0005.json").read_text())
    assert (record["fold"], record["settings"]) == (1, {"n_latent": 1, "beta": 0.0})
    drawn = axes[0].get_lines()[0].get_xydata()
    np.testing.assert_array_equal(drawn[3:5, 0], record["history"]["epoch"])
    np.testing.assert_array_equal(drawn[3:5, 1], record["history"]["val_loss"])
    assert np.isnan(drawn[2]).all()
    before = (out / "comparisons.csv").read_bytes()
    trained.clear()
    assert _run(*arguments) == 0 and trained == []
    assert (out / "comparisons.csv").read_bytes() == before


def test_what_folds_do_not_take_is_said(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "space.toml").write_text("lr = [1e-3]\n")
    more = ["--folds", 2, "--neurons", 1, "--space", tmp_path / "space.toml"]
    assert _run(data, "--out", tmp_path / "s", *more) == 1
    assert "expected --neurons alone; found --space" in capsys.readouterr().err
