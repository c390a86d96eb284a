"""Summary of a trained encoder on rows it was trained on and on rows held out.

Keys of an encoder's `summary`, beside the plain facts of its training:

r2, r2_median, pca_r2, pca_r2_median
    Reconstruction R2 on standardised genes, 1 - SSE / SST against the training means: pooled over
    genes, and the median over genes; of the encoder (from the posterior mean) and of the PCA of
    the same width, both fitted on the same training rows. `r2_rows` says whether the rows are
    those of validation or, where there are none, of training.
kl_per_unit, mu_variance, active_units
    Mean KL divergence (nats; null at beta 0) and variance of each latent unit's posterior mean;
    how many units have KL > 0.05 as well as variance > 0.01 (Burda et al. 2016, arXiv:1509.00519).
val_loss, start_val_loss
    Loss on the validation rows (nats a sample) of the epoch that was kept, and before the first
    step; `best_epoch` is 0 where the start itself was kept. Both with the noise of the start.
n_missing
    Missing levels of the training and validation rows; they count for nothing above.
n_parameters, n_held
    Trained values, and those that hold the PCA and are not trained.
n_measured
    Training rows that the entries below are taken from: all, or 20,000 of them.
dead_share
    Share of hidden units whose output never changes over the rows.
depth, depth_r
    What stands for library size, and each latent's Pearson correlation with it; null if unknown.
batches
    Of a decoder that is told the batch: what is left of it in the latents
    (`m1pipe.encoder.mixing.what_is_left`).
depth_quantiles
    5, 25, 50, 75 and 95 % quantiles of the samples' total counts over the encoder's genes, as
    training saw them (thinned or not); null if unknown.
lowest
    The lowest level of any gene in these rows, in units of the data.
error_q99, error_beyond
    99 % quantile of the training rows' reconstruction error (mean squared residual of
    standardised genes), and the share of validation rows that lie beyond it.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from m1pipe import seeds
from m1pipe.data.depth import QUANTILES, depths
from m1pipe.data.matrix import Matrix
from m1pipe.data.recipe import Aligned
from m1pipe.data.transforms import GeneTransform, floored_scale
from m1pipe.models.mlp import evaluating
from m1pipe.models.pca import PCA
from m1pipe.models.vae import VAEModule, kl_per_unit, mask_missing

MOST_MEASURED = 20_000
ACTIVE_KL = 0.05
ACTIVE_VARIANCE = 0.01
OUTLYING = 0.99
_CONSTANT = 1e-6
_COUNT_BLOCK = 1024


def measured_rows(n_rows: int, seed: int) -> np.ndarray:
    """Which of the training rows are passed through the trained network for its summary.

    Returns
    -------
    ndarray of int64, shape (at most MOST_MEASURED,)
        All, or drawn by the seed; ascending.
    """
    if n_rows <= MOST_MEASURED:
        return np.arange(n_rows)
    drawn = seeds.rng(seed, seeds.MEASURED_ROWS).choice(n_rows, MOST_MEASURED, replace=False)
    return np.sort(drawn)


@dataclass(eq=False)
class Measurement:
    """What a pass over rows, already transformed, finds.

    Attributes
    ----------
    mu : ndarray of float32, shape (n_samples, n_latent)
        Posterior means.
    kl : ndarray, shape (n_latent,)
        Mean KL divergence of each unit, in nats.
    errors, pca_errors, deviations : ndarray, shape (n_samples,)
        Mean over genes of the squared standardised residual of the encoder and of the PCA, and of
        the squared standardised deviation from the training mean.
    sse, pca_sse, sst : ndarray, shape (n_genes,)
        Squared standardised residuals of the encoder and of the PCA, and squared standardised
        deviations from the training mean, summed over rows.
    dead_share : float
        Of hidden units whose output never changes.
    low : ndarray of float32, shape (n_genes,)
        Lowest level of each gene.
    """

    mu: np.ndarray
    kl: np.ndarray
    errors: np.ndarray
    pca_errors: np.ndarray
    deviations: np.ndarray
    sse: np.ndarray
    pca_sse: np.ndarray
    sst: np.ndarray
    dead_share: float
    low: np.ndarray

    def r2(self) -> dict[str, float | None]:
        """Reconstruction R2, pooled and median over the genes that vary, of encoder and PCA."""
        varies = self.sst > 0
        if not varies.any():
            return dict.fromkeys(("r2", "r2_median", "pca_r2", "pca_r2_median"))
        found: dict[str, float | None] = {}
        for name, sse in (("r2", self.sse), ("pca_r2", self.pca_sse)):
            found[name] = finite(1 - sse.sum() / self.sst.sum())
            found[f"{name}_median"] = finite(np.median(1 - sse[varies] / self.sst[varies]))
        return found


def gene_scale(scaler: GeneTransform, pca: PCA) -> np.ndarray:
    """Spread of each gene on the transformed scale, by which residuals are standardised.

    Returns
    -------
    ndarray, shape (n_genes,)
        1 where the transform standardises; otherwise the training standard deviation, floored.
    """
    if scaler.kind in ("standardize", "normal_score"):
        return np.ones(pca.mean.size)
    return floored_scale(np.sqrt(pca.gene_variances.astype(np.float64)))


def measure(
    module: VAEModule,
    pca: PCA,
    blocks: Iterable[np.ndarray],
    scale: np.ndarray,
    *,
    codes: np.ndarray | None = None,
    shift: np.ndarray | None = None,
    means: Tensor | None = None,
) -> Measurement:
    """Pass rows through an encoder and its PCA.

    Parameters
    ----------
    module : VAEModule
        On any device; used in evaluation mode.
    pca : PCA
        On the transformed scale.
    blocks : iterable of ndarray, each of shape (n_rows, n_genes)
        Transformed rows.
    scale : ndarray, shape (n_genes,)
        From `gene_scale`.
    codes : ndarray of int64, shape (n_samples,), optional
        Class of each row, for a conditional model.
    shift : ndarray, shape (n_classes, n_genes), optional
        What the classes' means lie off the mean: the PCA is about the mean of the class.
    means : Tensor, shape (n_classes, n_genes), optional
        Imputation means of missing levels, which are NaN; errors are those of the other levels
        alone. Left out: there are none.

    Returns
    -------
    Measurement
    """
    device = next(module.parameters()).device
    mus, by_row = [], []
    low = np.full(scale.size, np.inf, dtype=np.float32)
    kl, by_gene = np.zeros(module.config.n_latent), np.zeros((3, scale.size))
    with evaluating(module), torch.no_grad(), _watching(module) as spans:
        start = 0
        for X in blocks:
            here = None if codes is None else codes[start : start + len(X)]
            classes = None if here is None else torch.from_numpy(here).to(device)
            centre = 0.0 if here is None or shift is None else shift[here]
            start += len(X)
            low = np.fmin(low, np.fmin.reduce(X, axis=0))
            x, known = torch.from_numpy(X).to(device), None
            if means is not None:
                x, seen = mask_missing(x, means, classes)
                known = seen.cpu().numpy()
            mu, logvar = module.encode(x, classes)
            library = module.library(x)
            expected = module.expected_inputs(module.decode(mu, classes, library), library)
            fitted, X = expected.cpu().numpy(), module.inputs(x).cpu().numpy()
            mus.append(mu.cpu().numpy())
            kl += kl_per_unit(mu, logvar).double().sum(0).cpu().numpy()
            left = (X - fitted, pca.residuals(X - centre), X - pca.mean)
            genes, rows = _squares(left, scale, known)
            by_gene += genes
            by_row.append(rows)
    still = [high - low <= _CONSTANT for low, high in spans.values()]
    errors, pca_errors, deviations = np.concatenate(by_row, axis=1)
    return Measurement(
        mu=np.concatenate(mus),
        kl=kl / len(errors),
        errors=errors,
        pca_errors=pca_errors,
        deviations=deviations,
        sse=by_gene[0],
        pca_sse=by_gene[1],
        sst=by_gene[2],
        dead_share=float(torch.cat(still).double().mean()) if still else 0.0,
        low=low,
    )


def _squares(
    left: Iterable[np.ndarray], scale: np.ndarray, known: np.ndarray | None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Squares of residuals over the scale: sums over the rows, means over a row's known genes."""
    squares, share = [(part / scale) ** 2 for part in left], 1.0
    if known is not None:
        squares, share = [np.where(known, part, 0.0) for part in squares], known.mean(axis=1)
    return [part.sum(axis=0) for part in squares], [part.mean(axis=1) / share for part in squares]


