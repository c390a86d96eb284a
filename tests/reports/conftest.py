"""Cross-validation results with a planted truth: who is better, and by how much, is known."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from m1pipe.errors import Alarm
from m1pipe.evaluation.compare import compare, declared_family
from m1pipe.evaluation.result import CrossvalResult

LEVELS = {"mean": 1.0, "ridge": 0.62, "raw": 0.74, "pca": 0.63, "ae": 0.64, "vae": 0.62}
METRICS = ("mse", "mae", "r2", "pearson")


def make_folds(n: int, n_folds: int, n_repeats: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.stack([rng.permutation(np.arange(n) % n_folds) for _ in range(n_repeats)])


def make_losses(
    levels: Mapping[str, float], seeds: Mapping[str, int], folds: np.ndarray
) -> dict[str, np.ndarray]:
    """Losses (n_seeds, n_repeats, n): a level times a sample's difficulty, and small noise."""
    rng = np.random.default_rng(2)
    n_repeats, n = folds.shape
    difficulty = rng.gamma(20, 1 / 20, size=n)
    return {
        model: level * difficulty + 0.03 * rng.normal(size=(seeds.get(model, 1), n_repeats, n))
        for model, level in levels.items()
    }


def make_scores(losses: Mapping[str, np.ndarray], folds: np.ndarray) -> pd.DataFrame:
    rows = []
    for model, loss in losses.items():
        for r, k in np.ndindex(len(folds), int(folds.max()) + 1):
            mse = loss.mean(axis=0)[r][folds[r] == k].mean()
            values = (mse, 0.8 * np.sqrt(mse), 1 - mse, np.sqrt(max(0, 1 - mse)))
            if model == "mean":
                values = (*values[:3], np.nan)
            rows += [(model, r, k, m, v) for m, v in zip(METRICS, values, strict=True)]
    return pd.DataFrame(rows, columns=["model", "repeat", "fold", "metric", "value"])


def make_run(seed: int, beta: float) -> dict[str, Any]:
    """Facts about one trained encoder, its curves falling as real ones do."""
    epochs = np.arange(1, 61)
    reconstruction = 1200 + 300 * np.exp(-epochs / 8) + seed
    kl = np.minimum(1, epochs / 15) * 40 * (beta > 0)
    history = pd.DataFrame({"epoch": epochs, "lr": 1e-3, "beta": beta})
    for part, gap in (("train", 0.0), ("val", 12.0)):
        history[f"{part}_reconstruction"] = reconstruction + gap
        history[f"{part}_kl"] = kl
        history[f"{part}_loss"] = reconstruction + gap + kl
    spectrum = 3 * np.exp(-np.arange(32) / 6)
    return {
        "path": f"runs/{'vae' if beta else 'ae'}{seed}",
        "seed": seed,
        "n_train": 780,
        "best_epoch": 52,
        "history": history.to_dict(orient="records"),
        "kl_per_unit": spectrum.tolist() if beta else None,
        "active_kl": int((spectrum > 0.05).sum()) if beta else 0,
        "active_mu": 31,
        "r2": 0.31 + 0.01 * seed,
        "pca_r2": 0.33,
        "depth": "detected genes",
        "library_size_r": 0.42,
    }


def make_info(seeds: Mapping[str, int], folds: np.ndarray) -> dict[str, Any]:
    encoders = {
        name: {
            "n_latent": 32,
            "beta": 0.0 if name == "ae" else 1.0,
            "runs": [make_run(s, 0.0 if name == "ae" else 1.0) for s in range(n)],
        }
        for name, n in seeds.items()
    }
    return {
        "kind": "regression",
        "metric": "mse",
        "n": folds.shape[1],
        "n_features": 968,
        "n_targets": 1505,
        "units": "log2_normalized1 (target sum 10000)",
        "target_units": "log2_normalized1 (target sum 10000)",
        "n_x": 991,
        "n_y": 991,
        "dropped": {"samples of X without Y": 3},
        "left_out": "3 samples of X without Y (such as s7)",
        "stratify": "cluster",
        "strata": {"c1": 180, "c2": 140, "c3": 80},
        "linear_rival": "ridge",
        "encoders": encoders,
        "rows": {
            "mean": {"means": "training samples of the fold"},
            "ridge": {"scaler, weights": "training samples of the fold"},
            "raw": {"scaler, head": "training samples of the fold"},
            "pca": {"components": "samples of the encoder's run", "head": "training samples"},
            **{
                name: {"encoder": "867 samples of runs/u.h5ad", "scaler, head": "training samples"}
                for name in seeds
            },
        },
    }


@pytest.fixture
def planted() -> Callable[..., CrossvalResult]:
    """Builder of results; every model's mean loss is its level, up to noise of 0.03 a sample."""

    def build(
        levels: Mapping[str, float] = LEVELS,
        seeds: Mapping[str, int] | None = None,
        n: int = 150,
        n_folds: int = 5,
        n_repeats: int = 1,
        alarms: tuple[Alarm, ...] = (),
        family_only: bool = False,
        **info: Any,
    ) -> CrossvalResult:
        seeds = {"ae": 1, "vae": 3} if seeds is None else seeds
        folds = make_folds(n, n_folds, n_repeats)
        by_seed = make_losses(levels, seeds, folds)
        losses = {model: loss.mean(axis=0) for model, loss in by_seed.items()}
        models = list(losses)
        family = declared_family(list(seeds), models, "ridge")
        pairs = [(a, b) for i, a in enumerate(models) for b in models[:i] if (a, b) not in family]
        pairs = [] if family_only else pairs
        return CrossvalResult(
            samples=np.array([f"s{i:03d}" for i in range(n)], dtype=object),
            folds=folds,
            losses=losses,
            seed_losses={m: by_seed[m] for m in seeds if seeds[m] > 1},
            scores=make_scores(by_seed, folds),
            comparisons=compare(losses, folds, pairs=pairs, family=family, metric="mse"),
            alarms=list(alarms),
            info=make_info(seeds, folds) | info,
        )

    return build


@pytest.fixture
def provenance() -> dict[str, Any]:
    return {
        "m1pipe": "0.1.0",
        "git_commit": "0" * 40,
        "libraries": {"python": "3.11.9", "torch": "2.13.0"},
        "command": "m1pipe crossval --x x.h5ad --y y.h5ad --encoder vae=runs/vae1 --out runs/cv",
        "host": "node7",
        "job_id": None,
        "started": "2026-01-02T03:04:05+00:00",
        "seed": 0,
        "inputs": {
            "x": {"path": "/data/x.h5ad", "size": 3_900_000, "sha256": "ab" * 32},
            "y": {"path": "/data/y.h5ad", "size": 5_900_000, "sha256": "cd" * 32},
        },
    }


@pytest.fixture
def settings() -> dict[str, Any]:
    return {
        "folds": 5,
        "repeats": 1,
        "seed": 0,
        "recipe": "best",
        "head": {
            "hidden": [256],
            "epochs": 200,
            "lr": 1e-3,
            "batch_size": 64,
            "patience": 20,
            "validation": 0.15,
            "standardize": True,
        },
    }
