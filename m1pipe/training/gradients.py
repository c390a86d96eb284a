"""The gradient of one batch: taken in parts, added up, and shared by the processes."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m1pipe.models.kernels import gradient_norm
from m1pipe.models.vae import PosteriorNoise
from m1pipe.training.distributed import World, row_parts, unshared
from m1pipe.training.precision import autocast


@dataclass(frozen=True)
class Found:
    """What the forward pass of a batch found, where it was computed: nothing of it is read.

    Attributes
    ----------
    names : tuple of str
        Terms of the objective.
    sums : Tensor of float64, shape (n_terms + 1,)
        Over the rows of all processes: each term, then how many processes are asked to stop.
    loss : Tensor, shape (n_own_rows,)
        Of each row at hand.
    """

    names: tuple[str, ...]
    sums: Tensor
    loss: Tensor

    @property
    def loss_sum(self) -> Tensor:
        """What is minimised, summed over the rows of all processes, shape ()."""
        return self.sums[self.names.index("loss")]


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
    noise: PosteriorNoise,
    precision: str,
    most: int | None,
    stop: bool,
) -> Found:
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
    noise : PosteriorNoise
        With the place of these rows in the whole batch.
    precision : {"fp32", "bf16"}
    most : int or None
        Rows taken at once.
    stop : bool
        Whether this process is asked to stop.

    Returns
    -------
    Found
    """
    assert noise.part is not None and noise.generator is not None
    (first, n_total), generator = noise.part, noise.generator
    parts, found = row_parts(batch, most), []
    begun = generator.get_state() if len(parts) > 1 else None
    for i, part in enumerate(parts, start=1):
        if begun is not None:
            generator.set_state(begun)
        with nullcontext() if i == len(parts) else unshared(losses):
            with autocast(precision, generator.device):
                terms = losses(part, beta, PosteriorNoise(generator, (first, n_total)))
            loss = terms["loss"]
            loss.backward(torch.full_like(loss, world.size / n_total))
        first += len(part[-1])
        found.append(summed(terms, stop=stop and i == 1))
    whole = found[0]
    for more in found[1:]:
        whole = replace(whole, sums=whole.sums + more.sums, loss=torch.cat([whole.loss, more.loss]))
    return replace(whole, sums=world.total(whole.sums))


def summed(terms: Mapping[str, Tensor], *, stop: bool) -> Found:
    """Terms of a batch, each of shape (n_rows,), summed over the rows."""
    sums = torch.stack([values.detach() for values in terms.values()]).sum(1, dtype=torch.float64)
    return Found(tuple(terms), F.pad(sums, (0, 1), value=float(stop)), terms["loss"].detach())


def clip_gradient(parameters: Sequence[Tensor], most: float) -> Tensor:
    """Norm of the gradient, which is then clipped to `most`; left alone where that is 0."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = gradient_norm(gradients)
    if most:
        nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return norm
