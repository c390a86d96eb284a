"""Several encoders of one shape on the same rows, trained in one pass, each as it would be alone.

Every one keeps its own order of rows, noise, rates, average, patience and best weights; the
gradients of all are taken as one, each layer of all of them a batched product.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from m1pipe.config import EncoderConfig
from m1pipe.encoder.plan import TrainingPlan
from m1pipe.encoder.prepare import Prepared, prepare
from m1pipe.encoder.train import finish, loop_of, train_planned
from m1pipe.encoder.trained import Encoder
from m1pipe.errors import InputError
from m1pipe.models.kernels import float32_products
from m1pipe.models.vae import PosteriorNoise
from m1pipe.training.batches import Batch, ResidentFeed
from m1pipe.training.device import resolve_device, resolve_precision, seeded
from m1pipe.training.distributed import Losses, sum_terms
from m1pipe.training.history import History
from m1pipe.training.loop import Loop, close, close_epoch, start, take_step

# What trials of one pass may differ in.
FREE = ("lr", "weight_decay", "schedule", "plateau_factor", "plateau_patience", "clip", "ema",
        "patience", "seed")  # fmt: skip
# Losses of a module without values; parameters and buffers, each of shape (n_modules, ...).
Stack = tuple[Losses, dict[str, Tensor], dict[str, Tensor]]


def pass_of(config: EncoderConfig) -> EncoderConfig | None:
    """What encoders of one pass have in common; None for one that is trained alone.

    Parameters
    ----------
    config : EncoderConfig
        Of the same rows.

    Returns
    -------
    EncoderConfig or None
        Equal for encoders that differ in `FREE` or in a KL weight above 0 alone. Models
        with dropout, classes or likelihoods other than the Gaussian are trained alone: what they
        draw or look up cannot be stacked.
    """
    model, training = config.model, config.training
    alone = (
        model.dropout > 0
        or model.condition is not None
        or model.batch
        or not model.likelihood.startswith("gaussian")
        or training.micro_batch is not None
    )
    if alone:
        return None
    blank = type(training)()
    same = {name: getattr(blank, name) for name in FREE}
    return replace(
        config, model=replace(model, beta=float(model.beta > 0)), training=replace(training, **same)
    )


def train_together(plans: Sequence[TrainingPlan]) -> list[Encoder | InputError]:
    """Train encoders of one pass, equal to rounding to those that are trained one by one.

    Parameters
    ----------
    plans : sequence of TrainingPlan
        On the same rows, with equal `pass_of`.

    Returns
    -------
    list of Encoder or InputError
        In the order of the plans; why one could not be trained. One by one where rows are
        streamed or products are not in single precision.
    """
    if len(plans) == 1 or not all(_is_stackable(plan) for plan in plans):
        return [_alone(plan) for plan in plans]
    first = prepare(plans[0])
    several = [first, *(_sharing(prepare(plan), first) for plan in plans[1:])]
    loops = [loop_of(one) for one in several]
    histories = fit_together(loops, first.plan.config.model.n_latent)
    return [
        history if isinstance(history, InputError) else finish(one, history)
        for one, history in zip(several, histories, strict=True)
    ]


def _sharing(one: Prepared, first: Prepared) -> Prepared:
    """The same with the rows of the first, which are equal and on an equal scale."""
    assert isinstance(one.batches, ResidentFeed) and isinstance(first.batches, ResidentFeed)
    return replace(one, batches=replace(one.batches, tensors=first.batches.tensors))


def _is_stackable(plan: TrainingPlan) -> bool:
    """Whether the rows are held in memory and products are in single precision."""
    training = plan.config.training
    dtype = resolve_precision(
        training.precision,
        resolve_device(training.device),
        n_parameters=plan.n_parameters,
        batch_size=training.batch_size,
    )
    return not plan.streams and dtype is torch.float32


def _alone(plan: TrainingPlan) -> Encoder | InputError:
    try:
        return train_planned(plan)
    except InputError as error:
        return error


@float32_products()
def fit_together(loops: Sequence[Loop], n_latent: int) -> list[History | InputError]:
    """Train modules of one shape, with batches of equal sizes, in place.

    Parameters
    ----------
    loops : sequence of Loop
        In single precision and without dropout; their objectives are the same,
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
        _each(loops, range(len(loops)), faults, start)
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
    stack = _stack(own)
    for batches in zip(*(loop.batches.epoch(loop.state.epoch) for loop in own), strict=True):
        begun = time.perf_counter()
        terms = _add_gradients(stack, own, batches, n_latent)
        for i, k in enumerate(running):
            mine = {name: values[i] for name, values in terms.items()}
            step = partial(take_step, found=sum_terms(mine), n_rows=len(batches[i][-1]))
            _each(loops, [k], faults, step)
        elapsed = time.perf_counter() - begun
        for loop in own:
            loop.state.seconds += elapsed / len(own)


def _stack(loops: Sequence[Loop]) -> Stack:
    """Losses of a module without values, and common tensors, which the modules look into."""
    modules = [loop.module for loop in loops]
    parameters, buffers = stack_module_state(modules)
    for k, module in enumerate(modules):
        for name, tensor in parameters.items():
            module.get_parameter(name).data = tensor.data[k]
        for name, tensor in buffers.items():
            module.get_buffer(name).data = tensor.data[k]
    blank = copy.deepcopy(modules[0]).to("meta")
    return Losses(blank, loops[0].objective), parameters, buffers


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
    (blank, stacked, stacked_buffers), n_rows = stack, len(batches[0][-1])
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
        return functional_call(blank, values, ((x,), beta, of_rows))

    drawn = None if noise is None else 0
    mapped = (0, 0, None if shared else 0, drawn, drawn)
    terms = vmap(losses, in_dims=mapped)(stacked, stacked_buffers, x, noise, beta)
    for tensor in stacked.values():
        tensor.grad = None
    (terms["loss"].sum() / n_rows).backward()
    for name, tensor in stacked.items():
        for k, loop in enumerate(loops):
            gradient = None if tensor.grad is None else tensor.grad[k]
            loop.module.get_parameter(name).grad = gradient
    return {name: values.detach() for name, values in terms.items()}
