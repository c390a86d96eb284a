"""Where a head starts: its data on the device, its scales, its first weights; and how it ends."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from m1pipe.config import HeadConfig
from m1pipe.data.targets import Targets
from m1pipe.data.transforms import GeneTransform, fit_gene_transform
from m1pipe.models.heads import Head, balanced_weight, initial_bias
from m1pipe.training.device import resolve_device, seeded
from m1pipe.training.fitted_head import FittedHead
from m1pipe.training.history import History

BLOCK_ROWS = 1024
BLOCK_CELLS = 2**24


@dataclass(frozen=True, eq=False)
class HeadTask:
    """A head's data and settings, whichever rows it is then trained on.

    Attributes
    ----------
    X : ndarray of float32, shape (n, n_features)
        Features of all rows.
    x, y : Tensor, of n rows
        Features and targets on the device.
    targets : Targets
        Of all rows.
    config : HeadConfig
    seed, order_seed : int
        Of initialisation and inner split; of the row order.
    device : torch.device
    folds : ndarray of int, shape (n,), or None
        Spread evenly over the order.
    class_weight : ndarray or None
        In place of the configuration's.
    """

    X: np.ndarray
    x: Tensor
    y: Tensor
    targets: Targets
    config: HeadConfig
    seed: int
    order_seed: int
    device: torch.device
    folds: np.ndarray | None
    class_weight: np.ndarray | None


@dataclass(frozen=True, eq=False)
class HeadStart:
    """An untrained head and what was fitted for it on its training rows.

    Attributes
    ----------
    module : Head
        With seeded weights.
    scaler : GeneTransform
        Of the inputs.
    scale_y : pair of Tensor or None
        Mean of each level, and one scale for all: the network sees standardised levels.
    class_weight : Tensor or None
        For `head_loss`.
    """

    module: Head
    scaler: GeneTransform
    scale_y: tuple[Tensor, Tensor] | None
    class_weight: Tensor | None


def make_task(
    X: np.ndarray,
    targets: Targets,
    config: HeadConfig,
    *,
    seed: int,
    order_seed: int | None = None,
    class_weight: np.ndarray | None = None,
    folds: np.ndarray | None = None,
) -> HeadTask:
    """Features and targets on the device; on the CPU they are not copied.

    Parameters
    ----------
    X : ndarray of float32, shape (n_samples, n_features)
    targets : Targets
    config : HeadConfig
    seed, order_seed : int
        Of the start, and of the order of rows; the same where the second is not given.
    class_weight : ndarray, shape (n_classes,), optional
    folds : ndarray of int, shape (n_samples,), optional
        Fold of every sample, over which the order is spread.
    """
    device = resolve_device(config.device)
    X = np.ascontiguousarray(X, dtype=np.float32)
    x = torch.from_numpy(X).to(device)
    y = torch.from_numpy(np.ascontiguousarray(targets.values)).to(device)
    order = seed if order_seed is None else order_seed
    return HeadTask(X, x, y, targets, config, seed, order, device, folds, class_weight)


def start_head(task: HeadTask, rows: np.ndarray) -> HeadStart:
    """Scales and class weights of these rows, and a network that starts at their mean.

    With standardisation a feature that is constant in the rows is not listened to.

    Parameters
    ----------
    task : HeadTask
    rows : ndarray of int, shape (n_rows,)
        Training rows.
    """
    config, kind, names = task.config, task.targets.kind, task.targets.names
    scaler, module = _fit_scaler(task, rows), _seeded_head(task)
    if config.standardize:
        _silence(module, _constant_inputs(task, rows))
    if kind == "regression":
        scale_y = _target_scale(task, rows)
        if scale_y is not None:
            nn.init.zeros_(module.output.bias)
        return HeadStart(module, scaler, scale_y, None)
    y = task.y[torch.from_numpy(rows).to(task.device)]
    weight = _class_weight(task, y)
    if config.initialize_bias:
        with torch.no_grad():
            module.output.bias.copy_(initial_bias(kind, y, len(names), weight))
    return HeadStart(module, scaler, None, weight)


def finish_head(task: HeadTask, start: HeadStart, history: History, n_epochs: int) -> FittedHead:
    """The trained head, its outputs in the targets' units."""
    if start.scale_y is not None:
        _fold_in(start.module.output, *start.scale_y)
    kind, names, units = task.targets.kind, task.targets.names, task.targets.units
    return FittedHead(start.module, kind, names, units, start.scaler, history, n_epochs)


def _class_weight(task: HeadTask, y: Tensor) -> Tensor | None:
    """Weights of the classes: those given, or balanced over the training targets `y`."""
    if task.class_weight is not None:
        return torch.from_numpy(task.class_weight.astype(np.float32)).to(task.device)
    if not task.config.class_weight:
        return None
    return balanced_weight(task.targets.kind, y, len(task.targets.names))


def _seeded_head(task: HeadTask) -> Head:
    """A head with seeded weights on the task's device."""
    widths, dropout = task.config.hidden, task.config.dropout
    with seeded(task.seed):
        module = Head(task.X.shape[1], task.targets.n_outputs, widths, dropout=dropout)
    return module.to(task.device)


def _constant_inputs(task: HeadTask, rows: np.ndarray) -> np.ndarray:
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


def _fit_scaler(task: HeadTask, rows: np.ndarray) -> GeneTransform:
    """Standardisation by these rows, or none if the configuration wants none."""
    kind = "standardize" if task.config.standardize else "none"
    starts = range(0, rows.size, BLOCK_ROWS)
    return fit_gene_transform(kind, (task.X[rows[s : s + BLOCK_ROWS]] for s in starts))


def _target_scale(task: HeadTask, rows: np.ndarray) -> tuple[Tensor, Tensor] | None:
    """Mean of each level, and one standard deviation for all: the loss keeps its proportions.

    Targets are gone through by columns, so that nothing of their size is held a second time.
    """
    if not task.config.initialize_bias:
        return None
    chosen, (_, n_targets) = torch.from_numpy(rows).to(task.device), task.y.shape
    mean = torch.empty(n_targets, dtype=torch.float64, device=task.device)
    total = torch.zeros((), dtype=torch.float64, device=task.device)
    width = max(1, BLOCK_CELLS // rows.size)
    for start in range(0, n_targets, width):
        part = task.y[:, start : start + width].index_select(0, chosen).double()
        mean[start : start + width] = part.mean(0)
        total += part.sub_(mean[start : start + width]).square_().sum()
    spread = (total / (rows.size * n_targets)).sqrt()
    scale = spread if spread > 0 else torch.ones_like(spread)
    return mean.to(task.y.dtype), scale.to(task.y.dtype)


def _fold_in(output: nn.Linear, mean: Tensor, scale: Tensor) -> None:
    """Give a linear layer's outputs a scale and an offset."""
    with torch.no_grad():
        output.weight.mul_(scale)
        output.bias.mul_(scale).add_(mean)
