"""Groups of samples that belong together, such as a donor's: by a column, or by the sample ids."""

import warnings
from collections.abc import Collection

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from m1pipe.console import log
from m1pipe.data.labels import as_text, is_doubtful, listed_columns, tidy, warn_of_levels
from m1pipe.data.names import plain
from m1pipe.data.regex import LONGEST_TEXT, compile_pattern
from m1pipe.errors import InputError, M1Warning, counted, did_you_mean

SERIES = "series_id"  # a sample may list several
# Names, without case and marks, of columns that say whose a sample is; the first found is taken.
GROUP_WORDS = (
    "donor donorid patient patientid subject subjectid individual individualid participant "
    "participantid caseid person personid animalid mouseid"
).split()
_MOST_RECURRING = 10  # samples of one value that may be samples of one donor


def resolve_groups(obs: pd.DataFrame, spec: str | None) -> np.ndarray | None:
    """Group of every sample, from a column or from the sample ids.

    Parameters
    ----------
    obs : DataFrame, shape (n_samples, n_columns)
        Annotations, indexed by sample id.
    spec : str or None
        A column of obs (in `series_id` a sample may list several series: those that share a
        sample are one group); or a regular expression whose first group (or whole match) within the
        sample id names the group; or "none". None takes the column of `group_column`.

    Returns
    -------
    ndarray of str, shape (n_samples,), or None
        A sample without an entry is a group of its own, with a warning.

    Raises
    ------
    InputError
        If `spec` is no column and does not match every sample id.
    """
    if spec is None:
        column = group_column(obs)
        if column is None:
            return None
        log.info("samples are grouped by the column %s (--group none switches it off)", column)
        return _groups_from_column(obs, column)
    if spec in obs.columns:
        return _groups_from_column(obs, spec)
    if spec == "none":
        return None
    return _groups_from_ids(obs, spec)


def group_column(obs: pd.DataFrame) -> str | None:
    """The column that says whose each sample is, by its name: donor, patient, subject, ...

    Parameters
    ----------
    obs : DataFrame, shape (n_samples, n_columns)

    Returns
    -------
    str or None
        None where there is none, or every sample has a value of its own there.
    """
    words = {plain(str(name)): str(name) for name in reversed(list(obs.columns))}
    for word in GROUP_WORDS:
        name = words.get(word)
        if name is not None and (word == "donor" or tidy(obs[name]).dropna().duplicated().any()):
            return name
    return None


def recurring_columns(obs: pd.DataFrame, known: Collection[str]) -> list[str]:
    """Columns whose values recur in a few samples each, as those of a donor would.

    Parameters
    ----------
    obs : DataFrame, shape (n_samples, n_columns)
    known : collection of str
        Columns that are not looked at: the label, the groups.

    Returns
    -------
    list of str
        Most samples have a value that 2 to 10 samples share.
    """
    found = []
    for name in obs.columns:
        if str(name) in known or pd.api.types.is_float_dtype(obs[name].dtype):
            continue
        counts = tidy(obs[name]).value_counts()
        counts = counts[counts > 0]
        few = counts[(counts >= 2) & (counts <= _MOST_RECURRING)]
        if len(few) > 2 and counts.max() <= _MOST_RECURRING and 2 * few.sum() > len(obs):
            found.append(str(name))
    return found


def _groups_from_column(obs: pd.DataFrame, column: str) -> np.ndarray:
    read = tidy(obs[column])
    groups = as_text(read)
    absent = read.isna().to_numpy()
    absent = absent | np.array([isinstance(g, str) and is_doubtful(g) for g in groups], dtype=bool)
    warn_of_levels(read[~absent], f"group {column}", doubtful=False)
    if absent.any():
        warnings.warn(
            f"{counted(int(absent.sum()), 'sample has', 'samples have')} no entry in the column "
            f"{column} (such as "
            f"{obs.index[absent][0]!r}): each is taken as a group of its own",
            M1Warning,
            stacklevel=3,
        )
        groups[absent] = [f"{column} of {sample}" for sample in obs.index[absent]]
    if column == SERIES:
        groups[~absent] = _linked(groups[~absent])
    return groups


def _linked(entries: np.ndarray) -> np.ndarray:
    """Entries that list several names, by the first name of all that are linked by samples."""
    listed = pd.Series(entries).str.strip(" ,;").str.split(r"[,;\s]+", regex=True).explode()
    codes, names = pd.factorize(listed)
    n = len(entries)
    links = sparse.coo_matrix(
        (np.ones(len(codes)), (listed.index.to_numpy(), n + codes)), shape=(n + len(names),) * 2
    )
    _, component = connected_components(links, directed=False)
    first = pd.Series(names).groupby(component[n:]).first()
    return np.asarray(first.loc[component[:n]].to_numpy(dtype=object))


def _groups_from_ids(obs: pd.DataFrame, spec: str) -> np.ndarray:
    where = f"group: expected a column ({listed_columns(obs)}) or a regular expression"
    pattern = compile_pattern(spec, where)
    groups = []
    for sample in obs.index:
        found = pattern.search(str(sample)[:LONGEST_TEXT])
        if not found:
            raise InputError(
                f"{where} that matches every sample id; found {spec!r}, which does not match "
                f"{sample!r}{did_you_mean(spec, obs)}"
            )
        groups.append(found.group(1) if pattern.groups and found.group(1) else found.group(0))
    return np.array(groups, dtype=object)
