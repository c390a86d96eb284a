"""Heads of several folds and models trained in one pass over the rows.

The same steps as `fit_head` makes for each of them: the pieces of one order of all rows, of which
a head takes its own; the same start, rates, early stopping and best weights.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from m1pipe.config import HeadConfig
from m1pipe.data.splits import inner_split
from m1pipe.data.targets import Targets
from m1pipe.errors import InputError
from m1pipe.training.fit_heads import FEW_ROWS, VALIDATION_ROWS, fit_head
from m1pipe.training.fitted_head import FittedHead
from m1pipe.training.head_feed import row_order
from m1pipe.training.head_start import (
    HeadStart,
    HeadTask,
    finish_head,
    make_task,
    start_head,
)
from m1pipe.training.history import History
from m1pipe.training.signals import StopFlag
from m1pipe.training.stack import (
    Piece,
    Stack,
    make_piece,
    make_stack,
    train_step,
    validation_losses,
)

ENOUGH_ROWS = 16  # that a step of a stack gives each head, on average: fewer, and it may get none


@dataclass(frozen=True, eq=False)
class HeadJob:
    """One head to be trained.

    Attributes
    ----------
    X : ndarray of float32, shape (n, n_features)
        Features of all rows.
    config : HeadConfig
    rows : ndarray of int, shape (n_rows,)
        Training rows.
    seed : int
        Of initialisation and inner split.
    """

    X: np.ndarray
    config: HeadConfig
    rows: np.ndarray
    seed: int


@dataclass(frozen=True, eq=False)
class Design:
    """What all heads of a pass share.

    Attributes
    ----------
    targets : Targets
        Of all n rows.
    order_seed : int
        Of the order of rows.
    folds, strata, groups : ndarray, shape (n,), or None
        As `fit_head` takes them.
    """

    targets: Targets
    order_seed: int
    folds: np.ndarray | None = None
    strata: np.ndarray | None = None
    groups: np.ndarray | None = None


@dataclass(eq=False)
class _Member:
    """One head of a pass, and how it fares."""

    task: HeadTask
    start: HeadStart
    mask: int
    rows: list[dict[str, float]] = field(default_factory=list)
    best_loss: float = math.inf
    best_epoch: int = 0
    waited: int = 0
    best_weights: list[Tensor] | None = None

    def close_epoch(self, train_loss: float, val_loss: float | None, seconds: float) -> None:
        """Record an epoch."""
        lr = self.task.config.lr
        row = {"epoch": len(self.rows) + 1, "lr": lr, "beta": 0.0, "train_loss": train_loss}
        row |= {} if val_loss is None else {"val_loss": val_loss}
        self.rows.append({**row, "seconds": seconds})

    def judge(self, loss: float, weights: Callable[[], list[Tensor]]) -> None:
        """Keep the weights if this is the best epoch so far."""
        if loss < self.best_loss:
            self.best_loss, self.best_epoch, self.waited = loss, len(self.rows), 0
            self.best_weights = weights()
        else:
            self.waited += 1

    @property
    def stopped_early(self) -> bool:
        """Whether the patience has run out."""
        patience = self.task.config.patience
        return bool(patience) and self.waited >= patience


@dataclass(eq=False)
class _Group:
    """The heads of one shape that are still being trained."""

    stack: Stack
    members: list[_Member]


@dataclass(frozen=True, eq=False)
class _Pass:
    """What the epochs of a pass share: distinct sets of rows (n_masks, n), and the targets."""

    design: Design
    config: HeadConfig
    y: Tensor
    train: np.ndarray
    held_out: np.ndarray


def fit_heads(
    jobs: Sequence[HeadJob],
    design: Design,
    *,
    stop: StopFlag | None = None,
    on_epoch: Callable[[int], object] = lambda n_training: None,
) -> list[FittedHead]:
    """Train all heads, those that can go together in one pass.

    Heads go together if they have the same rates, batch and epochs, at least `FEW_ROWS` training
    rows, no dropout, and enough rows in every step. The others are trained one by one.

    Parameters
    ----------
    jobs : sequence of HeadJob
    design : Design
    stop : StopFlag, optional
        Looked at after every epoch and fit.
    on_epoch : callable
        Told after every epoch how many heads are still being trained.

    Returns
    -------
    list of FittedHead
        In the order of the jobs; to rounding what `fit_head` gives for each.

    Raises
    ------
    InputError
        If a head has fewer than two rows, or a loss is not finite.
    """
    fitted: list[FittedHead | None] = [None] * len(jobs)
    passes: dict[HeadConfig, list[int]] = {}
    for i, job in enumerate(jobs):
        if _goes_together(job, design):
            passes.setdefault(replace(job.config, hidden=()), []).append(i)
        else:
            fitted[i] = _fit_alone(job, design)
            _leave_if_asked(stop)
    for members in passes.values():
        heads = _fit_pass([jobs[i] for i in members], design, stop, on_epoch)
        for i, head in zip(members, heads, strict=True):
            fitted[i] = head
    return [head for head in fitted if head is not None]


def _goes_together(job: HeadJob, design: Design) -> bool:
    share = job.rows.size / design.targets.n * (1 - job.config.validation)
    return (
        job.rows.size >= FEW_ROWS
        and job.config.dropout == 0
        and share * min(job.config.batch_size, design.targets.n) >= ENOUGH_ROWS
    )


def _fit_alone(job: HeadJob, design: Design) -> FittedHead:
    return fit_head(
        job.X,
        design.targets,
        job.config,
        rows=job.rows,
        seed=job.seed,
        strata=design.strata,
        groups=design.groups,
        order_seed=design.order_seed,
        folds_order=design.folds,
    )


def _fit_pass(
    jobs: Sequence[HeadJob],
    design: Design,
    stop: StopFlag | None,
    on_epoch: Callable[[int], object],
) -> list[FittedHead]:
    """Train heads together until each has stopped."""
    one, members = _prepare(jobs, design)
    groups = _group(members)
    step = 0
    for epoch in range(one.config.epochs):
        begun = time.perf_counter()
        train, step = _train_epoch(one, groups, epoch, step)
        held_out = _validate(one, groups)
        n_heads = sum(len(group.members) for group in groups)
        seconds = (time.perf_counter() - begun) / n_heads
        for group, losses, val_losses in zip(groups, train, held_out, strict=True):
            _close_epoch(group, losses, val_losses, seconds)
        groups = [group for group in groups if group.members]
        on_epoch(sum(len(group.members) for group in groups))
        _leave_if_asked(stop)
        if not groups:
            break
    for group in groups:
        _take_weights(group, range(len(group.members)))
    return [_finish(member) for member in members]


def _prepare(jobs: Sequence[HeadJob], design: Design) -> tuple[_Pass, list[_Member]]:
    """The rows of every head, each distinct set once, and where every head starts."""
    n, config = design.targets.n, jobs[0].config
    sets: dict[tuple[bytes, int], int] = {}
    train, held_out = [], []
    members: list[_Member] = []
    for job in jobs:
        key = (job.rows.tobytes(), job.seed)
        if key not in sets:
            sets[key] = len(sets)
            kept, others = _inner(job, design)
            train.append(np.isin(np.arange(n), kept))
            held_out.append(np.isin(np.arange(n), others))
        task = make_task(
            job.X,
            design.targets,
            job.config,
            seed=job.seed,
            order_seed=design.order_seed,
            folds=design.folds,
        )
        if members:  # the targets are on the device once
            task = replace(task, y=members[0].task.y)
        members.append(_Member(task, start_head(task, job.rows), sets[key]))
    masks = np.stack(train), np.stack(held_out)
    return _Pass(design, config, members[0].task.y, *masks), members


def _inner(job: HeadJob, design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and those that decide when to stop (none without validation)."""
    share = job.config.validation
    if share == 0:
        return job.rows, job.rows[:0]
    return inner_split(job.rows, share, job.seed, strata=design.strata, groups=design.groups)


