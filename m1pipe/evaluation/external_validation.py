"""A fitted model on an outside labelled set, beside the training mean and a linear model."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.artefacts import hold_in_rows, pack_arrays, read_arrays, read_json, reading
from m1pipe.atomic import write_bytes, write_json
from m1pipe.console import log
from m1pipe.data.groups import resolve_groups
from m1pipe.data.labels import CLASS, LEVEL, find_column, listed_columns
from m1pipe.data.matrix import Matrix
from m1pipe.data.recipe import unknown_units
from m1pipe.data.targets import Kind, Targets, left_out, load_targets, say_left_out
from m1pipe.data.transforms import fit_gene_transform
from m1pipe.data.units import convert_units
from m1pipe.encoder.missing import fill_missing
from m1pipe.errors import Alarm, InputError, SettingError, counted, did_you_mean, first_few
from m1pipe.evaluation.alarms import far_from_training, units_unknown
from m1pipe.evaluation.compare import compare
from m1pipe.evaluation.metrics import HEADLINE, per_sample_loss, scores
from m1pipe.heads.logistic import fit_logistic, probabilities
from m1pipe.heads.ridge import fit_ridge
from m1pipe.io.reader import open_matrix
from m1pipe.models.pca import fit_pca
from m1pipe.predictor import Predictor

MODEL, LINEAR = "model", "linear"
MOST_DIRECTIONS = 512
FEWEST = 3  # two, and one left out to choose the penalty by
STORED = ("constant", "location", "scale", "directions", "weights", "intercept")
ARRAYS, FACTS = RIVAL_FILES = ("rivals.safetensors", "rivals.json")


@dataclass(frozen=True, eq=False)
class Outside:
    """Scores on outside samples.

    Attributes
    ----------
    losses : DataFrame, shape (n_samples, n_rows)
        Headline loss by sample id.
    scores : DataFrame
        Columns model, metric, value.
    comparisons : DataFrame
        As from `m1pipe.evaluation.compare.compare`: tests over samples, or over donors.
    alarms : list of Alarm
    info : dict
        Counts, and what was left out.
    """

    losses: pd.DataFrame
    scores: pd.DataFrame
    comparisons: pd.DataFrame
    alarms: list[Alarm]
    info: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Rivals:
    """A constant and a linear prediction of the same targets.

    Attributes
    ----------
    kind : str
    alpha : float
        The penalty chosen.
    constant : ndarray, shape (n_targets,) or (n_classes,)
        Training means, or class frequencies.
    location, scale : ndarray of float32, shape (n_genes,)
        Standardisation of the genes.
    directions : ndarray of float32, shape (n_genes, n_directions)
    weights : ndarray of float32, shape (n_directions, n_outputs)
    intercept : ndarray of float32, shape (n_outputs,)
    """

    kind: Kind
    alpha: float
    constant: np.ndarray
    location: np.ndarray
    scale: np.ndarray
    directions: np.ndarray
    weights: np.ndarray
    intercept: np.ndarray

    def __post_init__(self) -> None:
        hold_in_rows(self)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Levels or probabilities of the linear model, from genes of shape (n_samples, n_genes)."""
        scores = (np.subtract(X, self.location, order="C") / self.scale) @ self.directions
        if self.kind == "regression":
            return np.asarray(scores @ self.weights + self.intercept)
        logits = scores.astype(np.float64) @ self.weights + self.intercept
        return probabilities(logits, self.kind)

    def predict_constant(self, n: int) -> np.ndarray:
        """The constant for n samples."""
        return np.broadcast_to(self.constant, (n, self.constant.size))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `rivals.safetensors` and `rivals.json`."""
        arrays = {name: getattr(self, name) for name in STORED}
        write_bytes(Path(folder) / ARRAYS, pack_arrays(arrays))
        write_json(Path(folder) / FACTS, {"kind": self.kind, "alpha": self.alpha})


def evaluate_outside(
    predictor: Predictor,
    rivals: Rivals,
    x: Any,
    *,
    y: Any = None,
    label: str | None = None,
    group: str | None = None,
    min_coverage: float,
    trained_on: set[str] | None = None,
) -> Outside:
    """Score a model on labelled samples that it was not fitted on.

    Parameters
    ----------
    predictor : Predictor
    rivals : Rivals
        Stored with it.
    x : path, AnnData, DataFrame or Matrix
        Genes of the outside samples.
    y : path, AnnData, DataFrame or Matrix, optional
        Levels; those of the model's targets that it has are scored.
    label : str, optional
        Column of x's obs; None: the model's own.
    group : str or None
        Donors, as for a cross-validation.
    min_coverage : float
        Smallest share of the model's genes that must be found.
    trained_on : set of str, optional
        Ids that the model was fitted on: samples among them raise an alarm.

    Raises
    ------
    InputError
        If the files do not fit the model, or each other.
    """
    matrix = open_matrix(x)
    rows, targets, columns, dropped = _outside_targets(predictor, matrix, y, label)
    recipe = predictor.recipe
    aligned = predictor.align(matrix, min_coverage=min_coverage)
    X = fill_missing(aligned.take(rows), recipe.gene_means)
    constant = "mean" if targets.kind == "regression" else "prior"
    predictions = {
        constant: rivals.predict_constant(rows.size),
        LINEAR: rivals.predict(X),
        MODEL: predictor.predict(matrix, min_coverage=min_coverage).X[rows],
    }
    if columns is not None:
        predictions = {model: p[:, columns] for model, p in predictions.items()}
    mean = predictions[constant][0] if targets.kind == "regression" else None
    losses = {
        model: per_sample_loss(targets.kind, p, targets.values) for model, p in predictions.items()
    }
    lines = [
        {"model": model, "metric": metric, "value": value}
        for model, p in predictions.items()
        for metric, value in scores(targets.kind, p, targets.values, mean).items()
    ]
    samples, groups = matrix.samples[rows], resolve_groups(matrix.obs, group)
    own_groups, single = None if groups is None else groups[rows], None
    if own_groups is not None and len(set(own_groups)) == 1:
        single, own_groups = str(own_groups[0]), None
    comparisons = _tests(losses, own_groups, HEADLINE[targets.kind], constant)
    info = {
        "kind": targets.kind,
        "metric": HEADLINE[targets.kind],
        "n": rows.size,
        "n_targets": len(targets.names),
        "n_model_targets": len(predictor.head.names),
        "units": str(targets.units),
        "dropped": {why: len(ids) for why, ids in dropped.items()},
        "left_out": left_out(dropped),
        "n_groups": None if own_groups is None else len(set(own_groups)),
    }
    table = pd.DataFrame(losses, index=pd.Index(samples, name="sample"))
    alarms = [
        *units_unknown(unknown_units(matrix, recipe.units)),
        *_seen(samples, trained_on),
        *_one_group(single),
        *far_from_training(
            "the encoder", predictor.drift(aligned, rows, min_coverage=min_coverage)
        ),
    ]
    return Outside(table, pd.DataFrame(lines), comparisons, alarms, info)


def _tests(
    losses: dict[str, np.ndarray], groups: np.ndarray | None, metric: str, constant: str
) -> pd.DataFrame:
    """Tests over samples, or donors; none over folds, of which there are none."""
    folds = np.zeros((1, len(losses[MODEL])), dtype=np.int64)
    pairs = [(MODEL, constant), (MODEL, LINEAR), (LINEAR, constant)]
    return compare(
        {model: loss[None] for model, loss in losses.items()},
        folds,
        pairs=pairs,
        family=pairs[:2],
        groups=groups,
        metric=metric,
        headline="paired_t" if groups is None else "clustered_t",
    )


def _one_group(single: str | None) -> list[Alarm]:
    if single is None:
        return []
    text = (
        f"All samples are of one donor, {single}: the tests are over its samples, and say nothing "
        "of the next donor."
    )
    return [Alarm("one_donor", "warning", text)]


def _seen(samples: np.ndarray, trained_on: set[str] | None) -> list[Alarm]:
    shared = sorted(set(samples) & (trained_on or set()))
    if not shared:
        return []
    text = (
        f"{len(shared)} of the {len(samples)} samples were fitted on (such as {shared[0]}): the "
        "model and the linear model have seen their labels."
    )
    return [Alarm("fitted_on", "severe", text)]


def _outside_targets(
    predictor: Predictor, matrix: Matrix, y: Any, label: str | None
) -> tuple[np.ndarray, Targets, np.ndarray | None, dict[str, list[str]]]:
    """Rows, targets in the model's own order and units, the model's columns, what was left out."""
    head = predictor.head
    if head.kind in ("regression", "multilabel") and y is not None:
        opened = open_matrix(y)
        known = set(opened.genes)
        columns = np.array(
            [j for j, name in enumerate(head.names) if name in known], dtype=np.int64
        )
        if not columns.size:
            raise InputError(
                f"targets: expected some of the model's {len(head.names)} ({head.names[0]}, ...) "
                "in Y; found none: give the file that holds them"
            )
        if columns.size < len(head.names):
            lacking = next(name for name in head.names if name not in known)
            text = "warning: %d of the model's %d targets are in Y; left out are those such as %r"
            log.warning(text, columns.size, len(head.names), lacking)
        names = [head.names[j] for j in columns]
        levels, marks = (opened, None) if head.kind == "regression" else (None, opened)
        rows, targets, dropped = load_targets(matrix, y=levels, multilabel=marks, targets=names)
        return rows, _in_units(targets, predictor), columns, dropped
    column = label or predictor.config.label
    _check_truth(matrix, y, column, head.names)
    if column is not None and find_column(matrix.obs, column, "label")[1] is None:
        column = f"{column}:{CLASS if predictor.is_classes else LEVEL}"
    rows, targets, dropped = load_targets(matrix, y=y, label=column)
    if targets.is_classes != predictor.is_classes:
        raise InputError(
            f"targets: expected what the model predicts ({head.kind}); found {targets.kind}"
        )
    if not predictor.is_classes:
        return rows, targets, None, dropped
    code_of = {name: i for i, name in enumerate(head.names)}
    codes = np.array([code_of.get(targets.names[c], -1) for c in targets.values], dtype=np.int64)
    if (codes < 0).all():
        raise InputError(
            f"label: expected classes of the model ({first_few(head.names)}); found "
            f"{first_few(targets.names)}"
        )
    if (codes < 0).any():
        lost = rows[codes < 0]
        others = dict.fromkeys(targets.names[c] for c in targets.values[codes < 0])
        why = f"samples of classes that the model does not know: {', '.join(others)}"
        unknown = {why: matrix.samples[lost].tolist()}
        say_left_out(
            unknown,
            f"{counted((codes >= 0).sum(), 'sample is', 'samples are')} of classes of the model",
        )
        dropped = {**dropped, **unknown}
    kept = replace(targets, kind=head.kind, values=codes[codes >= 0], names=head.names)
    return rows[codes >= 0], kept, None, dropped


def _check_truth(matrix: Matrix, y: Any, column: str | None, targets: Sequence[str]) -> None:
    """Refuse samples whose true levels or labels are not there."""
    where = matrix.path or "x"
    if y is None and column is None:
        raise SettingError(
            f"evaluate: expected the true levels of the {counted(len(targets), 'target')} of the "
            f"model in the samples of {where}; found none: give their file by --y"
        )
    if column is None or y is not None:
        return
    bare = column.removesuffix(f":{CLASS}").removesuffix(f":{LEVEL}")
    if not {column, bare} & set(matrix.obs):
        near = did_you_mean(bare, matrix.obs)
        raise InputError(
            f"label: expected the true labels of the samples of {where} in a column {bare}; found "
            f"{listed_columns(matrix.obs)}{near or ': add them by convert --labels'}"
        )


def _in_units(targets: Targets, predictor: Predictor) -> Targets:
    """Levels in the model's units.

    Raises
    ------
    InputError
        If they cannot be converted.
    """
    have, want = targets.units, predictor.head.units
    if targets.kind != "regression" or "unknown" in (have.name, want.name) or have == want:
        return targets
    return replace(targets, values=convert_units(targets.values, have, want, None), units=want)


def fit_rivals(
    X: np.ndarray, targets: Targets, *, groups: np.ndarray | None = None, seed: int = 0
) -> Rivals:
    """Fit the constant and the linear model.

    Parameters
    ----------
    X : ndarray of float32, shape (n_samples, n_genes)
        Genes of the labelled samples, in the model's order and units.
    targets : Targets
    groups : ndarray, shape (n_samples,), optional
        Left out together where the penalty is chosen.
    seed : int

    Returns
    -------
    Rivals
        Ridge (logistic) regression on the standardised genes, through at most `MOST_DIRECTIONS`
        of their principal components, so that it can be stored.

    Raises
    ------
    InputError
        If there are too few samples to leave one out.
    """
    scaler = fit_gene_transform("standardize", [X])
    Z = scaler.apply(X)
    k = min(MOST_DIRECTIONS, len(Z) - 1, Z.shape[1])
    pca = fit_pca(lambda: [Z], k)
    scores, directions = pca.scores(Z), pca.components.T
    if targets.kind == "regression":
        if len(X) < FEWEST:
            raise InputError(f"fit: expected at least {FEWEST} labelled samples; found {len(X)}")
        constant = targets.values.mean(axis=0, dtype=np.float64)
        linear = fit_ridge(scores, targets.values, groups=groups)
        coef, intercept, alpha = linear.coef, linear.intercept, linear.alpha
    else:
        constant = _frequencies(targets)
        logistic = fit_logistic(
            scores,
            targets.values,
            kind=targets.kind,
            n_classes=len(targets.names),
            groups=groups,
            seed=seed,
        )
        coef, intercept, alpha = logistic.coef, logistic.intercept, logistic.alpha
    return Rivals(
        kind=targets.kind,
        constant=constant,
        location=scaler.location,
        scale=scaler.scale,
        directions=directions.astype(np.float32),
        weights=coef.astype(np.float32),
        intercept=(intercept - pca.mean @ directions @ coef).astype(np.float32),
        alpha=alpha,
    )


def load_rivals(folder: str | os.PathLike[str]) -> Rivals:
    """Read what `Rivals.save` wrote.

    Raises
    ------
    InputError
        If there are none, or they are damaged.
    """
    folder = Path(folder)
    what, remedy = "a model with its rivals", "fit it again with this version of m1pipe"
    facts = read_json(folder / FACTS, what, remedy=remedy)
    arrays, _ = read_arrays(folder / ARRAYS, what, remedy=remedy)
    with reading(folder / ARRAYS, what, remedy=remedy):
        rivals = Rivals(facts["kind"], float(facts["alpha"]), *(arrays[name] for name in STORED))
        n_genes, n_directions = rivals.directions.shape
        fits = rivals.location.shape == rivals.scale.shape == (n_genes,)
        if not fits or rivals.weights.shape != (n_directions, rivals.intercept.size):
            raise ValueError("its arrays are of different sizes")
        return rivals


def _frequencies(targets: Targets) -> np.ndarray:
    """Share of the samples in each class, or with each label."""
    shares: np.ndarray
    if targets.kind == "multilabel":
        shares = targets.values.mean(axis=0, dtype=np.float64)
    else:
        counts = np.bincount(targets.values, minlength=len(targets.names))
        shares = counts / counts.sum()
    return shares
