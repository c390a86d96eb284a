"""The training loop, read top to bottom: fit, epochs, steps, validation, early stopping."""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from m1pipe.artefacts import reading
from m1pipe.config import TrainingConfig
from m1pipe.errors import InputError
from m1pipe.models.kernels import EagerAdamW
from m1pipe.models.mlp import evaluating
from m1pipe.models.vae import PosteriorNoise
from m1pipe.training.batches import Batch, Batches
from m1pipe.training.checkpoint import (
    FitState,
    load_checkpoint,
    pack_state,
    result_settings,
    save_checkpoint,
    unpack_state,
)
from m1pipe.training.device import compare_bf16, make_generator, resolve_precision, seeded
from m1pipe.training.distributed import (
    ALONE,
    BatchTerms,
    Losses,
    Objective,
    Workers,
    place_in_batch,
    row_parts,
    share_gradients,
    sum_terms,
    unshared,
)
from m1pipe.training.history import Explain, History, Observer
from m1pipe.training.optimizer import (
    adamw_step,
    averaged,
    beta_at,
    clip_gradient,
    cosine_factor,
    decay_groups,
    load_average,
    moving_values,
    resolve_epochs,
    start_average,
    update_average,
    warmup_epochs,
)
from m1pipe.training.signals import StopFlag

# Steps after which the host reads at once what they found. Where it waits for a card to read, the
# card waits for the host's next step; on the CPU reading costs nothing.
STEPS_A_READING = {"cpu": 1, "cuda": 64}