def _group(members: Sequence[_Member]) -> list[_Group]:
    """Heads of equal shape together, in the order of their first."""
    shapes: dict[tuple[int, ...], list[_Member]] = {}
    for member in members:
        shape = (member.task.x.shape[1], *member.task.config.hidden)
        shapes.setdefault(shape, []).append(member)
    return [
        _Group(
            make_stack([m.task for m in own], [m.start for m in own], [m.mask for m in own]), own
        )
        for own in shapes.values()
    ]


def _train_epoch(
    one: _Pass, groups: Sequence[_Group], epoch: int, step: int
) -> tuple[list[np.ndarray], int]:
    """All steps of an epoch; mean training losses of the heads by group, steps done."""
    n, size = one.train.shape[1], one.config.batch_size
    order = row_order(n, one.design.order_seed, epoch, one.design.folds)
    totals = [torch.zeros(len(g.members), dtype=torch.float64) for g in groups]
    totals = [t.to(one.y.device) for t in totals]
    for start in range(0, n, size):
        rows = order[start : start + size]
        piece = make_piece(rows, one.train, one.y.device)
        counts = torch.from_numpy(one.train[:, rows].sum(axis=1)).to(one.y.device)
        step += 1
        for group, total in zip(groups, totals, strict=True):
            losses = train_step(group.stack, piece, one.y, step)
            total += losses * counts[group.stack.mask_of]
    sizes = one.train.sum(axis=1)
    means = [
        total.cpu().numpy() / sizes[group.stack.mask_of.cpu().numpy()]
        for group, total in zip(groups, totals, strict=True)
    ]
    return means, step


