"""Labels that go together with another column, so that a score may be that column's."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from m1pipe.errors import Alarm

WARN_V, SEVERE_V = 0.5, 0.8
_SMALLEST_CLASS = 5
_SMALLEST_P = 1e-3
_MOST_LEVELS = 0.3  # of the samples: beyond, a column is an identifier
_N_BINS = 4
_MOST_CLASSES = 3  # named for one column


def confounded_label(label: ArrayLike, obs: pd.DataFrame, *, name: str = "label") -> list[Alarm]:
    """Columns that the label is entangled with, in words.

    Parameters
    ----------
    label : array_like, shape (n_samples,)
        The class of each sample.
    obs : DataFrame, shape (n_samples, n_columns)
        Annotations in the same order. The label's own column is skipped by its name, identifiers
        (nearly as many values as samples) and constants too; numbers are cut into quarters.
    name : str
        Name of the label.

    Returns
    -------
    list of Alarm
        "confounded_label" where Cramer's V is at least 0.5 (severe from 0.8), and
        else "class_in_few_groups" where all samples of a class lie in at most half of the values
        that as many samples drawn at random would reach.
    """
    classes = pd.Series(np.asarray(label, dtype=object)).map(str)
    said = "The label" if name == "label" else f"The label {name}"
    found = []
    for column in obs.columns:
        if column == name:
            continue
        values = as_levels(obs[column])
        if values is None:
            continue
        table = pd.crosstab(classes, values)
        found += _entangled(table, said, str(column)) or _confined(table, said, str(column))
    return found


def cramers_v(table: ArrayLike) -> float:
    """Cramer's V of a contingency table, corrected for its bias; in [0, 1].

    Parameters
    ----------
    table : array_like of int, shape (n_rows, n_columns)
        Counts; rows or columns without any are left out.

    References
    ----------
    Bergsma 2013, Journal of the Korean Statistical Society 42:323.
    """
    counts = np.asarray(table)
    counts = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0]
    n, (r, k) = counts.sum(), counts.shape
    if min(r, k) < 2:
        return 0.0
    phi2 = stats.chi2_contingency(counts, correction=False).statistic / n
    phi2 = max(0.0, phi2 - (r - 1) * (k - 1) / (n - 1))
    r, k = r - (r - 1) ** 2 / (n - 1), k - (k - 1) ** 2 / (n - 1)
    return float(min(1.0, np.sqrt(phi2 / (min(r, k) - 1))))


def as_levels(column: pd.Series) -> pd.Series | None:
    """A column as few text values; None for an identifier, a constant or an empty column.

    Parameters
    ----------
    column : Series, shape (n_samples,)
        Numbers are cut into quarters; samples without an entry are left out.
    """
    values = column.reset_index(drop=True)
    if pd.api.types.is_numeric_dtype(values) and values.nunique() > 2 * _N_BINS:
        cut = pd.qcut(values, _N_BINS, duplicates="drop")
        values = cut.astype(str).where(cut.notna())
    present = values[values.notna() & (values.astype(str) != "")].astype(str)
    n_levels = present.nunique()
    if n_levels < 2 or n_levels > _MOST_LEVELS * len(values):
        return None
    return present


def _entangled(table: pd.DataFrame, said: str, column: str) -> list[Alarm]:
    """The whole label goes with a column."""
    v = cramers_v(table)
    if v < WARN_V or stats.chi2_contingency(table, correction=False).pvalue > _SMALLEST_P:
        return []
    text = (
        f"{said} goes with {column} (Cramer's V {v:.2f}): a model that knows only "
        f"{column} would score well, so these scores are no evidence for the label alone."
    )
    return [Alarm("confounded_label", "severe" if v >= SEVERE_V else "warning", text)]


def _confined(table: pd.DataFrame, said: str, column: str) -> list[Alarm]:
    """A class lies in far fewer values of a column than chance would have it."""
    share = table.sum(axis=0).to_numpy() / table.to_numpy().sum()
    found = []
    for one, counts in table.iterrows():
        n, where = int(counts.sum()), counts[counts > 0].sort_values(ascending=False)
        expected = float(np.sum(1 - (1 - share) ** n))
        if n < _SMALLEST_CLASS or len(where) > expected / 2:
            continue
        places = ", ".join(f"{k} {v}" for k, v in list(where.items())[:4])
        text = (
            f"{said} is confounded with {column}: all {n} samples of {one} are in "
            f"{len(where)} of {table.shape[1]} values of {column} ({places}). What sets {one} "
            f"apart cannot be told from what sets these apart."
        )
        found.append(Alarm("class_in_few_groups", "warning", text))
    return found[:_MOST_CLASSES]
