"""Feed-forward heads on frozen features: scaling, start, early stopping."""

import warnings
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from m1pipe.config import HeadConfig, TrainingConfig
from m1pipe.data.splits import inner_split, make_folds
from m1pipe.data.targets import Targets
from m1pipe.data.transforms import GeneTransform, fit_gene_transform
from m1pipe.errors import InputError, M1Warning
from m1pipe.models.heads import Head, balanced_weight, initial_bias
from m1pipe.training.device import resolve_device, seeded
from m1pipe.training.fit import fit
from m1pipe.training.fitted_head import FittedHead
from m1pipe.training.head_feed import HeadFeed
from m1pipe.training.objectives import head_objective

FEW_ROWS = 60
INNER_FOLDS = 5
VALIDATION_ROWS = 256
BLOCK_ROWS = 1024


@dataclass(frozen=True, eq=False)
class _Task:
    """A head's data and settings, whichever rows it is then trained on."""

    X: np.ndarray
    x: Tensor
    y: Tensor
    targets: Targets
    config: HeadConfig
    seed: int
    device: torch.device
    folds: np.ndarray | None
    class_weight: np.ndarray | None


def fit_head(
    X: np.ndarray,
    targets: Targets,
    config: HeadConfig,
    *,
    rows: np.ndarray,
    seed: int,
    strata: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    folds_order: np.ndarray | None = None,
    class_weight: np.ndarray | None = None,
) -> FittedHead:
    """Train a head on some rows of a feature matrix.

    Scaling, start and class weights come from `rows`; with standardisation a feature that is
    constant in them is not listened to. A share of `rows` decides when to stop, and
    the best weights are kept; with fewer than `FEW_ROWS` rows that share would be too small, so
    inner cross-validation chooses a number of epochs and all of `rows` are trained on for as long.

    Parameters
    ----------
    X : ndarray of float32, shape (n, n_features)
        Features of all rows, those that are not trained on included: each epoch goes through one
        order of all n rows in pieces of the batch size, and a step takes those of a piece that
        are trained on. Where these are few of n, pass them alone.
    targets : Targets
        Of all n rows.
    config : HeadConfig
        Network and training.
    rows : ndarray of int, shape (n_rows,)
        Training rows; nothing else about the other rows is looked at.
    seed : int
        Of initialisation, row order and the inner split.
    strata, groups : ndarray, shape (n,), optional
        Of all rows, for the inner split.
    folds_order : ndarray of int, shape (n,), optional
        Fold of each row, to spread the folds evenly over the order.
    class_weight : ndarray, shape (n_classes,), optional
        Weight of each class, in place of the configuration's.

    Returns
    -------
    FittedHead

    Raises
    ------
    InputError
        If there are fewer than two rows, or a loss is not finite.
    """
    rows = np.asarray(rows, dtype=np.int64)
    if rows.size < 2:
        raise InputError(f"head: expected at least two training rows; found {rows.size}")
    if rows.size < FEW_ROWS and config.validation > 0:
        X, targets = np.ascontiguousarray(X[rows]), targets.take(rows)
        inner = [
            None if labels is None else np.asarray(labels)[rows] for labels in (strata, groups)
        ]
        task = _make_task(X, targets, config, seed=seed, class_weight=class_weight)
        epochs = _choose_epochs(task, inner[0], inner[1])
        fixed = replace(task, config=replace(config, epochs=epochs))
        return _train(fixed, np.arange(rows.size))
    task = _make_task(X, targets, config, seed=seed, class_weight=class_weight, folds=folds_order)
    if config.validation == 0:
        return _train(task, rows)
    kept, held_out = inner_split(rows, config.validation, seed, strata=strata, groups=groups)
    return _train(task, kept, held_out, scale_rows=rows)


def _make_task(
    X: np.ndarray,
    targets: Targets,
    config: HeadConfig,
    *,
    seed: int,
    class_weight: np.ndarray | None,
    folds: np.ndarray | None = None,
) -> _Task:
    """Features and targets on the device; on the CPU they are not copied."""
    device = resolve_device(config.device)
    X = np.ascontiguousarray(X, dtype=np.float32)
    x = torch.from_numpy(X).to(device)
    y = torch.from_numpy(np.ascontiguousarray(targets.values)).to(device)
    return _Task(X, x, y, targets, config, seed, device, folds, class_weight)


