"""Hidden parts of one shape trained together: their inputs, steps and held-out losses.

Each stands beside a linear part that is not trained. For levels the output layer is gone through by
blocks of targets, and in a block network by network: predictions, gradient and update of a block
are done before the next is touched, so that no gradient of the whole layer and no matrix of
predictions ever exists, and the weights travel through the cache once a step.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m1pipe import seeds
from m1pipe.config import HeadConfig
from m1pipe.heads.inner_folds import missed_share
from m1pipe.models.heads import Head, StackedHeads, head_loss, likeliest_other
from m1pipe.models.kernels import fused_adamw

BLOCK_BYTES = 2**20  # of a network's predictions on the CPU
GPU_BLOCK_BYTES = 2**28


@dataclass(frozen=True, eq=False)
class Base:
    """The part of a prediction that is not trained: linear in the inputs and in own genes.

    Attributes
    ----------
    weight : Tensor, shape (n_outputs, n_inputs)
    bias : Tensor, shape (n_outputs,)
    own : Tensor, shape (n_known, n_own), or None
        Standardised levels of the targets' own genes.
    column : Tensor of int64, shape (n_outputs,), or None
        Column of `own` of each target; any where its slope is 0.
    slope : Tensor, shape (n_outputs,), or None
    """

    weight: Tensor
    bias: Tensor
    own: Tensor | None = None
    column: Tensor | None = None
    slope: Tensor | None = None


@dataclass(eq=False)
class Network:
    """One hidden part to be trained, the rows it knows, and how its training went.

    Attributes
    ----------
    module : Head
        Without a linear part; where it starts, and, once trained, where it ended.
    x : Tensor, shape (n_known, n_inputs)
        Inputs of the rows that it knows.
    places : Tensor of int64, shape (n_known,)
        Where these stand among the targets.
    rows, held_out : ndarray of int
        Which of the known rows are trained on, and which are not.
    base : Base or None
        None: nothing stands beside the network.
    scale : float
        Of levels: what the network puts out is in these units.
    class_weight : Tensor or None
        For `m1pipe.models.heads.head_loss`.
    seed : int
        Of what dropout leaves out.
    n_judged : int
        Rows of all inner folds together, by which it is judged.
    job : hashable
        Networks of an equal one stop together.
    epochs : int
        Most of them; at least 1.
    losses : list of float
        Mean loss of the training rows, an epoch.
    held_out_losses : list of ndarray, each of shape (n_held_out,)
        Loss of every held-out row, before the first step and after every epoch.
    seconds : float
        An equal share of what its epochs took.
    """

    module: Head
    x: Tensor
    places: Tensor
    rows: np.ndarray
    held_out: np.ndarray
    base: Base | None
    scale: float
    class_weight: Tensor | None
    seed: int = 0
    n_judged: int = 0
    job: Any = None
    epochs: int = 1
    losses: list[float] = field(default_factory=list)
    held_out_losses: list[np.ndarray] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(eq=False)
class NetworkStack:
    """Networks of equal shape and number of steps, with what these need.

    Attributes
    ----------
    heads : StackedHeads
    networks : list of Network
    kind : str
        Kind of target.
    config : HeadConfig
    class_weight : Tensor or None
        Of every network, stacked.
    moments : list of pair of Tensor
        Of Adam, for every tensor of the heads.
    n_steps : int
        Of an epoch.
    step : int
        Steps that were begun, in all.
    """

    heads: StackedHeads
    networks: list[Network]
    kind: str
    config: HeadConfig
    class_weight: Tensor | None
    moments: list[tuple[Tensor, Tensor]]
    n_steps: int
    step: int = 0

    def inputs(self, rows: Tensor) -> Tensor:
        """Inputs, (n_heads, n_rows, n_in), of known rows, (n_heads, n_rows)."""
        parts, start = [], 0
        for k in range(1, len(self.networks) + 1):  # networks of one X are read at once
            if k == len(self.networks) or self.networks[k].x is not self.networks[start].x:
                parts.append(self.networks[start].x[rows[start:k]])
                start = k
        return torch.cat(parts)

    def targets(self, rows: Tensor) -> Tensor:
        """Places among the targets, (n_heads, n_rows), of known rows."""
        return torch.stack([n.places[own] for n, own in zip(self.networks, rows, strict=True)])

    def keep(self, heads: Sequence[int]) -> None:
        """Go on with these networks only."""
        chosen = torch.tensor(heads, dtype=torch.int64, device=self.heads.biases[0].device)
        self.heads.keep(chosen)
        self.networks = [self.networks[k] for k in heads]
        self.class_weight = None if self.class_weight is None else self.class_weight[chosen]
        self.moments = [(m[chosen], v[chosen]) for m, v in self.moments]


def make_stack(
    networks: Sequence[Network], kind: str, config: HeadConfig, n_steps: int
) -> NetworkStack:
    """Put untrained networks of one shape together.

    Parameters
    ----------
    networks : sequence of Network
    kind : str
        Kind of target.
    config : HeadConfig
        Rates and dropout of all.
    n_steps : int
        Of an epoch.
    """
    heads = StackedHeads([network.module for network in networks])
    weights = [n.class_weight for n in networks if n.class_weight is not None]
    return NetworkStack(
        heads=heads,
        networks=list(networks),
        kind=kind,
        config=config,
        class_weight=torch.stack(weights) if weights else None,
        moments=[(torch.zeros_like(t), torch.zeros_like(t)) for t in heads.tensors],
        n_steps=n_steps,
    )


@dataclass(frozen=True, eq=False)
class Batch:
    """Known rows of every network, and the weight of each.

    Attributes
    ----------
    rows : Tensor of int64, shape (n_heads, n_rows)
        Filled up with the first to the longest.
    weight : Tensor, shape (n_heads, n_rows)
        1 over the number of rows of the network; 0 where filled up.
    """

    rows: Tensor
    weight: Tensor


def make_batch(rows: Sequence[np.ndarray], device: torch.device) -> Batch:
    """Rows of networks side by side.

    Parameters
    ----------
    rows : sequence of ndarray of int
        Of every network; none is empty.
    device : torch.device
    """
    sizes = np.array([own.size for own in rows])
    places = np.zeros((len(rows), sizes.max()), dtype=np.int64)
    for k, own in enumerate(rows):
        places[k, : own.size] = own
    inside = np.arange(sizes.max()) < sizes[:, None]
    weight = (inside / sizes[:, None]).astype(np.float32)
    return Batch(torch.from_numpy(places).to(device), torch.from_numpy(weight).to(device))


def train_step(stack: NetworkStack, batch: Batch, y: Tensor) -> Tensor:
    """One descent step of every network.

    Parameters
    ----------
    stack : NetworkStack
    batch : Batch
    y : Tensor, shape (n,) or (n, n_outputs)
        All targets.

    Returns
    -------
    Tensor of float64, shape (n_heads,)
        Mean loss of each network's rows before the step.
    """
    stack.step += 1
    x = stack.inputs(batch.rows)
    hidden = stack.heads.hidden(x, _dropout(stack))
    if stack.kind == "regression":
        return _step_by_blocks(stack, batch, x, hidden, y)
    output = stack.heads.output(hidden) + _base_logits(stack, x)
    target = y[stack.targets(batch.rows)]
    losses = head_loss(stack.kind, output, target, stack.class_weight) * batch.weight
    losses.sum().backward()
    _update_all(stack)
    return losses.detach().sum(1, dtype=torch.float64)


@torch.no_grad()
def held_out_losses(stack: NetworkStack, batch: Batch, y: Tensor) -> Tensor:
    """Loss of every row of a batch, shape (n_heads, n_rows); 0 where it is filled up.

    Of levels the mean over targets of squared errors in the networks' units. Of classes with
    `missed_share` of the likeliest other class, as the linear part's penalty is chosen.
    """
    x = stack.inputs(batch.rows)
    hidden = stack.heads.hidden(x)
    inside = batch.weight > 0
    if stack.kind != "regression":
        output = stack.heads.output(hidden) + _base_logits(stack, x)
        target = y[stack.targets(batch.rows)]
        loss = head_loss(stack.kind, output, target, stack.class_weight)
        other = likeliest_other(stack.kind, output, target)
        missed = head_loss(stack.kind, output, other, stack.class_weight)
        shares = [missed_share(network.n_judged) for network in stack.networks]
        share = loss.new_tensor(shares)[:, None]
        return (loss + share * (missed - loss)) * inside
    total = torch.zeros_like(batch.weight)
    for k, _, gap in _gaps(stack, batch.rows, x, hidden, y):
        _add_squares(total[k], gap)
    return total * inside / y.shape[1]


def _base_logits(stack: NetworkStack, x: Tensor) -> Tensor | float:
    """Logits of the parts that are not trained, (n_heads, n_rows, n_out)."""
    bases = [network.base for network in stack.networks]
    if bases[0] is None:
        return 0.0
    weight = torch.stack([base.weight for base in bases if base is not None])
    bias = torch.stack([base.bias for base in bases if base is not None])
    return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))


def _dropout(stack: NetworkStack) -> Callable[[Tensor], Tensor] | None:
    """What leaves hidden units out, the same for a network whatever it is trained with."""
    p = stack.config.dropout
    if p == 0:
        return None
    drawn_from = [seeds.derived(n.seed, stack.step) for n in stack.networks]
    generators = [torch.Generator().manual_seed(seed) for seed in drawn_from]

    def keep(h: Tensor) -> Tensor:
        width, n_rows = h.shape[1:]
        drawn = torch.stack([torch.rand(n_rows, width, generator=g) for g in generators])
        return h * (drawn >= p).transpose(1, 2).to(h.device) / (1 - p)

    return keep


def _step_by_blocks(
    stack: NetworkStack, batch: Batch, x: Tensor, hidden: Tensor, y: Tensor
) -> Tensor:
    """As `train_step`, for levels: the output layer by blocks of targets."""
    h = hidden.detach()
    matrix, bias = stack.heads.matrices[-1].detach(), stack.heads.biases[-1].detach()
    slope, bias_slope = torch.zeros_like(h), torch.empty_like(bias)
    total = torch.zeros_like(batch.weight)
    factor = (batch.weight * (2 / matrix.shape[1]))[:, :, None]
    moving = (matrix, *stack.moments[len(stack.heads.matrices) - 1])
    layers = list(zip(*(tensor.unbind(0) for tensor in moving), strict=True))
    for k, columns, gap in _gaps(stack, batch.rows, x, h, y):
        own, first, second = (tensor[columns] for tensor in layers[k])
        _add_squares(total[k], gap)
        gap.mul_(factor[k])
        slope[k].addmm_(gap, own)
        torch.sum(gap, 0, out=bias_slope[k, columns])
        _adamw(own, gap.t() @ h[k], (first, second), stack)
    _update(stack, len(stack.heads.tensors) - 1, bias, bias_slope)
    if hidden.requires_grad:
        hidden.backward(slope)
    _update_all(stack)
    return (total * batch.weight).sum(1, dtype=torch.float64) / matrix.shape[1]


def target_blocks(hidden: Tensor, n_out: int) -> list[slice]:
    """Blocks of targets, so that a network's predictions of one stay in the cache."""
    most = BLOCK_BYTES if hidden.device.type == "cpu" else GPU_BLOCK_BYTES
    width = max(64, most // (4 * hidden.shape[1]) // 64 * 64)
    return [slice(start, start + width) for start in range(0, n_out, width)]


def _gaps(
    stack: NetworkStack, rows: Tensor, x: Tensor, hidden: Tensor, y: Tensor
) -> Iterator[tuple[int, slice, Tensor]]:
    """Predictions minus targets in the networks' units, block by block and network by network."""
    matrices, biases = stack.heads.matrices[-1].detach(), stack.heads.biases[-1].detach()
    places = stack.targets(rows)
    for columns in target_blocks(hidden, y.shape[1]):
        levels = y[:, columns]
        for k, network in enumerate(stack.networks):
            gap = levels.index_select(0, places[k])
            _take_base(gap, network.base, x[k], rows[k], columns)
            gap.sub_(biases[k, columns], alpha=network.scale)
            yield (
                k,
                columns,
                gap.addmm_(hidden[k], matrices[k, columns].t(), beta=-1 / network.scale),
            )


def _take_base(gap: Tensor, base: Base | None, x: Tensor, rows: Tensor, columns: slice) -> None:
    """Take the part that is not trained off some levels, in place."""
    if base is None:
        return
    gap.sub_(base.bias[columns])
    if x.shape[1]:
        gap.addmm_(x, base.weight[columns].t(), alpha=-1)
    if base.own is not None and base.column is not None and base.slope is not None:
        own = base.own.index_select(0, rows).index_select(1, base.column[columns])
        gap.addcmul_(own, base.slope[columns].expand_as(own), value=-1)


def _add_squares(total: Tensor, gap: Tensor) -> None:
    """Add the sum of each row's squares, (n_rows, n_columns) -> (n_rows,), in place."""
    norm = torch.linalg.vector_norm(gap, dim=1)
    total.addcmul_(norm, norm)


def _update_all(stack: NetworkStack) -> None:
    """AdamW on the tensors that have a gradient, which is then dropped."""
    for k, tensor in enumerate(stack.heads.tensors):
        if tensor.grad is not None:
            _update(stack, k, tensor.detach(), tensor.grad)
            tensor.grad = None


def _update(stack: NetworkStack, k: int, tensor: Tensor, slope: Tensor) -> None:
    """AdamW on the k-th tensor of all networks."""
    _adamw(tensor, slope, stack.moments[k], stack, is_matrix=tensor.ndim > 2)


def _adamw(
    tensor: Tensor,
    slope: Tensor,
    moments: tuple[Tensor, Tensor],
    stack: NetworkStack,
    *,
    is_matrix: bool = True,
) -> None:
    """AdamW on a tensor with its gradient and two moments; no decay of biases."""
    done = torch.full((), float(stack.step), device=tensor.device)
    decay, lr = stack.config.weight_decay if is_matrix else 0.0, stack.config.lr
    first, second = moments
    fused_adamw([tensor], [slope], ([first], [second]), [done], lr=lr, weight_decay=decay)
