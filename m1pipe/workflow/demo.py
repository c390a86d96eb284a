"""What `m1pipe demo` does: the whole job on simulated data, where it pays and where it does not."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from m1pipe.atomic import below, clear, make_folder, refuse_folder, write_text
from m1pipe.config import CrossvalConfig, EncoderConfig, HeadConfig
from m1pipe.console import log
from m1pipe.data.simulation.counts import FILES as CELL_FILES
from m1pipe.data.simulation.counts import CountsConfig, simulate_counts
from m1pipe.data.simulation.expression import FILES, ExpressionConfig, simulate_expression
from m1pipe.data.simulation.m1 import M1_FILES, SIZES, simulate_m1
from m1pipe.evaluation.result import CrossvalResult
from m1pipe.io.conversion.config import ConvertConfig
from m1pipe.io.conversion.convert import convert
from m1pipe.reports.page import ALPHA
from m1pipe.reports.verdicts import headline_rows
from m1pipe.settings import build
from m1pipe.synthesis.config import GenerateConfig, QualityConfig
from m1pipe.synthesis.generate import run_generate
from m1pipe.workflow.crossval_inputs import CrossvalRun
from m1pipe.workflow.crossval_run import OWN_FILES as CROSSVAL_FILES
from m1pipe.workflow.crossval_run import run_crossval
from m1pipe.workflow.quality_run import OWN_FILES as QUALITY_FILES
from m1pipe.workflow.quality_run import run_quality
from m1pipe.workflow.run_folder import OWN_FILES as RUN_FILES
from m1pipe.workflow.training_run import RESULTS, run_training, summary_line

MARK = "README.txt"
README = "Made by `m1pipe demo` on simulated data: safe to delete.\n"
N_SEEDS, FEW, DRAWS = 2, 20, 5
EPOCHS = 20
CELLS = {"tiny": (600, 160, 500), "small": (2000, 600, 500), "medium": (4000, 1000, 1000)}
SHOWN = {"tiny": (150, 40), "small": (300, 200), "medium": (500, 200)}  # samples a file, genes
RUNS = ("cells[0-9]", "vae", "generator")
LOGS = ("unlabelled.h5ad", "labelled.h5ad")
OWN_FILES = (
    *(MARK, "synthetic.h5ad", *below("data/tissues", M1_FILES), *below("data/clusters", FILES)),
    *below("data/cells", (*CELL_FILES, *LOGS)),
    *(name for run in RUNS for name in below(f"runs/{run}", (*RUN_FILES, *RESULTS))),
    *(name for run in ("cell_types", "isoforms") for name in below(f"runs/{run}", CROSSVAL_FILES)),
    *below("runs/quality", QUALITY_FILES),
)
CELL_MODELS = ("prior", "logistic", "pca_linear", "vae_linear")
ISOFORM_MODELS = ("mean", "stratum_mean", "ridge", "pca_linear", "raw", "vae_linear")


@dataclass(frozen=True)
class Demo:
    """What the demo found, and where.

    Attributes
    ----------
    verdict : str
        One sentence: where the encoders pay, and where not.
    cell_types, isoforms, quality : Path
        Of the report of each comparison, and of the synthetic samples.
    """

    verdict: str
    cell_types: Path
    isoforms: Path
    quality: Path


def run_demo(
    out: str | os.PathLike[str],
    *,
    size: str = "small",
    seed: int = 0,
    epochs: int = EPOCHS,
    force: bool = False,
) -> Demo:
    """Types of cells from few labels, isoforms of tissues from many; synthetic samples, scored.

    Parameters
    ----------
    out : path
        Folder to make.
    size : str
        One of the simulator's sizes.
    seed : int
        Of the simulation; the encoders' seeds count up from it.
    epochs : int
        Of each encoder.
    force : bool
        Replace an earlier demo, and nothing else.

    Returns
    -------
    Demo

    Raises
    ------
    InputError
        If `out` exists and is not an earlier demo that `force` allows to replace.
    """
    out = _make_room(Path(out), force=force)
    log.info("[1/3] types of cells from %d labels, encoders of other donors", FEW)
    few = _cell_types(out, *CELLS[size], seed=seed, epochs=epochs)
    log.info("[2/3] isoform levels of tissues from many labelled samples (%s)", size)
    many = _isoforms(out, size, seed=seed, epochs=epochs)
    log.info("[3/3] synthetic samples of a conditional model, against held-out ones")
    quality = _show_synthetic(out, *SHOWN[size], seed=seed, epochs=epochs)
    cell_types, isoforms = (
        out / "runs" / run / "report.html" for run in ("cell_types", "isoforms")
    )
    return Demo(_verdict(few, many), cell_types, isoforms, quality)


def _cell_types(
    out: Path, n_unlabelled: int, n_labelled: int, n_genes: int, *, seed: int, epochs: int
) -> CrossvalResult:
    """Encoders of cells without labels; types of other donors' cells from few labels, and all."""
    data, runs = out / "data" / "cells", out / "runs"
    cells = CountsConfig(
        n_training=n_unlabelled, n_held_out=n_labelled, n_genes=n_genes, n_donors=12, seed=seed
    )
    simulate_counts(data, cells)
    logs = ConvertConfig(normalize="total", target_sum=1e4, log2p1=True)
    for source, target in zip(("training.h5ad", "held_out.h5ad"), LOGS, strict=True):
        convert(data / source, data / target, logs)
    encoders = []
    for i in range(1, N_SEEDS + 1):
        encoder = build(EncoderConfig, {"epochs": epochs}, {"seed": seed + i})
        _train(data / "unlabelled.h5ad", runs / f"cells{i}", encoder)
        encoders.append(str(runs / f"cells{i}"))
    run = CrossvalRun(
        x=str(data / "labelled.h5ad"), label="cell_type", encoders={"vae": tuple(encoders)}
    )
    config = CrossvalConfig(
        folds=4, models=CELL_MODELS, train_sizes=(FEW,), draws=DRAWS, seed=seed, head=_head()
    )
    return _compare(run, config, runs / "cell_types")


