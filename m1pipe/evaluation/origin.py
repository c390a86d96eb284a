"""What labels were made from: the very fold changes that predict them, their samples, or others."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from m1pipe.evaluation.result import Alarm

FOLD_CHANGES, SAMPLES = "fold_changes", "samples"
SAME, OTHER, UNKNOWN = "the same samples", "other samples", "unknown samples"


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
        Of the predicting fold changes (`m1pipe.data.copies.row_digests`).

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
            f"The labels of {n:,} of {n_all:,} rows were made from the same fold changes that "
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
