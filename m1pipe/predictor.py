"""A head on a frozen encoder (or on the genes), for new samples; stored so that it stands alone."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

from m1pipe import seeds
from m1pipe._version import __version__
from m1pipe.artefacts import pack_arrays, read_arrays, read_json, reading
from m1pipe.atomic import atomic_folder, below, foreign_file, write_bytes, write_json
from m1pipe.config import FitConfig
from m1pipe.data.labels import CLASS
from m1pipe.data.recipe import MIN_COVERAGE, Aligned, Recipe, align, missing_uns, unknown_units
from m1pipe.data.splits import inner_split
from m1pipe.data.targets import Targets
from m1pipe.data.units import LN, LOG_OF, Units, to_linear
from m1pipe.encoder.load import load_encoder
from m1pipe.encoder.missing import fill_missing
from m1pipe.encoder.trained import CHUNK_ROWS, ENCODER_FILES, Encoder
from m1pipe.errors import InputError
from m1pipe.heads.conformal import choose_half_width, half_widths
from m1pipe.heads.fit import fit_head
from m1pipe.heads.fitted import FittedHead
from m1pipe.heads.job import AddedRows
from m1pipe.io.reader import open_matrix
from m1pipe.io.writer import MatrixWriter
from m1pipe.labelled import Labelled, load_labelled, own_genes
from m1pipe.settings import build, to_dict
from m1pipe.training.device import choose_threads, threads

FORMAT_VERSION = 1
PREDICTOR_FILES = (
    *("config.json", "model.json", "head.safetensors"),
    *below("encoder", ENCODER_FILES),
)
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
    """

    encoder: Encoder | None
    recipe: Recipe
    head: FittedHead
    config: FitConfig
    own_genes: np.ndarray | None = None
    errors: np.ndarray | None = None
    added: dict[str, int] | None = None

    def __repr__(self) -> str:
        what = "classes" if self.is_classes else "targets"
        names = ", ".join(map(str, self.head.names[:3])) + ", ..." * (len(self.head.names) > 3)
        source = f"{len(self.recipe.genes):,} genes" if self.encoder is None else repr(self.encoder)
        own = "" if self.own_genes is None else "; with each target's own gene"
        return f"Predictor({len(self.head.names):,} {what} ({names}) from {source}{own})"

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
        if have.name == LN and self.head.kind == "regression":
            return Units("normalized", have.target_sum)
        for plain, logged in LOG_OF.items():
            if have.name == logged and self.head.kind == "regression":
                return Units(plain, have.target_sum)
        raise InputError(f"linear: expected predictions on a log scale; found {have}: leave it out")

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
        aligned = self._align(data, min_coverage)
        blocks = [X for _, X in self._blocks(aligned, linear)]
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
        aligned = self._align(data, min_coverage)
        blocks = self._blocks(aligned, linear)
        obs = aligned.matrix.obs
        if self.is_classes:
            held = list(blocks)
            obs = self._annotated(obs, np.concatenate([X for _, X in held]))
            blocks = iter(held)
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
        if folder.is_dir() and in_place:
            self.write_files(folder)
            return
        with atomic_folder(folder, PREDICTOR_FILES, what="a model", force=True) as temporary:
            self.write_files(temporary)

    def write_files(self, folder: Path) -> None:
        """Write the files of `save` into a folder that is there."""
        arrays, head = self.head.to_state()
        if self.encoder is not None:
            self.encoder.save(folder / "encoder")
        else:
            arrays["recipe.gene_means"] = self.recipe.gene_means
        if self.own_genes is not None:
            arrays["predictor.own_genes"] = self.own_genes
        if self.errors is not None:
            arrays["predictor.errors"] = self.errors
        write_bytes(folder / "head.safetensors", pack_arrays(arrays))
        write_json(folder / "config.json", to_dict(self.config))
        write_json(
            folder / "model.json",
            {
                "format_version": FORMAT_VERSION,
                "m1pipe": __version__,
                "config": to_dict(self.config),
                "head": head,
                "added": self.added,
                "recipe": self.recipe.to_dict() if self.encoder is None else None,
            },
        )

    def _align(self, data: Any, min_coverage: float) -> Aligned:
        """Data in the model's genes, with NaN where levels are missing."""
        if self.encoder is not None:
            return self.encoder.align(data, min_coverage=min_coverage, keep_missing=True)
        matrix = open_matrix(data)
        return align(matrix, self.recipe, min_coverage=min_coverage, keep_missing=True)

    def _targets(self, interval: float | None, linear: bool) -> pd.DataFrame:
        """Annotations of the predictions: half widths of intervals, where they are asked for.

        Before the logarithm an interval is no longer symmetric about the prediction x: it runs
        from (x + 1) / factor - 1, and at least 0, to (x + 1) * factor - 1.
        """
        var = pd.DataFrame(index=pd.Index(self.head.names, dtype=object))
        if interval is not None:
            width = choose_half_width(self.errors, interval)
            turned = linear and self.head.units.name not in LINEAR
            var["factor" if turned else "half_width"] = self._factor(width) if turned else width
        return var

    def _factor(self, width: np.ndarray) -> np.ndarray:
        """What a half width is before the logarithm."""
        return np.asarray(np.exp(width) if self.head.units.name == LN else np.exp2(width))

    def _blocks(self, aligned: Aligned, linear: bool) -> Iterator[tuple[int, np.ndarray]]:
        """First row and predictions of each block of rows."""
        codes = None if self.encoder is None else self.encoder.codes(aligned.matrix)
        for start, stop, X in aligned.blocks(CHUNK_ROWS):
            here = None if codes is None else codes[start:stop]
            filled = fill_missing(X, self.recipe.gene_means)
            features = filled if self.encoder is None else self.encoder.encode_array(X, here)
            own = None if self.own_genes is None else filled[:, self.own_genes]
            yield start, self._levels(self.head.predict(features, own), linear)

    def _levels(self, predicted: np.ndarray, linear: bool) -> np.ndarray:
        """Predictions on the scale that was asked for, ended at 0 where the scale does."""
        if self.head.kind != "regression":
            return predicted
        have = self.head.units.name
        if linear and have not in LINEAR:
            predicted = to_linear(np.asarray(predicted, dtype=np.float64), self.head.units)
        elif have not in ENDS_AT_ZERO:
            return predicted
        found: np.ndarray = np.maximum(predicted, 0, dtype=np.float32)
        return found

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


