import html
import json
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from m1pipe import train_encoder
from m1pipe.cli.main import run as command
from m1pipe.config import EncoderConfig, ModelConfig, TrainingConfig
from m1pipe.data.units import Units
from m1pipe.io.writer import write_matrix
from m1pipe.workflow.declared_plan import _decided, _question, read_declaration

pytestmark = pytest.mark.usefixtures("figures_undrawn")

TINY = EncoderConfig(
    model=ModelConfig(n_latent=2, hidden=(4,)), training=TrainingConfig(epochs=2, kl_warmup=0.0)
)


def write(path: Path, X: np.ndarray, column: str) -> None:
    write_matrix(
        path,
        X.astype(np.float32),
        obs=pd.DataFrame(index=[f"s{i}" for i in range(len(X))]),
        var=pd.DataFrame(index=[f"{column}{j}" for j in range(X.shape[1])]),
        units=Units("log2_tpm1"),
        force=True,
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Genes of two factors, levels that these decide, and a run that holds the factors."""
    folder = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(60, 2))
    X = 5 + Z @ rng.normal(size=(2, 8)) + 0.1 * rng.normal(size=(60, 8))
    write(folder / "x.h5ad", X, "g")
    write(folder / "y.h5ad", 5 + Z + 0.2 * rng.normal(size=(60, 2)), "t")
    train_encoder(folder / "x.h5ad", TINY).save(folder / "vae")
    return folder


@pytest.fixture
def study(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies of these in the working directory."""
    shutil.copytree(sources, tmp_path / "study")
    monkeypatch.chdir(tmp_path / "study")
    return tmp_path / "study"


WHAT = ["-q", "crossval", "--x", "x.h5ad", "--y", "y.h5ad", "--encoder", "vae=vae"]
HOW = ["--models", "ridge", "--folds", "3", "--head-hidden", "4", "--head-epochs", "2"]
PLAN = ["-q", "crossval", "--plan", "plan.toml"]


def declare(*more: str) -> dict[str, Any]:
    out = [] if "--out" in more else ["--out", "runs/cv"]
    assert command([*WHAT, *HOW, *out, "--declare", "plan.toml", *more]) == 0
    return tomllib.loads(Path("plan.toml").read_text(encoding="utf-8"))


def said(folder: str = "runs/cv") -> Mapping[str, Any]:
    summary = json.loads(Path(folder, "summary.json").read_text())
    text: dict[str, Any] = summary["info"]["declared"]
    page = html.unescape(Path(folder, "report.html").read_text(encoding="utf-8"))
    assert page.index(text["text"]) < page.index('class="headline')
    return text


def test_a_plan_says_what_will_be_compared_and_nothing_is_fitted(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = declare("--rope", "0.05")
    assert capsys.readouterr().out == (
        f"plan.toml: declared, digest {plan['digest'][:12]}; a win: vae against mean, ridge (mse)\n"
    )
    assert not Path("runs").exists()
    assert command([*WHAT, *HOW, "--seed", "1", "--out", "runs/b", "--declare", "b.toml"]) == 0
    assert "others of the same data are there: plan.toml of 20" in capsys.readouterr().out
    Path("runs/old").mkdir(parents=True)  # a damaged neighbour is no obstacle
    Path("runs/old/config.json").write_text("{")
    Path("runs/old/provenance.json").write_text("{")
    assert declare("--force", "--rope", "0.05")["declared"]["earlier"][0].startswith("b.toml of 20")
    assert plan["claim"]["family"] == [["vae", "mean"], ["vae", "ridge"]]
    assert plan["claim"]["win"] == {"vae": ["mean", "ridge"]}
    assert [plan["claim"][n] for n in ("metric", "test", "adjustment", "level", "rope")] == [
        *("mse", "nadeau_bengio", "holm", 0.05, 0.05)
    ]
    assert plan["design"]["models"] == ["mean", "ridge", "vae"]
    assert plan["design"]["samples"] == 60 and plan["crossval"]["folds"] == 3
    assert set(plan["inputs"]) == {"x", "y", "vae 1", "vae 1 model", "vae 1 pca"}
    assert plan["declared"]["earlier"] == []
    assert command([*WHAT, *HOW, "--out", "runs/cv", "--declare", "plan.toml"]) == 1
    assert "plan.toml exists already" in capsys.readouterr().err


def test_a_declared_win_is_what_the_plan_says(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = declare("--win", "vae:mean")
    capsys.readouterr()
    assert command(PLAN) == 0
    first = capsys.readouterr().out.splitlines()[0]
    result = said()
    assert (result["status"], result["win"], result["departures"]) == ("declared", True, [])
    assert first == result["text"]
    assert first.startswith("Declared on 20") and " UTC, before the fit (plan " in first
    assert first.endswith(f"(plan {plan['digest'][:12]}). Declared win (vae against mean): yes.")
    methods = f"were declared on {result['on']}, before the fit (plan {plan['digest'][:12]})."
    assert methods in Path("runs/cv/report.html").read_text(encoding="utf-8")
    table = pd.read_csv("runs/cv/comparisons.csv")
    row = table[(table["test"] == "nadeau_bengio") & (table["model_a"] == "vae")]
    row = row.set_index("model_b").loc["mean"]
    loss = json.loads(Path("runs/cv/summary.json").read_text())["models"]["mean"]["mse"]
    assert row["p_holm"] < 0.05 and row["ci_high"] < -0.01 * loss  # the rule of the plan
    assert command(["-q", "report", "runs/cv"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == first
    assert command([*WHAT, *HOW, "--out", "runs/cv"]) == 0  # the same run goes on by its plan
    assert said()["win"]


def test_departures_are_named_and_end_the_claim(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declare("--win", "vae:mean")
    two = ["--encoder", "vae=vae", "--encoder", "more=vae"]
    assert command([*PLAN, "--folds", "2", "--out", "runs/two", *two]) == 0
    result = said("runs/two")
    assert (result["status"], result["win"]) == ("departed", False)
    assert result["departures"] == [
        "crossval.folds: 3 declared, 2 run",
        "encoders.more: None declared, ['run 1'] run",
    ]
    assert "before the fit, which departed from it: crossval.folds" in result["text"]
    assert result["text"].endswith("Declared win (vae against mean): no.")
    shutil.copy("x.h5ad", "moved.h5ad")
    options = ["--x", "moved.h5ad", "--memory", "2G", "--device", "cpu", "--out", "runs/moved"]
    assert command([*PLAN, *options]) == 0
    result = said("runs/moved")
    assert result["status"] == "declared" and result["win"]
    assert [text.split(" of ")[0] for text in result["beside"]] == ["runs/two"]


def test_what_stands_for_files_tells_kinds_parts_and_seeds_apart() -> None:
    def decided(x: str, *items: str, inputs: str) -> Any:
        stored = {"x": x, "encoders": {"vae": list(items)}, "crossval": {}}
        return _decided(stored, ["x", *inputs.split(",")])

    runs = decided("x.h5ad", "a", "b", inputs="vae 1,vae 2")
    assert runs == decided("moved.h5ad", "c", "d", inputs="vae 1,vae 2")
    settings = decided("x.h5ad", "fold:a", "fold:b", inputs="vae 1 settings,vae 2 settings")
    twice = decided("x.h5ad", "fold:a", "fold:a", inputs="vae 1 settings,vae 2 settings")
    raw = decided("x.h5ad#raw", "a", "b", inputs="vae 1,vae 2")
    preset = decided("x.h5ad", "fold:default", "fold:default", inputs="")
    different = [runs, settings, twice, raw, preset]
    assert all(a != b for i, a in enumerate(different) for b in different[:i])


def test_changed_inputs_and_changed_plans_are_refused(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = declare()
    shutil.copy("y.h5ad", "kept.h5ad")
    write(study / "y.h5ad", np.random.default_rng(1).normal(size=(60, 2)) + 4, "t")
    assert command(PLAN) == 1
    line = capsys.readouterr().err
    digest = plan["inputs"]["y"]["sha256"][:12]
    assert f"y.h5ad: expected the input y as it was declared, SHA-256 {digest}; found " in line
    assert "put the file back, or declare another plan" in line and not Path("runs/cv").exists()
    text = Path("plan.toml").read_text()
    Path("plan.toml").write_text(text.replace("level = 0.05", "level = 0.5"))
    assert command(PLAN) == 1
    assert f"expected the plan as it was declared, digest {plan['digest'][:12]}; found" in (
        capsys.readouterr().err
    )
    Path("plan.toml").write_text(text)
    shutil.copy("kept.h5ad", "y.h5ad")
    (study / "vae" / "pca.safetensors").write_bytes(b"another")
    assert command(PLAN) == 1
    assert "pca.safetensors: expected the input vae 1 pca as it was decl" in capsys.readouterr().err
    Path("plan.toml").write_text('x = "x.h5ad"\n')
    assert command(PLAN) == 1
    assert "expected a plan written by m1pipe crossval --declare" in capsys.readouterr().err


def test_what_is_declared_after_results_is_exploratory(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command([*WHAT, *HOW, "--out", "runs/first"]) == 0
    assert "Exploratory: no plan was declared" in Path("runs/first/report.html").read_text()
    capsys.readouterr()
    plan = declare("--win", "vae:mean")
    line = capsys.readouterr().out
    assert "won by it, since others of the same data are there: runs/first of 20" in line
    assert len(plan["declared"]["earlier"]) == 1
    assert command(PLAN) == 0
    result = said()
    assert (result["status"], result["win"]) == ("late", False)
    assert ", after others of the same data: runs/first of 20" in result["text"]
    assert command([*PLAN, "--out", "runs/first"]) == 1  # folds that were run without the plan
    assert "holds a cross-validation of other plan" in capsys.readouterr().err


def test_earlier_results_beside_the_result_and_plans_of_any_name_are_found(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command([*WHAT, *HOW, "--out", "../elsewhere/deep/first"]) == 0
    file = Path("../elsewhere/deep/first/provenance.json")
    known = json.loads(file.read_text())
    file.write_text(json.dumps({**known, "started": "2020" + known["started"][4:]}))
    plan = declare("--win", "vae:mean", "--win", "vae:ridge,mean")
    assert plan["declared"]["earlier"] == []  # it lies where nobody looks
    assert plan["claim"]["win"] == {"vae": ["mean", "ridge"]}
    assert command([*PLAN, "--out", "../elsewhere/deep/cv"]) == 0
    result = said("../elsewhere/deep/cv")
    assert (result["status"], result["win"]) == ("late", False)
    assert "deep/first of 20" in result["text"]
    for name in ("p1", "p2"):
        Path(name).mkdir()
        more = ["--out", "runs/cv", "--declare", f"{name}/declared.toml"]
        assert command([*WHAT, *HOW, *more]) == 0
    there = tomllib.loads(Path("p2/declared.toml").read_text())["declared"]["earlier"]
    assert {text.split(" of ")[0] for text in there} == {"p1/declared.toml", "plan.toml"}


def test_a_label_is_the_same_with_its_kind() -> None:
    asked = [_question({}, {"label": name}) for name in ("tissue", "tissue:class", "donor")]
    assert asked[0] == asked[1] != asked[2]


def test_the_folds_of_an_array_are_run_by_the_plan(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declare("--win", "vae:mean")
    for fold in range(3):
        assert command([*PLAN, "--fold", str(fold)]) == 0
    assert command(["-q", "report", "runs/cv"]) == 0
    assert said()["win"]
    copy = Path("runs/cv/declared.toml")
    copy.write_text(copy.read_text().replace("vae = ", "other = "))
    capsys.readouterr()
    assert command(["-q", "report", "runs/cv"]) == 1
    assert "declared.toml: expected the plan as it was declared" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        (["--win", "vae:raw"], 2, "expected MODEL:RIVALS of the family, vae:mean,ridge; found"),
        (["--plan", "plan.toml"], 2, "give one of them"),
        (["--declare", "plan.txt"], 2, "expected a name that ends in .toml; found plan.txt"),
        (["--rope", "2"], 2, "expected a number in [0, 1]; found 2.0"),
    ],
)
def test_what_cannot_be_declared(
    study: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, line: str
) -> None:
    out = ["--declare", "plan.toml", "--out", "cv"]
    assert command([*WHAT, *HOW, *out, *options]) == code
    assert line in capsys.readouterr().err
    assert command([*WHAT[:-2], *HOW, *out]) == 1
    assert "found no encoder, so that nothing could be won" in capsys.readouterr().err
    assert command([*WHAT, *HOW, "--win", "vae:mean", "--out", "cv"]) == 2
    assert command([*WHAT, *HOW]) == 2
    assert "Missing option '--out'" in capsys.readouterr().err
    assert not Path("plan.toml").exists() and not Path("cv").exists()


def test_settings_of_encoders_in_the_folds_are_inputs(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("tiny.toml").write_text("n_latent = 2\nhidden = [4]\nepochs = 2\n")
    plan = declare("--encoder", "own=fold:tiny.toml", "--encoder", "pre=fold:default")
    assert plan["inputs"]["own 1 settings"]["file"] == "tiny.toml"
    assert "pre 1 settings" not in plan["inputs"]
    assert read_declaration("plan.toml")["encoders"]["pre"] == ["fold:default"]
    Path("tiny.toml").write_text("n_latent = 3\nhidden = [4]\nepochs = 2\n")
    assert command(PLAN) == 1
    assert "tiny.toml: expected the input own 1 settings as it was" in capsys.readouterr().err
