"""Heads of many folds fitted in one pass, and what each model predicts of test rows."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from m1pipe.config import CrossvalConfig
from m1pipe.console import log, progress
from m1pipe.errors import counted
from m1pipe.evaluation.compared_models import (
    GENES,
    SCORE,
    Model,
    has_own_term,
    tuned_settings,
)
from m1pipe.evaluation.cost import fits, fold_bytes, memory_bytes
from m1pipe.evaluation.fold_results import ShareKey
from m1pipe.evaluation.folds import Fold, train_mean
from m1pipe.evaluation.inputs import FoldInputs
from m1pipe.evaluation.problem import Problem
from m1pipe.heads.features import Covariance
from m1pipe.heads.fit import fit_heads
from m1pipe.heads.fitted import FittedHead
from m1pipe.heads.head_data import AddedRows, HeadData, HeadJob
from m1pipe.heads.networks import PassFile
from m1pipe.training.signals import StopFlag

HEAD_ROWS = 2048
Joined = dict[tuple[int, int], np.ndarray]
Fitted = tuple[FittedHead, np.ndarray]
FEW_SAMPLES = 1000
"""An encoder of so many samples is trained in seconds."""
Place = tuple[int, int, int]
"""Repeat, fold and draw of the training rows."""
_PASS_NAME = re.compile(r"_r(\d+)_f(\d+)-(\d+)(?:_n(\d+)(?:_d(\d+)-(\d+))?)?_[a-z]+\d+")


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a fitted model predicts of the test rows, and whether its network is alive.

    Attributes
    ----------
    values : ndarray, shape (n_test, n_targets) or (n_test, n_classes)
        Levels or probabilities.
    dead_share : float
        Share of the hidden units that are dead over the training rows.
    chosen : dict
        What inner folds chose, as of `m1pipe.heads.fitted.FittedHead`.
    """

    values: np.ndarray
    dead_share: float = 0.0
    chosen: dict[str, Any] = field(default_factory=dict)


def head_jobs(
    model: Model,
    arrays: Sequence[np.ndarray],
    fold: Fold,
    config: CrossvalConfig,
    *,
    genes: np.ndarray | None = None,
    covariance: Covariance | None = None,
    added: Sequence[AddedRows] = (),
    score: np.ndarray | None = None,
    joined: Joined | None = None,
) -> list[HeadJob]:
    """What is to be fitted for a model in one fold, one a seed.

    Parameters
    ----------
    model : Model
        Not a constant.
    arrays : sequence of ndarray of float32, shape (n_samples, n_features)
        The model's inputs, one a seed.
    fold : Fold
    config : CrossvalConfig
    genes : ndarray of float32, shape (n_samples, n_genes), optional
        For a model that has the genes beside its inputs.
    covariance : Covariance, optional
        For a model whose coefficients have it as their prior.
    added : sequence of AddedRows
        What is trained on beside the training rows, one a seed.
    score : ndarray of float32, shape (n_samples, n_outputs), optional
        Of other studies' labels, for a model that has a term for it.
    joined : dict, optional
        Inputs beside each other, by their identities: those that are made are added to it, and
        used again while these arrays are in memory.
    """
    own = fold.own if has_own_term(model, config) else None
    joined = {} if joined is None else joined
    jobs = []
    for i, X in enumerate(arrays):
        n_beside = n_score = 0
        if model.adds_genes and genes is not None:
            n_beside, X = X.shape[1], _join(genes, X, joined)
        if model.transfer and score is not None:
            n_score, X = score.shape[1], _join(X, score, joined)
        jobs.append(
            HeadJob(
                X=X,
                rows=fold.train,
                configs=tuned_settings(model, config),
                seed=fold.seed,
                scale="each" if model.source == GENES or n_beside else "one",
                own=own,
                added=added[i] if added else None,
                n_beside=n_beside,
                n_score=n_score,
                covariance=covariance if model.head == "linear_prior" else None,
            )
        )
    return jobs


def _join(first: np.ndarray, second: np.ndarray, joined: Joined) -> np.ndarray:
    """Two blocks of features side by side; the same array whenever it is asked for."""
    key = (id(first), id(second))
    if key not in joined:
        joined[key] = np.concatenate([first, second], axis=1)
    return joined[key]


def predict_constant(model: Model, fold: Fold) -> Prediction:
    """What a constant predicts of the test rows."""
    predict = stratum_prediction if model.name == "stratum_mean" else constant_prediction
    return Prediction(predict(fold))


