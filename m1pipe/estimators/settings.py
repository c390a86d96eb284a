"""Between an estimator's flat parameters and the configuration classes that hold the defaults."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from m1pipe import config, settings

MODEL = config.ModelConfig()
TRAINING = config.TrainingConfig()
HEAD = config.HeadConfig()

# A parameter may not have the name of a method, and scikit-learn has a name for the seed.
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
    return settings.build(kind, {name: _plain(value) for name, value in values.items()})


def parameters(values: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The estimator's parameters that a configuration's fields stand for."""
    renamed = {RENAMED.get(name, name): value for name, value in values.items()}
    return {name: value for name, value in renamed.items() if name in known}


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
