"""One model on its way through its batches: its steps, its validation, the end of an epoch."""

import math
import time
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from m1pipe.artefacts import reading
from m1pipe.errors import InputError
from m1pipe.models.mlp import evaluating
from m1pipe.models.vae import PosteriorNoise
from m1pipe.training.adamw import adamw_step
from m1pipe.training.averaging import (
    averaged,
    load_average,
    start_average,
    update_average,
)
from m1pipe.training.best import judge, ran_out
from m1pipe.training.checkpoint import load_checkpoint, save_checkpoint
from m1pipe.training.device import make_generator, resolve_precision
from m1pipe.training.feed import Batch, Batches
from m1pipe.training.gradients import (
    Found,
    add_gradient,
    clip_gradient,
    place_in_batch,
    summed,
)
from m1pipe.training.history import History
from m1pipe.training.opened import Loop, Unread
from m1pipe.training.precision import autocast, judge_bf16
from m1pipe.training.schedule import cosine_factor
from m1pipe.training.state import pack_state, result_settings, unpack_state


def close(loop: Loop) -> History:
    """Leave the module, in evaluation mode, at its best weights."""
    if loop.state.average is not None:
        load_average(loop.module, loop.state.average)
    _restore_best(loop)
    loop.module.eval()
    return loop.state.history()


def _settings(loop: Loop) -> dict[str, Any]:
    """What must be the same for a run to be resumed."""
    n_validation = loop.validation.n_rows if loop.validation else 0
    rows = {"training rows": loop.batches.n_rows, "validation rows": n_validation}
    return {**result_settings(loop.config), "epochs": loop.n_epochs, "beta": loop.beta, **rows}


def begin(loop: Loop, resume: bool) -> None:
    """Start at the checkpoint or at the beginning, where the precision is decided."""
    loop.saved_at = time.monotonic()
    if resume:
        if loop.checkpoint is None:
            raise ValueError("resume needs the path of a checkpoint")
        packed = load_checkpoint(loop.checkpoint)
        with reading(loop.checkpoint, "the state of a run", remedy="start again with --force"):
            loop.state = unpack_state(
                packed, loop.module, loop.optimizer, loop.generator, _settings(loop)
            )
        return
    dtype = resolve_precision(
        loop.config.precision,
        loop.device,
        n_parameters=sum(p.numel() for p in loop.module.parameters()),
        batch_size=loop.config.batch_size,
    )
    if dtype is torch.bfloat16:
        _choose_bf16(loop)
    if loop.config.ema:
        loop.state.average = start_average(loop.module)
    if loop.start_counts and loop.validation is not None and loop.n_warmup == 0:
        means = _validate(loop, loop.validation)
        loop.state.start = {f"val_{name}": mean for name, mean in means.items()}
        judge(loop.state, means["loss"], 0, partial(_copy_weights, loop.module))


def _choose_bf16(loop: Loop) -> None:
    """Take bf16 if the first batch's loss agrees with fp32, or if it was asked for by name."""
    batch = next(loop.batches.epoch(0))
    means = {}
    with evaluating(loop.module), torch.no_grad():
        for precision in ("fp32", "bf16"):
            generator = make_generator(loop.config.seed, loop.device)
            noise = _noise(loop, batch, loop.batches, 0, generator)
            with autocast(precision, loop.device):
                losses = loop.objective(loop.module, batch, loop.beta, noise)
            found = summed(losses, stop=False)
            loop.world.total(found.sums)
            means[precision] = float(found.loss_sum) / noise.n_rows
    loop.state.precision_gap, loop.state.precision = judge_bf16(means, loop.config.precision)


