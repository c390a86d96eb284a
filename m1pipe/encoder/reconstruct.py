"""A file put through a model: reconstructed, imputed, scored."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from m1pipe.artefacts import read_json, reading
from m1pipe.atomic import PathLike, refuse_existing, write_json
from m1pipe.console import log
from m1pipe.data.matrix import Matrix
from m1pipe.data.recipe import Aligned, align, match_recipe, missing_uns, unknown_units
from m1pipe.data.units import Units
from m1pipe.encoder import Encoder, load_encoder
from m1pipe.encoder.bundle import run_files
from m1pipe.encoder.likelihood import log_likelihood
from m1pipe.encoder.missing import impute_array
from m1pipe.encoder.trained import QUANTILES_FILE, OfRows
from m1pipe.errors import InputError, counted
from m1pipe.io.reader import open_matrix
from m1pipe.io.writer import MatrixWriter, write_matrix
from m1pipe.provenance import training_data

MOST_TRAINING = 1000
QUANTILES = "log_likelihood_a_level"


def run_reconstruct(
    run: PathLike,
    data: PathLike,
    out: PathLike,
    *,
    min_coverage: float,
    aliases: PathLike | None = None,
    force: bool = False,
) -> str:
    """Write the levels that the model expects of each sample, from its latent means.

    Returns
    -------
    str
        One line about what was written.
    """
    refuse_existing(out, force=force)
    encoder = load_encoder(run)
    with open_matrix(data, aliases=aliases) as matrix:
        aligned = encoder.align(matrix, min_coverage=min_coverage, keep_missing=True)
        n_missing, _ = _write_rows(out, encoder, aligned, encoder.reconstruct_array, force)
        _tell_missing(n_missing, matrix.n_samples, encoder)
        return (
            f"{out}: {counted(matrix.n_samples, 'sample')} x "
            f"{counted(len(encoder.genes), 'gene')}, reconstructed"
        )


def run_impute(
    run: PathLike,
    data: PathLike,
    out: PathLike,
    *,
    min_coverage: float,
    aliases: PathLike | None = None,
    force: bool = False,
) -> str:
    """Write a file's levels with those that are missing filled in.

    Returns
    -------
    str
        One line: how many there were.
    """
    refuse_existing(out, force=force)
    encoder = load_encoder(run)
    encoder.refuse_centred("impute")
    with open_matrix(data, aliases=aliases) as matrix:
        aligned = align(
            matrix, encoder.recipe, min_coverage=min_coverage, keep_missing=True, keep_lacking=True
        )
        if matrix.units.is_counts and not encoder.units.is_counts:
            raise InputError(
                f"{data}: expected {encoder.units}, as in training; found counts, whose totals are "
                "not known where some are missing: convert them first"
            )
        missing, total = _write_rows(out, encoder, aligned, partial(impute_array, encoder), force)
    return f"{out}: {missing:,} of {total:,} levels were missing ({missing / max(total, 1):.2%})"


def run_score(
    run: PathLike,
    data: PathLike,
    out: PathLike,
    *,
    min_coverage: float,
    aliases: PathLike | None = None,
    force: bool = False,
) -> str:
    """Write how probable the model finds each sample, and where among training samples that is.

    Returns
    -------
    str
        One line: how many lie below 99 % of the training samples.
    """
    refuse_existing(out, force=force)
    encoder = load_encoder(run)
    if encoder.config.model.beta == 0:
        raise InputError(
            f"{run}: expected a model with a likelihood; found a plain autoencoder (beta 0)"
        )
    with run_files(run) as folder:
        known = _training_quantiles(encoder, folder)
    with open_matrix(data, aliases=aliases) as matrix:
        scores, n_known = log_likelihood(encoder, matrix, min_coverage=min_coverage)
        uns = missing_uns(match_recipe(matrix, encoder.recipe, min_coverage=min_coverage).missing)
        percentile = 100 * np.searchsorted(known, scores / n_known) / len(known)
        _tell_missing(n_known.size * len(encoder.genes) - int(n_known.sum()), n_known.size, encoder)
        table = np.column_stack([scores, percentile]).astype(np.float32)
        var = pd.DataFrame(index=["log_likelihood", "percentile"])
        write_matrix(out, table, obs=matrix.obs, var=var, units=Units(), uns=uns, force=force)
    low = float((percentile <= 1).mean())
    return (
        f"{out}: {counted(len(scores), 'sample')}, log-likelihood {np.median(scores):,.1f} "
        "(median); "
        f"{low:.1%} less probable than 99 % of the training samples"
    )


def _write_rows(
    out: PathLike, encoder: Encoder, aligned: Aligned, change: OfRows, force: bool
) -> tuple[int, int]:
    """Write what `change` makes of each block of rows; levels that were missing, and all."""
    matrix: Matrix = aligned.matrix
    var = encoder.recipe.gene_names
    uns = missing_uns(aligned.match.missing, unknown_units(matrix, encoder.units))
    with MatrixWriter(
        out, obs=matrix.obs, var=var, units=encoder.units, uns=uns, force=force
    ) as writer:
        n_missing = n_levels = 0
        for here, X, codes in encoder.blocks(aligned):
            n_missing, n_levels = n_missing + int(np.isnan(X).sum()), n_levels + X.size
            writer.write(here.start, change(X, codes))
    return n_missing, n_levels


def _tell_missing(n_missing: int, n_samples: int, encoder: Encoder) -> None:
    """Say how many levels of a file were missing, where some were."""
    if n_missing:
        share = n_missing / (n_samples * len(encoder.genes))
        log.info("%s levels are missing (%.2f %% of the model's)", f"{n_missing:,}", 100 * share)


def _training_quantiles(encoder: Encoder, run: Path) -> np.ndarray:
    """Log-likelihoods of training samples a level, ascending; kept with the run."""
    path = run / QUANTILES_FILE
    if path.is_file():
        remedy = "remove the file, and it is made anew"
        stored = read_json(path, "scores of training samples", remedy=remedy)
        with reading(path, "scores of training samples", remedy=remedy):
            if stored["model"] == encoder.digest() and QUANTILES in stored:
                known = np.asarray(stored[QUANTILES], dtype=np.float64)
                if known.ndim != 1 or not known.size or not np.isfinite(known).all():
                    raise ValueError(f"{QUANTILES} are no list of numbers")
                return known
    log.info("scoring the training samples, once for this model")
    advice = "put it back, or let m1pipe score run once where it is"
    with open_matrix(training_data(run, None, "to compare with", advice)) as matrix:
        place = {name: i for i, name in enumerate(matrix.samples)}
        rows = np.array([place[name] for name in encoder.samples if name in place])
        if rows.size > MOST_TRAINING:
            rows = np.sort(np.random.default_rng(0).permutation(rows)[:MOST_TRAINING])
        scores, n_known = log_likelihood(encoder, encoder.as_trained(matrix), rows=rows)
    known = np.sort(scores / n_known)
    try:
        write_json(path, {"model": encoder.digest(), QUANTILES: known.tolist()})
    except InputError as error:
        log.info("%s: could not be kept (%s)", path, error)
    return known
