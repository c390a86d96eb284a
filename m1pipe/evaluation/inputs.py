"""What models are fitted to: the genes, latents and PCA scores, of all folds and of one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.config import EncoderConfig
from m1pipe.console import log
from m1pipe.data.matrix import in_memory
from m1pipe.data.recipe import match_recipe
from m1pipe.data.splits import inner_split
from m1pipe.data.transforms import GeneTransform, fit_gene_transform
from m1pipe.encoder.trained import Encoder
from m1pipe.evaluation.augment import FEW_ROWS, draw_again, make_request, synthesize
from m1pipe.evaluation.compared_models import (
    GENES,
    NOTHING,
    SCORE,
    head_config,
    parse_model,
)
from m1pipe.evaluation.encoders import (
    ComparedEncoder,
    encoder_facts,
    encoder_settings,
    frozen_inputs,
    own_columns_of,
    train_in_fold,
)
from m1pipe.evaluation.folds import Fold, fill_fold
from m1pipe.evaluation.metrics import per_sample_loss
from m1pipe.evaluation.problem import Problem
from m1pipe.heads.features import Covariance
from m1pipe.heads.fit import fit_head
from m1pipe.heads.head_data import AddedRows
from m1pipe.heads.inner_folds import stepped_rows
from m1pipe.models.pca import PCA, fit_pca
from m1pipe.training.signals import StopFlag

FOLD_PCA_WIDTH = 32
Inputs = Mapping[str, Sequence[np.ndarray]]
FoldPCA = tuple[GeneTransform, PCA]


@dataclass(frozen=True, eq=False)
class FoldInputs:
    """What the models of one fold are fitted to.

    Attributes
    ----------
    arrays : dict of str to sequence of ndarray of float32, shape (n_samples, n_features)
        By `m1pipe.evaluation.compared_models.Model.source`, one a seed, of all samples.
    encoders : dict of str to list of dict
        Facts about the encoders that were trained in the fold, by name.
    added : dict of str to list of AddedRows
        Of the models that are trained on more than the training rows, one a seed.
    covariance : Covariance or None
        Of the genes where the PCA was fitted.
    """

    arrays: dict[str, Sequence[np.ndarray]]
    encoders: dict[str, list[dict[str, Any]]]
    added: dict[str, list[AddedRows]]
    covariance: Covariance | None = None


def whole_inputs(problem: Problem) -> dict[str, Sequence[np.ndarray]]:
    """What no fold changes, by name: the genes, the latents of frozen encoders, their PCA.

    Missing levels are NaN among the genes still: what they are filled in with is the fold's.
    """
    inputs: dict[str, Sequence[np.ndarray]] = {}
    min_coverage = problem.config.min_coverage
    inputs |= frozen_inputs(
        problem.encoders, problem.matrix, problem.rows, min_coverage=min_coverage
    )
    in_fold = any(entry.in_fold for entry in problem.encoders)
    wanted = any(GENES in model.inputs for model in problem.models)
    if in_fold or wanted or problem.config.augment is not None or needs_fold_pca(problem):
        inputs[GENES] = [problem.matrix.take(problem.rows)]
    if problem.source is not None:
        genes = inputs[GENES][0] if GENES in inputs else problem.matrix.take(problem.rows)
        inputs[SCORE] = [np.nan_to_num(genes) @ problem.source.weight]
    return inputs


def needs_fold_pca(problem: Problem) -> bool:
    """Whether a PCA is to be fitted on the training fold."""
    if any("pca_fold" in model.inputs for model in problem.models):
        return True
    return _takes_prior(problem) and not _with_stored_pca(problem)


def _takes_prior(problem: Problem) -> bool:
    return any(model.head == "linear_prior" for model in problem.models)


def _with_stored_pca(problem: Problem) -> list[Encoder]:
    """Encoders that were trained before, whose PCA is of the genes of X."""
    return [encoder for entry in problem.encoders for encoder in entry.frozen]


def fold_inputs(
    problem: Problem, inputs: Inputs, split: Fold, stop: StopFlag | None = None
) -> FoldInputs:
    """What every model of one fold is fitted to, after its encoders and its PCA are trained."""
    return fit_inputs(problem, inputs, split, stop)[0]


def fit_inputs(
    problem: Problem, inputs: Inputs, split: Fold, stop: StopFlag | None = None
) -> tuple[FoldInputs, dict[str, list[Encoder]], FoldPCA | None]:
    """`fold_inputs`, and what gives them of new samples.

    Returns
    -------
    inputs : FoldInputs
    encoders : dict of str to list of Encoder
        By name, one a seed.
    pca : pair of GeneTransform and PCA, or None
        Where principal components were fitted to the training rows apart from an encoder.
    """
    arrays = {**inputs, NOTHING: [np.zeros((problem.targets.n, 0), dtype=np.float32)]}
    encoders = {entry.name: list(entry.frozen) for entry in problem.encoders}
    facts, fitted = {}, None
    for entry in problem.encoders:
        if entry.in_fold:
            X = inputs[GENES][0]
            trained, chosen = _train_row(entry, problem, split, X, stop=stop)
            arrays[entry.name], scores = _encode(trained, problem, X)
            arrays.setdefault("pca_fold", scores)
            encoders[entry.name] = trained
            facts[entry.name] = [encoder_facts(one, "") | {"chosen": chosen} for one in trained]
    covariance = _stored_covariance(problem) if _takes_prior(problem) else None
    if GENES in inputs:
        genes = fill_fold(inputs[GENES][0], split.train)
        arrays[GENES] = [genes]
        lacks_prior = _takes_prior(problem) and covariance is None
        if lacks_prior or (needs_fold_pca(problem) and "pca_fold" not in arrays):
            fitted = _fit_fold_pca(genes, split.train)
            arrays.setdefault("pca_fold", [_fold_scores(fitted, genes)])
            covariance = covariance or _covariance(fitted[1], np.arange(len(genes.T)), len(genes.T))
    added = _added_rows(problem, split, arrays, encoders, inputs.get(GENES))
    return FoldInputs(arrays, facts, added, covariance), encoders, fitted


def _train_row(
    entry: ComparedEncoder, problem: Problem, split: Fold, X: np.ndarray, *, stop: StopFlag | None
) -> tuple[list[Encoder], dict[str, Any]]:
    """Encoders trained in a fold, one a seed, and the settings that were chosen for them."""
    usable = encoder_rows(problem, split)
    entry, chosen = tune_encoder(entry, problem, split, X, rows=usable, stop=stop)
    return _train(entry, problem, usable, stop), chosen


def _train(
    entry: ComparedEncoder, problem: Problem, rows: np.ndarray, stop: StopFlag | None
) -> list[Encoder]:
    """Every seed of an encoder trained on some rows of the matrix."""
    gaps = problem.n_missing > 0
    groups = problem.all_groups
    return train_in_fold(entry, problem.matrix, rows, groups=groups, gaps=gaps, stop=stop)


def _encode(
    encoders: Sequence[Encoder], problem: Problem, X: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Latents of all samples by every seed, and the scores on the PCA of the first."""
    codes = encoders[0].codes(problem.matrix, problem.rows)
    seen = [own_columns_of(encoder, X, problem.matrix) for encoder in encoders]
    latents = [
        encoder.encode_array(own, codes) for encoder, own in zip(encoders, seen, strict=True)
    ]
    return latents, [encoders[0].pca_array(seen[0], codes)]


