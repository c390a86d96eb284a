"""Several encoders of one shape trained in one pass, each as it would be alone.

Every one keeps its own order of rows, noise, rates, average, patience and best weights; the
gradients of all are taken as one, each layer of all of them a batched product.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from m1pipe.errors import InputError
from m1pipe.models.kernels import float32_products
from m1pipe.models.vae import PosteriorNoise
from m1pipe.training.device import seeded
from m1pipe.training.distributed import Losses
from m1pipe.training.feed import Batch
from m1pipe.training.gradients import summed
from m1pipe.training.history import History
from m1pipe.training.loop import begin, close, close_epoch, take_step
from m1pipe.training.opened import Loop


@dataclass(frozen=True, eq=False)
class Stack:
    """Modules of one shape, whose parameters and buffers are views of common tensors.

    Attributes
    ----------
    losses : Losses
        A module of the shape, without values.
    parameters, buffers : dict of Tensor, each of shape (n_modules, ...)
    """

    losses: Losses
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]


@float32_products()
def fit_together(loops: Sequence[Loop], n_latent: int) -> list[History | InputError]:
    """Train modules of one shape, with batches of equal sizes, in place.

    Parameters
    ----------
    loops : sequence of Loop
        From `open_loop`, in single precision and without dropout; their objectives are the same,
        and their KL weights are above 0 in the same epochs.
    n_latent : int
        Units that the noise is drawn for.

    Returns
    -------
    list of History or InputError
        As `fit` returns them, equal to rounding; or why one could not be trained.
    """
    faults: dict[int, InputError] = {}
    with seeded(loops[0].config.seed, loops[0].device):
        _each(loops, range(len(loops)), faults, lambda loop: begin(loop, resume=False))
        while running := [
            k for k, loop in enumerate(loops) if k not in faults and not loop.state.finished
        ]:
            _train_epoch(loops, running, faults, n_latent)
            _each(loops, running, faults, close_epoch)
    return [faults[k] if k in faults else close(loop) for k, loop in enumerate(loops)]


def _each(
    loops: Sequence[Loop],
    which: Sequence[int],
    faults: dict[int, InputError],
    act: Callable[[Loop], None],
) -> None:
    """Do something with those that have not failed; a failure is one's own."""
    for k in which:
        if k not in faults:
            try:
                act(loops[k])
            except InputError as error:
                faults[k] = error


def _train_epoch(
    loops: Sequence[Loop], running: Sequence[int], faults: dict[int, InputError], n_latent: int
) -> None:
    """The steps of an epoch of all that are running."""
    own = [loops[k] for k in running]
    for loop in own:
        loop.module.train()
    stack = _stacked(own)
    for batches in zip(*(loop.batches.epoch(loop.state.epoch) for loop in own), strict=True):
        begun = time.perf_counter()
        terms = _add_gradients(stack, own, batches, n_latent)
        for i, k in enumerate(running):
            mine = {name: values[i] for name, values in terms.items()}
            step = partial(_own_step, batch=batches[i], terms=mine)
            _each(loops, [k], faults, step)
        elapsed = time.perf_counter() - begun
        for loop in own:
            loop.state.seconds += elapsed / len(own)


def _own_step(loop: Loop, batch: Batch, terms: dict[str, Tensor]) -> None:
    take_step(loop, summed(terms, stop=False), len(batch[-1]))


def _stacked(loops: Sequence[Loop]) -> Stack:
    """Common tensors of the modules, which from here on look into them."""
    modules = [loop.module for loop in loops]
    parameters, buffers = stack_module_state(modules)
    for k, module in enumerate(modules):
        for name, tensor in parameters.items():
            module.get_parameter(name).data = tensor.data[k]
        for name, tensor in buffers.items():
            module.get_buffer(name).data = tensor.data[k]
    blank = copy.deepcopy(modules[0]).to("meta")
    return Stack(Losses(blank, loops[0].objective), parameters, buffers)


def _beta_and_noise(
    loops: Sequence[Loop], size: tuple[int, int]
) -> tuple[Tensor | float, Tensor | None]:
    """KL weights (n_modules,) and noise (n_modules, *size); 0 and None where no weight is."""
    if loops[0].beta_now == 0:
        return 0.0, None
    device = loops[0].device
    noise = [torch.randn(size, generator=loop.generator, device=device) for loop in loops]
    return torch.tensor([loop.beta_now for loop in loops], device=device), torch.stack(noise)


def _add_gradients(
    stack: Stack, loops: Sequence[Loop], batches: Sequence[Batch], n_latent: int
) -> dict[str, Tensor]:
    """Give every module the gradient of its own mean loss; terms of shape (n_modules, n_rows)."""
    n_rows = len(batches[0][-1])
    beta, noise = _beta_and_noise(loops, (n_rows, n_latent))
    shared = all(torch.equal(batch[-1], batches[0][-1]) for batch in batches)
    x = batches[0][0] if shared else torch.stack([batch[0] for batch in batches])

    def losses(
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        x: Tensor,
        noise: Tensor | None,
        beta: Tensor | float,
    ) -> dict[str, Tensor]:
        values = {f"module.{name}": value for name, value in (parameters | buffers).items()}
        of_rows = PosteriorNoise(loops[0].generator, (0, n_rows), noise)
        found: dict[str, Tensor] = functional_call(stack.losses, values, ((x,), beta, of_rows))
        return found

    drawn = None if noise is None else 0
    mapped = (0, 0, None if shared else 0, drawn, drawn)
    terms = vmap(losses, in_dims=mapped)(stack.parameters, stack.buffers, x, noise, beta)
    for tensor in stack.parameters.values():
        tensor.grad = None
    (terms["loss"].sum() / n_rows).backward()
    for name, tensor in stack.parameters.items():
        for k, loop in enumerate(loops):
            gradient = None if tensor.grad is None else tensor.grad[k]
            loop.module.get_parameter(name).grad = gradient
    return {name: values.detach() for name, values in terms.items()}
