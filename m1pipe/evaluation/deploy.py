"""A model of a comparison fitted to all labelled samples, to predict those of new ones."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from m1pipe import seeds
from m1pipe.config import CrossvalConfig, FitConfig
from m1pipe.console import speaking
from m1pipe.data.recipe import Recipe, whole_recipe
from m1pipe.data.splits import inner_split
from m1pipe.data.targets import Targets
from m1pipe.data.transforms import GeneTransform
from m1pipe.encoder.missing import level_means
from m1pipe.errors import InputError, SettingError
from m1pipe.evaluation.augment import Generator
from m1pipe.evaluation.compared_models import Model, current_name, parse_model
from m1pipe.evaluation.encoders import ComparedEncoder, Item
from m1pipe.evaluation.folds import Fold, fill_own
from m1pipe.evaluation.inputs import FoldPCA, fit_inputs, whole_inputs
from m1pipe.evaluation.predictions import OpenShare, jobs_of
from m1pipe.evaluation.problem import Problem, make_problem, with_series
from m1pipe.heads.conformal import half_widths
from m1pipe.heads.features import FeatureMap
from m1pipe.heads.fit import fit_heads, head_threads
from m1pipe.heads.head_data import AddedRows, HeadData
from m1pipe.parameters import takes_settings
from m1pipe.predictor import GENES, LATENTS, PCA_SCORES, SOURCE_SCORE, Predictor
from m1pipe.settings import override
from m1pipe.source_labels import Sources
from m1pipe.training.device import threads

ONE_ENCODER = "vae"
"""Name of an encoder that is given without one."""


@takes_settings(FitConfig)
def fit_predictor(
    x: Any,
    y: Any = None,
    *,
    multilabel: Any = None,
    encoder: Item | Mapping[str, Item] | None = None,
    sources: Sources | None = None,
    generator: Generator | None = None,
    config: FitConfig | None = None,
    verbose: bool = False,
    **settings: Any,
) -> Predictor:
    """Fit a model of a comparison to all labelled samples.

    Parameters
    ----------
    x : path, AnnData, DataFrame or Matrix
        Genes of the labelled samples; in its obs the label, where that is predicted.
    y : path, AnnData, DataFrame, Series or Matrix, optional
        Levels to predict, paired with x by sample id; a Series is a label.
    multilabel : as y, optional
        Zeros and ones to predict.
    encoder : path, Encoder, EncoderConfig or mapping, optional
        Of a model on latents: a trained one, or settings to train one on x by; {NAME: encoder}
        gives it the name that it has in the model's. Without a name it is "vae".
    sources : Sources, optional
        Files of other studies whose labels a model NAME_transfer takes as well.
    generator : Generator, optional
        Makes the samples of `augment`; that of the command is
        `m1pipe.workflow.augment.train_generator`.
    config : FitConfig, optional
        Of which the settings below are some.
    verbose : bool
        Send progress to stderr.
    **settings
        Fields of `FitConfig` and of its head.

    Returns
    -------
    Predictor

    Raises
    ------
    InputError
        If there is no such model, or the files do not fit together.
    """
    chosen = override(config or FitConfig(), settings, where="fit_predictor")
    x, y, label = with_series(x, y, chosen.label)
    chosen = replace(chosen, label=label)
    with speaking(verbose):
        problem = open_fit(
            x,
            chosen,
            y=y,
            multilabel=multilabel,
            encoder=encoder,
            sources=sources,
            generator=generator,
        )
        return fit_model(problem, chosen)


def open_fit(
    x: Any,
    config: FitConfig,
    *,
    y: Any = None,
    multilabel: Any = None,
    encoder: Item | Mapping[str, Item] | None = None,
    sources: Sources | None = None,
    generator: Generator | None = None,
) -> Problem:
    """The samples, the targets and the one model of a fit; the parameters are `fit_predictor`'s.

    Raises
    ------
    InputError
        If there is no such model, or the files do not fit together.
    """
    encoders: Mapping[str, Item] = {}
    if encoder is not None:
        encoders = encoder if isinstance(encoder, Mapping) else {ONE_ENCODER: encoder}
    if len(encoders) > 1:
        raise InputError(
            f"encoder: expected one, of the model that is fitted; found {', '.join(encoders)}"
        )
    scored = "" if sources is None else "_transfer"
    name = config.model or next(iter(encoders), "raw") + scored
    variant = parse_model(name, tuple(encoders)).variant
    base = name if variant is None else name.removesuffix(f"_{variant}")
    if variant in ("augmented", "bootstrap") and config.augment is None:
        raise InputError(f"model: {name} expects --augment balance or a ratio beside it")
    if config.augment is not None and variant is None:
        variant = "augmented"
    problem = make_problem(
        x,
        y,
        label=config.label,
        multilabel=multilabel,
        targets=config.targets,
        encoders=encoders,
        sources=sources,
        config=_as_comparison(config, None if base in encoders else base),
        generator=generator,
        whole=True,
    )
    named = {model.name: model for model in problem.models}
    model = _fitted_alone(named[current_name(base, problem.encoders)], problem.encoders)
    _refuse_idle(model, encoders)
    if variant is not None:
        model = replace(model, name=f"{model.name}_{variant}", variant=variant)
    return replace(problem, models=(model,))


def _refuse_idle(model: Model, encoders: Mapping[str, Item]) -> None:
    """Refuse an encoder that the model has no use for.

    Raises
    ------
    SettingError
    """
    used = model.source in (*encoders, "pca", "pca_fold") or model.head == "linear_prior"
    if encoders and not used:
        (name,) = encoders
        raise SettingError(
            f"encoder: expected a model on {name}, such as {name}_linear or {name}_ridge; found "
            f"{model.name}, which takes no encoder: leave --encoder out, or choose another --model"
        )


def _as_comparison(config: FitConfig, model: str | None) -> CrossvalConfig:
    """Settings of the comparison that has the model as one of its own."""
    shared = {f.name for f in fields(FitConfig)} & {f.name for f in fields(CrossvalConfig)}
    given = {name: getattr(config, name) for name in shared}
    return CrossvalConfig(models=() if model is None else (model,), **given)


def _fitted_alone(model: Model, encoders: Sequence[ComparedEncoder]) -> Model:
    """The model as it is fitted: a constant is a linear model on nothing.

    Raises
    ------
    InputError
        If it takes what new samples do not have, or several fits.
    """
    if model.name == "stratum_mean":
        raise InputError(
            "model: expected one that predicts from genes; found stratum_mean, which is told the "
            "stratum of each sample: choose mean"
        )
    if model.head == "ensemble" or any(entry.n_seeds > 1 for entry in encoders):
        raise InputError(
            f"model: expected one encoder, of one seed; found {model.name} on several: fit "
            "each of them by itself"
        )
    return replace(model, head="linear") if model.head == "constant" else model


def fit_model(problem: Problem, config: FitConfig) -> Predictor:
    """Fit what `open_fit` opened.

    Parameters
    ----------
    problem : Problem
        Of one model.
    config : FitConfig

    Raises
    ------
    InputError
        If intervals are asked for and are unavailable.
    """
    (model,) = problem.models
    split = _split(problem, config)
    inputs, encoders, pca = fit_inputs(problem, whole_inputs(problem), split)
    (job,) = jobs_of(model, OpenShare(0, 0, split, inputs), problem)
    design = HeadData(split.targets, split.order_seed, None, split.groups)
    with threads(head_threads(job.X.shape[1], split.targets.n_outputs, config.head)):
        (head,) = fit_heads([job], design)
    errors = None
    if split.test.size:
        own = None if job.own is None else job.own.values[split.test]
        errors = half_widths(head.predict(job.X[split.test], own), split.targets.values[split.test])
    kinds = _kinds(model, problem.encoders)
    if model.source == "pca_fold" and pca is not None:
        head, kinds = replace(head, features=_on_genes(head.features, pca)), (GENES,)
    encoder = None
    if {LATENTS, PCA_SCORES} & set(kinds):
        (encoder,) = encoders.get(model.source) or next(iter(encoders.values()))
    recipe = None if encoder is None else encoder.recipe
    if recipe is None or {GENES, SOURCE_SCORE} & set(kinds) or head.own is not None:
        recipe = _gene_recipe(problem, split.train)
    return Predictor(
        encoder=encoder,
        recipe=recipe,
        head=head,
        config=replace(config, model=model.name),
        own_genes=_own_places(problem) if head.own is not None else None,
        errors=errors,
        added=_n_added(split.targets, job.added),
        inputs=kinds,
        score=problem.source.weight if model.transfer and problem.source is not None else None,
    )


def _split(problem: Problem, config: FitConfig) -> Fold:
    """All samples to fit to, but those that intervals are made from."""
    rows, aside = np.arange(problem.rows.size), np.arange(0)
    if config.conformal:
        _check_conformal(problem.targets)
        seed = config.seed + seeds.CONFORMAL_SPLIT
        rows, aside = inner_split(rows, config.conformal, seed, groups=problem.groups)
    return Fold(
        targets=problem.targets,
        train=rows,
        test=aside,
        strata=problem.strata,
        groups=problem.groups,
        order=None,
        seed=config.seed,
        order_seed=config.seed,
        own=fill_own(problem.own, rows),
    )


def _check_conformal(targets: Targets) -> None:
    if targets.kind != "regression":
        raise InputError(
            f"conformal: expected levels to predict; found {targets.kind}: leave it out"
        )


def _kinds(model: Model, encoders: Sequence[ComparedEncoder]) -> tuple[str, ...]:
    """Inputs of a model as a predictor names them."""
    names = [entry.name for entry in encoders]
    kinds = tuple(
        GENES if source == GENES else LATENTS if source in names else PCA_SCORES
        for source in model.inputs
    )
    return (*kinds, SOURCE_SCORE) if model.transfer else kinds


def _on_genes(features: FeatureMap, fitted: FoldPCA) -> FeatureMap:
    """What takes the genes, from what takes their scores on components: both are linear."""
    scaler, pca = fitted
    centre = pca.mean + features.scaler.location @ pca.components
    basis = pca.components.T / features.scaler.scale
    if features.basis is not None:
        basis = basis @ features.basis
    return FeatureMap(
        GeneTransform("standardize", scaler.location + scaler.scale * centre, scaler.scale),
        basis.astype(np.float32),
    )


def _gene_recipe(problem: Problem, train: np.ndarray) -> Recipe:
    """Recipe of a model that takes the genes as they are; a gene without a level has mean 0."""
    rows = problem.rows[train]
    return whole_recipe(problem.matrix, rows, level_means(problem.matrix.take(rows)))


def _own_places(problem: Problem) -> np.ndarray | None:
    """Places of the targets' own genes among those of X, as they are read."""
    columns = problem.own_columns
    return None if columns is None else np.unique(columns[columns >= 0])


def _n_added(targets: Targets, added: AddedRows | None) -> dict[str, int] | None:
    """Added rows of each class."""
    if added is None:
        return None
    counts = np.bincount(added.codes, minlength=len(targets.names))
    return dict(zip(targets.names, counts.tolist(), strict=True))
