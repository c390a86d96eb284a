"""Running averages of a module's weights: what is validated and kept in place of the last step's.

An exponential average over the steps, as in Polyak & Juditsky 1992 (SIAM J. Control Optim.
30:838), with a short memory at first so that the start is soon forgotten.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

HALF_LIFE_STEPS = 10


def moving_values(module: nn.Module) -> dict[str, Tensor]:
    """What changes in training, by name: trained parameters, and buffers such as running means.

    The tensors are the module's own, so that one look at a module serves all its steps, also where
    they are made to look elsewhere by their `data`.
    """
    trained: dict[str, Tensor] = {n: p for n, p in module.named_parameters() if p.requires_grad}
    return trained | dict(module.named_buffers())


def start_average(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the values that training changes, by their name in the module."""
    return {name: value.detach().clone() for name, value in moving_values(module).items()}


def update_average(
    average: dict[str, Tensor], values: dict[str, Tensor], *, decay: float, n_steps: int
) -> None:
    """Take a module's values after `n_steps` steps into the average, in place.

    Parameters
    ----------
    average : dict of Tensor
        From `start_average`. Counters, being no floating-point numbers, are copied.
    values : dict of Tensor
        From `moving_values`.
    decay : float
        Share of the old average that stays; less in the first steps.
    n_steps : int
        Steps that were taken, this one included.
    """
    share = 1 - min(decay, n_steps / (n_steps + HALF_LIFE_STEPS))
    for name, value in values.items():
        if value.is_floating_point():
            average[name].lerp_(value.detach(), share)
        else:
            average[name].copy_(value)


def load_average(module: nn.Module, average: dict[str, Tensor]) -> None:
    """Put averages into the module."""
    for name, value in moving_values(module).items():
        value.detach().copy_(average[name])


@contextmanager
def averaged(module: nn.Module, average: dict[str, Tensor] | None) -> Iterator[None]:
    """Averages in the module for a block, and its own values after it.

    Where the block raises, what it left in the module stays: it has put the best weights there.
    """
    if average is None:
        yield
        return
    with torch.no_grad():
        own = start_average(module)
        load_average(module, average)
        yield
        load_average(module, own)
