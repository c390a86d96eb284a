"""A fitted model for new samples: a head, and what it takes; stored so that it stands alone."""

import os
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

from m1pipe._version import __version__
from m1pipe.artefacts import pack_arrays, read_arrays, read_json, reading
from m1pipe.atomic import atomic_folder, below, foreign_file, write_bytes, write_json
from m1pipe.config import FitConfig
from m1pipe.data.labels import CLASS
from m1pipe.data.recipe import MIN_COVERAGE, Aligned, Recipe, align, missing_uns, unknown_units
from m1pipe.data.units import LN, LOG_OF, Units, to_linear
from m1pipe.encoder.drift import Drift, sampled_drift
from m1pipe.encoder.load import load_encoder
from m1pipe.encoder.missing import fill_missing
from m1pipe.encoder.trained import CHUNK_ROWS, ENCODER_FILES, Encoder
from m1pipe.errors import InputError, M1Warning
from m1pipe.heads.conformal import choose_half_width
from m1pipe.heads.fitted import FittedHead
from m1pipe.io.reader import open_matrix
from m1pipe.io.writer import MatrixWriter
from m1pipe.settings import build, to_dict

FORMAT_VERSION = 1
# A level without an interval is NaN; the scale of a feature that is left out is infinite.
FREE = ("predictor.errors", "scaler.scale", "own.scale")
FILES = ("config.json", "model.json", "head.safetensors")
PREDICTOR_FILES = (*FILES, *below("encoder", ENCODER_FILES))
OPTIONAL = ("own_genes", "errors", "score")
GENES, LATENTS, PCA_SCORES, SOURCE_SCORE = "genes", "latents", "pca", "source_score"
LINEAR = (*LOG_OF, "counts")
ENDS_AT_ZERO = (*LINEAR, LN, "log2_cpm1", "log2_tpm1", "log2_normalized1")


