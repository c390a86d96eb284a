"""Planting a world for simulated M1 data: its size, its numbers, its detection limits."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq

from m1pipe.data.simulation.m1_law import (
    MODULES_PER_GENE,
    MODULES_PER_ISOFORM,
    World,
    draw_latent,
    gene_levels,
    gene_tpm,
    isoform_levels,
    row_generator,
    strongest_isoforms,
)
from m1pipe.errors import InputError

GENOME = 18_965
GENE_ZEROS = 0.09
ISOFORM_ZEROS = 1 / 3
FEWEST_ISOFORMS = 3
ORGAN_SD, TISSUE_SD, DONOR_SD = 1.2, 0.8, 0.3
PLATFORM_SD, STUDY_SD = 0.25, 0.15
USAGE_BASE_SD, USAGE_TISSUE_SD, USAGE_MODULE_SD = 1.5, 0.5, 0.6
_PILOTS = 100


@dataclass(frozen=True, kw_only=True)
class M1Size:
    """How much is simulated.

    Attributes
    ----------
    n_unlabelled, n_labelled, n_genes : int
    isoforms_per_gene : float
        On average; each gene has at least `FEWEST_ISOFORMS`.
    most_isoforms : int
        Of one gene.
    samples_per_donor : float
        On average; a donor gives a tissue once.
    n_organs, n_tissues : int
        Tissues are dealt to organs in turn.
    n_factors, n_modules : int
        Latent factors, and nonlinear functions of them that the genes follow.
    """

    n_unlabelled: int
    n_labelled: int
    n_genes: int
    isoforms_per_gene: float = 5.5
    most_isoforms: int = 8
    samples_per_donor: float = 6.0
    n_organs: int = 5
    n_tissues: int = 20
    n_factors: int = 32
    n_modules: int = 120

    def __post_init__(self) -> None:
        for name in ("n_unlabelled", "n_labelled", "n_genes", "n_factors", "n_modules"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1; found {getattr(self, name)}")
        if not 1 <= self.samples_per_donor <= self.n_tissues:
            raise InputError(
                f"samples_per_donor: expected 1 to {self.n_tissues}, the tissues; found "
                f"{self.samples_per_donor}"
            )
        if not FEWEST_ISOFORMS <= self.isoforms_per_gene <= self.most_isoforms:
            raise InputError(
                f"isoforms_per_gene: expected {FEWEST_ISOFORMS} to {self.most_isoforms}; found "
                f"{self.isoforms_per_gene}"
            )

    @property
    def n_isoforms(self) -> int:
        """Isoforms of all genes."""
        return round(self.isoforms_per_gene * self.n_genes)

    @property
    def n_donors(self) -> int:
        """Donors."""
        return math.ceil(self.n_labelled / self.samples_per_donor)

    @property
    def n_studies(self) -> int:
        """Studies (batches) that the unlabelled samples come from."""
        return min(200, max(self.n_tissues, self.n_unlabelled // 100))


def plant(size: M1Size, seed: int) -> World:
    """World of this size and seed, its detection limits set to give the planned zeros.

    Parameters
    ----------
    size : M1Size
    seed : int
        At least 0.

    Returns
    -------
    World
        About `GENE_ZEROS` of its gene values and `ISOFORM_ZEROS` of its isoform values are 0.
    """
    world = World(
        total=1e6 * size.n_genes / GENOME,
        **_plant_tissues(size, row_generator(seed, "world", 0)),
        **_plant_genes(size, row_generator(seed, "world", 1)),
        **_plant_isoforms(size, row_generator(seed, "world", 2)),
        **_plant_nuisances(size, row_generator(seed, "world", 3)),
    )
    world = replace(world, gene_limit=_gene_limit(world, seed))
    return replace(world, isoform_limit=_isoform_limit(world, seed))


def _plant_tissues(size: M1Size, generator: np.random.Generator) -> dict[str, Any]:
    organs = _normal(generator, size.n_organs, size.n_factors, sd=ORGAN_SD)
    own = _normal(generator, size.n_tissues, size.n_factors, sd=TISSUE_SD)
    return {
        "tissue_latents": organs[np.arange(size.n_tissues) % size.n_organs] + own,
        "mixing": _normal(generator, size.n_factors, size.n_modules, sd=size.n_factors**-0.5),
        "thresholds": _normal(generator, size.n_modules, sd=0.6),
    }


def _plant_genes(size: M1Size, generator: np.random.Generator) -> dict[str, Any]:
    n, most = size.n_genes, MODULES_PER_GENE
    used = np.arange(most)[:, None] < generator.integers(2, most + 1, n)
    return {
        "gene_modules": generator.integers(0, size.n_modules, (most, n)),
        "gene_weights": _normal(generator, most, n, sd=1.3) * used,
        "gene_base": 2.2 + _normal(generator, n, sd=2.4),
        "gene_noise": generator.uniform(0.15, 0.6, n).astype(np.float32),
    }


def _plant_isoforms(size: M1Size, generator: np.random.Generator) -> dict[str, Any]:
    n, most = size.n_isoforms, MODULES_PER_ISOFORM
    counts = _isoform_counts(size, generator)
    return {
        "gene_of": np.repeat(np.arange(size.n_genes), counts),
        "first_isoform": np.cumsum(counts) - counts,
        "isoform_base": _normal(generator, n, sd=USAGE_BASE_SD),
        "isoform_tissue": _normal(generator, size.n_tissues, n, sd=USAGE_TISSUE_SD),
        "isoform_modules": generator.integers(0, size.n_modules, (most, n)),
        "isoform_weights": _normal(generator, most, n, sd=USAGE_MODULE_SD),
    }


def _plant_nuisances(size: M1Size, generator: np.random.Generator) -> dict[str, Any]:
    """Donors and batches; drawn apart, so that more samples leave the biology as it was."""
    return {
        "platform": _normal(generator, size.n_genes, sd=PLATFORM_SD),
        "donor_latents": _normal(generator, size.n_donors, size.n_factors, sd=DONOR_SD),
        "studies": _normal(generator, size.n_studies, size.n_genes, sd=STUDY_SD),
    }


def _normal(generator: np.random.Generator, *shape: int, sd: float) -> np.ndarray:
    return np.float32(sd) * generator.standard_normal(shape, dtype=np.float32)


def _isoform_counts(size: M1Size, generator: np.random.Generator) -> np.ndarray:
    """Isoforms of each gene: uniform between the bounds, moved by ones to the planned sum."""
    counts = generator.integers(FEWEST_ISOFORMS, size.most_isoforms + 1, size.n_genes)
    while (excess := int(counts.sum()) - size.n_isoforms) != 0:
        step = -1 if excess > 0 else 1
        bound = FEWEST_ISOFORMS if excess > 0 else size.most_isoforms
        movable = np.flatnonzero(counts != bound)
        counts[generator.permutation(movable)[: abs(excess)]] += step
    return counts


def _pilots(world: World, seed: int) -> Iterator[tuple[int, np.ndarray, np.random.Generator]]:
    """Tissue, latent and generator of samples that serve calibration only."""
    for row in range(_PILOTS):
        generator = row_generator(seed, "pilot", row)
        tissue = row % len(world.tissue_latents)
        yield tissue, draw_latent(world.tissue_latents[tissue], generator), generator


def _gene_limit(world: World, seed: int) -> float:
    levels = np.stack([gene_levels(world, z, g) for _, z, g in _pilots(world, seed)])
    return _solve(levels, GENE_ZEROS)


def _isoform_limit(world: World, seed: int) -> float:
    levels = []
    for tissue, z, generator in _pilots(world, seed):
        genes = gene_tpm(world, z, generator)
        row = isoform_levels(world, z, tissue, genes, generator)
        row[strongest_isoforms(world, row) & (row > 0)] = np.inf  # these are always seen
        levels.append(row)
    return _solve(np.stack(levels), ISOFORM_ZEROS)


def _solve(levels: np.ndarray, zeros: float) -> float:
    """Detection limit at which this share of the levels is expected not to be seen."""

    def excess(log_limit: float) -> float:
        return float(np.exp(-levels / np.float32(np.exp(log_limit))).mean(dtype=float)) - zeros

    return float(np.exp(brentq(excess, -30.0, 30.0, xtol=1e-4)))
