"""Training of the hidden parts of many heads in one pass: of folds, models, inner folds and seeds.

Every epoch has one shuffled, fold-balanced order of all rows. A network goes through its own rows
in that order, in steps of equal size, so that one network trained alone makes the same steps.
"""

import math
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m1pipe.config import HeadConfig
from m1pipe.errors import InputError
from m1pipe.heads.batched import (
    Network,
    NetworkStack,
    held_out_losses,
    make_batch,
    make_stack,
    train_step,
)
from m1pipe.models.heads import linear_layers, set_weights
from m1pipe.models.kernels import float32_products
from m1pipe.training.checkpoint import load_checkpoint, save_checkpoint
from m1pipe.training.signals import StopFlag

SAVE_MINUTES = 10
WORTH_KEEPING = 30  # seconds of a finished pass: what is shorter is done again
HELD_OUT_ROWS = 256
LEAST_STEPS = 8
"""Steps an epoch where rows are few: patience counts epochs."""


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

    def part(self, name: str) -> "PassFile":
        """The file of one of several passes."""
        path = self.path.with_name(f"{self.path.stem}_{name}.pt")
        return PassFile(path, f"{self.mark} {name}")

    def remove(self) -> None:
        """Remove the files of all its parts."""
        for path in self.path.parent.glob(f"{self.path.stem}_*.pt"):
            path.unlink()


@dataclass(eq=False)
class Progress:
    """How the training of one network went.

    Attributes
    ----------
    train : list of float
        Mean loss of the training rows, an epoch.
    held_out : list of ndarray, each of shape (n_held_out,)
        Loss of every held-out row, before the first step and after every epoch.
    seconds : float
        An equal share of what its epochs took.
    """

    train: list[float] = field(default_factory=list)
    held_out: list[np.ndarray] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class NetworkPlan:
    """Networks that are trained in one pass.

    Attributes
    ----------
    networks : sequence of Network
    job : sequence of hashable
        Networks of one job stop together.
    epochs : sequence of int
        Most epochs of every network; at least 1.
    kind : str
        Kind of target.
    config : HeadConfig
        Rates, batch size and patience of all; widths are the networks' own.
    order : callable
        Takes the number of an epoch, from 0; returns the order in which it visits all n rows, an
        ndarray of int, shape (n,).
    """

    networks: Sequence[Network]
    job: Sequence[Hashable]
    epochs: Sequence[int]
    kind: str
    config: HeadConfig
    order: Callable[[int], np.ndarray]


@dataclass(eq=False)
class _Group:
    """Networks of one shape and number of steps that are still being trained."""

    stack: NetworkStack
    members: list[int]
    n_steps: int
    step: int = 0


@float32_products()
def train_networks(
    plan: NetworkPlan,
    y: Tensor,
    *,
    kept: PassFile | None = None,
    stop: StopFlag | None = None,
    on_epoch: Callable[[int], object] = lambda n_training: None,
) -> list[Progress]:
    """Train networks together; they end where their weights ended.

    A network ends after its epochs, or, where rows are held out, when the held-out loss of its job
    has not been lower for the configuration's patience, the start included.

    Parameters
    ----------
    plan : NetworkPlan
    y : Tensor, shape (n,) or (n, n_outputs)
        All targets, on the networks' device.
    kept : PassFile, optional
        Written every `SAVE_MINUTES`, before a stop, and at the end of a long pass; where it is of
        these networks, it is resumed from.
    stop : StopFlag, optional
        Checked after every epoch.
    on_epoch : callable
        Called after every epoch with the number of networks that are still being trained.

    Returns
    -------
    list of Progress

    Raises
    ------
    InputError
        If a loss is not finite.
    """
    found = None if kept is None else _load(kept, plan)
    if found is None:
        groups, epoch = _group(plan, range(len(plan.networks))), 0
        progress = [Progress() for _ in plan.networks]
        for group in groups:
            _judge(group, y, progress)
    else:
        groups, epoch, progress = found
    began = saved_at = time.monotonic()
    while groups:
        begun = time.perf_counter()
        ranks = np.argsort(plan.order(epoch))
        epoch += 1
        for group in groups:
            _train_epoch(group, y, ranks, progress)
            _judge(group, y, progress)
            _check(group, progress, epoch)
        n_networks = sum(len(group.members) for group in groups)
        for group in groups:
            for k in group.members:
                progress[k].seconds += (time.perf_counter() - begun) / n_networks
        groups = _go_on(groups, plan, progress, epoch)
        on_epoch(sum(len(group.members) for group in groups))
        asked = stop is not None and stop.is_set
        if kept is not None and (asked or time.monotonic() - saved_at >= 60 * SAVE_MINUTES):
            _save(kept, plan, groups, epoch, progress)
            saved_at = time.monotonic()
        leave_if_asked(stop)
    if kept is not None and time.monotonic() - began >= WORTH_KEEPING:
        _save(kept, plan, groups, epoch, progress)
    return progress


