"""Alarms about fitted models: predictors and latents that collapsed, heads worse than the mean.

Every guard is a pure function that returns the alarms it finds, mostly none. Those about the
design, known before any fit, are in `m1pipe.evaluation.design` and `confounding`.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from m1pipe.data.depth import APART
from m1pipe.evaluation.result import Alarm, Severity

LARGEST_DEPTH_R = 0.8
_SMALLEST_SPREAD = 1e-5  # of the targets' range
_MOST_DEAD = 0.1
_WORST_RECONSTRUCTION = 0.05


def collapsed_predictor(
    row: str, prediction: ArrayLike, targets: ArrayLike | None = None
) -> list[Alarm]:
    """Whether a model predicts the same for every sample, as a dead network does.

    Parameters
    ----------
    row : str
        Name of the model; not to be asked of the training mean or the prior.
    prediction : array_like, shape (n_samples, n_outputs)
        Levels, or probabilities.
    targets : array_like, shape (n_samples, n_outputs), optional
        Levels, whose range is the scale of the prediction's; 1 for probabilities.
    """
    predicted = np.asarray(prediction)
    if len(predicted) < 2:
        return []
    scale = np.ones(1) if targets is None else np.ptp(np.asarray(targets), axis=0)
    if (np.ptp(predicted, axis=0) > _SMALLEST_SPREAD * scale).any() or not scale.any():
        return []
    text = f"{row} predicts the same for every sample: it learned nothing, or its network is dead."
    return [Alarm("collapsed_predictor", "severe", text)]


def below_yardstick(
    losses: Mapping[str, np.ndarray], folds: np.ndarray, *, yardstick: str, metric: str = "loss"
) -> list[Alarm]:
    """Models that do not beat the training mean (or the prior), over all or in some folds.

    Parameters
    ----------
    losses : mapping of str to ndarray, shape (n_repeats, n_samples)
    folds : ndarray of int, shape (n_repeats, n_samples)
    yardstick : str
        Name of the constant row.
    metric : str
        Name of the loss, for the text.
    """
    masks = [(r, folds[r] == k) for r in range(len(folds)) for k in np.unique(folds[r])]
    base = losses[yardstick]
    found = []
    for row, loss in losses.items():
        if row == yardstick:
            continue
        lost = sum(bool(loss[r][here].mean() >= base[r][here].mean()) for r, here in masks)
        if loss.mean() >= base.mean():
            text = (
                f"{row} does not beat {yardstick}: {metric} {loss.mean():.4g} against "
                f"{base.mean():.4g}. Better than {row} means little here."
            )
            found.append(Alarm("below_yardstick", "warning", text))
        elif lost:
            text = f"{row} does not beat {yardstick} in {lost} of {len(masks)} folds."
            found.append(Alarm("below_yardstick", "note", text))
    return found


def collapsed_units(encoder: str, n_active: int, n_latent: int) -> list[Alarm]:
    """Latent units that carry nothing: pruned by the KL, or dead.

    Parameters
    ----------
    encoder : str
    n_active, n_latent : int
        Units that carry something, and all.
    """
    if n_active >= n_latent:
        return []
    if n_active == 0:
        text = f"{encoder}: none of the {n_latent} latent units carries anything (collapse)."
        return [Alarm("collapsed_latents", "severe", text)]
    text = (
        f"{encoder}: {n_latent - n_active} of {n_latent} latent units carry next to nothing; its "
        f"effective width is {n_active}."
    )
    severity: Severity = "warning" if n_active < n_latent / 2 else "note"
    return [Alarm("collapsed_latents", severity, text)]


def dead_relus(encoder: str, dead_share: float) -> list[Alarm]:
    """Hidden units whose output never changes.

    Parameters
    ----------
    encoder : str
        Or any other network.
    dead_share : float
        Share of its hidden units whose output is the same for every sample.
    """
    if not dead_share > _MOST_DEAD:
        return []
    text = (
        f"{encoder}: {dead_share:.0%} of the hidden units are dead (the same output for every "
        "sample). Standardise the inputs, or use leaky_relu."
    )
    return [Alarm("dead_units", "severe" if dead_share > 0.5 else "warning", text)]


def library_size_axes(
    encoder: str, correlations: ArrayLike, depth: str = "library size"
) -> list[Alarm]:
    """Latent axes that follow library size, |r| > 0.8.

    Parameters
    ----------
    encoder : str
    correlations : array_like, shape (n_latent,)
        Of each latent with library size.
    depth : str
        What stands for library size.
    """
    r = np.abs(np.nan_to_num(np.asarray(correlations, dtype=np.float64)))
    follow = np.flatnonzero(r > LARGEST_DEPTH_R)
    if not len(follow):
        return []
    named = ", ".join(str(j + 1) for j in follow[:5]) + (", ..." if len(follow) > 5 else "")
    text = (
        f"{encoder}: latent {named} follows {depth} (largest |r| {r.max():.2f}): part of what it "
        "encodes is sequencing depth, not biology."
    )
    return [Alarm("latent_follows_depth", "warning", text)]


def depth_apart(encoder: str, trained: float | None, own: float | None) -> list[Alarm]:
    """Samples sequenced much deeper, or less deeply, than those that an encoder was trained on.

    Parameters
    ----------
    encoder : str
    trained, own : float or None
        Median total counts of the training samples, as training saw them, and of the samples at
        hand; None where they are not known.
    """
    if not trained or not own or 1 / APART < trained / own < APART:
        return []
    text = (
        f"{encoder} was trained on samples with a median of {trained:,.0f} counts; those here have "
        f"{own:,.0f}: "
    )
    if trained > own:
        text += "train it on raw counts thinned to the depth of this file (m1pipe train --thin-to)."
    else:
        text += "its latents were fitted to noisier levels than these."
    return [Alarm("depth_differs", "warning", text)]


def weak_encoder(encoder: str, r2: float | None, pca_r2: float | None) -> list[Alarm]:
    """An encoder that reconstructs clearly worse than a PCA of the same width.

    Parameters
    ----------
    encoder : str
    r2, pca_r2 : float or None
        Reconstruction R2 of both on the same rows.
    """
    if r2 is None or pca_r2 is None or not r2 < pca_r2 - _WORST_RECONSTRUCTION:
        return []
    text = (
        f"{encoder} reconstructs less than a PCA of the same width (R2 {r2:.3f} against "
        f"{pca_r2:.3f}): it is not well trained, and this is no fair test of its kind."
    )
    return [Alarm("weak_encoder", "warning", text)]


def untested_pairs(comparisons: pd.DataFrame, headline: str = "nadeau_bengio") -> list[Alarm]:
    """Pairs whose headline test has no p value.

    Parameters
    ----------
    comparisons : DataFrame, shape (n_tests, n_columns)
        As returned by `m1pipe.evaluation.compare.compare`.
    headline : str
        Name of the test.
    """
    rows = comparisons[(comparisons["test"] == headline) & comparisons["p"].isna()]
    return [
        Alarm(
            "not_testable",
            "note",
            f"{row['model_a']} against {row['model_b']}: no p value, since the "
            + (
                "differences of all folds are equal."
                if row["n_independent"] > 1
                else "fold is one."
            ),
        )
        for _, row in rows.iterrows()
    ]
