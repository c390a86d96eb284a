"""The exact part of a head: its features scaled and rotated, ridge or logistic regression on them.

Of several views of the features the one with the lowest loss on left-out rows is taken. All of it
happens before any network is trained.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m1pipe.config import HeadConfig
from m1pipe.data.targets import Targets
from m1pipe.errors import InputError
from m1pipe.heads.features import FeatureMap, Rotation, View, fit_features, rotate, views
from m1pipe.heads.head_data import HeadData, HeadJob
from m1pipe.heads.inner_folds import deal_inner, is_lower, judging_folds
from m1pipe.heads.linear import LinearChoice, LinearPart, class_weights, fit_linear
from m1pipe.heads.own_gene import fit_own_genes
from m1pipe.heads.score import SHARES, add_score, beside_score, mean_share
from m1pipe.models.heads import balanced_weight, initial_bias


@dataclass(frozen=True, eq=False)
class Start:
    """Features of a head, and what stands beside its network.

    Attributes
    ----------
    features : FeatureMap
    inputs : ndarray of float32, shape (n_known, n_inputs)
    fit : LinearChoice or None
        Of all known rows, and without those of each fold of `Part.judged`; None where nothing
        stands beside the network.
    chosen : dict
        What was chosen.
    own : ndarray of float32, shape (n_known, n_own), or None
        Standardised levels of own genes.
    """

    features: FeatureMap
    inputs: np.ndarray
    fit: LinearChoice | None = None
    chosen: dict[str, Any] = field(default_factory=dict)
    own: np.ndarray | None = None

    @property
    def loss(self) -> float:
        """On left-out rows, as of `LinearChoice`."""
        return np.nan if self.fit is None else self.fit.loss

    @property
    def unit_losses(self) -> np.ndarray:
        """Of every left-out row, group or fold."""
        return np.zeros(0) if self.fit is None else self.fit.unit_losses


@dataclass(eq=False)
class Part:
    """A head while it is fitted.

    Attributes
    ----------
    job : HeadJob
    places : Tensor of int64, shape (n_known,)
        Where the rows that it knows stand among all: training rows, then added ones.
    targets : Targets
        Of the known rows.
    folds : ndarray of int, shape (n_known,)
        Their inner folds; -1: always trained on.
    judged : ndarray of int
        The folds that are held out to judge a network.
    groups : ndarray, shape (n_known,), or None
    scale : float
        Of levels: what a network puts out is in these units.
    class_weight : Tensor or None
    start : Start
        The exact part.
    x : Tensor, shape (n_known, n_inputs)
        What a network sees.
    configs : tuple of HeadConfig
        Those of the job; of labels also those of networks alone.
    chosen : dict
        Of `m1pipe.heads.fitted.FittedHead`.
    epochs : dict of int to int
        By the number of a configuration.
    curve : list of float
    seconds : float
    """

    job: HeadJob
    places: Tensor
    targets: Targets
    folds: np.ndarray
    judged: NDArray[np.intp]
    groups: np.ndarray | None
    scale: float
    class_weight: Tensor | None
    start: Start = field(init=False)
    x: Tensor = field(init=False)
    configs: tuple[HeadConfig, ...] = ()
    chosen: dict[str, Any] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)
    curve: list[float] = field(default_factory=list)
    seconds: float = 0.0


def prepare(
    job: HeadJob,
    design: HeadData,
    first_added: int,
    device: torch.device,
    starts: dict[Hashable, tuple[View, Start]],
    *,
    with_inner: bool,
) -> Part:
    """Scale the features of a head, and fit its exact part.

    Parameters
    ----------
    job : HeadJob
    design : HeadData
    first_added : int
        Where the job's added rows begin among all rows.
    device : torch.device
    starts : dict
        Exact parts by `HeadJob.start_key`: one that is there is taken, one that is fitted added.
    with_inner : bool
        Whether a network is judged, beside solutions without the rows of each fold that judges.

    Returns
    -------
    Part

    Raises
    ------
    InputError
        If there are fewer than two training rows.
    """
    rows, config = np.asarray(job.rows, dtype=np.int64), job.configs[0]
    if rows.size < 2:
        raise InputError(f"head: expected at least two training rows; found {rows.size}")
    targets, places = design.targets.take(rows), rows
    groups = None if design.groups is None else design.groups[rows]
    folds = deal_inner(targets, groups, job.seed, config.validation)
    if job.added is not None:
        n_added = job.added.codes.size
        targets = replace(targets, values=np.concatenate([targets.values, job.added.codes]))
        places = np.concatenate([rows, np.arange(first_added, first_added + n_added)])
        folds = np.concatenate([np.where(folds == 0, 0, -1), np.full(n_added, -1)])
        groups = None
    part = Part(
        job=job,
        places=torch.from_numpy(places).to(device),
        targets=targets,
        folds=folds,
        judged=judging_folds(folds, groups, targets.n_outputs),
        groups=groups,
        scale=_level_scale(targets) if config.initialize_bias else 1.0,
        class_weight=_class_weight(job, targets, device),
    )
    key = job.start_key()
    if key not in starts:
        starts[key] = _fit_start(part, job.X[rows], with_inner=with_inner)
    view, part.start = starts[key]
    part.chosen = part.start.chosen | view.chosen()
    part.x = torch.from_numpy(np.ascontiguousarray(part.start.inputs)).to(device)
    part.configs = job.configs
    if targets.kind == "multilabel" and config.linear and config.validation > 0:
        part.configs += tuple(replace(c, linear=False) for c in job.configs if c.hidden)
    return part


def _fit_start(part: Part, X: np.ndarray, *, with_inner: bool) -> tuple[View, Start]:
    """The exact part of a head by its best view of the features."""
    job = part.job
    scale = job.scale if job.configs[0].standardize else "none"
    score = X[:, X.shape[1] - job.n_score :]
    X, tried = X[:, : X.shape[1] - job.n_score], []
    for view in views(job.n_beside, job.covariance):
        seen = fit_features(X, scale, view=view, n_beside=job.n_beside, covariance=job.covariance)
        if job.n_score:
            start = _scored_start(part, *seen, score, with_inner=with_inner)
        else:
            start = _start(part, *seen, with_inner=with_inner)
        tried.append((view, start))
    return _best_view(tried)


def _scored_start(
    part: Part,
    features: FeatureMap,
    inputs: np.ndarray,
    rotation: Rotation | None,
    score: np.ndarray,
    *,
    with_inner: bool,
) -> Start:
    """The exact part of a head beside a multiple of a score, which inner folds choose."""
    seen, centre = (features, inputs, rotation), score.mean(axis=0)

    def beside(share: float, *, with_inner: bool) -> Start:
        return _start(part, *seen, with_inner=with_inner, offset=share * (score - centre))

    tried = [beside(share, with_inner=False) for share in SHARES]
    n_units = tried[0].unit_losses.size or part.targets.n
    losses = np.array([start.loss for start in tried])
    share = mean_share(losses, n_units, squared=part.targets.kind == "regression")
    start = beside(share, with_inner=with_inner)
    assert start.fit is not None
    whole, *inner = (add_score(linear, share) for linear in (start.fit.whole, *start.fit.inner))
    return Start(
        beside_score(features, centre),
        np.concatenate([inputs, score - centre], axis=1),
        replace(start.fit, whole=whole, inner=inner),
        start.chosen | {"score": share},
    )


def _best_view(tried: Sequence[tuple[View, Start]]) -> tuple[View, Start]:
    """The view with the lowest loss on left-out rows; the first unless another is surely lower."""
    first, best = tried[0], min(tried, key=lambda one: one[1].loss)
    changes = best[1].unit_losses - first[1].unit_losses
    if best is first or is_lower(changes, len(tried) - 1):
        return best
    return first


def _start(
    part: Part,
    features: FeatureMap,
    inputs: np.ndarray,
    rotation: Rotation | None,
    *,
    with_inner: bool,
    offset: np.ndarray | None = None,
) -> Start:
    """The exact part of a head on some features, and those of its inner folds."""
    job, config = part.job, part.job.configs[0]
    if job.added is not None:
        inputs = np.concatenate([inputs, features.apply(job.added.X)])
        rotation = None if rotation is None else rotate(inputs)
    own = None if job.own is None else job.own.take(job.rows)
    judged = part.judged if with_inner else part.judged[:0]
    if rotation is None or not config.linear:
        if own is None:
            return Start(
                features, inputs, constant(part, inputs) if config.initialize_bias else None
            )
        alpha, rotation = np.inf, Rotation.empty(len(inputs), inputs.shape[1])
    else:
        fit = _linear(part, rotation, judged if own is None else judged[:0], offset)
        if own is None:
            chosen = fit.chosen | {"inner_loss": fit.loss / part.scale**2}
            return Start(features, inputs, fit, chosen)
        alpha = fit.chosen["alpha"]
    fit = fit_own_genes(rotation, alpha, part.targets.values, own, folds=part.folds, judged=judged)
    assert fit.whole.own is not None
    return Start(features, inputs, fit, fit.chosen, fit.whole.own.standardize(own.values))


def _linear(
    part: Part, rotation: Rotation, judged: NDArray[np.intp], offset: np.ndarray | None
) -> LinearChoice:
    """Ridge or logistic regression."""
    weight = None
    if part.targets.kind != "regression" and part.class_weight is not None:
        weight = class_weights(part.targets, part.class_weight.cpu().numpy())
    return fit_linear(
        rotation,
        part.targets,
        folds=part.folds,
        groups=part.groups,
        weight=weight,
        judged=judged,
        offset=offset,
    )


def constant(part: Part, inputs: np.ndarray) -> LinearChoice:
    """The mean level, or the log-odds, where a network stands alone."""
    targets = part.targets
    weight = None if part.class_weight is None else part.class_weight.cpu()

    def of(rows: np.ndarray) -> LinearPart:
        values = torch.from_numpy(targets.values[rows])
        bias = initial_bias(targets.kind, values, len(targets.names), weight).numpy()
        none = np.zeros((bias.size, inputs.shape[1]), dtype=np.float32)
        return LinearPart(none, bias.astype(np.float32))

    inner = [of(part.folds != fold) for fold in part.judged]
    whole = of(np.ones(targets.n, dtype=bool))
    return LinearChoice(whole, inner, {}, np.nan, np.zeros(0))


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
