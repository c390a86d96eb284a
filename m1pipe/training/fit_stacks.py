"""Heads of several folds and models trained in one pass over the rows.

The same steps as `fit_head` makes for each of them: the pieces of one order of all rows, of which
a head takes its own; the same start, rates, early stopping and best weights.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from m1pipe.config import HeadConfig
from m1pipe.errors import InputError
from m1pipe.models.products import float32_products
from m1pipe.training.best import judge
from m1pipe.training.fit_heads import FEW_ROWS, VALIDATION_ROWS, fit_head
from m1pipe.training.fitted_head import FittedHead
from m1pipe.training.head_feed import row_order
from m1pipe.training.signals import StopFlag
from m1pipe.training.stack import Piece, make_piece, train_step, validation_losses
from m1pipe.training.stack_pass import (
    Design,
    Group,
    HeadJob,
    Member,
    Pass,
    finish_member,
    group_heads,
    load_pass,
    prepare_pass,
    save_pass,
    take_weights,
)

SAVE_MINUTES = 10
ENOUGH_ROWS = 16  # that a step of a stack gives each head, on average: fewer, and it may get none


@dataclass(frozen=True)
class PassFile:
    """Where the state of a pass is kept.

    Attributes
    ----------
    path : Path
    mark : str
        What the pass belongs to: a file of another mark is not read.
    """

    path: Path
    mark: str

    def part(self, number: int) -> "PassFile":
        """The file of one of several passes."""
        return PassFile(self.path.with_name(f"{self.path.stem}_{number}.pt"), self.mark)

    def remove(self) -> None:
        """Remove the files of all its parts."""
        for path in self.path.parent.glob(f"{self.path.stem}_*.pt"):
            path.unlink()


@float32_products()
def fit_heads(
    jobs: Sequence[HeadJob],
    design: Design,
    *,
    kept: PassFile | None = None,
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
    kept : PassFile, optional
        Written every `SAVE_MINUTES` and before a stop; where it is of these heads, they go on.
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
    for number, members in enumerate(passes.values()):
        file = None if kept is None else kept.part(number)
        heads = _fit_pass([jobs[i] for i in members], design, file, stop, on_epoch)
        for i, head in zip(members, heads, strict=True):
            fitted[i] = head
    return [head for head in fitted if head is not None]


def _goes_together(job: HeadJob, design: Design) -> bool:
    share = job.rows.size / design.targets.n * (1 - job.config.validation)
    return (
        (job.rows.size >= FEW_ROWS or job.config.validation == 0)
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
    kept: PassFile | None,
    stop: StopFlag | None,
    on_epoch: Callable[[int], object],
) -> list[FittedHead]:
    """Train heads together until each has stopped, or go on where the file says."""
    one, members = prepare_pass(jobs, design)
    found = None if kept is None else load_pass(kept.path, kept.mark, members)
    groups, (epoch, step) = (group_heads(members), (0, 0)) if found is None else found
    saved_at = time.monotonic()
    while groups and epoch < one.config.epochs:
        begun = time.perf_counter()
        train, step = _train_epoch(one, groups, epoch, step)
        held_out = _validate(one, groups)
        n_heads = sum(len(group.members) for group in groups)
        seconds = (time.perf_counter() - begun) / n_heads
        for group, losses, val_losses in zip(groups, train, held_out, strict=True):
            _close_epoch(group, losses, val_losses, seconds)
        groups, epoch = [group for group in groups if group.members], epoch + 1
        on_epoch(sum(len(group.members) for group in groups))
        asked = stop is not None and stop.is_set
        if kept is not None and (asked or time.monotonic() - saved_at >= 60 * SAVE_MINUTES):
            save_pass(kept.path, kept.mark, members, groups, (epoch, step))
            saved_at = time.monotonic()
        _leave_if_asked(stop)
    for group in groups:
        take_weights(group, range(len(group.members)))
    return [finish_member(member) for member in members]


def _train_epoch(
    one: Pass, groups: Sequence[Group], epoch: int, step: int
) -> tuple[list[np.ndarray], int]:
    """All steps of an epoch; mean training losses of the heads by group, steps done."""
    n, size = one.train.shape[1], one.config.batch_size
    order = row_order(n, one.design.order_seed, epoch, one.design.folds)
    totals = [torch.zeros(len(g.members), dtype=torch.float64) for g in groups]
    totals = [t.to(one.y.device) for t in totals]
    for start in range(0, n, size):
        rows = order[start : start + size]
        piece = make_piece(rows, one.train, one.y.device)
        counts = (piece.weight > 0).sum(1)
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


def _validate(one: Pass, groups: Sequence[Group]) -> list[np.ndarray | None]:
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


def _held_out_piece(one: Pass, start: int) -> Piece:
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
    group: Group, train: np.ndarray, held_out: np.ndarray | None, seconds: float
) -> None:
    """Record an epoch; heads whose patience has run out leave the group."""
    finished = []
    for k, member in enumerate(group.members):
        val_loss = None if held_out is None else float(held_out[k])
        _check(float(train[k]), member, "loss")
        member.close_epoch(float(train[k]), val_loss, seconds)
        if val_loss is not None:
            _check(val_loss, member, "validation loss")
            judge(member, val_loss, len(member.rows), partial(group.stack.heads.weights_of, k))
            if member.stopped_early:
                finished.append(k)
    if finished:
        take_weights(group, finished)
        going = [k for k in range(len(group.members)) if k not in finished]
        group.members = [group.members[k] for k in going]
        group.stack.keep(torch.tensor(going, dtype=torch.int64, device=group.stack.mask_of.device))


def _check(loss: float, member: Member, what: str) -> None:
    if not math.isfinite(loss):
        raise InputError(
            f"training: expected finite numbers; found a non-finite {what} of epoch "
            f"{max(len(member.rows), 1)}: check the values, or lower --head-lr"
        )


def _leave_if_asked(stop: StopFlag | None) -> None:
    if stop is not None and stop.is_set:
        stop.leave("while heads were trained; finished folds are kept")
