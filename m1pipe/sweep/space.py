"""Settings of every trial: from widths and depths, or drawn from a space."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from m1pipe import seeds
from m1pipe.config import EncoderConfig
from m1pipe.errors import InputError
from m1pipe.settings import build
from m1pipe.sweep.config import SweepConfig


@dataclass(frozen=True)
class Span:
    """Values of a setting between two ends, in equal steps or in equal ratios."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def draw(self, rng: np.random.Generator) -> float | int:
        """A value, both ends possible."""
        low, high = (np.log(self.low), np.log(self.high)) if self.log else (self.low, self.high)
        value = float(rng.uniform(low, high))
        value = float(np.exp(value)) if self.log else value
        return round(value) if self.whole else value


Space = Mapping[str, Sequence[Any] | Span]


def parse_space(table: Mapping[str, Any], where: str) -> Space:
    """A space of settings: each a list of values, or a table low, high and perhaps log, whole.

    Raises
    ------
    InputError
        If an entry is neither, or a setting is not one of an encoder's.
    """
    space: dict[str, Sequence[Any] | Span] = {}
    for name, entry in table.items():
        if isinstance(entry, list) and entry:
            values = [tuple(v) if isinstance(v, list) else v for v in entry]
            build(EncoderConfig, {name: values[0]}, where=where)
            space[name] = values
            continue
        try:
            span = Span(**entry)
        except TypeError:
            raise InputError(
                f"{where}: {name}: expected a list of values, or a table of low and high (log = "
                f"true, whole = true); found {entry!r}"
            ) from None
        if not (span.low <= span.high and (span.low > 0 or not span.log)):
            raise InputError(
                f"{where}: {name}: expected low <= high, above 0 with log; found {entry}"
            )
        build(EncoderConfig, {name: span.draw(np.random.default_rng(0))}, where=where)
        space[name] = span
    if not space:
        raise InputError(f"{where}: expected settings to search over; found none")
    return space


def halving_widths(n_layers: int, total: int) -> tuple[int, ...]:
    """Widths of layers that halve one after another and sum up to a total, each at least 1.

    >>> halving_widths(3, 700)
    (400, 200, 100)
    """
    shares = 2.0 ** -np.arange(n_layers)
    return tuple(max(1, round(total * float(share))) for share in shares / shares.sum())


def planned_settings(config: SweepConfig, space: Space | None) -> list[dict[str, Any]]:
    """Settings of every trial that is known beforehand (with Optuna only those of no space)."""
    found: list[dict[str, Any]] = [{"hidden": (), "n_latent": n} for n in config.neurons]
    for n_layers in config.layers:
        widths = halving_widths(n_layers, config.total)
        found.append({"hidden": widths[:-1], "n_latent": widths[-1]})
    if space is not None and config.sampler == "random":
        found += [_drawn(space, config.seed, trial) for trial in range(config.trials)]
    return found


def _drawn(space: Space, seed: int, trial: int) -> dict[str, Any]:
    """Settings of one random trial, whatever the others are."""
    rng = seeds.rng(seed, trial, seeds.SWEEP_TRIALS)
    return {
        name: entry.draw(rng) if isinstance(entry, Span) else entry[int(rng.integers(len(entry)))]
        for name, entry in space.items()
    }


def suggested(
    space: Space, config: SweepConfig, done: Sequence[tuple[dict[str, Any], float]]
) -> dict[str, Any]:
    """What Optuna would try next, knowing the settings and scores of the trials done.

    Raises
    ------
    InputError
        If Optuna is not installed.
    """
    try:
        optuna = importlib.import_module("optuna")
    except ImportError:
        raise InputError(
            "sweep: expected the package optuna for --sampler optuna; found none: "
            "pip install 'm1pipe[optuna]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    laws = {name: _law(optuna.distributions, entry) for name, entry in space.items()}
    sampler = optuna.samplers.TPESampler(seed=config.seed + len(done))
    study = optuna.create_study(sampler=sampler)
    for settings, score in done:
        chosen = {name: _index(entry, settings[name]) for name, entry in space.items()}
        study.add_trial(optuna.trial.create_trial(params=chosen, distributions=laws, value=score))
    asked = study.ask(laws).params
    return {
        name: asked[name] if isinstance(entry, Span) else entry[asked[name]]
        for name, entry in space.items()
    }


def _law(distributions: Any, entry: Sequence[Any] | Span) -> Any:
    if not isinstance(entry, Span):
        return distributions.CategoricalDistribution(list(range(len(entry))))
    if entry.whole:
        return distributions.IntDistribution(int(entry.low), int(entry.high), log=entry.log)
    return distributions.FloatDistribution(entry.low, entry.high, log=entry.log)


def _index(entry: Sequence[Any] | Span, value: Any) -> Any:
    return value if isinstance(entry, Span) else list(entry).index(value)