def leave_if_asked(stop: StopFlag | None) -> None:
    """Leave where a signal has asked for it."""
    if stop is not None and stop.is_set:
        stop.leave("while heads were trained; finished folds are kept")


def _group(plan: NetworkPlan, which: Sequence[int] | range) -> list[_Group]:
    """Networks of equal shape and number of steps together, in the order of their first."""
    shapes: dict[tuple[object, ...], list[int]] = {}
    for k in which:
        network = plan.networks[k]
        widths = tuple(layer.weight.shape for layer in linear_layers(network.module))
        key = (_n_steps(network, plan), network.base is None, *widths)
        shapes.setdefault(key, []).append(k)
    groups = []
    for own in shapes.values():
        stack = make_stack([plan.networks[k] for k in own], plan.kind, plan.config)
        groups.append(_Group(stack, own, _n_steps(plan.networks[own[0]], plan)))
    return groups


def _n_steps(network: Network, plan: NetworkPlan) -> int:
    """Steps an epoch: batches as the configuration wants them, smaller where rows are few."""
    n = network.rows.size
    return max(-(-n // plan.config.batch_size), min(LEAST_STEPS, n // 2, n), 1)


def _train_epoch(group: _Group, y: Tensor, ranks: np.ndarray, progress: Sequence[Progress]) -> None:
    """All steps of an epoch; the mean loss of every network is recorded."""
    networks, orders = group.stack.networks, {}
    batches = []
    for network in networks:
        key = (id(network.places), network.rows.tobytes())
        if key not in orders:
            places = network.places.cpu().numpy()[network.rows]
            own = network.rows[np.argsort(ranks[places], kind="stable")]
            orders[key] = np.array_split(own, group.n_steps)
        batches.append(orders[key])
    total = torch.zeros(len(networks), dtype=torch.float64, device=y.device)
    for step in range(group.n_steps):
        group.step += 1
        batch = make_batch([own[step] for own in batches], y.device)
        sizes = torch.tensor([own[step].size for own in batches], device=y.device)
        total += train_step(group.stack, batch, y, group.step) * sizes
    for k, loss, network in zip(group.members, total.tolist(), networks, strict=True):
        progress[k].train.append(loss / network.rows.size)


def _judge(group: _Group, y: Tensor, progress: Sequence[Progress]) -> None:
    """Losses of the held-out rows of every network, where there are any."""
    held_out = [network.held_out for network in group.stack.networks]
    sizes = [own.size for own in held_out]
    if not max(sizes):
        return
    parts = []
    for start in range(0, max(sizes), HELD_OUT_ROWS):
        own = [rows[start : start + HELD_OUT_ROWS] for rows in held_out]
        filled = [rows if rows.size else held_out[k][:1] for k, rows in enumerate(own)]
        losses = held_out_losses(group.stack, make_batch(filled, y.device), y)
        parts.append(losses.cpu().numpy())
    found = np.concatenate(parts, axis=1)
    for i, k in enumerate(group.members):
        if sizes[i]:
            progress[k].held_out.append(found[i, : sizes[i]].copy())


def _check(group: _Group, progress: Sequence[Progress], epoch: int) -> None:
    for k in group.members:
        held_out = progress[k].held_out[-1].sum() if progress[k].held_out else 0.0
        for loss, what in ((progress[k].train[-1], "loss"), (held_out, "validation loss")):
            if not math.isfinite(loss):
                raise InputError(
                    f"training: expected finite numbers; found a non-finite {what} of epoch "
                    f"{epoch}: check the values, or lower --head-lr"
                )


def held_out_curve(progress: Sequence[Progress]) -> np.ndarray:
    """Mean loss over the held-out rows of several networks, before the first step and by epoch."""
    n = sum(p.held_out[0].size for p in progress)
    found: np.ndarray = np.sum([[e.sum(dtype=np.float64) for e in p.held_out] for p in progress], 0)
    return found / n


def _go_on(
    groups: Sequence[_Group], plan: NetworkPlan, progress: Sequence[Progress], epoch: int
) -> list[_Group]:
    """The groups without the networks that have ended, which get their weights."""
    going = {k for group in groups for k in group.members}
    ended = {k for k in going if epoch >= plan.epochs[k]}
    if plan.config.patience:
        of_job: dict[Hashable, list[int]] = {}
        for k in sorted(going):
            if progress[k].held_out:
                of_job.setdefault(plan.job[k], []).append(k)
        for own in of_job.values():
            curve = held_out_curve([progress[k] for k in own])
            if epoch - int(curve.argmin()) >= plan.config.patience:
                ended.update(own)
    for group in groups:
        own = [i for i, k in enumerate(group.members) if k in ended]
        for i in own:
            set_weights(group.stack.networks[i].module, group.stack.heads.weights_of(i))
        left = [i for i in range(len(group.members)) if i not in set(own)]
        if own and left:
            group.stack.keep(left)
        group.members = [group.members[i] for i in left]
    return [group for group in groups if group.members]


def _save(
    kept: PassFile,
    plan: NetworkPlan,
    groups: Sequence[_Group],
    epoch: int,
    progress: Sequence[Progress],
) -> None:
    """Write the state after an epoch, so that `_load` resumes as if nothing had happened."""
    going = {k for group in groups for k in group.members}
    ended = [k for k in range(len(plan.networks)) if k not in going]
    state: dict[str, Any] = {
        "mark": kept.mark,
        "epoch": epoch,
        "progress": [
            {
                "train": p.train,
                "held_out": [torch.from_numpy(losses) for losses in p.held_out],
                "seconds": p.seconds,
            }
            for p in progress
        ],
        "ended": {
            str(k): [
                t.detach().clone()
                for name in ("weight", "bias")
                for t in (getattr(m, name) for m in linear_layers(plan.networks[k].module))
            ]
            for k in ended
        },
        "groups": [
            {
                "members": list(group.members),
                "step": group.step,
                "tensors": [t.detach() for t in group.stack.heads.tensors],
                "moments": [list(pair) for pair in group.stack.moments],
            }
            for group in groups
        ],
    }
    save_checkpoint(kept.path, state)


def _load(kept: PassFile, plan: NetworkPlan) -> tuple[list[_Group], int, list[Progress]] | None:
    """Put a saved state back into untrained networks; None if there is none of this pass."""
    if not kept.path.is_file():
        return None
    state = load_checkpoint(kept.path)
    if state["mark"] != kept.mark or len(state["progress"]) != len(plan.networks):
        return None
    progress = [
        Progress(p["train"], [t.numpy() for t in p["held_out"]], p["seconds"])
        for p in state["progress"]
    ]
    for k, weights in state["ended"].items():
        module = plan.networks[int(k)].module
        device = next(module.parameters()).device
        set_weights(module, [t.to(device) for t in weights])
    groups = []
    for own in state["groups"]:
        (group,) = _group(plan, own["members"])
        device = group.stack.heads.biases[0].device
        with torch.no_grad():
            for tensor, value in zip(group.stack.heads.tensors, own["tensors"], strict=True):
                tensor.copy_(value.to(device))
        group.stack.moments = [(m.to(device), v.to(device)) for m, v in own["moments"]]
        group.step = int(own["step"])
        groups.append(group)
    return groups, int(state["epoch"]), progress
