import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from m1pipe import train_encoder
from m1pipe.cli.main import run
from m1pipe.config import CrossvalConfig, EncoderConfig, HeadConfig, ModelConfig, TrainingConfig
from m1pipe.data.units import Units
from m1pipe.io.writer import write_matrix

TINY = EncoderConfig(
    model=ModelConfig(n_latent=2, hidden=(4,)), training=TrainingConfig(epochs=2, kl_warmup=0.0)
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """x.h5ad with labels, y.h5ad and a run, in the working directory."""
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(42, 6)) + 4).astype(np.float32)
    obs = pd.DataFrame(
        {
            "status": np.where(X[:, 0] > 4, "ill", "well"),
            "centre": np.where(np.arange(42) % 3, "one", "two"),
            "alone": "all",
        },
        index=[f"s{i}" for i in range(42)],
    )
    for name, values, column in (("x", X, "g"), ("y", X[:, :3] * 2, "t")):
        var = pd.DataFrame(index=[f"{column}{j}" for j in range(values.shape[1])])
        write_matrix(tmp_path / f"{name}.h5ad", values, obs=obs, var=var, units=Units("log2_tpm1"))
    train_encoder(tmp_path / "x.h5ad", TINY).save(tmp_path / "vae")
    (tmp_path / "tiny.toml").write_text("n_latent = 2\nhidden = [4]\nepochs = 2\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


LEVELS = ["crossval", "--x", "x.h5ad", "--y", "y.h5ad", "--folds", "2", "--out", "cv"]
LABEL = ["crossval", "--x", "x.h5ad", "--label", "status", "--folds", "2", "--out", "cv"]
QUICK = ["--head-hidden", "4", "--head-epochs", "2"]


def test_labels_of_other_studies(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(1)
    X = (rng.normal(size=(60, 6)) + 4).astype(np.float32)
    obs = pd.DataFrame({"state": np.where(X[:, 0] > 4, "ill", "well")})
    obs.index = pd.Index([f"o{i}" for i in range(60)])
    var = pd.DataFrame(index=[f"g{j}" for j in range(6)])
    write_matrix(folder / "other.h5ad", X, obs=obs, var=var, units=Units("log2_tpm1"))
    sources = ["--source", "other.h5ad", "--source-label", "state"]
    assert run([*LABEL, *QUICK, "--encoder", "vae=vae", *sources, "--models", "logistic"]) == 0
    assert "classes matched by name: ill " in capsys.readouterr().err
    models = ["--models", "logistic,transfer_logistic,vae_transfer"]
    assert run([*LABEL, *QUICK, "--encoder", "vae=vae", *sources, *models, "--force"]) == 0
    page = (folder / "cv" / "report.html").read_text()
    assert "by their samples or their labels?" in page
    assert "their labels" in page and "both together" in page
    assert "target labels, target genes, other samples, other labels" in page
    assert run(["crossval", "--config", "cv/config.json", "--out", "again"]) == 0
    summaries = [json.loads((folder / f / "summary.json").read_text()) for f in ("cv", "again")]
    assert summaries[0]["models"] == summaries[1]["models"]
    assert run([*LABEL, *sources[:3], "status", "--force"]) == 1
    assert "label: expected a column of obs (state); found 'status'" in capsys.readouterr().err


def test_levels_with_a_frozen_encoder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*LEVELS, *QUICK, "--encoder", "vae=vae"]) == 0
    shown = capsys.readouterr()
    *answers, losses = shown.out.splitlines()
    answer, beside = " ".join(answers).replace("   ", " ").split(". Best with an encoder: ")
    assert answer.startswith("Undecided: ") and "ridge (more than 10 times its loss)" in answer
    assert beside.endswith("%), the best on PCA.")
    assert losses.startswith("cv/report.html: mse ")
    lines = [line for line in shown.err.splitlines() if line.startswith("fold ")]
    assert [line.partition(": ")[0] for line in lines] == [f"fold {k}/2" for k in (1, 2)]
    assert all(re.search(r": mse .+ \(best of 8 models; mean .+\), \d+\.\d s$", x) for x in lines)
    assert "42 trained it" in shown.err or "trained it" in shown.err
    summary = json.loads((folder / "cv" / "summary.json").read_text())
    assert list(summary["models"]) == [
        *("mean", "ridge", "pca_linear", "raw", "pca"),
        *("vae_linear", "vae_ridge", "vae"),
    ]
    assert run(["report", "cv"]) == 0


