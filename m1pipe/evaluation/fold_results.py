"""Results of single folds and draws (shares), and how they become one result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, get_args

import numpy as np
import pandas as pd

from m1pipe.errors import Alarm, InputError, Severity, counted
from m1pipe.evaluation.alarms import below_yardstick, untested_pairs
from m1pipe.evaluation.compare import compare, declared_family
from m1pipe.evaluation.equivalence import ROPE, equivalence
from m1pipe.evaluation.learning_curve import curve_tests, label_curve
from m1pipe.evaluation.per_label import LabelSums, gather_labels, unlearned_labels
from m1pipe.evaluation.per_target import TargetSums, gather_targets
from m1pipe.evaluation.result import CrossvalResult
from m1pipe.evaluation.significance import relative_difference

SEVERITIES = get_args(Severity)
ShareKey = tuple[int, int, int | None, int]
"""Repeat, fold, number of training rows (None: all), and draw of these, from 0."""
STRATUM_ROW = "stratum_mean"


@dataclass(frozen=True, eq=False)
class Share:
    """What one test fold of one repeat gave.

    Attributes
    ----------
    repeat, fold : int
        Which one.
    samples : ndarray of str, shape (n_test,)
        Ids of the test samples.
    losses : dict of str to ndarray, shape (n_seeds, n_test)
        Loss of each test sample, for each model; one seed for all but encoders.
    scores : DataFrame
        Columns model, seed, repeat, fold, metric, value.
    alarms : dict of str to list of Alarm
        What was seen on the way, by model.
    encoders : dict of str to list of dict
        Facts about the encoders trained inside this fold, one dict per seed.
    targets : TargetSums or None
        Sums by target, for levels.
    n_train : int or None
        Training rows used, where these are a part.
    chosen : dict of str to dict
        Settings that won on inner validation rows, by model: of its encoder, and of its `head`.
    added : dict of str to int
        Samples of every class that were added to the training rows.
    labels : LabelSums or None
        Sums by label, where there are any number of them a sample.
    draw : int
        Which draw of so many training rows, from 0.
    """

    repeat: int
    fold: int
    samples: np.ndarray
    losses: Mapping[str, np.ndarray]
    scores: pd.DataFrame
    alarms: Mapping[str, list[Alarm]]
    encoders: Mapping[str, list[dict[str, Any]]]
    targets: TargetSums | None = None
    n_train: int | None = None
    chosen: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    added: Mapping[str, int] = field(default_factory=dict)
    labels: LabelSums | None = None
    draw: int = 0

    @property
    def key(self) -> ShareKey:
        """Repeat, fold, the number of training rows where these are a part, and their draw."""
        return self.repeat, self.fold, self.n_train, self.draw


@dataclass(frozen=True, eq=False)
class Plan:
    """What is needed, beside the shares, to put a result together: no data, no models.

    Attributes
    ----------
    samples : ndarray of str, shape (n_samples,)
        Sample ids.
    folds : ndarray of int, shape (n_repeats, n_samples)
        The fold that tests each sample.
    groups : ndarray of str, shape (n_samples,), or None
        Donor (say) of each sample.
    ladder, encoders : tuple of str
        All models, and those that are encoders.
    rival : str or None
        The linear model of the declared family.
    alarms : list of Alarm
        What was known before the first fit.
    info : dict
        Plain facts for the report.
    strata : ndarray of str, shape (n_samples,), or None
        Stratum of each sample.
    train_sizes : tuple of int
        Every fold is also run with so many training rows.
    draws : int
        How often so many training rows are drawn.
    target_names, target_genes : tuple of str, or None
        Of all targets (or labels), for the view by target; None for classes.
    """

    samples: np.ndarray
    folds: np.ndarray
    groups: np.ndarray | None
    ladder: tuple[str, ...]
    encoders: tuple[str, ...]
    rival: str | None
    alarms: list[Alarm]
    info: dict[str, Any]
    strata: np.ndarray | None = None
    train_sizes: tuple[int, ...] = ()
    target_names: tuple[str, ...] | None = None
    target_genes: tuple[str, ...] | None = None
    draws: int = 1

    @property
    def shares(self) -> list[ShareKey]:
        """Every repeat, fold, number of training rows and draw, in the order of the runs."""
        n_repeats, n_folds = self.folds.shape[0], int(self.folds.max()) + 1
        folds = [(r, k) for r in range(n_repeats) for k in range(n_folds)]
        parts = [
            (r, k, n, d) for n in self.train_sizes for r, k in folds for d in range(self.draws)
        ]
        return [*((r, k, None, 0) for r, k in folds), *parts]

    @property
    def family(self) -> list[tuple[str, str]]:
        """The declared pairs."""
        return declared_family(self.encoders, self.ladder, self.rival)

    @property
    def headline(self) -> str:
        """Name of the headline test."""
        return str(self.info.get("headline", "nadeau_bengio"))

    def tested(self, repeat: int, fold: int) -> np.ndarray:
        """Indices of the samples that a fold tests."""
        return np.flatnonzero(self.folds[repeat] == fold)


def assemble(plan: Plan, shares: Sequence[Share]) -> CrossvalResult:
    """Put the shares of all folds together, and compare the models.

    Parameters
    ----------
    plan : Plan
    shares : sequence of Share
        One for every entry of `plan.shares`, in any order.

    Returns
    -------
    CrossvalResult

    Raises
    ------
    InputError
        If a share is missing, or has other samples or models than the plan.
    """
    ordered, smaller = _in_order(plan, shares)
    by_seed = _gather_losses(plan, ordered)
    losses = {model: values.mean(axis=0) for model, values in by_seed.items()}
    scores = pd.concat([share.scores for share in ordered], ignore_index=True)
    keys = ["model", "repeat", "fold", "metric"]
    comparisons = _comparisons(plan, losses)
    several = [model for model, values in by_seed.items() if len(values) > 1]
    means = scores.groupby(keys, sort=False)[["value"]].mean().reset_index()
    targets, target_info = gather_targets(
        plan.target_names, plan.target_genes, [(s.repeat, s.targets) for s in ordered]
    )
    labels, calibration = gather_labels(plan.target_names, [(s.repeat, s.labels) for s in ordered])
    curve = _curve(plan, ordered, smaller)
    return CrossvalResult(
        samples=plan.samples,
        folds=plan.folds,
        losses=losses,
        scores=add_within(means, losses, plan.folds),
        seed_scores=scores[scores["model"].isin(several)].reset_index(drop=True),
        seed_losses={model: by_seed[model] for model in several},
        comparisons=comparisons,
        alarms=_all_alarms(plan, ordered, losses, comparisons, labels),
        info={**_info(plan, ordered), **target_info, **_equivalence(plan, losses)},
        strata=plan.strata,
        curve=curve,
        curve_tests=_test_curve(plan, curve),
        targets=targets,
        labels=labels,
        calibration=calibration,
    )


def _in_order(plan: Plan, shares: Sequence[Share]) -> tuple[list[Share], list[Share]]:
    """Shares of whole folds and of fewer training rows; refused where one is missing."""
    found = {share.key: share for share in shares}
    missing = [key for key in plan.shares if key not in found]
    if missing:
        named = ", ".join(_name_share(key) for key in missing[:5])
        raise InputError(
            f"crossval: expected {len(plan.shares)} shares; {len(missing)} are missing ({named}): "
            "run them first"
        )
    ordered = [found[key] for key in plan.shares if key[2] is None]
    return ordered, [found[key] for key in plan.shares if key[2] is not None]


def _all_alarms(
    plan: Plan,
    shares: Sequence[Share],
    losses: Mapping[str, np.ndarray],
    comparisons: pd.DataFrame,
    labels: pd.DataFrame,
) -> list[Alarm]:
    """What was known before, what the folds found, what the whole says."""
    metric = plan.info["metric"]
    return [
        *plan.alarms,
        *_merge_alarms(shares),
        *below_yardstick(losses, plan.folds, yardstick=plan.ladder[0], metric=metric),
        *untested_pairs(comparisons, plan.headline),
        *(unlearned_labels(labels) if len(labels) else []),
    ]


def _test_curve(plan: Plan, curve: pd.DataFrame) -> pd.DataFrame:
    """Tests of the declared family at every number of training rows."""
    return curve_tests(
        curve,
        plan.family,
        metric=plan.info["metric"],
        n_folds=int(plan.folds.max()) + 1,
        n_samples=plan.samples.size,
        by_strata=plan.headline != "nadeau_bengio",
    )


def _curve(plan: Plan, whole: Sequence[Share], smaller: Sequence[Share]) -> pd.DataFrame:
    """Scores by number of training rows; that of whole folds is their mean, rounded."""
    if not smaller:
        return pd.DataFrame()
    n_all = round(plan.samples.size * (1 - 1 / (int(plan.folds.max()) + 1)))
    return label_curve([(s.n_train or n_all, s.draw, s.scores) for s in (*smaller, *whole)])


def _name_share(key: ShareKey) -> str:
    repeat, fold, size, draw = key
    text = f"repeat {repeat} fold {fold}" + (
        "" if size is None else f" with {counted(size, 'sample')}"
    )
    return text + (f" draw {draw}" if draw else "")


def _gather_losses(plan: Plan, shares: Sequence[Share]) -> dict[str, np.ndarray]:
    """Losses of shape (n_seeds, n_repeats, n_samples) of every model, placed by sample id."""
    place = {sample: i for i, sample in enumerate(plan.samples)}
    gathered: dict[str, np.ndarray] = {}
    for share in shares:
        tested = plan.tested(share.repeat, share.fold)
        columns = np.array([place.get(sample, -1) for sample in share.samples], dtype=np.int64)
        if sorted(columns) != tested.tolist() or set(share.losses) != set(plan.ladder):
            raise InputError(
                f"crossval: the share of repeat {share.repeat} fold {share.fold} has other samples "
                "or models than this cross-validation: remove it and run it again"
            )
        for model in plan.ladder:
            loss = share.losses[model]
            if model not in gathered:
                gathered[model] = np.full((len(loss), *plan.folds.shape), np.nan)
            gathered[model][:, share.repeat, columns] = loss
    return gathered


def _comparisons(plan: Plan, losses: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """All pairs of models, later minus earlier; only the declared family carries a claim."""
    return compare(
        losses,
        plan.folds,
        pairs=[(a, b) for b, a in combinations(plan.ladder, 2)],
        family=plan.family,
        groups=plan.groups,
        metric=plan.info["metric"],
        headline=plan.headline,
    )


def _equivalence(plan: Plan, losses: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Posterior probabilities of the declared pairs; none where strata are left out in turn."""
    if plan.headline != "nadeau_bengio" or not plan.family:
        return {}
    rope = float(plan.info.get("rope", ROPE))
    pairs = equivalence(losses, plan.folds, pairs=plan.family, rope_share=rope)
    return {"equivalence": {"rope_share": rope, "pairs": pairs}}