def _choose_epochs(task: _Task, strata: np.ndarray | None, groups: np.ndarray | None) -> int:
    """Number of epochs with the lowest loss summed over inner folds.

    A fold that stopped early counts with its last loss from then on.
    """
    n = task.targets.n
    if groups is not None and np.unique(groups).size < 2:
        groups = None
    if strata is None and task.targets.is_classes:
        strata = task.targets.values
    n_folds = min(INNER_FOLDS, n if groups is None else np.unique(groups).size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", M1Warning)  # strata smaller than the folds are no news here
        folds = make_folds(n_folds, 1, task.seed, strata=strata, groups=groups, n=n)[0]
    total = np.zeros(task.config.epochs)
    for fold in np.unique(folds):
        held_out = np.flatnonzero(folds == fold)
        head = _train(task, np.flatnonzero(folds != fold), held_out)
        losses = np.array([row["val_loss"] for row in head.history.rows]) * held_out.size
        total += np.pad(losses, (0, total.size - losses.size), mode="edge")
    return int(total.argmin()) + 1


def _train(
    task: _Task,
    rows: np.ndarray,
    held_out: np.ndarray | None = None,
    *,
    scale_rows: np.ndarray | None = None,
) -> FittedHead:
    """Train on `rows`; `held_out` decides when to stop; `scale_rows` (or `rows`) set scales."""
    config, kind, names = task.config, task.targets.kind, task.targets.names
    fitted = rows if scale_rows is None else scale_rows
    y = task.y[torch.from_numpy(fitted).to(task.device)]
    weight = _class_weight(task, y)
    scaler, scale_y = _fit_scaler(task, fitted), _target_scale(task, y)
    module = _start_head(task)
    if config.standardize:
        _silence(module, _constant_inputs(task, fitted))
    if config.initialize_bias:
        start = initial_bias(kind, y, len(names), weight)
        with torch.no_grad():
            module.output.bias.copy_(start if scale_y is None else torch.zeros_like(start))
    history = fit(
        module,
        _feed(task, rows, scaler, scale_y),
        partial(head_objective, kind=kind, class_weight=weight),
        _training_config(config, task.seed),
        validation=None if held_out is None else _feed(task, held_out, scaler, scale_y, True),
        keep="last" if held_out is None else "best",
    )
    if scale_y is not None:
        _fold_in(module.output, *scale_y)
    n_epochs = history.n_epochs if held_out is None else history.best_epoch
    return FittedHead(module, kind, names, task.targets.units, scaler, history, n_epochs)


def _class_weight(task: _Task, y: Tensor) -> Tensor | None:
    """Weights of the classes: those given, or balanced over the training targets `y`."""
    if task.class_weight is not None:
        return torch.from_numpy(task.class_weight.astype(np.float32)).to(task.device)
    if not task.config.class_weight:
        return None
    return balanced_weight(task.targets.kind, y, len(task.targets.names))


def _start_head(task: _Task) -> Head:
    """A head with seeded weights on the task's device."""
    widths, dropout = task.config.hidden, task.config.dropout
    with seeded(task.seed):
        module = Head(task.X.shape[1], task.targets.n_outputs, widths, dropout=dropout)
    return module.to(task.device)


def _constant_inputs(task: _Task, rows: np.ndarray) -> np.ndarray:
    """Which features have one value in all of these rows, shape (n_features,)."""
    first = task.X[rows[0]]
    constant = np.ones(first.size, dtype=bool)
    for start in range(0, rows.size, BLOCK_ROWS):
        constant &= (task.X[rows[start : start + BLOCK_ROWS]] == first).all(0)
    return constant


def _silence(module: Head, inputs: np.ndarray) -> None:
    """Start the weights of these inputs at zero, where they stay: standardised, they are all zero.

    Random weights would let such a feature move the predictions of rows where it is not constant.
    """
    first = next(layer for layer in module.modules() if isinstance(layer, nn.Linear))
    with torch.no_grad():
        first.weight[:, torch.from_numpy(inputs).to(first.weight.device)] = 0.0


def _fit_scaler(task: _Task, rows: np.ndarray) -> GeneTransform:
    """Standardisation by these rows, or none if the configuration wants none."""
    kind = "standardize" if task.config.standardize else "none"
    starts = range(0, rows.size, BLOCK_ROWS)
    return fit_gene_transform(kind, (task.X[rows[s : s + BLOCK_ROWS]] for s in starts))


def _target_scale(task: _Task, y: Tensor) -> tuple[Tensor, Tensor] | None:
    """Mean of each level, and one standard deviation for all: the loss keeps its proportions."""
    if task.targets.kind != "regression" or not task.config.initialize_bias:
        return None
    mean = y.mean(0, dtype=torch.float64)
    spread = (y.double() - mean).square().mean().sqrt()
    scale = spread if spread > 0 else torch.ones_like(spread)
    return mean.to(y.dtype), scale.to(y.dtype)


def _feed(
    task: _Task,
    rows: np.ndarray,
    scaler: GeneTransform,
    scale_y: tuple[Tensor, Tensor] | None,
    is_validation: bool = False,
) -> HeadFeed:
    mask = np.zeros(task.targets.n, dtype=bool)
    mask[rows] = True
    location = torch.from_numpy(scaler.location).to(task.device)
    scale = torch.from_numpy(scaler.scale).to(task.device)
    return HeadFeed(
        x=task.x,
        y=task.y,
        mask=mask,
        scale_x=(location, scale),
        scale_y=scale_y,
        batch_size=VALIDATION_ROWS if is_validation else task.config.batch_size,
        seed=task.seed,
        folds=task.folds,
        shuffle=not is_validation,
    )


def _training_config(config: HeadConfig, seed: int) -> TrainingConfig:
    """Settings of the loop: a constant rate, no clipping, no warm-up."""
    return TrainingConfig(
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        weight_decay=config.weight_decay,
        schedule="constant",
        clip=0.0,
        ema=0.0,
        kl_warmup=0.0,
        patience=config.patience,
        seed=seed,
        precision="fp32",
    )


def _fold_in(output: nn.Linear, mean: Tensor, scale: Tensor) -> None:
    """Give a linear layer's outputs a scale and an offset."""
    with torch.no_grad():
        output.weight.mul_(scale)
        output.bias.mul_(scale).add_(mean)
