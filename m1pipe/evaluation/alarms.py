"""Alarms about data and fitted models: each function returns the alarms it finds, mostly none."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from m1pipe.data.depth import APART
from m1pipe.encoder.drift import Drift
from m1pipe.errors import Alarm, Severity, counted

LARGEST_DEPTH_R = 0.8
_SMALLEST_SPREAD = 1e-5  # of the targets' range
_MOST_DEAD = 0.1
_WORST_RECONSTRUCTION = 0.05
FEW_GROUPS = 10
ENOUGH_TO_REPEAT = 200  # samples; with fewer the corrected test over repeated folds is liberal


def collapsed_predictor(
    model: str, prediction: ArrayLike, targets: ArrayLike | None = None
) -> list[Alarm]:
    """Whether a model predicts the same for every sample, as a dead network does.

    Parameters
    ----------
    model : str
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
    text = (
        f"{model} predicts the same for every sample: it learned nothing, or its network is dead."
    )
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
        Name of the constant.
    metric : str
        Name of the loss, for the text.
    """
    masks = [(r, folds[r] == k) for r in range(len(folds)) for k in np.unique(folds[r])]
    base = losses[yardstick]
    found = []
    for model, loss in losses.items():
        if model == yardstick:
            continue
        lost = sum(bool(loss[r][here].mean() >= base[r][here].mean()) for r, here in masks)
        if loss.mean() >= base.mean():
            text = (
                f"{model} does not beat {yardstick}: {metric} {loss.mean():.4g} against "
                f"{base.mean():.4g}. Better than {model} means little here."
            )
            found.append(Alarm("below_yardstick", "warning", text))
        elif lost:
            text = f"{model} does not beat {yardstick} in {lost} of {len(masks)} folds."
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


def far_from_training(encoder: str, drift: Drift | None) -> list[Alarm]:
    """Samples unlike those that an encoder was trained on.

    Parameters
    ----------
    encoder : str
    drift : Drift or None
        Of the samples at hand; None without an encoder.
    """
    if drift is None or not drift.is_far:
        return []
    text = (
        f"{encoder}: {drift.beyond_text}: these samples are unlike the data that it was trained "
        "on, and their latents may lose what matters here. Train it on samples like these, or in "
        "the same units and depth."
    )
    return [Alarm("far_from_training", "warning", text)]


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


def nearly_paired(n_paired: int, n_lost: int, example: str) -> list[Alarm]:
    """Samples that were left out, since their ids in X and Y are not quite the same.

    Parameters
    ----------
    n_paired, n_lost : int
        Samples of X.
    example : str
        How an id in X and one in Y differ.
    """
    text = (
        f"{counted(n_paired, 'sample is', 'samples are')} paired and {n_lost} of X are left out, "
        "some of which may be in Y "
        f"under other ids ({example}): name the samples alike."
    )
    return [Alarm("nearly_paired", "warning", text)]


def units_unknown(text: str) -> list[Alarm]:
    """Values that were taken for what an encoder was trained on, since nobody said what they are.

    Parameters
    ----------
    text : str
        From `m1pipe.data.recipe.unknown_units`.
    """
    return [Alarm("units_unknown", "severe", text[0].upper() + text[1:])] if text else []


def small_strata(strata: ArrayLike, n_folds: int, *, name: str = "stratum") -> list[Alarm]:
    """Strata (or classes) with fewer samples than there are folds.

    Parameters
    ----------
    strata : array_like, shape (n_samples,)
    n_folds : int
    name : str
        What a stratum is.
    """
    counts = pd.Series(np.asarray(strata, dtype=object)).value_counts()
    small = counts[counts < n_folds]
    if not len(small):
        return []
    listed = ", ".join(f"{k} ({v})" for k, v in list(small.items())[:5])
    text = (
        f"{len(small)} of {len(counts)} values of {name} have fewer samples than the {n_folds} "
        f"folds: {listed}{', ...' if len(small) > 5 else ''}. Some folds test none of them."
    )
    return [Alarm("small_strata", "warning", text)]


def few_groups(groups: ArrayLike, *, name: str = "donor") -> list[Alarm]:
    """Too few donors to say much about further donors.

    Parameters
    ----------
    groups : array_like, shape (n_samples,)
    name : str
        What a group is.
    """
    n = pd.Series(np.asarray(groups, dtype=object)).nunique()
    if n >= FEW_GROUPS:
        return []
    text = f"Only {n} {name}s: what holds for them may not hold for the next {name}"
    if n < 6:
        text += f", and no sign-flip test over them can give p below {2 / 2**n:.2g}"
    return [Alarm("few_groups", "warning", text + ".")]


def liberal_test(n: int, n_repeats: int) -> list[Alarm]:
    """Repeated folds of too few samples for the corrected test over them.

    Parameters
    ----------
    n : int
        Samples.
    n_repeats : int
        Of the folds.

    References
    ----------
    `benchmarks/null_simulation.py`, its numbers in `benchmarks/results/null_simulation.json`.
    """
    if n_repeats == 1 or n >= ENOUGH_TO_REPEAT:
        return []
    text = (
        f"{counted(n_repeats, 'repeat')} on {n} samples: with so few samples the corrected test "
        "over folds is "
        "liberal. In simulation it rejects 7.2 % of true nulls with 100 samples and 5 x 5 folds "
        "and 7.4 % with 10 x 5, 3.9 % and 5.2 % with 200 samples. Read p values near 0.05 with "
        "care, and prefer no more than --repeats 5."
    )
    return [Alarm("liberal_test", "warning", text)]


def missing_levels(n_missing: int, n_levels: int) -> list[Alarm]:
    """Levels of X that are missing, and what stands in their place.

    Parameters
    ----------
    n_missing, n_levels : int
        Of the samples, over all genes.
    """
    if not n_missing:
        return []
    text = (
        f"{n_missing:,} of {n_levels:,} levels of X ({n_missing / n_levels:.1%}) are missing. "
        "Encoders, and their PCA, impute them with the means of their training samples; "
        "for models on the genes, and for own genes, they were imputed inside each fold, with the "
        "means of its training samples."
    )
    return [Alarm("missing_levels", "note", text)]


def nothing_tuned(n_train: int) -> list[Alarm]:
    """Settings were to be chosen, and a fold has no inner validation rows to choose by.

    Parameters
    ----------
    n_train : int
        Training rows of the smallest training fold.
    """
    text = (
        "--tune chose nothing where there are fewer than 60 training samples (the smallest "
        f"training fold has {n_train}) or no share of them is held out: the settings as given "
        "were used."
    )
    return [Alarm("nothing_tuned", "note", text)]


def constant_targets(values: np.ndarray, names: Sequence[str]) -> list[Alarm]:
    """Targets that never vary: they cost nothing to predict and flatter every model.

    Parameters
    ----------
    values : ndarray, shape (n_samples, n_targets)
    names : sequence of str
    """
    constant = np.flatnonzero(np.ptp(values, axis=0) == 0)
    if not len(constant):
        return []
    listed = ", ".join(names[j] for j in constant[:3]) + (", ..." if len(constant) > 3 else "")
    text = (
        f"{len(constant)} of {values.shape[1]} targets are constant ({listed}): every model "
        "predicts them; they lower all errors alike and are left out of per-target scores."
    )
    severity: Severity = "warning" if len(constant) > values.shape[1] / 2 else "note"
    return [Alarm("constant_targets", severity, text)]


def encoder_alarms(name: str, n_latent: int, facts: Mapping[str, Any]) -> list[Alarm]:
    """What is wrong with one trained encoder.

    Parameters
    ----------
    name : str
        Of the encoder, with the seed where there are several.
    n_latent : int
    facts : mapping
        From `m1pipe.evaluation.encoders.encoder_facts`.
    """
    return [
        *collapsed_units(name, int(facts["active_units"]), n_latent),
        *dead_relus(name, float(facts["dead_share"])),
        *library_size_axes(name, facts.get("depth_r") or [], str(facts.get("depth"))),
        *weak_encoder(name, facts["r2"], facts["pca_r2"]),
    ]


def model_alarms(
    model: str, prediction: np.ndarray, levels: np.ndarray | None, dead_share: float
) -> list[Alarm]:
    """What is wrong with one fitted model that is not a constant.

    Parameters
    ----------
    model : str
    prediction : ndarray, shape (n_test, n_outputs)
    levels : ndarray, shape (n_test, n_targets), or None
        The targets, where they are levels.
    dead_share : float
        Share of dead hidden units.
    """
    return [
        *collapsed_predictor(model, prediction, levels),
        *dead_relus(f"the head of {model}", dead_share),
    ]
