"""Simulated single cells: counts of cell types in donors, for models of counts and of conditions.

A type has markers of its own on shared factors; a donor shifts every gene a little. Counts are
negative binomial about each cell's proportions times its library size, which is log-normal.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from m1pipe import seeds
from m1pipe.atomic import atomic_folder, refuse_folder
from m1pipe.data.units import Units
from m1pipe.io.writer import write_matrix
from m1pipe.settings import check_at_least, setting

N_FACTORS, MARKERS_A_TYPE = 6, 20
DEPTH, DEPTH_SD = 3000.0, 0.4
DISPERSION = 0.3
WHAT = "a simulation"
FILES = ("training.h5ad", "held_out.h5ad", "truth.npz")


@dataclass(frozen=True, kw_only=True)
class CountsConfig:
    """Options of `m1pipe simulate counts`.

    Attributes
    ----------
    n_training, n_held_out : int
        Cells; the two come from other donors.
    n_genes : int
    n_types, n_donors : int
        Cell types, the first the most frequent; donors in all, at least 2.
    seed : int
        At least 0; the same settings give the same files.
    """

    n_training: int = setting(2000, "", metavar="N")
    n_held_out: int = setting(1000, "", metavar="N")
    n_genes: int = setting(1000, "", metavar="N")
    n_types: int = setting(5, "", metavar="N")
    n_donors: int = setting(8, "", metavar="N")
    seed: int = setting(0, "Of all drawn.")

    def __post_init__(self) -> None:
        for name in ("n_training", "n_held_out", "n_genes", "n_types", "n_donors"):
            least = {"n_genes": MARKERS_A_TYPE * self.n_types, "n_donors": 2}.get(name, 1)
            check_at_least(name, getattr(self, name), least)
        check_at_least("seed", self.seed, 0)


def plant_counts(config: CountsConfig) -> dict[str, Any]:
    """Plant the truth of one seed and size.

    Returns
    -------
    dict of str to ndarray
        level (n_types, n_genes): logarithm of each gene's proportion in a type, up to a constant;
        loadings (N_FACTORS, n_genes): of what varies between the cells of a type;
        donor_shift (n_donors, n_genes); frequency (n_types,); markers (n_types, MARKERS_A_TYPE).
    """
    rng = seeds.rng(config.seed, seeds.COUNTS_TRUTH)
    level = np.tile(rng.normal(0, 1.5, config.n_genes), (config.n_types, 1))
    markers = rng.permutation(config.n_genes)[: config.n_types * MARKERS_A_TYPE]
    markers = markers.reshape(config.n_types, MARKERS_A_TYPE)
    for row, own in zip(level, markers, strict=True):
        row[own] += rng.normal(2.5, 0.5, MARKERS_A_TYPE)
    frequency = 0.6 ** np.arange(config.n_types)
    return {
        "level": level,
        "loadings": 0.25 * rng.standard_normal((N_FACTORS, config.n_genes)),
        "donor_shift": 0.15 * rng.standard_normal((config.n_donors, config.n_genes)),
        "frequency": frequency / frequency.sum(),
        "markers": markers,
    }


def draw_counts(
    truth: Mapping[str, np.ndarray], n: int, donors: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, pd.DataFrame]:
    """Cells of a planted truth.

    Parameters
    ----------
    truth : mapping of str to ndarray
        From `plant_counts`.
    n : int
    donors : ndarray of int
        Which donors the cells are from.
    rng : numpy Generator

    Returns
    -------
    counts : ndarray of float32, shape (n, n_genes)
        Whole numbers.
    obs : DataFrame
        cell_type, donor.
    """
    types = rng.choice(truth["frequency"].size, n, p=truth["frequency"])
    donor = rng.choice(donors, n)
    logs = truth["level"][types] + truth["donor_shift"][donor]
    logs += rng.standard_normal((n, N_FACTORS)) @ truth["loadings"]
    share = np.exp(logs)
    depth = DEPTH * rng.lognormal(0, DEPTH_SD, (n, 1))
    mean = share / share.sum(axis=1, keepdims=True) * depth
    counts = rng.poisson(rng.gamma(1 / DISPERSION, mean * DISPERSION)).astype(np.float32)
    names = {"cell_type": [f"type_{t + 1}" for t in types], "donor": [f"d{d + 1}" for d in donor]}
    return counts, pd.DataFrame(names)


def simulate_counts(
    out: str | os.PathLike[str], config: CountsConfig, *, force: bool = False
) -> Path:
    """Write training.h5ad and held_out.h5ad (obs: cell_type, donor) and what was planted.

    Parameters
    ----------
    out : path
        Folder to make.
    config : CountsConfig
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
    truth = plant_counts(config)
    var = pd.DataFrame(index=[f"G{j + 1}" for j in range(config.n_genes)])
    n_held = max(config.n_donors // 3, 1)
    parts = {
        "training": (config.n_training, np.arange(n_held, config.n_donors)),
        "held_out": (config.n_held_out, np.arange(n_held)),
    }
    with atomic_folder(out, FILES, what=WHAT, force=force) as folder:
        for part, (n, donors) in parts.items():
            rng = seeds.rng(config.seed, seeds.COUNTS_CELLS, int(part == "held_out"))
            counts, obs = draw_counts(truth, n, donors, rng)
            obs.index = pd.Index([f"{part}_{i + 1}" for i in range(n)], dtype=object)
            write_matrix(folder / f"{part}.h5ad", counts, obs=obs, var=var, units=Units("counts"))
        np.savez(folder / "truth.npz", **truth)
    return out
