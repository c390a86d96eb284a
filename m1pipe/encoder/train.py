"""Training an encoder: the scale, the start, the loop and the summary."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from m1pipe.config import EncoderConfig
from m1pipe.data.transforms import GeneTransform, fit_gene_transform
from m1pipe.encoder import summary
from m1pipe.encoder.condition import fit_shift
from m1pipe.encoder.counting import fit_count_inputs, gene_means, seen_by
from m1pipe.encoder.missing import class_means, fill_missing, known_means, known_variances
from m1pipe.encoder.noise import recalibrate_noise
from m1pipe.encoder.plan import TrainingPlan, block_rows, plan_training, raw_blocks
from m1pipe.encoder.rates import parameter_groups
from m1pipe.encoder.trained import Encoder
from m1pipe.models.counts import CountInputs
from m1pipe.models.pca_start import initialize_from_pca, noise_variance
from m1pipe.models.vae import VAEModule, initialize_output_bias
from m1pipe.models.zeros import HurdleGaussian
from m1pipe.pca import PCA, fit_pca
from m1pipe.recipe import Aligned
from m1pipe.settings import parse_bytes
from m1pipe.training.device import resolve_device, seeded
from m1pipe.training.distributed import ALONE, World, common_batch_norm, peers_present
from m1pipe.training.faults import Explain, explain_rows
from m1pipe.training.feed import Batches, Feed, ResidentFeed, make_feed, whole
from m1pipe.training.fit import fit
from m1pipe.training.history import History, Observer
from m1pipe.training.objectives import vae_objective
from m1pipe.training.signals import StopFlag

VALIDATION_MEMORY = 0.25


def train_encoder(
    data: Any,
    config: EncoderConfig,
    *,
    rows: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    validation: Any = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    observer: Observer | None = None,
) -> Encoder:
    """Train an encoder.

    Parameters
    ----------
    data : path, AnnData, DataFrame, Matrix or (array, names)
        Samples x genes.
    config : EncoderConfig
        Its `selection` is not looked at: `rows`, `groups` and `validation` stand for it.
    rows : ndarray of int, shape (n_rows,), optional
        Rows that may be used, for training and validation. All where not given.
    groups : ndarray, shape (n_samples,), optional
        Group of every sample; none is on both sides of the validation split.
    validation : ndarray of int or data, optional
        Validation rows, or a file (or anything else that `data` may be) of validation samples.
        A share of the rows where not given.
    checkpoint : Path, optional
        File that a stopped run is resumed from.
    resume : bool
        Go on from `checkpoint`.
    observer : Observer, optional
        Told of every step and epoch.

    Returns
    -------
    Encoder

    Raises
    ------
    InputError
        If the data do not suit the likelihood, or there are too few rows.
    """
    plan = plan_training(data, config, rows=rows, groups=groups, validation=validation)
    return train_planned(plan, checkpoint=checkpoint, resume=resume, observer=observer)


def train_planned(
    plan: TrainingPlan,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    stop: StopFlag | None = None,
    observer: Observer | None = None,
    world: World = ALONE,
) -> Encoder:
    """Train what was planned.

    Parameters
    ----------
    plan : TrainingPlan
    checkpoint, resume, observer
        As for `train_encoder`.
    stop : StopFlag, optional
        Looked at after every step.
    world : World
        Processes that train it together; each returns the same encoder.

    Returns
    -------
    Encoder
    """
    begun = time.perf_counter()
    training = plan.config.training
    blocks = raw_blocks(plan.source, plan.rows)
    gaps, kind = plan.missing is not None, plan.config.model.transform
    scaler = fit_gene_transform(kind, blocks, keep_missing=gaps)
    device = resolve_device(training.device)
    batches, validation = _feeds(plan, scaler, device, world)
    module = _fresh(plan, scaler, lambda: _blocks(plan.source, plan.rows, scaler, batches))

    def inputs() -> Iterator[np.ndarray]:
        blocks = _blocks(plan.source, plan.rows, scaler, batches)
        return (seen_by(module, X) for X in blocks) if module.of_counts else blocks

    plan = _with_shift(plan, inputs())
    pca = _components(plan, inputs)
    _start(module, plan, pca)
    module.to(device)
    means = torch.from_numpy(class_means(pca.mean, plan.condition)).to(device) if gaps else None
    with common_batch_norm(module, world), peers_present(world):
        history = fit(
            module,
            batches,
            partial(vae_objective, means=means),
            training,
            beta=plan.config.model.beta,
            validation=validation,
            parameters=parameter_groups(module, training),
            checkpoint=checkpoint,
            resume=resume,
            stop=stop,
            observer=observer,
            explain=_explain(plan),
            start_counts=plan.config.model.starts_at_pca,
            world=world,
        )
    if plan.config.model.starts_at_pca and validation is not None:
        recalibrate_noise(module, whole(validation), seed=training.seed, means=means)
    encoder = _encoder(plan, scaler, pca, module, history)
    encoder.summary = {
        **_facts(plan, history, str(device)),
        **_measured(plan, encoder, batches, validation, means),
        "seconds": time.perf_counter() - begun,
    }
    module.cpu()
    return encoder


def _explain(plan: TrainingPlan) -> Explain:
    """What names samples and genes of a loss that is not finite."""
    samples, genes = plan.source.matrix.samples.tolist(), plan.source.recipe.genes
    return explain_rows(samples, genes, some_missing=plan.missing is not None)


def _encoder(
    plan: TrainingPlan, scaler: GeneTransform, pca: PCA, module: VAEModule, history: History
) -> Encoder:
    held_out: tuple[str, ...] = ()
    if plan.held_out is not None:
        held_out = tuple(plan.held_out.matrix.samples[plan.held_out_rows])
    return Encoder(
        module=module,
        config=plan.config,
        recipe=replace(plan.source.recipe, gene_means=gene_means(scaler, pca, module)),
        scaler=scaler,
        pca=pca,
        history=history.rows,
        samples=tuple(plan.source.matrix.samples[plan.rows]),
        validation_samples=held_out,
        condition=plan.condition,
    )


def _with_shift(plan: TrainingPlan, blocks: Iterator[np.ndarray]) -> TrainingPlan:
    """The plan with the means of its classes, where it has classes."""
    if plan.condition is None or plan.codes is None:
        return plan
    shift = fit_shift(blocks, plan.codes[plan.rows], plan.n_classes)
    return replace(plan, condition=replace(plan.condition, shift=shift))


def _within_classes(plan: TrainingPlan, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Training rows about the mean of their class; as they are where there are no classes.

    NaN stays.
    """
    if plan.condition is None or plan.codes is None:
        yield from blocks
        return
    codes, start = plan.codes[plan.rows], 0
    for X in blocks:
        yield X - plan.condition.shift[codes[start : start + len(X)]]
        start += len(X)


