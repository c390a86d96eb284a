"""Choosing samples by their annotations: a query, a regular expression, series, single cells."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from m1pipe.data.sources.archs4 import SINGLE_CELL
from m1pipe.data.sources.dee2 import QUALITY, quality_column
from m1pipe.errors import InputError

SERIES = "series_id"
_BY_REGEX = re.compile(r"\s*(\*|\w+)~(.+)", re.DOTALL)
_QUERY_FAULTS = (
    ArithmeticError,
    AttributeError,
    KeyError,
    NameError,
    NotImplementedError,
    SyntaxError,
    TypeError,
    ValueError,
)


def matching_samples(obs: pd.DataFrame, where: str, *, option: str = "where") -> np.ndarray:
    """Samples for which a condition holds.

    Parameters
    ----------
    obs : DataFrame, shape (n_samples, n_columns)
    where : str
        ``COLUMN~REGEX``: the regular expression is found in the column, in upper or lower case;
        ``*~REGEX``: in any column of text. Anything else is a pandas query, such as
        ``tissue == "Liver" and age > 50``. A missing value never matches.
    option : str
        That the condition was given by, for messages.

    Returns
    -------
    ndarray of bool, shape (n_samples,)

    Raises
    ------
    InputError
        If the condition cannot be understood, or holds for no sample.
    """
    by_regex = _BY_REGEX.fullmatch(where)
    if by_regex:
        column, regex = by_regex.groups()
        chosen = _by_regex(obs, column, regex, option)
    else:
        chosen = _by_query(obs, where, option)
    if not chosen.any():
        raise InputError(f"{option}: {where!r} holds for none of the {len(obs):,} samples")
    return chosen


def samples_of_series(obs: pd.DataFrame, series: Sequence[str]) -> np.ndarray:
    """Samples of GEO series, by the column `series_id`, which may name several to a sample.

    Parameters
    ----------
    obs : DataFrame, shape (n_samples, n_columns)
    series : sequence of str

    Returns
    -------
    ndarray of bool, shape (n_samples,)

    Raises
    ------
    InputError
        If there is no such column, or a series has no sample.
    """
    _need(obs, SERIES, "series")
    of_sample = obs[SERIES].astype(str).str.split(r"[,;\s]+", regex=True)
    lacking = sorted(set(series) - set(of_sample.explode()))
    if lacking:
        raise InputError(f"series: expected samples of {lacking[0]}; found none")
    wanted = set(series)
    return np.array([not wanted.isdisjoint(names) for names in of_sample], dtype=bool)


def bulk_samples(obs: pd.DataFrame, bound: float) -> np.ndarray:
    """Samples that ARCHS4 holds for single cells with a probability below a bound.

    Parameters
    ----------
    obs : DataFrame, shape (n_samples, n_columns)
    bound : float

    Returns
    -------
    ndarray of bool, shape (n_samples,)

    Raises
    ------
    InputError
        If the file does not tell, or no sample is below.
    """
    _need(obs, SINGLE_CELL, "single-cell-below")
    chosen = np.asarray(obs[SINGLE_CELL].to_numpy(dtype=np.float64) < bound)
    if not chosen.any():
        raise InputError(f"single-cell-below: no sample is below {bound:g}")
    return chosen


def passing_runs(obs: pd.DataFrame, bound: str) -> np.ndarray:
    """Runs that passed DEE2's quality control; with the bound "warn" those with warnings too.

    Parameters
    ----------
    obs : DataFrame, shape (n_samples, n_columns)
    bound : {"pass", "warn"}

    Returns
    -------
    ndarray of bool, shape (n_samples,)

    Raises
    ------
    InputError
        If there is no column `QC_summary` (in upper or lower case), or no run passes.
    """
    column = quality_column(obs) or QUALITY
    _need(obs, column, "qc")
    levels = ("PASS",) if bound == "pass" else ("PASS", "WARN")
    chosen = obs[column].astype(str).str.startswith(levels).to_numpy(dtype=bool)
    if not chosen.any():
        raise InputError(f"qc: none of {len(obs):,} runs has {' or '.join(levels)} in {column}")
    return chosen


def _need(obs: pd.DataFrame, column: str, option: str) -> None:
    if column not in obs:
        raise InputError(
            f"{option}: expected the column {column} among the samples' annotations; found "
            f"{_columns(obs)}"
        )


def _by_regex(obs: pd.DataFrame, column: str, regex: str, option: str) -> np.ndarray:
    try:
        pattern = re.compile(regex, re.IGNORECASE)
    except re.error as error:
        raise InputError(f"{option}: {regex!r} is no regular expression: {error}") from None
    if column != "*":
        _need(obs, column, option)
        return _found(obs[column], pattern)
    chosen = np.zeros(len(obs), dtype=bool)
    for name in obs.columns:
        if not pd.api.types.is_numeric_dtype(obs[name]):
            chosen |= _found(obs[name], pattern)
    return chosen


def _found(column: pd.Series, pattern: re.Pattern[str]) -> np.ndarray:
    codes, levels = pd.factorize(column)
    hits = np.array([bool(pattern.search(str(level))) for level in levels] + [False])
    return hits[codes]


def _by_query(obs: pd.DataFrame, query: str, option: str) -> np.ndarray:
    try:
        chosen = obs.eval(query, engine="python")
    except _QUERY_FAULTS as error:
        raise InputError(
            f"{option}: expected COLUMN~REGEX or a pandas query on the columns {_columns(obs)}; "
            f"found {query!r}: {error}"
        ) from None
    if not isinstance(chosen, pd.Series) or chosen.dtype != bool:
        raise InputError(
            f"{option}: expected what is true or false for each sample; found {query!r} (columns: "
            f"{_columns(obs)})"
        )
    return chosen.to_numpy()


def _columns(obs: pd.DataFrame) -> str:
    return ", ".join(map(str, obs.columns[:12])) or "none"
