"""The quality report's numbers: every family of scores for the synthetic samples and the rivals."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.console import log
from m1pipe.synthesis import privacy, utility
from m1pipe.synthesis.alarms import find_alarms
from m1pipe.synthesis.bench import (
    Bench,
    all_failed,
    classifier_scores,
    classifier_yardsticks,
    fidelity_scores,
    set_up,
)
from m1pipe.synthesis.config import QualityConfig
from m1pipe.synthesis.fidelity import Measure, Yardstick, failed, scores, yardsticks
from m1pipe.synthesis.marginal import gene_table
from m1pipe.synthesis.material import Material, load_material
from m1pipe.synthesis.resample import View, make_plan
from m1pipe.synthesis.rivals import RIVALS
from m1pipe.synthesis.score import FAILURES, Alarm, Score

SYNTHETIC = "synthetic"


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
    synthetic
        Likewise: its samples.
    holdout
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
        If the three sets do not fit together (see `load_material`).
    """
    config = config or QualityConfig()
    config = dataclasses.replace(
        config,
        label=config.label if label is None else label,
        group=config.group if group is None else group,
        rivals=rivals or config.rivals,
    )
    material = load_material(real, synthetic, holdout, config)
    log.info("scoring %d genes on the scale %s", len(material.genes), material.scale.name)
    return _report(material, config)


def _report(material: Material, config: QualityConfig) -> QualityReport:
    """Score the synthetic samples, then the rivals, on one bench."""
    bench = set_up(material, config)
    known: dict[str, Yardstick] = {}
    log.info("classifiers: real, shuffled and mildly corrupted samples")
    told = classifier_yardsticks(bench)

    def score(samples: np.ndarray) -> dict[str, list[Score]]:
        return {
            "fidelity": fidelity_scores(bench, samples, known)
            + classifier_scores(bench, samples, told),
            "privacy": privacy_scores(bench, samples),
        }

    log.info("synthetic samples")
    own = score(material.synthetic)
    models = {SYNTHETIC: [*own["fidelity"], *label_scores(bench), *own["privacy"]]}
    for name, generate in RIVALS.items() if config.rivals else ():
        log.info("rival: %s", name)
        try:
            samples = generate(material.real, len(material.synthetic), config.seed)
        except FAILURES as error:
            models[name] = all_failed(f"the rival failed: {error}", *own.values())
            continue
        found = score(samples)
        models[name] = [*found["fidelity"], *found["privacy"]]
    info = _facts(bench)
    return QualityReport(models, find_alarms(models[SYNTHETIC], info), info, _pictures(bench))


def label_scores(bench: Bench) -> list[Score]:
    """Utility scores of the synthetic samples; none where no label was asked for.

    Parameters
    ----------
    bench : Bench
    """
    m, labels, label = bench.material, bench.material.labels, bench.config.label
    if labels is None:
        return []
    if "synthetic" not in labels:
        reason = f"the synthetic samples have no column {label!r}"
        return failed([*utility.UTILITY, *utility.EXPRESSION], reason)
    log.info("utility: %s", label)
    classes = np.unique(labels["real"][labels["real"] != ""])
    x, s, h = (
        utility.labelled(bench.space.standardised(X), labels[role], classes)
        for role, X in (("real", m.real), ("synthetic", m.synthetic), ("holdout", m.holdout))
    )
    donors = m.holdout_groups
    if donors is not None:
        donors = donors[np.isin(labels["holdout"], classes)]
    try:
        found = utility.utility_scores(x, s, h, bench.config, donors)
    except FAILURES as error:
        found = failed(utility.UTILITY, str(error))
    return found + _expression_scores(x, s, h, bench.config, donors)


def _expression_scores(
    x: utility.Labelled,
    s: utility.Labelled,
    h: utility.Labelled,
    config: QualityConfig,
    donors: np.ndarray | None,
) -> list[Score]:
    """Which genes tell the classes apart; the floor has the classes of real samples shuffled."""
    sizes = (len(x.codes), len(s.codes), len(h.codes))
    if min(sizes) < 2 * utility.FEWEST:
        return failed(utility.EXPRESSION, f"a set has only {min(sizes)} labelled samples")
    real, synthetic, holdout = (np.column_stack([rows.X, rows.codes]) for rows in (x, s, h))
    floor = real.copy()
    floor[:, -1] = np.random.default_rng([config.seed, 10]).permutation(real[:, -1])
    measure = Measure(
        definitions=utility.EXPRESSION,
        function=utility.expression_scores,
        view=View(real, synthetic, holdout, floor),
        plan=make_plan(sizes, config, groups=donors),
    )
    return scores(measure, yardsticks(measure))


def privacy_scores(bench: Bench, synthetic: np.ndarray) -> list[Score]:
    """Scores that look at the training samples.

    Parameters
    ----------
    bench : Bench
    synthetic : ndarray, shape (n_samples, n_genes)
    """
    m, genes = bench.material, bench.space.genes
    X, S, H = m.real[:, genes], synthetic[:, genes], m.holdout[:, genes]
    try:
        n_components = bench.config.n_components
        found = privacy.distance_scores(X, S, H, bench.small_plan, n_components)
    except FAILURES as error:
        found = failed(privacy.BY_DISTANCE, str(error))
    places = (bench.pcs["real"], bench.space.components(synthetic), bench.pcs["holdout"])
    return [*found, privacy.copies_score(X, S, H, places)]


def _facts(bench: Bench) -> dict[str, Any]:
    return {
        **bench.material.facts,
        "size": bench.plan.size,
        "small_size": bench.small_plan.size,
        "n_draws": len(bench.plan.draws),
        "n_components": len(bench.space.pca.components),
        "n_genes_drawn": int(bench.space.genes.size),
        "n_independent": bench.plan.n_independent,
        "donors": bench.material.holdout_groups is not None,
        "settings": dataclasses.asdict(bench.config),
    }


def _pictures(bench: Bench) -> dict[str, Any]:
    """What the figures show, of the first draw."""
    m, draw, genes = bench.material, bench.small_plan.draws[0], bench.space.genes
    H, S = m.holdout[draw.holdout][:, genes], m.synthetic[draw.synthetic][:, genes]
    return {
        "genes": gene_table(H, S, m.scale),
        "holdout_pcs": bench.pcs["holdout"][draw.holdout],
        "synthetic_pcs": bench.space.components(m.synthetic[draw.synthetic]),
        "correlations": _some_correlations(H, S, bench.config.seed),
    }


def _some_correlations(H: np.ndarray, S: np.ndarray, seed: int, most: int = 150) -> np.ndarray:
    """Correlations of pairs of some genes that vary in both sets, shape (2, n_pairs)."""
    varies = np.flatnonzero((H != H[:1]).any(axis=0) & (S != S[:1]).any(axis=0))
    genes = np.random.default_rng([seed, 14]).permutation(varies)[:most]
    if genes.size < 2:
        return np.empty((2, 0))
    upper = np.triu_indices(genes.size, 1)
    return np.array([np.corrcoef(X[:, genes].T)[upper] for X in (H, S)])
