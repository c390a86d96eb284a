"""Heads of one shape while they are trained together: their inputs, steps and validation.

For levels the output layer is gone through by blocks of targets: predictions, gradient and update
of a block are done before the next is touched, so that no gradient of the whole layer and no
matrix of predictions ever exists, and the weights travel through the cache once a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.optim.adamw import adamw

from m1pipe.config import HeadConfig
from m1pipe.models.stacked import StackedHeads, stacked_loss
from m1pipe.training.head_start import HeadStart, HeadTask

BLOCK_BYTES = 2**20  # of predictions of all heads on the CPU
GPU_BLOCK_BYTES = 2**31
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
    mean_y, scale_y : Tensor, shapes (n_heads, n_out) and (n_heads,), or None
        Of levels.
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
    scale_y: Tensor | None
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
        """Go on with these heads only."""
        self.heads.keep(heads)
        self.mask_of = self.mask_of[heads]
        self.xs = [self.xs[k] for k in heads.tolist()]
        self.location, self.scale = self.location[heads], self.scale[heads]
        self.mean_y = None if self.mean_y is None else self.mean_y[heads]
        self.scale_y = None if self.scale_y is None else self.scale_y[heads]
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
        scale_y=torch.stack([scale for _, scale in scales_y]) if scales_y else None,
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
    y : Tensor, of n rows
        Targets of all rows.
    step : int
        From 1.

    Returns
    -------
    Tensor of float64, shape (n_heads,)
        Mean loss of each head's rows before the step.
    """
    places, weight = piece.places[stack.mask_of], piece.weight[stack.mask_of]
    x = stack.inputs(piece.rows[places])
    if stack.kind == "regression":
        return _step_by_blocks(stack, piece, (x, places, weight), y, step)
    target = y[piece.rows[places]]
    output = stack.heads.output(stack.heads.hidden(x))
    losses = stacked_loss(stack.kind, output, target, stack.class_weight) * weight
    losses.sum().backward()
    for k, tensor in enumerate(stack.heads.tensors):
        assert tensor.grad is not None
        _update(stack, k, tensor.detach(), tensor.grad, step)
        tensor.grad = None
    return losses.detach().sum(1, dtype=torch.float64)


def _step_by_blocks(
    stack: Stack, piece: Piece, batch: tuple[Tensor, Tensor, Tensor], y: Tensor, step: int
) -> Tensor:
    """As `train_step`, for levels: the output layer by blocks of targets."""
    x, places, weight = batch
    hidden = stack.heads.hidden(x)
    h = hidden.detach()
    matrix, bias = stack.heads.matrices[-1].detach(), stack.heads.biases[-1].detach()
    n_out = matrix.shape[1]
    slope, bias_slope = torch.zeros_like(h), torch.empty_like(bias)
    total = torch.zeros(len(h), dtype=torch.float64, device=h.device)
    at = len(stack.heads.matrices) - 1
    factor = (weight * (2 / n_out))[:, :, None]
    for start in range(0, n_out, block := block_width(h, n_out)):
        columns = slice(start, start + block)
        target = _targets(y[:, columns], piece, places)
        gap = block_gaps(stack, h, target, columns)
        total += (gap.square().sum(2) * weight).sum(1, dtype=torch.float64)
        gap.mul_(factor)
        slope.baddbmm_(gap, matrix[:, columns])
        bias_slope[:, columns] = gap.sum(1)
        _update(stack, at, matrix[:, columns], gap.transpose(1, 2) @ h, step, columns=columns)
    _update(stack, len(stack.heads.tensors) - 1, bias, bias_slope, step)
    if hidden.requires_grad:
        hidden.backward(slope)
    for k, tensor in enumerate(stack.heads.tensors):
        if tensor.grad is not None:
            _update(stack, k, tensor.detach(), tensor.grad, step)
            tensor.grad = None
    return total / n_out


def _targets(y: Tensor, piece: Piece, places: Tensor) -> Tensor:
    """Targets of every head's rows, (n_heads, n_taken, n_columns).

    Rows are selected twice: indexing by `places` takes five times as long.
    """
    chosen = y.index_select(0, piece.rows).index_select(0, places.flatten())
    return chosen.view(*places.shape, y.shape[1])


def block_width(hidden: Tensor, n_out: int) -> int:
    """Targets a block, so that the predictions of all heads stay in the cache."""
    most = BLOCK_BYTES if hidden.device.type == "cpu" else GPU_BLOCK_BYTES
    width = most // (4 * hidden.shape[0] * hidden.shape[1])
    return min(n_out, max(64, width // 64 * 64))


def block_gaps(stack: Stack, hidden: Tensor, target: Tensor, columns: slice) -> Tensor:
    """Standardised predictions minus targets of some columns, (n_heads, n_rows, n_columns).

    `target` is overwritten.
    """
    if stack.mean_y is not None and stack.scale_y is not None:
        target.sub_(stack.mean_y[:, None, columns]).div_(stack.scale_y[:, None, None])
    matrix, bias = stack.heads.matrices[-1].detach(), stack.heads.biases[-1].detach()
    return torch.baddbmm(bias[:, None, columns], hidden, matrix[:, columns].transpose(1, 2)).sub_(
        target
    )


def _update(
    stack: Stack, k: int, tensor: Tensor, slope: Tensor, step: int, *, columns: slice | None = None
) -> None:
    """AdamW on the k-th tensor, or on some columns of targets of it; no decay of biases."""
    first, second = stack.moments[k]
    if columns is not None:
        first, second = first[:, columns], second[:, columns]
    adamw(
        list(tensor.unbind(0)),
        list(slope.unbind(0)),
        list(first.unbind(0)),
        list(second.unbind(0)),
        [],
        list(torch.full((len(tensor),), step - 1.0, device=tensor.device).unbind(0)),
        fused=True,
        amsgrad=False,
        beta1=0.9,
        beta2=0.999,
        lr=stack.config.lr,
        weight_decay=stack.config.weight_decay if tensor.ndim > 2 else 0.0,
        eps=1e-8,
        maximize=False,
    )


@torch.no_grad()
def validation_losses(stack: Stack, piece: Piece, y: Tensor) -> Tensor:
    """Weighted sum of each head's losses over a piece of validation rows, (n_heads,) float64."""
    places, weight = piece.places[stack.mask_of], piece.weight[stack.mask_of]
    hidden = stack.heads.hidden(stack.inputs(piece.rows[places]))
    if stack.kind != "regression":
        target = y[piece.rows[places]]
        output = stack.heads.output(hidden)
        losses = stacked_loss(stack.kind, output, target, stack.class_weight)
        return (losses * weight).sum(1, dtype=torch.float64)
    n_out = stack.heads.biases[-1].shape[1]
    total = torch.zeros(len(hidden), dtype=torch.float64, device=hidden.device)
    for start in range(0, n_out, block := block_width(hidden, n_out)):
        columns = slice(start, start + block)
        target = _targets(y[:, columns], piece, places)
        gap = block_gaps(stack, hidden, target, columns)
        total += (gap.square_().sum(2) * weight).sum(1, dtype=torch.float64)
    return total / n_out
