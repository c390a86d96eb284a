"""Heads of one shape while they are trained together: their inputs, steps and validation.

For levels the output layer is gone through by blocks of targets, and in a block head by head:
predictions, gradient and update of a block are done before the next is touched, so that no
gradient of the whole layer and no matrix of predictions ever exists, and the weights travel
through the cache once a step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.optim.adamw import adamw

from m1pipe.config import HeadConfig
from m1pipe.models.stacked import StackedHeads, stacked_loss
from m1pipe.training.head_start import HeadStart, HeadTask

BLOCK_BYTES = 2**20  # of a head's predictions on the CPU
GPU_BLOCK_BYTES = 2**28
WHOLE_INPUT_BYTES = 2**28


@dataclass(eq=False)
class Stack:
    """Some heads of equal shape, with what their steps need.

    Attributes
    ----------
    heads : StackedHeads
    kind : str
        Kind of target.
    config : HeadConfig
    mask_of : Tensor of int64, shape (n_heads,)
        Which of the row masks each head has.
    xs : list of Tensor, shape (n, n_in)
        Features of every head, not standardised; several may be one tensor.
    location, scale : Tensor, shape (n_heads, n_in)
        Of the features.
    mean_y : Tensor, shape (n_heads, n_out), or None
        Mean levels.
    scale_y : list of float
        Scale of every head's levels; 1 where they are not standardised.
    class_weight : Tensor or None
        Of every head, stacked.
    moments : list of pair of Tensor
        Of Adam, for every tensor of the heads.
    """

    heads: StackedHeads
    kind: str
    config: HeadConfig
    mask_of: Tensor
    xs: list[Tensor]
    location: Tensor
    scale: Tensor
    mean_y: Tensor | None
    scale_y: list[float]
    class_weight: Tensor | None
    moments: list[tuple[Tensor, Tensor]]
    whole: Tensor | None = field(default=None)

    def inputs(self, rows: Tensor) -> Tensor:
        """Standardised features, (n_heads, n_rows, n_in), of rows of shape (n_heads, n_rows)."""
        if self.whole is not None:
            return self.whole[torch.arange(len(rows), device=rows.device)[:, None], rows]
        x = torch.stack([x.index_select(0, own) for x, own in zip(self.xs, rows, strict=True)])
        return x.sub_(self.location[:, None]).div_(self.scale[:, None])

    def keep(self, heads: Tensor) -> None:
        """Go on with these heads only: numbers, shape (n_left,)."""
        self.heads.keep(heads)
        self.mask_of = self.mask_of[heads]
        self.xs = [self.xs[k] for k in heads.tolist()]
        self.location, self.scale = self.location[heads], self.scale[heads]
        self.mean_y = None if self.mean_y is None else self.mean_y[heads]
        self.scale_y = [self.scale_y[k] for k in heads.tolist()]
        self.class_weight = None if self.class_weight is None else self.class_weight[heads]
        self.moments = [(m[heads], v[heads]) for m, v in self.moments]
        self.whole = None if self.whole is None else self.whole[heads]


def make_stack(
    tasks: Sequence[HeadTask], starts: Sequence[HeadStart], masks: Sequence[int]
) -> Stack:
    """Put untrained heads of one shape together.

    Parameters
    ----------
    tasks, starts : sequence of HeadTask and HeadStart
        Of every head.
    masks : sequence of int
        Number of the row mask of every head.
    """
    device, kind = tasks[0].device, tasks[0].targets.kind
    heads = StackedHeads([start.module for start in starts])
    scales_y = [start.scale_y for start in starts if start.scale_y is not None]
    weights = [start.class_weight for start in starts if start.class_weight is not None]
    stack = Stack(
        heads=heads,
        kind=kind,
        config=tasks[0].config,
        mask_of=torch.tensor(masks, device=device),
        xs=[task.x for task in tasks],
        location=_to_device([start.scaler.location for start in starts], device),
        scale=_to_device([start.scaler.scale for start in starts], device),
        mean_y=torch.stack([mean for mean, _ in scales_y]) if scales_y else None,
        scale_y=[float(scale) for _, scale in scales_y] or [1.0] * len(tasks),
        class_weight=torch.stack(weights) if weights else None,
        moments=[(torch.zeros_like(t), torch.zeros_like(t)) for t in heads.tensors],
    )
    n_rows, n_in = tasks[0].x.shape
    if 4 * len(tasks) * n_rows * n_in <= WHOLE_INPUT_BYTES:
        stack.whole = stack.inputs(torch.arange(n_rows, device=device).expand(len(tasks), -1))
    return stack


def _to_device(arrays: Sequence[np.ndarray], device: torch.device) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).to(device)


@dataclass(frozen=True, eq=False)
class Piece:
    """Rows of one step, and which of them each row mask takes.

    Attributes
    ----------
    rows : Tensor of int64, shape (n_rows,)
    places : Tensor of int64, shape (n_masks, n_taken)
        Places among the rows; filled up with others to the longest.
    weight : Tensor, shape (n_masks, n_taken)
        1 over the number of rows of the mask; 0 where filled up.
    """

    rows: Tensor
    places: Tensor
    weight: Tensor


def make_piece(rows: np.ndarray, masks: np.ndarray, device: torch.device) -> Piece:
    """Which of these rows each mask (n_masks, n) takes."""
    taken = masks[:, rows]
    counts = taken.sum(axis=1)
    places = np.argsort(~taken, axis=1, kind="stable")[:, : max(int(counts.max()), 1)]
    inside = np.arange(places.shape[1]) < counts[:, None]
    weight = inside / np.maximum(counts, 1)[:, None]
    return Piece(
        torch.from_numpy(rows).to(device),
        torch.from_numpy(places).to(device),
        torch.from_numpy(weight.astype(np.float32)).to(device),
    )


def train_step(stack: Stack, piece: Piece, y: Tensor, step: int) -> Tensor:
    """One descent step of every head.

    Parameters
    ----------
    stack : Stack
    piece : Piece
    y : Tensor, shape (n,) or (n, n_outputs)
        Targets of all rows.
    step : int
        From 1.

    Returns
    -------
    Tensor of float64, shape (n_heads,)
        Mean loss of each head's rows before the step.
    """
    rows, weight = _own_rows(stack, piece)
    x = stack.inputs(rows)
    if stack.kind == "regression":
        return _step_by_blocks(stack, (x, rows, weight), y, step)
    output = stack.heads.output(stack.heads.hidden(x))
    losses = stacked_loss(stack.kind, output, y[rows], stack.class_weight) * weight
    losses.sum().backward()
    for k, tensor in enumerate(stack.heads.tensors):
        assert tensor.grad is not None
        _update(stack, k, tensor.detach(), tensor.grad, step)
        tensor.grad = None
    return losses.detach().sum(1, dtype=torch.float64)


def _own_rows(stack: Stack, piece: Piece) -> tuple[Tensor, Tensor]:
    """Rows of a piece that each head takes, and their weights, of shape (n_heads, n_taken)."""
    return piece.rows[piece.places[stack.mask_of]], piece.weight[stack.mask_of]


def _step_by_blocks(
    stack: Stack, batch: tuple[Tensor, Tensor, Tensor], y: Tensor, step: int
) -> Tensor:
    """As `train_step`, for levels: the output layer by blocks of targets."""
    x, rows, weight = batch
    hidden = stack.heads.hidden(x)
    h = hidden.detach()
    matrix, bias = stack.heads.matrices[-1].detach(), stack.heads.biases[-1].detach()
    slope, bias_slope, total = torch.zeros_like(h), torch.empty_like(bias), torch.zeros_like(weight)
    factor = (weight * (2 / matrix.shape[1]))[:, :, None]
    moving = (matrix, *stack.moments[len(stack.heads.matrices) - 1])
    layers = list(zip(*(tensor.unbind(0) for tensor in moving), strict=True))
    for k, columns, gap in head_gaps(stack, h, rows, y):
        own, first, second = (tensor[columns] for tensor in layers[k])
        _add_squares(total[k], gap)
        gap.mul_(factor[k])
        slope[k].addmm_(gap, own)
        torch.sum(gap, 0, out=bias_slope[k, columns])
        _adamw(([own], [gap.t() @ h[k]], [first], [second]), stack.config, step)
    _update(stack, len(stack.heads.tensors) - 1, bias, bias_slope, step)
    if hidden.requires_grad:
        hidden.backward(slope)
    for k, tensor in enumerate(stack.heads.tensors):
        if tensor.grad is not None:
            _update(stack, k, tensor.detach(), tensor.grad, step)
            tensor.grad = None
    return _mean_over_targets(total, weight, matrix.shape[1])


def target_blocks(hidden: Tensor, n_out: int) -> list[slice]:
    """Blocks of targets, so that a head's predictions of one stay in the cache."""
    most = BLOCK_BYTES if hidden.device.type == "cpu" else GPU_BLOCK_BYTES
    width = max(64, most // (4 * hidden.shape[1]) // 64 * 64)
    return [slice(start, start + width) for start in range(0, n_out, width)]


def head_gaps(
    stack: Stack, hidden: Tensor, rows: Tensor, y: Tensor
) -> Iterator[tuple[int, slice, Tensor]]:
    """Standardised predictions minus targets, block by block and in a block head by head.

    Parameters
    ----------
    stack : Stack
    hidden : Tensor, shape (n_heads, n_taken, width)
        Last hidden layer of every head.
    rows : Tensor of int64, shape (n_heads, n_taken)
    y : Tensor, shape (n, n_outputs)
        Levels of all rows.

    Yields
    ------
    k : int
        Number of the head.
    columns : slice
        Targets of the block.
    gap : Tensor, shape (n_taken, n_columns)
        The caller's own.
    """
    matrices, biases = stack.heads.matrices[-1].detach(), stack.heads.biases[-1].detach()
    for columns in target_blocks(hidden, y.shape[1]):
        levels = y[:, columns]
        for k, scale in enumerate(stack.scale_y):
            shift = biases[k, columns]
            if stack.mean_y is not None:
                shift = torch.add(stack.mean_y[k, columns], shift, alpha=scale)
            gap = levels.index_select(0, rows[k]).sub_(shift)
            yield k, columns, gap.addmm_(hidden[k], matrices[k, columns].t(), beta=-1 / scale)


def _add_squares(total: Tensor, gap: Tensor) -> None:
    """Add the sum of each row's squares, (n_taken, n_columns) -> (n_taken,), in place."""
    norm = torch.linalg.vector_norm(gap, dim=1)
    total.addcmul_(norm, norm)


def _mean_over_targets(total: Tensor, weight: Tensor, n_out: int) -> Tensor:
    """Weighted sums of each head's losses, (n_heads,) float64, of its rows' sums of squares."""
    return (total * weight).sum(1, dtype=torch.float64) / n_out


def _update(stack: Stack, k: int, tensor: Tensor, slope: Tensor, step: int) -> None:
    """AdamW on the k-th tensor of all heads."""
    tensors = (tensor, slope, *stack.moments[k])
    _adamw([list(t.unbind(0)) for t in tensors], stack.config, step)


def _adamw(tensors: Sequence[list[Tensor]], config: HeadConfig, step: int) -> None:
    """AdamW on heads' tensors with their gradients and two moments; no decay of biases."""
    own, slopes, first, second = tensors
    done = torch.full((len(own),), step - 1.0, device=own[0].device)
    adamw(
        own,
        slopes,
        first,
        second,
        [],
        list(done.unbind(0)),
        fused=True,
        amsgrad=False,
        beta1=0.9,
        beta2=0.999,
        lr=config.lr,
        weight_decay=config.weight_decay if own[0].ndim > 1 else 0.0,
        eps=1e-8,
        maximize=False,
    )


@torch.no_grad()
def validation_losses(stack: Stack, piece: Piece, y: Tensor) -> Tensor:
    """Weighted sum of each head's losses over a piece of validation rows, (n_heads,) float64."""
    rows, weight = _own_rows(stack, piece)
    hidden = stack.heads.hidden(stack.inputs(rows))
    if stack.kind != "regression":
        output = stack.heads.output(hidden)
        losses = stacked_loss(stack.kind, output, y[rows], stack.class_weight)
        return (losses * weight).sum(1, dtype=torch.float64)
    total = torch.zeros_like(weight)
    for k, _, gap in head_gaps(stack, hidden, rows, y):
        _add_squares(total[k], gap)
    return _mean_over_targets(total, weight, y.shape[1])
