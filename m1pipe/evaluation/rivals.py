"""What a fitted model is measured by on outside samples: the training mean and a linear row.

Both are fitted on the samples that the model was fitted on, and kept with it.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from m1pipe.arrays import hold_in_rows, pack_arrays
from m1pipe.atomic import write_json
from m1pipe.data.targets import Kind, Targets
from m1pipe.data.transforms import fit_gene_transform
from m1pipe.errors import InputError
from m1pipe.heads.logistic import LogisticFit, fit_logistic
from m1pipe.heads.ridge import fit_ridge
from m1pipe.pca import fit_pca

MOST_DIRECTIONS = 512
STORED = ("constant", "location", "scale", "directions", "weights", "intercept")
ARRAYS, FACTS = "rivals.safetensors", "rivals.json"


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
        """Levels or probabilities of the linear row, from genes of shape (n_samples, n_genes)."""
        scores = (np.subtract(X, self.location, order="C") / self.scale) @ self.directions
        if self.kind == "regression":
            levels: np.ndarray = scores @ self.weights + self.intercept
            return levels
        eye = np.eye(self.directions.shape[1])
        none = np.zeros(0)
        fit = LogisticFit(eye, self.weights, self.intercept, self.kind, self.alpha, none, none)
        return fit.predict(scores)

    def predict_constant(self, n: int) -> np.ndarray:
        """The constant for n samples."""
        return np.broadcast_to(self.constant, (n, self.constant.size))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `rivals.safetensors` and `rivals.json`."""
        arrays = {name: getattr(self, name) for name in STORED}
        (Path(folder) / ARRAYS).write_bytes(pack_arrays(arrays))
        write_json(Path(folder) / FACTS, {"kind": self.kind, "alpha": self.alpha})


def fit_rivals(
    X: np.ndarray, targets: Targets, *, groups: np.ndarray | None = None, seed: int = 0
) -> Rivals:
    """Fit the constant and the linear row.

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
    """
    scaler = fit_gene_transform("standardize", [X])
    Z = scaler.apply(X)
    k = min(MOST_DIRECTIONS, len(Z) - 1, Z.shape[1])
    pca = fit_pca(lambda: [Z], k)
    scores, directions = pca.scores(Z), pca.components.T
    if targets.kind == "regression":
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
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        arrays = load_file(folder / ARRAYS)
        return Rivals(facts["kind"], float(facts["alpha"]), *(arrays[name] for name in STORED))
    except OSError:
        raise InputError(
            f"{folder}: expected a model with its rivals ({ARRAYS}); found none: fit it again with "
            "this version of m1pipe"
        ) from None
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"{folder / ARRAYS}: expected rivals of a model; {error}") from None


def _frequencies(targets: Targets) -> np.ndarray:
    """Share of the samples in each class, or with each label."""
    shares: np.ndarray
    if targets.kind == "multilabel":
        shares = targets.values.mean(axis=0, dtype=np.float64)
    else:
        counts = np.bincount(targets.values, minlength=len(targets.names))
        shares = counts / counts.sum()
    return shares