def train_epoch(loop: Loop) -> None:
    """The steps of an epoch, or those that are left of it."""
    loop.module.train()
    for batch in loop.batches.epoch(loop.state.epoch, loop.state.step):
        begun = time.perf_counter()
        _step(loop, batch)
        loop.state.seconds += time.perf_counter() - begun
        if loop.leaves or (loop.world.size == 1 and loop.stop.is_set):
            _save(loop)
            loop.stop.reason = loop.stop.reason or "a signal to another process"
            loop.stop.leave(f"in epoch {loop.state.epoch + 1}, after step {loop.state.step}")
        if time.monotonic() - loop.saved_at >= 60 * loop.config.checkpoint_minutes:
            _save(loop)


def _step(loop: Loop, batch: Batch) -> None:
    """One descent step."""
    for parameter in loop.parameters:
        parameter.grad = None
    noise = _noise(loop, batch, loop.batches, loop.state.step, loop.generator)
    found = add_gradient(
        loop.losses,
        batch,
        loop.world,
        beta=loop.beta_now,
        noise=noise,
        precision=loop.state.precision,
        most=loop.config.micro_batch,
        stop=loop.stop.is_set,
    )
    take_step(loop, found, noise.n_rows)


def take_step(loop: Loop, found: Found, n_rows: int) -> None:
    """Go down a gradient; from the first that is not finite on, no weight is changed.

    Parameters
    ----------
    loop : Loop
        Its parameters hold the gradient.
    found : Found
        By the batch, of all processes.
    n_rows : int
        Its rows, of all processes.
    """
    state = loop.state
    _set_rate(loop)
    norm = clip_gradient(loop.parameters, loop.config.clip)
    loop.bad = loop.bad.masked_fill(~torch.isfinite(found.loss_sum + norm), 1.0)
    adamw_step(loop.optimizer, loop.bad)
    state.step += 1
    if state.average is not None:
        done = state.epoch * loop.batches.n_steps + state.step
        update_average(state.average, loop.moving, decay=loop.config.ema, n_steps=done)
    loop.unread.append(Unread(state.step, n_rows, _rate(loop), found, norm))
    if len(loop.unread) >= loop.steps_a_reading:
        read_steps(loop)


def read_steps(loop: Loop) -> None:
    """Take what the steps since the last reading found into the epoch's record, in one copy."""
    unread, loop.unread = loop.unread, []
    if not unread:
        return
    table = torch.stack([torch.cat([one.found.sums, one.norm[None]]) for one in unread])
    for one, (*values, stop, norm) in zip(unread, table.tolist(), strict=True):
        sums = dict(zip(one.found.names, values, strict=True))
        if not math.isfinite(sums["loss"] + norm):
            what = "gradient" if math.isfinite(sums["loss"]) else "loss"
            batch = next(iter(loop.batches.epoch(loop.state.epoch, one.step - 1)))
            _fail(loop, batch, one.found.loss, f"{what} at step {one.step}")
        loop.leaves = loop.leaves or stop > 0
        _record(loop, one, sums)


def _record(loop: Loop, one: Unread, sums: dict[str, float]) -> None:
    """Add a step to the record of the epoch, and tell of it."""
    state = loop.state
    state.count += one.n_rows
    state.sums = {name: state.sums.get(name, 0.0) + value for name, value in sums.items()}
    if loop.observer.on_step is not None:
        means = {name: value / one.n_rows for name, value in sums.items()}
        place = {"epoch": state.epoch + 1, "step": one.step, "rows": one.n_rows}
        loop.observer.on_step({**place, "lr": one.lr, "beta": loop.beta_now, **means})


def _noise(
    loop: Loop, batch: Batch, batches: Batches, step: int, generator: torch.Generator
) -> PosteriorNoise:
    """Noise of a batch's own rows."""
    size = loop.config.batch_size
    n_own = len(batch[-1])
    place = place_in_batch(n_own, loop.world, n_rows=batches.n_rows, batch_size=size, step=step)
    return PosteriorNoise(generator, place)


