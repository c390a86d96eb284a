"""Fitting heads: a penalised linear map at its exact solution, and a hidden part where it pays.

The linear part is ridge or logistic regression. The hidden part starts at zero beside it and is
trained for as many epochs as lower the loss on held-out rows of inner folds, none allowed; what was
chosen is then fitted to all training rows. Networks of all heads, inner folds and seeds are trained
in one pass (`m1pipe.heads.networks`); one head alone is the plain case of it.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn

from m1pipe import seeds
from m1pipe.config import HeadConfig
from m1pipe.data.batches import row_order
from m1pipe.data.targets import OwnGenes, Targets
from m1pipe.heads.batched import Base, Network
from m1pipe.heads.features import Scale, View
from m1pipe.heads.fitted import FittedHead
from m1pipe.heads.head_data import AddedRows, HeadData, HeadJob
from m1pipe.heads.inner_folds import is_lower
from m1pipe.heads.linear import LinearPart
from m1pipe.heads.linear_fit import Part, Start, constant, prepare
from m1pipe.heads.networks import PassFile, held_out_curve, train_networks
from m1pipe.models.heads import Head, linear_layers, mean_head
from m1pipe.training.device import choose_threads, resolve_device, seeded
from m1pipe.training.signals import StopFlag

SMALL_CELLS = 2**22
"""Products of matrices of fewer cells get one thread: a second one gains little, and where another
process holds a core they wait a hundred times longer for each other than they compute."""
ENOUGH_ROWS = 5000
"""From so many on, one network is fitted to all rows in place of the mean of several."""


def fit_head(
    X: np.ndarray,
    targets: Targets,
    config: HeadConfig,
    *,
    rows: np.ndarray | None = None,
    seed: int,
    scale: Scale = "each",
    groups: np.ndarray | None = None,
    class_weight: np.ndarray | None = None,
    own: OwnGenes | None = None,
    added: AddedRows | None = None,
) -> FittedHead:
    """Fit one head to some rows of a feature matrix.

    Parameters
    ----------
    X : ndarray of float32, shape (n, n_features)
    targets : Targets
        Of all n rows.
    config : HeadConfig
    rows : ndarray of int, shape (n_rows,), optional
        Training rows; nothing about the other rows is looked at. Left out: all.
    seed, scale, class_weight, own, added
        As of `HeadJob`.
    groups : ndarray, shape (n,), optional
        As of `HeadData`.

    Returns
    -------
    FittedHead

    Raises
    ------
    InputError
        If there are fewer than two rows, or a loss is not finite.
    """
    rows = np.arange(targets.n) if rows is None else np.asarray(rows, dtype=np.int64)
    job = HeadJob(X, rows, (config,), seed, scale, own, added, class_weight)
    return fit_heads([job], HeadData(targets, seed, groups=groups))[0]


def fit_heads(
    jobs: Sequence[HeadJob],
    design: HeadData,
    *,
    kept: PassFile | None = None,
    stop: StopFlag | None = None,
    on_epoch: Callable[[int], object] = lambda n_training: None,
) -> list[FittedHead]:
    """Fit heads, the networks of all of them in one pass.

    Parameters
    ----------
    jobs : sequence of HeadJob
    design : HeadData
    kept : PassFile, optional
        Where the state of the networks is kept while they are trained; where it is of these heads,
        it is resumed from.
    stop : StopFlag, optional
        Checked after every epoch.
    on_epoch : callable
        Called after every epoch with the number of networks that are still being trained.

    Returns
    -------
    list of FittedHead
        In the order of the jobs; to rounding what each alone would be.

    Raises
    ------
    InputError
        If a head has fewer than two rows, or a loss is not finite.
    """
    device = resolve_device(jobs[0].configs[0].device)
    extra = [job.added.codes for job in jobs if job.added is not None]
    values = np.concatenate([design.targets.values, *extra]) if extra else design.targets.values
    y = torch.from_numpy(np.ascontiguousarray(values)).to(device)
    first, parts = design.targets.n, []
    starts: dict[Hashable, tuple[View, Start]] = {}
    with_network = {job.start_key() for job in jobs if any(c.hidden for c in job.configs)}
    libraries = ThreadpoolController()  # looks for them once: a job may take less than that
    for job in jobs:
        inner = job.start_key() in with_network
        cells = len(job.rows) * max(job.X.shape[1], design.targets.n_outputs)
        with libraries.limit(limits=1 if cells < SMALL_CELLS else None, user_api="blas"):
            parts.append(prepare(job, design, first, device, starts, with_inner=inner))
        first += 0 if job.added is None else job.added.codes.size
    tools = _Tools(y, _order(design, y.shape[0]), design.targets, kept, stop, on_epoch)
    for part in parts:
        part.epochs = {i: c.epochs for i, c in enumerate(part.configs) if c.hidden}
    _choose(parts, tools)
    return _finish(parts, tools)


def head_threads(n_features: int, n_outputs: int, config: HeadConfig) -> int:
    """Threads for the steps of a head of this size."""
    widths = (n_features, *config.hidden, n_outputs)
    return choose_threads(sum(a * b for a, b in pairwise(widths)), config.batch_size)


@dataclass(frozen=True, eq=False)
class _Tools:
    """What the two passes share."""

    y: Tensor
    order: Callable[[int], np.ndarray]
    targets: Targets
    kept: PassFile | None
    stop: StopFlag | None
    on_epoch: Callable[[int], object]


def _order(design: HeadData, n: int) -> Callable[[int], np.ndarray]:
    """The order of all rows in an epoch, those that are added behind the others."""
    folds = design.folds
    if folds is not None and n > folds.size:
        folds = np.concatenate([folds, np.full(n - folds.size, folds.max() + 1)])
    return lambda epoch: row_order(n, design.order_seed, epoch, folds)


def _network(part: Part, which: int, number: int, fold: int | None, epochs: int) -> Network:
    """A hidden part at its start, for all rows, or without those of an inner fold."""
    config = part.configs[which]
    widths, seed = config.hidden, seeds.of_network(part.job.seed, number)
    with seeded(seed):
        module = Head(part.x.shape[1], part.targets.n_outputs, widths, dropout=config.dropout)
    assert module.output is not None
    if config.linear:
        nn.init.zeros_(module.output.weight)
    if config.linear or config.initialize_bias:
        nn.init.zeros_(module.output.bias)
    everything = np.arange(part.targets.n)
    is_out = np.zeros(part.targets.n, bool) if fold is None else part.folds == fold
    linear = _linear(part, config, fold)
    return Network(
        module=module.to(part.x.device),
        x=part.x,
        places=part.places,
        rows=everything[~is_out],
        held_out=everything[is_out],
        base=None if linear is None else _base(part, linear),
        scale=part.scale,
        class_weight=part.class_weight,
        seed=seed,
        n_judged=int((part.folds >= 0).sum()),
        job=(part, which),
        epochs=epochs,
    )


def _linear(part: Part, config: HeadConfig, fold: int | None = None) -> LinearPart | None:
    """What a network stands beside: the linear part, or the log-odds where it stands alone."""
    fit = part.start.fit
    if part.configs[0].linear and not config.linear:
        fit = constant(part, part.start.inputs)
    if fit is None:
        return None
    if fold is None or not fit.inner:
        return fit.whole
    return fit.inner[int(np.flatnonzero(part.judged == fold)[0])]


def _base(part: Part, linear: LinearPart) -> Base:
    arrays = [linear.weight, linear.bias]
    if linear.own is not None and part.start.own is not None:
        arrays += [part.start.own, np.maximum(linear.own.column, 0), linear.own.slope]
    return Base(*(torch.from_numpy(values).to(part.x.device) for values in arrays))


def _choose(parts: Sequence[Part], tools: _Tools) -> None:
    """Epochs of every head, by the held-out rows of its inner folds; 0 leaves the network out."""
    tried: dict[Part, dict[int, list[Network]]] = {}
    for part in parts:
        if part.job.configs[0].validation == 0:
            continue
        if not part.judged.size:
            part.epochs = {}
            continue
        tried[part] = {
            i: [_network(part, i, k, int(fold), epochs) for k, fold in enumerate(part.judged)]
            for i, epochs in part.epochs.items()
        }
    networks = [network for own in tried.values() for each in own.values() for network in each]
    _train(networks, tools, "inner")
    for part, own in tried.items():
        if own:
            _take_best(part, own)


def _train(networks: Sequence[Network], tools: _Tools, name: str) -> None:
    """Train networks, those of equal rates in one pass."""
    passes: dict[HeadConfig, list[Network]] = {}
    for network in networks:  # what networks of one pass may differ in is left out of the key
        part, which = network.job
        rates = replace(part.configs[which], hidden=(1,), epochs=1, linear=True)
        passes.setdefault(rates, []).append(network)
    for number, (config, own) in enumerate(passes.items()):
        train_networks(
            own,
            tools.y,
            kind=tools.targets.kind,
            config=config,
            order=tools.order,
            kept=None if tools.kept is None else tools.kept.part(f"{name}{number}"),
            stop=tools.stop,
            on_epoch=tools.on_epoch,
        )
        for network in own:
            network.job[0].seconds += network.seconds


def _take_best(part: Part, found: dict[int, list[Network]]) -> None:
    """The configuration and number of epochs with the lowest loss on held-out rows.

    In the place of a linear part alone only where the loss is surely lower.
    """
    curves = {i: held_out_curve(own) for i, own in found.items()}
    first = {i: 0 if part.configs[i].linear else 1 for i in found}  # alone it takes a step at least
    best = min(found, key=lambda i: float(curves[i][first[i] :].min()))
    epochs = first[best] + int(curves[best][first[best] :].argmin())
    if part.configs[0].linear:
        start = min(found)
        if epochs and not is_lower(_changes(part, found[start], found[best], epochs)):
            best, epochs = start, 0
        part.chosen |= {"inner_loss_linear": float(curves[start][0])}
    part.epochs = {best: epochs} if epochs else {}
    part.curve = [float(loss) for loss in curves[best]]
    part.chosen |= {"inner_loss": float(curves[best][epochs])}


def _changes(
    part: Part, start: Sequence[Network], networks: Sequence[Network], epochs: int
) -> np.ndarray:
    """Change of the held-out loss from the start of some networks, of rows or means of groups."""
    pairs = zip(start, networks, strict=True)
    changes = np.concatenate([b.held_out_losses[epochs] - a.held_out_losses[0] for a, b in pairs])
    if part.groups is None:
        return changes
    rows = np.concatenate([network.held_out for network in networks])
    _, place = np.unique(part.groups[rows].astype(str), return_inverse=True)
    if place.max() == 0:
        return changes
    return np.bincount(place, changes) / np.bincount(place)


def _finish(parts: Sequence[Part], tools: _Tools) -> list[FittedHead]:
    """Train what was chosen on all rows, and put the heads together."""
    networks: dict[Part, list[Network]] = {part: [] for part in parts}
    for part in parts:
        for i, epochs in part.epochs.items():
            is_mean = part.configs[0].linear and part.targets.n < ENOUGH_ROWS
            n_seeds = part.configs[i].networks if is_mean else 1
            networks[part] += [_network(part, i, k, None, epochs) for k in range(n_seeds)]
    _train([network for own in networks.values() for network in own], tools, "final")
    for part, own in networks.items():
        part.chosen |= {"train_loss": own[-1].losses[-1]} if own else {}
    return [_assemble(part, own, tools.targets) for part, own in networks.items()]


def _assemble(part: Part, networks: Sequence[Network], targets: Targets) -> FittedHead:
    """One module of the linear part and the mean of the networks, in the targets' units."""
    hidden = mean_head([network.module for network in networks]) if networks else None
    widths = None if hidden is None else [m.out_features for m in linear_layers(hidden)[:-1]]
    (which, _), *_ = [*part.epochs.items(), (0, 0)]
    linear, left_out = _linear(part, part.configs[which]), None
    if part.configs[0].linear and not part.configs[which].linear:
        left_out = _linear(part, part.configs[0])
    with seeded(part.job.seed):  # the start is drawn, and written over
        module = Head(part.x.shape[1], targets.n_outputs, widths, linear=linear is not None)
    module.to(part.x.device)
    with torch.no_grad():
        if linear is not None and module.linear is not None:
            module.linear.weight.copy_(torch.from_numpy(linear.weight))
            module.linear.bias.copy_(torch.from_numpy(linear.bias))
        if hidden is not None and module.output is not None:
            for own, trained in zip(linear_layers(module), linear_layers(hidden), strict=True):
                own.weight.copy_(trained.weight)
                own.bias.copy_(trained.bias)
            module.output.weight.mul_(part.scale)
            module.output.bias.mul_(part.scale)
    return FittedHead(
        module.eval(),
        targets.kind,
        targets.names,
        targets.units,
        part.start.features,
        None if linear is None else linear.own,
        _described(part, len(networks)),
        part.curve,
        part.seconds,
        left_out,
    )


def _described(part: Part, n_networks: int) -> dict[str, Any]:
    """What was chosen, in plain values."""
    (which, epochs), *_ = [*part.epochs.items(), (0, 0)]
    config = part.configs[which]
    chosen = {**part.chosen, "epochs": epochs, "n_seeds": n_networks, "scale": part.job.scale}
    chosen |= {"linear": config.linear} if len(part.configs) > len(part.job.configs) else {}
    if len(part.job.configs) > 1:
        tried = {"hidden": list(config.hidden), "lr": config.lr, "n_tried": len(part.job.configs)}
        chosen |= tried
    return {k: v for k, v in chosen.items() if not (isinstance(v, float) and not np.isfinite(v))}
