"""Columns that describe samples, read in one way by all that takes one: labels, groups, strata."""

import re
import warnings
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd

from m1pipe.errors import InputError, M1Warning, counted, did_you_mean, first_few

MISSING = frozenset(
    {"", "NA", "NaN", "nan", "NAN", "N/A", "n/a", "na", "NULL", "null", "#N/A", "<NA>", "#NA"}
)
CLASS, LEVEL = "class", "level"
# Words that may mean that nothing is known; they stay levels, with a warning.
DOUBTFUL = frozenset(
    """none unknown unspecified missing undefined unk unclear notavailable notapplicable
    notreported notcollected notprovided notdetermined nodata blank unassigned""".split()
)
_MARKS = frozenset({"-", "--", "?", "??", ".", "..", "_"})
_BLANKS = " \t\r\n\v\f\u00a0\u200b\u202f\u2007\ufeff"
_MOST_LEVELS = 1000  # that are compared with each other
_MANY_VALUES = 20
_FEW_ODD = 0.25
_INTEGER = re.compile(r"[+-]?\d+")
_FLOAT32_MAX = float(np.finfo(np.float32).max)


def strip(text: str) -> str:
    """Text without blanks at its ends, those that do not break a line included."""
    return text.strip(_BLANKS)


def one_number(field: str) -> float | None:
    """A finite float32 from any notation, NaN for a missing one, None for anything else."""
    field = field.strip()
    if field in MISSING:
        return float("nan")
    try:
        value = float(field)
    except ValueError:
        return None
    if "_" in field or not abs(value) <= _FLOAT32_MAX:
        return None
    return value


def label_column(fields: Sequence[str]) -> np.ndarray:
    """Labels as text, or as numbers where they are measurements.

    Numbers are recognised by a decimal point or exponent in at least one of them, and only if every
    text comes back as it was: cluster 1.10 is not 1.1, and 007 is a name. Whole numbers stay text:
    a donor 101 or a class 0 is a name. Many values of equally many places are measurements.

    Parameters
    ----------
    fields : sequence of str, length n

    Returns
    -------
    ndarray, shape (n,)
        float64, or objects (str, and NaN where a value is missing).
    """
    texts = [strip(field) for field in fields]
    known = {text for text in texts if text not in MISSING}
    if known and any(not _INTEGER.fullmatch(text) for text in known) and _come_back(known):
        return np.array([np.nan if text in MISSING else float(text) for text in texts])
    return np.array([np.nan if text in MISSING else text for text in texts], dtype=object)


def doubtful_numbers(values: np.ndarray) -> str:
    """Why a column of text may have been meant as numbers; empty where it was not.

    Parameters
    ----------
    values : ndarray, shape (n,)
        As of `label_column`.
    """
    if values.dtype != object:
        return ""
    texts = [text for text in values if isinstance(text, str)]
    commas = [text for text in texts if re.fullmatch(r"[+-]?\d+,\d+", text)]
    if commas and all(text in commas or _INTEGER.fullmatch(text) for text in texts):
        return (
            f"decimal commas ({commas[0]!r}) are taken as text: --decimal , reads them as numbers"
        )
    odd = [text for text in dict.fromkeys(texts) if one_number(text) is None]
    numbers = [text for text in texts if one_number(text) is not None]
    fractions = not all(map(_INTEGER.fullmatch, numbers))
    if fractions and 0 < len(odd) <= _FEW_ODD * len(texts):
        return f"taken as text, not numbers, because of {odd[0]!r}: leave it empty if it is missing"
    return ""


def _come_back(texts: set[str]) -> bool:
    """Whether all texts are numbers, written as their numbers are."""
    numbers = {text: one_number(text) for text in texts}
    if any(number is None or number != number for number in numbers.values()):
        return False
    plain = {t for t, x in numbers.items() if t in (repr(x), f"{x:g}", f"{x:.0f}", str(x))}
    if plain == texts:
        return True
    places = {len(text.partition(".")[2]) for text in texts}
    if len(texts) <= _MANY_VALUES or len(places) > 1:
        return False
    n = places.pop()
    return all(f"{float(text):.{n}f}" == text for text in texts)


def tidy_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """A table with every column tidied; the same object where nothing had to be."""
    tidied = {name: tidy(frame[name]) for name in frame.columns if frame.columns.is_unique}
    changed = {str(name): c for name, c in tidied.items() if not c.equals(frame[name])}
    return frame.assign(**changed) if changed else frame