def latent_health(found: Measurement, beta: float) -> dict[str, Any]:
    """KL and variance of each latent unit, and how many units carry anything."""
    variance = found.mu.astype(np.float64).var(axis=0)
    active = variance > ACTIVE_VARIANCE
    if beta > 0:
        active &= found.kl > ACTIVE_KL
    return {
        "kl_per_unit": [finite(kl) for kl in found.kl] if beta > 0 else None,
        "mu_variance": [finite(v) for v in variance],
        "active_units": int(active.sum()),
    }


def library_size(matrix: Matrix, rows: np.ndarray) -> tuple[np.ndarray, str] | None:
    """What stands for the library size of rows of a matrix.

    Parameters
    ----------
    matrix : Matrix
        Its obs may hold `total_counts`.
    rows : ndarray of int, shape (n_rows,)

    Returns
    -------
    values : ndarray, shape (n_rows,)
    name : str
        "log total_counts", or "detected genes" where the units are such that 0 means absence.
        None instead of the pair where neither is to be had.
    """
    if "total_counts" in matrix.obs.columns:
        totals = matrix.obs["total_counts"].to_numpy(dtype=np.float64)[rows]
        if np.isfinite(totals).all() and (totals > 0).all():
            return np.log(totals), "log total_counts"
    units = matrix.units
    if not (units.is_linear or units.is_log) or units.name.endswith(("fold_change", "intensity")):
        return None
    detected = np.empty(rows.size)
    for start in range(0, rows.size, _COUNT_BLOCK):
        part = slice(start, start + _COUNT_BLOCK)
        X = matrix.take(rows[part])
        detected[part] = (X > 0).sum(axis=1) / (1 - np.isnan(X).mean(axis=1))
    return detected, "detected genes"


