"""The gradient of one batch: taken in parts, added up, and shared by the processes."""

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from m1pipe.training.distributed import Draw, World, row_parts, unshared
from m1pipe.training.precision import autocast

ROWS, STOP = "rows", "stop"


def place_in_batch(
    n_own: int, world: World, *, n_rows: int, batch_size: int, step: int
) -> tuple[int, int]:
    """First row at hand, and number of rows, of a batch that processes share.

    Parameters
    ----------
    n_own : int
        Rows of this process.
    world : World
    n_rows, batch_size : int
        Rows an epoch; rows a full batch.
    step : int
        Number of the batch, from 0.
    """
    if world.size == 1:
        return 0, n_own
    n_total = min(batch_size, n_rows - step * batch_size)
    return n_total * world.rank // world.size, n_total


def add_gradient(
    losses: nn.Module,
    batch: tuple[Tensor, ...],
    world: World,
    *,
    beta: float,
    draw: Draw,
    precision: str,
    most: int | None,
    stop: bool,
) -> tuple[dict[str, float], Tensor]:
    """Gradient of the mean loss over the batch of all processes, added up part by part.

    Parameters
    ----------
    losses : module
        From `share_gradients`.
    batch : tuple of Tensor
        This process's rows, perhaps none.
    world : World
    beta : float
        Weight of the KL divergence.
    draw : Draw
        With the place of these rows in the whole batch.
    precision : {"fp32", "bf16"}
    most : int or None
        Rows taken at once.
    stop : bool
        Whether this process is asked to stop.

    Returns
    -------
    sums : dict
        Over the rows of all processes: each term; "rows", their number; "stop", above 0 where any
        process is asked to stop.
    loss : Tensor, shape (n_own_rows,)
    """
    assert draw.part is not None
    (first, n_total), device = draw.part, draw.generator.device
    parts, found = row_parts(batch, most), []
    begun = draw.generator.get_state() if len(parts) > 1 else None
    sums = {ROWS: float(len(batch[-1])), STOP: float(stop)}
    for i, part in enumerate(parts, start=1):
        if begun is not None:
            draw.generator.set_state(begun)
        with nullcontext() if i == len(parts) else unshared(losses):
            with autocast(precision, device):
                terms = losses(part, beta, Draw(draw.generator, (first, n_total)))
            (terms["loss"].sum() * (world.size / n_total)).backward()
        first += len(part[-1])
        sums = added(sums, row_sums(terms))
        found.append(terms["loss"].detach())
    return world.total(sums, device), torch.cat(found)


def clip_gradient(module: nn.Module, most: float) -> float:
    """Norm of a module's gradient, which is then clipped to `most`; left alone where that is 0."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if most:
        nn.utils.clip_grads_with_norm_(module.parameters(), most, norm)
    return float(norm)


def row_sums(terms: Mapping[str, Tensor]) -> dict[str, float]:
    """Sum of each term over the rows, in float64."""
    return {name: float(values.detach().sum(dtype=torch.float64)) for name, values in terms.items()}


def added(totals: Mapping[str, float], more: Mapping[str, float]) -> dict[str, float]:
    """Sums of both, entry by entry."""
    return {name: totals.get(name, 0.0) + more.get(name, 0.0) for name in {**totals, **more}}
