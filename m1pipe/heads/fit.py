"""Fitting heads: a penalised linear map at its exact solution, and a hidden part where it pays.

The linear part is ridge or logistic regression. The hidden part starts at zero beside it and is
trained for as many epochs as lower the loss on held-out rows of inner folds, none allowed; what was
chosen is then fitted to all training rows. Networks of all heads, inner folds and seeds are trained
in one pass (`m1pipe.heads.train`); one head alone is the plain case of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from m1pipe.config import HeadConfig
from m1pipe.data.own_gene import OwnGenes
from m1pipe.data.targets import Targets
from m1pipe.errors import InputError
from m1pipe.heads.added import AddedRows
from m1pipe.heads.features import Covariance, FeatureMap, Scale, fit_features, views
from m1pipe.heads.fitted import FittedHead
from m1pipe.heads.inner import deal_inner, judging_folds
from m1pipe.heads.linear import LinearPart, class_weights, fit_linear
from m1pipe.heads.own_gene import OwnTerm, fit_own_genes
from m1pipe.heads.rotation import Rotation, rotate
from m1pipe.heads.stack import Base, Network
from m1pipe.heads.train import Order, PassFile, Plan, Progress, held_out_curve, train_networks
from m1pipe.models.heads import Head, balanced_weight, initial_bias, linear_layers, mean_head
from m1pipe.training.device import resolve_device, seeded
from m1pipe.training.signals import StopFlag

FEW_ROWS = 8
"""With fewer training rows there is no hidden part."""
MANY_ROWS, MANY_LEVELS = 500, 100
"""From so many training rows on, or a fifth of them with so many levels each, one inner fold is
held out in place of all in turn."""
ENOUGH_ROWS = 5000
"""From so many on, one network is fitted to all rows in place of the mean of several."""
SEEDS = 5
"""Networks whose mean is the hidden part where rows are fewer."""
SURE = 0.95
"""One-sided confidence, over held-out rows or groups, that the hidden part lowers the loss."""


@dataclass(frozen=True, eq=False)
class HeadJob:
    """One head to be fitted.

    Attributes
    ----------
    X : ndarray of float32, shape (n, n_features)
        Features of all rows; without columns, only own genes and the mean are left to predict by.
    rows : ndarray of int, shape (n_rows,)
        Training rows.
    configs : tuple of HeadConfig
        Of which the one with the lowest loss on held-out rows is taken.
    seed : int
        Of the inner folds and where the networks start.
    scale : "each" or "one"
        Whether features are scaled each by its own spread, or all by one number.
    own : OwnGenes or None
        Of all rows: levels get a term for each one's own gene.
    added : AddedRows or None
        Rows that are trained on as well; they set no scale and are not held out.
    class_weight : ndarray, shape (n_classes,), or None
        In place of the configuration's.
    n_beside : int
        So many last features are a second block, of one scale: how much it counts is chosen with
        the penalty, nothing and alone allowed.
    covariance : Covariance or None
        Of the features elsewhere: to which power it is the prior of the coefficients is chosen
        with the penalty.
    """

    X: np.ndarray
    rows: np.ndarray
    configs: tuple[HeadConfig, ...]
    seed: int
    scale: Scale = "each"
    own: OwnGenes | None = None
    added: AddedRows | None = None
    class_weight: np.ndarray | None = None
    n_beside: int = 0
    covariance: Covariance | None = None


@dataclass(frozen=True, eq=False)
class Design:
    """What all heads of a pass share.

    Attributes
    ----------
    targets : Targets
        Of all n rows.
    order_seed : int
        Of the order of rows.
    folds : ndarray of int, shape (n,), or None
        Fold of every row, spread evenly over the order.
    groups : ndarray, shape (n,), or None
        Donor, say, of every row: never on both sides of an inner fold.
    """

    targets: Targets
    order_seed: int
    folds: np.ndarray | None = None
    groups: np.ndarray | None = None


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
        As of `Design`.

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
    return fit_heads([job], Design(targets, seed, groups=groups))[0]


def fit_heads(
    jobs: Sequence[HeadJob],
    design: Design,
    *,
    kept: PassFile | None = None,
    stop: StopFlag | None = None,
    on_epoch: Callable[[int], object] = lambda n_training: None,
) -> list[FittedHead]:
    """Fit heads, the networks of all of them in one pass.

    Parameters
    ----------
    jobs : sequence of HeadJob
    design : Design
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
    for job in jobs:
        parts.append(_prepare(job, design, first, device))
        first += 0 if job.added is None else job.added.codes.size
    tools = _Tools(y, _order(design, y.shape[0]), design.targets, kept, stop, on_epoch)
    for part in parts:
        part.epochs = {i: c.epochs for i, c in enumerate(part.job.configs) if c.hidden}
    _choose(parts, tools)
    return _finish(parts, tools)


