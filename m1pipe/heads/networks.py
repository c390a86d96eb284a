"""Training of the hidden parts of many heads in one pass: of folds, models, inner folds and seeds.

Every epoch has one shuffled, fold-balanced order of all rows. A network goes through its own rows
in that order, in steps of equal size, so that one network trained alone makes the same steps.
"""

import math
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
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


@float32_products()
def train_networks(
    networks: Sequence[Network],
    y: Tensor,
    *,
    kind: str,
    config: HeadConfig,
    order: Callable[[int], np.ndarray],
    kept: PassFile | None = None,
    stop: StopFlag | None = None,
    on_epoch: Callable[[int], object] = lambda n_training: None,
) -> None:
    """Train networks in one pass; they end where their weights ended, with their losses.

    A network ends after its epochs, or, where rows are held out, when the held-out loss of its job
    has not been lower for the configuration's patience, the start included.

    Parameters
    ----------
    networks : sequence of Network
        Untrained.
    y : Tensor, shape (n,) or (n, n_outputs)
        All targets, on the networks' device.
    kind : str
        Kind of target.
    config : HeadConfig
        Rates, batch size and patience of all; widths are the networks' own.
    order : callable
        Takes the number of an epoch, from 0; returns the order in which it visits all n rows, an
        ndarray of int, shape (n,).
    kept : PassFile, optional
        Written every `SAVE_MINUTES`, before a stop, and at the end of a long pass; where it is of
        these networks, it is resumed from.
    stop : StopFlag, optional
        Checked after every epoch.
    on_epoch : callable
        Called after every epoch with the number of networks that are still being trained.

    Raises
    ------
    InputError
        If a loss is not finite.
    """
    found = None if kept is None else _load(kept, networks, kind, config)
    if found is None:
        stacks, epoch = _stacks(networks, kind, config), 0
        for stack in stacks:
            _judge(stack, y)
    else:
        stacks, epoch = found
    began = saved_at = time.monotonic()
    while stacks:
        begun = time.perf_counter()
        ranks = np.argsort(order(epoch))
        epoch += 1
        for stack in stacks:
            _train_epoch(stack, y, ranks)
            _judge(stack, y)
            _check(stack, epoch)
        training = [network for stack in stacks for network in stack.networks]
        for network in training:
            network.seconds += (time.perf_counter() - begun) / len(training)
        stacks = _without(stacks, _ended(training, networks, epoch, config.patience))
        on_epoch(sum(len(stack.networks) for stack in stacks))
        asked = stop is not None and stop.is_set
        if kept is not None and (asked or time.monotonic() - saved_at >= 60 * SAVE_MINUTES):
            _save(kept, networks, stacks, epoch)
            saved_at = time.monotonic()
        leave_if_asked(stop)
    if kept is not None and time.monotonic() - began >= WORTH_KEEPING:
        _save(kept, networks, stacks, epoch)


def leave_if_asked(stop: StopFlag | None) -> None:
    """Leave where a signal has asked for it."""
    if stop is not None and stop.is_set:
        stop.leave("while heads were trained; finished folds are kept")


def _stacks(networks: Sequence[Network], kind: str, config: HeadConfig) -> list[NetworkStack]:
    """Networks of equal shape and number of steps together, in the order of their first."""
    shapes: dict[tuple[object, ...], list[Network]] = {}
    for network in networks:
        widths = tuple(layer.weight.shape for layer in linear_layers(network.module))
        key = (_n_steps(network, config), network.base is None, *widths)
        shapes.setdefault(key, []).append(network)
    return [make_stack(own, kind, config, _n_steps(own[0], config)) for own in shapes.values()]


