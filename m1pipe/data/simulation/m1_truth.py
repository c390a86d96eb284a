"""What is planted in simulated M1 data, and how one sample comes about given it.

Latent factors of a sample (its tissue's, its donor's, its own) act through nonlinear modules on
the genes, and on how each gene's output is shared among its isoforms. A sample is a pure function
of the truth and its own generator, so that how many are made at a time cannot matter.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq

from m1pipe.errors import InputError
from m1pipe.settings import check_at_least

GENOME = 18_965
GENE_ZEROS = 0.09
ISOFORM_ZEROS = 1 / 3
FEWEST_ISOFORMS = 3
ORGAN_SD, TISSUE_SD, DONOR_SD = 1.2, 0.8, 0.3
PLATFORM_SD, STUDY_SD = 0.25, 0.15
USAGE_BASE_SD, USAGE_TISSUE_SD, USAGE_MODULE_SD = 1.5, 0.5, 0.6
_PILOTS = 100
MODULES_PER_GENE = 5
MODULES_PER_ISOFORM = 2
WITHIN_SD = 0.6
USAGE_NOISE_SD = 0.4
_STREAMS = {"world": 0, "pilot": 1, "unlabelled": 2, "labelled": 3, "design": 4}


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
            check_at_least(name, getattr(self, name), 1)
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


@dataclass(frozen=True, eq=False, kw_only=True)
class M1Truth:
    """Everything planted, fixed by size and seed.

    Attributes
    ----------
    tissue_latents : ndarray, shape (n_tissues, n_factors)
    donor_latents : ndarray, shape (n_donors, n_factors)
        Added to the tissue's.
    mixing, thresholds : ndarray, shapes (n_factors, n_modules), (n_modules,)
        Of the modules.
    gene_modules, gene_weights : ndarray, shape (MODULES_PER_GENE, n_genes)
        Which modules act on a gene, and how strongly (log2; 0 for none).
    gene_base, gene_noise : ndarray, shape (n_genes,)
        Level and standard deviation of the noise, log2.
    platform : ndarray, shape (n_genes,)
        Shift of all unlabelled samples, log2.
    studies : ndarray, shape (n_studies, n_genes)
        Further shift of each study, log2.
    gene_of : ndarray of int, shape (n_isoforms,)
        Gene of every isoform, ascending.
    first_isoform : ndarray of int, shape (n_genes,)
        Of every gene.
    isoform_base : ndarray, shape (n_isoforms,)
    isoform_tissue : ndarray, shape (n_tissues, n_isoforms)
    isoform_modules, isoform_weights : ndarray, shape (MODULES_PER_ISOFORM, n_isoforms)
        Parts of the logits of usage.
    total : float
        What the TPM of a sample sum to: a million for a whole genome, less for a part.
    gene_limit, isoform_limit : float
        A level x (before renormalisation; in TPM) is seen with probability 1 - exp(-x / limit).
    """

    tissue_latents: np.ndarray
    donor_latents: np.ndarray
    mixing: np.ndarray
    thresholds: np.ndarray
    gene_modules: np.ndarray
    gene_weights: np.ndarray
    gene_base: np.ndarray
    gene_noise: np.ndarray
    platform: np.ndarray
    studies: np.ndarray
    gene_of: np.ndarray
    first_isoform: np.ndarray
    isoform_base: np.ndarray
    isoform_tissue: np.ndarray
    isoform_modules: np.ndarray
    isoform_weights: np.ndarray
    total: float
    gene_limit: float = 0.0
    isoform_limit: float = 0.0


def plant(size: M1Size, seed: int) -> M1Truth:
    """Plant the truth of this size and seed, its detection limits set to give the planned zeros.

    Returns
    -------
    M1Truth
        About `GENE_ZEROS` of its gene values and `ISOFORM_ZEROS` of its isoform values are 0.
    """
    truth = M1Truth(
        total=1e6 * size.n_genes / GENOME,
        **_plant_tissues(size, row_generator(seed, "world", 0)),
        **_plant_genes(size, row_generator(seed, "world", 1)),
        **_plant_isoforms(size, row_generator(seed, "world", 2)),
        **_plant_nuisances(size, row_generator(seed, "world", 3)),
    )
    levels = np.stack([gene_levels(truth, z, rng) for _, z, rng in _pilots(truth, seed)])
    truth = replace(truth, gene_limit=_solve(levels, GENE_ZEROS))
    return replace(truth, isoform_limit=_isoform_limit(truth, seed))


def _plant_tissues(size: M1Size, rng: np.random.Generator) -> dict[str, Any]:
    organs = _normal(rng, size.n_organs, size.n_factors, sd=ORGAN_SD)
    own = _normal(rng, size.n_tissues, size.n_factors, sd=TISSUE_SD)
    return {
        "tissue_latents": organs[np.arange(size.n_tissues) % size.n_organs] + own,
        "mixing": _normal(rng, size.n_factors, size.n_modules, sd=size.n_factors**-0.5),
        "thresholds": _normal(rng, size.n_modules, sd=0.6),
    }


def _plant_genes(size: M1Size, rng: np.random.Generator) -> dict[str, Any]:
    n, most = size.n_genes, MODULES_PER_GENE
    used = np.arange(most)[:, None] < rng.integers(2, most + 1, n)
    return {
        "gene_modules": rng.integers(0, size.n_modules, (most, n)),
        "gene_weights": _normal(rng, most, n, sd=1.3) * used,
        "gene_base": 2.2 + _normal(rng, n, sd=2.4),
        "gene_noise": rng.uniform(0.15, 0.6, n).astype(np.float32),
    }


def _plant_isoforms(size: M1Size, rng: np.random.Generator) -> dict[str, Any]:
    n, most = size.n_isoforms, MODULES_PER_ISOFORM
    counts = _isoform_counts(size, rng)
    return {
        "gene_of": np.repeat(np.arange(size.n_genes), counts),
        "first_isoform": np.cumsum(counts) - counts,
        "isoform_base": _normal(rng, n, sd=USAGE_BASE_SD),
        "isoform_tissue": _normal(rng, size.n_tissues, n, sd=USAGE_TISSUE_SD),
        "isoform_modules": rng.integers(0, size.n_modules, (most, n)),
        "isoform_weights": _normal(rng, most, n, sd=USAGE_MODULE_SD),
    }


def _plant_nuisances(size: M1Size, rng: np.random.Generator) -> dict[str, Any]:
    """Donors and batches; drawn apart, so that more samples leave the biology as it was."""
    return {
        "platform": _normal(rng, size.n_genes, sd=PLATFORM_SD),
        "donor_latents": _normal(rng, size.n_donors, size.n_factors, sd=DONOR_SD),
        "studies": _normal(rng, size.n_studies, size.n_genes, sd=STUDY_SD),
    }


def _normal(rng: np.random.Generator, *shape: int, sd: float) -> np.ndarray:
    return np.float32(sd) * rng.standard_normal(shape, dtype=np.float32)


def _isoform_counts(size: M1Size, rng: np.random.Generator) -> np.ndarray:
    """Isoforms of each gene: uniform between the bounds, moved by ones to the planned sum."""
    counts = rng.integers(FEWEST_ISOFORMS, size.most_isoforms + 1, size.n_genes)
    while (excess := int(counts.sum()) - size.n_isoforms) != 0:
        step = -1 if excess > 0 else 1
        bound = FEWEST_ISOFORMS if excess > 0 else size.most_isoforms
        movable = np.flatnonzero(counts != bound)
        counts[rng.permutation(movable)[: abs(excess)]] += step
    return counts


def _pilots(truth: M1Truth, seed: int) -> Iterator[tuple[int, np.ndarray, np.random.Generator]]:
    """Tissue, latent and generator of samples that serve calibration only."""
    for row in range(_PILOTS):
        rng = row_generator(seed, "pilot", row)
        tissue = row % len(truth.tissue_latents)
        yield tissue, draw_latent(truth.tissue_latents[tissue], rng), rng


def _isoform_limit(truth: M1Truth, seed: int) -> float:
    levels = []
    for tissue, z, rng in _pilots(truth, seed):
        genes = gene_tpm(truth, z, rng)
        row = isoform_levels(truth, z, tissue, genes, rng)
        row[strongest_isoforms(truth, row) & (row > 0)] = np.inf  # these are always seen
        levels.append(row)
    return _solve(np.stack(levels), ISOFORM_ZEROS)


def _solve(levels: np.ndarray, zeros: float) -> float:
    """Detection limit at which this share of the levels is expected not to be seen."""

    def excess(log_limit: float) -> float:
        return float(np.exp(-levels / np.float32(np.exp(log_limit))).mean(dtype=float)) - zeros

    return float(np.exp(brentq(excess, -30.0, 30.0, xtol=1e-4)))


def row_generator(seed: int, stream: str, row: int = 0) -> np.random.Generator:
    """Random generator of one row of one stream, independent of all others."""
    key = np.array([seed, _STREAMS[stream]], dtype=np.uint64)
    counter = np.array([0, row, 0, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def modules(truth: M1Truth, latent: np.ndarray) -> np.ndarray:
    """Activities of the modules, shape (n_modules,): saturating, every third one rectified."""
    activities: np.ndarray = np.tanh(1.8 * (latent @ truth.mixing) + truth.thresholds)
    activities[::3] = 1.5 * np.maximum(activities[::3], 0)
    return activities


def draw_latent(mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Latent factors of one sample around those of its tissue and donor, shape (n_factors,)."""
    return np.asarray(mean + WITHIN_SD * rng.standard_normal(mean.size, dtype=np.float32))