@dataclass(eq=False)
class _Part:
    """A head while it is fitted."""

    job: HeadJob
    places: Tensor
    targets: Targets  # of the known rows
    folds: np.ndarray  # inner fold of the known rows; -1: always trained on
    groups: np.ndarray | None
    scale: float
    class_weight: Tensor | None
    start: "_Start" = field(init=False)
    x: Tensor = field(init=False)
    chosen: dict[str, Any] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)  # by configuration
    curve: list[float] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class _Tools:
    """What the two passes share."""

    y: Tensor
    order: Order
    targets: Targets
    kept: PassFile | None
    stop: StopFlag | None
    on_epoch: Callable[[int], object]


def _order(design: Design, n: int) -> Order:
    """The order of all rows, those that are added behind the others."""
    folds = design.folds
    if folds is not None and n > folds.size:
        folds = np.concatenate([folds, np.full(n - folds.size, folds.max() + 1)])
    return Order(n, design.order_seed, folds)


def _prepare(job: HeadJob, design: Design, first_added: int, device: torch.device) -> _Part:
    """Scale the features of a head, and fit its linear part."""
    rows, config = np.asarray(job.rows, dtype=np.int64), job.configs[0]
    if rows.size < 2:
        raise InputError(f"head: expected at least two training rows; found {rows.size}")
    X, targets, places = job.X[rows], design.targets.take(rows), rows
    groups = None if design.groups is None else design.groups[rows]
    folds = deal_inner(targets, groups, job.seed, config.validation)
    if job.added is not None:
        n_added = job.added.codes.size
        targets = replace(targets, values=np.concatenate([targets.values, job.added.codes]))
        places = np.concatenate([rows, np.arange(first_added, first_added + n_added)])
        folds = np.concatenate([np.where(folds == 0, 0, -1), np.full(n_added, -1)])
        groups = None
    part = _Part(
        job=job,
        places=torch.from_numpy(places).to(device),
        targets=targets,
        folds=folds,
        groups=groups,
        scale=_level_scale(targets) if config.initialize_bias else 1.0,
        class_weight=_class_weight(job, targets, device),
    )
    scale = job.scale if config.standardize else "none"
    best = np.inf
    tried = views(job.n_beside, job.covariance)
    for view in tried:
        seen = fit_features(X, scale, view=view, n_beside=job.n_beside, covariance=job.covariance)
        start = _start(part, *seen)
        if view is tried[0] or start.loss < best:
            part.start, best = start, start.loss
            part.chosen = start.facts | view.facts()
    part.x = torch.from_numpy(np.ascontiguousarray(part.start.inputs)).to(device)
    return part


@dataclass(frozen=True, eq=False)
class _Start:
    """Features of a head, and what stands beside its network."""

    features: FeatureMap
    inputs: np.ndarray
    whole: tuple[LinearPart, OwnTerm | None] | None
    inner: list[tuple[LinearPart, OwnTerm | None]]
    own: np.ndarray | None  # standardised levels of own genes
    facts: dict[str, Any]
    loss: float


def _start(
    part: "_Part", features: FeatureMap, inputs: np.ndarray, rotation: Rotation | None
) -> _Start:
    """The exact part of a head on some features, and those of its inner folds."""
    job, config = part.job, part.job.configs[0]
    if job.added is not None:
        inputs = np.concatenate([inputs, features.apply(job.added.X)])
        rotation = None if rotation is None else rotate(inputs)
    own = None if job.own is None else job.own.take(job.rows)
    if config.linear and rotation is not None:
        return _linear_start(part, features, inputs, rotation, own)
    if own is not None:
        none = Rotation.empty(len(inputs), inputs.shape[1])
        fit = fit_own_genes(none, np.inf, part.targets.values, own, folds=part.folds)
        known = fit.whole[1].standardize(own.values)
        return _Start(features, inputs, fit.whole, list(fit.inner), known, fit.facts, fit.loss)
    if config.initialize_bias:
        whole, inner = _constant(part, inputs.shape[1])
        return _Start(features, inputs, whole, inner, None, {}, np.nan)
    return _Start(features, inputs, None, [], None, {}, np.nan)


