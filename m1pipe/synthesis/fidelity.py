"""Fidelity: what is fitted to the reference samples once, and every set of samples scored by it."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from m1pipe import seeds
from m1pipe.data.transforms import GeneTransform, fit_gene_transform
from m1pipe.errors import M1Warning
from m1pipe.models.pca import PCA, fit_pca
from m1pipe.synthesis.c2st import C2ST, Auc, tell_apart
from m1pipe.synthesis.config import QualityConfig
from m1pipe.synthesis.dependence import DEPENDENCE, FRECHET, correlation_scores, frechet_score
from m1pipe.synthesis.marginal import MARGINAL, Trend, fit_trend, marginal_scores
from m1pipe.synthesis.mmd_prdc import (
    MMD,
    MMD_P,
    PRDC,
    bandwidth,
    mmd_p_value,
    mmd_score,
    prdc_scores,
)
from m1pipe.synthesis.quality_data import QualityData
from m1pipe.synthesis.resampling import (
    ResamplingPlan,
    Sets,
    corrupted,
    drawn_apart,
    make_plan,
    mean_only,
    shuffled,
)
from m1pipe.synthesis.scores import FAILURES, Z95, Measure, Score, Yardstick, scores, yardsticks

_BLOCK = 512
MOST_CLASSIFIED = 1000  # a side: keeps the forests of 20,000 genes to minutes


@dataclass(frozen=True, eq=False)
class Space:
    """Fitted to the real training samples once, for all that is compared.

    Attributes
    ----------
    genes : ndarray of int, shape (n_drawn,)
        Genes drawn for whatever is quadratic in genes, ascending.
    transform : GeneTransform
        Standardises all genes.
    pca : PCA
        Of the standardised genes.
    """

    genes: np.ndarray
    transform: GeneTransform
    pca: PCA

    def standardised(self, X: np.ndarray) -> np.ndarray:
        """The drawn genes, standardised, float32, shape (n_samples, n_drawn)."""
        location, scale = self.transform.location[self.genes], self.transform.scale[self.genes]
        return np.asarray(((X[:, self.genes] - location) / scale).astype(np.float32))

    def components(self, X: np.ndarray) -> np.ndarray:
        """Principal component scores, float32, shape (n_samples, n_components)."""
        parts = [
            self.pca.scores(self.transform.apply(X[start : start + _BLOCK]))
            for start in range(0, len(X), _BLOCK)
        ]
        return np.concatenate(parts)

    def shuffled_components(self, X: np.ndarray, seed: int) -> np.ndarray:
        """Scores of X with every gene shuffled on its own, a block of genes at a time.

        Parameters
        ----------
        X : ndarray, shape (n_samples, n_genes)
        seed : int

        Returns
        -------
        ndarray of float32, shape (n_samples, n_components)
        """
        rng = seeds.rng(seed, seeds.SHUFFLED_COMPONENTS)
        weights = self.pca.components / self.transform.scale
        offset = (self.transform.location / self.transform.scale + self.pca.mean) @ (
            self.pca.components.T
        )
        total = np.zeros((len(X), len(self.pca.components)), dtype=np.float64)
        for start in range(0, X.shape[1], _BLOCK):
            part = rng.permuted(X[:, start : start + _BLOCK], axis=0)
            total += part @ weights[:, start : start + _BLOCK].T
        return np.asarray((total - offset).astype(np.float32))


def fit_space(X: np.ndarray, config: QualityConfig) -> Space:
    """Draw genes; fit the transform and the components.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_genes)
        Real training samples.
    config : QualityConfig
    """
    rng = seeds.rng(config.seed, seeds.COMPONENT_GENES)
    genes = np.sort(rng.permutation(X.shape[1])[: config.max_genes])

    def blocks() -> list[np.ndarray]:
        return [X[start : start + _BLOCK] for start in range(0, len(X), _BLOCK)]

    transform = fit_gene_transform("standardize", blocks())
    pca = fit_pca(lambda: (transform.apply(block) for block in blocks()), config.n_components)
    return Space(genes, transform, pca)


@dataclass(frozen=True, eq=False)
class Reference:
    """What every set of samples is scored against: data, space, rows, floors.

    Attributes
    ----------
    data : QualityData
    config : QualityConfig
    space : Space
    plan, small_plan, classifier_plan : ResamplingPlan
        Rows of equal number: all there are; at most `config.max_samples`; for classifiers.
    pcs : dict of str to ndarray, shape (n_samples, n_components)
        Principal component scores of "real", "holdout" and "floor".
    shuffled : ndarray, shape (n_real, n_drawn)
        The drawn genes of the real samples, each shuffled on its own.
    trend : Trend or None
    """

    data: QualityData
    config: QualityConfig
    space: Space
    plan: ResamplingPlan
    small_plan: ResamplingPlan
    classifier_plan: ResamplingPlan
    pcs: Mapping[str, np.ndarray]
    shuffled: np.ndarray
    trend: Trend | None


def fit_reference(data: QualityData, config: QualityConfig) -> Reference:
    """Fit the space and the trend, draw the rows, make the floors.

    Parameters
    ----------
    data : QualityData
    config : QualityConfig
    """
    space = fit_space(data.real, config)
    sizes = (len(data.real), len(data.synthetic), len(data.holdout))
    groups = data.holdout_groups
    pcs = {
        "real": space.components(data.real),
        "holdout": space.components(data.holdout),
        "floor": space.shuffled_components(data.real, config.seed),
    }
    return Reference(
        data=data,
        config=config,
        space=space,
        plan=make_plan(sizes, config, groups=groups),
        small_plan=make_plan(sizes, config, groups=groups, most=config.max_samples),
        classifier_plan=make_plan(
            sizes, config, groups=groups, most=min(config.max_samples, MOST_CLASSIFIED)
        ),
        pcs=pcs,
        shuffled=shuffled(data.real[:, space.genes], config.seed),
        trend=_trend(data),
    )


def _trend(data: QualityData) -> Trend | None:
    try:
        return fit_trend(data.real, is_log=data.is_log)
    except FAILURES as error:
        warnings.warn(f"mean-variance trend: {error}", M1Warning, stacklevel=3)
        return None


def measures(reference: Reference, synthetic: np.ndarray) -> list[Measure]:
    """All scores that compare one set of samples with the hold-out, but for classifiers.

    Parameters
    ----------
    reference : Reference
    synthetic : ndarray, shape (n_samples, n_genes)
    """
    data, config, genes = reference.data, reference.config, reference.space.genes
    real, holdout, pcs = data.real, data.holdout, reference.pcs
    every = Sets(real, synthetic, holdout, mean_only(real))
    some = Sets(real[:, genes], synthetic[:, genes], holdout[:, genes], reference.shuffled)
    components = Sets(
        pcs["real"], reference.space.components(synthetic), pcs["holdout"], pcs["floor"]
    )
    big, small = reference.plan, reference.small_plan
    sigma = bandwidth(pcs["holdout"][small.draws[0].holdout])
    permuted = partial(
        mmd_p_value, sigma=sigma, n_permutations=config.n_permutations, seed=config.seed
    )
    return [
        Measure(
            definitions=MARGINAL,
            function=partial(marginal_scores, trend=reference.trend, is_log=data.is_log),
            sets=every,
            plan=big,
            narrow=genes if genes.size < real.shape[1] else None,
        ),
        Measure(definitions=DEPENDENCE, function=correlation_scores, sets=some, plan=big),
        Measure(definitions=FRECHET, function=frechet_score, sets=components, plan=big),
        Measure(
            definitions=MMD, function=partial(mmd_score, sigma=sigma), sets=components, plan=small
        ),
        Measure(
            definitions=MMD_P,
            function=permuted,
            sets=components,
            plan=replace(small, draws=small.draws[:1]),
        ),
        Measure(definitions=PRDC, function=prdc_scores, sets=components, plan=small),
    ]


def fidelity_scores(
    reference: Reference, synthetic: np.ndarray, known: dict[str, Yardstick]
) -> list[Score]:
    """Scores of all `measures`.

    Parameters
    ----------
    reference : Reference
    synthetic : ndarray, shape (n_samples, n_genes)
    known : dict
        Ceilings and floors, filled by the first call and used by the later ones.
    """
    out = []
    for measure in measures(reference, synthetic):
        if measure.names[0] not in known:
            known |= yardsticks(measure)
        out += scores(measure, known)
    return out


def classifier_yardsticks(reference: Reference) -> dict[tuple[str, str], Auc]:
    """AUC of each classifier for real, shuffled and mildly corrupted samples in place of synthetic.

    Returns
    -------
    dict of (score, "ceiling" or "floor" or "corrupted") to Auc
        Without what could not be computed.
    """
    data, seed = reference.data, reference.config.seed
    draw = reference.classifier_plan.draws[0]
    holdout = reference.space.standardised(data.holdout[draw.holdout])
    real = reference.space.standardised(data.real[draw.real])
    sets = {"ceiling": real, "floor": drawn_apart(real, seed), "corrupted": corrupted(real, seed)}
    donors = _donors(data.holdout_groups, draw.holdout), _donors(data.real_groups, draw.real)
    out = {}
    for definition in C2ST:
        for role, rows in sets.items():
            if role == "floor" and definition.name == "c2st_logistic":
                continue  # a linear classifier sees means alone, which shuffling keeps
            try:
                told = tell_apart(holdout, rows, definition.name, groups=donors, seed=seed)
            except FAILURES:
                continue
            out[definition.name, role] = told
    return out


def classifier_scores(
    reference: Reference, synthetic: np.ndarray, known: Mapping[tuple[str, str], Auc]
) -> list[Score]:
    """C2ST scores of one set of samples.

    Parameters
    ----------
    reference : Reference
    synthetic : ndarray, shape (n_samples, n_genes)
    known : mapping
        From `classifier_yardsticks`.
    """
    data, plan, seed = reference.data, reference.classifier_plan, reference.config.seed
    draw = plan.draws[0]
    holdout = reference.space.standardised(data.holdout[draw.holdout])
    rows = reference.space.standardised(synthetic[draw.synthetic])
    donors = _donors(data.holdout_groups, draw.holdout)
    out = []
    for definition in C2ST:
        try:
            told = tell_apart(holdout, rows, definition.name, groups=(donors, None), seed=seed)
        except FAILURES as error:
            out.append(Score(definition=definition, error=" ".join(str(error).split())))
            continue
        ceiling, floor, corrupted_auc = (
            known[definition.name, role].auc if (definition.name, role) in known else np.nan
            for role in ("ceiling", "floor", "corrupted")
        )
        out.append(
            Score(
                definition=definition,
                value=told.auc,
                low=told.auc - Z95 * told.error,
                high=told.auc + Z95 * told.error,
                n_independent=plan.n_independent,
                ceiling=ceiling,
                floor=floor,
                corrupted=corrupted_auc,
            )
        )
    return out


def _donors(groups: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if groups is None else groups[rows]