def predict_model(model: Model, head: FittedHead, X: np.ndarray, fold: Fold) -> Prediction:
    """What a model predicts of the test rows.

    Parameters
    ----------
    model : Model
        That is fitted as the head was, or as its linear part.
    head : FittedHead
    X : ndarray of float32, shape (n_samples, n_features)
        The inputs that the head was fitted to, of all samples.
    fold : Fold
    """
    if model.head == "linear" and not head.is_linear:
        head = head.linear_part()
    levels = None if head.own is None or fold.own is None else fold.own.values[fold.test]
    dead = dead_share(head, X[fold.train[:HEAD_ROWS]])
    return Prediction(head.predict(X[fold.test], levels), dead, head.chosen)


def predict_ensemble(model: Model, heads: Sequence[Fitted], fold: Fold) -> Prediction:
    """The mean of what the seeds of an encoder predict of the test rows: levels or probabilities.

    Parameters
    ----------
    model : Model
    heads : sequence of (FittedHead, ndarray of float32, shape (n_samples, n_features))
        One a seed, with what it was fitted to.
    fold : Fold
    """
    total = None
    for head, X in heads:  # predictions are large: two are in memory at a time
        own = predict_model(model, head, X, fold).values
        total = own.copy() if total is None else np.add(total, own, out=total)
    if total is None:
        raise ValueError(f"{model.name}: expected heads of its seeds; found none")
    return Prediction(total / len(heads))


def constant_prediction(fold: Fold) -> np.ndarray:
    """The training mean (or the class frequencies) for every test row."""
    mean = train_mean(fold)
    return np.broadcast_to(mean, (fold.test.size, mean.size))


def stratum_prediction(fold: Fold) -> np.ndarray:
    """Training mean of each test sample's own stratum, which is thereby taken as known.

    A stratum without training rows gets the mean of all.
    """
    if fold.strata is None:
        raise ValueError("strata: this split has none")
    values, strata = fold.targets.values, np.asarray(fold.strata, dtype=object)
    out = np.tile(train_mean(fold), (fold.test.size, 1))
    for stratum in set(strata[fold.test]):
        own = fold.train[strata[fold.train] == stratum]
        if own.size:
            out[strata[fold.test] == stratum] = values[own].mean(axis=0, dtype=np.float64)
    return out


def dead_share(head: FittedHead, X: np.ndarray) -> float:
    """Share of a head's hidden units that put out the same for every row.

    Parameters
    ----------
    head : FittedHead
    X : ndarray, shape (n_samples, n_features)
    """
    if head.module.hidden is None:
        return 0.0
    device = next(head.module.parameters()).device
    x = torch.from_numpy(head.features.apply(X)).to(device)
    still = []
    with torch.no_grad():
        for layer in head.module.hidden:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                still.append(x.amax(0) - x.amin(0) <= 1e-6)
    return float(torch.cat(still).double().mean()) if still else 0.0


@dataclass(frozen=True, eq=False)
class OpenShare:
    """A fold, or a draw of its training rows, whose inputs are ready; no model is fitted yet.

    Attributes
    ----------
    repeat, fold : int
    split : Fold
    inputs : FoldInputs
        What the models are fitted to.
    draw : int
    """

    repeat: int
    fold: int
    split: Fold
    inputs: FoldInputs
    draw: int = 0


