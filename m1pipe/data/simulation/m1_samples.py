"""Samples of the simulated M1 sets: where they come from, and their values row by row."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from m1pipe.data.simulation.m1_law import World, draw_latent, gene_tpm, isoform_tpm, row_generator
from m1pipe.data.simulation.m1_world import M1Size
from m1pipe.data.units import log2p1


@dataclass(frozen=True, eq=False)
class Design:
    """Where samples come from, before any value is drawn.

    Attributes
    ----------
    obs : DataFrame, shape (n_samples, n_columns)
        Annotations as written, indexed by sample id.
    tissue : ndarray of int, shape (n_samples,)
    origin : ndarray of int, shape (n_samples,)
        Study of an unlabelled sample, donor of a labelled one.
    """

    obs: pd.DataFrame
    tissue: np.ndarray
    origin: np.ndarray


def unlabelled_design(size: M1Size, seed: int) -> Design:
    """Samples of the unlabelled set: study by study, each of a few tissues."""
    generator = row_generator(seed, "design", 0)
    shares = generator.dirichlet(np.full(size.n_studies, 2.0))
    study = np.sort(generator.choice(size.n_studies, size.n_unlabelled, p=shares))
    menu = generator.integers(0, size.n_tissues, (size.n_studies, 3))
    menu[:, 0] = np.arange(size.n_studies) % size.n_tissues  # so that none is left out
    tissue = menu[study, generator.integers(0, 3, size.n_unlabelled)]
    obs = pd.DataFrame(
        {"study": _categories(study, numbered("study", size.n_studies))},
        index=numbered("U", size.n_unlabelled),
    )
    return Design(obs, tissue, study)


def labelled_design(size: M1Size, seed: int) -> Design:
    """Samples of the labelled set: donors in order, a donor gives a tissue at most once."""
    generator = row_generator(seed, "design", 1)
    popularity = generator.dirichlet(np.full(size.n_tissues, 20.0))
    cells = generator.choice(
        size.n_donors * size.n_tissues,
        size.n_labelled,
        replace=False,
        p=np.tile(popularity, size.n_donors) / size.n_donors,
    )
    donor, tissue = np.divmod(np.sort(cells), size.n_tissues)
    donors = _categories(donor, numbered("D", size.n_donors))
    tissues = _categories(tissue, tissue_names(size))
    index = [f"{d}_{t}" for d, t in zip(donors, tissues, strict=True)]
    return Design(pd.DataFrame({"tissue": tissues, "donor": donors}, index=index), tissue, donor)


def unlabelled_rows(
    world: World, design: Design, seed: int, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray]:
    """Samples start to stop of the unlabelled set.

    Returns
    -------
    latents : ndarray of float32, shape (stop - start, n_factors)
    X : ndarray of float32, shape (stop - start, n_genes)
        log2(TPM + 1), the batch shift included.
    """
    latents = np.empty((stop - start, world.tissue_latents.shape[1]), dtype=np.float32)
    X = np.empty((stop - start, world.gene_base.size), dtype=np.float32)
    for i, row in enumerate(range(start, stop)):
        generator = row_generator(seed, "unlabelled", row)
        latents[i] = draw_latent(world.tissue_latents[design.tissue[row]], generator)
        shift = world.platform + world.studies[design.origin[row]]
        X[i] = log2p1(gene_tpm(world, latents[i], generator, shift))
    return latents, X


def labelled_rows(
    world: World, design: Design, seed: int, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples start to stop of the labelled set.

    Returns
    -------
    latents : ndarray of float32, shape (stop - start, n_factors)
    X, Y : ndarray of float32, shapes (stop - start, n_genes) and (stop - start, n_isoforms)
        log2(TPM + 1).
    """
    latents = np.empty((stop - start, world.tissue_latents.shape[1]), dtype=np.float32)
    X = np.empty((stop - start, world.gene_base.size), dtype=np.float32)
    Y = np.empty((stop - start, world.gene_of.size), dtype=np.float32)
    for i, row in enumerate(range(start, stop)):
        generator = row_generator(seed, "labelled", row)
        tissue, donor = design.tissue[row], design.origin[row]
        mean = world.tissue_latents[tissue] + world.donor_latents[donor]
        latents[i] = draw_latent(mean, generator)
        genes = gene_tpm(world, latents[i], generator)
        X[i] = log2p1(genes)
        Y[i] = log2p1(isoform_tpm(world, latents[i], tissue, genes, generator))
    return latents, X, Y


def numbered(prefix: str, n: int) -> list[str]:
    """Names from 1 on, padded with zeros to one length."""
    return [f"{prefix}{i:0{len(str(n))}d}" for i in range(1, n + 1)]


def tissue_names(size: M1Size) -> list[str]:
    """Names of the tissues, which say the organ."""
    return [f"organ{t % size.n_organs + 1}_tissue{t + 1:02d}" for t in range(size.n_tissues)]


def _categories(codes: np.ndarray, names: list[str]) -> pd.Categorical:
    return pd.Categorical(np.array(names, dtype=object)[codes], categories=pd.Index(names))
