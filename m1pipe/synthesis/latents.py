"""Latents of synthetic samples: from the prior, a fitted mixture, or the training samples' own."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from m1pipe import seeds
from m1pipe.artefacts import pack_arrays, read_arrays, reading
from m1pipe.atomic import write_bytes
from m1pipe.data.matrix import Matrix
from m1pipe.encoder import Encoder
from m1pipe.errors import InputError
from m1pipe.models.count_likelihoods import CountInputs
from m1pipe.synthesis.mixture import Mixture, fit_mixture, standard

FORMAT_VERSION = 1
CHUNK_ROWS = 1024
Mixtures = tuple[Mixture, ...]  # by class; one where the model is not conditional


@dataclass(frozen=True, eq=False)
class AggregatedPosterior:
    """The posterior of every training sample; together the aggregated posterior.

    Attributes
    ----------
    mu, sd : ndarray, shape (n_samples, n_latent)
        Means and standard deviations. For counts one column more: the log of the total
        count, with standard deviation 0.
    codes : ndarray of int64, shape (n_samples,)
        Classes; 0 where the model is not conditional.
    scale : ndarray, shape (n_latent,), optional
        Of the prior of the same columns. Left out: 1.
    """

    mu: np.ndarray
    sd: np.ndarray
    codes: np.ndarray
    scale: np.ndarray | None = None

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One draw of the latents of each of these rows, float64, shape (n_rows, n_latent)."""
        noise = rng.standard_normal((rows.size, self.mu.shape[1]))
        return np.asarray(self.mu[rows] + self.sd[rows] * noise)


def aggregated_posterior(encoder: Encoder, matrix: Matrix) -> AggregatedPosterior:
    """Posterior of the training samples, read from the training data.

    Parameters
    ----------
    encoder : Encoder
    matrix : Matrix
        Holds the samples that the encoder was trained on, by name, among others perhaps.

    Raises
    ------
    InputError
        If one of them is not there.
    """
    place = {name: i for i, name in enumerate(matrix.samples)}
    lacking = [name for name in encoder.samples if name not in place]
    if lacking or not encoder.samples:
        raise InputError(
            f"{matrix.path or 'data'}: expected the {len(encoder.samples)} samples that the model "
            f"was trained on; {len(lacking)} are not there, {(*lacking, None)[0]!r} first"
        )
    aligned = encoder.align(encoder.as_trained(matrix), keep_missing=True)
    rows = np.array([place[name] for name in encoder.samples])
    classes = encoder.codes(matrix, rows)
    parts = []
    for start in range(0, rows.size, CHUNK_ROWS):
        here = slice(start, start + CHUNK_ROWS)
        told = None if classes is None else classes[here]
        parts.append(_with_depth(encoder, aligned.take(rows[here]), told))
    mu, sd = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
    known = np.zeros(rows.size, dtype=np.int64) if classes is None else classes
    return AggregatedPosterior(mu, sd, known, _prior_scale(encoder))


def _prior_scale(encoder: Encoder) -> np.ndarray:
    """Scale of the latents, and 1 for the log library beside them in a model of counts."""
    scale = encoder.latent_scale.astype(np.float64)
    return np.append(scale, 1.0) if encoder.module.of_counts else scale


def _with_depth(
    encoder: Encoder, X: np.ndarray, codes: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior means and standard deviations, the log library beside them for counts."""
    mu, sd = encoder.posterior_array(X, codes)
    if not encoder.module.of_counts:
        return mu, sd
    depth = np.log(np.maximum(X.sum(axis=1, keepdims=True), 1))
    return np.hstack([mu, depth]), np.hstack([sd, np.zeros_like(depth)])


def fit_mixtures(posterior: AggregatedPosterior, n_classes: int, *, seed: int) -> Mixtures:
    """Fit a mixture of normals a class to the aggregated posterior.

    A class may take the mixture of all samples, or the prior, where its own is not worth its
    parameters.

    Parameters
    ----------
    posterior : AggregatedPosterior
    n_classes : int
        0 or 1 where the model is not conditional.
    seed : int
    """
    Z = posterior.draw(np.arange(len(posterior.mu)), seeds.rng(seed, seeds.MIXTURE_LATENTS))
    scale = np.ones(Z.shape[1]) if posterior.scale is None else posterior.scale
    Z /= scale  # the mixture is fitted to units of one scale
    whole = fit_mixture(Z, seed=seed)
    if n_classes < 2:
        return (whole.scaled(scale),)
    mixtures = [
        fit_mixture(Z[posterior.codes == k], seed=seed, shared=whole) for k in range(n_classes)
    ]
    return tuple(mixture.scaled(scale) for mixture in mixtures)


def prior_mixtures(encoder: Encoder) -> Mixtures:
    """The prior of the latents for every class; the log library of training rows beside it."""
    scale = _prior_scale(encoder)
    prior = standard(scale.size).scaled(scale)
    if isinstance(encoder.module.inputs, CountInputs):
        mean, sd = encoder.module.inputs.log_library.tolist()
        prior.means[0, -1], prior.factors[0, -1, -1] = mean, sd
    n_classes = 1 if encoder.condition is None else encoder.condition.n_classes
    return (prior,) * n_classes


def draw_mixtures(mixtures: Mixtures, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Latents of samples of these classes, float32, shape (n_samples, n_latent)."""
    Z = np.empty((codes.size, mixtures[0].means.shape[1]), dtype=np.float32)
    for k in np.unique(codes):
        here = np.flatnonzero(codes == k)
        Z[here] = mixtures[k].sample(here.size, rng)
    return Z


def draw_posterior(
    posterior: AggregatedPosterior, codes: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Latents near those of training samples of the same class: not private.

    Returns
    -------
    ndarray of float32, shape (n_samples, n_latent)
    """
    Z = np.empty((codes.size, posterior.mu.shape[1]), dtype=np.float32)
    for k in np.unique(codes):
        here = np.flatnonzero(codes == k)
        rows = rng.choice(np.flatnonzero(posterior.codes == k), here.size)
        Z[here] = posterior.draw(rows, rng)
    return Z


def save_mixtures(mixtures: Mixtures, path: str | os.PathLike[str], *, model: str) -> None:
    """Write the mixtures with the digest of the model that they belong to."""
    arrays = {}
    for k, mixture in enumerate(mixtures):
        for name in ("weights", "means", "factors"):
            arrays[f"{k}.{name}"] = getattr(mixture, name)
    facts = {"kinds": [m.kind for m in mixtures], "version": FORMAT_VERSION, "model": model}
    packed = pack_arrays(arrays, metadata={"m1pipe": json.dumps(facts)})
    write_bytes(path, packed)


def load_mixtures(path: str | os.PathLike[str], *, model: str) -> Mixtures | None:
    """Mixtures that `save_mixtures` wrote; None if there are none of this model.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    if not Path(path).is_file():
        return None
    what, remedy = "mixtures written by m1pipe", "remove the file, and it is made anew"
    arrays, texts = read_arrays(path, what, remedy=remedy)
    with reading(path, what, remedy=remedy):
        facts = json.loads(texts["m1pipe"])
        if facts["version"] != FORMAT_VERSION or facts["model"] != model:
            return None
        return tuple(_mixture(arrays, k, kind) for k, kind in enumerate(facts["kinds"]))


def _mixture(arrays: Mapping[str, np.ndarray], k: int, kind: str) -> Mixture:
    return Mixture(kind, *(arrays[f"{k}.{name}"] for name in ("weights", "means", "factors")))
