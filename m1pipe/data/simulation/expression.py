"""Simulated expression for generators: training and held-out samples of one planted truth.

Logarithms of TPM are gene means plus factors, bent gently by a sine, plus noise of every gene's
own size; what lies below the limit of detection is zero. Factors are normal ("unimodal"), or
normal about eight centres ("clusters"), which are then the classes; in "groups" they are weaker,
and three classes of equal size have each a hundred genes of their own raised.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from m1pipe import seeds
from m1pipe.atomic import atomic_folder, refuse_folder
from m1pipe.data.units import Units, log2p1
from m1pipe.io.writer import write_matrix
from m1pipe.settings import check_at_least, check_choice, setting

Layout = Literal["unimodal", "clusters", "groups"]
N_FACTORS, N_CLUSTERS = 10, 8
N_GROUPS, N_CHANGED = 3, 100
DETECTION = 0.5  # TPM
WHAT = "a simulation"
FILES = ("training.h5ad", "held_out.h5ad", "truth.npz")


@dataclass(frozen=True, kw_only=True)
class ExpressionConfig:
    """Options of `m1pipe simulate expression`.

    Attributes
    ----------
    layout : str
        "unimodal": one cloud, cut by its first factor into three classes; "clusters": eight;
        "groups": three of equal size with a hundred changed genes each.
    n_training, n_held_out, n_genes : int
    seed : int
        At least 0; the same settings give the same files.
    """

    layout: Layout = setting(
        "unimodal", "One cloud of samples, eight clusters, or three groups with genes of their own."
    )
    n_training: int = setting(1000, "", metavar="N")
    n_held_out: int = setting(1000, "", metavar="N")
    n_genes: int = setting(500, "", metavar="N")
    seed: int = setting(0, "Of all drawn.")

    def __post_init__(self) -> None:
        check_choice("--layout", self.layout, Layout)
        for name in ("n_training", "n_held_out", "n_genes"):
            check_at_least(name, getattr(self, name), N_CLUSTERS)
        check_at_least("seed", self.seed, 0)


def plant_expression(config: ExpressionConfig) -> dict[str, Any]:
    """Plant the truth of one seed and layout.

    Returns
    -------
    dict of str to ndarray
        level, noise (n_genes,): mean of the log2 TPM, and standard deviation of what no factor
        carries; loadings (N_FACTORS, n_genes); centres (n_clusters, N_FACTORS): one at zero where
        there are no clusters, one a group; shifts (n_clusters, n_genes): what the log2 TPM of a
        group is raised by.
    """
    rng = seeds.rng(config.seed, seeds.EXPRESSION_TRUTH)
    centres = np.zeros((1, N_FACTORS))
    if config.layout == "clusters":
        centres = 1.6 * rng.standard_normal((N_CLUSTERS, N_FACTORS))
    elif config.layout == "groups":
        centres = np.zeros((N_GROUPS, N_FACTORS))
    share = 0.25 if config.layout == "groups" else 1.0  # of the variance that factors make
    return {
        "level": rng.gamma(2.5, 1.4, config.n_genes),
        "noise": rng.uniform(0.3, 1.0, config.n_genes),
        "loadings": rng.standard_normal((N_FACTORS, config.n_genes)) * np.sqrt(share / N_FACTORS),
        "centres": centres,
        "shifts": _plant_shifts(config, len(centres), rng),
    }


def _plant_shifts(config: ExpressionConfig, n_groups: int, rng: np.random.Generator) -> np.ndarray:
    """Genes raised in one group each; none in the other layouts."""
    shifts = np.zeros((n_groups, config.n_genes))
    if config.layout == "groups":
        n_changed = min(N_CHANGED, config.n_genes // n_groups)
        changed = rng.permutation(config.n_genes)[: n_groups * n_changed]
        for shift, genes in zip(shifts, changed.reshape(n_groups, n_changed), strict=True):
            shift[genes] = rng.normal(3.0, 0.5, n_changed)
    return shifts


def draw_expression(
    truth: Mapping[str, np.ndarray], n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples of a planted truth.

    Parameters
    ----------
    truth : mapping of str to ndarray
        From `plant_expression`.
    n : int
    rng : numpy Generator

    Returns
    -------
    X : ndarray of float32, shape (n, n_genes)
        log2(TPM + 1).
    factors : ndarray, shape (n, N_FACTORS)
    classes : ndarray of str, shape (n,)
    """
    n_clusters = len(truth["centres"])
    which = np.arange(n) % N_GROUPS if truth["shifts"].any() else rng.integers(0, n_clusters, n)
    factors = truth["centres"][which] + rng.standard_normal((n, N_FACTORS))
    bent = factors + 0.5 * np.sin(2 * factors)
    log_tpm = (
        truth["level"]
        + bent @ truth["loadings"]
        + truth["noise"] * rng.standard_normal((n, truth["level"].size))
    )
    log_tpm += truth["shifts"][which]
    tpm = np.exp2(log_tpm)
    X = log2p1(np.where(tpm < DETECTION, 0.0, tpm))
    if n_clusters == 1:
        which = np.digitize(factors[:, 0], [-0.43, 0.43])
    return X, factors, np.array([f"class_{k + 1}" for k in which], dtype=object)


def simulate_expression(
    out: str | os.PathLike[str], config: ExpressionConfig, *, force: bool = False
) -> Path:
    """Write training.h5ad, held_out.h5ad (obs: class) and what was planted.

    Parameters
    ----------
    out : path
        Folder to make.
    config : ExpressionConfig
    force : bool
        Replace an earlier simulation in `out`.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If `out` exists and is not an earlier simulation that `force` allows to replace.
    """
    out = refuse_folder(out, FILES, what=WHAT, force=force)
    truth = plant_expression(config)
    var = pd.DataFrame(index=[f"G{j + 1}" for j in range(config.n_genes)])
    with atomic_folder(out, FILES, what=WHAT, force=force) as folder:
        planted = dict(truth)
        for part, n in (("training", config.n_training), ("held_out", config.n_held_out)):
            rng = seeds.rng(config.seed, seeds.EXPRESSION_SAMPLES, int(part == "held_out"))
            X, planted[f"{part}_factors"], classes = draw_expression(truth, n, rng)
            obs = pd.DataFrame({"class": classes}, index=[f"{part}_{i + 1}" for i in range(n)])
            write_matrix(folder / f"{part}.h5ad", X, obs=obs, var=var, units=Units("log2_tpm1"))
        np.savez(folder / "truth.npz", **planted)
    return out