def _set_rate(loop: Loop) -> None:
    """Learning rate of the coming step."""
    factor = loop.state.plateau.factor
    if loop.config.schedule == "cosine":
        n_steps = loop.batches.n_steps
        done = loop.state.epoch * n_steps + loop.state.step
        factor = cosine_factor(done, loop.n_epochs * n_steps)
    for group in loop.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def _rate(loop: Loop) -> float:
    return float(loop.optimizer.param_groups[0]["lr"])


def _validate(loop: Loop, validation: Batches) -> dict[str, float]:
    """Mean loss and terms over the validation rows, in evaluation mode."""
    found: list[Found] = []
    generator = make_generator(loop.config.seed, loop.device)
    loop.world.align_buffers(loop.module)
    with evaluating(loop.module), torch.no_grad(), autocast(loop.state.precision, loop.device):
        for step, batch in enumerate(validation.epoch(0)):
            noise = _noise(loop, batch, validation, step, generator)
            found.append(summed(loop.objective(loop.module, batch, loop.beta, noise), stop=False))
    for step, loss_sum in enumerate(torch.stack([one.loss_sum for one in found]).tolist()):
        if not math.isfinite(loss_sum):
            batch = next(iter(validation.epoch(0, step)))
            _fail(loop, batch, found[step].loss, "validation loss")
    totals = loop.world.total(torch.stack([one.sums for one in found]).sum(0)).tolist()
    return dict(zip(found[0].names, (total / validation.n_rows for total in totals), strict=False))


def close_epoch(loop: Loop) -> None:
    """Record the epoch, keep the weights if they are the best, decide whether to go on."""
    state, begun = loop.state, time.perf_counter()
    read_steps(loop)
    row: dict[str, Any] = {"epoch": state.epoch + 1, "lr": _rate(loop), "beta": loop.beta_now}
    row |= {f"train_{name}": total / state.count for name, total in state.sums.items()}
    loss = row["train_loss"]
    with averaged(loop.module, state.average):
        if loop.validation is not None:
            means = _validate(loop, loop.validation)
            row |= {f"val_{name}": mean for name, mean in means.items()}
            loss = means["loss"]
        if loop.keep_best and state.epoch >= loop.n_warmup:
            _judge(loop, loss)
    row["seconds"] = state.seconds + time.perf_counter() - begun
    state.rows.append(row)
    state.epoch, state.step, state.count, state.sums, state.seconds = state.epoch + 1, 0, 0, {}, 0.0
    state.stopped_early = ran_out(state, loop.config.patience)
    state.finished = state.stopped_early or state.epoch >= loop.n_epochs
    _save(loop)
    if loop.observer.on_epoch is not None:
        loop.observer.on_epoch(row)


def _judge(loop: Loop, loss: float) -> None:
    """Compare an eligible epoch's loss with the best one, and move the plateau schedule."""
    state = loop.state
    judge(state, loss, state.epoch + 1, partial(_copy_weights, loop.module))
    if loop.config.schedule == "plateau":
        state.plateau.update(loss, loop.config)


def _copy_weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def _restore_best(loop: Loop) -> None:
    if loop.state.best_weights is not None:
        loop.module.load_state_dict(loop.state.best_weights)


def _save(loop: Loop) -> None:
    read_steps(loop)
    loop.saved_at = time.monotonic()
    if loop.checkpoint is not None and loop.world.leads:
        moving = (loop.module, loop.optimizer, loop.generator)
        save_checkpoint(loop.checkpoint, pack_state(loop.state, *moving, _settings(loop)))


def _fail(loop: Loop, batch: Batch, loss: Tensor, what: str) -> NoReturn:
    """Stop at a loss that is not finite, with the last good weights in the module."""
    here = loop.world.size == 1 or not bool(torch.isfinite(loss).all())
    where = f" ({loop.explain(batch, loss)})" if here and loop.explain is not None else ""
    _restore_best(loop)
    raise InputError(
        f"training: expected finite numbers; found a non-finite {what} of epoch "
        f"{loop.state.epoch + 1}{where}: check these values, or lower --lr"
    )
