"""Alarms about the design, known before any fit: leaks between rows, and too few of something."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from m1pipe.data.copies import near_radius
from m1pipe.evaluation.result import Alarm, Severity

FEW_GROUPS = 10
ENOUGH_TO_REPEAT = 200  # samples; with fewer the corrected test over repeated folds is liberal


def groups_on_both_sides(
    groups: ArrayLike, folds: np.ndarray, *, name: str = "donor", left_out: str | None = None
) -> list[Alarm]:
    """Donors whose samples are in training and test rows of the same split.

    Parameters
    ----------
    groups : array_like, shape (n_samples,)
        Entries that are missing belong to no donor.
    folds : ndarray of int, shape (n_repeats, n_samples)
    name : str
        What a group is.
    left_out : str, optional
        Column whose values are left out in turn: donors that have several of them cannot be kept
        together.
    """
    owner = pd.Series(np.asarray(groups, dtype=object))
    split = np.zeros(len(owner), dtype=bool)
    for row in folds:
        n_folds = pd.Series(row).groupby(owner).transform("nunique")
        split |= n_folds.gt(1).to_numpy()
    if not split.any():
        return []
    n_groups = owner[split].nunique()
    if left_out is not None:
        text = (
            f"{n_groups} of {owner.nunique()} {name}s have samples of several values of "
            f"{left_out}: this answers for a new {left_out} of known {name}s, not for new {name}s."
        )
        return [Alarm("group_on_both_sides", "warning", text)]
    text = (
        f"{n_groups} of {owner.nunique()} {name}s have samples on both sides of a split "
        f"({int(split.sum())} samples): the scores are too good and the p values too small. "
        f"Keep each {name} together (--group {name})."
    )
    return [Alarm("group_on_both_sides", "severe", text)]


def group_not_checked(column: str) -> list[Alarm]:
    """A column that may say whose a sample is, and that nobody chose.

    Parameters
    ----------
    column : str
        Its values recur in a few samples each.
    """
    text = (
        f"not checked: {column} recurs, its values are those of 2 to 10 samples each. If they are "
        f"donors, or anything else that makes samples alike, keep them together (--group {column})."
    )
    return [Alarm("group_not_checked", "note", text)]


def nearly_paired(n_paired: int, n_lost: int, example: tuple[str, str]) -> list[Alarm]:
    """Samples that were left out, since their ids in X and Y are not quite the same.

    Parameters
    ----------
    n_paired, n_lost : int
        Samples of X.
    example : (str, str)
        Ids in X and in Y.
    """
    text = (
        f"{n_paired} samples are paired and {n_lost} of X are left out, some of which have ids in "
        f"Y that differ by blanks, case or marks only (such as {example[0]!r} and "
        f"{example[1]!r}): name the samples alike."
    )
    return [Alarm("nearly_paired", "warning", text)]


def units_unknown(text: str) -> list[Alarm]:
    """Values that were taken for what an encoder was trained on, since nobody said what they are.

    Parameters
    ----------
    text : str
        From `m1pipe.recipe.unknown_units`.
    """
    return [Alarm("units_unknown", "severe", text[0].upper() + text[1:])] if text else []


def copies_on_both_sides(
    signatures: np.ndarray, folds: np.ndarray, samples: Sequence[str] | np.ndarray
) -> list[Alarm]:
    """Samples that are in the data twice, with a split between them.

    Parameters
    ----------
    signatures : ndarray, shape (n_samples, 16)
        From `m1pipe.data.copies.row_signatures`.
    folds : ndarray of int, shape (n_repeats, n_samples)
    samples : sequence of str, shape (n_samples,)
    """
    radius = near_radius(signatures)
    gap, neighbour = cKDTree(signatures).query(signatures, k=2, distance_upper_bound=radius)
    # where a row has several copies the tree may name the row itself second
    partner = np.where(neighbour[:, 1] == np.arange(len(gap)), neighbour[:, 0], neighbour[:, 1])
    copied = np.flatnonzero(np.isfinite(gap[:, 1]))
    split = copied[(folds[:, copied] != folds[:, partner[copied]]).any(axis=0)]
    if not len(split):
        return []
    first = split[0]
    text = (
        f"{len(split)} samples have a near-identical copy on the other side of a split (such as "
        f"{samples[first]} and {samples[partner[first]]}): the scores are too good. Remove the "
        "copies, or group them (--group)."
    )
    return [Alarm("copies_on_both_sides", "severe", text)]


def samples_seen_by_encoder(
    encoder: str, samples: Iterable[str], trained: Iterable[str], validated: Iterable[str] = ()
) -> list[Alarm]:
    """Labelled samples, test rows in their turn, that the encoder saw without their labels.

    Parameters
    ----------
    encoder : str
    samples : iterable of str
        Ids of the labelled samples.
    trained, validated : iterable of str
        Ids that the encoder was trained on, and early-stopped on.
    """
    labelled = set(samples)
    seen, stopped = labelled & set(trained), labelled & set(validated)
    if not seen and not stopped:
        return []
    why = " Early stopping on test rows chooses the encoder that suits them." if stopped else ""
    parts = [f"{len(seen)} trained it"] if seen else []
    parts += [f"{len(stopped)} stopped its training"] if stopped else []
    text = (
        f"{encoder}: of the {len(labelled)} labelled samples {' and '.join(parts)} (without "
        f"labels), so test rows are not new to it.{why} Leave them out of its training rows "
        "(m1pipe train --drop-samples-of the labelled file), or train it inside each fold "
        f"(--encoder {encoder}=fold:CONFIG)."
    )
    return [Alarm("seen_by_encoder", "warning", text)]


def copies_seen_by_encoder(
    encoder: str, n_rows: int, n_labelled: int, example: tuple[str, str], *, n_genes: int
) -> list[Alarm]:
    """Training rows of an encoder that are near-identical to labelled samples of another id.

    Parameters
    ----------
    encoder : str
    n_rows : int
        Such rows.
    n_labelled : int
    example : (str, str)
        Ids of one of them and of the labelled sample that it resembles.
    n_genes : int
        Genes that rows were compared on.
    """
    if not n_rows:
        return []
    text = (
        f"{encoder}: {n_rows} samples in its training file are near-identical to some of the "
        f"{n_labelled} labelled ones under other names (such as {example[0]} and {example[1]}; "
        f"compared on {n_genes:,} genes), so test rows are not new to it. Train it with "
        "--drop-samples-of the labelled file."
    )
    return [Alarm("copies_seen_by_encoder", "warning", text)]


def encoder_conditioned(
    encoder: str, condition: str | None, *, label: str | None, stratify: str | None = None
) -> list[Alarm]:
    """An encoder that was told the label, or the stratum that stands in for it.

    Parameters
    ----------
    encoder : str
    condition : str or None
        Column that the encoder is conditioned on.
    label, stratify : str or None
        Columns of the label and of the strata.
    """
    if condition is None or condition not in (label, stratify):
        return []
    what = "the label" if condition == label else "the stratum"
    text = f"{encoder} is conditioned on {condition}, {what}: its latents hold the answer."
    return [Alarm("conditioned_on_label", "severe", text)]


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
        f"{n_repeats} repeats on {n} samples: with so few samples the corrected test over folds is "
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
        "Encoders, and their PCA, take them at the means of the rows that they were trained on; "
        "for rows on the genes, and for own genes, they were imputed inside each fold, with the "
        "means of its training rows."
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
        f"--tune chose nothing where fewer than 60 rows are trained on (the smallest training fold "
        f"has {n_train}) or no share of them is held out: the settings as given were used."
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
