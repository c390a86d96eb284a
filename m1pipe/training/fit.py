"""The training loop: encoders and heads are trained here and nowhere else."""

import math
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, nn

from m1pipe.config import TrainingConfig
from m1pipe.errors import InputError
from m1pipe.models.mlp import evaluating
from m1pipe.training.averaging import averaged, load_average, start_average, update_average
from m1pipe.training.best import judge, ran_out
from m1pipe.training.checkpoint import load_checkpoint, save_checkpoint
from m1pipe.training.device import make_generator, resolve_precision, seeded
from m1pipe.training.distributed import ALONE, Draw, Losses, Objective, World, share_gradients
from m1pipe.training.faults import Explain
from m1pipe.training.feed import Batch, Batches
from m1pipe.training.gradients import ROWS, STOP, add_gradient, added, place_in_batch, row_sums
from m1pipe.training.history import History, Observer
from m1pipe.training.precision import autocast, judge_bf16
from m1pipe.training.schedule import beta_at, cosine_factor, resolve_epochs, warmup_epochs
from m1pipe.training.signals import StopFlag
from m1pipe.training.state import FitState, pack_state, unpack_state

NOT_IN_RESULT = ("device", "memory", "checkpoint_minutes", "micro_batch")


@dataclass
class _Loop:
    """What the steps of one run share."""

    module: nn.Module
    objective: Objective
    losses: nn.Module
    world: World
    batches: Batches
    config: TrainingConfig
    n_epochs: int
    n_warmup: int
    beta: float
    validation: Batches | None
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    checkpoint: Path | None
    stop: StopFlag
    observer: Observer
    explain: Explain | None
    keep_best: bool
    start_counts: bool
    state: FitState
    saved_at: float = 0.0
    leaves: bool = False

    @property
    def device(self) -> torch.device:
        return self.generator.device

    @property
    def beta_now(self) -> float:
        return beta_at(self.beta, self.state.epoch, self.n_warmup)


def fit(
    module: nn.Module,
    batches: Batches,
    objective: Objective,
    config: TrainingConfig,
    *,
    beta: float = 0.0,
    validation: Batches | None = None,
    parameters: list[dict[str, Any]] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    stop: StopFlag | None = None,
    observer: Observer | None = None,
    explain: Explain | None = None,
    keep: Literal["best", "last"] = "best",
    start_counts: bool = False,
    world: World = ALONE,
) -> History:
    """Train a module in place and leave it, in evaluation mode, at its best weights.

    The result is a function of the module's weights, the batches and the configuration: torch's
    global generators are seeded for the run and given back afterwards. A run that was stopped at
    any step and resumed ends, on the CPU, with the same weights bit for bit.

    Parameters
    ----------
    module : nn.Module
        On the device where it is to be trained.
    batches : Batches
        Tuples of tensors on that device.
    objective : callable
        Takes the module, a batch, the present KL weight and where random numbers come from;
        returns tensors of shape (n_samples,): "loss", which is minimised, and any terms to be
        recorded. Their mean over a batch is the gradient's scale, their mean over all rows the
        epoch's record.
    config : TrainingConfig
        Epochs, rates, schedule, patience, seed, precision.
    beta : float
        KL weight after the warm-up; 0 (no warm-up) where there is no KL term.
    validation : Batches, optional
        Rows for early stopping, always visited in the order of their epoch 0, with the same noise
        each time and the full `beta`. Without them the training loss decides.
    parameters : list of dict, optional
        Parameter groups for AdamW, as torch takes them. All trainable parameters where not
        given, with weight decay on matrices only.
    checkpoint : Path, optional
        File written after every epoch, every `checkpoint_minutes`, and before a stop.
    resume : bool
        Go on from `checkpoint`.
    stop : StopFlag, optional
        Looked at after every step.
    observer : Observer, optional
        Told of every step and epoch.
    explain : callable, optional
        From `explain_rows`: names samples and genes when a loss is not finite.
    keep : {"best", "last"}
        "last" neither restores the best weights nor stops early.
    start_counts : bool
        The weights that the module comes with are validated too, and kept if no epoch is better;
        only where there are validation rows and no warm-up.
    world : World
        Processes that train together, each with its part of every batch in `batches` and
        `validation`; the first writes the checkpoint, which any number of processes can resume.

    Returns
    -------
    History
        With the epoch whose weights were kept; epochs of the warm-up are not eligible.

    Raises
    ------
    InputError
        If a loss or gradient is not finite. The weights are then those of the best epoch so far,
        or those before the step if no epoch is finished; a checkpoint on disk stays.
    StoppedBySignalError, KeyboardInterrupt
        If `stop` was raised; the checkpoint, if any, is written.
    """
    device = next(module.parameters()).device
    n_epochs = resolve_epochs(config, batches.n_steps)
    groups = _decay_groups(module, config.weight_decay or 0.0) if parameters is None else parameters
    optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=0.0, fused=True)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    n_warmup = warmup_epochs(config, n_epochs, beta)
    some_unused = beta == 0 or n_warmup > 0
    loop = _Loop(
        module=module,
        objective=objective,
        losses=share_gradients(Losses(module, objective), world, some_unused=some_unused),
        world=world,
        batches=batches,
        config=config,
        n_epochs=n_epochs,
        n_warmup=n_warmup,
        beta=beta,
        validation=validation,
        optimizer=optimizer,
        generator=make_generator(config.seed, device),
        checkpoint=checkpoint,
        stop=stop or StopFlag(),
        observer=observer or Observer(),
        explain=explain,
        keep_best=keep == "best",
        start_counts=start_counts,
        state=FitState(),
    )
    with seeded(config.seed, device):
        _start(loop, resume)
        while not loop.state.finished:
            _train_epoch(loop)
            _close_epoch(loop)
    if loop.state.average is not None:
        load_average(module, loop.state.average)
    _restore_best(loop)
    module.eval()
    return loop.state.history()


