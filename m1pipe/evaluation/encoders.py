"""The encoders of a comparison: what stands behind each NAME, and the latents it gives."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from m1pipe.config import CrossvalConfig, EncoderConfig
from m1pipe.config.presets import PRESETS, preset_options
from m1pipe.console import log
from m1pipe.data.matrix import Matrix
from m1pipe.data.recipe import match_recipe
from m1pipe.encoder.load import load_encoder
from m1pipe.encoder.plan import plan_training
from m1pipe.encoder.summary import ACTIVE_KL, ACTIVE_VARIANCE
from m1pipe.encoder.train import train_planned
from m1pipe.encoder.trained import Encoder
from m1pipe.errors import InputError, SettingError, counted
from m1pipe.settings import build, read_config_file
from m1pipe.training.signals import StopFlag

FOLD_PREFIX = "fold:"
KEPT_FACTS = (
    "best_epoch",
    "r2",
    "r2_median",
    "pca_r2",
    "pca_r2_median",
    "r2_rows",
    "kl_per_unit",
    "mu_variance",
    "active_units",
    "dead_share",
    "depth",
    "depth_r",
)
Item = str | os.PathLike[str] | EncoderConfig | Encoder
_ONE_ITEM = (str, os.PathLike, EncoderConfig, Encoder)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class ComparedEncoder:
    """One NAME of the comparison: frozen encoders, or settings to train by inside each fold.

    Attributes
    ----------
    name : str
        Its name.
    frozen : tuple of Encoder
        One per seed; empty where the encoders are trained inside the fold.
    configs : tuple of EncoderConfig
        One per seed; empty where the encoders are frozen.
    sources : tuple of str
        Where each seed comes from, for the report.
    """

    name: str
    frozen: tuple[Encoder, ...]
    configs: tuple[EncoderConfig, ...]
    sources: tuple[str, ...]

    @property
    def n_seeds(self) -> int:
        """Number of encoders of one fold."""
        return len(self.sources)

    @property
    def in_fold(self) -> bool:
        """Whether the encoders are trained inside each fold."""
        return bool(self.configs)

    @property
    def n_latent(self) -> int:
        """Width of the first encoder's latents."""
        return (self.configs or tuple(e.config for e in self.frozen))[0].model.n_latent


def parse_encoder(text: str) -> tuple[str, list[str]]:
    """Name and items of one `--encoder NAME=RUN[,RUN2...]` or `NAME=fold:CONFIG`.

    >>> parse_encoder("vae=runs/a,runs/b")
    ('vae', ['runs/a', 'runs/b'])

    Raises
    ------
    InputError
        If it is not of that form.
    """
    name, _, items = text.partition("=")
    parts = [part.strip() for part in items.split(",")]
    if not NAME.fullmatch(name.strip()) or not all(parts):
        raise SettingError(
            f"encoder: expected NAME=RUN[,RUN2,...] or NAME=fold:CONFIG; found {text!r}"
        )
    return name.strip(), parts


def resolve_encoders(encoders: Mapping[str, Item | Sequence[Item]]) -> tuple[ComparedEncoder, ...]:
    """Open the encoders and settings behind every NAME.

    Parameters
    ----------
    encoders : mapping
        NAME to one item or several (its seeds): the folder of a run, an Encoder, an EncoderConfig
        or `"fold:CONFIG"` (CONFIG a file, a run's folder, a preset, or `default`) to train by
        inside each fold. An item that is given again trains with the next seed.

    Raises
    ------
    InputError
        If an item cannot be read, or frozen and in-fold items are mixed under one name.
    """
    return tuple(
        _resolve_row(name, [given] if isinstance(given, _ONE_ITEM) else list(given))
        for name, given in encoders.items()
    )


def fold_config(text: str) -> EncoderConfig:
    """Settings named by what follows `fold:`.

    Parameters
    ----------
    text : str
        `default`, a preset, a JSON or TOML file, or the folder of a run.

    Raises
    ------
    InputError
        If it is none of these.
    """
    if text == "default":
        return EncoderConfig()
    if text in PRESETS:
        return build(EncoderConfig, preset_options(text), where=f"preset {text}")
    path = settings_file(f"{FOLD_PREFIX}{text}")
    if path is None:
        raise InputError(
            f"encoder: fold:{text}: expected a JSON or TOML file, a run's folder, default, or one "
            f"of {', '.join(PRESETS)}; found none of these"
        )
    values = read_config_file(path)
    if "model" in values or "training" in values:
        values = {part: values[part] for part in ("model", "training") if part in values}
    return build(EncoderConfig, values, where=str(path))


def settings_file(item: str) -> Path | None:
    """The file behind `fold:CONFIG`; None where there is none, as of a preset."""
    path = Path(item.removeprefix(FOLD_PREFIX))
    path = path / "config.json" if path.is_dir() else path
    named = path.suffix == ".zip" or str(path) in ("default", *PRESETS)
    return path if path.is_file() and not named else None