def fit_predictor(
    x: Any,
    config: FitConfig,
    *,
    y: Any = None,
    encoder: Encoder | str | os.PathLike[str] | None = None,
) -> Predictor:
    """Fit the final head.

    Parameters
    ----------
    x : path, AnnData, DataFrame or Matrix
        Genes of the labelled samples; in its obs the label, where that is predicted.
    config : FitConfig
    y : path, AnnData, DataFrame or Matrix, optional
        Levels to predict, paired with x by sample id.
    encoder : Encoder or path, optional
        Frozen; its latents are the features. Without it the genes themselves are.

    Returns
    -------
    Predictor

    Raises
    ------
    InputError
        If nothing or both of `y` and the label are given, or the files do not fit together.
    """
    return fit_labelled(load_labelled(x, config, y=y, encoder=encoder), config)


def fit_labelled(data: Labelled, config: FitConfig, *, added: AddedRows | None = None) -> Predictor:
    """Fit the final head to what `load_labelled` opened.

    Parameters
    ----------
    data : Labelled
    config : FitConfig
    added : AddedRows, optional
        Synthetic samples as the head sees them, where `config.augment` asks for them.

    Raises
    ------
    InputError
        If an own-gene term, intervals or synthetic samples are asked for and cannot be had.
    """
    if config.augment is not None and added is None:
        raise InputError(
            "augment: expected synthetic samples, which m1pipe.workflow.final_model.run_fit makes; "
            "found none"
        )
    encoder, targets, recipe = data.encoder, data.targets, data.aligned.recipe
    if encoder is None:
        features = data.genes()
    else:
        features = encoder.transform(data.aligned.matrix, min_coverage=config.min_coverage)
        features = features[data.rows]
    used, own = own_genes(data) if config.head.own_gene else (None, None)
    rows, aside = np.arange(data.rows.size), np.arange(0)
    if config.conformal:
        _check_conformal(targets)
        seed = config.seed + seeds.CONFORMAL_SPLIT
        rows, aside = inner_split(rows, config.conformal, seed, groups=data.groups)
    with threads(head_threads(features.shape[1], targets.n_outputs, config)):
        head = fit_head(
            features,
            targets,
            config.head,
            rows=rows,
            seed=config.seed,
            scale="each" if encoder is None else "one",
            groups=data.groups,
            own=own,
            added=added,
        )
    errors = None
    if aside.size:
        known = head.predict(features[aside], None if own is None else own.values[aside])
        errors = half_widths(known, targets.values[aside])
    return Predictor(encoder, recipe, head, config, used, errors, _n_added(targets, added))


def _n_added(targets: Targets, added: AddedRows | None) -> dict[str, int] | None:
    """Added rows of each class."""
    if added is None:
        return None
    counts = np.bincount(added.codes, minlength=len(targets.names))
    return dict(zip(targets.names, counts.tolist(), strict=True))


def _check_conformal(targets: Targets) -> None:
    if targets.kind != "regression":
        raise InputError(
            f"conformal: expected levels to predict; found {targets.kind}: leave it out"
        )


def head_threads(n_features: int, n_outputs: int, config: FitConfig) -> int:
    """Threads for the steps of a head of this size."""
    widths = (n_features, *config.head.hidden, n_outputs)
    return choose_threads(sum(a * b for a, b in pairwise(widths)), config.head.batch_size)


def load_predictor(folder: str | os.PathLike[str]) -> Predictor:
    """Read what `Predictor.save` wrote.

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
    found = stored.get("format_version")
    if found != FORMAT_VERSION:
        raise InputError(f"{path}: expected format version {FORMAT_VERSION}; found {found}")
    arrays, _ = read_arrays(
        folder / "head.safetensors", what, remedy=remedy, free=("predictor.errors",)
    )
    with reading(path, what, remedy=remedy):
        return _from_state(folder, stored, arrays)


def _from_state(folder: Path, stored: dict[str, Any], arrays: dict[str, np.ndarray]) -> Predictor:
    """Predictor of what `Predictor.save` stored."""
    path = folder / "model.json"
    head = FittedHead.from_state(arrays, stored["head"])
    config = build(FitConfig, stored["config"], where=str(path))
    extra = (
        arrays.get("predictor.own_genes"),
        arrays.get("predictor.errors"),
        stored.get("added"),
    )
    if stored["recipe"] is not None:
        recipe = Recipe.from_dict(stored["recipe"], arrays["recipe.gene_means"])
        return Predictor(None, recipe, head, config, *extra)
    encoder = load_encoder(folder / "encoder")
    return Predictor(encoder, encoder.recipe, head, config, *extra)
