"""The model card of a final head says what is in its folder, and its lines of use run."""

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest

from m1pipe.cli.main import run as run_command
from m1pipe.config import EncoderConfig
from m1pipe.console import log
from m1pipe.encoder import load_encoder, train_encoder
from m1pipe.predictor import load_predictor
from m1pipe.settings import build

Make = Callable[..., anndata.AnnData]
FAST = ["--head-epochs", "4"]


@pytest.fixture(scope="module")
def folder(expression: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder, labelled and new samples, and levels to predict."""
    folder = tmp_path_factory.mktemp("head card")
    labelled = expression(90, 20, seed=1)
    labelled.write_h5ad(folder / "x.h5ad")
    levels = labelled[:, :5].copy()
    levels.var_names = [f"T{j}" for j in range(5)]
    levels.write_h5ad(folder / "y.h5ad")
    expression(30, 20, seed=2).write_h5ad(folder / "new.h5ad")
    config = build(EncoderConfig, {"n_latent": 3, "hidden": [8], "epochs": 3})
    train_encoder(expression(150, 20), config).save(folder / "vae")
    return folder


@pytest.fixture(autouse=True)
def _here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(folder)
    yield
    log.handlers.clear()


def _card(out: str, *more: str) -> str:
    assert run_command(["fit", "--x", "x.h5ad", *more, *FAST, "--out", out, "--force"]) == 0
    return Path(out, "model.md").read_text(encoding="utf-8")


def test_a_head_for_levels_on_an_encoder() -> None:
    card = _card("levels", "--y", "y.h5ad", "--encoder", "vae", "--conformal", "0.3")
    summary, predictor = load_encoder("vae").summary, load_predictor("levels")
    known = json.loads(Path("levels", "provenance.json").read_text(encoding="utf-8"))["inputs"]
    assert card.startswith("# Model card: levels\n")
    assert "predicts 5 targets from 3 latents" in card
    assert set(known) == {"x", "y", "encoder"}
    assert all(f"SHA-256 `{file['sha256']}`" in card for file in known.values())
    assert f"held-out R2 {summary['r2']:.3f}" in card and "| samples | 90 (`samples.csv`) |" in card
    loss = predictor.head.chosen["inner_loss"]
    assert f"| loss on held-out samples | {loss:.3f} (share of the variance) |" in card
    assert "| head | ridge" in card
    assert "| predicted | T0, T1, T2, ... |" in card
    assert "from 30% of the samples" in card and "Its intervals hold for" in card
    assert "no other classes" not in card


def test_a_head_for_classes_on_genes() -> None:
    card = _card("classes", "--label", "tissue", "--seed", "7")
    assert "predicts 2 classes from the genes" in card and "| predicted | Brain, Liver |" in card
    assert "| seed | 7 |" in card and "(nats, with half a missed sample)" in card
    assert "units of the predictions" not in card and "features" not in card
    assert "It knows no other classes" in card and "intervals" not in card


@pytest.mark.parametrize("kind", ["levels", "classes"])
def test_the_lines_of_use_run(kind: str) -> None:
    asked = {"levels": ["--y", "y.h5ad"], "classes": ["--label", "tissue"]}
    card = _card(f"my {kind}", *asked[kind])
    usage = [shlex.split(line) for line in card.split("## How to use it")[1].splitlines() if line]
    assert [line[:2] for line in usage] == [["m1pipe", "predict"], ["m1pipe", "evaluate"]]
    for line in usage:
        assert run_command([*line[1:], "--force"]) == 0
    assert np.isfinite(anndata.read_h5ad("predictions.h5ad").X).all()
