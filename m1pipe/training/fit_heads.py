"""One feed-forward head on frozen features: its rows, and when it stops."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from m1pipe.config import HeadConfig, TrainingConfig
from m1pipe.data.own_gene import OwnGenes
from m1pipe.data.splits import inner_split, make_folds
from m1pipe.data.targets import Targets
from m1pipe.errors import InputError, M1Warning
from m1pipe.training.added import AddedRows, append_rows
from m1pipe.training.fit import fit
from m1pipe.training.fitted_head import (
    FittedHead,
    add_own_term,
    choose_own_term,
    head_residuals,
)
from m1pipe.training.head_feed import HeadFeed
from m1pipe.training.head_start import HeadStart, HeadTask, finish_head, make_task, start_head
from m1pipe.training.objectives import head_objective
from m1pipe.training.own_crossed import HeldOut, choose_crossed, held_out_sums

FEW_ROWS = 60
FEW_HELD_OUT = 0.25
INNER_FOLDS = 5
VALIDATION_ROWS = 256


def fit_head(
    X: np.ndarray,
    targets: Targets,
    config: HeadConfig,
    *,
    rows: np.ndarray,
    seed: int,
    strata: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    order_seed: int | None = None,
    folds_order: np.ndarray | None = None,
    class_weight: np.ndarray | None = None,
    own: OwnGenes | None = None,
    added: AddedRows | None = None,
) -> FittedHead:
    """Train a head on some rows of a feature matrix.

    Scaling, start and class weights come from `rows`; with standardisation a feature that is
    constant in them is not listened to. A share of `rows` decides when to stop, and
    the best weights are kept; with fewer than `FEW_ROWS` rows that share would be too small, so
    inner cross-validation chooses a number of epochs and all of `rows` are trained on for as long.

    Parameters
    ----------
    X : ndarray of float32, shape (n, n_features)
        Features of all rows, those that are not trained on included: each epoch goes through one
        order of all n rows in pieces of the batch size, and a step takes those of a piece that
        are trained on. Where these are few of n, pass them alone.
    targets : Targets
        Of all n rows.
    config : HeadConfig
        Network and training.
    rows : ndarray of int, shape (n_rows,)
        Training rows; nothing else about the other rows is looked at.
    seed : int
        Of initialisation and the inner split.
    order_seed : int, optional
        Of the row order; as `seed` where not given.
    strata, groups : ndarray, shape (n,), optional
        Of all rows, for the inner split.
    folds_order : ndarray of int, shape (n,), optional
        Fold of each row, to spread the folds evenly over the order.
    class_weight : ndarray, shape (n_classes,), optional
        Weight of each class, in place of the configuration's.
    own : OwnGenes, optional
        Of all n rows: a term for each level's own gene is fitted beside the network
        (`m1pipe.training.own_term`).
    added : AddedRows, optional
        Rows that are trained on as well; they set no scale and are not held out. Of classes, with
        at least `FEW_ROWS` training rows or no validation.

    Returns
    -------
    FittedHead

    Raises
    ------
    InputError
        If there are fewer than two rows, or a loss is not finite.
    ValueError
        If rows are added to too few.
    """
    rows = np.asarray(rows, dtype=np.int64)
    if rows.size < 2:
        raise InputError(f"head: expected at least two training rows; found {rows.size}")
    if rows.size < FEW_ROWS and config.validation > 0:
        if added is not None:
            raise ValueError(
                f"added: expected at least {FEW_ROWS} training rows; found {rows.size}"
            )
        X, targets = np.ascontiguousarray(X[rows]), targets.take(rows)
        inner = [
            None if labels is None else np.asarray(labels)[rows] for labels in (strata, groups)
        ]
        task = make_task(X, targets, config, seed=seed, class_weight=class_weight)
        return _fit_few(task, None if own is None else own.take(rows), *inner)
    more = np.arange(targets.n, targets.n + (0 if added is None else added.codes.size))
    if added is not None:
        X, targets, folds_order = append_rows(X, targets, folds_order, added)
    task = make_task(
        X,
        targets,
        config,
        seed=seed,
        order_seed=order_seed,
        class_weight=class_weight,
        folds=folds_order,
    )
    if config.validation == 0:
        head = _train(task, np.concatenate([rows, more]), scale_rows=rows)
        return head if own is None else _with_own(task, head, own, rows, strata, groups)
    kept, held_out = inner_split(rows, config.validation, seed, strata=strata, groups=groups)
    head = _train(task, np.concatenate([kept, more]), held_out, scale_rows=rows)
    if own is None:
        return head
    return _judged(head, task.X, targets, own, rows=kept, held_out=held_out, groups=groups)


def with_own_genes(
    head: FittedHead,
    X: np.ndarray,
    targets: Targets,
    own: OwnGenes,
    *,
    rows: np.ndarray,
    validation: float,
    seed: int,
    strata: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> FittedHead:
    """A head that `fit_head` trained with early stopping, as if it had been given `own`.

    Parameters
    ----------
    head : FittedHead
    X : ndarray of float32, shape (n_samples, n_features)
    targets, own, rows, seed, strata, groups
        Those of `fit_head`; at least `FEW_ROWS` rows.
    validation : float
        Share of the rows that decided when to stop: they decide about the term as well.
    """
    kept, held_out = inner_split(rows, validation, seed, strata=strata, groups=groups)
    return _judged(head, X, targets, own, rows=kept, held_out=held_out, groups=groups)


def _judged(
    head: FittedHead,
    X: np.ndarray,
    targets: Targets,
    own: OwnGenes,
    *,
    rows: np.ndarray,
    held_out: np.ndarray,
    groups: np.ndarray | None,
) -> FittedHead:
    """Add the own-gene term that the held-out rows of the head want."""
    choice = choose_own_term(head, X, targets, own, rows=rows, held_out=held_out, groups=groups)
    return add_own_term(head, X, targets, own, rows=rows, choice=choice)


def _fit_few(
    task: HeadTask, own: OwnGenes | None, strata: np.ndarray | None, groups: np.ndarray | None
) -> FittedHead:
    """Train on all of few rows; inner folds say for how long, and what own genes add."""
    parts: list[HeldOut] = []

    def hear(head: FittedHead, rows: np.ndarray, held_out: np.ndarray) -> None:
        if own is not None:
            hidden = head.activations(task.X)
            left = head_residuals(head, task.targets, hidden)
            parts.append(held_out_sums(hidden, left, own, rows=rows, held_out=held_out))

    epochs = _choose_epochs(task, strata, groups, hear)
    everything = np.arange(task.targets.n)
    head = _train(replace(task, config=replace(task.config, epochs=epochs)), everything)
    if own is None:
        return head
    choice = choose_crossed(parts)
    return add_own_term(head, task.X, task.targets, own, rows=everything, choice=choice)


def _with_own(
    task: HeadTask,
    head: FittedHead,
    own: OwnGenes,
    rows: np.ndarray,
    *labels: np.ndarray | None,
) -> FittedHead:
    """Add the own-gene term to a head that was trained on all of `rows`.

    Its strengths are chosen by a second head, of as many epochs, that saw three quarters of them.
    """
    strata, groups = labels
    kept, held_out = inner_split(rows, FEW_HELD_OUT, task.seed, strata=strata, groups=groups)
    inner = _train(task, kept, scale_rows=rows)
    choice = choose_own_term(
        inner, task.X, task.targets, own, rows=kept, held_out=held_out, groups=groups
    )
    return add_own_term(head, task.X, task.targets, own, rows=rows, choice=choice)


def _choose_epochs(
    task: HeadTask,
    strata: np.ndarray | None,
    groups: np.ndarray | None,
    hear: Callable[[FittedHead, np.ndarray, np.ndarray], None],
) -> int:
    """Number of epochs with the lowest loss summed over inner folds.

    A fold that stopped early counts with its last loss from then on. `hear` is told of the head of
    every inner fold, the rows it was fitted to, and those held out.
    """
    n = task.targets.n
    if groups is not None and np.unique(groups).size < 2:
        groups = None
    if strata is None and task.targets.is_classes:
        strata = task.targets.values
    n_folds = min(INNER_FOLDS, n if groups is None else np.unique(groups).size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", M1Warning)  # strata smaller than the folds are no news here
        folds = make_folds(n_folds, 1, task.seed, strata=strata, groups=groups, n=n)[0]
    total = np.zeros(task.config.epochs)
    for fold in np.unique(folds):
        rows, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        head = _train(task, rows, held_out)
        hear(head, rows, held_out)
        losses = np.array([row["val_loss"] for row in head.history.rows]) * held_out.size
        total += np.pad(losses, (0, total.size - losses.size), mode="edge")
    return int(total.argmin()) + 1


def _train(
    task: HeadTask,
    rows: np.ndarray,
    held_out: np.ndarray | None = None,
    *,
    scale_rows: np.ndarray | None = None,
) -> FittedHead:
    """Train on `rows`; `held_out` decides when to stop; `scale_rows` (or `rows`) set scales."""
    start = start_head(task, rows if scale_rows is None else scale_rows)
    history = fit(
        start.module,
        _feed(task, rows, start),
        partial(head_objective, kind=task.targets.kind, class_weight=start.class_weight),
        _training_config(task.config, task.seed),
        validation=None if held_out is None else _feed(task, held_out, start, True),
        keep="last" if held_out is None else "best",
    )
    n_epochs = history.n_epochs if held_out is None else history.best_epoch
    return finish_head(task, start, history, n_epochs)


def _feed(
    task: HeadTask,
    rows: np.ndarray,
    start: HeadStart,
    is_validation: bool = False,
) -> HeadFeed:
    mask = np.zeros(task.targets.n, dtype=bool)
    mask[rows] = True
    location = torch.from_numpy(start.scaler.location).to(task.device)
    scale = torch.from_numpy(start.scaler.scale).to(task.device)
    return HeadFeed(
        x=task.x,
        y=task.y,
        mask=mask,
        scale_x=(location, scale),
        scale_y=start.scale_y,
        batch_size=VALIDATION_ROWS if is_validation else task.config.batch_size,
        seed=task.order_seed,
        folds=task.folds,
        shuffle=not is_validation,
    )


def _training_config(config: HeadConfig, seed: int) -> TrainingConfig:
    """Settings of the loop: a constant rate, no clipping, no warm-up."""
    return TrainingConfig(
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        weight_decay=config.weight_decay,
        schedule="constant",
        clip=0.0,
        ema=0.0,
        kl_warmup=0.0,
        patience=config.patience,
        seed=seed,
        precision="fp32",
    )
