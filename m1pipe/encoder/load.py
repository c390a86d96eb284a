"""Load a trained encoder from the folder of a run, or from a bundle."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from m1pipe.artefacts import DAMAGE, read_arrays, read_json, read_table, reading
from m1pipe.config import EncoderConfig, ModelConfig
from m1pipe.data.centring import Centring
from m1pipe.data.recipe import Recipe
from m1pipe.data.transforms import GeneTransform
from m1pipe.encoder.bundle import run_files
from m1pipe.encoder.conditional import Condition
from m1pipe.encoder.trained import FORMAT_VERSION, LEVELS_FILE, Encoder, gene_means
from m1pipe.errors import InputError
from m1pipe.models.pca import PCA
from m1pipe.models.vae import VAEModule
from m1pipe.settings import build

WHAT = "JSON written by m1pipe train"
REMEDY = "train it again, or copy the whole folder again"


def load_encoder(run: str | os.PathLike[str]) -> Encoder:
    """Read an encoder from the folder of a run, or from a bundle.

    Parameters
    ----------
    run : path
        Written by `m1pipe train`, `Encoder.save` or `m1pipe export --bundle`.

    Returns
    -------
    Encoder

    Raises
    ------
    InputError
        If a file is missing, damaged or of another format version, they do not fit together, or
        a digest differs.
    """
    with run_files(run) as folder:
        return _read_encoder(folder)


def _read_encoder(folder: Path) -> Encoder:
    stored = _read_model_json(folder)
    try:
        encoder = _read_model(folder, stored)
    except InputError:
        raise
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{folder}: the files of the model do not fit together: {reason}"
        ) from None
    summary = stored.get("summary")
    if not isinstance(summary, dict):
        raise InputError(f"{folder / 'model.json'}: expected {WHAT}; no summary in it: {REMEDY}")
    roles = _read_roles(folder / "samples.csv")
    return replace(
        encoder,
        summary=summary,
        history=_read_history(folder / "history.csv"),
        samples=tuple(roles.loc[roles["role"] == "train", "sample"]),
        validation_samples=tuple(roles.loc[roles["role"] == "validation", "sample"]),
        kept=_kept(roles),
    )


def _read_model(folder: Path, stored: dict[str, Any]) -> Encoder:
    """The encoder without its samples and the record of its training."""
    config = build(EncoderConfig, stored["config"], where=str(folder / "model.json"))
    levels = None
    if (folder / LEVELS_FILE).is_file():
        levels = _read_arrays(folder / LEVELS_FILE)["levels"]
    scaler = GeneTransform.from_dict(stored["transform"], levels)
    arrays = _read_arrays(folder / "pca.safetensors")
    condition = None
    if stored.get("condition") is not None:
        condition = Condition.from_dict(stored["condition"], arrays.pop("class_shift"))
    centring = None
    if stored.get("center_within") is not None:
        centring = Centring(
            stored["center_within"], arrays.pop("centre"), arrays.pop("centre_scale")
        )
    pca = PCA(**arrays)
    n_genes = len(stored["recipe"]["genes"])
    if n_genes != pca.mean.size:
        raise ValueError(f"{n_genes} genes and {pca.mean.size} means")
    n_classes = 0 if condition is None else condition.n_classes
    module = _read_module(folder, config.model, n_genes, n_classes)
    recipe = Recipe.from_dict(stored["recipe"], gene_means(scaler, pca, module))
    config, latent_scale = _latent_scale(config, stored.get("latent_scale"))
    return Encoder(
        module=module,
        config=config,
        recipe=recipe,
        scaler=scaler,
        pca=pca,
        condition=condition,
        centring=centring,
        latent_scale=latent_scale,
        thinning=stored.get("thinning"),
    )


def _read_module(folder: Path, config: ModelConfig, n_genes: int, n_classes: int) -> VAEModule:
    """The network with its weights, in evaluation mode."""
    weights = _read_arrays(folder / "model.safetensors")
    with torch.device("meta"):
        unmade = VAEModule(n_genes, config, n_classes=n_classes)
    _refuse_other_shapes(unmade, weights)
    module = VAEModule(n_genes, config, n_classes=n_classes)
    module.load_state_dict({name: torch.from_numpy(a) for name, a in weights.items()})
    return module.eval()


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
    stored = read_json(path, WHAT, remedy=REMEDY)
    found = stored.get("format_version")
    if found != FORMAT_VERSION:
        raise InputError(f"{path}: expected format version {FORMAT_VERSION}; found {found}")
    return stored


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    arrays, _ = read_arrays(path, "weights in safetensors", remedy=REMEDY)
    return arrays


def _refuse_other_shapes(module: nn.Module, weights: dict[str, np.ndarray]) -> None:
    """Compare the shapes that settings give, on a device without memory, with those of a file."""
    wanted = {name: tuple(t.shape) or (1,) for name, t in module.state_dict().items()}
    for name in (*wanted, *weights):
        there = (weights[name].shape or (1,)) if name in weights else None
        if wanted.get(name) != there:
            raise ValueError(f"{name}: the settings give {wanted.get(name)}, the file {there}")


def _read_roles(path: Path) -> pd.DataFrame:
    """Columns sample and role, as text; empty where there is no such file."""
    if not path.is_file():
        return pd.DataFrame({"sample": [], "role": []})
    what = "a table of samples and their roles"
    return read_table(path, what, ("sample", "role"), remedy=REMEDY, dtype=str)


def _read_history(path: Path) -> list[dict[str, Any]]:
    """Rows of history.csv; none where there is no such file."""
    with reading(path, "a table of epochs", remedy=REMEDY):
        if not path.is_file() or not path.read_text(encoding="utf-8").strip():
            return []
        return [
            {str(name): value for name, value in row.items()}
            for row in pd.read_csv(path, float_precision="round_trip").to_dict("records")
        ]
