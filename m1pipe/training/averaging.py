"""Running averages of a module's weights: what is validated and kept in place of the last step's.

An exponential average over the steps, as in Polyak & Juditsky 1992 (SIAM J. Control Optim.
30:838), with a short memory at first so that the start is soon forgotten.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

HALF_LIFE_STEPS = 10


def _moving(module: nn.Module) -> dict[str, Tensor]:
    """What changes in training: trained parameters, and buffers such as running means."""
    trained = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
    return trained | dict(module.named_buffers())


def start_average(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the values that training changes, by their name in the module."""
    return {name: value.clone() for name, value in _moving(module).items()}


def update_average(
    average: dict[str, Tensor], module: nn.Module, *, decay: float, n_steps: int
) -> None:
    """Take the module's values after `n_steps` steps into the average, in place.

    Parameters
    ----------
    average : dict of Tensor
        From `start_average`. Counters, being no floating-point numbers, are copied.
    module : nn.Module
    decay : float
        Share of the old average that stays; less in the first steps.
    n_steps : int
        Steps that were taken, this one included.
    """
    share = 1 - min(decay, n_steps / (n_steps + HALF_LIFE_STEPS))
    for name, value in _moving(module).items():
        if value.is_floating_point():
            average[name].lerp_(value, share)
        else:
            average[name].copy_(value)


def load_average(module: nn.Module, average: dict[str, Tensor]) -> None:
    """Put averages into the module."""
    for name, value in _moving(module).items():
        value.copy_(average[name])


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
