"""Plan the training of an encoder: rows, validation rows, complete settings."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from m1pipe.config import EncoderConfig, ModelConfig, Transform
from m1pipe.console import log
from m1pipe.data.centring import CentredWithin
from m1pipe.data.depth import Thinning
from m1pipe.data.labels import as_text, tidy
from m1pipe.data.names import GeneMatch
from m1pipe.data.recipe import Aligned, align, whole_recipe
from m1pipe.data.splits import inner_split
from m1pipe.data.unit_guess import refuse_counts
from m1pipe.encoder.conditional import Condition, batch_names, find_batches, find_condition
from m1pipe.encoder.missing import Missing, count_missing
from m1pipe.errors import InputError, M1Warning, counted
from m1pipe.io.reader import open_matrix
from m1pipe.models.vae import VAEModule, default_widths
from m1pipe.training.optimizer import WARMUP, default_weight_decay, resolve_epochs

BLOCK_BYTES = 2**25
AFFINE: tuple[Transform, ...] = ("standardize", "center", "minmax", "none")
OF_COUNTS = ("negative_binomial", "zero_inflated_negative_binomial")
OF_ZEROS = ("hurdle_gaussian", "zero_inflated_log_normal")
WHOLE = (*OF_COUNTS, *OF_ZEROS)
TRANSFORMS: dict[str, tuple[Transform, ...]] = {
    "bernoulli": ("minmax", "none"),
    "log_normal": ("none",),
    **dict.fromkeys(OF_COUNTS, ("none",)),
    **dict.fromkeys(OF_ZEROS, AFFINE),
}


@dataclass(frozen=True, eq=False)
class TrainingPlan:
    """Everything that is settled before the first step.

    Attributes
    ----------
    source : Aligned
        The data.
    rows : ndarray of int, shape (n_rows,)
        Training rows of `source`.
    held_out : Aligned or None
        Where the validation rows are: `source` itself, or another file seen through its genes.
    held_out_rows : ndarray of int, shape (n_validation,)
    config : EncoderConfig
        Complete.
    condition : Condition or None
        Of a conditional model, its shift not yet fitted.
    codes, held_out_codes : ndarray of int64, shape (n_samples,), or None
        Class of each sample of `source` and of `held_out`; -1 where it is not used.
    missing : Missing or None
        What is missing of these rows; None where nothing is.
    thinning : Thinning or None
        What was done to the counts of `source`; None where they are as they were.
    """

    source: Aligned
    rows: np.ndarray
    held_out: Aligned | None
    held_out_rows: np.ndarray
    config: EncoderConfig
    condition: Condition | None = None
    codes: np.ndarray | None = None
    held_out_codes: np.ndarray | None = None
    missing: Missing | None = None
    thinning: Thinning | None = None

    @property
    def n_classes(self) -> int:
        """Classes of a conditional model; 0 for any other."""
        return 0 if self.condition is None else self.condition.n_classes

    @property
    def n_steps(self) -> int:
        """Steps an epoch."""
        return -(-self.rows.size // self.config.training.batch_size)

    @property
    def n_parameters(self) -> int:
        """Trained values of the network."""
        return self._shapes.n_parameters

    @property
    def n_held(self) -> int:
        """Values that hold the PCA beside them and are not trained."""
        return self._shapes.n_held

    @property
    def _shapes(self) -> VAEModule:
        with torch.device("meta"):
            return VAEModule(self.source.shape[1], self.config.model, n_classes=self.n_classes)

    @property
    def data_bytes(self) -> int:
        """Bytes of the training and validation rows as float32."""
        return 4 * (self.rows.size + self.held_out_rows.size) * self.source.shape[1]

    @property
    def streams(self) -> bool:
        """Whether the data are read from disk in every epoch, being larger than the memory."""
        return self.data_bytes > self.config.training.data_memory

    @property
    def memory_bytes(self) -> int:
        """Estimate of what training takes: data, weights with Adam's state, activations."""
        data = min(self.data_bytes, self.config.training.data_memory)
        widths = sum((*(self.config.model.hidden or ()), *(self.config.model.decoder_hidden or ())))
        activations = 12 * self.config.training.batch_size * (3 * self.source.shape[1] + widths)
        return data + 28 * self.n_parameters + 8 * self.n_held + activations

    @property
    def disk_bytes(self) -> int:
        """Estimate of what the run's folder takes while training: weights, checkpoint, PCA."""
        pca = 4 * (self.config.model.n_latent + 3) * self.source.shape[1]
        return 24 * self.n_parameters + 12 * self.n_held + pca


