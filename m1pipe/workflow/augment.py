"""The generator of `--augment`: a conditional autoencoder of the rows of one training fold."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import anndata
import numpy as np
import pandas as pd

from m1pipe import seeds
from m1pipe.config import EncoderConfig, ModelConfig, TrainingConfig
from m1pipe.console import log
from m1pipe.encoder import Encoder, train_encoder
from m1pipe.errors import counted
from m1pipe.evaluation.augment import (
    GeneratorRequest,
)
from m1pipe.io.reader import open_matrix
from m1pipe.synthesis import latents
from m1pipe.synthesis.sample import calibrated_samples

COLUMN = "class"
MOST_LATENT = 16
EPOCHS = 20


def generator_config(
    n_genes: int, n_rows: int, seed: int, device: str, *, counts: bool = False
) -> EncoderConfig:
    """Settings of the generator: normal scores, conditioned on the class, a few epochs.

    Parameters
    ----------
    n_genes, n_rows : int
        Shape of what it is trained on; the latents are fewer than either.
    seed : int
    device : str
    counts : bool
        The levels are counts, which get a negative binomial likelihood as they are.
    """
    n_latent = max(1, min(MOST_LATENT, n_genes // 4, n_rows // 8))
    model = ModelConfig(n_latent=n_latent, transform="normal_score", condition=COLUMN)
    if counts:
        model = replace(model, transform=None, likelihood="negative_binomial")
    return EncoderConfig(
        model=model, training=TrainingConfig(epochs=EPOCHS, seed=seed, device=device)
    )


def train_generator(request: GeneratorRequest) -> tuple[np.ndarray, np.ndarray]:
    """Train a conditional autoencoder on the rows of a request, and sample from it.

    Latents come from where the request says (a mixture a class, N(0, I), or the rows' own),
    levels with the model's noise, as of `m1pipe generate`.
    Its own early stopping holds out a tenth of each class, donors or not, so that every class with
    two rows is trained on.

    Parameters
    ----------
    request : GeneratorRequest

    Returns
    -------
    X : ndarray of float32, shape (n_made, n_genes)
        In the units of the request.
    codes : ndarray of int64, shape (n_made,)
        Ascending.

    Raises
    ------
    InputError
        If there is one class only, or counts in units that are not known to be counts.
    """
    names = np.asarray(request.classes, dtype=object)
    matrix = open_matrix(
        anndata.AnnData(
            X=request.X,
            obs=pd.DataFrame({COLUMN: names[request.codes]}, index=_samples(request.codes.size)),
            var=pd.DataFrame(index=list(request.genes)),
            uns=request.units.to_uns(),
        )
    )
    n_rows, n_genes = request.X.shape
    counts = request.units.is_counts
    config = generator_config(n_genes, n_rows, request.seed, request.device, counts=counts)
    encoder = train_encoder(matrix, config)
    if encoder.condition is None:
        raise ValueError("generator: expected a conditional model")
    rng = seeds.rng(request.seed, seeds.AUGMENTING_LATENTS)
    draw = _latents(encoder, latents.aggregated_posterior(encoder, matrix), request)
    codes = np.repeat(np.arange(request.wanted.size), request.wanted)
    told = encoder.condition.codes(pd.DataFrame({COLUMN: names[codes]}), "augment")
    blocks = calibrated_samples(
        encoder, told, partial(draw, rng=rng), noise=True, seed=request.seed
    )
    X = np.concatenate([block for _, block in blocks])
    log.info(
        "generator: trained on %d samples, %s, %d made",
        n_rows,
        counted(encoder.summary["epochs"], "epoch"),
        codes.size,
    )
    return X, codes


def _latents(
    encoder: Encoder, posterior: latents.AggregatedPosterior, request: GeneratorRequest
) -> Callable[..., np.ndarray]:
    """What draws latents of given classes."""
    if request.sampler == "posterior":
        return partial(latents.draw_posterior, posterior)
    if request.sampler == "prior":
        return partial(latents.draw_mixtures, latents.prior_mixtures(encoder))
    n_classes = 0 if encoder.condition is None else encoder.condition.n_classes
    mixtures = latents.fit_mixtures(posterior, n_classes, seed=request.seed)
    return partial(latents.draw_mixtures, mixtures)


def _samples(n: int) -> list[str]:
    return [f"s{i + 1}" for i in range(n)]
