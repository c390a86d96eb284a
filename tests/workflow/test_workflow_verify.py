import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
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
from m1pipe.workflow.crossval_shares import read_plan, write_plan
from m1pipe.workflow.declared_plan import declare
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


def test_edited_tests_warnings_and_verdicts_of_a_summary_are_found(
    copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cv = copy("cv")
    monkeypatch.setattr("m1pipe.workflow.verify.run_crossval", _copied(cv))
    result = gathered(cv)
    monkeypatch.setattr("m1pipe.workflow.verify.gathered", lambda folder: result)
    text = (cv / "summary.json").read_text()
    summary = json.loads(text)
    summary["warnings"].append({"name": "copies_seen_by_encoder", "text": "where its data are"})
    (cv / "summary.json").write_text(json.dumps(summary))
    assert verify(cv)[0]
    for path, value, place in (
        (("comparisons", 1, "p"), 2e-9, "(comparisons.1.p), column number: 2e-09 there, 1.33"),
        (("models", "ridge", "mse"), 1.1e-8, "(models.ridge.mse), column number: 1.1e-08 there"),
        (("warnings", 0, "text"), "none", "(warnings.0.text, none), column text: none there"),
        (("info", "equivalence", "rope_share"), 0.5, "(info.equivalence.rope_share), column"),
        (("info", "declared"), {"win": True}, "rows of key, number, text there, "),
    ):
        summary = json.loads(text)
        at = summary
        for name in path[:-1]:
            at = at[name]
        at[path[-1]] = value
        (cv / "summary.json").write_text(json.dumps(summary))
        verified, line = verify(cv)
        assert (
            not verified
            and f"not verified: summary.json, {'' if 'rows' in place else 'row'}" in line
        )
        assert place in line


def test_a_declared_win_is_computed_again(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = CrossvalRun(
        x=str(made / "x.h5ad"), y=str(made / "y.h5ad"), encoders={"vae": (str(made / "vae"),)}
    )
    config = CrossvalConfig(folds=2, models=("ridge",), head=HEAD)
    plan = declare(named, config, "cv", tmp_path / "plan.toml", win=["vae:ridge"])
    monkeypatch.setattr(
        "m1pipe.workflow.crossval_run.write_report",
        lambda result, folder, **_: write_tables(result, folder),
    )
    run_crossval(named, config, cv := tmp_path / "cv", declared=plan)
    monkeypatch.setattr("m1pipe.workflow.verify.run_crossval", _copied(cv))
    result = gathered(cv)
    monkeypatch.setattr("m1pipe.workflow.verify.gathered", lambda folder: result)
    assert verify(cv)[0]
    summary = json.loads((cv / "summary.json").read_text())
    assert not summary["info"]["declared"]["win"]
    summary["info"]["declared"]["win"] = True
    (cv / "summary.json").write_text(json.dumps(summary))
    verified, line = verify(cv)
    assert not verified and "(info.declared.win, True), column text: True there, False" in line
    (cv / "declared.toml").unlink()
    assert not verify(cv)[0]


def test_settings_of_other_shares_are_refused(
    copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cv = copy("cv")
    monkeypatch.setattr("m1pipe.workflow.verify.run_crossval", _copied(cv, config="0" * 64))
    with pytest.raises(
        InputError, match=r"as shares/plan\.json was made with; found other config:"
    ):
        verify(cv)


def test_a_run_is_made_again(copy: Callable[[str], Path]) -> None:
    run = copy("vae")
    assert verify(run) == (True, f"{run}: verified: equal, {_numbers(run)} numbers of 32 tables")
    edit(run / "history.csv", 1, "train_loss", 7.5)
    assert "history.csv, row 2, column train_loss: 7.5 there" in verify(run)[1]
    with pytest.raises(InputError, match="fold: expected a cross-validation; found the run"):
        verify(run, only=(0, 0))


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("transform", "location", 0), "(transform.location.0), column number: 7.5 there"),
        (("recipe", "genes", 0), "(recipe.genes.0), column number: 7.5 there"),
        (("latent_scale", 1), "(latent_scale.1), column number: 7.5 there"),
        (("summary", "r2"), "(summary.r2), column number: 7.5 there"),
        (("summary", "seconds"), ""),
    ],
)
def test_an_edited_model_file_is_found(
    copy: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    path: tuple[str | int, ...],
    place: str,
) -> None:
    run = copy("vae")
    (again := run.with_name("again")).mkdir()
    for name in os.listdir(run):
        shutil.copy(run / name, again / name)
    monkeypatch.setattr(
        "m1pipe.workflow.verify.run_training", lambda data, out, config: shutil.copytree(again, out)
    )
    stored = at = json.loads((run / "model.json").read_text())
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = 7.5
    (run / "model.json").write_text(json.dumps(stored))
    verified, line = verify(run)
    assert verified == (not place) and place in line


