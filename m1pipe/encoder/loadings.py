"""Loadings of the latent units on the genes, by the decoder or by correlation over samples."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.atomic import PathLike, refuse_existing
from m1pipe.console import log
from m1pipe.data.recipe import MIN_COVERAGE
from m1pipe.data.units import Units
from m1pipe.encoder import load_encoder
from m1pipe.encoder.conditional import class_means
from m1pipe.encoder.summary import ACTIVE_KL, ACTIVE_VARIANCE, gene_scale
from m1pipe.encoder.trained import Encoder, OfRows
from m1pipe.errors import InputError
from m1pipe.io.reader import open_matrix
from m1pipe.io.writer import write_matrix


@dataclass(frozen=True, eq=False, repr=False)
class Loadings:
    """A table of active latent units by genes.

    Attributes
    ----------
    values : ndarray of float32, shape (n_units, n_genes)
    obs : DataFrame, shape (n_units, 2)
        Index: unit, as `m1pipe encode` names it. Columns: `sd` of the unit over the training
        samples; `kl` in nats, NaN in a plain autoencoder.
    var : DataFrame, shape (n_genes, n_columns)
        Other names of the genes.
    units : Units
        Of the values.
    """

    values: np.ndarray
    obs: pd.DataFrame
    var: pd.DataFrame
    units: Units

    def __repr__(self) -> str:
        return (
            f"Loadings({self.values.shape[0]} units x {self.values.shape[1]:,} genes, {self.units})"
        )

    def to_frame(self) -> pd.DataFrame:
        """Units by genes."""
        return pd.DataFrame(self.values, index=self.obs.index, columns=self.var.index)


def decoder_loadings(encoder: Encoder) -> Loadings:
    """What a gene's expected level gains over a standard deviation of each active unit.

    The difference of the decoder's levels half a standard deviation above and below the latents
    of the mean sample: the decoder's Jacobian times the standard deviation, where it is linear.

    Parameters
    ----------
    encoder : Encoder

    Returns
    -------
    Loadings
        In logarithms where the units of training are logarithms; of linear units the difference
        of log2(1 + level). Of a conditional model the mean over its classes.

    Raises
    ------
    InputError
        If no unit is active.
    """
    active = _active(encoder)

    def logarithms(levels: np.ndarray, codes: np.ndarray | None) -> np.ndarray:
        return np.log2(1 + np.maximum(levels, 0)) if encoder.units.is_linear else levels

    values = _responses(encoder, active, logarithms)
    known = encoder.units.is_log or encoder.units.is_linear
    return _table(encoder, active, values, Units("log_fold_change" if known else "unknown"))


def unit_weights(encoder: Encoder) -> np.ndarray:
    """How far samples move in standardised expected levels when a latent unit moves by one.

    Latents times these weights lie about as far apart as the decoder's levels do, where the
    decoder is nearly linear and its units nearly orthogonal; a unit of small and one of large
    effect have the same variance in the latents themselves.

    Parameters
    ----------
    encoder : Encoder

    Returns
    -------
    ndarray of float64, shape (n_latent,)
        Euclidean length over genes; 0 for a unit that carries nothing.

    Raises
    ------
    InputError
        If no unit is active.
    """
    active, weights = _active(encoder), np.zeros(encoder.n_latent)
    scale = gene_scale(encoder.scaler, encoder.pca)
    moved = _responses(encoder, active, encoder.inputs) / scale
    weights[active] = np.sqrt((moved.astype(np.float64) ** 2).sum(axis=1))
    weights[active] /= _spread(encoder)[active]
    return weights


def correlation_loadings(
    encoder: Encoder, data: Any, *, min_coverage: float = MIN_COVERAGE
) -> Loadings:
    """Pearson correlation over samples of each active unit's latent mean with each gene.

    Parameters
    ----------
    encoder : Encoder
    data : path, AnnData, DataFrame, Matrix or (array, names)
        Samples without missing levels. Read by blocks.
    min_coverage : float
        Smallest share of the encoder's genes that must be found.

    Returns
    -------
    Loadings
        NaN for genes that the data lack; 0 where a gene or a unit is constant. Of counts their
        normalised logarithms are correlated.

    Raises
    ------
    InputError
        If no unit is active, or the data do not suit the encoder.
    """
    active = _active(encoder)
    aligned = encoder.align(data, min_coverage=min_coverage)
    n_genes = len(encoder.genes)
    of_units, of_genes = np.zeros((2, active.size)), np.zeros((2, n_genes))
    cross, n = np.zeros((active.size, n_genes)), 0
    for _, X, codes in encoder.blocks(aligned):
        Z = encoder.encode_array(X, codes)[:, active].astype(np.float64)
        X, n = encoder.inputs(X, codes).astype(np.float64), n + len(Z)
        of_units += Z.sum(axis=0), (Z**2).sum(axis=0)
        of_genes += X.sum(axis=0), (X**2).sum(axis=0)
        cross += Z.T @ X
    values = _correlations(max(n, 1), of_units, of_genes, cross)
    values[:, ~aligned.present] = np.nan
    return _table(encoder, active, values, Units())


def _correlations(
    n: int, of_units: np.ndarray, of_genes: np.ndarray, cross: np.ndarray
) -> np.ndarray:
    """Correlations from sums and squares, (2, n), and sums of products; 0 where one is constant."""
    covariance = cross / n - np.outer(of_units[0], of_genes[0]) / n**2
    both = [of_units / n, of_genes / n]
    varies = [np.maximum(squares - mean**2, 0) for mean, squares in both]
    moves = [v > 1e-10 * squares for v, (_, squares) in zip(varies, both, strict=True)]
    found = np.zeros_like(covariance)
    product = np.sqrt(np.outer(*varies))
    np.divide(covariance, product, out=found, where=np.logical_and.outer(*moves))
    return found.astype(np.float32)


def _responses(encoder: Encoder, active: np.ndarray, seen: OfRows) -> np.ndarray:
    """What `seen`, of expected levels and classes, gains over a standard deviation of each unit."""
    codes = None
    if encoder.condition is not None:
        codes = np.arange(encoder.condition.n_classes)
    Z = encoder.encode_array(_mean_samples(encoder), codes)
    steps = np.diag(0.5 * _spread(encoder)).astype(np.float32)
    values = np.zeros((active.size, len(encoder.genes)), dtype=np.float32)
    for i, unit in enumerate(active):
        above, below = (
            seen(encoder.decode(Z + sign * steps[unit], codes), codes) for sign in (1, -1)
        )
        values[i] = (above - below).mean(axis=0)
    return values


def _active(encoder: Encoder) -> np.ndarray:
    """Places of the units that carry anything, as the summary counts them."""
    active = np.array(encoder.summary["mu_variance"], dtype=float) > ACTIVE_VARIANCE
    if encoder.summary["kl_per_unit"] is not None:
        active &= np.array(encoder.summary["kl_per_unit"], dtype=float) > ACTIVE_KL
    if not active.any():
        raise InputError(
            f"latent units: expected some that carry something; found none of "
            f"{encoder.n_latent}: train with a lower --beta"
        )
    return np.flatnonzero(active)


def _spread(encoder: Encoder) -> np.ndarray:
    """Standard deviation of each latent over the samples of the summary, shape (n_latent,)."""
    own = np.sqrt(np.array(encoder.summary["mu_variance"], dtype=float))
    return own * encoder.latent_scale


def _mean_samples(encoder: Encoder) -> np.ndarray:
    """The mean training sample (of each class) in the units of training, (n_classes, n_genes)."""
    if not encoder.module.of_counts:
        return encoder.scaler.invert(class_means(encoder.pca.mean, encoder.condition))
    n_classes = 1 if encoder.condition is None else encoder.condition.n_classes
    return np.tile(encoder.recipe.gene_means, (n_classes, 1))


def _table(encoder: Encoder, active: np.ndarray, values: np.ndarray, units: Units) -> Loadings:
    kl = encoder.summary["kl_per_unit"] or [np.nan] * encoder.n_latent
    obs = pd.DataFrame(
        {"sd": _spread(encoder)[active], "kl": np.array(kl, dtype=float)[active]},
        index=pd.Index([f"z{unit + 1}" for unit in active], dtype=object),
    )
    return Loadings(values, obs, encoder.recipe.gene_names, units)


def run_loadings(
    run: PathLike,
    out: PathLike,
    *,
    data: PathLike | None = None,
    min_coverage: float,
    aliases: PathLike | None = None,
    force: bool = False,
) -> str:
    """Write the loadings of every active latent unit.

    Parameters
    ----------
    run, out : path
    data : path, optional
        Samples over which latents and genes are correlated. Left out: by the decoder.
    min_coverage : float
        Smallest share of the encoder's genes that `data` must have.
    aliases : path, optional
        Other names of the genes of `data`.
    force : bool

    Returns
    -------
    str
        One line about what was written.
    """
    refuse_existing(out, force=force)
    encoder = load_encoder(run)
    if data is None:
        found, how = decoder_loadings(encoder), "decoder"
    else:
        with open_matrix(data, aliases=aliases) as matrix:
            found = correlation_loadings(encoder, matrix, min_coverage=min_coverage)
        how = "correlation"
    if len(found.obs) < encoder.n_latent:
        log.info("%d units that carry nothing left out", encoder.n_latent - len(found.obs))
    record = {"command": "loadings", "by": how}
    write_matrix(
        out, found.values, obs=found.obs, var=found.var, units=found.units,
        uns={"m1pipe": record}, force=force,
    )  # fmt: skip
    largest = np.nanmax(np.abs(found.values))
    return (
        f"{out}: {len(found.obs)} of {encoder.n_latent} latent units x {len(found.var):,} genes "
        f"by {how}, at most {largest:.2f} in size; next: m1pipe enrich {out} --top 100 ..."
    )