def depth_quantiles(source: Aligned, rows: np.ndarray) -> list[float] | None:
    """Quantiles `QUANTILES` of the total counts of rows; None where they are not known."""
    found = depths(source.matrix, source.match.columns[source.present], rows)
    return None if found is None else np.quantile(found, QUANTILES).tolist()


def correlations(mu: np.ndarray, depth: np.ndarray) -> list[float]:
    """Pearson correlation of each latent with a value per sample; 0 where either is constant.

    Parameters
    ----------
    mu : ndarray, shape (n_samples, n_latent)
    depth : ndarray, shape (n_samples,)
    """
    Z = mu.astype(np.float64) - mu.mean(axis=0, dtype=np.float64)
    d = depth - depth.mean()
    lengths = np.sqrt((Z**2).sum(axis=0) * (d**2).sum())
    r = np.divide(d @ Z, lengths, out=np.zeros(Z.shape[1]), where=lengths > _CONSTANT)
    return [float(value) for value in r]


def finite(value: float) -> float | None:
    """A plain number for JSON; None where it is not finite."""
    return float(value) if np.isfinite(value) else None


# Lowest and highest output of every unit, by hidden layer.
_Spans = dict[nn.Module, tuple[Tensor, Tensor]]


@contextmanager
def _watching(module: VAEModule) -> Iterator[_Spans]:
    """Record what the hidden units put out while the block runs."""
    spans: _Spans = {}

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        low, high = output.amin(0), output.amax(0)
        before = spans.get(layer, (low, high))
        spans[layer] = torch.minimum(before[0], low), torch.maximum(before[1], high)

    hooks = [
        layer.register_forward_hook(add)
        for trunk in (module.encoder, module.decoder)
        for layer in list(trunk)[1:]
        if not isinstance(layer, nn.Linear | nn.Dropout | nn.BatchNorm1d)
    ]
    try:
        yield spans
    finally:
        for hook in hooks:
            hook.remove()


def health(summary: Mapping[str, Any]) -> str:
    """In words: how well the genes come back, beside PCA, and how many units carry anything."""
    rows = "held-out" if summary["r2_rows"] == "validation" else "training"
    r2, pca = (
        "undefined" if value is None else f"{value:.3f}"
        for value in (summary["r2"], summary["pca_r2"])
    )
    n_latent = len(summary["mu_variance"])
    return f"{rows} R2 {r2} (PCA {pca}), {summary['active_units']} of {n_latent} units active"
