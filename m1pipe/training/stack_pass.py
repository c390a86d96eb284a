"""The state of a pass over heads of several folds and models, and how it is kept on disk."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m1pipe.artefacts import reading
from m1pipe.config import HeadConfig
from m1pipe.data.splits import inner_split
from m1pipe.data.targets import Targets
from m1pipe.models.stacked import set_weights
from m1pipe.training.best import ran_out
from m1pipe.training.checkpoint import load_checkpoint, save_checkpoint
from m1pipe.training.fitted_head import FittedHead
from m1pipe.training.head_start import HeadStart, HeadTask, finish_head, make_task, start_head
from m1pipe.training.history import History
from m1pipe.training.stack import Stack, make_stack

FARING = ("rows", "best_loss", "best_epoch", "waited", "best_weights")  # of a member


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
class Member:
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

    @property
    def stopped_early(self) -> bool:
        """Whether the patience has run out."""
        return ran_out(self, self.task.config.patience)


@dataclass(eq=False)
class Group:
    """The heads of one shape that are still being trained."""

    stack: Stack
    members: list[Member]


@dataclass(frozen=True, eq=False)
class Pass:
    """What the epochs of a pass share: distinct sets of rows (n_masks, n), and the targets."""

    design: Design
    config: HeadConfig
    y: Tensor
    train: np.ndarray
    held_out: np.ndarray


def prepare_pass(jobs: Sequence[HeadJob], design: Design) -> tuple[Pass, list[Member]]:
    """The rows of every head, each distinct set once, and where every head starts."""
    n, config = design.targets.n, jobs[0].config
    sets: dict[tuple[bytes, int], int] = {}
    train, held_out = [], []
    members: list[Member] = []
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
        members.append(Member(task, start_head(task, job.rows), sets[key]))
    masks = np.stack(train), np.stack(held_out)
    return Pass(design, config, members[0].task.y, *masks), members


def _inner(job: HeadJob, design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, and those that decide when to stop (none without validation)."""
    share = job.config.validation
    if share == 0:
        return job.rows, job.rows[:0]
    return inner_split(job.rows, share, job.seed, strata=design.strata, groups=design.groups)


def group_heads(members: Sequence[Member]) -> list[Group]:
    """Heads of equal shape together, in the order of their first."""
    shapes: dict[tuple[int, ...], list[Member]] = {}
    for member in members:
        shape = (member.task.x.shape[1], *member.task.config.hidden)
        shapes.setdefault(shape, []).append(member)
    return [
        Group(make_stack([m.task for m in own], [m.start for m in own], [m.mask for m in own]), own)
        for own in shapes.values()
    ]


def take_weights(group: Group, which: Iterable[int]) -> None:
    """Give members their best weights, or, without validation, their last."""
    for k in which:
        member = group.members[k]
        weights = member.best_weights or group.stack.heads.weights_of(k)
        set_weights(member.start.module, weights)


def finish_member(member: Member) -> FittedHead:
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


def save_pass(
    path: Path, mark: str, members: Sequence[Member], groups: Sequence[Group], done: tuple[int, int]
) -> None:
    """Write the state after an epoch, so that `load_pass` goes on as if nothing had happened.

    Parameters
    ----------
    path : Path
    mark : str
        Of the comparison and the folds that the pass belongs to.
    members : sequence of Member
        All heads.
    groups : sequence of Group
        Those that are still being trained.
    done : (int, int)
        Epochs and steps that are done.
    """
    number = {id(member): k for k, member in enumerate(members)}
    save_checkpoint(
        path,
        {
            "mark": mark,
            "done": list(done),
            "members": [{name: getattr(member, name) for name in FARING} for member in members],
            "groups": [
                {
                    "members": [number[id(member)] for member in group.members],
                    "tensors": [t.detach() for t in group.stack.heads.tensors],
                    "moments": [list(pair) for pair in group.stack.moments],
                }
                for group in groups
            ],
        },
    )


def load_pass(
    path: Path, mark: str, members: Sequence[Member]
) -> tuple[list[Group], tuple[int, int]] | None:
    """Put a saved state back into untrained members; None if there is none of this pass.

    Returns
    -------
    groups : list of Group
    done : (int, int)
        Epochs and steps that are done.
    """
    if not path.is_file():
        return None
    state = load_checkpoint(path)
    if state.get("mark") != mark:
        return None
    with reading(path, "the state of a pass", remedy="remove the file, and the pass begins anew"):
        return _put_back(state, members)


def _put_back(
    state: dict[str, Any], members: Sequence[Member]
) -> tuple[list[Group], tuple[int, int]]:
    """What `load_pass` does with a state of this pass."""
    device = members[0].task.device
    for member, kept in zip(members, state["members"], strict=True):
        for name in FARING:
            setattr(member, name, kept[name])
        if member.best_weights is not None:
            member.best_weights = [t.to(device) for t in member.best_weights]
            if member.stopped_early:
                set_weights(member.start.module, member.best_weights)
    groups = [_load_group(kept, members, device) for kept in state["groups"]]
    return groups, (int(state["done"][0]), int(state["done"][1]))


def _load_group(kept: dict[str, Any], members: Sequence[Member], device: torch.device) -> Group:
    own = [members[k] for k in kept["members"]]
    group = group_heads(own)[0]
    with torch.no_grad():
        for tensor, value in zip(group.stack.heads.tensors, kept["tensors"], strict=True):
            tensor.copy_(value.to(device))
    group.stack.moments = [(m.to(device), v.to(device)) for m, v in kept["moments"]]
    return group
