"""What `m1pipe demo` does: the whole job on simulated data, as a user would run it."""

import os
import shutil
from pathlib import Path

from m1pipe.config import CrossvalConfig, EncoderConfig
from m1pipe.console import log
from m1pipe.data.simulation.m1 import SIZES, simulate_m1
from m1pipe.errors import InputError
from m1pipe.runs.crossval import CrossvalRun, run_crossval
from m1pipe.runs.train import run_training, summary_line
from m1pipe.settings import build

MARK = "README.txt"
README = "Made by `m1pipe demo` on simulated data: safe to delete.\n"
N_SEEDS = 3
ROWS = ("mean", "stratum_mean", "ridge", "pca_ridge", "raw", "pca", "gene", "ridge_gene")


def run_demo(
    out: str | os.PathLike[str],
    *,
    size: str = "small",
    seed: int = 0,
    epochs: int | None = None,
    force: bool = False,
) -> Path:
    """Simulate, train encoders of several seeds, cross-validate, report.

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
    Path
        Of report.html.

    Raises
    ------
    InputError
        If `out` exists and is not an earlier demo that `force` allows to replace.
    """
    out = Path(out)
    _make_room(out, force=force)
    log.info("[1/4] simulating (%s): %s", size, out / "data")
    simulate_m1(out / "data", size, seed)
    data, runs = out / "data", out / "runs"
    settings = {"epochs": epochs, "n_latent": min(32, SIZES[size].n_genes // 4)}
    log.info("[2/4] training %d variational autoencoders of different seeds", N_SEEDS)
    vaes = []
    for i in range(1, N_SEEDS + 1):
        config = build(EncoderConfig, settings, {"seed": seed + i})
        _train(data, runs / f"vae{i}", config)
        vaes.append(str(runs / f"vae{i}"))
    log.info("[3/4] training a plain autoencoder (beta 0)")
    _train(data, runs / "ae", build(EncoderConfig, settings, {"seed": seed + 1, "beta": 0.0}))
    log.info("[4/4] cross-validation: isoform levels from genes and from latents")
    run = CrossvalRun(
        x=str(data / "genes.h5ad"),
        y=str(data / "isoforms.h5ad"),
        encoders={"vae": tuple(vaes), "ae": (str(runs / "ae"),)},
    )
    run_crossval(run, CrossvalConfig(stratify="tissue", seed=seed, models=ROWS), runs / "cv")
    return runs / "cv" / "report.html"


def _train(data: Path, folder: Path, config: EncoderConfig) -> None:
    encoder = run_training(data / "unlabelled.h5ad", folder, config)
    log.info("%s", summary_line(folder, encoder))


def _make_room(out: Path, *, force: bool) -> None:
    """Make the folder, clearing an earlier demo if that is allowed."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        mark = out / MARK
        if not force or not mark.is_file() or mark.read_text(encoding="utf-8") != README:
            raise InputError(
                f"{out} exists already: expected no such folder, or (with --force) that of an "
                "earlier demo; choose another --out"
            )
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).write_text(README, encoding="utf-8")
