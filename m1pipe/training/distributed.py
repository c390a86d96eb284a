"""Distributed training: several processes at one model, and how a batch and sums are shared.

`torchrun` starts the processes and tells them of one another by environment variables. Every
process takes its rows of each batch, gradients are averaged over the rows of all, and the result
is that of one process up to rounding, whatever the number of processes is.
"""

import atexit
import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from m1pipe.console import log
from m1pipe.errors import PeerLostError
from m1pipe.models.mlp import BatchNorm
from m1pipe.models.vae import PosteriorNoise

T = TypeVar("T")
WAIT = timedelta(minutes=30)
LOST = ("connection closed", "connection reset", "broken pipe", "timed out", "nccl", "gloo")


@dataclass(frozen=True)
class Workers:
    """The processes that train together.

    Attributes
    ----------
    rank : int
        Of this process, from 0; the first writes files and speaks.
    size : int
        Number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def broadcast(self, decide: Callable[[], T]) -> T:
        """What the first process decides, in all of them; plain values only."""
        if self.size == 1:
            return decide()
        box: list[Any] = [decide() if self.leads else None]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def total(self, values: Tensor) -> Tensor:
        """Sum of each value over the processes, in place, the same bits in all of them."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def align_buffers(self, module: nn.Module) -> None:
        """Give every process the running means of the first."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)


ALONE = Workers()


@contextmanager
def joined(device: torch.device) -> Iterator[Workers]:
    """Meet the processes that were launched with this one; alone where there was no launcher.

    They stay joined until the process ends, because they cannot meet twice.

    Raises
    ------
    PeerLostError
        If another process ends in the block; its own message says why.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=WAIT)
        atexit.register(dist.destroy_process_group)
    workers = ALONE
    if dist.is_available() and dist.is_initialized():
        workers = Workers(dist.get_rank(), dist.get_world_size())
    with peers_present(workers):
        yield workers


@contextmanager
def peers_present(workers: Workers) -> Iterator[None]:
    """Tell in a line, and not by a traceback, of another process that ended in the block.

    Raises
    ------
    PeerLostError
        If it did; its own message says why.
    """
    try:
        yield
    except RuntimeError as error:
        if workers.size > 1 and any(word in str(error).lower() for word in LOST):
            raise PeerLostError(
                f"process {workers.rank} of {workers.size}: another process of this run has ended; "
                "its own message says why"
            ) from None
        raise


Objective = Callable[[nn.Module, tuple[Tensor, ...], float, PosteriorNoise], dict[str, Tensor]]


class Losses(nn.Module):
    """An objective as a module, so that the gradients of its parameters can be shared."""

    def __init__(self, module: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.module = module
        self.objective = objective

    def forward(
        self, batch: tuple[Tensor, ...], beta: float, noise: PosteriorNoise
    ) -> dict[str, Tensor]:
        """Terms of the loss, each of shape (n_samples,)."""
        return self.objective(self.module, batch, beta, noise)


def share_gradients(losses: Losses, workers: Workers, *, some_unused: bool) -> nn.Module:
    """The losses with their gradients averaged over the processes after each backward pass.

    Parameters
    ----------
    losses : Losses
        Its weights become those of the first process.
    workers : Workers
    some_unused : bool
        Some parameters may get no gradient, such as those of the noise at beta = 0.
    """
    if workers.size == 1:
        return losses
    device = next(losses.parameters()).device
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(losses, device_ids=ids, find_unused_parameters=some_unused)


def unshared(losses: nn.Module) -> AbstractContextManager[Any]:
    """A block whose gradients are added up in this process alone."""
    return losses.no_sync() if isinstance(losses, DistributedDataParallel) else nullcontext()


@contextmanager
def common_batch_norm(module: nn.Module, workers: Workers) -> Iterator[None]:
    """Normalise over the rows of all processes in a block, where the device can; say which."""
    parents = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if isinstance(child, BatchNorm)
    ]
    if workers.size == 1 or not parents:
        yield
        return
    on_gpu = next(module.parameters()).device.type == "cuda"
    if workers.leads:
        how = "all processes" if on_gpu else "each process (of all on GPUs only)"
        log.info("batch norm over the rows of %s", how)
    if not on_gpu:
        yield
        return
    for parent, name, child in parents:
        setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
    try:
        yield
    finally:
        for parent, name, child in parents:
            setattr(parent, name, child)


@dataclass(frozen=True)
class BatchTerms:
    """Terms of the objective over a batch, left where they were computed: nothing is read.

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


def sum_terms(terms: dict[str, Tensor], *, stop: bool = False) -> BatchTerms:
    """Terms of a batch, each of shape (n_rows,), summed over the rows."""
    sums = torch.stack([values.detach() for values in terms.values()]).sum(1, dtype=torch.float64)
    return BatchTerms(tuple(terms), F.pad(sums, (0, 1), value=float(stop)), terms["loss"].detach())


def place_in_batch(
    n_own: int, workers: Workers, *, n_rows: int, batch_size: int, step: int
) -> tuple[int, int]:
    """First row at hand, and number of rows, of a batch that processes share.

    Parameters
    ----------
    n_own : int
        Rows of this process.
    workers : Workers
    n_rows, batch_size : int
        Rows an epoch; rows a full batch.
    step : int
        Number of the batch, from 0.
    """
    if workers.size == 1:
        return 0, n_own
    n_total = min(batch_size, n_rows - step * batch_size)
    return n_total * workers.rank // workers.size, n_total


def row_parts(batch: tuple[Tensor, ...], most: int | None) -> list[tuple[Tensor, ...]]:
    """A batch in parts of at most so many rows; a batch without rows is one part.

    Parameters
    ----------
    batch : tuple of Tensor, each of shape (n_rows, ...)
    most : int or None
        None: the batch as it is.
    """
    n = len(batch[-1])
    if most is None or n <= most:
        return [batch]
    sizes = [len(part) for part in torch.arange(n).tensor_split(math.ceil(n / most))]
    return list(zip(*(tensor.split(sizes) for tensor in batch), strict=True))
