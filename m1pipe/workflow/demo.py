"""What `m1pipe demo` does: the whole job on simulated data, as a user would run it."""

import os
from pathlib import Path

from m1pipe.atomic import below, clear, make_folder, refuse_folder, write_text
from m1pipe.config import CrossvalConfig, EncoderConfig, HeadConfig
from m1pipe.console import log
from m1pipe.data.simulation.expression import FILES, ExpressionConfig, simulate_expression
from m1pipe.data.simulation.m1 import M1_FILES, SIZES, simulate_m1
from m1pipe.settings import build
from m1pipe.synthesis.config import GenerateConfig, QualityConfig
from m1pipe.synthesis.generate import run_generate
from m1pipe.workflow.crossval_run import OWN_FILES as CROSSVAL_FILES
from m1pipe.workflow.crossval_run import CrossvalRun, run_crossval
from m1pipe.workflow.quality_run import OWN_FILES as QUALITY_FILES
from m1pipe.workflow.quality_run import run_quality
from m1pipe.workflow.run_folder import OWN_FILES as RUN_FILES
from m1pipe.workflow.training_run import RESULTS, run_training, summary_line

MARK = "README.txt"
README = "Made by `m1pipe demo` on simulated data: safe to delete.\n"
N_SEEDS = 2
SHOWN = {"tiny": (150, 40), "small": (500, 200), "medium": (500, 200)}  # samples a file, genes
RUNS = ("vae[0-9]", "ae", "generator")
OWN_FILES = (
    *(MARK, "synthetic.h5ad", *below("data", M1_FILES), *below("data/clusters", FILES)),
    *(name for run in RUNS for name in below(f"runs/{run}", (*RUN_FILES, *RESULTS))),
    *below("runs/cv", CROSSVAL_FILES),
    *below("runs/quality", QUALITY_FILES),
)
ROWS = ("mean", "stratum_mean", "ridge", "pca_linear", "raw", "pca", "vae_linear")


def run_demo(
    out: str | os.PathLike[str],
    *,
    size: str = "small",
    seed: int = 0,
    epochs: int | None = None,
    force: bool = False,
) -> tuple[Path, Path]:
    """Simulate, train encoders of several seeds, cross-validate, report; generate, and score that.

    Parameters
    ----------
    out : path
        Folder to make.
    size : str
        One of the simulator's sizes.
    seed : int
        Of the simulation; the encoders' seeds count up from it.
    epochs : int, optional
        Of each encoder; None: the default rule.
    force : bool
        Replace an earlier demo, and nothing else.

    Returns
    -------
    report, quality : Path
        Of report.html and quality.html.

    Raises
    ------
    InputError
        If `out` exists and is not an earlier demo that `force` allows to replace.
    """
    out = _make_room(Path(out), force=force)
    log.info("[1/5] simulating (%s): %s", size, out / "data")
    simulate_m1(out / "data", size, seed)
    data, runs = out / "data", out / "runs"
    unlabelled = data / "unlabelled.h5ad"
    settings = {"epochs": epochs, "n_latent": min(32, SIZES[size].n_genes // 4)}
    log.info("[2/5] training %d variational autoencoders of different seeds", N_SEEDS)
    vaes = []
    for i in range(1, N_SEEDS + 1):
        _train(unlabelled, runs / f"vae{i}", build(EncoderConfig, settings, {"seed": seed + i}))
        vaes.append(str(runs / f"vae{i}"))
    log.info("[3/5] training a plain autoencoder (beta 0)")
    _train(unlabelled, runs / "ae", build(EncoderConfig, settings, {"seed": seed + 1, "beta": 0.0}))
    log.info("[4/5] cross-validation: isoform levels from genes and from latents")
    run = CrossvalRun(
        x=str(data / "genes.h5ad"),
        y=str(data / "isoforms.h5ad"),
        encoders={"vae": tuple(vaes), "ae": (str(runs / "ae"),)},
    )
    head = HeadConfig(hidden=(64,), epochs=30, networks=1)  # a demo takes two minutes
    config = CrossvalConfig(stratify="tissue", seed=seed, models=ROWS, head=head)
    run_crossval(run, config, runs / "cv")
    log.info("[5/5] synthetic samples of a conditional model, against held-out ones")
    page = _show_synthetic(out, *SHOWN[size], seed=seed, epochs=epochs)
    return runs / "cv" / "report.html", page


def _show_synthetic(
    out: Path, n_samples: int, n_genes: int, *, seed: int, epochs: int | None
) -> Path:
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
    scored = QualityConfig(label="class", n_draws=1, n_resamples=20, n_seeds=2, seed=seed)
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
