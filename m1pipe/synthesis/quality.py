"""The numbers of the quality report: every family of scores, the rivals, the alarms."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from m1pipe import seeds
from m1pipe.console import log
from m1pipe.errors import Alarm, InputError, counted
from m1pipe.synthesis import attacks, camda, privacy, utility
from m1pipe.synthesis.config import QualityConfig
from m1pipe.synthesis.fidelity import (
    Reference,
    classifier_scores,
    classifier_yardsticks,
    fidelity_scores,
    fit_reference,
)
from m1pipe.synthesis.marginal import gene_table
from m1pipe.synthesis.quality_data import QualityData, load_quality_data
from m1pipe.synthesis.resampling import Sets, make_plan
from m1pipe.synthesis.rivals import RIVALS
from m1pipe.synthesis.scores import FAILURES, Measure, Score, Yardstick, failed, scores, yardsticks

SYNTHETIC = "synthetic"
FEW = 100
FEW_DONORS = 10
COLLAPSED = 0.7
DIFFERENT = 0.6


@dataclass(frozen=True, eq=False, repr=False)
class QualityReport:
    """All scores of the synthetic samples, and of rivals where they were asked for.

    Attributes
    ----------
    scores : dict of str to list of Score
        By model: "synthetic" first, then the rivals.
    alarms : list of Alarm
    info : dict
        Sizes, scale, spaces, settings.
    pictures : dict of str to ndarray or DataFrame
        What the figures show; nothing that the scores need.
    """

    scores: Mapping[str, Sequence[Score]]
    alarms: Sequence[Alarm]
    info: Mapping[str, Any]
    pictures: Mapping[str, Any]

    def to_frame(self) -> pd.DataFrame:
        """One row a model and score; a failed score has its reason in the column error."""
        rows = [{"model": m, **s.row()} for m, found in self.scores.items() for s in found]
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        found = [
            f"{s.definition.title} {'failed' if s.error else f'{s.value:.3g}'}"
            for s in self.scores.get(SYNTHETIC, ())
            if not s.not_applicable
        ]
        rivals = len(self.scores) - (SYNTHETIC in self.scores)
        return (
            f"QualityReport({', '.join(found) or 'no scores'}; {rivals} rivals, "
            f"{len(self.alarms)} cautions)"
        )

    def score(self, name: str, model: str = SYNTHETIC) -> Score:
        """One score by name.

        Raises
        ------
        KeyError
            If there is no such score.
        """
        for score in self.scores[model]:
            if score.definition.name == name:
                return score
        raise KeyError(name)


def quality(
    real: Any,
    synthetic: Any,
    holdout: Any,
    *,
    label: str | None = None,
    group: str | None = None,
    rivals: bool = False,
    config: QualityConfig | None = None,
) -> QualityReport:
    """Score synthetic expression profiles against held-out real ones.

    Fidelity is synthetic against hold-out at equal sizes, beside the ceiling (real training
    samples in their place) and the floor; only privacy scores look at training samples.

    Parameters
    ----------
    real : path, AnnData, DataFrame, (array, names) or Matrix
        The samples that the generator was trained on.
    synthetic : as real
        Likewise: its samples.
    holdout : as real
        Likewise: real samples that it never saw, of other donors.
    label : str, optional
        Column of obs with classes, in all three: adds utility scores.
    group : str, optional
        Column of obs or regular expression on sample ids that names donors.
    rivals : bool
        Score rival generators, trained on `real`, beside the synthetic samples.
    config : QualityConfig, optional
        Everything else; `label`, `group` and `rivals` given above win over it.

    Returns
    -------
    QualityReport

    Raises
    ------
    InputError
        If the three sets do not fit together (see `load_quality_data`), or a preset lacks a label.
    """
    config = config or QualityConfig()
    config = dataclasses.replace(
        config,
        label=config.label if label is None else label,
        group=config.group if group is None else group,
        rivals=rivals or config.rivals,
    )
    if config.preset is not None and config.label is None:
        raise InputError(f"--preset {config.preset}: expected --label COL, a column with classes")
    data = load_quality_data(real, synthetic, holdout, config)
    log.info("scoring %d genes on the scale %s", len(data.genes), data.facts["scale"])
    return _report(data, config)


def _report(data: QualityData, config: QualityConfig) -> QualityReport:
    """Score the synthetic samples, then the rivals, against one reference."""
    reference = fit_reference(data, config)
    known: dict[str, Yardstick] = {}
    log.info("classifiers: real, shuffled and mildly corrupted samples")
    told = classifier_yardsticks(reference)

    def fidelity(samples: np.ndarray) -> list[Score]:
        found = fidelity_scores(reference, samples, known)
        return found + classifier_scores(reference, samples, told)

    log.info("scores of the synthetic samples")
    own, private = fidelity(data.synthetic), privacy_scores(reference, data.synthetic)
    models = {SYNTHETIC: [*own, *label_scores(reference), *private]}
    for name, generate in RIVALS.items() if config.rivals else ():
        log.info("rival: %s", name)
        try:
            samples = generate(data.real, len(data.synthetic), config.seed)
        except FAILURES as error:
            reason = f"the rival failed: {error}"
            models[name] = failed([score.definition for score in (*own, *private)], reason)
            continue
        models[name] = fidelity(samples) + privacy_scores(reference, samples)
    info = _facts(reference)
    return QualityReport(models, find_alarms(models[SYNTHETIC], info), info, _pictures(reference))


def label_scores(reference: Reference) -> list[Score]:
    """Scores of the synthetic samples that need classes; none where no label was asked for.

    Parameters
    ----------
    reference : Reference
    """
    data, config = reference.data, reference.config
    labels = data.labels
    if labels is None:
        return []
    wanted = [*utility.UTILITY, *utility.EXPRESSION, *(camda.CAMDA if config.preset else ())]
    if "synthetic" not in labels:
        return failed(wanted, f"the synthetic samples have no column {config.label!r}")
    log.info("utility: %s", config.label)
    x, s, h = _with_classes(reference, labels, reference.space.standardised)
    donors = data.holdout_groups
    if donors is not None:
        donors = donors[np.isin(labels["holdout"], _classes(labels))]
    try:
        found = utility.utility_scores(x, s, h, config, donors)
    except FAILURES as error:
        found = failed(utility.UTILITY, str(error))
    found += _expression_scores(x, s, h, config, donors)
    return found + (_camda_scores(reference, labels) if config.preset else [])


def _classes(labels: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.unique(labels["real"][labels["real"] != ""])


def _with_classes(
    reference: Reference,
    labels: Mapping[str, np.ndarray],
    scale: Callable[[np.ndarray], np.ndarray],
) -> list[utility.ClassedRows]:
    """Training, synthetic and held-out samples of the classes of the training samples."""
    data = reference.data
    sets = {"real": data.real, "synthetic": data.synthetic, "holdout": data.holdout}
    classes = _classes(labels)
    return [utility.rows_with_class(scale(X), labels[role], classes) for role, X in sets.items()]


def _camda_scores(reference: Reference, labels: Mapping[str, np.ndarray]) -> list[Score]:
    """Scores of the challenge, on the drawn genes and at most `max_samples` of each set."""
    config, genes = reference.config, reference.space.genes
    log.info("scores of the CAMDA health privacy challenge")
    rng = seeds.rng(config.seed, seeds.CAMDA_ROWS)
    sets = [
        rows.take(rng.permutation(len(rows.codes))[: config.max_samples])
        for rows in _with_classes(reference, labels, lambda X: X[:, genes])
    ]
    try:
        return camda.camda_scores(*sets, seed=config.seed)
    except FAILURES as error:
        return failed(camda.CAMDA, " ".join(str(error).split()))


def _expression_scores(
    x: utility.ClassedRows,
    s: utility.ClassedRows,
    h: utility.ClassedRows,
    config: QualityConfig,
    donors: np.ndarray | None,
) -> list[Score]:
    """Which genes tell the classes apart; the floor has the classes of real samples shuffled."""
    sizes = (len(x.codes), len(s.codes), len(h.codes))
    if min(sizes) < 2 * utility.FEWEST:
        return failed(
            utility.EXPRESSION, f"a set has only {counted(min(sizes), 'labelled sample')}"
        )
    real, synthetic, holdout = (np.column_stack([rows.X, rows.codes]) for rows in (x, s, h))
    floor = real.copy()
    floor[:, -1] = seeds.rng(config.seed, seeds.FLOOR_LABELS).permutation(real[:, -1])
    measure = Measure(
        definitions=utility.EXPRESSION,
        function=utility.expression_scores,
        sets=Sets(real, synthetic, holdout, floor),
        plan=make_plan(sizes, config, groups=donors),
    )
    return scores(measure, yardsticks(measure))


def privacy_scores(reference: Reference, synthetic: np.ndarray) -> list[Score]:
    """Scores that look at the training samples.

    Parameters
    ----------
    reference : Reference
    synthetic : ndarray, shape (n_samples, n_genes)
    """
    data, genes = reference.data, reference.space.genes
    X, S, H = data.real[:, genes], synthetic[:, genes], data.holdout[:, genes]
    try:
        n_components = reference.config.n_components
        found = privacy.distance_scores(X, S, H, reference.small_plan, n_components)
    except FAILURES as error:
        found = failed(privacy.BY_DISTANCE, str(error))
    places = (
        reference.pcs["real"],
        reference.space.components(synthetic),
        reference.pcs["holdout"],
    )
    donors = data.real_groups, data.holdout_groups
    told = attacks.attack_scores(X, S, H, reference.config, donors)
    return [*found, privacy.copies_score(X, S, H, places), *told]


def _facts(reference: Reference) -> dict[str, Any]:
    return {
        **reference.data.facts,
        "size": reference.plan.size,
        "small_size": reference.small_plan.size,
        "n_draws": len(reference.plan.draws),
        "n_components": len(reference.space.pca.components),
        "n_genes_drawn": int(reference.space.genes.size),
        "n_independent": reference.plan.n_independent,
        "donors": reference.data.holdout_groups is not None,
        "settings": dataclasses.asdict(reference.config),
    }


def _pictures(reference: Reference) -> dict[str, Any]:
    """What the figures show, of the first draw."""
    data, draw, genes = reference.data, reference.small_plan.draws[0], reference.space.genes
    H, S = data.holdout[draw.holdout][:, genes], data.synthetic[draw.synthetic][:, genes]
    return {
        "genes": gene_table(H, S, is_log=data.is_log),
        "holdout_pcs": reference.pcs["holdout"][draw.holdout],
        "synthetic_pcs": reference.space.components(data.synthetic[draw.synthetic]),
        "correlations": _some_correlations(H, S, reference.config.seed),
    }


def _some_correlations(H: np.ndarray, S: np.ndarray, seed: int, most: int = 150) -> np.ndarray:
    """Correlations of pairs of some genes that vary in both sets, shape (2, n_pairs)."""
    varies = np.flatnonzero((H != H[:1]).any(axis=0) & (S != S[:1]).any(axis=0))
    genes = seeds.rng(seed, seeds.CORRELATED_GENES).permutation(varies)[:most]
    if genes.size < 2:
        return np.empty((2, 0))
    upper = np.triu_indices(genes.size, 1)
    return np.array([np.corrcoef(X[:, genes].T)[upper] for X in (H, S)])


def find_alarms(scores: Sequence[Score], info: Mapping[str, Any]) -> list[Alarm]:
    """Alarms about the data and about the synthetic samples, the severe ones first.

    Parameters
    ----------
    scores : sequence of Score
        Of the synthetic samples.
    info : mapping
        As in `QualityReport`.
    """
    by_name = {score.definition.name: score for score in scores}
    found = [*_of_data(info), *_of_scores(by_name)]
    told = attacks.succeeded(scores)
    if told:
        listed = ", ".join(f"{s.definition.title} {s.value:.2f}" for s in told)
        text = (
            f"Membership attacks tell training from held-out samples: {listed} (0.5: not at all)."
        )
        found.append(Alarm("membership", "warning", text))
    found += [
        Alarm("score_not_computed", "warning", f"{s.definition.title}: not computed: {s.error}.")
        for s in scores
        if s.error
    ]
    found.append(Alarm("privacy", "note", privacy.WARNING))
    order = {"severe": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda alarm: order[alarm.severity])


def _of_data(info: Mapping[str, Any]) -> list[Alarm]:
    found = []
    n_same = info["holdout_rows_in_real"]
    if n_same:
        text = (
            f"{counted(n_same, 'held-out sample is', 'held-out samples are')} in the training "
            "samples, to the last digit: the "
        )
        text += "hold-out is none, and every score flatters."
        found.append(Alarm("holdout_leak", "severe", text))
    n_donors = info["donors_on_both_sides"]
    if n_donors:
        text = (
            f"{counted(n_donors, 'donor is', 'donors are')} on both sides of the split: "
            "fidelity scores flatter, and "
        )
        text += "privacy scores hide leaks. Split by donors."
        found.append(Alarm("shared_donors", "warning", text))
    if info["absent_classes"]:
        n, first = len(info["absent_classes"]), info["absent_classes"][0]
        text = f"No synthetic sample is of {n:,} classes of the hold-out, such as {first!r}: every "
        text += (
            "score compares other mixtures of classes. Generate all classes, or leave these out."
        )
        found.append(Alarm("absent_classes", "warning", text))
    if info["size"] < FEW:
        text = (
            f"Only {counted(info['size'], 'sample')} a side: scores are noisy, small sets "
            "look alike."
        )
        found.append(Alarm("few_samples", "warning", text))
    if info["donors"] and info["n_independent"] < FEW_DONORS:
        text = (
            f"Only {counted(info['n_independent'], 'donor')} in the hold-out: intervals are rough."
        )
        found.append(Alarm("few_donors", "warning", text))
    return found


def _of_scores(scores: Mapping[str, Score]) -> list[Alarm]:
    checks: list[tuple[str, str, Callable[[Score], bool], str]] = [
        (
            "variance_ratio",
            "variance_collapse",
            lambda s: s.value < COLLAPSED,
            "Variance has collapsed: that of a typical gene is {value:.2f} of the real one.",
        ),
        (
            "c2st_forest",
            "holdout_differs",
            lambda s: s.ceiling > DIFFERENT,
            "Hold-out and training samples differ: a forest tells them apart (AUC {ceiling:.2f}), "
            "so the ceiling is low and says little.",
        ),
        (
            "copies",
            "copies",
            lambda s: s.value > 0 and s.low > s.ceiling,
            "{value:.1%} of the synthetic samples are near copies of training samples (held-out "
            "ones: {ceiling:.1%}).",
        ),
        (
            "closer_to_train",
            "leak",
            lambda s: s.low > 0.5,
            "Synthetic samples lie closer to training than to held-out samples ({value:.2f} of "
            "them, interval from {low:.2f}): the generator has remembered some.",
        ),
    ]
    out = []
    for name, alarm, fires, text in checks:
        score = scores.get(name)
        if score is not None and not score.error and fires(score):
            numbers = {"value": score.value, "low": score.low, "ceiling": score.ceiling}
            severity = "severe" if alarm == "copies" else "warning"
            out.append(Alarm(alarm, severity, text.format(**numbers)))  # type: ignore[arg-type]
    return out