def gene_tpm(
    truth: M1Truth,
    latent: np.ndarray,
    rng: np.random.Generator,
    shift: np.ndarray | float = 0,
) -> np.ndarray:
    """Transcripts per million of one sample's genes.

    Parameters
    ----------
    truth : M1Truth
    latent : ndarray, shape (n_factors,)
    rng : numpy.random.Generator
        Of noise and detection.
    shift : ndarray, shape (n_genes,), or float
        Batch effect, log2.

    Returns
    -------
    ndarray of float32, shape (n_genes,)
        Sums to `truth.total`; 0 where a gene was not detected.
    """
    levels = gene_levels(truth, latent, rng, shift)
    unseen = rng.random(levels.size, dtype=np.float32) < np.exp(-levels / truth.gene_limit)
    levels[unseen] = 0
    return levels * np.float32(truth.total / levels.sum(dtype=np.float64))


def isoform_tpm(
    truth: M1Truth,
    latent: np.ndarray,
    tissue: int,
    genes: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Transcripts per million of one sample's isoforms.

    Parameters
    ----------
    truth, latent, rng
        As for `gene_tpm`.
    tissue : int
    genes : ndarray, shape (n_genes,)
        The sample's genes, from `gene_tpm`.

    Returns
    -------
    ndarray of float32, shape (n_isoforms,)
        Those of a gene sum to the gene's; its strongest one is always seen.
    """
    levels = isoform_levels(truth, latent, tissue, genes, rng)
    unseen = rng.random(levels.size, dtype=np.float32) < np.exp(-levels / truth.isoform_limit)
    levels[unseen & ~strongest_isoforms(truth, levels)] = 0
    return share_among_isoforms(truth, levels, genes)


def usage(
    truth: M1Truth, latent: np.ndarray, tissue: int, noise: np.ndarray | float = 0
) -> np.ndarray:
    """Share of each isoform in its gene: a softmax over the gene's isoforms.

    Parameters
    ----------
    truth, latent, tissue
        As for `isoform_tpm`.
    noise : ndarray, shape (n_isoforms,), or float
        Added to the logits.

    Returns
    -------
    ndarray of float32, shape (n_isoforms,)
        Sums to 1 over the isoforms of a gene.
    """
    driven = (modules(truth, latent)[truth.isoform_modules] * truth.isoform_weights).sum(axis=0)
    odds = np.exp(truth.isoform_base + truth.isoform_tissue[tissue] + driven + noise)
    return share_among_isoforms(truth, odds, np.ones(truth.gene_base.size, dtype=np.float32))


def gene_levels(
    truth: M1Truth,
    latent: np.ndarray,
    rng: np.random.Generator,
    shift: np.ndarray | float = 0,
) -> np.ndarray:
    """Levels of all genes before detection, on no particular scale, shape (n_genes,)."""
    noise = truth.gene_noise * rng.standard_normal(truth.gene_noise.size, dtype=np.float32)
    return np.asarray(np.exp2(truth.gene_base + _drive(truth, latent) + noise + shift))


def isoform_levels(
    truth: M1Truth,
    latent: np.ndarray,
    tissue: int,
    genes: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """TPM of all isoforms before detection, shape (n_isoforms,)."""
    noise = USAGE_NOISE_SD * rng.standard_normal(truth.gene_of.size, dtype=np.float32)
    return share_among_isoforms(truth, usage(truth, latent, tissue, noise), genes)


def tissue_expression(truth: M1Truth, latent: np.ndarray) -> np.ndarray:
    """TPM of all genes without noise, detection or batch, shape (n_genes,)."""
    levels = np.exp2(truth.gene_base + _drive(truth, latent))
    return np.asarray(levels * np.float32(truth.total / levels.sum(dtype=np.float64)))


def share_among_isoforms(truth: M1Truth, weights: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """Each gene's value shared in proportion to its isoforms' weights; 0 where all of them are."""
    totals = np.add.reduceat(weights, truth.first_isoform)
    factors = np.divide(genes, totals, out=np.zeros_like(genes), where=totals > 0)
    return np.asarray(weights * factors[truth.gene_of])


def strongest_isoforms(truth: M1Truth, levels: np.ndarray) -> np.ndarray:
    """Mask of each gene's largest isoform, bool, shape (n_isoforms,)."""
    return np.asarray(levels == np.maximum.reduceat(levels, truth.first_isoform)[truth.gene_of])


def _drive(truth: M1Truth, latent: np.ndarray) -> np.ndarray:
    """What the modules add to each gene, log2."""
    return np.asarray((modules(truth, latent)[truth.gene_modules] * truth.gene_weights).sum(axis=0))