def _linear_start(
    part: "_Part",
    features: FeatureMap,
    inputs: np.ndarray,
    rotation: Rotation,
    own: OwnGenes | None,
) -> _Start:
    """Ridge or logistic regression, and with own genes their joint fit."""
    weight = None
    if part.targets.kind != "regression" and part.class_weight is not None:
        weight = class_weights(part.targets, part.class_weight.cpu().numpy())
    fit = fit_linear(
        rotation,
        part.targets,
        folds=part.folds,
        groups=part.groups,
        weight=weight,
        with_inner=own is None and any(config.hidden for config in part.job.configs),
    )
    if own is not None:
        both = fit_own_genes(rotation, fit.alpha, part.targets.values, own, folds=part.folds)
        known = both.whole[1].standardize(own.values)
        return _Start(features, inputs, both.whole, list(both.inner), known, both.facts, both.loss)
    inner: list[tuple[LinearPart, OwnTerm | None]] = [(linear, None) for linear in fit.inner]
    facts = {"alpha": fit.alpha, "inner_loss": fit.loss / part.scale**2}
    return _Start(features, inputs, (fit.whole, None), inner, None, facts, fit.loss)


def _constant(
    part: "_Part", n_in: int
) -> tuple[tuple[LinearPart, None], list[tuple[LinearPart, OwnTerm | None]]]:
    """The mean level, or the log-odds, where a network stands alone."""
    targets = part.targets

    def constant(rows: np.ndarray) -> tuple[LinearPart, None]:
        values = torch.from_numpy(targets.values[rows])
        weight = None if part.class_weight is None else part.class_weight.cpu()
        bias = initial_bias(targets.kind, values, len(targets.names), weight).numpy()
        none = np.zeros((bias.size, n_in), dtype=np.float32)
        return LinearPart(none, bias.astype(np.float32)), None

    inner: list[tuple[LinearPart, OwnTerm | None]] = []
    inner += [constant(part.folds != fold) for fold in _fold_names(part)]
    return constant(np.ones(targets.n, dtype=bool)), inner


def _fold_names(part: _Part) -> np.ndarray:
    return np.unique(part.folds[part.folds >= 0])


def _level_scale(targets: Targets) -> float:
    """One standard deviation for all levels: the loss keeps its proportions."""
    if targets.kind != "regression":
        return 1.0
    spread = float(np.sqrt(np.mean(targets.values.var(axis=0, dtype=np.float64))))
    return spread if spread > 0 else 1.0


def _class_weight(job: HeadJob, targets: Targets, device: torch.device) -> Tensor | None:
    """Weights of the classes: those given, or balanced over the training targets."""
    if job.class_weight is not None:
        return torch.from_numpy(job.class_weight.astype(np.float32)).to(device)
    if not job.configs[0].class_weight:
        return None
    values = torch.from_numpy(np.ascontiguousarray(targets.values))
    weight = balanced_weight(targets.kind, values, len(targets.names))
    return None if weight is None else weight.to(device)


def _network(part: _Part, config: HeadConfig, seed: int, fold: int | None) -> Network:
    """A hidden part at its start: beside the linear part of all rows, or without an inner fold."""
    widths = config.hidden
    with seeded(seed):
        module = Head(part.x.shape[1], part.targets.n_outputs, widths, dropout=config.dropout)
    if config.linear:
        assert module.output is not None
        nn.init.zeros_(module.output.weight)
        nn.init.zeros_(module.output.bias)
    elif config.initialize_bias:
        assert module.output is not None
        nn.init.zeros_(module.output.bias)
    everything = np.arange(part.targets.n)
    is_out = np.zeros(part.targets.n, bool) if fold is None else part.folds == fold
    pair = part.start.whole
    if fold is not None and part.start.inner:
        pair = part.start.inner[int(np.flatnonzero(_fold_names(part) == fold)[0])]
    return Network(
        module=module.to(part.x.device),
        x=part.x,
        places=part.places,
        rows=everything[~is_out],
        held_out=everything[is_out],
        base=None if pair is None else _base(part, pair),
        scale=part.scale,
        class_weight=part.class_weight,
        seed=seed,
    )


