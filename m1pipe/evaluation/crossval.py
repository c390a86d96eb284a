"""Cross-validation: every model on the same folds, and on the same draws of their training rows."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.config import CrossvalConfig
from m1pipe.console import log, speaking
from m1pipe.data.targets import Targets
from m1pipe.errors import Alarm
from m1pipe.evaluation.alarms import encoder_alarms, model_alarms
from m1pipe.evaluation.augment import Generator
from m1pipe.evaluation.compare import declared_family
from m1pipe.evaluation.compared_models import Model, own_gene_pairs
from m1pipe.evaluation.encoders import Item
from m1pipe.evaluation.fold_results import Share, ShareKey, assemble
from m1pipe.evaluation.folds import Fold, train_mean
from m1pipe.evaluation.inputs import Inputs, fold_inputs, whole_inputs
from m1pipe.evaluation.metrics import (
    fraction_r2,
    headline,
    per_sample_loss,
    scores,
    target_spread,
)
from m1pipe.evaluation.per_label import LabelTally
from m1pipe.evaluation.per_target import TargetTally
from m1pipe.evaluation.plan import make_plan
from m1pipe.evaluation.predictions import (
    Fitted,
    OpenShare,
    Place,
    Prediction,
    fit_opened,
    pass_file,
    passes,
    predict_constant,
    predict_ensemble,
    predict_model,
)
from m1pipe.evaluation.problem import Problem, make_fold, make_problem, with_series
from m1pipe.evaluation.result import CrossvalResult, best_text
from m1pipe.heads.networks import PassFile
from m1pipe.parameters import takes_settings
from m1pipe.settings import override
from m1pipe.source_labels import Sources
from m1pipe.training.signals import StopFlag


@takes_settings(CrossvalConfig)
def cross_validate(
    x: Any,
    y: Any = None,
    *,
    label: str | None = None,
    multilabel: Any = None,
    targets: Sequence[str] | None = None,
    encoders: Mapping[str, Item | Sequence[Item]] | None = None,
    sources: Sources | None = None,
    config: CrossvalConfig | None = None,
    generator: Generator | None = None,
    on_share: Callable[[Share], None] | None = None,
    done: Iterable[Share] = (),
    verbose: bool = False,
    **settings: Any,
) -> CrossvalResult:
    """Compare encoders with their rivals by cross-validation; nothing is written.

    Exactly one of `y`, `label` and `multilabel` says what is predicted.

    Parameters
    ----------
    x : path, AnnData, DataFrame, Matrix or (array, names)
        Genes of the labelled samples (rows).
    y : path, AnnData, DataFrame, Series or Matrix, optional
        Levels to predict, paired with x by sample id; a Series is a label.
    label : str, optional
        Column of x's obs to predict.
    multilabel : as y, optional
        Zeros and ones to predict.
    targets : sequence of str, optional
        Columns of y to use. Left out: all.
    encoders : mapping, optional
        NAME to one encoder or several (its seeds): see
        `m1pipe.evaluation.encoders.resolve_encoders`.
    sources : Sources, optional
        Files of other studies, whose labels are the column `label` or one of their own.
    config : CrossvalConfig, optional
        Of which the settings below are some.
    generator : Generator, optional
        Makes the samples of `config.augment` from training rows of a fold; that of the command is
        `m1pipe.workflow.augment.train_generator`.
    on_share : callable, optional
        Called with every fold when it is finished.
    done : iterable of Share
        Folds that need not be run again; they must be of the same comparison.
    verbose : bool
        Send progress to stderr.
    **settings
        Fields of `CrossvalConfig` and of its head.

    Returns
    -------
    CrossvalResult

    Raises
    ------
    InputError
        If the data, the folds or the models asked for are unavailable.
    """
    chosen = override(config or CrossvalConfig(), settings, where="cross_validate")
    x, y, label = with_series(x, y, label)
    with speaking(verbose):
        problem = make_problem(
            x,
            y,
            label=label,
            multilabel=multilabel,
            targets=targets,
            encoders=encoders,
            sources=sources,
            config=chosen,
            generator=generator,
        )
        plan = make_plan(problem, label=label)
        shares = {share.key: share for share in done}
        for share in run_plan(problem, [key for key in plan.shares if key not in shares]):
            shares[share.key] = share
            if on_share is not None:
                on_share(share)
    return assemble(plan, list(shares.values()))


def run_plan(
    problem: Problem,
    wanted: Sequence[ShareKey],
    *,
    kept: PassFile | None = None,
    stop: StopFlag | None = None,
) -> Iterator[Share]:
    """Run some shares: whole folds first, then those with fewer training rows.

    Parameters
    ----------
    problem : Problem
    wanted : sequence of (int, int, int or None, int)
        Repeat and fold, from 0, the number of training rows (None: all), and the draw of these.
    kept : PassFile, optional
        Where a pass over heads is kept while it runs; its name is added to.
    stop : StopFlag, optional
        Checked after every fit.

    Yields
    ------
    Share
    """
    if not wanted:
        return
    inputs = whole_inputs(problem)
    for size in (None, *problem.config.train_sizes):
        places = [(repeat, fold, draw) for repeat, fold, n, draw in wanted if n == size]
        part = replace(problem, train_size=size)
        yield from run_shares(part, inputs, places, kept=kept, stop=stop)


def run_shares(
    problem: Problem,
    inputs: Inputs,
    wanted: Sequence[Place],
    *,
    kept: PassFile | None = None,
    stop: StopFlag | None = None,
) -> Iterator[Share]:
    """Run some folds and draws, the heads of as many as the memory allows in one pass.

    Parameters
    ----------
    problem : Problem
    inputs : mapping
        From `whole_inputs`.
    wanted : sequence of (int, int, int)
        Repeats, folds and draws, from 0.
    kept : PassFile, optional
        Where a pass over heads is kept while it runs; its name is added to.
    stop : StopFlag, optional
        Checked after every fit.

    Yields
    ------
    Share
    """
    for together in passes(problem, wanted):
        begun = time.perf_counter()
        opened = [open_share(problem, inputs, r, k, draw=d, stop=stop) for r, k, d in together]
        file = None if kept is None else pass_file(kept, problem, together)
        heads = fit_opened(problem, opened, kept=file, stop=stop)
        equal_part, closed = (time.perf_counter() - begun) / len(together), []
        for share, own in zip(opened, heads, strict=True):
            begun = time.perf_counter()
            done = close_share(problem, share, own, stop=stop)
            closed.append((done, equal_part + time.perf_counter() - begun))
            yield done
        _say_folds(problem, closed)
        if file is not None:
            file.remove()


def open_share(
    problem: Problem,
    inputs: Inputs,
    repeat: int,
    fold: int,
    *,
    draw: int = 0,
    stop: StopFlag | None = None,
) -> OpenShare:
    """Split a (repeat, fold), and train its encoders and its PCA.

    An encoder that is trained in the fold sees the training rows of the draw alone, and the
    samples without a label.

    Parameters
    ----------
    problem : Problem
    inputs : mapping
        From `whole_inputs`.
    repeat, fold, draw : int
        Which share.
    stop : StopFlag, optional
        Checked while encoders are trained.
    """
    split = make_fold(problem, repeat, fold, draw)
    return OpenShare(repeat, fold, split, fold_inputs(problem, inputs, split, stop), draw)


def close_share(
    problem: Problem,
    share: OpenShare,
    heads: Mapping[str, Sequence[Fitted]],
    *,
    stop: StopFlag | None = None,
) -> Share:
    """Test every model of a (repeat, fold).

    Parameters
    ----------
    problem : Problem
    share : OpenShare
    heads : mapping of str to sequence of (FittedHead, ndarray)
        From `m1pipe.evaluation.predictions.fit_opened`.
    stop : StopFlag, optional
        Checked after every model.
    """
    split = share.split
    tested = split.targets.take(split.test)  # large, and let go with the fold
    tally, by_label = start_tally(problem, split, tested), start_labels(problem, split, tested)
    tallies = [one for one in (tally, by_label) if one is not None]
    standardized = problem.config.loss == "standardized_mse"
    spread = target_spread(split.targets.values[split.train]) if standardized else None
    found: dict[str, _Tested] = {}
    for model in problem.models:
        own = heads.get(model.fitted_as(problem.config), ())
        predicted = _predict_seeds(model, own, split)
        found[model.name] = _test_model(model, predicted, split, tested, tallies, spread=spread)
        if stop is not None and stop.is_set:
            stop.leave(f"in repeat {share.repeat} fold {share.fold}; finished folds are kept")
    return _as_share(problem, share, found, tally, by_label)


@dataclass(frozen=True, eq=False)
class _Tested:
    """What test rows say of a model: losses (n_seeds, n_test), scores, alarms, settings."""

    losses: np.ndarray
    scores: pd.DataFrame
    alarms: list[Alarm]
    chosen: Mapping[str, Any]


def _as_share(
    problem: Problem,
    share: OpenShare,
    found: Mapping[str, _Tested],
    tally: TargetTally | None,
    by_label: LabelTally | None,
) -> Share:
    """What was found of all models, and of the encoders of the fold."""
    trained = share.inputs.encoders
    alarms = _encoder_alarms(trained)
    chosen = {name: runs[0]["chosen"] for name, runs in trained.items() if runs[0]["chosen"]}
    for name, one in found.items():
        alarms.setdefault(name, []).extend(one.alarms)
        if one.chosen:
            chosen[name] = {**chosen.get(name, {}), "head": dict(one.chosen)}
    scores = [one.scores.assign(repeat=share.repeat, fold=share.fold) for one in found.values()]
    return Share(
        share.repeat,
        share.fold,
        problem.samples[share.split.test],
        {name: one.losses for name, one in found.items()},
        pd.concat(scores, ignore_index=True),
        alarms,
        trained,
        targets=None if tally is None else tally.close(),
        n_train=problem.train_size,
        draw=share.draw,
        chosen=chosen,
        added=_n_added(share, share.split.targets.names),
        labels=None if by_label is None else by_label.close(),
    )


def _predict_seeds(model: Model, heads: Sequence[Fitted], split: Fold) -> list[Prediction]:
    """What one model predicts, one a seed."""
    if model.head == "constant":
        return [predict_constant(model, split)]
    if model.head == "ensemble":
        return [predict_ensemble(model, heads, split)]
    return [predict_model(model, head, X, split) for head, X in heads]


def _test_model(
    model: Model,
    fits: Sequence[Prediction],
    split: Fold,
    tested: Targets,
    tallies: Sequence[TargetTally | LabelTally],
    *,
    spread: np.ndarray | None,
) -> _Tested:
    """Measure the fits of a model, whose predictions, large, end here."""
    losses = np.stack(
        [per_sample_loss(tested.kind, fit.values, tested.values, spread) for fit in fits]
    )
    for tally in tallies:
        tally.add(model.name, [fit.values for fit in fits])
    alarms: list[Alarm] = []
    if model.head != "constant":
        levels = tested.values if tested.kind == "regression" else None
        for fit in fits:
            alarms += model_alarms(model.name, fit.values, levels, fit.dead_share)
    scores = _score_table(model, [fit.values for fit in fits], split, tested)
    if spread is not None:
        line = {"model": model.name, "metric": "standardized_mse", "value": losses.mean(axis=1)}
        own = pd.DataFrame({"seed": np.arange(len(losses)), **line})
        scores = pd.concat([own[list(scores)], scores], ignore_index=True)
    return _Tested(losses, scores, alarms, fits[0].chosen)


def _score_table(
    model: Model, predictions: Sequence[np.ndarray], split: Fold, tested: Targets
) -> pd.DataFrame:
    """Columns model, seed, metric, value."""
    mean = train_mean(split) if tested.kind == "regression" else None
    lines = [
        {"model": model.name, "seed": seed, "metric": metric, "value": value}
        for seed, p in enumerate(predictions)
        for metric, value in scores(tested.kind, p, tested.values, mean).items()
    ]
    if mean is not None and tested.genes is not None:
        shares = [fraction_r2(prediction, tested, mean) for prediction in predictions]
        lines += [
            {"model": model.name, "seed": seed, "metric": "fraction_r2", "value": value}
            for seed, value in enumerate(shares)
            if value is not None
        ]
    return pd.DataFrame(lines)


def _encoder_alarms(trained: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[Alarm]]:
    """What the encoders of a fold say of themselves, by name."""
    return {
        name: [a for run in runs for a in encoder_alarms(name, run["n_latent"], run)]
        for name, runs in trained.items()
    }


def _say_folds(problem: Problem, closed: Sequence[tuple[Share, float]]) -> None:
    """One line a fold of a pass, with its draws and seconds."""
    config = problem.config
    metric = headline(problem.targets.kind, config.loss)
    for repeat, fold in dict.fromkeys((share.repeat, share.fold) for share, _ in closed):
        own = [(share, s) for share, s in closed if (share.repeat, share.fold) == (repeat, fold)]
        losses = pd.DataFrame([{m: v.mean() for m, v in share.losses.items()} for share, _ in own])
        draws = f" x {len(own)} draws" if len(own) > 1 else ""
        size = f", {problem.train_size} training samples{draws}" if problem.train_size else ""
        place = f"repeat {repeat + 1}/{config.repeats} " if config.repeats > 1 else ""
        best = best_text(metric, losses.mean(), most=2 if problem.train_size else 3)
        seconds = sum(seconds for _, seconds in own)
        log.info(
            "%sfold %d/%d%s: %s, %.1f s", place, fold + 1, problem.n_folds, size, best, seconds
        )


def _n_added(share: OpenShare, classes: Sequence[str]) -> dict[str, int]:
    """Samples of every class that were added to the training rows; empty without `augment`."""
    for rows in share.inputs.added.values():
        counts = np.bincount(rows[0].codes, minlength=len(classes))
        return dict(zip(classes, counts.tolist(), strict=True))
    return {}


def start_tally(problem: Problem, split: Fold, tested: Targets) -> TargetTally | None:
    """What gathers the view by target; none for classes, one target, or part of the training rows.

    Parameters
    ----------
    problem : Problem
    split : Fold
    tested : Targets
        Of the test rows.
    """
    if problem.targets.kind != "regression" or problem.train_size is not None:
        return None
    if len(problem.targets.names) < 2:
        return None
    names = [model.name for model in problem.models]
    family = declared_family([entry.name for entry in problem.encoders], names, problem.rival)
    return TargetTally(split, tested.values, [*family, *own_gene_pairs(problem.models)])


def start_labels(problem: Problem, split: Fold, tested: Targets) -> LabelTally | None:
    """What gathers the view by label; the parameters are those of `start_tally`."""
    if tested.kind != "multilabel" or problem.train_size is not None:
        return None
    return LabelTally(tested.values, None if split.groups is None else split.groups[split.test])
