"""What a network of counts has to know of its training rows: depth, levels and spread of genes."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from m1pipe.data.transforms import GeneTransform, fit_gene_transform
from m1pipe.models.counts import CountInputs
from m1pipe.models.vae import VAEModule
from m1pipe.pca import PCA


@torch.no_grad()
def fit_count_inputs(inputs: CountInputs, blocks: Callable[[], Iterator[np.ndarray]]) -> None:
    """Fit what the encoder sees of counts to the training rows.

    Parameters
    ----------
    inputs : CountInputs
        As it is made; changed in place.
    blocks : callable
        Every call gives the training rows anew, arrays of counts of shape (n_rows, n_genes).
    """
    logs = (inputs(torch.from_numpy(X)).numpy() for X in blocks())
    scaler = fit_gene_transform("standardize", logs)
    means, depths, n = np.zeros(inputs.location.numel()), [], 0
    for X in blocks():
        means += X.sum(axis=0, dtype=np.float64)
        depths.append(np.log(np.maximum(X.sum(axis=1, dtype=np.float64), 1)))
        n += len(X)
    depth = np.concatenate(depths)
    inputs.location.copy_(torch.from_numpy(scaler.location))
    inputs.scale.copy_(torch.from_numpy(scaler.scale))
    inputs.mean_counts.copy_(torch.from_numpy(means / n))
    inputs.log_library.copy_(torch.tensor([depth.mean(), depth.std()]))


def seen_by(module: VAEModule, X: np.ndarray) -> np.ndarray:
    """What a network makes of rows, shape (n_samples, n_genes), before its first layer."""
    device = next(module.parameters()).device
    with torch.no_grad():
        seen: np.ndarray = module.inputs(torch.from_numpy(X).to(device)).cpu().numpy()
    return seen


def gene_means(scaler: GeneTransform, pca: PCA, module: VAEModule) -> np.ndarray:
    """Training means in the units of the data, float32, shape (n_genes,).

    With normal scores: the level of the mean score.
    """
    if isinstance(module.inputs, CountInputs):
        means: np.ndarray = module.inputs.mean_counts.cpu().numpy()
        return means
    found: np.ndarray = scaler.invert(pca.mean[None])[0]
    return found