def test_a_label_with_encoders_trained_in_the_fold(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    item = "vae=fold:tiny.toml,fold:tiny.toml"
    assert run([*LABEL, *QUICK, "--encoder", item, "--models", "logistic"]) == 0
    assert "prior" in capsys.readouterr().out
    summary = json.loads((folder / "cv" / "summary.json").read_text())
    assert list(summary["models"]) == ["prior", "logistic", "vae"]
    assert [r["seed"] for r in summary["info"]["encoders"]["vae"]["runs"]] == [0, 1, 0, 1]


def test_a_job_array_and_its_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for fold in ("0", "1"):
        assert run([*LEVELS, "--models", "ridge", "--fold", fold]) == 0
        assert capsys.readouterr().out == f"cv: fold {fold} done\n"
        assert (run(["report", "cv"]) == 0) == (fold == "1")
        capsys.readouterr()
    assert (folder / "cv" / "report.html").exists()


def test_dry_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*LEVELS, "--encoder", "vae=vae", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "42 samples x 6 genes, 3 targets; 2 folds x 1 repeat" in shown
    assert "memory: about" in shown
    assert not (folder / "cv").exists()


def test_the_config_of_a_result_repeats_it_and_typed_options_win(folder: Path) -> None:
    assert run([*LEVELS, *QUICK, "--models", "ridge", "--seed", "7"]) == 0
    assert run(["crossval", "--config", "cv/config.json", "--out", "again"]) == 0
    for name in ("scores.csv", "folds.csv", "comparisons.csv"):
        assert (folder / "again" / name).read_bytes() == (folder / "cv" / name).read_bytes()
    assert run(["crossval", "--config", "cv/config.json", "--out", "more", "--folds", "3"]) == 0
    assert json.loads((folder / "more" / "config.json").read_text())["crossval"]["folds"] == 3


def test_defaults_come_from_the_configuration(folder: Path) -> None:
    assert run([*LABEL[:-4], "--out", "cv", "--fold", "0", "--models", "logistic"]) == 0
    stored = json.loads((folder / "cv" / "config.json").read_text())["crossval"]
    assert stored["head"]["hidden"] == list(HeadConfig().hidden)
    assert stored["folds"] == CrossvalConfig().folds


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--label", "nothing"], 1, "label: expected a column of obs (status, centre, alone)"),
        (["--label", "alone"], 1, "expected at least two classes in 'alone'"),
        (["--label", "status", "--folds", "30"], 1, "lower --folds"),
        (["--label", "status", "--y", "y.h5ad"], 2, "expected one of --y, --label"),
        (["--label", "status", "--encoder", "raw=vae"], 1, "no other model's"),
        (["--label", "status", "--encoder", "vae"], 2, "expected NAME=RUN"),
        (["--label", "status", "--encoder", "v=nowhere"], 1, "expected a trained model"),
        (["--label", "status", "--encoder", "v=fold:nowhere"], 1, "found none of these"),
        (["--label", "status", "--models", "ridge"], 1, "expected some of prior, logistic"),
        (["--label", "status", "--stratify", "no"], 1, "stratify: expected a column of obs"),
        (["--label", "status", "--repeat", "1"], 2, "give --fold as well"),
        (["--label", "status", "--fold", "5"], 1, "found --fold 5"),
        (["--label", "status", "--head-hidden", "many"], 2, "expected widths"),
        (["--y", "nowhere.h5ad"], 1, "nowhere.h5ad"),
        (["--y", "y.h5ad", "--targets", "t0,zz"], 1, "found zz"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    said: str,
) -> None:
    assert run(["crossval", "--x", "x.h5ad", "--out", "cv", *options]) == code
    shown = capsys.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""
    assert not (folder / "cv").exists()


def test_x_may_not_be_missing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["crossval", "--label", "status", "--out", "cv"]) == 2
    assert "--x" in capsys.readouterr().err


def test_a_name_is_given_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*LEVELS, "--encoder", "vae=vae", "--encoder", "vae=vae"]) == 2
    assert "vae is named twice" in capsys.readouterr().err


def test_levels_are_not_predicted_from_themselves(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "copy.h5ad").write_bytes((folder / "x.h5ad").read_bytes())
    for y in ("x.h5ad", "copy.h5ad"):
        assert run(["crossval", "--x", "x.h5ad", "--y", y, "--out", "same"]) == 1
        assert "y: expected other values than X's; found those of" in capsys.readouterr().err
    assert not (folder / "same").exists()
    assert run(["crossval", "--x", "x.h5ad", "--out", "same"]) == 2
    assert "expected one of --y, --label and --multilabel" in capsys.readouterr().err
