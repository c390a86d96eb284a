"""The ladder: which models are compared, and how each is fitted on one training fold."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from m1pipe.config import CrossvalConfig, HeadConfig
from m1pipe.data.targets import Targets
from m1pipe.data.transforms import fit_gene_transform
from m1pipe.errors import InputError
from m1pipe.evaluation.linear import fit_ridge
from m1pipe.evaluation.logistic import fit_logistic
from m1pipe.evaluation.representations import EncoderRow
from m1pipe.models.heads import balanced_weight
from m1pipe.training.fit_heads import fit_head
from m1pipe.training.fitted_head import FittedHead

CONSTANT_ROWS = ("mean", "prior")
GENE_ROWS = ("ridge", "logistic", "raw")
PCA_ROWS = ("pca_ridge", "pca_logistic", "pca", "pca_fold")
LINEAR_ROWS = ("ridge", "logistic", "pca_ridge", "pca_logistic")
ALL_ROWS = (*CONSTANT_ROWS, *GENE_ROWS, *PCA_ROWS)

PUBLISHED_GENE_HEAD = (256, 32)
PUBLISHED_LATENT_HEAD = (32,)
HEAD_ROWS = 2048


def ladder(
    kind: str, encoders: Sequence[EncoderRow], models: Sequence[str] | None
) -> tuple[str, ...]:
    """Rows of a comparison, the yardstick first and the encoders last.

    Parameters
    ----------
    kind : str
        Kind of the targets.
    encoders : sequence of EncoderRow
        Always rows of their own.
    models : sequence of str or None
        The other rows to run; None: all that there are.

    Returns
    -------
    tuple of str
        The yardstick (the training mean, or the prior) is in it whether named or not.

    Raises
    ------
    InputError
        If a row is not known for such targets.
    """
    stored = any(row.frozen for row in encoders)
    if kind == "regression":
        usual: tuple[str, ...] = ("mean", "ridge", "pca_ridge", "raw")
        more: tuple[str, ...] = ()
    else:
        usual, more = ("prior", "logistic", "raw"), ("pca_logistic",)
    usual += ("pca",) if stored else ("pca_fold",)
    known = (*usual, *more, "pca_fold") if stored else (*usual, *more)
    names = tuple(row.name for row in encoders)
    chosen = usual if models is None else tuple(models)
    unknown = [name for name in chosen if name not in (*known, *names)]
    if unknown:
        raise InputError(
            f"models: expected some of {', '.join(known)}; found {', '.join(unknown)}"
            + (": pca needs a frozen encoder's run" if "pca" in unknown else "")
        )
    return (*(name for name in known if name in (*chosen, known[0])), *names)


def linear_rival(kind: str, rows: Sequence[str], declared: str | None) -> str | None:
    """The linear row of the declared family of comparisons.

    Raises
    ------
    InputError
        If the one declared is not among the rows.
    """
    usual = "ridge" if kind == "regression" else "logistic"
    if declared is None:
        return usual if usual in rows else None
    if declared not in rows:
        raise InputError(
            f"linear-rival: expected one of the rows {', '.join(rows)}; found {declared!r}"
        )
    return declared


def head_config(row: str, config: CrossvalConfig) -> HeadConfig:
    """Settings of a feed-forward row: the same for all, or the published ones for its input."""
    if config.recipe == "best":
        return config.head
    return replace(
        config.head,
        hidden=PUBLISHED_GENE_HEAD if row in GENE_ROWS else PUBLISHED_LATENT_HEAD,
        lr=1e-3,
        weight_decay=0.0,
        dropout=0.0,
        patience=0,
        validation=0.0,
        standardize=False,
        initialize_bias=False,
    )


@dataclass(frozen=True, eq=False)
class Fold:
    """One split, as every row sees it.

    Attributes
    ----------
    targets : Targets
        Of all samples; those of the test rows are only ever compared with.
    train, test : ndarray of int64
        Rows to fit on and rows to predict.
    strata, groups : ndarray, shape (n_samples,), or None
        For the inner split.
    order : ndarray of int, shape (n_samples,)
        Fold of every sample, over which the heads' row order is spread.
    seed : int
        The same for every row of the ladder.
    """

    targets: Targets
    train: np.ndarray
    test: np.ndarray
    strata: np.ndarray | None
    groups: np.ndarray | None
    order: np.ndarray
    seed: int


@dataclass(frozen=True, eq=False)
class RowFit:
    """A fitted row: its predictions of the test rows, and whether its network is alive.

    Attributes
    ----------
    prediction : ndarray, shape (n_test, n_targets) or (n_test, n_classes)
        Levels or probabilities.
    dead_share : float
        Share of the hidden units that are dead over the training rows.
    """

    prediction: np.ndarray
    dead_share: float = 0.0


def fit_row(row: str, X: np.ndarray | None, fold: Fold, config: CrossvalConfig) -> RowFit:
    """Fit one row of the ladder on the training rows and predict the test rows.

    Parameters
    ----------
    row : str
        Name of the row; any name that is not one of `ALL_ROWS` is an encoder's.
    X : ndarray of float32, shape (n_samples, n_features), or None
        The row's representation of all samples; None for a constant row.
    fold : Fold
    config : CrossvalConfig
        Settings of the heads.

    Returns
    -------
    RowFit
    """
    if X is None:
        return RowFit(constant_prediction(fold))
    if row in LINEAR_ROWS:
        balance = config.head.class_weight == "balanced"
        return _fit_linear(X, fold, standardize=row in GENE_ROWS, balance=balance)
    head = fit_head(
        X,
        fold.targets,
        head_config(row, config),
        rows=fold.train,
        seed=fold.seed,
        strata=fold.strata,
        groups=fold.groups,
        folds_order=fold.order,
    )
    return RowFit(head.predict(X[fold.test]), dead_share(head, X[fold.train[:HEAD_ROWS]]))


def train_mean(fold: Fold) -> np.ndarray:
    """Mean of every target over the training rows; class frequencies for classes.

    Returns
    -------
    ndarray of float64, shape (n_targets,) or (n_classes,)
    """
    values = fold.targets.values[fold.train]
    if fold.targets.is_classes:
        counts = np.bincount(values, minlength=len(fold.targets.names))
        return counts / counts.sum()
    mean: np.ndarray = values.mean(axis=0, dtype=np.float64)
    return mean


def constant_prediction(fold: Fold) -> np.ndarray:
    """The training mean (or the class frequencies) for every test row."""
    mean = train_mean(fold)
    return np.broadcast_to(mean, (fold.test.size, mean.size))


def _fit_linear(X: np.ndarray, fold: Fold, *, standardize: bool, balance: bool) -> RowFit:
    """Ridge for levels, penalised logistic regression for classes."""
    train, test = X[fold.train], X[fold.test]
    if standardize:
        scaler = fit_gene_transform("standardize", [train])
        train, test = scaler.apply(train), scaler.apply(test)
    targets = fold.targets.values[fold.train]
    if fold.targets.kind == "regression":
        ridge = fit_ridge(train, targets)
        return RowFit(ridge.predict(test))
    logistic = fit_logistic(
        train,
        targets,
        kind=fold.targets.kind,
        n_classes=len(fold.targets.names),
        groups=None if fold.groups is None else fold.groups[fold.train],
        weight=class_weights(fold.targets.take(fold.train)) if balance else None,
        seed=fold.seed,
    )
    return RowFit(logistic.predict(test))


def class_weights(targets: Targets) -> np.ndarray:
    """Balanced weight of every loss, (n_samples, 1), or for several labels (n_samples, n_labels).

    The same as the heads' with `--class-weight balanced`.
    """
    values = targets.values
    weight = balanced_weight(targets.kind, torch.from_numpy(values), len(targets.names))
    if weight is None:
        raise ValueError(f"class weights: expected classes or labels; found {targets.kind}")
    if targets.kind == "multilabel":
        return np.where(values > 0.5, weight[1].numpy(), weight[0].numpy())
    return weight.numpy()[values][:, None]


def dead_share(head: FittedHead, X: np.ndarray) -> float:
    """Share of a head's hidden units that put out the same for every row.

    Parameters
    ----------
    head : FittedHead
    X : ndarray, shape (n_samples, n_features)
    """
    device = next(head.module.parameters()).device
    x = torch.from_numpy(head.scaler.apply(X)).to(device)
    still = []
    with torch.no_grad():
        for layer in head.module.hidden:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                still.append(x.amax(0) - x.amin(0) <= 1e-6)
    return float(torch.cat(still).double().mean()) if still else 0.0
