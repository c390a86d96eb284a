"""What `m1pipe generate` does: draw latents, decode them, write an h5ad of the samples."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from m1pipe import seeds
from m1pipe.atomic import PathLike, refuse_existing
from m1pipe.console import log, over_rows
from m1pipe.encoder import Encoder, load_encoder
from m1pipe.encoder.bundle import run_files
from m1pipe.encoder.trained import MIXTURE_FILE
from m1pipe.errors import InputError, counted
from m1pipe.io.reader import open_matrix
from m1pipe.io.writer import MatrixWriter
from m1pipe.provenance import training_data
from m1pipe.synthesis import latents
from m1pipe.synthesis.config import GenerateConfig
from m1pipe.synthesis.sample import (
    TOTALS,
    DrawLatents,
    allot,
    calibrated_samples,
    closure,
    totals,
)

NOT_PRIVATE = "not private: nearly copies of training samples"


def run_generate(
    run: PathLike,
    out: PathLike,
    config: GenerateConfig,
    *,
    data: PathLike | None = None,
    force: bool = False,
) -> str:
    """Write synthetic samples of a trained model.

    Parameters
    ----------
    run : path
        Folder of the model. The mixture of its latents is kept there when it is first fitted.
    out : path
        The h5ad file.
    config : GenerateConfig
    data : path, optional
        The training data, where they lie elsewhere than in training.
    force : bool
        Replace a file of that name.

    Returns
    -------
    str
        One line about what was made.

    Raises
    ------
    InputError
        If the model is a plain autoencoder, a class was not trained on, or the training data are
        needed and not to be had.
    """
    refuse_existing(out, force=force)
    encoder = load_encoder(run)
    if encoder.config.model.beta == 0 and config.sampler == "prior":
        raise InputError(
            f"{run}: expected a model with a prior; found a plain autoencoder (beta 0): "
            "take --sampler gmm"
        )
    codes = allot(encoder, config.n, _wanted(encoder, config))
    rng = seeds.rng(config.seed, seeds.GENERATED_LATENTS)
    with run_files(run) as folder:
        draw, source = _latents(encoder, folder, config, data, rng)
    blocks = calibrated_samples(encoder, codes, draw, noise=config.noise, seed=config.seed)
    obs, made = _annotations(encoder, config, codes, source)
    with MatrixWriter(
        out,
        obs=obs,
        var=encoder.recipe.gene_names,
        units=encoder.units,
        force=force,
        uns={"synthetic": made},
    ) as writer:
        sums = []
        for start, X in over_rows(blocks, codes.size):
            writer.write(start, X)
            sums.append(totals(X, encoder.units))
    found = closure(np.concatenate(sums), encoder.units)
    text = (
        f"{out}: {counted(codes.size, 'synthetic sample')} x "
        f"{counted(len(encoder.genes), 'gene')}, {source}"
    )
    private = f"; {NOT_PRIVATE}" if config.sampler == "posterior" else ""
    if found:
        log.info("totals of these samples: %s", _totals_text(found))
    return text + _classes_text(encoder, codes) + private


def _wanted(encoder: Encoder, config: GenerateConfig) -> dict[str, int]:
    """Class to number of samples, of the column that the model is conditioned on."""
    column = None if encoder.condition is None else encoder.condition.column
    for name, _, _ in config.condition:
        if column is not None and name != column:
            raise InputError(
                f"condition: expected the column {column!r}, which the model is conditioned on; "
                f"found {name!r}"
            )
    wanted = {value: number for _, value, number in config.condition}
    if len(wanted) < len(config.condition):
        raise InputError("condition: expected each class once; found one again")
    return wanted


def _latents(
    encoder: Encoder,
    run: Path,
    config: GenerateConfig,
    data: PathLike | None,
    rng: np.random.Generator,
) -> tuple[DrawLatents, str]:
    """What draws latents of given classes, and where they come from in words."""
    n_classes = 0 if encoder.condition is None else encoder.condition.n_classes
    if config.sampler == "prior":
        prior = latents.prior_mixtures(encoder)
        return partial(latents.draw_mixtures, prior, rng=rng), "prior"
    if config.sampler == "posterior":
        log.warning("warning: these samples are %s", NOT_PRIVATE)
        posterior = _training_posterior(encoder, run, data)
        draw = partial(latents.draw_posterior, posterior, rng=rng)
        return draw, "training samples' own latents"
    mixtures = latents.load_mixtures(run / MIXTURE_FILE, model=encoder.digest())
    if mixtures is None:
        log.info("fitting the mixture of latents, once for this model")
        posterior = _training_posterior(encoder, run, data)
        seed = encoder.config.training.seed
        mixtures = latents.fit_mixtures(posterior, n_classes, seed=seed)
        _keep(mixtures, run / MIXTURE_FILE, encoder.digest())
    n_normals = sum(mixture.n_components for mixture in mixtures)
    return partial(latents.draw_mixtures, mixtures, rng=rng), f"mixture of {n_normals} normals"


def _training_posterior(
    encoder: Encoder, run: Path, data: PathLike | None
) -> latents.AggregatedPosterior:
    """Posterior of the training samples, from the file that the run began with."""
    what_for = "for the distribution of its latents"
    advice = "say where it is with --data, or take --sampler prior"
    with open_matrix(training_data(run, data, what_for, advice)) as matrix:
        return latents.aggregated_posterior(encoder, matrix)


def _keep(mixtures: latents.Mixtures, path: Path, digest: str) -> None:
    """Keep the mixture with the model, so that the next samples need no training data."""
    try:
        latents.save_mixtures(mixtures, path, model=digest)
    except OSError as error:
        log.info("%s: the mixture could not be kept (%s) and will be fitted again", path, error)


def _annotations(
    encoder: Encoder, config: GenerateConfig, codes: np.ndarray, source: str
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Annotations of the samples, and what made them."""
    names = [f"synthetic_{i + 1}" for i in range(codes.size)]
    obs = pd.DataFrame({"synthetic": np.ones(codes.size, dtype=bool)}, index=names)
    if encoder.condition is not None:
        obs[encoder.condition.column] = np.asarray(encoder.condition.classes, dtype=object)[codes]
    made = {
        "model": encoder.digest(),
        "seed": config.seed,
        "sampler": config.sampler,
        "latents": source,
        "noise": config.noise,
    }
    if config.sampler == "posterior":
        obs["private"] = "no"
        made["caution"] = NOT_PRIVATE
    return obs, made


def _classes_text(encoder: Encoder, codes: np.ndarray) -> str:
    """How many samples of each class, for a conditional model."""
    if encoder.condition is None:
        return ""
    classes, counts = np.unique(np.asarray(encoder.condition.classes)[codes], return_counts=True)
    named = [f"{name} {n:,}" for name, n in zip(classes, counts, strict=True)]
    more = f" and {len(named) - 3} more" if len(named) > 4 else ""
    return f"; {encoder.condition.column} {', '.join(named[:3] if more else named)}{more}"


def _totals_text(found: dict[str, float]) -> str:
    """Totals of the samples beside their target."""
    low, middle, high = (found[name] for name in TOTALS)
    text = f"{middle:,.0f} ({low:,.0f} to {high:,.0f})"
    return text + (f" of {found['target_sum']:,.0f}" if "target_sum" in found else "")