def plan_training(
    data: Any,
    config: EncoderConfig,
    *,
    rows: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    validation: Any = None,
    drop_unknown: bool = False,
) -> TrainingPlan:
    """Settle rows and settings, and look whether the values suit the likelihood.

    The rows are read once, to see what of them is missing.

    Parameters
    ----------
    data, config, validation
        As for `train_encoder`.
    rows : ndarray of int, shape (n_rows,), optional
    groups : ndarray, shape (n_samples,), optional
    drop_unknown : bool
        Leave genes out of which no training row has a level, in place of refusing them.

    Returns
    -------
    TrainingPlan

    Raises
    ------
    InputError
        If the values do not suit the likelihood, there are too few rows, or a gene or a sample has
        no level at all.
    """
    matrix = open_matrix(data)
    usable = np.arange(matrix.n_samples) if rows is None else np.unique(np.asarray(rows))
    recipe = whole_recipe(matrix, usable, np.zeros(matrix.n_genes, dtype=np.float32))
    every = GeneMatch(np.arange(matrix.n_genes), [], 0, 1.0, "the training genes")
    source = Aligned(matrix, recipe, every, keep_missing=True)
    train_rows, held_out, held_out_rows = _split(source, usable, config, groups, validation)
    if train_rows.size < 2:
        raise InputError(
            f"{matrix.path or 'data'}: expected at least 2 training rows; found {train_rows.size}: "
            "give more samples, or choose more by --rows"
        )
    kept, other = None, held_out if held_out and held_out.matrix is not matrix else None
    if config.model.min_variance is not None:
        kept = _varying(source, train_rows, config.model.min_variance)
    elif drop_unknown:
        kept = _known(source, train_rows)
    if kept is not None:
        source = _with_genes(source, kept)
        other = other and _with_genes(other, kept)
    if (column := config.model.center_within) is not None:
        centred = source = CentredWithin(source, column, rows=usable)
        other = other and CentredWithin(other, column, centring=centred.centring)
    held_out = held_out and (other or source)
    complete = complete_config(config, train_rows.size)
    plan = TrainingPlan(source, train_rows, held_out, held_out_rows, complete)
    if config.model.condition is not None or config.model.batch:
        plan = _conditioned(plan)
    missing = count_missing(
        plan.source,
        raw_blocks(plan.source, plan.rows),
        raw_blocks(plan.held_out or plan.source, plan.held_out_rows),
        counted=config.model.likelihood in OF_COUNTS,
    )
    plan = replace(plan, missing=missing)
    _check_values(plan)
    return plan


