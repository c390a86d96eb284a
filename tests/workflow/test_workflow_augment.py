"""The generator of the command, resumed comparisons, and final heads on more rows."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from m1pipe import load_predictor, train_encoder
from m1pipe.cli.main import run
from m1pipe.config import CrossvalConfig, EncoderConfig, FitConfig, HeadConfig, Sampler
from m1pipe.data.units import Units
from m1pipe.errors import InputError
from m1pipe.evaluation.augment import GeneratorRequest
from m1pipe.evaluation.deploy import fit_predictor
from m1pipe.io.writer import write_matrix
from m1pipe.settings import build
from m1pipe.workflow.augment import train_generator
from m1pipe.workflow.crossval_inputs import CrossvalRun
from m1pipe.workflow.crossval_run import gather, run_crossval

pytestmark = pytest.mark.usefixtures("figures_undrawn")

SIZES = (60, 44, 36)
P = 12
QUICK = CrossvalConfig(
    folds=2, models=("raw",), augment="balance", head=HeadConfig(hidden=(4,), epochs=3)
)


def levels(rng: np.random.Generator, codes: np.ndarray) -> np.ndarray:
    """Log levels of three classes that differ in four genes each."""
    shift = np.kron(np.eye(3), np.full(4, 3.0))[codes]
    return np.maximum(rng.normal(size=(codes.size, P)) + 5 + shift, 0).astype(np.float32)


@pytest.fixture
def x(tmp_path: Path) -> str:
    codes = np.repeat(np.arange(3), SIZES)
    path = tmp_path / "x.h5ad"
    write_matrix(
        path,
        levels(np.random.default_rng(0), codes),
        obs=pd.DataFrame(
            {"kind": np.array(["c", "a", "b"])[codes]}, index=[f"s{i}" for i in range(codes.size)]
        ),
        var=pd.DataFrame(index=[f"g{j}" for j in range(P)]),
        units=Units("log2_tpm1"),
    )
    return str(path)


def test_synthetic_samples_lie_where_their_class_does() -> None:
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(3), (90, 60, 30))
    X = levels(rng, codes)
    request = GeneratorRequest(
        X,
        codes,
        ("c", "a", "b", "unseen"),
        tuple(f"g{j}" for j in range(P)),
        Units("log2_tpm1"),
        np.array([5, 40, 80, 0]),
        seed=3,
        device="cpu",
    )
    made, told = train_generator(request)
    assert made.shape == (125, P)
    np.testing.assert_array_equal(told, np.repeat([0, 1, 2], [5, 40, 80]))
    assert made.min() >= 0
    for k in (1, 2):
        np.testing.assert_allclose(made[told == k].mean(0), X[codes == k].mean(0), atol=0.8)
        assert made[told == k].std(0).mean() > 0.6
    again, _ = train_generator(request)
    np.testing.assert_array_equal(made, again)


def test_shares_and_a_killed_run_give_what_one_run_gives(x: str, tmp_path: Path) -> None:
    named = CrossvalRun(x=x, label="kind")
    whole = run_crossval(named, QUICK, tmp_path / "whole")
    assert whole is not None
    other = replace(QUICK, augment=2.0)
    for fold in (1, 0):
        assert run_crossval(named, QUICK, tmp_path / "parts", only=(0, fold)) is None
        with pytest.raises(InputError, match="of other config"):
            run_crossval(named, other, tmp_path / "parts", only=(0, fold))
    parts = gather(tmp_path / "parts")
    shutil.rmtree(tmp_path / "whole" / "shares" / "r0_f1")
    (tmp_path / "whole" / "summary.json").unlink()
    resumed = run_crossval(named, QUICK, tmp_path / "whole")
    assert resumed is not None
    for row, loss in whole.losses.items():
        np.testing.assert_allclose(parts.losses[row], loss, rtol=1e-6)
        np.testing.assert_allclose(resumed.losses[row], loss, rtol=1e-6)
    assert parts.info["added"] == whole.info["added"] == resumed.info["added"]


def test_crossval_from_the_command_line(
    x: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cv"
    command = ["crossval", "--x", x, "--label", "kind", "--folds", "2", "--models", "logistic,raw"]
    command += ["--head-hidden", "4", "--head-epochs", "3", "--out", str(out)]
    assert run([*command, "--augment", "2"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["models"])[2:] == [
        "raw", "raw_weighted", "raw_bootstrap", "raw_augmented"
    ]  # fmt: skip
    added = [line["classes"] for line in summary["info"]["added"]]
    assert all(fold["c"] > fold["a"] > fold["b"] > 0 for fold in added)
    assert "raw_augmented" in (out / "report.html").read_text()
    capsys.readouterr()
    assert run([*command[:-1], str(tmp_path / "no"), "--augment", "0.5"]) == 2
    assert "augment: expected balance, or a number in (1, 100]" in capsys.readouterr().err


@pytest.mark.parametrize("with_encoder", [True, False])
def test_fit_records_what_was_added(x: str, tmp_path: Path, with_encoder: bool) -> None:
    command = ["fit", "--x", x, "--label", "kind", "--augment", "balance", "--head-epochs", "3"]
    if with_encoder:
        config = build(EncoderConfig, {"n_latent": 3, "hidden": [8], "epochs": 2})
        train_encoder(x, config).save(tmp_path / "vae")
        command += ["--encoder", str(tmp_path / "vae")]
    assert run([*command, "--out", str(tmp_path / "model")]) == 0
    stored = json.loads((tmp_path / "model" / "model.json").read_text())
    sizes = dict(zip("cab", SIZES, strict=True))
    kept = {name: sizes["c"] * 4 // 5 - n for name, n in stored["added"].items()}
    assert kept["c"] == sizes["c"] * 4 // 5  # a fifth of each class chooses settings
    assert all(abs(n - 0.8 * sizes[name]) < 1 for name, n in kept.items())
    assert stored["config"]["augment"] == "balance"
    predictor = load_predictor(tmp_path / "model")
    assert predictor.added == stored["added"]
    assert predictor.predict(x).shape == (140, 3)


def test_fit_refuses_levels_and_a_face_without_a_generator(
    x: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = anndata.read_h5ad(x)
    other.X = other.X[:, ::-1].copy()
    other.write_h5ad(tmp_path / "y.h5ad")
    command = ["fit", "--x", x, "--y", str(tmp_path / "y.h5ad"), "--augment", "balance"]
    command += ["--out", str(tmp_path / "m")]
    assert run(command) == 1
    assert "expected classes to predict (--label); found levels" in capsys.readouterr().err
    with pytest.raises(InputError, match="expected a generator"):
        fit_predictor(x, config=FitConfig(label="kind", augment="balance"))


@pytest.mark.parametrize("sampler", ["gmm", "prior", "posterior"])
@pytest.mark.parametrize("counts", [False, True])
def test_every_sampler_makes_samples_of_their_class(sampler: Sampler, counts: bool) -> None:
    """Of counts whole numbers, whose totals are those of the rows."""
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(3), (90, 60, 30))
    X = levels(rng, codes)
    if counts:
        X = rng.poisson(np.exp2(X) * rng.uniform(0.5, 2, (codes.size, 1))).astype(np.float32)
    units = Units("counts" if counts else "log2_tpm1")
    wanted = np.array([0, 30, 60])
    genes = tuple(f"g{j}" for j in range(P))
    request = GeneratorRequest(X, codes, ("c", "a", "b"), genes, units, wanted, 0, "cpu", sampler)
    made, of = train_generator(request)
    assert np.bincount(of).tolist() == [0, 30, 60] and np.isfinite(made).all()
    scale = np.log2(1 + made) if counts else made
    for k in (1, 2):
        raised = scale[of == k].mean(axis=0).reshape(3, 4).mean(axis=1)
        assert raised.argmax() == k
    if counts:
        np.testing.assert_array_equal(made, np.round(made))
        assert 0.5 < np.median(made.sum(axis=1)) / np.median(X.sum(axis=1)) < 2
    again = train_generator(replace(request, sampler="posterior"))[0]
    assert np.array_equal(again, made) == (sampler == "posterior")


def test_the_sampler_is_said_in_the_methods(x: str, tmp_path: Path) -> None:
    config = replace(QUICK, augment_sampler="prior")
    result = run_crossval(CrossvalRun(x=x, label="kind"), config, tmp_path / "cv")
    assert result is not None and result.info["augment_sampler"] == "prior"
    assert "latents drawn from the prior" in (tmp_path / "cv/report.html").read_text()
    with pytest.raises(InputError, match="augment_sampler: expected one of gmm, prior, posterior"):
        replace(QUICK, augment_sampler="other")
