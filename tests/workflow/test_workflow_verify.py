import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from m1pipe.cli.main import run as command
from m1pipe.config import CrossvalConfig, EncoderConfig, HeadConfig, ModelConfig, TrainingConfig
from m1pipe.data.units import Units
from m1pipe.errors import InputError
from m1pipe.io.writer import write_matrix
from m1pipe.reports.files import write_tables
from m1pipe.workflow.crossval_inputs import CrossvalRun
from m1pipe.workflow.crossval_run import gathered, run_crossval
from m1pipe.workflow.training_run import run_training
from m1pipe.workflow.verify import distance, verify

TINY = EncoderConfig(
    model=ModelConfig(n_latent=2, hidden=(4,)), training=TrainingConfig(epochs=2, kl_warmup=0.0)
)
HEAD = HeadConfig(hidden=(4,), epochs=3)
CONFIG = CrossvalConfig(folds=2, models=("ridge", "raw"), head=HEAD, train_sizes=(8,))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and a cross-validation whose folds were run one by one."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 6)) + 4
    for name, values, column in (("x", X, "g"), ("y", X[:, :3] * 2, "t")):
        write_matrix(
            folder / f"{name}.h5ad",
            values.astype(np.float32),
            obs=pd.DataFrame(index=[f"s{i}" for i in range(40)]),
            var=pd.DataFrame(index=[f"{column}{j}" for j in range(values.shape[1])]),
            units=Units("log2_tpm1"),
        )
    (folder / "tiny.toml").write_text("n_latent = 2\nhidden = [4]\nepochs = 2\n")
    run_training(folder / "x.h5ad", folder / "vae", TINY)
    named = CrossvalRun(
        x=str(folder / "x.h5ad"),
        y=str(folder / "y.h5ad"),
        encoders={"vae": (str(folder / "vae"),), "own": (f"fold:{folder / 'tiny.toml'}",)},
    )
    for fold in range(2):
        run_crossval(named, CONFIG, folder / "cv", only=(0, fold))
    write_tables(gathered(folder / "cv"), folder / "cv")
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Maker of a copy of a result, whose inputs are found by their absolute paths."""
    return lambda name: shutil.copytree(made / name, tmp_path / name)


def edit(path: Path, row: int, column: str, value: object) -> None:
    table = pd.read_csv(path, keep_default_na=False)
    table[column] = table[column].astype(object)
    table.loc[row, column] = value
    table.to_csv(path, index=False)


def test_a_cross_validation_is_made_again(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in (made / "cv").rglob("*") if path.is_file()}
    assert command(["-q", "verify", str(made / "cv")]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{made / 'cv'}: verified: equal") and line.count("\n") == 1
    verified, line = verify(made / "cv", only=(0, 1))
    assert verified and "verified: equal" in line
    assert before == {path: path.read_bytes() for path in before}


def test_an_edited_number_is_found_with_its_place(
    copy: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    cv = copy("cv")
    scores = pd.read_csv(cv / "scores.csv")
    number = 0.625
    edit(cv / "scores.csv", 9, "value", number)
    model, metric = scores.loc[9, "model"], scores.loc[9, "metric"]
    place = f"scores.csv, row 10 ({model}, {metric}), column value: {number} there, "
    assert command(["-q", "verify", str(cv), "--fold", "0"]) == 1
    line = capsys.readouterr().out
    assert line.startswith(f"{cv}: not verified: {place}") and line.count("\n") == 1


def test_an_edited_summary_is_found(copy: Callable[[str], Path]) -> None:
    cv = copy("cv")
    summary = json.loads((cv / "summary.json").read_text())
    summary["models"]["ridge"]["mse"] = 0.5
    (cv / "summary.json").write_text(json.dumps(summary))
    verified, line = verify(cv)
    assert not verified and "summary.json models, row" in line and "column ridge: 0.5 there" in line


def test_a_run_is_made_again(copy: Callable[[str], Path]) -> None:
    run = copy("vae")
    assert verify(run) == (True, f"{run}: verified: equal, {_numbers(run)} numbers of 31 tables")
    edit(run / "history.csv", 1, "train_loss", 7.5)
    assert "history.csv, row 2, column train_loss: 7.5 there" in verify(run)[1]
    with pytest.raises(InputError, match="fold: expected a cross-validation; found the run"):
        verify(run, only=(0, 0))


def _numbers(run: Path) -> str:
    """Numbers of all arrays and of the history, but for its seconds."""
    from safetensors.numpy import load_file

    arrays = [*load_file(run / "model.safetensors").values()]
    arrays += load_file(run / "pca.safetensors").values()
    history = pd.read_csv(run / "history.csv").drop(columns="seconds")
    return f"{sum(array.size for array in arrays) + history.size:,}"


def test_inputs_are_found_by_their_digest_or_named(
    made: Path, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    run = copy("vae")
    known = json.loads((run / "provenance.json").read_text())
    known["inputs"]["data"] |= {"path": str(tmp_path / "gone.h5ad"), "relative": "../gone.h5ad"}
    (run / "provenance.json").write_text(json.dumps(known))
    digest = known["inputs"]["data"]["sha256"][:12]
    with pytest.raises(InputError, match=f"input data as it was, SHA-256 {digest}; found no file"):
        verify(run)
    (tmp_path / "gone.h5ad").write_bytes(b"another")
    with pytest.raises(InputError, match=r"gone\.h5ad with SHA-256 .*: put it back, or"):
        verify(run)
    (tmp_path / "moved" / "deep").mkdir(parents=True)
    shutil.copy(made / "x.h5ad", tmp_path / "moved" / "deep" / "renamed.h5ad")
    assert verify(run, search=tmp_path / "moved")[0]


def test_other_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="expected the folder of m1pipe crossval or m1pipe train"):
        verify(tmp_path)
    with pytest.raises(InputError, match="expected a result; found no such file"):
        verify(tmp_path / "nowhere")


def test_distance_of_tables() -> None:
    a = pd.DataFrame({"model": ["x", "y"], "value": [1.0, np.nan], "n": [2000, 3]})
    assert distance(a, a.copy(), 0.0) == (0.0, "")
    b = a.assign(n=[2001, 3])
    assert distance(a, b, 1e-3) == (pytest.approx(1 / 2001), "")
    assert distance(a, b, 1e-4)[1] == "row 1 (x), column n: 2000 there, 2001 made again"
    assert distance(a, a.assign(value=1.0), 1e-3)[1].startswith("row 2 (y), column value: nan")
    assert (
        distance(a, a.assign(model="x"), 1.0)[1] == "row 2 (y), column model: y there, x made again"
    )
    assert distance(a, a[:1], 1.0)[1].startswith("2 rows of model, value, n there, 1 rows")


@pytest.mark.slow
def test_other_threads_and_processors_give_the_scores_to_1e_4(made: Path, tmp_path: Path) -> None:
    """One thread and two; kernels without AVX, and with AVX2, in processes of their own."""
    config = json.loads((made / "cv" / "config.json").read_text())
    head = {"hidden": [32], "epochs": 5, "networks": 1}
    config["crossval"] |= {"head": head, "train_sizes": []}
    del config["encoders"]["own"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    base = {name: value for name, value in os.environ.items() if name != "ATEN_CPU_CAPABILITY"}
    crossval = [*("-m", "m1pipe", "-q", "crossval", "--config", "config.json", "--out", "cv")]

    def m1pipe(*arguments: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=base | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    m1pipe(*crossval, OMP_NUM_THREADS="1")
    for environment in (
        {"OMP_NUM_THREADS": "2"},
        {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "default"},
        {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "avx2"},
    ):
        line = m1pipe("-m", "m1pipe", "-q", "verify", "cv", **environment)
        assert "cv: verified: equal" in line