def _components(plan: TrainingPlan, inputs: Callable[[], Iterator[np.ndarray]]) -> PCA:
    """Components of the training rows about their class; what is missing stands at its mean."""
    k, seed = plan.config.model.n_latent, plan.config.training.seed
    if plan.missing is None:
        return fit_pca(lambda: _within_classes(plan, inputs()), k, seed=seed)
    n_known = plan.missing.n_known
    mean = known_means(_within_classes(plan, inputs()), n_known)
    pca = fit_pca(
        lambda: (fill_missing(X, mean) for X in _within_classes(plan, inputs())), k, seed=seed
    )
    return replace(pca, gene_variances=known_variances(pca, plan.rows.size, n_known))


def _feeds(
    plan: TrainingPlan, scaler: GeneTransform, device: torch.device, world: World
) -> tuple[Feed, Feed | None]:
    """Batches of the training rows, and of the validation rows where there are any."""
    training = plan.config.training
    memory = parse_bytes(training.memory)
    share = VALIDATION_MEMORY if plan.streams and plan.held_out is not None else 0.0
    feed = partial(
        make_feed,
        transform=scaler,
        batch_size=training.batch_size,
        seed=training.seed,
        device=device,
        part=(world.rank, world.size),
    )
    own = int((1 - share) * memory)
    batches = feed(plan.source, plan.rows, memory_bytes=own, codes=plan.codes)
    if plan.held_out is None:
        return batches, None
    validation = feed(
        plan.held_out,
        plan.held_out_rows,
        memory_bytes=int(share * memory) or memory,
        codes=plan.held_out_codes,
        shuffle=False,
    )
    return batches, validation


def _fresh(
    plan: TrainingPlan, scaler: GeneTransform, blocks: Callable[[], Iterator[np.ndarray]]
) -> VAEModule:
    """A network as it is drawn, told the scale of its data where its law has to know."""
    with seeded(plan.config.training.seed):
        module = VAEModule(plan.source.shape[1], plan.config.model, n_classes=plan.n_classes)
    if isinstance(module.likelihood, HurdleGaussian):
        module.likelihood.set_units(
            torch.from_numpy(scaler.location), torch.from_numpy(scaler.scale)
        )
    if isinstance(module.inputs, CountInputs):
        fit_count_inputs(module.inputs, blocks)
    return module


