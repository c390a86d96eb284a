"""Whole figures of data and models, for notebooks and for `m1pipe plot`."""

from m1pipe.figures.model import architecture, history, interpolation, latent, on_map
from m1pipe.figures.samples import load_pair
from m1pipe.figures.synthetic import augmentation, correlations, gene_distributions, mean_variance

__all__ = [
    "architecture",
    "augmentation",
    "correlations",
    "gene_distributions",
    "history",
    "interpolation",
    "latent",
    "load_pair",
    "mean_variance",
    "on_map",
]