def _validate(one: _Pass, groups: Sequence[_Group]) -> list[np.ndarray | None]:
    """Mean validation losses of the heads by group; None where no rows are held out."""
    sizes = one.held_out.sum(axis=1)
    if not sizes.any():
        return [None for _ in groups]
    totals = [np.zeros(len(group.members)) for group in groups]
    for start in range(0, int(sizes.max()), VALIDATION_ROWS):
        piece = _held_out_piece(one, start)
        for group, total in zip(groups, totals, strict=True):
            total += validation_losses(group.stack, piece, one.y).cpu().numpy()
    return list(totals)


def _held_out_piece(one: _Pass, start: int) -> Piece:
    """The next validation rows of every mask, in the rows' own order."""
    stop, sizes = start + VALIDATION_ROWS, one.held_out.sum(axis=1)
    own = [np.flatnonzero(mask)[start:stop] for mask in one.held_out]
    rows = np.unique(np.concatenate(own))
    places = np.zeros((len(own), max(len(r) for r in own)), dtype=np.int64)
    weight = np.zeros(places.shape, dtype=np.float32)
    for k, r in enumerate(own):
        places[k, : len(r)] = np.searchsorted(rows, r)
        weight[k, : len(r)] = 1 / sizes[k]
    device = one.y.device
    return Piece(*(torch.from_numpy(a).to(device) for a in (rows, places, weight)))


def _close_epoch(
    group: _Group, train: np.ndarray, held_out: np.ndarray | None, seconds: float
) -> None:
    """Record an epoch; heads whose patience has run out leave the group."""
    finished = []
    for k, member in enumerate(group.members):
        val_loss = None if held_out is None else float(held_out[k])
        _check(float(train[k]), member, "loss")
        member.close_epoch(float(train[k]), val_loss, seconds)
        if val_loss is not None:
            _check(val_loss, member, "validation loss")
            member.judge(val_loss, partial(group.stack.heads.weights_of, k))
            if member.stopped_early:
                finished.append(k)
    if finished:
        _take_weights(group, finished)
        going = [k for k in range(len(group.members)) if k not in finished]
        group.members = [group.members[k] for k in going]
        group.stack.keep(torch.tensor(going, dtype=torch.int64, device=group.stack.mask_of.device))


def _check(loss: float, member: _Member, what: str) -> None:
    if not math.isfinite(loss):
        raise InputError(
            f"training: expected finite numbers; found a non-finite {what} of epoch "
            f"{max(len(member.rows), 1)}: check the values, or lower --head-lr"
        )


def _take_weights(group: _Group, which: Iterable[int]) -> None:
    """Give members their best weights, or, without validation, their last."""
    for k in which:
        member = group.members[k]
        group.stack.heads.copy_to(k, member.start.module, member.best_weights)


def _finish(member: _Member) -> FittedHead:
    """The head as `fit_head` returns it."""
    has_best = member.best_weights is not None
    member.start.module.eval()
    history = History(
        rows=member.rows,
        best_epoch=member.best_epoch,
        best_loss=member.best_loss,
        stopped_early=member.stopped_early,
    )
    n_epochs = member.best_epoch if has_best else len(member.rows)
    return finish_head(member.task, member.start, history, n_epochs)


def _leave_if_asked(stop: StopFlag | None) -> None:
    if stop is not None and stop.is_set:
        stop.leave("while heads were trained; finished folds are kept")
