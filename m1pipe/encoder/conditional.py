"""Conditional encoders: the class of each sample, by a column of obs, and the means of classes.

Classes that are batches are told to the decoder alone, and a sample of an unknown batch has -1.
"""

import shlex
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.artefacts import hold_in_rows
from m1pipe.data.confounding import WARN_V, as_levels, cramers_v
from m1pipe.data.labels import as_text, listed_columns
from m1pipe.data.labels import read_column as obs_column
from m1pipe.errors import InputError, M1Warning

MOST_CLASSES = 200
FEW_ROWS = 10
NAMED = 12


@dataclass(frozen=True, eq=False)
class Condition:
    """A column of obs and its classes, as they were in the training rows.

    Attributes
    ----------
    column : str
        Of batches that several columns name together these, with commas between them.
    classes : tuple of str
        Sorted; the network gets a class one-hot, by its place here.
    counts : tuple of int
        Training rows of each class.
    shift : ndarray of float32, shape (n_classes, n_genes)
        What the mean of each class lies off the mean of all, on the transformed scale, drawn
        towards it as by one more row. Empty, shape (n_classes, 0), until it is fitted.
    is_batch : bool
        The encoder is not told it.
    """

    column: str
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    shift: np.ndarray
    is_batch: bool = False

    def __post_init__(self) -> None:
        hold_in_rows(self)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def codes(self, obs: pd.DataFrame, where: str) -> np.ndarray:
        """Place of each sample's class among the classes.

        Parameters
        ----------
        obs : DataFrame
            Annotations of the samples.
        where : str
            The file, for the message.

        Returns
        -------
        ndarray of int64, shape (n_samples,)
            -1 for a sample of an unknown batch.

        Raises
        ------
        InputError
            If there is no such column, or a sample has no class or one that was not trained on;
            but for batches.
        """
        names = self.names(obs, where)
        if not self.is_batch:
            return codes_of(names, self.classes, where)
        place = {name: i for i, name in enumerate(self.classes)}
        return np.array([place.get(name, -1) for name in names], dtype=np.int64)

    def names(self, obs: pd.DataFrame, where: str) -> np.ndarray:
        """Class of each sample as text; None where a batch is not named."""
        if self.is_batch:
            return batch_names(obs, self.column.split(","))
        return read_column(obs, self.column, where)

    def shift_of(self, codes: np.ndarray) -> np.ndarray:
        """The shift of each sample's class, shape (n_samples, n_genes); 0 for unknown batches."""
        return np.where(codes[:, None] < 0, np.float32(0), self.shift[codes])

    def code(self, name: str) -> int:
        """Place of a class among the classes.

        Raises
        ------
        InputError
            If it is not one of them.
        """
        return int(codes_of(np.array([name], dtype=object), self.classes, self.column)[0])

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and strings for JSON, without the shift."""
        plain = {"classes": list(self.classes), "counts": list(self.counts)}
        return {"column": self.column, **plain, **({"batch": True} if self.is_batch else {})}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], shift: np.ndarray) -> "Condition":
        """Condition stored by `to_dict`, with its shift, shape (n_classes, n_genes)."""
        classes = tuple(stored["classes"])
        if len(classes) != len(shift):
            raise ValueError(f"{len(classes)} classes and means of {len(shift)}")
        is_batch = bool(stored.get("batch", False))
        return cls(stored["column"], classes, tuple(stored["counts"]), shift, is_batch)


def find_condition(obs: pd.DataFrame, column: str, rows: np.ndarray, where: str) -> Condition:
    """Classes of the training rows.

    Parameters
    ----------
    obs : DataFrame
        Annotations of all samples.
    column : str
        Holds the classes.
    rows : ndarray of int, shape (n_rows,)
        Training rows.
    where : str
        The file, for messages.

    Raises
    ------
    InputError
        If there is no such column, a training row has no class, or classes are fewer than two or
        too many to be classes.

    Warns
    -----
    M1Warning
        If a class has few training rows: what is generated of it resembles them.
    """
    names = read_column(obs.iloc[rows], column, where)
    found = _counted(column, names, f"{where}: condition", "classes", f"in column {column!r}")
    few = [f"{c} ({n})" for c, n in zip(found.classes, found.counts, strict=True) if n < FEW_ROWS]
    if few:
        warnings.warn(
            f"{where}: condition {column}: classes with under {FEW_ROWS} training rows, which "
            f"generated samples of them will resemble: {', '.join(few[:NAMED])}",
            M1Warning,
            stacklevel=2,
        )
    return found


def find_batches(
    obs: pd.DataFrame, columns: Sequence[str], rows: np.ndarray, where: str
) -> Condition:
    """Batches of the training rows; the parameters are those of `find_condition`.

    Raises
    ------
    InputError
        If a column is not there, a training row has no entry, or there are fewer than two batches
        or too many to be batches.

    Warns
    -----
    M1Warning
        If another column goes with the batches.
    """
    for column in columns:
        read_column(obs.iloc[rows], column, where)
    names = batch_names(obs.iloc[rows], columns).astype(str)
    by = f"by {', '.join(columns)}"
    found = _counted(",".join(columns), names, f"{where}: batch", "batches", by)
    _warn_of_confounded(obs.iloc[rows], names, columns, where)
    return replace(found, is_batch=True)


def _counted(column: str, names: np.ndarray, where: str, what: str, by: str) -> Condition:
    """The classes of some rows, their shift not yet fitted."""
    classes, counts = np.unique(names.astype(str), return_counts=True)
    if not 2 <= classes.size <= MOST_CLASSES:
        raise InputError(
            f"{where}: expected 2 to {MOST_CLASSES} {what} in the training rows; found "
            f"{classes.size} {by}"
        )
    empty = np.empty((classes.size, 0), dtype=np.float32)
    return Condition(column, tuple(classes.tolist()), tuple(counts.tolist()), empty)


def _warn_of_confounded(
    obs: pd.DataFrame, names: np.ndarray, columns: Sequence[str], where: str
) -> None:
    """Warn of columns that the decoder is told of with the batch."""
    batches, said = pd.Series(names), []
    for column in obs.columns.difference(list(columns)):
        values = as_levels(obs[column])
        if values is None or values.nunique() > NAMED:  # donors, say, lie within studies
            continue
        v = cramers_v(pd.crosstab(batches[values.index], values))
        said += [f"{column} (Cramer's V {v:.2f})"] if v >= WARN_V else []
    if said:
        warnings.warn(
            f"{where}: batch {', '.join(columns)} goes with {', '.join(said)}: with the batch the "
            "decoder is told of these too, so the latents may lose them",
            M1Warning,
            stacklevel=3,
        )


def batch_names(obs: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Batch of every sample as text; None where a column or an entry is missing."""
    if not set(columns) <= set(obs.columns):
        return np.full(len(obs), None, dtype=object)
    values = [obs_column(obs, column, "batch") for column in columns]
    names = np.array([" / ".join(row) for row in zip(*map(as_text, values), strict=True)])
    found = names.astype(object)
    found[np.any([column.isna().to_numpy() for column in values], axis=0)] = None
    return found