def _n_steps(network: Network, config: HeadConfig) -> int:
    """Steps an epoch: batches as the configuration wants them, smaller where rows are few."""
    n = network.rows.size
    return max(-(-n // config.batch_size), min(LEAST_STEPS, n // 2, n), 1)


def _train_epoch(stack: NetworkStack, y: Tensor, ranks: np.ndarray) -> None:
    """All steps of an epoch; the mean loss of every network is recorded."""
    orders: dict[Hashable, list[np.ndarray]] = {}
    batches = []
    for network in stack.networks:
        key = (id(network.places), network.rows.tobytes())
        if key not in orders:
            places = network.places.cpu().numpy()[network.rows]
            own = network.rows[np.argsort(ranks[places], kind="stable")]
            orders[key] = np.array_split(own, stack.n_steps)
        batches.append(orders[key])
    total = torch.zeros(len(batches), dtype=torch.float64, device=y.device)
    for step in range(stack.n_steps):
        rows = [own[step] for own in batches]
        sizes = torch.tensor([own.size for own in rows], device=y.device)
        total += train_step(stack, make_batch(rows, y.device), y) * sizes
    for loss, network in zip(total.tolist(), stack.networks, strict=True):
        network.losses.append(loss / network.rows.size)


def _judge(stack: NetworkStack, y: Tensor) -> None:
    """Losses of the held-out rows of every network, where there are any."""
    held_out = [network.held_out for network in stack.networks]
    most, parts = max(own.size for own in held_out), []
    for start in range(0, most, HELD_OUT_ROWS):
        own = [rows[start : start + HELD_OUT_ROWS] for rows in held_out]
        filled = [rows if rows.size else held_out[k][:1] for k, rows in enumerate(own)]
        parts.append(held_out_losses(stack, make_batch(filled, y.device), y).cpu().numpy())
    if not parts:
        return
    for network, losses in zip(stack.networks, np.concatenate(parts, axis=1), strict=True):
        if network.held_out.size:
            network.held_out_losses.append(losses[: network.held_out.size].copy())


def _check(stack: NetworkStack, epoch: int) -> None:
    for network in stack.networks:
        held_out = network.held_out_losses[-1].sum() if network.held_out_losses else 0.0
        for loss, what in ((network.losses[-1], "loss"), (held_out, "validation loss")):
            if not math.isfinite(loss):
                raise InputError(
                    f"training: expected finite numbers; found a non-finite {what} of epoch "
                    f"{epoch}: check the values, or lower --head-lr"
                )


def held_out_curve(networks: Sequence[Network]) -> np.ndarray:
    """Mean loss over the held-out rows of several networks, before the first step and by epoch."""
    sums = [[e.sum(dtype=np.float64) for e in own.held_out_losses] for own in networks]
    found: np.ndarray = np.sum(sums, 0)
    return found / sum(own.held_out.size for own in networks)


def _ended(
    training: Sequence[Network], networks: Sequence[Network], epoch: int, patience: int
) -> set[Network]:
    """Those after their last epoch, and those whose patience is exhausted."""
    going = set(training)
    ended = {network for network in training if epoch >= network.epochs}
    jobs: dict[Hashable, list[Network]] = {}
    for network in networks:  # in this order, since sums depend on it
        if patience and network in going and network.held_out_losses:
            jobs.setdefault(network.job, []).append(network)
    for own in jobs.values():
        if epoch - int(held_out_curve(own).argmin()) >= patience:
            ended.update(own)
    return ended


def _without(stacks: Sequence[NetworkStack], ended: set[Network]) -> list[NetworkStack]:
    """The stacks without the networks that have ended, which get their weights."""
    going = []
    for stack in stacks:
        left = [i for i, network in enumerate(stack.networks) if network not in ended]
        for i, network in enumerate(stack.networks):
            if network in ended:
                set_weights(network.module, stack.heads.weights_of(i))
        if len(left) < len(stack.networks) and left:
            stack.keep(left)
        going += [stack] if left else []
    return going


def _save(
    kept: PassFile, networks: Sequence[Network], stacks: Sequence[NetworkStack], epoch: int
) -> None:
    """Write the state after an epoch, so that `_load` resumes as if nothing had happened."""
    numbers = {network: k for k, network in enumerate(networks)}
    members = [[numbers[network] for network in stack.networks] for stack in stacks]
    going = {network for stack in stacks for network in stack.networks}
    state: dict[str, Any] = {
        "mark": kept.mark,
        "epoch": epoch,
        "progress": [
            {
                "train": network.losses,
                "held_out": [torch.from_numpy(losses) for losses in network.held_out_losses],
                "seconds": network.seconds,
            }
            for network in networks
        ],
        "ended": {
            str(k): [
                t.detach().clone()
                for name in ("weight", "bias")
                for t in (getattr(m, name) for m in linear_layers(network.module))
            ]
            for k, network in enumerate(networks)
            if network not in going
        },
        "groups": [
            {
                "members": own,
                "step": stack.step,
                "tensors": [t.detach() for t in stack.heads.tensors],
                "moments": [list(pair) for pair in stack.moments],
            }
            for own, stack in zip(members, stacks, strict=True)
        ],
    }
    save_checkpoint(kept.path, state)


def _load(
    kept: PassFile, networks: Sequence[Network], kind: str, config: HeadConfig
) -> tuple[list[NetworkStack], int] | None:
    """Put a saved state back into untrained networks; None if there is none of this pass."""
    if not kept.path.is_file():
        return None
    state = load_checkpoint(kept.path)
    if state["mark"] != kept.mark or len(state["progress"]) != len(networks):
        return None
    for network, stored in zip(networks, state["progress"], strict=True):
        network.losses, network.seconds = stored["train"], stored["seconds"]
        network.held_out_losses = [losses.numpy() for losses in stored["held_out"]]
    for k, weights in state["ended"].items():
        network = networks[int(k)]
        set_weights(network.module, [t.to(network.x.device) for t in weights])
    stacks = []
    for stored in state["groups"]:
        (stack,) = _stacks([networks[k] for k in stored["members"]], kind, config)
        device = stack.heads.biases[0].device
        with torch.no_grad():
            for tensor, value in zip(stack.heads.tensors, stored["tensors"], strict=True):
                tensor.copy_(value.to(device))
        stack.moments = [(m.to(device), v.to(device)) for m, v in stored["moments"]]
        stack.step = int(stored["step"])
        stacks.append(stack)
    return stacks, int(state["epoch"])