@dataclass(eq=False, repr=False)
class Predictor:
    """What predicts levels or classes of new samples from their genes.

    Attributes
    ----------
    encoder : Encoder or None
        Gives the features; None where the head takes the genes as they are.
    recipe : Recipe
        Genes and units that are expected.
    head : FittedHead
    config : FitConfig
    own_genes : ndarray of int64, shape (n_own,), or None
        The recipe's genes that the head's own-gene term takes.
    errors : ndarray of float32, shape (n_levels, n_targets), or None
        Half widths of the prediction intervals at `m1pipe.heads.conformal.LEVELS`.
    added : dict of str to int, or None
        Synthetic samples of each class that the head was trained on as well.
    inputs : tuple of str
        What the head takes, side by side: `GENES`, `LATENTS` of the encoder, `PCA_SCORES` on its
        principal components, `SOURCE_SCORE` of other studies' labels. Empty for a head on own genes
        alone, or on nothing.
    score : ndarray of float32, shape (n_genes, n_outputs), or None
        What the recipe's genes are multiplied by to be that score.
    """

    encoder: Encoder | None
    recipe: Recipe
    head: FittedHead
    config: FitConfig
    own_genes: np.ndarray | None = None
    errors: np.ndarray | None = None
    added: dict[str, int] | None = None
    inputs: tuple[str, ...] = (GENES,)
    score: np.ndarray | None = None

    def __repr__(self) -> str:
        what = "classes" if self.is_classes else "targets"
        names = ", ".join(map(str, self.head.names[:3])) + ", ..." * (len(self.head.names) > 3)
        n_genes = len(self.recipe.genes)
        model = "" if self.config.model is None else f"{self.config.model}: "
        found = f"{model}{len(self.head.names):,} {what} ({names}) from {self.features}"
        return f"Predictor({found}; {n_genes:,} genes)"

    @property
    def features(self) -> str:
        """In words, what the head takes."""
        words = {GENES: "the genes", SOURCE_SCORE: "a score of other studies' labels"}
        if self.inputs == (GENES,) and str(self.config.model).startswith("pca_fold"):
            words[GENES] = "principal components of the genes"
        if self.encoder is not None:
            n = self.encoder.n_latent
            words |= {LATENTS: f"{n} latents", PCA_SCORES: f"{n} PCA scores"}
        own = () if self.own_genes is None else ("each target's own gene",)
        return " and ".join([*(words[kind] for kind in self.inputs), *own]) or "nothing"

    @property
    def is_classes(self) -> bool:
        """Whether each sample belongs to exactly one class."""
        return self.head.kind in ("binary", "multiclass")

    def units(self, *, linear: bool = False) -> Units:
        """Of the predictions; with `linear` before the logarithm.

        Raises
        ------
        InputError
            If `linear` is asked for and there is no linear scale.
        """
        have = self.head.units
        if not linear or have.name in LINEAR:
            return have
        plain = {LN: "normalized"} | {logged: name for name, logged in LOG_OF.items()}
        if self.head.kind != "regression" or have.name not in plain:
            raise InputError(
                f"linear: expected predictions on a log scale; found {have}: leave it out"
            )
        return Units(plain[have.name], have.target_sum)

    def predict(
        self,
        data: Any,
        *,
        linear: bool = False,
        interval: float | None = None,
        min_coverage: float = MIN_COVERAGE,
    ) -> anndata.AnnData:
        """Predictions for every sample of data.

        Parameters
        ----------
        data : path, AnnData, DataFrame, Matrix or (array, names)
            Genes in any order and in units that the recipe can convert, raw counts included.
        linear : bool
            Levels before the logarithm.
        interval : float, optional
            Also give intervals that hold so large a share of new samples' levels: var's column
            `half_width`, or with `linear` from a log scale `factor`, for an interval from
            (X + 1) / factor - 1 to (X + 1) * factor - 1.
        min_coverage : float
            Smallest share of the genes that must be found.

        Returns
        -------
        AnnData, shape (n_samples, n_targets) or (n_samples, n_classes)
            X: levels in the targets' units, at least 0 where the scale ends there; or class
            probabilities, with the likeliest class in obs. The rest of obs is data's.

        Raises
        ------
        InputError
            If the genes or units do not fit.
        """
        units, var = self.units(linear=linear), self._targets(interval, linear)
        aligned = self.align(data, min_coverage=min_coverage)
        blocks = [X for _, X in self._blocks(aligned, linear, min_coverage)]
        X = np.concatenate(blocks) if blocks else np.empty((0, len(self.head.names)), np.float32)
        obs = self._annotated(aligned.matrix.obs, X)
        return anndata.AnnData(X=X, obs=obs, var=var, uns=units.to_uns())

    def write(
        self,
        data: Any,
        path: str | os.PathLike[str],
        *,
        linear: bool = False,
        interval: float | None = None,
        min_coverage: float = MIN_COVERAGE,
        force: bool = False,
    ) -> tuple[int, int]:
        """Write what `predict` returns as h5ad, block by block; returns its shape.

        Raises
        ------
        InputError
            As `predict`, or if the file is there and `force` is not given.
        """
        units, var = self.units(linear=linear), self._targets(interval, linear)
        aligned = self.align(data, min_coverage=min_coverage)
        blocks = self._blocks(aligned, linear, min_coverage)
        obs = aligned.matrix.obs
        if self.is_classes:
            held = list(blocks)
            obs = self._annotated(obs, np.concatenate([X for _, X in held]))
            blocks = iter(held)
        drift = self.drift(aligned, min_coverage=min_coverage)
        if drift is not None and drift.is_far:
            text = f"{aligned.matrix.path or 'data'}: {drift.beyond_text}: predictions may be off"
            warnings.warn(text, M1Warning, stacklevel=2)
        caution = unknown_units(aligned.matrix, self.recipe.units)
        uns = missing_uns(aligned.match.missing, caution)
        with MatrixWriter(path, obs=obs, var=var, units=units, force=force, uns=uns) as writer:
            for start, X in blocks:
                writer.write(start, X)
        return writer.shape

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json, model.json, head.safetensors and a copy of the encoder.

        The folder appears, or replaces an earlier model, when it is complete. In one that holds
        other files, which stay, and in the current one every file is replaced by itself.
        """
        folder = Path(folder).absolute()
        in_place = folder == Path.cwd() or foreign_file(folder, PREDICTOR_FILES) is not None
        whole = atomic_folder(folder, PREDICTOR_FILES, what="a model", force=True)
        with nullcontext(folder) if folder.is_dir() and in_place else whole as place:
            self.write_files(place)

    def write_files(self, folder: Path) -> None:
        """Write the files of `save` into a folder that is there."""
        arrays, head = self.head.to_state()
        if self.encoder is not None:
            self.encoder.save(folder / "encoder")
        if not self._in_genes_of_encoder:
            arrays["recipe.gene_means"] = self.recipe.gene_means
        for name in OPTIONAL:
            if (values := getattr(self, name)) is not None:
                arrays[f"predictor.{name}"] = values
        write_bytes(folder / "head.safetensors", pack_arrays(arrays, free=FREE))
        write_json(folder / "config.json", to_dict(self.config))
        model = {
            "format_version": FORMAT_VERSION,
            "m1pipe": __version__,
            "config": to_dict(self.config),
            "head": head,
            "added": self.added,
            "inputs": list(self.inputs),
            "recipe": None if self._in_genes_of_encoder else self.recipe.to_dict(),
        }
        write_json(folder / "model.json", model)

    @property
    def _in_genes_of_encoder(self) -> bool:
        return self.encoder is not None and self.recipe is self.encoder.recipe

    def align(self, data: Any, *, min_coverage: float = MIN_COVERAGE) -> Aligned:
        """Data in the model's genes, with NaN where levels are missing.

        Parameters
        ----------
        data, min_coverage
            As for `predict`.
        """
        if self.encoder is not None and self._in_genes_of_encoder:
            return self.encoder.align(data, min_coverage=min_coverage, keep_missing=True)
        return align(open_matrix(data), self.recipe, min_coverage=min_coverage, keep_missing=True)

    def drift(
        self,
        aligned: Aligned,
        rows: np.ndarray | None = None,
        *,
        min_coverage: float = MIN_COVERAGE,
    ) -> Drift | None:
        """How far samples lie from those that the encoder was trained on; None without an encoder.

        Parameters
        ----------
        aligned : Aligned
            From `align`.
        rows : ndarray of int, optional
            Of its samples; all where left out.
        min_coverage : float
            As for `predict`.
        """
        if self.encoder is None:
            return None
        rows = np.arange(aligned.shape[0]) if rows is None else rows
        return sampled_drift(self.encoder, self._for_encoder(aligned, min_coverage), rows)

    def _for_encoder(self, aligned: Aligned, min_coverage: float) -> Aligned:
        """Data from `align` in the genes of the encoder, where there is one."""
        if self.encoder is None or self._in_genes_of_encoder:
            return aligned
        return self.encoder.align(aligned.matrix, min_coverage=min_coverage, keep_missing=True)

    def _targets(self, interval: float | None, linear: bool) -> pd.DataFrame:
        """Annotations of the predictions: half widths of intervals, where they are asked for.

        Before the logarithm an interval is no longer symmetric about the prediction x: it runs
        from (x + 1) / factor - 1, and at least 0, to (x + 1) * factor - 1.
        """
        var = pd.DataFrame(index=pd.Index(self.head.names, dtype=object))
        if interval is not None:
            if self.head.kind != "regression":
                raise InputError(
                    f"interval: expected a model of levels; found {self.head.kind}: leave it out, "
                    "its probabilities say how sure it is"
                )
            width = choose_half_width(self.errors, interval)
            if linear and self.head.units.name not in LINEAR:
                var["factor"] = np.exp(width) if self.head.units.name == LN else np.exp2(width)
            else:
                var["half_width"] = width
        return var

    def _blocks(
        self, aligned: Aligned, linear: bool, min_coverage: float
    ) -> Iterator[tuple[int, np.ndarray]]:
        """First row and predictions of each block of rows."""
        seen = self._for_encoder(aligned, min_coverage)
        codes = None if self.encoder is None else self.encoder.codes(aligned.matrix)
        for start, stop, X in aligned.blocks(CHUNK_ROWS):
            filled = fill_missing(X, self.recipe.gene_means)
            own = None if self.own_genes is None else filled[:, self.own_genes]
            levels = X if seen is aligned else seen.take(np.arange(start, stop))
            here = None if codes is None else codes[start:stop]
            features = self._features(filled, levels, here)
            yield start, self._levels(self.head.predict(features, own), linear)

    def _features(
        self, filled: np.ndarray, levels: np.ndarray, codes: np.ndarray | None
    ) -> np.ndarray:
        """What the head takes, of rows in its own genes and in those of the encoder."""
        parts = [np.empty((len(filled), 0), dtype=np.float32)]
        for kind in self.inputs:
            if kind == SOURCE_SCORE and self.score is not None:
                parts.append(filled @ self.score)
            elif self.encoder is None or kind == GENES:
                parts.append(filled)
            elif kind == LATENTS:
                parts.append(self.encoder.encode_array(levels, codes))
            else:
                parts.append(self.encoder.pca_array(levels, codes))
        return parts[1] if len(parts) == 2 else np.concatenate(parts, axis=1)

    def _levels(self, predicted: np.ndarray, linear: bool) -> np.ndarray:
        """Predictions on the scale that was asked for, ended at 0 where the scale does."""
        if self.head.kind != "regression":
            return predicted
        have = self.head.units.name
        if linear and have not in LINEAR:
            predicted = to_linear(np.asarray(predicted, dtype=np.float64), self.head.units)
        elif have not in ENDS_AT_ZERO:
            return predicted
        return np.maximum(predicted, 0, dtype=np.float32)

    def _annotated(self, obs: pd.DataFrame, X: np.ndarray) -> pd.DataFrame:
        """Copy of obs with the likeliest class of each sample, where there are classes."""
        obs = obs.copy()
        if self.is_classes:
            names = np.asarray(self.head.names, dtype=object)
            label = str(self.config.label).removesuffix(f":{CLASS}")
            obs[f"predicted_{label}"] = pd.Categorical(
                names[X.argmax(axis=1)], categories=list(self.head.names)
            )
        return obs


def load_predictor(folder: str | os.PathLike[str]) -> Predictor:
    """Read a fitted model.

    Parameters
    ----------
    folder : path
        Written by `m1pipe fit` or `Predictor.save`.

    Returns
    -------
    Predictor

    Raises
    ------
    InputError
        If a file is missing, damaged or of another format version.
    """
    folder = Path(folder)
    path = folder / "model.json"
    if not path.is_file():
        raise InputError(f"{folder}: expected a model made by m1pipe fit; found none")
    what, remedy = "a model made by m1pipe fit", "fit it again, or copy the whole folder again"
    stored = read_json(path, what, remedy=remedy)
    if "head" not in stored:
        raise InputError(f"{folder}: expected a model made by m1pipe fit; found an encoder")
    if (found := stored.get("format_version")) != FORMAT_VERSION:
        raise InputError(f"{path}: expected format version {FORMAT_VERSION}; found {found}")
    arrays, _ = read_arrays(folder / "head.safetensors", what, remedy=remedy, free=FREE)
    with reading(path, what, remedy=remedy):
        return _from_state(folder, stored, arrays)


def _from_state(folder: Path, stored: dict[str, Any], arrays: dict[str, np.ndarray]) -> Predictor:
    """Predictor of what `Predictor.save` stored."""
    head = FittedHead.from_state(arrays, stored["head"])
    config = build(FitConfig, stored["config"], where=str(folder / "model.json"))
    # Models of version 0.1 name no inputs, and have either a recipe or an encoder.
    inputs = tuple(stored.get("inputs", (LATENTS,) if stored["recipe"] is None else (GENES,)))
    takes_encoder = stored["recipe"] is None or {LATENTS, PCA_SCORES} & set(inputs)
    encoder = load_encoder(folder / "encoder") if takes_encoder else None
    if stored["recipe"] is not None:
        recipe = Recipe.from_dict(stored["recipe"], arrays["recipe.gene_means"])
    else:
        assert encoder is not None
        recipe = encoder.recipe
    optional = {name: arrays.get(f"predictor.{name}") for name in OPTIONAL}
    added = stored.get("added")
    return Predictor(encoder, recipe, head, config, inputs=inputs, added=added, **optional)
