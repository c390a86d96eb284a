"""`model.md` says what config.json, provenance.json and the summary say, in words."""

import hashlib
import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest

from m1pipe.cli.main import run as run_command
from m1pipe.config import EncoderConfig
from m1pipe.console import log
from m1pipe.encoder import Encoder, load_encoder
from m1pipe.settings import build
from m1pipe.workflow.model_card import model_card
from m1pipe.workflow.training_run import run_training

Make = Callable[..., anndata.AnnData]
TINY = {"n_latent": 3, "hidden": [8], "epochs": 2, "lr": 0.002}


@pytest.fixture(scope="module")
def run(expression: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    expression(100, 20).write_h5ad(folder / "u.h5ad")
    run_training(folder / "u.h5ad", folder / "vae 1", build(EncoderConfig, TINY))
    return folder / "vae 1"


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    yield
    log.handlers.clear()


def _card(encoder: Encoder) -> str:
    return model_card(encoder, "runs/vae", {})


def test_the_card_of_a_run_says_what_its_files_say(run: Path) -> None:
    card = (run / "model.md").read_text(encoding="utf-8")
    summary = json.loads((run / "model.json").read_text())["summary"]
    digest = hashlib.sha256((run.parent / "u.h5ad").read_bytes()).hexdigest()
    assert f"`u.h5ad`, SHA-256 `{digest}`" in card
    assert f"| samples | {summary['n_rows']} trained on, {summary['n_validation']} that" in card
    assert "| units | log2_normalized1, of samples scaled to a total of 10,000 |" in card
    assert f"| {summary['r2']:.3f} (PCA of the same width {summary['pca_r2']:.3f}) |" in card
    assert f"| active units | {summary['active_units']} of 3 |" in card
    assert f"{sum(summary['kl_per_unit']):.1f} nats a sample" in card
    assert f"{max(map(abs, summary['depth_r'])):.2f} in size" in card
    assert "or raw counts, which are converted" in card
    assert [line for line in card.splitlines() if line.startswith("## ")] == [
        "## Data", "## Training", "## Latent health", "## Intended use and limits",
        "## How to use it",
    ]  # fmt: skip
    assert len(card.splitlines()) < 80


def test_settings_that_differ_from_the_defaults_are_listed_and_no_others(run: Path) -> None:
    lines = (run / "model.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("| setting | default | here |") + 2
    table = [line.split(" | ") for line in lines[start : lines.index("", start)]]
    here = {row[0].strip("| `"): row[2].strip("| ") for row in table}
    assert here["lr"] == "0.002"
    assert here["n_latent"] == "3"
    assert here["hidden"] == "8"
    assert "batch_size" not in here
    config, default = json.loads((run / "config.json").read_text()), EncoderConfig()
    differing = {
        name
        for part in ("model", "training")
        for name, value in config[part].items()
        if (tuple(value) if isinstance(value, list) else value)
        != getattr(getattr(default, part), name)
    }
    assert set(here) == differing - {"seed"}


def test_the_lines_of_use_run(
    run: Path, expression: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (run / "model.md").read_text(encoding="utf-8")
    usage = [shlex.split(line) for line in card.split("## How to use it")[1].splitlines() if line]
    assert len(usage) == 3
    new = expression(60, 20, seed=5)
    new.write_h5ad(tmp_path / "new.h5ad")
    new.write_h5ad(tmp_path / "x.h5ad")
    monkeypatch.chdir(tmp_path)
    assert run_command(usage[0][1:]) == 0
    fit = ["tissue" if word == "LABEL" else word for word in usage[1][1:]]
    assert run_command([*fit, "--head-epochs", "2"]) == 0
    assert usage[2][:2] == ["python", "-c"]
    found: dict[str, np.ndarray] = {}
    exec(usage[2][2], found)
    assert found["Z"].shape == (60, 3)


def test_what_speaks_against_a_model_is_said(run: Path) -> None:
    encoder = load_encoder(run)
    good = {**encoder.summary, "r2": 0.6, "pca_r2": 0.5, "depth_r": [0.1, -0.2, 0.0]}
    assert "Caution" not in _card(replace(encoder, summary=good))
    bad = {**good, "r2": 0.4, "active_units": 0, "depth_r": [0.1, -0.8, 0.0]}
    card = _card(replace(encoder, summary=bad))
    assert card.count("**Caution.**") == 3
    assert "PCA of the same width reconstructs better" in card
    assert "A unit follows" in card


def test_a_plain_autoencoder_and_a_conditional_model_say_so(
    expression: Make, tmp_path: Path
) -> None:
    expression(100, 20).write_h5ad(tmp_path / "u.h5ad")
    run_training(tmp_path / "u.h5ad", tmp_path / "ae", build(EncoderConfig, TINY, {"beta": 0.0}))
    card = (tmp_path / "ae" / "model.md").read_text(encoding="utf-8")
    assert "plain autoencoder" in card
    assert "a sample has no likelihood" in card
    assert "| KL |" not in card
    condition = build(EncoderConfig, TINY, {"condition": "tissue"})
    run_training(tmp_path / "u.h5ad", tmp_path / "cvae", condition)
    card = (tmp_path / "cvae" / "model.md").read_text(encoding="utf-8")
    assert "| classes | Brain (" in card
    assert "A column `tissue` with one of the classes" in card