def test_files_of_a_training_keep_their_names_when_they_are_moved(
    made: Path, tmp_path: Path
) -> None:
    (tmp_path / "moved").mkdir()
    for i in range(2):
        rows = np.random.default_rng(i).normal(size=(20, 4)) + 4
        write_matrix(
            tmp_path / f"study{i}.h5ad",
            rows.astype(np.float32),
            obs=pd.DataFrame(index=[f"s{i}_{j}" for j in range(20)]),
            var=pd.DataFrame(index=list("abcd")),
            units=Units("log2_tpm1"),
        )
    files = [tmp_path / f"study{i}.h5ad" for i in range(2)]
    batched = replace(TINY, model=replace(TINY.model, batch=("file",)))
    run_training(files, tmp_path / "run", batched)
    for i, file in enumerate(files):
        file.rename(tmp_path / "moved" / f"renamed{1 - i}.h5ad")
    assert verify(tmp_path / "run", search=tmp_path / "moved")[0]


def _copied(cv: Path, **marks: str) -> Callable[..., None]:
    """What stands for a run: the shares of a finished one, with other marks."""
    kept = cv.with_name(f"{cv.name}_kept")
    shutil.copytree(cv, kept)
    if marks:
        plan, known = read_plan(kept / "shares")
        write_plan(kept / "shares", plan, {**known, **marks})

    def run(run: CrossvalRun, config: CrossvalConfig, out: Path, **_: object) -> None:
        shutil.copytree(kept / "shares", out / "shares")
        shutil.copy(kept / "provenance.json", out)

    return run


def _numbers(run: Path) -> str:
    """Numbers of all arrays, of the history but for its seconds, and of the model file."""
    from safetensors.numpy import load_file

    arrays = [*load_file(run / "model.safetensors").values()]
    arrays += load_file(run / "pca.safetensors").values()
    history = pd.read_csv(run / "history.csv").drop(columns="seconds")
    model = json.loads((run / "model.json").read_text())
    facts = [*model["summary"].items(), *model["config"]["model"].items()]
    facts += [*model["transform"].items(), *model["recipe"].items(), ("", model["latent_scale"])]
    values = [np.ravel(value) for name, value in facts if name != "seconds" and value is not None]
    n = sum(v.size for v in values if v.dtype.kind in "if")
    return f"{sum(array.size for array in arrays) + int(history.count().sum()) + n:,}"


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


def test_a_tolerance_is_a_number_up_to_1(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for found in ("nan", "inf", "-1", "2"):
        assert command(["-q", "verify", str(made / "vae"), "--tolerance", found]) != 0
        assert "tolerance" in capsys.readouterr().err
    with pytest.raises(InputError, match="tolerance: expected a number from 0 to 1; found nan"):
        verify(made / "vae", tolerance=float("nan"))


def test_small_numbers_are_compared_as_shares() -> None:
    a = pd.DataFrame({"p": [1e-5, 0.0]})
    assert distance(a, a * (1 + 1e-7), 1e-6)[1] == ""
    assert distance(a, a * 1.1, 1e-6)[1].startswith("row 1, column p: 1e-05 there")
    assert distance(a, a + 1e-12, 1e-6)[1] == ""  # a difference that is nothing but rounding
    assert distance(a, a.assign(p=[1e-5, 1e-9]), 1e-6)[1].startswith("row 2, column p: 0.0 there")
    assert distance(a, a * 1.05, 1e-6, unit=1.0) == (pytest.approx(5e-7), "")
    assert distance(a, a * np.nan, 1.0)[1].startswith("row 1, column p")


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