def read_column(obs: pd.DataFrame, column: str, where: str) -> np.ndarray:
    """Names of the samples' classes as text, object array of shape (n_samples,).

    Raises
    ------
    InputError
        If there is no such column, or a sample has no value in it.
    """
    if column not in obs.columns:
        raise InputError(
            f"{where}: expected column {column!r} of obs, which the model is conditioned on; found "
            f"{listed_columns(obs)}: add it with convert --labels"
        )
    values = obs_column(obs, column, "condition")
    lacking = np.flatnonzero(values.isna().to_numpy())
    if lacking.size:
        raise InputError(
            f"{where}: expected a class in column {column!r} for every sample; found none for "
            f"{lacking.size} of {len(values)}, {obs.index[lacking[0]]!r} first: leave them out, "
            f"m1pipe convert DATA NEW.h5ad --where {shlex.quote(f'`{column}`.notna()')}"
        )
    return as_text(values)


def codes_of(names: np.ndarray, classes: tuple[str, ...], where: str) -> np.ndarray:
    """Place of each name among the classes, int64, shape (n_samples,).

    Raises
    ------
    InputError
        Naming the classes, if a name is not one of them.
    """
    place = {name: i for i, name in enumerate(classes)}
    unseen = sorted({str(name) for name in names} - set(place))
    if unseen:
        more = ", ..." if len(classes) > NAMED else ""
        raise InputError(
            f"{where}: expected a class that the model was trained on "
            f"({', '.join(classes[:NAMED])}{more}); found {', '.join(map(repr, unseen[:3]))}"
        )
    return np.array([place[str(name)] for name in names], dtype=np.int64)


def fit_shift(blocks: Iterable[np.ndarray], codes: np.ndarray, n_classes: int) -> np.ndarray:
    """What the mean of each class lies off the mean of all rows.

    Parameters
    ----------
    blocks : iterable of ndarray, each of shape (n_block_rows, n_genes)
        Transformed training rows, in order; NaN where a level is missing.
    codes : ndarray of int, shape (n_rows,)
        Their classes.
    n_classes : int

    Returns
    -------
    ndarray of float32, shape (n_classes, n_genes)
        Each drawn to zero as by one more row that lies at the mean of all, then moved together
        so that over the levels that are there they average 0.
    """
    sums: np.ndarray | None = None
    counts: np.ndarray = np.bincount(codes, minlength=n_classes)[:, None]
    start = 0
    for X in blocks:
        if sums is None:
            sums = np.zeros((n_classes, X.shape[1]))
        here = codes[start : start + len(X)]
        start += len(X)
        if np.isnan(X.sum()):
            missing = np.isnan(X)
            lost = [missing[here == k].sum(axis=0) for k in range(n_classes)]
            counts, X = counts - np.stack(lost), np.where(missing, 0, X)
        for k in np.unique(here):
            sums[k] += X[here == k].sum(axis=0, dtype=np.float64)
    if sums is None:
        raise ValueError("expected at least one training row")
    n_known = counts.sum(axis=0)
    mean = sums.sum(axis=0) / n_known
    shift: np.ndarray = (sums - counts * mean) / (counts + 1)
    shift -= (counts * shift).sum(axis=0) / n_known
    return shift.astype(np.float32)


def class_means(mean: np.ndarray, condition: Condition | None) -> np.ndarray:
    """Imputation means of each class, float32, shape (n_classes, n_genes); one for no condition.

    Parameters
    ----------
    mean : ndarray of float32, shape (n_genes,)
        Of the training rows, on the transformed scale.
    condition : Condition or None
        Batches, which the encoder is not told, all have the mean.
    """
    if condition is None:
        return mean[None]
    shift = np.zeros_like(condition.shift) if condition.is_batch else condition.shift
    return mean + shift
