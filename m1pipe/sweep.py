"""Many configurations of an encoder on one data set: what is tried, how each does, which is best.

Rows are split once into training, validation and test. Trials are compared by their validation
rows alone; the test rows are seen once, by the best.
"""

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from m1pipe.config import EncoderConfig
from m1pipe.data.matrix import Matrix
from m1pipe.data.splits import inner_split
from m1pipe.encoder.missing import class_means
from m1pipe.encoder.summary import gene_scale, measure
from m1pipe.encoder.train import train_encoder
from m1pipe.encoder.trained import Encoder
from m1pipe.errors import InputError
from m1pipe.settings import build

Sampler = Literal["random", "optuna"]
SCORE = "unexplained"


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """What is tried.

    Attributes
    ----------
    neurons : tuple of int
        Widths of a single layer, the latent one: one trial each.
    layers : tuple of int
        Numbers of layers, each half as wide as the one before, the last one latent, with
        `total` neurons together: one trial each.
    total : int
        Neurons of all layers of a trial of `layers`.
    trials : int
        Drawn from a space of settings.
    sampler : str
        "random", or "optuna" (TPE; Bergstra et al. 2011), which learns from earlier trials.
    validation, test : float
        Shares of the rows.
    seed : int
        Of the split and of what is drawn.
    """

    neurons: tuple[int, ...] = ()
    layers: tuple[int, ...] = ()
    total: int = 2000
    trials: int = 20
    sampler: Sampler = "random"
    validation: float = 0.15
    test: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("neurons", "layers"):
            if any(value < 1 for value in getattr(self, name)):
                raise InputError(
                    f"{name}: expected numbers of at least 1; found {getattr(self, name)}"
                )
        for name, least in (("total", 1), ("trials", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: expected at least {least}; found {getattr(self, name)}")
        if self.sampler not in get_args(Sampler):
            raise InputError(f"sampler: expected random or optuna; found {self.sampler!r}")
        if not (0 < self.validation < 1 and 0 < self.test < 1 and self.validation + self.test < 1):
            raise InputError(
                "validation and test: expected shares above 0 that leave rows to train on; found "
                f"{self.validation} and {self.test}"
            )


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
    rng = np.random.default_rng([seed, trial, 53])
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


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of the three parts; the groups that keep together."""

    training: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_rows(n_rows: int, config: SweepConfig, groups: np.ndarray | None) -> Split:
    """Training, validation and test rows.

    Parameters
    ----------
    n_rows : int
    config : SweepConfig
    groups : ndarray, shape (n_rows,), or None
        None is in two parts.

    Returns
    -------
    Split
    """
    rest, test = inner_split(np.arange(n_rows), config.test, config.seed, groups=groups)
    share = config.validation / (1 - config.test)
    training, validation = inner_split(rest, share, config.seed + 1, groups=groups)
    return Split(training, validation, test)


def run_trial(
    matrix: Matrix, base: Mapping[str, Any], settings: Mapping[str, Any], split: Split
) -> tuple[Encoder, dict[str, Any]]:
    """Train one configuration and measure it on the validation rows.

    Parameters
    ----------
    matrix : Matrix
    base, settings : mapping
        Settings of all trials, and of this one.
    split : Split

    Returns
    -------
    encoder : Encoder
    found : dict
        `unexplained` (share of the standardised variance of the validation rows that the encoder
        leaves, 1 - R2), the same of PCA at equal latent size, sizes and times.
    """
    config = build(EncoderConfig, base, settings, where="sweep")
    rows = np.concatenate([split.training, split.validation])
    encoder = train_encoder(matrix, config, rows=rows, validation=split.validation)
    summary = encoder.summary
    found = {
        SCORE: 1.0 - summary["r2"],
        f"pca_{SCORE}": 1.0 - summary["pca_r2"],
        "val_loss": summary["val_loss"],
        "active_units": summary["active_units"],
        "n_parameters": summary["n_parameters"],
        "epochs": summary["epochs"],
        "best_epoch": summary["best_epoch"],
        "seconds": summary["seconds"],
    }
    return encoder, found


def unexplained(encoder: Encoder, matrix: Matrix, rows: np.ndarray) -> tuple[float, float]:
    """Share of the standardised variance of some rows that an encoder, and PCA, leave.

    Measured as the validation rows of a trial are (`m1pipe.encoder.summary`).

    Parameters
    ----------
    encoder : Encoder
    matrix : Matrix
    rows : ndarray of int, shape (n_rows,)

    Returns
    -------
    encoder, pca : float
        Squared residuals over squared deviations from the training means; what is missing is
        left out.
    """
    aligned = encoder.align(matrix)
    aligned.keep_missing = True
    X, condition = encoder.scaler.apply(aligned.take(rows)), encoder.condition
    means = torch.from_numpy(class_means(encoder.pca.mean, condition))
    found = measure(
        encoder.module,
        encoder.pca,
        [X],
        gene_scale(encoder.scaler, encoder.pca),
        codes=encoder.codes(matrix, rows),
        shift=None if condition is None else condition.shift,
        means=means if np.isnan(X).any() else None,
    ).r2()
    if found["r2"] is None or found["pca_r2"] is None:
        raise InputError("sweep: expected test rows that vary; found none that do")
    return 1.0 - found["r2"], 1.0 - found["pca_r2"]


def best_trial(records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The trial whose validation rows are explained best; the first of equals.

    Raises
    ------
    InputError
        If no trial ended.
    """
    ended = [record for record in records if record.get(SCORE) is not None]
    if not ended:
        raise InputError("sweep: expected a trial that ended; found none")
    return min(ended, key=lambda record: float(record[SCORE]))


def as_run_config(base: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What `m1pipe train --config` takes."""
    return dataclasses.asdict(build(EncoderConfig, base, settings, where="sweep"))