@dataclass
class Loop:
    """One training run: what is trained, on what, how; and how far it has come.

    The result is a function of the module's weights, the batches and the configuration.

    Attributes
    ----------
    module : nn.Module
        On the device where it is to be trained.
    batches : Batches
        Tuples of tensors on that device.
    objective : callable
        Takes the module, a batch, the present KL weight and the posterior noise; returns tensors
        of shape (n_samples,): "loss", which is minimised, and any terms to be recorded. Their
        mean over a batch is the gradient's scale, their mean over all rows the epoch's record.
    config : TrainingConfig
        Epochs, rates, schedule, patience, seed, precision.
    beta : float
        KL weight after the warm-up; 0 (no warm-up) where there is no KL term.
    validation : Batches or None
        Rows for early stopping, always visited in the order of their epoch 0, with the same noise
        each time and the full `beta`. Without them the training loss decides.
    groups : list of dict or None
        Parameter groups for AdamW, as torch takes them. None: all trainable parameters, with
        weight decay on matrices only.
    checkpoint : Path or None
        File written after every epoch, every `checkpoint_minutes`, and before a stop.
    stop : StopFlag
        Checked after every step.
    observer : Observer
        Called with every step and epoch.
    explain : callable or None
        From `explain_rows`: names samples and genes when a loss is not finite.
    keep_best : bool
        False neither restores the best weights nor stops early.
    start_counts : bool
        The weights that the module comes with are validated too, and kept if no epoch is better;
        only where there are validation rows and no warm-up.
    workers : Workers
        Processes that train together, each with its part of every batch in `batches` and
        `validation`; the first writes the checkpoint, which any number of processes can resume.
    state : FitState
        Epochs, steps, best weights so far.
    saved_at : float
        When the checkpoint was written, for `time.monotonic`.
    leaves : bool
        Whether any process was asked to stop.
    unread : list of tuple
        Of each step that was not read yet: its number in the epoch, its rows and learning rate,
        its terms and the norm of its gradient.
    """

    module: nn.Module
    batches: Batches
    objective: Objective
    config: TrainingConfig
    _: KW_ONLY
    beta: float = 0.0
    validation: Batches | None = None
    groups: list[dict[str, Any]] | None = None
    checkpoint: Path | None = None
    stop: StopFlag = field(default_factory=StopFlag)
    observer: Observer = field(default_factory=Observer)
    explain: Explain | None = None
    keep_best: bool = True
    start_counts: bool = False
    workers: Workers = ALONE
    state: FitState = field(default_factory=FitState)
    saved_at: float = 0.0
    leaves: bool = False
    unread: list[tuple[int, int, float, BatchTerms, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        config, device = self.config, next(self.module.parameters()).device
        self.n_epochs = resolve_epochs(config, self.batches.n_steps)
        self.n_warmup = warmup_epochs(config, self.n_epochs, self.beta)
        groups = self.groups
        if groups is None:
            groups = decay_groups(self.module, config.weight_decay or 0.0)
        self.optimizer = EagerAdamW(groups, lr=config.lr, weight_decay=0.0, fused=True)
        for group in self.optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        self.generator = make_generator(config.seed, device)
        self.bad = torch.zeros((), device=device)
        self.losses = share_gradients(
            Losses(self.module, self.objective),
            self.workers,
            some_unused=self.beta == 0 or self.n_warmup > 0,
        )

    @cached_property
    def parameters(self) -> list[Tensor]:
        """What is trained, looked up once."""
        return [p for p in self.module.parameters() if p.requires_grad]

    @cached_property
    def moving(self) -> dict[str, Tensor]:
        """What the steps change, looked up once."""
        return moving_values(self.module)

    @property
    def device(self) -> torch.device:
        """Where it is trained."""
        return self.generator.device

    @property
    def steps_a_reading(self) -> int:
        """Steps after which the host reads; each one where processes wait for one another."""
        return STEPS_A_READING[self.device.type] if self.workers.size == 1 else 1

    @property
    def autocast(self) -> AbstractContextManager[Any]:
        """A block whose matrix products are taken in the run's precision."""
        if self.state.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    @property
    def beta_now(self) -> float:
        """KL weight of the present epoch."""
        return beta_at(self.beta, self.state.epoch, self.n_warmup)

    @property
    def rate(self) -> float:
        """Learning rate, before the scales of single layers."""
        group = self.optimizer.param_groups[0]
        return float(self.config.lr * group["lr"] / group["initial_lr"])

    @property
    def resumable_settings(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed."""
        n_validation = self.validation.n_rows if self.validation else 0
        rows = {"training rows": self.batches.n_rows, "validation rows": n_validation}
        return {**result_settings(self.config), "epochs": self.n_epochs, "beta": self.beta, **rows}


def fit(loop: Loop, *, resume: bool = False) -> History:
    """Train a module in place and leave it, in evaluation mode, at its best weights.

    torch's global generators are seeded for the run and given back afterwards. A run that was
    stopped at any step and resumed ends, on the CPU, with the same weights bit for bit.

    Parameters
    ----------
    loop : Loop
    resume : bool
        Resume the run from its checkpoint.

    Returns
    -------
    History
        With the epoch whose weights were kept; epochs of the warm-up are not eligible.

    Raises
    ------
    InputError
        If a loss or gradient is not finite. The weights are then those of the best epoch so far,
        or those before the step if no epoch is finished (running means of batch normalisation
        have then seen its batch); a checkpoint on disk stays.
    StoppedBySignalError, KeyboardInterrupt
        If the stop flag was raised; the checkpoint, if any, is written.
    """
    with seeded(loop.config.seed, loop.device):
        if resume:
            _resume(loop)
        else:
            start(loop)
        while not loop.state.finished:
            _train_epoch(loop)
            close_epoch(loop)
    return close(loop)


def start(loop: Loop) -> None:
    """Begin a run: choose the precision, start the average, validate the start if it counts."""
    loop.saved_at = time.monotonic()
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
        _keep_if_best(loop, means["loss"], 0)


def _resume(loop: Loop) -> None:
    """Resume a run from its checkpoint."""
    loop.saved_at = time.monotonic()
    if loop.checkpoint is None:
        raise ValueError("resume needs the path of a checkpoint")
    packed = load_checkpoint(loop.checkpoint)
    moving = (loop.module, loop.optimizer, loop.generator)
    with reading(loop.checkpoint, "the state of a run", remedy="start again with --force"):
        loop.state = unpack_state(packed, *moving, loop.resumable_settings)


def _choose_bf16(loop: Loop) -> None:
    """Take bf16 if the first batch's loss agrees with fp32, or if it was asked for by name."""
    batch = next(loop.batches.epoch(0))
    means = {}
    with evaluating(loop.module), torch.no_grad():
        for loop.state.precision in ("fp32", "bf16"):
            generator = make_generator(loop.config.seed, loop.device)
            noise = _noise(loop, batch, loop.batches, 0, generator)
            with loop.autocast:
                found = sum_terms(loop.objective(loop.module, batch, loop.beta, noise))
            loop.workers.total(found.sums)
            means[loop.state.precision] = float(found.loss_sum) / noise.n_rows
    loop.state.precision_gap, loop.state.precision = compare_bf16(means, loop.config.precision)


def _train_epoch(loop: Loop) -> None:
    """The steps of an epoch, or those that are left of it."""
    loop.module.train()
    for batch in loop.batches.epoch(loop.state.epoch, loop.state.step):
        begun = time.perf_counter()
        _step(loop, batch)
        loop.state.seconds += time.perf_counter() - begun
        if loop.leaves or (loop.workers.size == 1 and loop.stop.is_set):
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
    take_step(loop, _add_gradient(loop, batch, noise), noise.n_rows)


def _noise(
    loop: Loop, batch: Batch, batches: Batches, step: int, generator: torch.Generator
) -> PosteriorNoise:
    """Posterior noise of a batch's own rows."""
    size, n_own = loop.config.batch_size, len(batch[-1])
    part = place_in_batch(n_own, loop.workers, n_rows=batches.n_rows, batch_size=size, step=step)
    return PosteriorNoise(generator, part)


def _add_gradient(loop: Loop, batch: Batch, noise: PosteriorNoise) -> BatchTerms:
    """Gradient of the mean loss over the batch of all processes, added up part by part."""
    assert noise.part is not None
    (first, n_total), generator, stop = noise.part, loop.generator, loop.stop.is_set
    parts, found = row_parts(batch, loop.config.micro_batch), []
    begun = generator.get_state() if len(parts) > 1 else None
    for i, part in enumerate(parts, start=1):
        if begun is not None:
            generator.set_state(begun)
        with unshared(loop.losses) if i < len(parts) else nullcontext():
            with loop.autocast:
                own = PosteriorNoise(generator, (first, n_total))
                terms = loop.losses(part, loop.beta_now, own)
            loss = terms["loss"]
            loss.backward(torch.full_like(loss, loop.workers.size / n_total))
        first += len(part[-1])
        found.append(sum_terms(terms, stop=stop and i == 1))
    whole = found[0]
    for more in found[1:]:
        whole = replace(whole, sums=whole.sums + more.sums, loss=torch.cat([whole.loss, more.loss]))
    return replace(whole, sums=loop.workers.total(whole.sums))


def take_step(loop: Loop, found: BatchTerms, n_rows: int) -> None:
    """Go down a gradient; from the first that is not finite on, no weight is changed.

    Parameters
    ----------
    loop : Loop
        Its parameters hold the gradient.
    found : BatchTerms
        Of all processes.
    n_rows : int
        Rows of the batch, of all processes.
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
    loop.unread.append((state.step, n_rows, loop.rate, found, norm))
    if len(loop.unread) >= loop.steps_a_reading:
        read_steps(loop)


def _set_rate(loop: Loop) -> None:
    """Learning rate of the coming step."""
    factor = loop.state.plateau.factor
    if loop.config.schedule == "cosine":
        n_steps = loop.batches.n_steps
        done = loop.state.epoch * n_steps + loop.state.step
        factor = cosine_factor(done, loop.n_epochs * n_steps)
    for group in loop.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def read_steps(loop: Loop) -> None:
    """Take the steps since the last reading into the epoch's record, in one copy."""
    unread, loop.unread = loop.unread, []
    if not unread:
        return
    table = torch.stack([torch.cat([found.sums, norm[None]]) for *_, found, norm in unread])
    for (step, n_rows, rate, found, _), values in zip(unread, table.tolist(), strict=True):
        *terms, stop, norm = values
        sums = dict(zip(found.names, terms, strict=True))
        if not math.isfinite(sums["loss"] + norm):
            what = "gradient" if math.isfinite(sums["loss"]) else "loss"
            batch = next(iter(loop.batches.epoch(loop.state.epoch, step - 1)))
            _fail(loop, batch, found.loss, f"{what} at step {step}")
        loop.leaves = loop.leaves or stop > 0
        state = loop.state
        state.count += n_rows
        state.sums = {name: state.sums.get(name, 0.0) + value for name, value in sums.items()}
        if loop.observer.on_step is not None:
            means = {name: value / n_rows for name, value in sums.items()}
            place = {"epoch": state.epoch + 1, "step": step, "rows": n_rows}
            loop.observer.on_step({**place, "lr": rate, "beta": loop.beta_now, **means})


def close_epoch(loop: Loop) -> None:
    """Record the epoch, keep the weights if they are the best, decide whether to go on."""
    state, begun = loop.state, time.perf_counter()
    read_steps(loop)
    row: dict[str, Any] = {"epoch": state.epoch + 1, "lr": loop.rate, "beta": loop.beta_now}
    row |= {f"train_{name}": total / state.count for name, total in state.sums.items()}
    loss = row["train_loss"]
    with averaged(loop.module, state.average):
        if loop.validation is not None:
            means = _validate(loop, loop.validation)
            row |= {f"val_{name}": mean for name, mean in means.items()}
            loss = means["loss"]
        if loop.keep_best and state.epoch >= loop.n_warmup:
            _keep_if_best(loop, loss, state.epoch + 1)
            if loop.config.schedule == "plateau":
                state.plateau.update(loss, loop.config)
    row["seconds"] = state.seconds + time.perf_counter() - begun
    state.rows.append(row)
    state.epoch, state.step, state.count, state.sums, state.seconds = state.epoch + 1, 0, 0, {}, 0.0
    patience = loop.config.patience
    state.stopped_early = bool(patience) and state.waited >= patience
    state.finished = state.stopped_early or state.epoch >= loop.n_epochs
    _save(loop)
    if loop.observer.on_epoch is not None:
        loop.observer.on_epoch(row)


def _validate(loop: Loop, validation: Batches) -> dict[str, float]:
    """Mean loss and terms over the validation rows, in evaluation mode."""
    found: list[BatchTerms] = []
    generator = make_generator(loop.config.seed, loop.device)
    loop.workers.align_buffers(loop.module)
    with evaluating(loop.module), torch.no_grad(), loop.autocast:
        for step, batch in enumerate(validation.epoch(0)):
            noise = _noise(loop, batch, validation, step, generator)
            found.append(sum_terms(loop.objective(loop.module, batch, loop.beta, noise)))
    for step, loss_sum in enumerate(torch.stack([one.loss_sum for one in found]).tolist()):
        if not math.isfinite(loss_sum):
            batch = next(iter(validation.epoch(0, step)))
            _fail(loop, batch, found[step].loss, "validation loss")
    totals = loop.workers.total(torch.stack([one.sums for one in found]).sum(0)).tolist()
    return dict(zip(found[0].names, (total / validation.n_rows for total in totals), strict=False))


def _keep_if_best(loop: Loop, loss: float, epoch: int) -> None:
    """Keep the weights of an epoch (from 1) if no earlier one was as good."""
    state = loop.state
    if loss < state.best_loss:
        state.best_loss, state.best_epoch, state.waited = loss, epoch, 0
        state.best_weights = {n: value.clone() for n, value in loop.module.state_dict().items()}
    else:
        state.waited += 1


def close(loop: Loop) -> History:
    """Leave the module, in evaluation mode, at its best weights."""
    if loop.state.average is not None:
        load_average(loop.module, loop.state.average)
    _restore_best(loop)
    loop.module.eval()
    return loop.state.history()


def _restore_best(loop: Loop) -> None:
    if loop.state.best_weights is not None:
        loop.module.load_state_dict(loop.state.best_weights)


def _save(loop: Loop) -> None:
    read_steps(loop)
    loop.saved_at = time.monotonic()
    if loop.checkpoint is not None and loop.workers.leads:
        moving = (loop.module, loop.optimizer, loop.generator)
        save_checkpoint(loop.checkpoint, pack_state(loop.state, *moving, loop.resumable_settings))


def _fail(loop: Loop, batch: Batch, loss: Tensor, what: str) -> NoReturn:
    """Stop at a loss that is not finite, with the last good weights in the module."""
    here = loop.workers.size == 1 or not bool(torch.isfinite(loss).all())
    where = f" ({loop.explain(batch, loss)})" if here and loop.explain is not None else ""
    _restore_best(loop)
    raise InputError(
        f"training: expected finite numbers; found a non-finite {what} of epoch "
        f"{loop.state.epoch + 1}{where}: check these values, or lower --lr"
    )
