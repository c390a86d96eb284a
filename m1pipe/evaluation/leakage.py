"""Alarms about leakage: what training rows, or encoders, know of test rows."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from m1pipe.data.duplicates import near_radius
from m1pipe.errors import Alarm, counted

FOLD_CHANGES, SAMPLES = "fold_changes", "samples"
SAME, OTHER, UNKNOWN = "the same samples", "other samples", "unknown samples"


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
        f"({counted(int(split.sum()), 'sample')}): the scores are too good and the p values too "
        "small. "
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


def copies_on_both_sides(
    signatures: np.ndarray, folds: np.ndarray, samples: Sequence[str] | np.ndarray
) -> list[Alarm]:
    """Samples that are in the data twice, with a split between them.

    Parameters
    ----------
    signatures : ndarray, shape (n_samples, 16)
        From `m1pipe.data.duplicates.row_signatures`.
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
        f"{counted(len(split), 'sample has', 'samples have')} a near-identical copy on the other "
        "side of a split (such as "
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
    why = " Early stopping on test samples chooses the encoder that suits them." if stopped else ""
    parts = [f"{len(seen)} trained it"] if seen else []
    parts += [f"{len(stopped)} stopped its training"] if stopped else []
    text = (
        f"{encoder}: of the {len(labelled)} labelled samples {' and '.join(parts)} (without "
        f"labels), so test samples are not new to it.{why} Leave them out of its training "
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
        f"{encoder}: in its training file {counted(n_rows, 'sample is', 'samples are')} "
        f"near-identical to some of the {n_labelled} labelled ones under other names (such as "
        f"{example[0]} and {example[1]}; compared on {n_genes:,} genes), so test samples are not "
        "new to it. Train it with "
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


def label_origin(
    obs: pd.DataFrame, label_obs: pd.DataFrame, digests: Sequence[str]
) -> tuple[str | None, int]:
    """Whether labels come from what predicts them.

    Parameters
    ----------
    obs : DataFrame, shape (n_contrasts, n_columns)
        Annotations of the predicting fold changes; `samples`, where `m1pipe contrasts` made them.
    label_obs : DataFrame, shape (n_contrasts, n_columns)
        Annotations of the labels in the same order: `fold_changes` and `samples`, as
        `m1pipe enrich` writes them.
    digests : sequence of str
        Of the predicting fold changes (`m1pipe.data.duplicates.row_digests`).

    Returns
    -------
    origin : str or None
        `SAME` if any row of labels was made from the same fold changes, or shares a sample with
        them; `OTHER` if all are known not to; else `UNKNOWN`; None for labels that enrich did not
        make.
    n : int
        Rows whose labels are of the same samples.
    """
    if FOLD_CHANGES not in label_obs:
        return None, 0
    same = label_obs[FOLD_CHANGES].astype(str).to_numpy() == np.asarray(digests)
    if SAMPLES not in obs or SAMPLES not in label_obs:
        return (SAME if same.any() else UNKNOWN), int(same.sum())
    pairs = zip(obs[SAMPLES], label_obs[SAMPLES], strict=True)
    shared = np.array([bool(_ids(a) & _ids(b)) for a, b in pairs])
    n = int((same | shared).sum())
    return (SAME if n else OTHER), n


def same_samples(origin: str | None, n: int, n_all: int) -> list[Alarm]:
    """Labels that are functions of what predicts them, or may be.

    Parameters
    ----------
    origin, n
        From `label_origin`.
    n_all : int
        All rows.
    """
    if origin == SAME:
        text = (
            f"The labels of {n:,} of {n_all:,} contrasts were made from the same fold changes that "
            "predict them, or from the same samples: the scores tell how much of the labels a "
            "representation keeps. This is compression, not prediction; for that make the labels "
            "from other replicates (m1pipe contrasts --held-out)."
        )
        return [Alarm("labels_of_same_samples", "warning", text)]
    if origin == UNKNOWN:
        text = (
            "Which samples the labels were made from is not recorded: if those that predict them, "
            "this is compression, not prediction."
        )
        return [Alarm("labels_of_same_samples", "note", text)]
    return []


def _ids(text: object) -> set[str]:
    return set(str(text).split(";"))