def _base(part: _Part, pair: tuple[LinearPart, OwnTerm | None]) -> Base:
    linear, own = pair
    device = part.x.device
    weight, bias = (torch.from_numpy(a).to(device) for a in (linear.weight, linear.bias))
    if own is None or part.start.own is None:
        return Base(weight, bias)
    return Base(
        weight,
        bias,
        torch.from_numpy(part.start.own).to(device),
        torch.from_numpy(np.maximum(own.column, 0)).to(device),
        torch.from_numpy(own.slope).to(device),
    )


def _seed(part: _Part, number: int) -> int:
    """Seed of one of a head's networks; the first has the head's own."""
    return part.job.seed + 1_000_003 * number


def _choose(parts: Sequence[_Part], tools: _Tools) -> None:
    """Epochs of every head, by the held-out rows of its inner folds; 0 leaves the network out."""
    tried: dict[HeadConfig, list[tuple[_Part, int, Network, int]]] = {}
    for part in parts:
        many = MANY_ROWS // 5 if part.targets.n_outputs >= MANY_LEVELS else MANY_ROWS
        judged = judging_folds(part.folds, part.groups, many)
        if part.job.configs[0].validation == 0:
            continue
        if part.targets.n < FEW_ROWS or not judged.size:
            part.epochs = {}
            continue
        for i, config in enumerate(part.job.configs):
            for number, fold in enumerate(judged if config.hidden else ()):
                network = _network(part, config, _seed(part, number), int(fold))
                key = _rates(config)
                tried.setdefault(key, []).append((part, i, network, config.epochs))
    curves: dict[tuple[int, int], list[tuple[Network, Progress]]] = {}
    for number, (config, items) in enumerate(tried.items()):
        jobs = [hash((id(part), i)) for part, i, _, _ in items]
        plan = Plan(
            [item[2] for item in items],
            jobs,
            [item[3] for item in items],
            tools.targets.kind,
            config,
            tools.order,
        )
        for (part, i, network, _), progress in zip(
            items, _train(plan, tools, f"inner{number}"), strict=True
        ):
            curves.setdefault((id(part), i), []).append((network, progress))
            part.seconds += progress.seconds
    for part in parts:
        own = {i: curves[id(part), i] for i in part.epochs if (id(part), i) in curves}
        if own:
            _take_best(part, own)


def _take_best(part: _Part, found: dict[int, list[tuple[Network, Progress]]]) -> None:
    """The configuration and number of epochs with the lowest loss on held-out rows."""
    curves = {i: held_out_curve([p for _, p in own]) for i, own in found.items()}
    best = min(curves, key=lambda i: float(curves[i].min()))
    curve, config = curves[best], part.job.configs[best]
    first = 0 if config.linear else 1  # a network alone takes a step at least
    epochs = first + int(curve[first:].argmin())
    if config.linear and epochs and not is_lower(_changes(part, found[best], epochs)):
        epochs = 0
    part.epochs = {best: epochs} if epochs else {}
    part.curve = [float(loss) for loss in curve]
    part.chosen |= {"inner_loss": float(curve[epochs])}
    part.chosen |= {"inner_loss_linear": float(curve[0])} if config.linear else {}


def _changes(part: _Part, found: Sequence[tuple[Network, Progress]], epochs: int) -> np.ndarray:
    """Change of the held-out loss by the hidden part, of every row or mean of every group."""
    changes = np.concatenate([p.held_out[epochs] - p.held_out[0] for _, p in found])
    if part.groups is None:
        return changes
    rows = np.concatenate([network.held_out for network, _ in found])
    _, place = np.unique(part.groups[rows].astype(str), return_inverse=True)
    if place.max() == 0:
        return changes
    means: np.ndarray = np.bincount(place, changes) / np.bincount(place)
    return means