def _stored_covariance(problem: Problem) -> Covariance | None:
    """Of the genes of X that the first frozen encoder knows; the others have none with them."""
    encoders = _with_stored_pca(problem)
    if not encoders:
        return None
    columns = match_recipe(problem.matrix, encoders[0].recipe).columns
    return _covariance(encoders[0].pca, columns, problem.matrix.n_genes)


def _covariance(pca: PCA, columns: np.ndarray, n_genes: int) -> Covariance:
    """Covariance of genes of X: along components, which stay orthonormal, and about them."""
    known = columns >= 0
    components = np.zeros((len(pca.components), n_genes))
    components[:, columns[known]] = pca.components[:, known]
    basis, singular, _ = np.linalg.svd(components.T, full_matrices=False)
    kept = singular > 1e-6
    turn = basis.T @ components.T
    variances = np.einsum("ij,j,ij->i", turn, pca.variances.astype(np.float64), turn)
    rest = float(np.mean(pca.residual_variances[known])) or 1.0
    return Covariance(basis.T[kept], variances[kept], rest)


def _added_rows(
    problem: Problem,
    split: Fold,
    found: Mapping[str, Sequence[np.ndarray]],
    encoders: Mapping[str, Sequence[Encoder]],
    genes: Sequence[np.ndarray] | None,
) -> dict[str, list[AddedRows]]:
    """Synthetic samples, and as many training rows drawn again, as every model sees them.

    Both come from the rows that heads take their steps on; the rows that decide when to stop and
    the test rows are not looked at. The generator takes the genes with their gaps.
    """
    config, codes = problem.config, split.targets.values
    if config.augment is None or problem.generator is None or genes is None:
        return {}
    validation = head_config(parse_model("raw"), config).validation
    kept = stepped_rows(split.targets, split.train, split.groups, split.seed, validation)
    request = make_request(
        genes[0],
        split.targets,
        kept,
        config.augment,
        genes=tuple(problem.matrix.genes.tolist()),
        units=problem.matrix.units,
        seed=split.seed,
        device=config.head.device,
        sampler=config.augment_sampler,
    )
    X, made = synthesize(problem.generator, request)
    again = draw_again(kept, codes[kept], request.wanted, split.seed)
    added = {}
    for model in problem.models:
        if model.variant == "augmented":
            on_genes = model.source == GENES
            features = [X] if on_genes else _latents(problem, encoders[model.source], X)
            added[model.name] = [AddedRows(F, made) for F in features]
        elif model.variant == "bootstrap":
            real = found[model.source]
            added[model.name] = [AddedRows(F[again], codes[again]) for F in real]
    return added