def block_rows(n_genes: int) -> int:
    """Rows of a block of some 32 MB."""
    return max(1, BLOCK_BYTES // (4 * max(n_genes, 1)))


def raw_blocks(source: Aligned, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of a source by index, arrays of shape (n_block_rows, n_genes)."""
    step = block_rows(source.shape[1])
    for start in range(0, rows.size, step):
        yield source.take(rows[start : start + step])


def complete_config(config: EncoderConfig, n_rows: int) -> EncoderConfig:
    """Settings with nothing left open, for this number of training rows.

    Raises
    ------
    InputError
        If likelihood and transform do not go together.
    """
    model, training = config.model, config.training
    fitting = TRANSFORMS.get(model.likelihood)
    if model.transform is None:
        model = replace(model, transform=(fitting or AFFINE)[0])
    elif fitting and model.transform not in fitting:
        raise InputError(
            f"likelihood: {model.likelihood} expects levels as --transform {fitting[0]} gives "
            f"them; found --transform {model.transform}: leave it out"
        )
    if model.likelihood in WHOLE and model.output_activation != "identity":
        raise InputError(
            f"likelihood: {model.likelihood} expects output_activation identity; found "
            f"{model.output_activation}"
        )
    hidden, back = default_widths(model, n_rows)
    warmup = training.kl_warmup
    if warmup is None:
        warmup = 0.0 if model.starts_at_pca else WARMUP
    return replace(
        config,
        model=replace(model, hidden=hidden, decoder_hidden=back),
        training=replace(
            training,
            epochs=resolve_epochs(training, -(-n_rows // training.batch_size)),
            weight_decay=default_weight_decay(model, training, n_rows),
            kl_warmup=warmup,
        ),
    )


def _conditioned(plan: TrainingPlan) -> TrainingPlan:
    """The plan with the classes of its rows, without validation rows of classes unseen."""
    where, model = str(plan.source.matrix.path or "data"), plan.config.model
    obs, column = plan.source.matrix.obs, model.condition
    if column is None:
        condition = find_batches(obs, model.batch or (), plan.rows, where)
    else:
        condition = find_condition(obs, column, plan.rows, where)
    plan = replace(plan, condition=condition, codes=_codes(condition, plan.source, plan.rows))
    if plan.held_out is None:
        return plan
    names = condition.names(plan.held_out.matrix.obs.iloc[plan.held_out_rows], where)
    known = np.isin(names.astype(str), condition.classes)
    if not known.all():
        warnings.warn(
            f"{where}: {counted((~known).sum(), 'validation sample')} of classes without a "
            f"training sample left out ({names[~known][0]!r} first)",
            M1Warning,
            stacklevel=3,
        )
    if not known.any():
        return replace(plan, held_out=None, held_out_rows=plan.held_out_rows[:0])
    rows = plan.held_out_rows[known]
    codes = _codes(condition, plan.held_out, rows)
    return replace(plan, held_out_rows=rows, held_out_codes=codes)


def _codes(condition: Condition, source: Aligned, rows: np.ndarray) -> np.ndarray:
    """Class of each sample of a source; -1 for those that are not used."""
    codes = np.full(source.shape[0], -1, dtype=np.int64)
    where = str(source.matrix.path or "data")
    codes[rows] = condition.codes(source.matrix.obs.iloc[rows], where)
    return codes


def _strata(source: Aligned, model: ModelConfig) -> np.ndarray | None:
    """Classes of a conditional model, that each may be on both sides of the validation split."""
    obs, column = source.matrix.obs, model.condition
    if model.batch:
        return batch_names(obs, model.batch).astype(str)
    return None if column not in obs.columns else as_text(tidy(obs[column]))


def _split(
    source: Aligned,
    rows: np.ndarray,
    config: EncoderConfig,
    groups: np.ndarray | None,
    validation: Any,
) -> tuple[np.ndarray, Aligned | None, np.ndarray]:
    """Training rows, where the validation rows are, and which they are."""
    none = np.empty(0, dtype=np.int64)
    if validation is None:
        fraction = config.training.validation
        if fraction == 0 or rows.size < 3:
            return rows, None, none
        strata = _strata(source, config.model)
        seed = config.training.seed
        train_rows, held_out = inner_split(rows, fraction, seed, strata=strata, groups=groups)
        return np.sort(train_rows), source, np.sort(held_out)
    if isinstance(validation, np.ndarray):
        return np.setdiff1d(rows, validation), source, np.unique(validation)
    other = align(open_matrix(validation), source.recipe, min_coverage=1.0, keep_missing=True)
    shared = set(other.matrix.samples) & set(source.matrix.samples[rows])
    if shared:
        raise InputError(
            f"validation: expected samples that are not trained on; found {len(shared)} of them "
            f"in both, {min(shared)!r} first: leave them out of one"
        )
    return rows, other, np.arange(other.matrix.n_samples)


def _varying(source: Aligned, rows: np.ndarray, threshold: float) -> np.ndarray:
    """Which genes vary more over the training rows, as they are before any transform."""
    known, total = np.zeros(source.shape[1]), np.zeros(source.shape[1])
    for block in raw_blocks(source, rows):
        known += np.isfinite(block).sum(axis=0)
        total += np.nansum(block, axis=0, dtype=np.float64)
    means, squares = total / np.maximum(known, 1), np.zeros_like(total)
    for block in raw_blocks(source, rows):
        squares += np.nansum((block - means) ** 2, axis=0)
    kept: np.ndarray = squares / np.maximum(known, 1) > threshold
    log.info("%d of %d genes vary more than %g and are kept", kept.sum(), kept.size, threshold)
    if not kept.any():
        highest = (squares / np.maximum(known, 1)).max()
        raise InputError(
            f"--min-variance: expected genes that vary more than {threshold:g} over the training "
            f"rows; found none, the highest variance is {highest:g}: lower it"
        )
    return kept


def _known(source: Aligned, rows: np.ndarray) -> np.ndarray | None:
    """Which genes any of the rows has a level of; None for all of them."""
    known = np.zeros(source.shape[1], dtype=bool)
    for block in raw_blocks(source, rows):
        known |= ~np.isnan(block).all(axis=0)
    if known.all():
        return None
    log.info(
        "%d of %d genes have no level in the training rows: left out", (~known).sum(), len(known)
    )
    return known


def _with_genes(aligned: Aligned, kept: np.ndarray) -> Aligned:
    """The same data seen through some of the genes."""
    recipe, columns = aligned.recipe, aligned.match.columns[kept]
    fewer = replace(
        recipe,
        genes=tuple(np.asarray(recipe.genes, dtype=object)[kept]),
        gene_means=recipe.gene_means[kept],
        gene_names=recipe.gene_names.iloc[np.flatnonzero(kept)],
    )
    match = replace(aligned.match, columns=columns)
    keeps = aligned.keep_missing
    return Aligned(aligned.matrix, fewer, match, aligned.counted, keep_missing=keeps)


def _check_values(plan: TrainingPlan) -> None:
    """Refuse values that the likelihood cannot mean."""
    where = str(plan.source.matrix.path or "data")
    model = plan.config.model
    blocks = raw_blocks(plan.source, plan.rows)
    if plan.missing is not None:
        blocks = (np.nan_to_num(block, copy=False) for block in blocks)
    if model.likelihood.startswith("gaussian"):
        refuse_counts(plan.source.matrix.units, blocks, where)
        return
    if model.likelihood in OF_ZEROS and plan.source.matrix.units.is_counts:
        refuse_counts(plan.source.matrix.units, blocks, where)
    if model.transform == "minmax" and model.likelihood == "bernoulli":
        return
    top = 1.0 if model.likelihood == "bernoulli" else np.inf
    for block in blocks:
        if block.min() < 0 or block.max() > top:
            raise InputError(
                f"{where}: expected values in [0, {top:g}] for the likelihood {model.likelihood}; "
                f"found {block.min():g} to {block.max():g}"
            )
        if model.likelihood in OF_COUNTS and (block != np.floor(block)).any():
            raise InputError(
                f"{where}: expected counts for the likelihood {model.likelihood}; found "
                f"{block[block != np.floor(block)][0]:g}: give raw counts"
            )
