"""Reading a trained encoder from the folder of a run."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays

from m1pipe.config import EncoderConfig
from m1pipe.data.transforms import GeneTransform
from m1pipe.encoder.condition import Condition
from m1pipe.encoder.counting import gene_means
from m1pipe.encoder.trained import FORMAT_VERSION, LEVELS_FILE, Encoder
from m1pipe.errors import InputError
from m1pipe.models.vae import VAEModule
from m1pipe.pca import PCA
from m1pipe.recipe import Recipe
from m1pipe.settings import build


def load_encoder(folder: str | os.PathLike[str]) -> Encoder:
    """Read an encoder from the folder of a run.

    Parameters
    ----------
    folder : path
        Written by `m1pipe train` or `Encoder.save`.

    Returns
    -------
    Encoder

    Raises
    ------
    InputError
        If a file is missing, damaged or of another format version, or they do not fit together.
    """
    folder = Path(folder)
    stored = _read_model_json(folder)
    try:
        config = build(EncoderConfig, stored["config"], where=str(folder / "model.json"))
        levels = None
        if (folder / LEVELS_FILE).is_file():
            levels = _read_arrays(folder / LEVELS_FILE)["levels"]
        scaler = GeneTransform.from_dict(stored["transform"], levels)
        arrays = _read_arrays(folder / "pca.safetensors")
        condition = None
        if stored.get("condition") is not None:
            condition = Condition.from_dict(stored["condition"], arrays.pop("class_shift"))
        pca = PCA(**arrays)
        n_genes = len(stored["recipe"]["genes"])
        n_classes = 0 if condition is None else condition.n_classes
        if n_genes != pca.mean.size:
            raise ValueError(f"{n_genes} genes and {pca.mean.size} means")
        module = VAEModule(n_genes, config.model, n_classes=n_classes)
        weights = _read_arrays(folder / "model.safetensors")
        module.load_state_dict({name: torch.from_numpy(a) for name, a in weights.items()})
        recipe = Recipe.from_dict(stored["recipe"], gene_means(scaler, pca, module))
        config, latent_scale = _latent_scale(config, stored.get("latent_scale"))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{folder}: the files of the model do not fit together: {reason}"
        ) from None
    roles = _read_roles(folder / "samples.csv")
    return Encoder(
        module=module.eval(),
        config=config,
        recipe=recipe,
        scaler=scaler,
        pca=pca,
        summary=stored["summary"],
        history=_read_history(folder / "history.csv"),
        samples=tuple(roles.loc[roles["role"] == "train", "sample"]),
        validation_samples=tuple(roles.loc[roles["role"] == "validation", "sample"]),
        condition=condition,
        latent_scale=latent_scale,
        thinning=stored.get("thinning"),
        kept=_kept(roles),
    )


def _kept(roles: pd.DataFrame) -> np.ndarray | None:
    """Probability with which counts of the training samples were kept, where they were thinned."""
    if "kept" not in roles.columns:
        return None
    return roles.loc[roles["role"] == "train", "kept"].to_numpy(dtype=np.float64)


def _latent_scale(
    config: EncoderConfig, stored: list[float] | None
) -> tuple[EncoderConfig, np.ndarray]:
    """Scale of the latents, and the configuration that says so: 1 where a folder has none yet."""
    n_latent = config.model.n_latent
    if stored is None:
        model = replace(config.model, latent_scale="unit")
        return replace(config, model=model), np.ones(n_latent, dtype=np.float32)
    scale = np.asarray(stored, dtype=np.float32)
    if scale.shape != (n_latent,) or not (np.isfinite(scale) & (scale > 0)).all():
        raise ValueError(f"expected {n_latent} positive numbers of latent_scale; found {stored}")
    return config, scale


def _read_model_json(folder: Path) -> dict[str, Any]:
    path = folder / "model.json"
    if not path.is_file():
        state = "its training is not finished" if (folder / "status.json").exists() else "none"
        raise InputError(f"{folder}: expected a trained model with model.json; found {state}")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        found = stored["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: expected JSON written by m1pipe; {error}") from None
    if found != FORMAT_VERSION:
        raise InputError(f"{path}: expected format version {FORMAT_VERSION}; found {found}")
    return dict(stored)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        arrays: dict[str, np.ndarray] = load_arrays(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: expected weights in safetensors; {error}") from None
    return arrays


def _read_roles(path: Path) -> pd.DataFrame:
    """Columns sample and role, as text; empty where there is no such file."""
    if not path.is_file():
        return pd.DataFrame({"sample": [], "role": []})
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _read_history(path: Path) -> list[dict[str, Any]]:
    """Rows of history.csv; none where there is no such file."""
    if not path.is_file() or not path.read_text(encoding="utf-8").strip():
        return []
    return [
        {str(name): value for name, value in row.items()}
        for row in pd.read_csv(path, float_precision="round_trip").to_dict("records")
    ]