def _latents(problem: Problem, encoders: Sequence[Encoder], X: np.ndarray) -> list[np.ndarray]:
    """Latents of synthetic samples by every seed of an encoder."""
    obs = pd.DataFrame(index=[f"synthetic_{i + 1}" for i in range(len(X))])
    matrix = in_memory(X, obs, problem.matrix.var, problem.matrix.units)
    matrix.aliases = problem.matrix.aliases
    least = problem.config.min_coverage
    return [encoder.transform(matrix, min_coverage=least) for encoder in encoders]


def encoder_rows(problem: Problem, split: Fold) -> np.ndarray:
    """Rows of X that an encoder trained in the fold may see.

    The training rows, and the rows without a target unless their group is tested.
    """
    others = problem.unlabelled
    if problem.all_groups is not None:
        tested = problem.all_groups[problem.rows[split.test]]
        others = others[~np.isin(problem.all_groups[others], tested)]
    return np.sort(np.concatenate([problem.rows[split.train], others]))


def _fit_fold_pca(X: np.ndarray, train: np.ndarray) -> FoldPCA:
    """Components of the standardised training rows."""
    scaler = fit_gene_transform("standardize", [X[train]])
    rows = scaler.apply(X[train])
    return scaler, fit_pca(lambda: [rows], FOLD_PCA_WIDTH)


def _fold_scores(fitted: FoldPCA, X: np.ndarray) -> np.ndarray:
    scaler, pca = fitted
    return pca.scores(scaler.apply(X))


def tune_encoder(
    entry: ComparedEncoder,
    problem: Problem,
    split: Fold,
    X: np.ndarray,
    *,
    rows: np.ndarray,
    stop: StopFlag | None = None,
) -> tuple[ComparedEncoder, dict[str, Any]]:
    """The encoder with the settings that win on the inner validation rows of a training fold.

    Parameters
    ----------
    entry : ComparedEncoder
        Trained inside the folds; its first seed stands for all in the choice.
    problem : Problem
    split : Fold
        Of whose test rows nothing is looked at.
    X : ndarray of float32, shape (n_samples, n_genes)
        Genes of the samples.
    rows : ndarray of int
        Rows of the matrix that an encoder of this fold may see.
    stop : StopFlag, optional

    Returns
    -------
    entry : ComparedEncoder
        As it came in where nothing is tuned, or there are too few rows for an inner split.
    chosen : dict
        Values of the settings that won, their inner loss, and how many were tried; empty where
        nothing was.
    """
    tried = encoder_settings(entry, problem.config)
    share = problem.config.head.validation
    if len(tried) < 2 or split.train.size < FEW_ROWS or share == 0:
        return entry, {}
    _, held_out = inner_split(
        split.train, share, split.seed, strata=split.strata, groups=split.groups
    )
    seen = _unseen_rows(problem, rows, held_out)
    losses = [
        _held_out_loss(
            replace(entry, configs=(config,)),
            problem,
            split,
            X,
            held_out=held_out,
            seen=seen,
            stop=stop,
        )
        for config in tried
    ]
    won = tried[int(np.argmin(losses))]
    log.info("%s: latent %d, beta %g of %d settings", entry.name, *_shape(won).values(), len(tried))
    configs = tuple(replace(won, training=seed.training) for seed in entry.configs)
    facts = {**_shape(won), "inner_loss": min(losses), "n_tried": len(tried)}
    return replace(entry, configs=configs), facts


def _shape(config: EncoderConfig) -> dict[str, Any]:
    return {"n_latent": config.model.n_latent, "beta": config.model.beta}


def _unseen_rows(problem: Problem, rows: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Rows of the matrix without some samples, and without unlabelled rows of their groups."""
    out = np.isin(rows, problem.rows[held_out])
    if problem.all_groups is not None:
        out |= np.isin(problem.all_groups[rows], problem.all_groups[problem.rows[held_out]])
    return rows[~out]


def _held_out_loss(
    entry: ComparedEncoder,
    problem: Problem,
    split: Fold,
    X: np.ndarray,
    *,
    held_out: np.ndarray,
    seen: np.ndarray,
    stop: StopFlag | None,
) -> float:
    """Loss of a head on rows that neither it nor its encoder has seen."""
    (encoder,) = _train(entry, problem, seen, stop)
    rows = split.train
    levels = own_columns_of(encoder, X[rows], problem.matrix)
    codes = _part(encoder.codes(problem.matrix, problem.rows), rows)
    latents = encoder.encode_array(levels, codes)
    targets, is_out = split.targets.take(rows), np.isin(rows, held_out)
    head = fit_head(
        latents,
        targets,
        problem.config.head,
        rows=np.flatnonzero(~is_out),
        seed=split.seed,
        scale="one",
        groups=_part(split.groups, rows),
    )
    predicted = head.predict(latents[is_out])
    return float(per_sample_loss(targets.kind, predicted, targets.values[is_out]).mean())


def _part(labels: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if labels is None else labels[rows]