def passes(problem: Problem, wanted: Sequence[Place]) -> list[list[Place]]:
    """Shares that are fitted together: of one repeat, as many as the memory allows.

    One at a time where generators, or encoders of many samples, are trained in the folds: these
    take longer than the heads, and a run that is stopped resumes after the last whole pass.
    """
    most = 1
    in_fold = any(entry.in_fold for entry in problem.encoders)
    if problem.config.augment is None and not (in_fold and problem.matrix.n_samples > FEW_SAMPLES):
        spare = problem.config.pass_memory - memory_bytes(problem)
        most = max(1, 1 + int(spare // max(1, fold_bytes(problem))))
    repeats = dict.fromkeys(repeat for repeat, *_ in wanted)
    found = []
    for repeat in repeats:
        own = [place for place in wanted if place[0] == repeat]
        found += [own[start : start + most] for start in range(0, len(own), most)]
    return found


def pass_file(kept: PassFile, problem: Problem, together: Sequence[Place]) -> PassFile:
    """The file of one pass, of its folds, number of training rows and draws alone."""
    (repeat, first, first_draw), (_, last, last_draw) = together[0], together[-1]
    size = "" if problem.train_size is None else f"_n{problem.train_size}"
    if problem.train_size is not None and problem.config.draws > 1:
        size += f"_d{first_draw}-{last_draw}"
    name = f"{kept.path.name}_r{repeat}_f{first}-{last}{size}.pt"
    return PassFile(kept.path.with_name(name), f"{kept.mark} {list(together)}")


def remove_stale(
    kept: PassFile, problem: Problem, done: Iterable[ShareKey], left: Sequence[ShareKey]
) -> None:
    """Remove states of passes that were finished, but not all of whose folds were written.

    Parameters
    ----------
    kept : PassFile
        As for `run_plan`.
    problem : Problem
    done, left : sequence of (int, int, int or None, int)
        Shares that are written, and those to be run: the passes over these stay.
    """
    coming = set()
    for size in dict.fromkeys(n for _, _, n, _ in left):
        part = replace(problem, train_size=size)
        for together in passes(part, [(r, k, d) for r, k, n, d in left if n == size]):
            coming.add(pass_file(kept, part, together).path.stem)
    written = set(done)
    for path in kept.path.parent.glob(f"{kept.path.name}_r*.pt"):
        found = _PASS_NAME.fullmatch(path.stem.removeprefix(kept.path.name))
        if found is None or path.stem.rpartition("_")[0] in coming:
            continue
        repeat, first, last, first_draw, last_draw = (int(found[i] or 0) for i in (1, 2, 3, 5, 6))
        size = None if found[4] is None else int(found[4])
        lowest, highest = (first, first_draw), (last, last_draw)
        if any((r, n) == (repeat, size) and lowest <= (k, d) <= highest for r, k, n, d in written):
            path.unlink(missing_ok=True)


def fit_opened(
    problem: Problem,
    shares: Sequence[OpenShare],
    *,
    kept: PassFile | None = None,
    stop: StopFlag | None = None,
) -> list[dict[str, list[Fitted]]]:
    """Fit the heads of all models of some folds, or draws of their training rows, of one repeat.

    Returns
    -------
    list of dict of str to list of (FittedHead, ndarray)
        For every share, by `Model.fitted_as`, one head a seed with what it was
        fitted to, of all samples.
    """
    split = shares[0].split
    wanted = fits(problem)
    places, jobs = [], []
    joined: Joined = {}
    for i, share in enumerate(shares):
        for key, model in wanted.items():
            own = jobs_of(model, share, problem, joined)
            jobs += own
            places += [(i, key)] * len(own)
    found: list[dict[str, list[Fitted]]] = [{} for _ in shares]
    if not jobs:
        return found
    design = HeadData(split.targets, split.order_seed, split.order, split.groups)
    log.info("%d heads (%s) in one pass", len(jobs), _in_words(problem, shares, len(wanted), jobs))
    with progress(label="heads", shown="{desc}: epoch {n_fmt} [{elapsed}]") as bar:
        heads = fit_heads(jobs, design, kept=kept, stop=stop, on_epoch=lambda _: bar.update())
    for (i, key), job, head in zip(places, jobs, heads, strict=True):
        found[i].setdefault(key, []).append((head, job.X))
    return found


def _in_words(
    problem: Problem, shares: Sequence[OpenShare], n_models: int, jobs: Sequence[HeadJob]
) -> str:
    """What a pass is over: `6 models x 50 draws of 30 training samples, from 5 folds`."""
    n_folds = len({share.fold for share in shares})
    folds, models = counted(n_folds, "fold"), counted(n_models, "model")
    n_fits = len(jobs) // len(shares)
    models = f"{n_fits} fits of {models}" if n_fits > n_models else models
    if problem.train_size is None:
        return f"{models} x {folds}"
    if problem.config.draws == 1:
        return f"{models} x {folds}, {problem.train_size} training samples"
    return f"{models} x {len(shares)} draws of {problem.train_size} training samples, from {folds}"


def jobs_of(
    model: Model, share: OpenShare, problem: Problem, joined: Joined | None = None
) -> list[HeadJob]:
    """What is to be fitted for a model of a share, one a seed."""
    inputs = share.inputs
    return head_jobs(
        model,
        inputs.arrays[model.source],
        share.split,
        problem.config,
        genes=inputs.arrays[GENES][0] if GENES in inputs.arrays else None,
        covariance=inputs.covariance,
        added=inputs.added.get(model.name, ()),
        score=inputs.arrays[SCORE][0] if SCORE in inputs.arrays else None,
        joined=joined,
    )
