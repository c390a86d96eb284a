"""Between an estimator's flat parameters and the configuration classes that hold the defaults."""

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_args

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from m1pipe import config, settings
from m1pipe.data.unit_guess import check_units
from m1pipe.errors import InputError
from m1pipe.io.reader import open_matrix

MODEL = config.ModelConfig()
TRAINING = config.TrainingConfig()
HEAD = config.HeadConfig()

# A parameter may not have the name of a method, and scikit-learn has a name for the seed.
_TRANSFORMS = f"(?:{'|'.join(get_args(config.Transform))})"
RENAMED = {"transform": "input_transform", "seed": "random_state"}


def collect(
    estimator: BaseEstimator, kind: type[settings.Config], given: Mapping[str, Any]
) -> settings.Config:
    """Configuration of one kind from the estimator's parameters of the same names.

    Parameters
    ----------
    estimator : BaseEstimator
        Fields that it does not have keep their default.
    kind : type
        A configuration class without nested ones.
    given : mapping
        Values that stand instead of the estimator's, such as a seed that was drawn.
    """
    values = {
        f.name: getattr(estimator, parameter)
        for f in dataclasses.fields(kind)  # type: ignore[arg-type]
        if hasattr(estimator, parameter := RENAMED.get(f.name, f.name))
    }
    values.update(given)
    plain = {name: _plain(value) for name, value in values.items()}
    with naming_parameters():
        return settings.build(kind, plain, where=type(estimator).__name__)


@contextmanager
def naming_parameters() -> Iterator[None]:
    """Name parameters by the names that they have in estimators, in errors of the block."""
    try:
        yield
    except InputError as error:
        text = str(error)
        for field, own in RENAMED.items():
            text = re.sub(rf"(?<![\w.]){field}(?=: | {_TRANSFORMS}\b)", own, text)
        raise InputError(text) from None


def parameters(values: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The estimator's parameters that a configuration's fields stand for."""
    renamed = {RENAMED.get(name, name): value for name, value in values.items()}
    return {name: value for name, value in renamed.items() if name in known}


def as_table(X: Any) -> Any:
    """What scikit-learn understands: the levels of AnnData, a file or a Matrix by gene name.

    A sparse matrix becomes dense. Anything else is handed back as it is. A file is read whole:
    `m1pipe.train_encoder` streams.

    Returns
    -------
    DataFrame of float32, shape (n_samples, n_genes), or X
    """
    if sparse.issparse(X):
        return X.toarray()
    is_file = isinstance(X, str | os.PathLike)
    if not is_file and not all(hasattr(X, part) for part in ("obs", "var")):
        return X
    matrix = open_matrix(X)
    try:
        check_units(matrix)
        values = matrix.take(np.arange(matrix.n_samples))
        table = pd.DataFrame(values, index=matrix.samples, columns=matrix.genes)
        table.attrs.update(matrix.units.to_uns())
        return table
    finally:
        if is_file:
            matrix.close()


def checked_levels(
    estimator: BaseEstimator, X: Any, *, gaps: bool, fitting: bool = False
) -> np.ndarray:
    """Levels as scikit-learn checks them, by name where they have names.

    Parameters
    ----------
    estimator : BaseEstimator
    X : array-like, DataFrame, AnnData or path, shape (n_samples, n_genes)
    gaps : bool
        NaN may stand for a missing level.
    fitting : bool
        Keep the names of X, and ask for two samples; else compare with those of fitting.

    Returns
    -------
    ndarray of float32, shape (n_samples, n_genes)

    Raises
    ------
    ValueError
        If scikit-learn does not accept X.
    InputError
        If a sample has no level at all.
    """
    table = as_table(X)
    _check_same_units(estimator, getattr(table, "attrs", {}).get("units"), fitting=fitting)
    found: np.ndarray = validate_data(
        estimator,
        table,
        dtype=np.float32,
        reset=fitting,
        ensure_min_samples=2 if fitting else 1,
        ensure_all_finite="allow-nan" if gaps else True,
    )
    empty = np.flatnonzero(np.isnan(found).all(axis=1))
    if empty.size:
        raise InputError(
            "X: expected a level of at least one gene in every sample; found none in row "
            f"{empty[0]} ({empty.size} such rows): leave them out"
        )
    return found


def _check_same_units(estimator: BaseEstimator, units: str | None, *, fitting: bool) -> None:
    """Keep the units of what is fitted; refuse others later, where both are known."""
    if fitting:
        estimator._fitted_units = units
        return
    known = getattr(estimator, "_fitted_units", None)
    if "unknown" not in (known, units) and None not in (known, units) and known != units:
        raise InputError(
            f"X: expected {known}, as it was fitted to; found {units}: bring it to the same units "
            "(m1pipe convert), or use m1pipe.load_encoder, which converts"
        )


def draw_seed(random_state: int | np.random.RandomState | None) -> int:
    """The seed itself, or one drawn from the generator (the global one for None)."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def _plain(value: Any) -> Any:
    """Python's own numbers and tuples where NumPy's or lists were given."""
    if isinstance(value, np.generic):
        return value.item()
    return tuple(value) if isinstance(value, list) else value