def is_lower(changes: np.ndarray) -> bool:
    """Whether changes of a loss are below zero by a one-sided t-test at `SURE`.

    Parameters
    ----------
    changes : ndarray, shape (n_units,)
        Of rows or groups; fewer than two say nothing.
    """
    n = len(changes)
    if n < 2:
        return False
    error = changes.std(ddof=1) / np.sqrt(n)
    return bool(changes.mean() + stats.t.ppf(SURE, n - 1) * error < 0)


def _rates(config: HeadConfig) -> HeadConfig:
    """The configuration without what networks of one pass may differ in."""
    return replace(config, hidden=(1,), epochs=1)


def _train(plan: Plan, tools: _Tools, name: str) -> list[Progress]:
    kept = None if tools.kept is None else tools.kept.part(name)
    return train_networks(plan, tools.y, kept=kept, stop=tools.stop, on_epoch=tools.on_epoch)


def _finish(parts: Sequence[_Part], tools: _Tools) -> list[FittedHead]:
    """Train what was chosen on all rows, and put the heads together."""
    wanted: dict[HeadConfig, list[tuple[_Part, Network, int]]] = {}
    for part in parts:
        for i, epochs in part.epochs.items():
            config = part.job.configs[i]
            n_seeds = SEEDS if config.linear and part.targets.n < ENOUGH_ROWS else 1
            for number in range(n_seeds):
                network = _network(part, config, _seed(part, number), None)
                key = _rates(config)
                wanted.setdefault(key, []).append((part, network, epochs))
    networks: dict[int, list[Network]] = {}
    for number, (config, items) in enumerate(wanted.items()):
        plan = Plan(
            [network for _, network, _ in items],
            list(range(len(items))),
            [epochs for _, _, epochs in items],
            tools.targets.kind,
            config,
            tools.order,
        )
        for (part, network, _), progress in zip(
            items, _train(plan, tools, f"final{number}"), strict=True
        ):
            networks.setdefault(id(part), []).append(network)
            part.seconds += progress.seconds
            part.chosen["train_loss"] = progress.train[-1]
    return [_assemble(part, networks.get(id(part), []), tools.targets) for part in parts]


def _assemble(part: _Part, networks: Sequence[Network], targets: Targets) -> FittedHead:
    """One module of the linear part and the mean of the networks, in the targets' units."""
    hidden = mean_head([network.module for network in networks]) if networks else None
    widths = None if hidden is None else [m.out_features for m in linear_layers(hidden)[:-1]]
    is_linear = part.start.whole is not None
    with seeded(part.job.seed):  # the start is drawn, and written over
        module = Head(part.x.shape[1], targets.n_outputs, widths, linear=is_linear)
    module.to(part.x.device)
    with torch.no_grad():
        if part.start.whole is not None and module.linear is not None:
            module.linear.weight.copy_(torch.from_numpy(part.start.whole[0].weight))
            module.linear.bias.copy_(torch.from_numpy(part.start.whole[0].bias))
        if hidden is not None and module.output is not None:
            for own, trained in zip(linear_layers(module), linear_layers(hidden), strict=True):
                own.weight.copy_(trained.weight)
                own.bias.copy_(trained.bias)
            module.output.weight.mul_(part.scale)
            module.output.bias.mul_(part.scale)
    own_term = None if part.start.whole is None else part.start.whole[1]
    names, units = targets.names, targets.units
    return FittedHead(
        module.eval(),
        targets.kind,
        names,
        units,
        part.start.features,
        own_term,
        _facts(part, len(networks)),
        part.curve,
        part.seconds,
    )


def _facts(part: _Part, n_networks: int) -> dict[str, Any]:
    """What was chosen, in plain values."""
    (which, epochs), *_ = [*part.epochs.items(), (0, 0)]
    config = part.job.configs[which]
    chosen = {**part.chosen, "epochs": epochs, "n_seeds": n_networks, "scale": part.job.scale}
    if len(part.job.configs) > 1:
        tried = {"hidden": list(config.hidden), "lr": config.lr, "n_tried": len(part.job.configs)}
        chosen |= tried
    return {k: v for k, v in chosen.items() if not (isinstance(v, float) and not np.isfinite(v))}
