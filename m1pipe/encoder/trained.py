"""A trained encoder: latents of new samples, levels from latents; kept as weights and JSON."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save as pack_arrays

from m1pipe._version import __version__
from m1pipe.atomic import atomic_file, write_json, write_text
from m1pipe.config import EncoderConfig
from m1pipe.data.transforms import GeneTransform
from m1pipe.data.units import Units
from m1pipe.errors import InputError
from m1pipe.models.vae import VAEModule, decode_mean, encode_mean
from m1pipe.pca import PCA
from m1pipe.recipe import MIN_COVERAGE, Aligned, Recipe, align
from m1pipe.settings import build, to_dict

FORMAT_VERSION = 1
CHUNK_ROWS = 1024
FILES = ("model.safetensors", "model.json", "pca.safetensors", "samples.csv", "history.csv")


@dataclass(eq=False)
class Encoder:
    """A variational autoencoder after training, with everything that applying it needs.

    Attributes
    ----------
    module : VAEModule
        The network, on the CPU, in evaluation mode.
    config : EncoderConfig
        Complete: nothing in it is left open.
    recipe : Recipe
        Genes and units of the training data.
    scaler : GeneTransform
        Per-gene transform fitted on the training rows.
    pca : PCA
        Of the same rows and width, on the transformed scale.
    summary : dict
        How training went; the keys are described in `m1pipe.encoder.summary`.
    history : list of dict
        One row an epoch.
    samples, validation_samples : tuple of str
        Ids of the rows that were trained on, and of those that chose the best epoch.
    """

    module: VAEModule
    config: EncoderConfig
    recipe: Recipe
    scaler: GeneTransform
    pca: PCA
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    samples: tuple[str, ...] = ()
    validation_samples: tuple[str, ...] = ()

    @property
    def genes(self) -> tuple[str, ...]:
        """Gene names in the order of the network's inputs."""
        return self.recipe.genes

    @property
    def units(self) -> Units:
        """Of the training data."""
        return self.recipe.units

    @property
    def n_latent(self) -> int:
        """Number of latent units."""
        return self.config.model.n_latent

    def align(self, data: Any, *, min_coverage: float = MIN_COVERAGE) -> Aligned:
        """See data through the recipe: the encoder's genes, in the units of training.

        Parameters
        ----------
        data : path, AnnData, DataFrame, Matrix or (array, names)
            Samples in any order of genes; units that the recipe can convert.
        min_coverage : float
            Smallest share of the encoder's genes that must be found.

        Raises
        ------
        InputError
            If too few genes are found or the units do not fit.
        """
        return align(data, self.recipe, min_coverage=min_coverage)

    def transform(self, data: Any, *, min_coverage: float = MIN_COVERAGE) -> np.ndarray:
        """Latent means; what `m1pipe encode` writes.

        Parameters
        ----------
        data, min_coverage
            As for `align`.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_latent)
        """
        aligned = self._seen(data, min_coverage)
        out = np.empty((aligned.shape[0], self.n_latent), dtype=np.float32)
        for start, stop, X in aligned.blocks(CHUNK_ROWS):
            out[start:stop] = self.encode_array(X)
        return out

    def encode_array(self, X: np.ndarray) -> np.ndarray:
        """Latent means of rows that are aligned already.

        Parameters
        ----------
        X : ndarray, shape (n_samples, n_genes)
            The encoder's genes in their order, in the units of training.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_latent)
        """
        parts = [encode_mean(self.module, x).numpy() for x in self._transformed(X)]
        return _joined(parts, self.n_latent)

    def decode(self, Z: np.ndarray) -> np.ndarray:
        """Expected levels of latents.

        Parameters
        ----------
        Z : ndarray, shape (n_samples, n_latent)

        Returns
        -------
        ndarray of float32, shape (n_samples, n_genes)
            In the units of training.
        """
        Z = np.asarray(Z, dtype=np.float32)
        parts = [
            self.scaler.invert(decode_mean(self.module, torch.from_numpy(z)).numpy())
            for z in _chunks(Z)
        ]
        return _joined(parts, len(self.genes))

    def reconstruct(self, data: Any, *, min_coverage: float = MIN_COVERAGE) -> np.ndarray:
        """Expected levels of data's samples, from their latent means.

        Parameters
        ----------
        data, min_coverage
            As for `align`.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_genes)
            The encoder's genes, in the units of training.
        """
        return self.decode(self.transform(data, min_coverage=min_coverage))

    def pca_scores(self, data: Any, *, min_coverage: float = MIN_COVERAGE) -> np.ndarray:
        """Scores of data's samples on the principal components stored with the encoder.

        Parameters
        ----------
        data, min_coverage
            As for `align`.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_components)
        """
        aligned = self._seen(data, min_coverage)
        parts = [self.pca.scores(self.scaler.apply(X)) for _, _, X in aligned.blocks(CHUNK_ROWS)]
        return _joined(parts, len(self.pca.components))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write model.safetensors, pca.safetensors, samples.csv, history.csv and model.json.

        Each file is replaced atomically; model.json, without which nothing is read, comes last.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: t.cpu().numpy() for name, t in self.module.state_dict().items()}
        _write_arrays(folder / "model.safetensors", weights)
        _write_arrays(folder / "pca.safetensors", vars(self.pca))
        roles = [("train", self.samples), ("validation", self.validation_samples)]
        table = pd.DataFrame(
            [(sample, role) for role, samples in roles for sample in samples],
            columns=["sample", "role"],
        )
        write_text(folder / "samples.csv", table.to_csv(index=False))
        write_text(folder / "history.csv", pd.DataFrame(self.history).to_csv(index=False))
        write_json(
            folder / "model.json",
            {
                "format_version": FORMAT_VERSION,
                "m1pipe": __version__,
                "config": to_dict(self.config),
                "recipe": self.recipe.to_dict(),
                "transform": self.scaler.to_dict(),
                "summary": self.summary,
            },
        )

    def _seen(self, data: Any, min_coverage: float) -> Aligned:
        return data if isinstance(data, Aligned) else self.align(data, min_coverage=min_coverage)

    def _transformed(self, X: np.ndarray) -> Iterator[torch.Tensor]:
        for rows in _chunks(X):
            yield torch.from_numpy(self.scaler.apply(rows))


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
        scaler = GeneTransform.from_dict(stored["transform"])
        pca = PCA(**_read_arrays(folder / "pca.safetensors"))
        recipe = Recipe.from_dict(stored["recipe"], gene_means(scaler, pca))
        module = VAEModule(len(recipe.genes), config.model)
        weights = _read_arrays(folder / "model.safetensors")
        module.load_state_dict({name: torch.from_numpy(a) for name, a in weights.items()})
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
    )


def gene_means(scaler: GeneTransform, pca: PCA) -> np.ndarray:
    """Training means in the units of the data, float32, shape (n_genes,)."""
    return scaler.invert(pca.mean[None])[0]


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


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    packed = pack_arrays({name: np.ascontiguousarray(a) for name, a in arrays.items()})
    with atomic_file(path) as temporary:
        temporary.write_bytes(packed)


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


def _chunks(X: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(X), CHUNK_ROWS):
        yield np.asarray(X[start : start + CHUNK_ROWS], dtype=np.float32)


def _joined(parts: list[np.ndarray], width: int) -> np.ndarray:
    if not parts:
        return np.empty((0, width), dtype=np.float32)
    return np.concatenate(parts).astype(np.float32, copy=False)
