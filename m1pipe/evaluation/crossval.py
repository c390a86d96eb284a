"""Cross-validation: every row of the ladder on the same folds, a share (repeat, fold) at a time."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.config import CrossvalConfig
from m1pipe.console import log, progress, shows_bars
from m1pipe.data.matrix import check_finite
from m1pipe.data.transforms import fit_gene_transform
from m1pipe.evaluation.facts import make_plan
from m1pipe.evaluation.metrics import HEADLINE, explained_scores, per_sample_loss
from m1pipe.evaluation.problem import Problem, make_problem
from m1pipe.evaluation.representations import (
    Item,
    encoder_facts,
    frozen_inputs,
    train_in_fold,
)
from m1pipe.evaluation.result import Alarm, CrossvalResult
from m1pipe.evaluation.rows import CONSTANT_ROWS, GENE_ROWS, PCA_ROWS, Fold, fit_row, train_mean
from m1pipe.evaluation.shares import Share, assemble
from m1pipe.pca import fit_pca
from m1pipe.training.signals import StopFlag

FOLD_PCA_WIDTH = 32
Inputs = Mapping[str, Sequence[np.ndarray]]


def cross_validate(
    x: Any,
    y: Any = None,
    *,
    label: str | None = None,
    multilabel: Any = None,
    targets: Sequence[str] | None = None,
    encoders: Mapping[str, Item | Sequence[Item]] | None = None,
    config: CrossvalConfig | None = None,
    on_share: Callable[[Share], None] | None = None,
    done: Iterable[Share] = (),
) -> CrossvalResult:
    """Compare encoders with their rivals by cross-validation; nothing is written.

    Exactly one of `y`, `label` and `multilabel` says what is predicted.

    Parameters
    ----------
    x : path, AnnData, DataFrame, Matrix or (array, names)
        Genes of the labelled samples (rows).
    y : path, AnnData, DataFrame or Matrix, optional
        Levels to predict, paired with x by sample id.
    label : str, optional
        Column of x's obs to predict.
    multilabel : as y, optional
        Zeros and ones to predict.
    targets : sequence of str, optional
        Columns of y to use. Left out: all.
    encoders : mapping, optional
        NAME to one encoder or several (its seeds): see
        `m1pipe.evaluation.representations.resolve_encoders`.
    config : CrossvalConfig, optional
        Folds, rows, heads.
    on_share : callable, optional
        Told of every fold when it is finished.
    done : iterable of Share
        Folds that need not be run again; they must be of the same comparison.

    Returns
    -------
    CrossvalResult

    Raises
    ------
    InputError
        If the data, the folds or the rows asked for cannot be had.
    """
    problem = make_problem(
        x,
        y,
        label=label,
        multilabel=multilabel,
        targets=targets,
        encoders=encoders,
        config=config or CrossvalConfig(),
    )
    plan = make_plan(problem, label=label)
    shares = {(share.repeat, share.fold): share for share in done}
    for share in run_shares(problem, [key for key in plan.shares if key not in shares]):
        shares[share.repeat, share.fold] = share
        if on_share is not None:
            on_share(share)
    return assemble(plan, list(shares.values()))


def run_shares(
    problem: Problem, wanted: Sequence[tuple[int, int]], *, stop: StopFlag | None = None
) -> Iterator[Share]:
    """Run some (repeat, fold), one after the other.

    Parameters
    ----------
    problem : Problem
    wanted : sequence of (int, int)
        Repeats and folds, from 0.
    stop : StopFlag, optional
        Looked at after every fit.

    Yields
    ------
    Share
    """
    if not wanted:
        return
    inputs = whole_inputs(problem)
    n_rows = len(wanted) * len(problem.ladder)
    with progress(range(n_rows), total=n_rows, label="crossval", unit="row") as bar:
        for repeat, fold in wanted:
            yield run_share(problem, inputs, repeat, fold, on_row=bar.update, stop=stop)


def whole_inputs(problem: Problem) -> dict[str, Sequence[np.ndarray]]:
    """What no fold changes, by row: the genes, the latents of frozen encoders, their PCA."""
    inputs: dict[str, Sequence[np.ndarray]] = {}
    min_coverage = problem.config.min_coverage
    inputs |= frozen_inputs(
        problem.encoders, problem.matrix, problem.rows, min_coverage=min_coverage
    )
    if set(GENE_ROWS) & set(problem.ladder) or needs_fold_pca(problem):
        X = problem.matrix.take(problem.rows)
        check_finite(X, problem.matrix, problem.rows)
        inputs["genes"] = [X]
    return inputs


def needs_fold_pca(problem: Problem) -> bool:
    """Whether a PCA is to be fitted on the training fold."""
    stored = any(row.frozen for row in problem.encoders)
    return "pca_fold" in problem.ladder or (
        not stored and bool(set(PCA_ROWS) & set(problem.ladder))
    )


def run_share(
    problem: Problem,
    inputs: Inputs,
    repeat: int,
    fold: int,
    *,
    on_row: Callable[[], object] = lambda: None,
    stop: StopFlag | None = None,
) -> Share:
    """Fit every row of the ladder on one training fold and test it.

    Parameters
    ----------
    problem : Problem
    inputs : mapping
        From `whole_inputs`.
    repeat, fold : int
        Which share.
    on_row : callable
        Called after every row.
    stop : StopFlag, optional
        Looked at after every fit.
    """
    split = make_fold(problem, repeat, fold)
    found, trained = fold_inputs(problem, inputs, split, stop)
    losses: dict[str, np.ndarray] = {}
    scores: list[pd.DataFrame] = []
    alarms: dict[str, list[Alarm]] = {}
    for row in problem.ladder:
        begun = time.perf_counter()
        fits = [fit_row(row, X, split, problem.config) for X in found[row]]
        losses[row], table = _judge(row, [fit.prediction for fit in fits], split)
        scores.append(table.assign(repeat=repeat, fold=fold))
        on_row()
        if not shows_bars():
            log.info(
                "repeat %d/%d fold %d/%d: %s",
                repeat + 1,
                problem.config.repeats,
                fold + 1,
                problem.config.folds,
                _row_line(row, losses[row], split, time.perf_counter() - begun),
            )
        if stop is not None and stop.is_set:
            stop.leave(f"in repeat {repeat} fold {fold}; finished folds are kept")
    table = pd.concat(scores, ignore_index=True)
    samples = problem.samples[split.test]
    return Share(repeat, fold, samples, losses, table, alarms, trained)


def make_fold(problem: Problem, repeat: int, fold: int) -> Fold:
    """Training and test rows of one (repeat, fold), with the seed that all rows share."""
    folds = problem.folds[repeat]
    seed = np.random.SeedSequence([problem.config.seed, repeat, fold]).generate_state(1)[0]
    return Fold(
        targets=problem.targets,
        train=np.flatnonzero(folds != fold),
        test=np.flatnonzero(folds == fold),
        strata=problem.strata,
        groups=problem.groups,
        order=folds,
        seed=int(seed),
    )


def fold_inputs(
    problem: Problem, inputs: Inputs, split: Fold, stop: StopFlag | None = None
) -> tuple[dict[str, Sequence[np.ndarray | None]], dict[str, list[dict[str, Any]]]]:
    """Inputs of every row in one fold, after the encoders and the PCA of the fold are trained.

    Returns
    -------
    inputs : dict of str to sequence of ndarray or None
        By row, one array of all samples a seed; None for the constant rows.
    facts : dict of str to list of dict
        Facts about the encoders trained here, by name.
    """
    found: dict[str, Sequence[np.ndarray | None]] = dict(inputs)
    facts = {}
    usable = encoder_rows(problem, split)
    for row in problem.encoders:
        if not row.in_fold:
            continue
        encoders = train_in_fold(row, problem.matrix, usable, groups=problem.all_groups, stop=stop)
        found[row.name] = [e.transform(problem.matrix)[problem.rows] for e in encoders]
        found.setdefault("pca_fold", [encoders[0].pca_scores(problem.matrix)[problem.rows]])
        facts[row.name] = [encoder_facts(e, "") for e in encoders]
    if needs_fold_pca(problem) and "pca_fold" not in found:
        found["pca_fold"] = [_fit_fold_pca(inputs["genes"][0], split.train)]
    stored = found.get("pca", found.get("pca_fold", ()))
    found |= {row: found["genes"] for row in GENE_ROWS if "genes" in found}
    found |= {"pca": stored, "pca_ridge": stored, "pca_logistic": stored}
    found |= {row: [None] for row in CONSTANT_ROWS}
    return found, facts


def encoder_rows(problem: Problem, split: Fold) -> np.ndarray:
    """Rows of X that an encoder trained in the fold may see.

    The training rows, and the rows without a target unless their group is tested.
    """
    others = problem.unlabelled
    if problem.all_groups is not None:
        tested = problem.all_groups[problem.rows[split.test]]
        others = others[~np.isin(problem.all_groups[others], tested)]
    return np.sort(np.concatenate([problem.rows[split.train], others]))


def _fit_fold_pca(X: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Scores of all samples on the components of the standardised training rows."""
    scaler = fit_gene_transform("standardize", [X[train]])
    rows = scaler.apply(X[train])
    return fit_pca(lambda: [rows], FOLD_PCA_WIDTH).scores(scaler.apply(X))


def _judge(
    row: str, predictions: Sequence[np.ndarray], split: Fold
) -> tuple[np.ndarray, pd.DataFrame]:
    """Losses of shape (n_seeds, n_test), and a table of model, seed, metric, value."""
    kind, values = split.targets.kind, split.targets.values[split.test]
    mean = train_mean(split) if kind == "regression" else None
    losses = np.stack([per_sample_loss(kind, p, values) for p in predictions])
    lines = [
        {"model": row, "seed": seed, "metric": metric, "value": value}
        for seed, prediction in enumerate(predictions)
        for metric, value in explained_scores(kind, prediction, values, mean).values.items()
    ]
    return losses, pd.DataFrame(lines)


def _row_line(row: str, losses: np.ndarray, split: Fold, seconds: float) -> str:
    seeds = f" ({len(losses)} seeds)" if len(losses) > 1 else ""
    return f"{row}{seeds} {HEADLINE[split.targets.kind]} {losses.mean():.4g}, {seconds:.1f} s"
