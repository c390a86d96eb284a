"""Everything fitted and drawn once, so that all sets of samples stand before the same judge."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from m1pipe.errors import M1Warning
from m1pipe.synthesis.config import QualityConfig
from m1pipe.synthesis.dependence import DEPENDENCE, FRECHET, correlation_scores, frechet_score
from m1pipe.synthesis.fidelity import Measure, Yardstick, scores, yardsticks
from m1pipe.synthesis.joint import (
    MMD,
    MMD_P,
    PRDC,
    bandwidth,
    mmd_p_value,
    mmd_score,
    prdc_scores,
)
from m1pipe.synthesis.marginal import MARGINAL, Trend, fit_trend, marginal_scores
from m1pipe.synthesis.material import Material
from m1pipe.synthesis.resample import (
    Plan,
    View,
    corrupted,
    drawn_apart,
    make_plan,
    mean_only,
    shuffled,
)
from m1pipe.synthesis.score import FAILURES, Score
from m1pipe.synthesis.space import Space, fit_space
from m1pipe.synthesis.twosample import C2ST, Told, c2st_score, tell_apart

MOST_CLASSIFIED = 1000  # a side: keeps the forests of 20,000 genes to minutes


@dataclass(frozen=True, eq=False)
class Bench:
    """What every set of samples is scored with.

    Attributes
    ----------
    material : Material
    config : QualityConfig
    space : Space
    plan, small_plan, classifier_plan : Plan
        Rows of equal number: all there are; at most `config.max_samples`; for classifiers.
    pcs : dict of str to ndarray, shape (n_samples, n_components)
        Principal component scores of "real", "holdout" and "floor".
    shuffled : ndarray, shape (n_real, n_drawn)
        The drawn genes of the real samples, each shuffled on its own.
    trend : Trend or None
    """

    material: Material
    config: QualityConfig
    space: Space
    plan: Plan
    small_plan: Plan
    classifier_plan: Plan
    pcs: Mapping[str, np.ndarray]
    shuffled: np.ndarray
    trend: Trend | None


def set_up(material: Material, config: QualityConfig) -> Bench:
    """Fit the space and the trend, draw the rows, make the floors.

    Parameters
    ----------
    material : Material
    config : QualityConfig
    """
    space = fit_space(material.real, config)
    sizes = (len(material.real), len(material.synthetic), len(material.holdout))
    groups = material.holdout_groups
    pcs = {
        "real": space.components(material.real),
        "holdout": space.components(material.holdout),
        "floor": space.shuffled_components(material.real, config.seed),
    }
    return Bench(
        material=material,
        config=config,
        space=space,
        plan=make_plan(sizes, config, groups=groups),
        small_plan=make_plan(sizes, config, groups=groups, most=config.max_samples),
        classifier_plan=make_plan(
            sizes, config, groups=groups, most=min(config.max_samples, MOST_CLASSIFIED)
        ),
        pcs=pcs,
        shuffled=shuffled(material.real[:, space.genes], config.seed),
        trend=_trend(material),
    )


def _trend(material: Material) -> Trend | None:
    try:
        return fit_trend(material.real, material.scale)
    except FAILURES as error:
        warnings.warn(f"mean-variance trend: {error}", M1Warning, stacklevel=3)
        return None


def measures(bench: Bench, synthetic: np.ndarray) -> list[Measure]:
    """All scores that compare one set of samples with the hold-out, but for classifiers.

    Parameters
    ----------
    bench : Bench
    synthetic : ndarray, shape (n_samples, n_genes)
    """
    m, config, genes = bench.material, bench.config, bench.space.genes
    every = View(m.real, synthetic, m.holdout, mean_only(m.real))
    some = View(m.real[:, genes], synthetic[:, genes], m.holdout[:, genes], bench.shuffled)
    places = bench.space.components(synthetic)
    pcs = View(bench.pcs["real"], places, bench.pcs["holdout"], bench.pcs["floor"])
    big, small = bench.plan, bench.small_plan
    sigma = bandwidth(bench.pcs["holdout"][small.draws[0].holdout])
    permuted = partial(
        mmd_p_value, sigma=sigma, n_permutations=config.n_permutations, seed=config.seed
    )
    return [
        Measure(
            definitions=MARGINAL,
            function=partial(marginal_scores, scale=m.scale, trend=bench.trend),
            view=every,
            plan=big,
            narrow=genes if genes.size < m.real.shape[1] else None,
        ),
        Measure(definitions=DEPENDENCE, function=correlation_scores, view=some, plan=big),
        Measure(definitions=FRECHET, function=frechet_score, view=pcs, plan=big),
        Measure(definitions=MMD, function=partial(mmd_score, sigma=sigma), view=pcs, plan=small),
        Measure(
            definitions=MMD_P,
            function=permuted,
            view=pcs,
            plan=replace(small, draws=small.draws[:1]),
        ),
        Measure(definitions=PRDC, function=prdc_scores, view=pcs, plan=small),
    ]


def fidelity_scores(
    bench: Bench, synthetic: np.ndarray, known: dict[str, Yardstick]
) -> list[Score]:
    """Scores of all `measures`.

    Parameters
    ----------
    bench : Bench
    synthetic : ndarray, shape (n_samples, n_genes)
    known : dict
        Ceilings and floors, filled by the first call and used by the later ones.
    """
    out = []
    for measure in measures(bench, synthetic):
        if measure.names[0] not in known:
            known |= yardsticks(measure)
        out += scores(measure, known)
    return out


def classifier_yardsticks(bench: Bench) -> dict[tuple[str, str], Told]:
    """AUC of each classifier for real, shuffled and mildly corrupted samples in place of synthetic.

    Returns
    -------
    dict of (score, "ceiling" or "floor" or "corrupted") to Told
        Without what could not be computed.
    """
    m, draw, seed = bench.material, bench.classifier_plan.draws[0], bench.config.seed
    holdout = bench.space.standardised(m.holdout[draw.holdout])
    real = bench.space.standardised(m.real[draw.real])
    sets = {"ceiling": real, "floor": drawn_apart(real, seed), "corrupted": corrupted(real, seed)}
    donors = _donors(m.holdout_groups, draw.holdout), _donors(m.real_groups, draw.real)
    out = {}
    for definition in C2ST:
        for role, rows in sets.items():
            try:
                told = tell_apart(holdout, rows, definition.name, groups=donors, seed=seed)
            except FAILURES:
                continue
            out[definition.name, role] = told
    return out


def classifier_scores(
    bench: Bench, synthetic: np.ndarray, known: Mapping[tuple[str, str], Told]
) -> list[Score]:
    """C2ST scores of one set of samples.

    Parameters
    ----------
    bench : Bench
    synthetic : ndarray, shape (n_samples, n_genes)
    known : mapping
        From `classifier_yardsticks`.
    """
    m, draw = bench.material, bench.classifier_plan.draws[0]
    holdout = bench.space.standardised(m.holdout[draw.holdout])
    rows = bench.space.standardised(synthetic[draw.synthetic])
    donors = _donors(m.holdout_groups, draw.holdout)
    out = []
    for definition in C2ST:
        try:
            told = tell_apart(
                holdout, rows, definition.name, groups=(donors, None), seed=bench.config.seed
            )
        except FAILURES as error:
            out.append(Score(definition=definition, error=" ".join(str(error).split())))
            continue
        out.append(c2st_score(definition, told, known, bench.classifier_plan.n_independent))
    return out


def _donors(groups: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if groups is None else groups[rows]


def all_failed(reason: str, *families: Sequence[Score]) -> list[Score]:
    """The scores of other samples, every one of them failed for one reason."""
    return [
        Score(definition=score.definition, error=reason) for family in families for score in family
    ]