def frozen_inputs(
    encoders: Sequence[ComparedEncoder], matrix: Matrix, rows: np.ndarray, *, min_coverage: float
) -> dict[str, list[np.ndarray]]:
    """Latents of the frozen encoders, and the scores on the PCA stored with the first of them.

    Parameters
    ----------
    encoders : sequence of ComparedEncoder
        Those to be trained inside the fold are passed over.
    matrix : Matrix
        X; genes are matched by name and units converted by each encoder's recipe.
    rows : ndarray of int, shape (n_samples,)
        Rows of it that are wanted.
    min_coverage : float
        Smallest share of an encoder's genes that X must have.

    Returns
    -------
    dict of str to list of ndarray of float32, shape (n_samples, n_latent)
        By name, one array a seed; under "pca" the scores.
    """
    inputs: dict[str, list[np.ndarray]] = {}
    for entry in encoders:
        for encoder in entry.frozen:
            seen = encoder.align(matrix, min_coverage=min_coverage, keep_missing=True)
            inputs.setdefault(entry.name, []).append(encoder.transform(seen)[rows])
            if "pca" not in inputs:
                inputs["pca"] = [encoder.pca_scores(seen)[rows]]
    return inputs


def train_in_fold(
    entry: ComparedEncoder,
    matrix: Matrix,
    rows: np.ndarray,
    *,
    groups: np.ndarray | None,
    gaps: bool = False,
    stop: StopFlag | None = None,
) -> list[Encoder]:
    """Train every seed of an encoder inside the fold.

    Parameters
    ----------
    entry : ComparedEncoder
    matrix : Matrix
        X.
    rows : ndarray of int, shape (n_rows,)
        Rows of it that may be used; no other is looked at.
    groups : ndarray, shape (matrix.n_samples,), or None
        Groups that the encoder's own validation split keeps together.
    gaps : bool
        Levels are missing: genes of which the rows have none are left out.
    stop : StopFlag, optional
        Looked at after every step.
    """
    trained = []
    for config in entry.configs:
        plan = plan_training(matrix, config, rows=rows, groups=groups, drop_unknown=gaps)
        trained.append(train_planned(plan, stop=stop))
        log.info(
            "%s: encoder of seed %d trained on %d samples, %s, %.1f s",
            entry.name,
            config.training.seed,
            plan.rows.size,
            counted(trained[-1].summary["epochs"], "epoch"),
            trained[-1].summary["seconds"],
        )
    return trained


def own_columns_of(encoder: Encoder, X: np.ndarray, matrix: Matrix) -> np.ndarray:
    """The genes that an encoder trained on a matrix has kept, of levels of all its genes.

    Parameters
    ----------
    encoder : Encoder
    X : ndarray, shape (n, matrix.n_genes)
    matrix : Matrix

    Returns
    -------
    ndarray, shape (n, n_genes)
        X itself where the encoder has kept all.
    """
    if len(encoder.genes) == matrix.n_genes:
        return X
    return np.asarray(X[:, match_recipe(matrix, encoder.recipe).columns])


def encoder_facts(encoder: Encoder, source: str) -> dict[str, Any]:
    """Facts about one trained encoder for the report, plain values only."""
    known = encoder.summary
    depth = known.get("depth_r")
    return {
        "path": source,
        "seed": encoder.config.training.seed,
        "n_latent": encoder.config.model.n_latent,
        "n_train": len(encoder.samples),
        "history": encoder.history,
        "active_mu": sum(v > ACTIVE_VARIANCE for v in known["mu_variance"]),
        "active_kl": sum(kl > ACTIVE_KL for kl in known.get("kl_per_unit") or []),
        "library_size_r": max((abs(r) for r in depth), default=None) if depth else None,
        **{name: known.get(name) for name in KEPT_FACTS},
    }


def _resolve_row(name: str, items: list[Item]) -> ComparedEncoder:
    if not items:
        raise InputError(f"encoder: {name}: expected at least one run or setting; found none")
    opened = [_open_item(item) for item in items]
    kinds = {isinstance(item, Encoder) for item in opened}
    if len(kinds) > 1:
        raise InputError(
            f"encoder: {name}: expected either frozen runs or fold: settings; found both: give "
            "them two names"
        )
    sources = tuple(
        str(item) if isinstance(item, str | os.PathLike) else type(item).__name__ for item in items
    )
    frozen = tuple(item for item in opened if isinstance(item, Encoder))
    configs = _spread_seeds([item for item in opened if isinstance(item, EncoderConfig)])
    return ComparedEncoder(name, frozen, configs, sources)


def _open_item(item: Item) -> Encoder | EncoderConfig:
    if isinstance(item, Encoder | EncoderConfig):
        return item
    text = os.fspath(item)
    if text.startswith(FOLD_PREFIX):
        return fold_config(text.removeprefix(FOLD_PREFIX))
    return load_encoder(text)


def _spread_seeds(configs: list[EncoderConfig]) -> tuple[EncoderConfig, ...]:
    """Settings that are given again train with their seed raised by their position."""
    spread = []
    for position, config in enumerate(configs):
        if config in configs[:position]:
            seed = config.training.seed + position
            config = replace(config, training=replace(config.training, seed=seed))
        spread.append(config)
    return tuple(spread)


def encoder_settings(entry: ComparedEncoder, config: CrossvalConfig) -> list[EncoderConfig]:
    """Settings to try inside the folds: as given first, then latent sizes by weights of the KL.

    Parameters
    ----------
    entry : ComparedEncoder
        A plain autoencoder (beta 0) stays one; a frozen one has nothing to try.
    config : CrossvalConfig
        With `tune`: `tune_latents` and `tune_betas`.
    """
    if not entry.in_fold:
        return []
    given = entry.configs[0]
    if not config.tune:
        return [given]
    betas = config.tune_betas if given.model.beta > 0 else (0.0,)
    tried = [
        replace(given, model=replace(given.model, n_latent=n, beta=beta))
        for n, beta in product(config.tune_latents, betas)
    ]
    return [given, *(other for other in tried if other != given)]
