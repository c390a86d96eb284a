"""How one simulated sample comes about, given the planted world.

Latent factors of a sample (its tissue's, its donor's, its own) act through nonlinear modules on
the genes, and on how each gene's output is shared among its isoforms. A sample is a pure function
of the world and its own generator, so that how many are made at a time cannot matter.
"""

from dataclasses import dataclass

import numpy as np

MODULES_PER_GENE = 5
MODULES_PER_ISOFORM = 2
WITHIN_SD = 0.6
USAGE_NOISE_SD = 0.4
_STREAMS = {"world": 0, "pilot": 1, "unlabelled": 2, "labelled": 3, "design": 4}


@dataclass(frozen=True, eq=False, kw_only=True)
class World:
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


def row_generator(seed: int, stream: str, row: int = 0) -> np.random.Generator:
    """Random generator of one row of one stream, independent of all others."""
    key = np.array([seed, _STREAMS[stream]], dtype=np.uint64)
    counter = np.array([0, row, 0, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def modules(world: World, latent: np.ndarray) -> np.ndarray:
    """Activities of the modules: saturating ones, and every third a rectified one.

    Parameters
    ----------
    world : World
    latent : ndarray, shape (n_factors,)

    Returns
    -------
    ndarray of float32, shape (n_modules,)
    """
    activities: np.ndarray = np.tanh(1.8 * (latent @ world.mixing) + world.thresholds)
    activities[::3] = 1.5 * np.maximum(activities[::3], 0)
    return activities


def draw_latent(mean: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Latent factors of one sample around those of its tissue and donor, shape (n_factors,)."""
    found: np.ndarray = mean + WITHIN_SD * generator.standard_normal(mean.size, dtype=np.float32)
    return found


def gene_tpm(
    world: World, latent: np.ndarray, generator: np.random.Generator, shift: np.ndarray | float = 0
) -> np.ndarray:
    """Transcripts per million of one sample's genes.

    Parameters
    ----------
    world : World
    latent : ndarray, shape (n_factors,)
    generator : numpy.random.Generator
        Of noise and detection.
    shift : ndarray, shape (n_genes,), or float
        Batch effect, log2.

    Returns
    -------
    ndarray of float32, shape (n_genes,)
        Sums to `world.total`; 0 where a gene was not detected.
    """
    levels = gene_levels(world, latent, generator, shift)
    unseen = generator.random(levels.size, dtype=np.float32) < np.exp(-levels / world.gene_limit)
    levels[unseen] = 0
    return levels * np.float32(world.total / levels.sum(dtype=np.float64))


def isoform_tpm(
    world: World,
    latent: np.ndarray,
    tissue: int,
    genes: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """Transcripts per million of one sample's isoforms.

    Parameters
    ----------
    world : World
    latent : ndarray, shape (n_factors,)
    tissue : int
    genes : ndarray, shape (n_genes,)
        The sample's genes, from `gene_tpm`.
    generator : numpy.random.Generator
        Of noise and detection.

    Returns
    -------
    ndarray of float32, shape (n_isoforms,)
        Those of a gene sum to the gene's; its strongest one is always seen.
    """
    levels = isoform_levels(world, latent, tissue, genes, generator)
    unseen = generator.random(levels.size, dtype=np.float32) < np.exp(-levels / world.isoform_limit)
    levels[unseen & ~strongest_isoforms(world, levels)] = 0
    return share_among_isoforms(world, levels, genes)


def usage(
    world: World, latent: np.ndarray, tissue: int, noise: np.ndarray | float = 0
) -> np.ndarray:
    """Share of each isoform in its gene: a softmax over the gene's isoforms.

    Parameters
    ----------
    world : World
    latent : ndarray, shape (n_factors,)
    tissue : int
    noise : ndarray, shape (n_isoforms,), or float
        Added to the logits.

    Returns
    -------
    ndarray of float32, shape (n_isoforms,)
        Sums to 1 over the isoforms of a gene.
    """
    driven = (modules(world, latent)[world.isoform_modules] * world.isoform_weights).sum(axis=0)
    odds = np.exp(world.isoform_base + world.isoform_tissue[tissue] + driven + noise)
    return share_among_isoforms(world, odds, np.ones(world.gene_base.size, dtype=np.float32))


def gene_levels(
    world: World, latent: np.ndarray, generator: np.random.Generator, shift: np.ndarray | float = 0
) -> np.ndarray:
    """Levels of all genes before detection, on no particular scale, shape (n_genes,)."""
    noise = world.gene_noise * generator.standard_normal(world.gene_noise.size, dtype=np.float32)
    found: np.ndarray = np.exp2(world.gene_base + _drive(world, latent) + noise + shift)
    return found


def isoform_levels(
    world: World,
    latent: np.ndarray,
    tissue: int,
    genes: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """TPM of all isoforms before detection, shape (n_isoforms,)."""
    noise = USAGE_NOISE_SD * generator.standard_normal(world.gene_of.size, dtype=np.float32)
    return share_among_isoforms(world, usage(world, latent, tissue, noise), genes)


def tissue_expression(world: World, latent: np.ndarray) -> np.ndarray:
    """TPM of all genes without noise, detection or batch, shape (n_genes,)."""
    levels = np.exp2(world.gene_base + _drive(world, latent))
    found: np.ndarray = levels * np.float32(world.total / levels.sum(dtype=np.float64))
    return found


def share_among_isoforms(world: World, weights: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """Divide each gene's value among its isoforms in proportion to their weights.

    Parameters
    ----------
    world : World
    weights : ndarray, shape (n_isoforms,)
    genes : ndarray, shape (n_genes,)

    Returns
    -------
    ndarray, shape (n_isoforms,)
        0 where all weights of a gene are.
    """
    totals = np.add.reduceat(weights, world.first_isoform)
    factors = np.divide(genes, totals, out=np.zeros_like(genes), where=totals > 0)
    found: np.ndarray = weights * factors[world.gene_of]
    return found


def strongest_isoforms(world: World, levels: np.ndarray) -> np.ndarray:
    """Mask of each gene's largest isoform.

    Parameters
    ----------
    world : World
    levels : ndarray, shape (n_isoforms,)

    Returns
    -------
    ndarray of bool, shape (n_isoforms,)
    """
    found: np.ndarray = levels == np.maximum.reduceat(levels, world.first_isoform)[world.gene_of]
    return found


def _drive(world: World, latent: np.ndarray) -> np.ndarray:
    """What the modules add to each gene, log2."""
    found: np.ndarray = (modules(world, latent)[world.gene_modules] * world.gene_weights).sum(
        axis=0
    )
    return found
