"""What each row is fitted on: the genes, latents and PCA scores, of all folds and of one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.data.matrix import Matrix
from m1pipe.data.stored import in_memory
from m1pipe.data.transforms import fit_gene_transform
from m1pipe.encoder.trained import Encoder
from m1pipe.evaluation.augment import draw_again, make_request, stepped_rows, synthesize
from m1pipe.evaluation.ladder import (
    CONSTANT_ROWS,
    GENE_ROWS,
    OWN_GENE,
    PCA_ROWS,
    base_row,
    head_config,
)
from m1pipe.evaluation.missing import fill_fold
from m1pipe.evaluation.problem import Problem
from m1pipe.evaluation.representations import (
    encoder_facts,
    frozen_inputs,
    own_columns_of,
    train_in_fold,
)
from m1pipe.evaluation.rows import Fold
from m1pipe.evaluation.tuning import tune_encoder
from m1pipe.evaluation.variants import AUGMENTED, BOOTSTRAP, variant_of
from m1pipe.pca import fit_pca
from m1pipe.training.added import AddedRows
from m1pipe.training.signals import StopFlag

FOLD_PCA_WIDTH = 32
Inputs = Mapping[str, Sequence[np.ndarray]]
FoldInputs = dict[str, Sequence[np.ndarray | None]]


def whole_inputs(problem: Problem) -> dict[str, Sequence[np.ndarray]]:
    """What no fold changes, by row: the genes, the latents of frozen encoders, their PCA.

    Missing levels are NaN among the genes still: what they are filled in with is the fold's.
    """
    inputs: dict[str, Sequence[np.ndarray]] = {}
    min_coverage = problem.config.min_coverage
    inputs |= frozen_inputs(
        problem.encoders, problem.matrix, problem.rows, min_coverage=min_coverage
    )
    in_fold = any(row.in_fold for row in problem.encoders)
    bases = {base_row(row) for row in problem.ladder}
    augments = problem.config.augment is not None
    if in_fold or augments or set(GENE_ROWS) & bases or needs_fold_pca(problem):
        inputs["genes"] = [problem.matrix.take(problem.rows)]
    return inputs


def needs_fold_pca(problem: Problem) -> bool:
    """Whether a PCA is to be fitted on the training fold."""
    stored = any(row.frozen for row in problem.encoders)
    bases = {base_row(row) for row in problem.ladder}
    return "pca_fold" in bases or (not stored and bool(set(PCA_ROWS) & bases))


def fold_inputs(
    problem: Problem, inputs: Inputs, split: Fold, stop: StopFlag | None = None
) -> tuple[FoldInputs, dict[str, list[dict[str, Any]]], dict[str, list[AddedRows]]]:
    """Inputs of every row in one fold, after the encoders and the PCA of the fold are trained.

    Returns
    -------
    inputs : dict of str to sequence of ndarray or None
        By row, one array of all samples a seed; None for the constant rows.
    facts : dict of str to list of dict
        Facts about the encoders trained here, by name.
    added : dict of str to list of AddedRows
        Of the rows that are trained on more than the training rows, one a seed.
    """
    found: FoldInputs = dict(inputs)
    genes = inputs.get("genes", [None])[0]
    opened = {row.name: list(row.frozen) for row in problem.encoders}
    facts = {}
    usable = encoder_rows(problem, split)
    for row in problem.encoders:
        if row.in_fold:
            X = inputs["genes"][0]
            row, won = tune_encoder(row, problem, split, X, rows=usable, stop=stop)
            encoders = train_in_fold(
                row,
                problem.matrix,
                usable,
                groups=problem.all_groups,
                gaps=problem.n_missing > 0,
                stop=stop,
            )
            opened[row.name], first = encoders, encoders[0]
            codes = first.codes(problem.matrix, problem.rows)
            seen = [own_columns_of(encoder, X, problem.matrix) for encoder in encoders]
            found[row.name] = [
                encoder.encode_array(own, codes)
                for encoder, own in zip(encoders, seen, strict=True)
            ]
            found.setdefault("pca_fold", [first.pca_array(seen[0], codes)])
            facts[row.name] = [encoder_facts(encoder, "") | {"chosen": won} for encoder in encoders]
    if genes is not None:
        filled = fill_fold(genes, split.train)
        found["genes"] = [filled]
        if needs_fold_pca(problem) and "pca_fold" not in found:
            found["pca_fold"] = [_fit_fold_pca(filled, split.train)]
    stored = found.get("pca", found.get("pca_fold", ()))
    found |= {row: found["genes"] for row in GENE_ROWS if "genes" in found}
    found |= {"pca": stored, "pca_ridge": stored, "pca_logistic": stored}
    found |= {row: [None] for row in (*CONSTANT_ROWS, OWN_GENE)}
    found |= {row: found[base_row(row)] for row in problem.ladder if row not in found}
    return found, facts, _added_rows(problem, split, found, opened, genes)


def _added_rows(
    problem: Problem,
    split: Fold,
    found: Mapping[str, Sequence[np.ndarray | None]],
    encoders: Mapping[str, Sequence[Encoder]],
    genes: np.ndarray | None,
) -> dict[str, list[AddedRows]]:
    """Synthetic samples, and as many training rows drawn again, as every row sees them.

    Both come from the rows that heads take their steps on; the rows that decide when to stop and
    the test rows are not looked at. The generator takes the genes with their gaps.
    """
    config, codes = problem.config, split.targets.values
    if config.augment is None or problem.generator is None or genes is None:
        return {}
    validation = head_config("raw", config).validation
    kept = stepped_rows(
        split.train, validation, split.seed, strata=split.strata, groups=split.groups
    )
    request = make_request(
        genes,
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
    for base in dict.fromkeys(base_row(row) for row in problem.ladder if variant_of(row)):
        features = [X] if base == "raw" else _latents(problem, encoders[base], X)
        added[base + AUGMENTED] = [AddedRows(F, made) for F in features]
        real = [F for F in found[base] if F is not None]
        added[base + BOOTSTRAP] = [AddedRows(F[again], codes[again]) for F in real]
    return added


def _latents(problem: Problem, encoders: Sequence[Encoder], X: np.ndarray) -> list[np.ndarray]:
    """Latents of synthetic samples by every seed of an encoder row."""
    obs = pd.DataFrame(index=[f"synthetic_{i + 1}" for i in range(len(X))])
    matrix = Matrix(in_memory(X, obs, problem.matrix.var, problem.matrix.units))
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


def _fit_fold_pca(X: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Scores of all samples on the components of the standardised training rows."""
    scaler = fit_gene_transform("standardize", [X[train]])
    rows = scaler.apply(X[train])
    return fit_pca(lambda: [rows], FOLD_PCA_WIDTH).scores(scaler.apply(X))