def _start(module: VAEModule, plan: TrainingPlan, pca: PCA) -> None:
    """Start a network at the principal components where its shape allows, else at the mean."""
    mean = torch.from_numpy(pca.mean)
    if not plan.config.model.starts_at_pca:
        if isinstance(module.inputs, CountInputs):
            mean = module.inputs.mean_counts
        initialize_output_bias(module, mean)
        return
    noise = noise_variance(
        torch.from_numpy(pca.residual_variances),
        torch.from_numpy(pca.gene_variances),
        n_samples=plan.rows.size,
        n_components=len(pca.components) + max(plan.n_classes - 1, 0),
    )
    initialize_from_pca(
        module,
        torch.from_numpy(pca.components),
        torch.from_numpy(pca.variances),
        noise,
        mean=mean,
        class_shift=None if plan.condition is None else torch.from_numpy(plan.condition.shift),
    )


def _blocks(
    source: Aligned,
    rows: np.ndarray,
    scaler: GeneTransform,
    batches: Batches | None,
    chosen: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Transformed rows in order, or chosen ones, from memory where the batches are held there."""
    if isinstance(batches, ResidentFeed):
        held = batches.tensors[0]
        step = block_rows(held.shape[1])
        for start in range(0, rows.size if chosen is None else chosen.size, step):
            here = slice(start, start + step)
            part = held[here] if chosen is None else held[torch.from_numpy(chosen[here])]
            yield part.cpu().numpy()
    else:
        for block in raw_blocks(source, rows if chosen is None else rows[chosen]):
            yield scaler.apply(block)


def _facts(plan: TrainingPlan, history: History, device: str) -> dict[str, Any]:
    """How training went, in plain numbers."""
    kept = {"train_loss": None, **history.start} if history.start else history.rows[-1]
    best = history.rows[history.best_epoch - 1] if history.best_epoch else kept
    return {
        "n_rows": int(plan.rows.size),
        "n_validation": int(plan.held_out_rows.size),
        "n_missing": 0 if plan.missing is None else plan.missing.n_values,
        "n_parameters": plan.n_parameters,
        "n_held": plan.n_held,
        "epochs": history.n_epochs,
        "best_epoch": history.best_epoch,
        "stopped_early": history.stopped_early,
        "train_loss": best["train_loss"],
        "val_loss": best.get("val_loss"),
        "start_val_loss": history.start["val_loss"] if history.start else None,
        "device": device,
        "precision": history.precision,
        "precision_gap": history.precision_gap,
    }


def _measured(
    plan: TrainingPlan,
    encoder: Encoder,
    batches: Batches,
    validation: Batches | None,
    means: torch.Tensor | None,
) -> dict[str, Any]:
    """The entries of the summary that take a pass over the rows."""
    scale = summary.gene_scale(encoder.scaler, encoder.pca)
    chosen = summary.measured_rows(plan.rows.size, plan.config.training.seed)
    rows = plan.rows[chosen]
    blocks = _blocks(plan.source, plan.rows, encoder.scaler, batches, chosen)
    shift = None if plan.condition is None else plan.condition.shift
    measure = partial(
        summary.measure, encoder.module, encoder.pca, scale=scale, shift=shift, means=means
    )
    trained = measure(blocks, codes=None if plan.codes is None else plan.codes[rows])
    judged = trained
    if plan.held_out is not None:
        blocks = _blocks(plan.held_out, plan.held_out_rows, encoder.scaler, validation)
        codes = plan.held_out_codes
        judged = measure(blocks, codes=None if codes is None else codes[plan.held_out_rows])
    q99 = float(np.quantile(trained.errors, summary.OUTLYING))
    depth = summary.library_size(plan.source.matrix, rows)
    return {
        "r2_rows": "training" if judged is trained else "validation",
        **judged.r2(),
        "pca_components": len(encoder.pca.components),
        **summary.latent_health(judged, encoder.config.model.beta),
        "n_measured": int(rows.size),
        "dead_share": trained.dead_share,
        "lowest": summary.finite(encoder.scaler.invert(trained.low[None]).min()),
        "depth": depth[1] if depth else None,
        "depth_r": summary.correlations(trained.mu, depth[0]) if depth else None,
        "error_q99": summary.finite(q99),
        "error_beyond": None if judged is trained else float((judged.errors > q99).mean()),
    }