def _decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: matrices with weight decay, the rest without."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1]},
    ]
    return [group for group in groups if group["params"]]


def _settings(loop: _Loop) -> dict[str, Any]:
    """What must be the same for a run to be resumed."""
    chosen = {k: v for k, v in asdict(loop.config).items() if k not in NOT_IN_RESULT}
    return {
        **chosen,
        "epochs": loop.n_epochs,
        "beta": loop.beta,
        "training rows": loop.batches.n_rows,
        "validation rows": loop.validation.n_rows if loop.validation else 0,
    }


def _start(loop: _Loop, resume: bool) -> None:
    """Begin at the checkpoint or at the beginning, where the precision is decided."""
    loop.saved_at = time.monotonic()
    if resume:
        if loop.checkpoint is None:
            raise ValueError("resume needs the path of a checkpoint")
        packed = load_checkpoint(loop.checkpoint)
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


def _choose_bf16(loop: _Loop) -> None:
    """Take bf16 if the first batch's loss agrees with fp32, or if it was asked for by name."""
    batch = next(loop.batches.epoch(0))
    means = {}
    with evaluating(loop.module), torch.no_grad():
        for precision in ("fp32", "bf16"):
            draw = _draw(loop, batch, loop.batches, 0, seed=loop.config.seed)
            with autocast(precision, loop.device):
                losses = loop.objective(loop.module, batch, loop.beta, draw)
            sums = loop.world.total({**row_sums(losses), ROWS: len(batch[-1])}, loop.device)
            means[precision] = sums["loss"] / sums[ROWS]
    loop.state.precision_gap, loop.state.precision = judge_bf16(means, loop.config.precision)


def _train_epoch(loop: _Loop) -> None:
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