def _merge_alarms(shares: Sequence[Share]) -> list[Alarm]:
    """Each alarm of a model once, with the number of folds that raised it."""
    seen: dict[tuple[str, str], list[Alarm]] = {}
    for share in shares:
        for model, alarms in share.alarms.items():
            for alarm in {alarm.name: alarm for alarm in alarms}.values():
                seen.setdefault((model, alarm.name), []).append(alarm)
    merged = []
    for alarms in seen.values():
        worst = max(alarms, key=lambda alarm: SEVERITIES.index(alarm.severity))
        text = f"{worst.text.rstrip('.')} (in {len(alarms)} of {len(shares)} folds)."
        merged.append(Alarm(worst.name, worst.severity, text))
    return merged


def _info(plan: Plan, shares: Sequence[Share]) -> dict[str, Any]:
    """The plan's facts, with those of the encoders that were trained inside the folds."""
    encoders = {name: dict(facts) for name, facts in plan.info.get("encoders", {}).items()}
    for share in shares:
        for name, runs in share.encoders.items():
            place = f"repeat {share.repeat + 1}, fold {share.fold + 1}"
            named = [{**run, "path": f"{place}, seed {run['seed']}"} for run in runs]
            encoders[name]["runs"] = [*encoders[name].get("runs", []), *named]
    for facts in encoders.values():
        widths = {run.get("n_latent", facts.get("n_latent")) for run in facts.get("runs", [])}
        if widths:  # they may have been chosen within the folds, and differ
            facts["n_latent"] = widths.pop() if len(widths) == 1 else None
    chosen = [
        {"repeat": share.repeat, "fold": share.fold, "row": model, **settings}
        for share in shares
        for model, settings in share.chosen.items()
    ]
    added = [
        {"repeat": share.repeat, "fold": share.fold, "classes": dict(share.added)}
        for share in shares
        if share.added
    ]
    more = {name: lines for name, lines in (("chosen", chosen), ("added", added)) if lines}
    return {**plan.info, "encoders": encoders, **more}


def add_within(
    scores: pd.DataFrame, losses: Mapping[str, np.ndarray], folds: np.ndarray
) -> pd.DataFrame:
    """Scores with R2 within strata: 1 - loss / loss of the strata's training means.

    Parameters
    ----------
    scores : DataFrame
        Columns model, repeat, fold, metric, value.
    losses : mapping of str to ndarray, shape (n_repeats, n_samples)
        Squared errors of every model; without `stratum_mean` the scores are returned as they are.
    folds : ndarray of int, shape (n_repeats, n_samples)
    """
    if STRATUM_ROW not in losses:
        return scores
    lines = [
        {
            "model": model,
            "repeat": r,
            "fold": int(k),
            "metric": "r2_within",
            "value": -relative_difference(loss[r][row == k], losses[STRATUM_ROW][r][row == k]),
        }
        for model, loss in losses.items()
        for r, row in enumerate(folds)
        for k in np.unique(row)
    ]
    return pd.concat([scores, pd.DataFrame(lines)], ignore_index=True)
