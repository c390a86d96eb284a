"""Choosing samples by their annotations: a condition, a pattern, series, single cells."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from m1pipe.data.condition import holds, listed_columns
from m1pipe.data.patterns import compile_pattern, texts_with
from m1pipe.data.sources.archs4 import SINGLE_CELL
from m1pipe.data.sources.dee2 import QUALITY, quality_column
from m1pipe.errors import InputError

SERIES = "series_id"
_WORD = re.compile(r"[^\s=<>!&|()'\"`~,]+")


def matching_samples(obs: pd.DataFrame, where: str, *, option: str = "where") -> np.ndarray:
    """Samples for which a condition holds.

    Parameters
    ----------
    obs : DataFrame, shape (n_samples, n_columns)
    where : str
        ``COLUMN~REGEX``: the regular expression is found in the column, in upper or lower case;
        ``*~REGEX``: in any column of text. COLUMN is any column that exists, whatever its name
        holds. Anything else is a condition, such as ``tissue == "Liver" and age > 50``, as
        `m1pipe.data.condition.holds` takes it. A missing value never matches.
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
    by_regex = _apart(obs, where)
    if by_regex is not None:
        chosen = _by_regex(obs, *by_regex, option)
    else:
        chosen = holds(obs, where, option=option)
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
            f"{listed_columns(obs)}"
        )


def _apart(obs: pd.DataFrame, where: str) -> tuple[str, str] | None:
    """Column and regular expression of COLUMN~REGEX; None where it is none."""
    places = [i for i, character in enumerate(where) if character == "~" and where[i + 1 :]]
    pairs = [(_plain(where[:i]), where[i + 1 :]) for i in places]
    columns = {"*", *map(str, obs.columns)}
    existing = [pair for pair in pairs if pair[0] and pair[0] in columns]
    return next(iter(existing + [pair for pair in pairs if _WORD.fullmatch(pair[0])]), None)


def _plain(column: str) -> str:
    return column.strip().removeprefix("`").removesuffix("`")


def _by_regex(obs: pd.DataFrame, column: str, regex: str, option: str) -> np.ndarray:
    pattern = compile_pattern(regex, option, flags=re.IGNORECASE)
    if column != "*":
        _need(obs, column, option)
    chosen = np.zeros(len(obs), dtype=bool)
    for i, name in enumerate(map(str, obs.columns)):
        is_text = not pd.api.types.is_numeric_dtype(obs.iloc[:, i].dtype)
        if name == column or (column == "*" and is_text):
            codes, levels = pd.factorize(obs.iloc[:, i])
            hits = texts_with(pattern, map(str, levels), option)
            chosen |= np.array([*hits, False])[codes]
    return chosen