def _step(loop: _Loop, batch: Batch) -> None:
    """One descent step; nothing is changed if the loss or the gradient is not finite."""
    state = loop.state
    _set_rate(loop)
    loop.optimizer.zero_grad(set_to_none=True)
    sums, loss = add_gradient(
        loop.losses,
        batch,
        loop.world,
        beta=loop.beta_now,
        draw=_draw(loop, batch, loop.batches, state.step),
        precision=state.precision,
        most=loop.config.micro_batch,
        stop=loop.stop.is_set,
    )
    norm = nn.utils.clip_grad_norm_(loop.module.parameters(), loop.config.clip or math.inf)
    n_rows = int(sums.pop(ROWS))
    loop.leaves = sums.pop(STOP) > 0
    if not math.isfinite(sums["loss"] + float(norm)):
        what = "gradient" if math.isfinite(sums["loss"]) else "loss"
        _fail(loop, batch, loss, f"{what} at step {state.step + 1}")
    loop.optimizer.step()
    state.step += 1
    if state.average is not None:
        done = state.epoch * loop.batches.n_steps + state.step
        update_average(state.average, loop.module, decay=loop.config.ema, n_steps=done)
    state.count += n_rows
    state.sums = added(state.sums, sums)
    if loop.observer.on_step is not None:
        means = {name: value / n_rows for name, value in sums.items()}
        place = {"epoch": state.epoch + 1, "step": state.step, "rows": n_rows}
        loop.observer.on_step({**place, "lr": _rate(loop), "beta": loop.beta_now, **means})


def _draw(loop: _Loop, batch: Batch, batches: Batches, step: int, seed: int | None = None) -> Draw:
    """Random numbers of a batch, from the loop's generator or a fresh one."""
    size = loop.config.batch_size
    generator = loop.generator if seed is None else make_generator(seed, loop.device)
    n_own = len(batch[-1])
    place = place_in_batch(n_own, loop.world, n_rows=batches.n_rows, batch_size=size, step=step)
    return Draw(generator, place)


def _set_rate(loop: _Loop) -> None:
    """Learning rate of the coming step."""
    factor = loop.state.plateau.factor
    if loop.config.schedule == "cosine":
        n_steps = loop.batches.n_steps
        done = loop.state.epoch * n_steps + loop.state.step
        factor = cosine_factor(done, loop.n_epochs * n_steps)
    for group in loop.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def _rate(loop: _Loop) -> float:
    return float(loop.optimizer.param_groups[0]["lr"])


def _validate(loop: _Loop, validation: Batches) -> dict[str, float]:
    """Mean loss and terms over the validation rows, in evaluation mode."""
    totals: dict[str, float] = {}
    noise = make_generator(loop.config.seed, loop.device)
    loop.world.align_buffers(loop.module)
    with evaluating(loop.module), torch.no_grad(), autocast(loop.state.precision, loop.device):
        for step, batch in enumerate(validation.epoch(0)):
            draw = replace(_draw(loop, batch, validation, step), generator=noise)
            losses = loop.objective(loop.module, batch, loop.beta, draw)
            sums = row_sums(losses)
            if not math.isfinite(sums["loss"]):
                _fail(loop, batch, losses["loss"], "validation loss")
            totals = added(totals, sums)
    totals = loop.world.total(totals, loop.device)
    return {name: total / validation.n_rows for name, total in totals.items()}


def _close_epoch(loop: _Loop) -> None:
    """Record the epoch, keep the weights if they are the best, decide whether to go on."""
    state, begun = loop.state, time.perf_counter()
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


def _judge(loop: _Loop, loss: float) -> None:
    """Compare an eligible epoch's loss with the best one, and move the plateau schedule."""
    state = loop.state
    judge(state, loss, state.epoch + 1, partial(_copy_weights, loop.module))
    if loop.config.schedule == "plateau":
        state.plateau.update(loss, loop.config)


def _copy_weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def _restore_best(loop: _Loop) -> None:
    if loop.state.best_weights is not None:
        loop.module.load_state_dict(loop.state.best_weights)


def _save(loop: _Loop) -> None:
    loop.saved_at = time.monotonic()
    if loop.checkpoint is not None and loop.world.leads:
        moving = (loop.module, loop.optimizer, loop.generator)
        save_checkpoint(loop.checkpoint, pack_state(loop.state, *moving, _settings(loop)))


def _fail(loop: _Loop, batch: Batch, loss: Tensor, what: str) -> NoReturn:
    """Stop at a loss that is not finite, with the last good weights in the module."""
    here = loop.world.size == 1 or not bool(torch.isfinite(loss).all())
    where = f" ({loop.explain(batch, loss)})" if here and loop.explain is not None else ""
    _restore_best(loop)
    raise InputError(
        f"training: expected finite numbers; found a non-finite {what} of epoch "
        f"{loop.state.epoch + 1}{where}: check these values, or lower --lr"
    )