def _isoforms(out: Path, size: str, *, seed: int, epochs: int) -> CrossvalResult:
    """One encoder of many samples; isoform levels of others, whose genes say much by themselves."""
    data, runs = out / "data" / "tissues", out / "runs"
    simulate_m1(data, size, seed)
    settings = {"epochs": epochs, "n_latent": min(32, SIZES[size].n_genes // 4)}
    _train(data / "unlabelled.h5ad", runs / "vae", build(EncoderConfig, settings, {"seed": seed}))
    run = CrossvalRun(
        x=str(data / "genes.h5ad"),
        y=str(data / "isoforms.h5ad"),
        encoders={"vae": (str(runs / "vae"),)},
    )
    config = CrossvalConfig(stratify="tissue", seed=seed, models=ISOFORM_MODELS, head=_head())
    return _compare(run, config, runs / "isoforms")


def _head() -> HeadConfig:
    return HeadConfig(hidden=(64,), epochs=20, networks=1)  # small: a demo takes a minute


def _compare(run: CrossvalRun, config: CrossvalConfig, folder: Path) -> CrossvalResult:
    result = run_crossval(run, config, folder)
    assert result is not None  # all folds are run here
    return result


def _verdict(few: CrossvalResult, many: CrossvalResult) -> str:
    """One sentence of the encoders beside the linear models on the genes."""
    losses = few.curve[(few.curve["n_train"] == FEW) & (few.curve["metric"] == few.metric)]
    by_model = losses.groupby("model")["value"].mean().to_dict()
    tests = few.curve_tests[few.curve_tests["n_train"] == FEW]
    first = _clause("log loss", by_model, "logistic", tests, "p")
    tests = headline_rows(many).query("model_a == 'vae'")
    means = {name: float(loss.mean()) for name, loss in many.losses.items()}
    second = _clause("squared error", means, "ridge", tests, "p_holm")
    n_many = len(many.samples) * (many.n_folds - 1) // many.n_folds
    (pays, with_few), (does, with_many) = first, second
    joined = "but" if pays == "pays" != does else "and"
    return f"M1 {pays} with {FEW} labels ({with_few}), {joined} {does} with {n_many} ({with_many})."


def _clause(
    loss: str, losses: Mapping[Any, float], rival: str, tests: pd.DataFrame, p: str
) -> tuple[str, str]:
    """Whether it pays, and the numbers that say so."""
    test = tests.set_index("model_b").to_dict("index")[rival]
    if test[p] < ALPHA:
        pays = "pays" if test["difference"] < 0 else "does not pay"
    else:
        pays = "is not shown to pay"
    return pays, f"{loss} {losses['vae']:.2g}, genes {losses[rival]:.2g}"


def _show_synthetic(out: Path, n_samples: int, n_genes: int, *, seed: int, epochs: int) -> Path:
    """Simulate clusters, train a conditional model, generate, score; where the page is."""
    data, run, made = out / "data" / "clusters", out / "runs" / "generator", out / "synthetic.h5ad"
    simulated = ExpressionConfig(
        layout="clusters", n_training=n_samples, n_held_out=n_samples, n_genes=n_genes, seed=seed
    )
    simulate_expression(data, simulated)
    settings = {"condition": "class", "transform": "normal_score", "epochs": epochs}
    config = build(EncoderConfig, {"n_latent": min(16, n_genes // 4), **settings}, {"seed": seed})
    _train(data / "training.h5ad", run, config)
    log.info("%s", run_generate(run, made, GenerateConfig(n=n_samples, seed=seed)))
    scored = QualityConfig(label="class", n_draws=1, n_resamples=20, n_seeds=1, seed=seed)
    files = (data / "training.h5ad", made, data / "held_out.h5ad")
    _, line = run_quality(*files, out / "runs" / "quality", scored)
    log.info("%s", line)
    return out / "runs" / "quality" / "quality.html"


def _train(data: Path, folder: Path, config: EncoderConfig) -> None:
    encoder = run_training(data, folder, config)
    log.info("%s", summary_line(folder, encoder))


def _make_room(out: Path, *, force: bool) -> Path:
    """Make the folder, clearing an earlier demo if that is allowed."""
    mark = out / MARK
    made = mark.is_file() and mark.read_text(encoding="utf-8", errors="replace") == README
    out = refuse_folder(out, OWN_FILES if made else (), what="an earlier demo", force=force)
    clear(out, OWN_FILES)
    make_folder(out)
    write_text(out / MARK, README)
    return out
