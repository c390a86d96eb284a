"""A trained encoder: latents of new samples, levels from latents; kept as weights and JSON."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from m1pipe._version import __version__
from m1pipe.artefacts import pack_arrays
from m1pipe.atomic import make_folder, write_bytes, write_json, write_text
from m1pipe.config import EncoderConfig
from m1pipe.data.centring import CentredWithin, Centring
from m1pipe.data.depth import in_units, thinned
from m1pipe.data.matrix import Matrix
from m1pipe.data.recipe import MIN_COVERAGE, Aligned, Recipe, align
from m1pipe.data.transforms import GeneTransform
from m1pipe.data.units import Units
from m1pipe.encoder.conditional import Condition, class_means
from m1pipe.encoder.missing import fill_missing
from m1pipe.encoder.summary import health
from m1pipe.errors import InputError
from m1pipe.io.reader import open_matrix
from m1pipe.models.count_likelihoods import CountInputs
from m1pipe.models.mlp import evaluating
from m1pipe.models.pca import PCA
from m1pipe.models.vae import VAEModule, decode_mean, encode_mean, network_inputs
from m1pipe.settings import to_dict

CHUNK_ROWS = 1024
FORMAT_VERSION = 1
OfRows = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
MIXTURE_FILE = "mixture.safetensors"  # of the latents, added when samples are first generated
QUANTILES_FILE = "training_scores.json"  # added when samples are first scored
CARD_FILE = "model.md"
LEVELS_FILE = "levels.safetensors"  # quantiles of the genes, for normal scores
FILES = ("model.safetensors", "model.json", "pca.safetensors", "samples.csv", "history.csv")
ENCODER_FILES = (*FILES, LEVELS_FILE)


@dataclass(eq=False, repr=False)
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
    condition : Condition or None
        Classes of a conditional model.
    centring : Centring or None
        What genes are brought to within studies, before all else.
    latent_scale : ndarray of float32, shape (n_latent,)
        Every latent here is the network's own times this; of the network the prior is N(0, I), of
        latents that of `latent_scale` times it. Left out: 1.
    thinning : dict or None
        `facts` of the `Thinning` of the training counts; None where they were as they are.
    kept : ndarray of float64, shape (n_training_rows,), or None
        Probability with which a count of each of `samples` was kept.
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
    condition: Condition | None = None
    centring: Centring | None = None
    latent_scale: np.ndarray = field(default_factory=lambda: np.ones(0, dtype=np.float32))
    thinning: dict[str, Any] | None = None
    kept: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not self.latent_scale.size:
            self.latent_scale = np.ones(self.n_latent, dtype=np.float32)

    def __repr__(self) -> str:
        model = self.config.model
        given = "" if self.condition is None else f", given {self.condition.column}"
        given = given if self.needs_class else given.replace("given", "its decoder given")
        trained = f"; {health(self.summary)}" if self.summary else ""
        return (
            f"Encoder({len(self.genes):,} genes in {self.units}, {self.n_latent} latents, "
            f"{model.likelihood}, beta {model.beta:g}{given}{trained})"
        )

    @property
    def genes(self) -> tuple[str, ...]:
        """Gene names in the order of the network's inputs."""
        return self.recipe.genes

    @property
    def units(self) -> Units:
        """Of the training data."""
        return self.recipe.units

    @property
    def needs_class(self) -> bool:
        """Whether samples cannot be encoded without their class."""
        return self.condition is not None and not self.condition.is_batch

    @property
    def n_latent(self) -> int:
        """Number of latent units."""
        return self.config.model.n_latent

    def align(
        self,
        data: Any,
        *,
        min_coverage: float = MIN_COVERAGE,
        keep_missing: bool = False,
        keep_lacking: bool = False,
    ) -> Aligned:
        """See data through the recipe: the encoder's genes, in the units of training.

        Parameters
        ----------
        data : path, AnnData, DataFrame, Matrix or (array, names)
            Samples in any order of genes; units that the recipe can convert.
        min_coverage : float
            Smallest share of the encoder's genes that must be found.
        keep_missing, keep_lacking : bool
            Leave NaN in place, and put NaN for genes that are not there; but for a likelihood of
            counts, which needs the total of every sample.

        Raises
        ------
        InputError
            If too few genes are found or the units do not fit.
        """
        may = not self.module.of_counts
        aligned = align(
            open_matrix(data),
            self.recipe,
            min_coverage=min_coverage,
            keep_missing=keep_missing and may,
            keep_lacking=keep_lacking and may,
        )
        if self.centring is None:
            return aligned
        return CentredWithin(aligned, self.centring.column, centring=self.centring)

    def refuse_centred(self, what: str) -> None:
        """Refuse what has no meaning for levels that were centred within studies.

        Raises
        ------
        InputError
            If they were.
        """
        if self.centring is not None:
            raise InputError(
                f"{what}: expected an encoder of levels as they are; found one that centres them "
                f"within {self.centring.column}: train one without --center-within"
            )

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
        return self._by_rows(data, min_coverage, self.encode_array, self.n_latent)

    def codes(self, matrix: Matrix, rows: np.ndarray | None = None) -> np.ndarray | None:
        """Class of samples of a matrix; None where the model is not conditional.

        Parameters
        ----------
        matrix : Matrix
        rows : ndarray of int, shape (n_samples,), optional
            Those that are wanted. Left out: all.

        Returns
        -------
        ndarray of int64, shape (n_samples,), or None

        Raises
        ------
        InputError
            If the column is not there, or holds a class that was not trained on.
        """
        if self.condition is None:
            return None
        obs = matrix.obs if rows is None else matrix.obs.iloc[rows]
        return self.condition.codes(obs, str(matrix.path or "data"))

    def blocks(self, aligned: Aligned) -> Iterator[tuple[slice, np.ndarray, np.ndarray | None]]:
        """Some rows of aligned data at a time: which, their levels, their classes if any."""
        codes = self.codes(aligned.matrix)
        for start, stop, X in aligned.blocks(CHUNK_ROWS):
            here = slice(start, stop)
            yield here, X, None if codes is None else codes[here]

    def as_trained(self, matrix: Matrix) -> Matrix:
        """The training data as training saw them: thinned and in the units of training.

        Parameters
        ----------
        matrix : Matrix
            The file that was trained on; of a thinned training its counts.
        """
        if self.kept is not None and self.thinning is not None and matrix.units.is_counts:
            by_name = dict(zip(self.samples, self.kept, strict=True))
            kept = np.array([by_name.get(name, 1.0) for name in matrix.samples])
            matrix = thinned(matrix, kept, self.thinning["seed"])
        return in_units(matrix, self.units) if self.config.selection.normalize else matrix

    def encode_array(self, X: np.ndarray, codes: np.ndarray | None = None) -> np.ndarray:
        """Latent means of rows that are aligned already.

        Parameters
        ----------
        X : ndarray, shape (n_samples, n_genes)
            The encoder's genes in their order, in the units of training; NaN where a level is
            missing.
        codes : ndarray of int64, shape (n_samples,), optional
            Class of each row; a conditional model needs it, unless the classes are batches.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_latent)
        """
        parts = [
            encode_mean(self.module, torch.from_numpy(self.scaled(x, c)), _as_tensor(c)).numpy()
            for x, c in _chunks(X, codes)
        ]
        return _joined(parts, self.n_latent) * self.latent_scale

    def unit_latents(self, Z: np.ndarray) -> np.ndarray:
        """Latents on the network's own scale, as its decoder takes them.

        Parameters
        ----------
        Z : ndarray, shape (n_samples, n_latent)

        Returns
        -------
        ndarray of float32, shape (n_samples, n_latent)
        """
        return np.divide(Z, self.latent_scale, dtype=np.float32)

    def scaled(self, X: np.ndarray, codes: np.ndarray | None = None) -> np.ndarray:
        """Rows after the per-gene transform, as the network takes them.

        Parameters
        ----------
        X, codes
            As for `encode_array`.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_genes)
            Missing levels are at their training mean, of the sample's class where it has one.
        """
        means = class_means(self.pca.mean, None if codes is None else self.condition)
        return fill_missing(self.scaler.apply(X), means[0] if codes is None else means[codes])

    def inputs(self, X: np.ndarray, codes: np.ndarray | None = None) -> np.ndarray:
        """What the network sees of rows that are aligned already, without any class.

        The per-gene transform, and for a likelihood of counts their standardised logarithms.

        Parameters
        ----------
        X, codes
            As for `encode_array`.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_genes)
            The scale of the stored components.
        """
        scaled = self.scaled(X, codes)
        return network_inputs(self.module, scaled) if self.module.of_counts else scaled

    def posterior_array(
        self, X: np.ndarray, codes: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the posterior of rows that are aligned already.

        Parameters
        ----------
        X, codes
            As for `encode_array`.

        Returns
        -------
        mu, sd : ndarray of float32, shape (n_samples, n_latent)
        """
        mus, sds = [], []
        with evaluating(self.module), torch.no_grad():
            for x, c in _chunks(X, codes):
                scaled = torch.from_numpy(self.scaled(x, c))
                means, logvar = self.module.encode(scaled, _as_tensor(c))
                mus.append(means.numpy())
                sds.append(torch.exp(0.5 * logvar).numpy())
        mu, sd = (_joined(parts, self.n_latent) for parts in (mus, sds))
        return mu * self.latent_scale, sd * self.latent_scale

    def decode(
        self, Z: np.ndarray, codes: np.ndarray | None = None, library: np.ndarray | None = None
    ) -> np.ndarray:
        """Expected levels of latents.

        Parameters
        ----------
        Z : ndarray, shape (n_samples, n_latent)
            As `transform` gives them.
        codes : ndarray of int64, shape (n_samples,), optional
            Class of each row; a conditional model needs it.
        library : ndarray, shape (n_samples,), optional
            Total counts of each row, for a likelihood of counts. Left out: typical ones.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_genes)
            In the units of training.
        """
        Z, start, parts = self.unit_latents(Z), 0, []
        for z, c in _chunks(Z, codes):
            depth = None
            if library is not None:
                depth = torch.from_numpy(np.float32(library[start : start + len(z)]))[:, None]
            start += len(z)
            levels = decode_mean(self.module, torch.from_numpy(z), _as_tensor(c), depth)
            parts.append(self.scaler.invert(levels.numpy()))
        return _joined(parts, len(self.genes))

    def expected_inputs(
        self, Z: np.ndarray, X: np.ndarray, codes: np.ndarray | None = None
    ) -> np.ndarray:
        """What the decoder expects of `inputs`, given latents of the same rows.

        Parameters
        ----------
        Z : ndarray, shape (n_samples, n_latent)
        X : ndarray, shape (n_samples, n_genes)
            Levels, whose totals are taken where they are counts.
        codes : ndarray of int64, shape (n_samples,), optional

        Returns
        -------
        ndarray of float32, shape (n_samples, n_genes)
        """
        if not self.module.of_counts:
            return self.inputs(self.decode(Z, codes), codes)
        z, counts = torch.from_numpy(self.unit_latents(Z)), torch.from_numpy(X)
        with evaluating(self.module), torch.no_grad():
            library = self.module.library(counts)
            eta = self.module.decode(z, _as_tensor(codes), library)
            found: np.ndarray = self.module.expected_inputs(eta, library).numpy()
        return found

    def reconstruct_array(self, X: np.ndarray, codes: np.ndarray | None = None) -> np.ndarray:
        """Expected levels of rows that are aligned already, from their latent means.

        Parameters
        ----------
        X, codes
            As for `encode_array`.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_genes)
        """
        library = np.maximum(X.sum(axis=1), 1) if self.module.of_counts else None
        return self.decode(self.encode_array(X, codes), codes, library)

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
        return self._by_rows(data, min_coverage, self.reconstruct_array, len(self.genes))

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
        return self._by_rows(data, min_coverage, self.pca_array, len(self.pca.components))

    def pca_array(self, X: np.ndarray, codes: np.ndarray | None = None) -> np.ndarray:
        """Scores on the stored components of rows that are aligned already.

        Parameters
        ----------
        X, codes
            As for `encode_array`.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_components)
        """
        scaled = self.inputs(X, codes)
        if self.condition is not None and codes is not None:
            scaled -= self.condition.shift_of(codes)
        elif self.needs_class:
            raise ValueError("a conditional model needs the class of each sample")
        return self.pca.scores(scaled)

    def digest(self) -> str:
        """SHA-256 of the weights, which names the model in what it generates."""
        found = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            found.update(name.encode())
            found.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
        return found.hexdigest()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write model.safetensors, pca.safetensors, samples.csv, history.csv and model.json.

        Each file is replaced atomically; model.json, without which nothing is read, comes last.
        """
        folder = make_folder(folder)
        weights = {name: t.cpu().numpy() for name, t in self.module.state_dict().items()}
        _write_arrays(folder / "model.safetensors", weights)
        shift = {} if self.condition is None else {"class_shift": self.condition.shift}
        if self.centring is not None:
            shift |= {"centre": self.centring.location, "centre_scale": self.centring.scale}
        _write_arrays(folder / "pca.safetensors", {**vars(self.pca), **shift})
        if self.scaler.levels is not None:
            _write_arrays(folder / LEVELS_FILE, {"levels": self.scaler.levels})
        roles = [("train", self.samples), ("validation", self.validation_samples)]
        table = pd.DataFrame(
            [(sample, role) for role, samples in roles for sample in samples],
            columns=["sample", "role"],
        )
        if self.kept is not None:
            table["kept"] = [*map(repr, self.kept.tolist()), *[""] * len(self.validation_samples)]
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
                "condition": None if self.condition is None else self.condition.to_dict(),
                "center_within": None if self.centring is None else self.centring.column,
                "latent_scale": self.latent_scale.tolist(),
                "thinning": self.thinning,
                "summary": self.summary,
            },
        )

    def _by_rows(self, data: Any, min_coverage: float, of_rows: OfRows, width: int) -> np.ndarray:
        """What `of_rows` makes of data's samples, some rows at a time, (n_samples, width)."""
        aligned = data
        if not isinstance(data, Aligned):
            aligned = self.align(data, min_coverage=min_coverage, keep_missing=True)
        return _joined([of_rows(X, codes) for _, X, codes in self.blocks(aligned)], width)


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    write_bytes(path, pack_arrays(arrays))


def gene_means(scaler: GeneTransform, pca: PCA, module: VAEModule) -> np.ndarray:
    """Training means in the units of the data, float32, shape (n_genes,).

    With normal scores: the level of the mean score.
    """
    if isinstance(module.inputs, CountInputs):
        return module.inputs.mean_counts.cpu().numpy()
    return scaler.invert(pca.mean[None])[0]


def _chunks(
    X: np.ndarray, codes: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Some rows at a time, float32, and their classes."""
    for start in range(0, len(X), CHUNK_ROWS):
        here = slice(start, start + CHUNK_ROWS)
        yield np.asarray(X[here], dtype=np.float32), None if codes is None else codes[here]


def _as_tensor(codes: np.ndarray | None) -> torch.Tensor | None:
    """Classes as the network takes them."""
    return None if codes is None else torch.from_numpy(codes)


def _joined(parts: list[np.ndarray], width: int) -> np.ndarray:
    """Rows of all parts, float32, shape (n_samples, width)."""
    if not parts:
        return np.empty((0, width), dtype=np.float32)
    return np.concatenate(parts).astype(np.float32, copy=False)