def tidy(column: pd.Series) -> pd.Series:
    """A column of text without blanks at the ends, and NaN for words that say it is missing.

    Parameters
    ----------
    column : Series, shape (n_samples,)
        Numbers and truth values are returned as they are.
    """
    categorical = isinstance(column.dtype, pd.CategoricalDtype)
    if not (categorical or column.dtype == object or isinstance(column.dtype, pd.StringDtype)):
        return column
    codes, levels = (
        (column.cat.codes, column.cat.categories) if categorical else pd.factorize(column)
    )
    names = [_plain(level) for level in levels]
    if all(a is b or a == b for a, b in zip(names, levels, strict=True)):
        return column
    if categorical:
        kept = list(dict.fromkeys(name for name in names if name is not np.nan))
        place = {name: i for i, name in enumerate(kept)}
        codes = np.array([place.get(name, -1) for name in names] + [-1])[codes]
        known = pd.Categorical.from_codes(codes.tolist(), pd.Index(kept, dtype=object))
        return pd.Series(known, index=column.index, name=column.name)
    values = np.array([*names, np.nan], dtype=object)[codes]
    return pd.Series(values, index=column.index, name=column.name)


def _plain(level: object) -> object:
    if not isinstance(level, str):
        return level
    text = strip(level)
    return np.nan if text in MISSING else text


def listed_columns(frame: pd.DataFrame) -> str:
    """The first columns of annotations, as messages list them."""
    return first_few(list(frame.columns))


def find_column(obs: pd.DataFrame, spec: str, option: str) -> tuple[str, str | None]:
    """Name of a column, and what it is said to hold: COL, COL:class or COL:level.

    Parameters
    ----------
    obs : DataFrame, shape (n_samples, n_columns)
    spec : str
    option : str
        That it was given by, for messages.

    Returns
    -------
    name : str
    kind : "class", "level" or None
        None where nothing is said.

    Raises
    ------
    InputError
        If there is no such column.
    """
    if spec in obs.columns:
        return spec, None
    name, _, kind = spec.rpartition(":")
    if kind in (CLASS, LEVEL) and name in obs.columns:
        return name, kind
    raise InputError(
        f"{option}: expected a column of obs ({listed_columns(obs)}); found {spec!r}"
        f"{did_you_mean(name if kind in (CLASS, LEVEL) else spec, obs)}"
    )


def read_column(obs: pd.DataFrame, name: str, option: str) -> pd.Series:
    """A column that describes samples, tidied; doubtful levels are warned of.

    Parameters
    ----------
    obs : DataFrame, shape (n_samples, n_columns)
    name : str
    option : str
        That it was given by, for messages.

    Returns
    -------
    Series, shape (n_samples,)
        NaN where a sample has no entry.

    Raises
    ------
    InputError
        If there is no such column.
    """
    column = tidy(obs[find_column(obs, name, option)[0]])
    warn_of_levels(column, f"{option} {name}")
    return column


def as_text(column: pd.Series) -> np.ndarray:
    """Levels as text, object array of shape (n_samples,); NaN where there is none.

    Whole numbers lose the point that missing values gave them: 1, not 1.0.
    """
    known = column.notna().to_numpy()
    values = column.astype(object).to_numpy(copy=True)
    numbers = pd.api.types.is_float_dtype(column.dtype)
    whole = numbers and all(float(value).is_integer() for value in values[known])
    values[known] = [str(int(value)) if whole else str(value) for value in values[known]]
    values[~known] = np.nan
    return values


def warn_of_levels(column: pd.Series, where: str, *, doubtful: bool = True) -> None:
    """Warn of levels that differ by case or blanks only, and of words that may mean missing.

    Parameters
    ----------
    column : Series, shape (n_samples,)
        Tidied.
    where : str
        Of the column, for the warning.
    doubtful : bool
        Words that may mean missing are warned of as well.
    """
    if pd.api.types.is_numeric_dtype(column.dtype):
        return
    counts = column.value_counts()
    names = [str(name) for name, n in counts.items() if n]
    if len(names) > _MOST_LEVELS or (len(names) > _MANY_VALUES and len(names) > len(column) / 2):
        return
    alike: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        alike[re.sub(r"[\s_-]+", "", name.casefold())].append(name)
    doubts = [
        f"the levels {', '.join(map(repr, same))} differ by case or blanks only"
        for same in alike.values()
        if len(same) > 1
    ]
    doubts += [
        f"the level {name!r} ({counted(counts[name], 'sample')}) is taken as it is: if it means "
        "missing, "
        "leave the field empty"
        for name in names
        if doubtful and is_doubtful(name)
    ]
    for doubt in doubts:
        warnings.warn(f"{where}: {doubt}", M1Warning, stacklevel=4)


def is_doubtful(name: str) -> bool:
    """Whether a level may mean that nothing is known."""
    return name in _MARKS or re.sub(r"[^a-z]", "", name.lower()) in DOUBTFUL
