"""Train an encoder: prepare, fit, recalibrate its noise, summarise."""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m1pipe.config import EncoderConfig
from m1pipe.data.centring import CentredWithin
from m1pipe.data.transforms import GeneTransform
from m1pipe.encoder import summary
from m1pipe.encoder.conditional import class_means
from m1pipe.encoder.latent_scale import decoder_scale
from m1pipe.encoder.missing import fill_missing
from m1pipe.encoder.mixing import what_is_left
from m1pipe.encoder.plan import TrainingPlan, plan_training
from m1pipe.encoder.prepare import Prepared, prepare, scaled_blocks
from m1pipe.encoder.trained import Encoder, gene_means
from m1pipe.models.likelihoods import Gaussian
from m1pipe.models.mlp import evaluating
from m1pipe.models.pca import PCA
from m1pipe.models.vae import VAEModule, known_only, mask_missing, network_inputs
from m1pipe.training.batches import Batches, whole
from m1pipe.training.device import make_generator
from m1pipe.training.distributed import ALONE, Workers, common_batch_norm, peers_present
from m1pipe.training.history import History, Observer, explain_rows
from m1pipe.training.loop import Loop, fit
from m1pipe.training.optimizer import vae_groups
from m1pipe.training.signals import StopFlag

PSEUDO_ROWS = 100
DRAWS = 4


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
        Its `selection` is ignored: `rows`, `groups` and `validation` stand for it.
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
        Resume the run from `checkpoint`.
    observer : Observer, optional
        Called with every step and epoch.

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
    workers: Workers = ALONE,
) -> Encoder:
    """Train what was planned.

    Parameters
    ----------
    plan : TrainingPlan
    checkpoint, resume, observer
        As for `train_encoder`.
    stop : StopFlag, optional
        Checked after every step.
    workers : Workers
        Processes that train it together; each returns the same encoder.

    Returns
    -------
    Encoder
    """
    one = prepare(plan, workers)
    with common_batch_norm(one.module, workers), peers_present(workers):
        loop = loop_of(one, checkpoint=checkpoint, stop=stop, observer=observer, workers=workers)
        history = fit(loop, resume=resume)
    return finish(one, history)


def loop_of(
    one: Prepared,
    *,
    checkpoint: Path | None = None,
    stop: StopFlag | None = None,
    observer: Observer | None = None,
    workers: Workers = ALONE,
) -> Loop:
    """The run of the training loop that was prepared; the rest as for `train_planned`."""
    plan, training = one.plan, one.plan.config.training
    samples, genes = plan.source.matrix.samples.tolist(), plan.source.recipe.genes
    return Loop(
        one.module,
        one.batches,
        one.objective,
        training,
        beta=plan.config.model.beta,
        validation=one.validation,
        groups=vae_groups(one.module, training),
        checkpoint=checkpoint,
        stop=stop or StopFlag(),
        observer=observer or Observer(),
        explain=explain_rows(samples, genes, some_missing=plan.missing is not None),
        start_counts=plan.config.model.starts_at_pca,
        workers=workers,
    )


def finish(one: Prepared, history: History) -> Encoder:
    """The encoder, after its network was trained: its noise, and how it did."""
    plan, module, validation = one.plan, one.module, one.validation
    if plan.config.model.starts_at_pca and validation is not None:
        seed = plan.config.training.seed
        recalibrate_noise(module, whole(validation), seed=seed, means=one.means)
    encoder = _encoder(plan, one.scaler, one.pca, module, history)
    device = str(next(module.parameters()).device)
    chosen = summary.measured_rows(plan.rows.size, plan.config.training.seed)
    trained, judged = _measure(one, chosen)
    if plan.config.model.latent_scale == "decoder":
        encoder.latent_scale = decoder_scale(trained.mu, _standardised(one, chosen))
    within = plan.config.model.center_within
    if batch := plan.config.model.batch or (() if within is None else (within,)):
        genes = scaled_blocks(plan.source, plan.rows, one.scaler, one.batches, chosen)
        obs = plan.source.matrix.obs.iloc[plan.rows[chosen]]
        latents = trained.mu * encoder.latent_scale
        encoder.summary["batches"] = what_is_left(latents, genes, obs, batch)
    encoder.summary |= {
        **_course(plan, history, device),
        **_measured(plan, encoder, plan.rows[chosen], trained, judged),
        "seconds": time.perf_counter() - one.begun,
    }
    module.cpu()
    return encoder


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
        centring=plan.source.centring if isinstance(plan.source, CentredWithin) else None,
        thinning=None if plan.thinning is None else plan.thinning.record,
        kept=None if plan.thinning is None else plan.thinning.kept[plan.rows],
    )


def _course(plan: TrainingPlan, history: History, device: str) -> dict[str, Any]:
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


def _measure(
    one: Prepared, chosen: np.ndarray
) -> tuple[summary.Measurement, summary.Measurement | None]:
    """Passes over chosen training rows and over the validation rows, where there are any."""
    plan, scaler = one.plan, one.scaler
    measure = partial(
        summary.measure,
        one.module,
        one.pca,
        scale=summary.gene_scale(scaler, one.pca),
        shift=None if plan.condition is None else plan.condition.shift,
        means=one.means,
    )
    blocks = scaled_blocks(plan.source, plan.rows, scaler, one.batches, chosen)
    trained = measure(blocks, codes=None if plan.codes is None else plan.codes[plan.rows[chosen]])
    if plan.held_out is None:
        return trained, None
    blocks = scaled_blocks(plan.held_out, plan.held_out_rows, scaler, one.validation)
    codes = plan.held_out_codes
    return trained, measure(blocks, codes=None if codes is None else codes[plan.held_out_rows])


def _standardised(one: Prepared, chosen: np.ndarray) -> Iterator[np.ndarray]:
    """Chosen training rows as the network sees them, about their class, in standard deviations."""
    plan, module = one.plan, one.module
    scale = summary.gene_scale(one.scaler, one.pca).astype(np.float32)
    means, start = class_means(one.pca.mean, plan.condition), 0
    for X in scaled_blocks(plan.source, plan.rows, one.scaler, one.batches, chosen):
        centre = means[0]
        if plan.codes is not None:
            centre = means[plan.codes[plan.rows[chosen[start : start + len(X)]]]]
        start += len(X)
        seen = network_inputs(module, X) if module.of_counts else fill_missing(X, centre)
        yield (seen - centre) / scale


def _measured(
    plan: TrainingPlan,
    encoder: Encoder,
    rows: np.ndarray,
    trained: summary.Measurement,
    held_out: summary.Measurement | None,
) -> dict[str, Any]:
    """The entries of the summary that take a pass over the rows."""
    judged = trained if held_out is None else held_out
    q99 = float(np.quantile(trained.errors, summary.OUTLYING))
    depth = summary.library_size(plan.source.matrix, rows)
    return {
        "r2_rows": "training" if held_out is None else "validation",
        **judged.r2(),
        "pca_components": len(encoder.pca.components),
        **summary.latent_health(judged, encoder.config.model.beta),
        "n_measured": int(rows.size),
        "dead_share": trained.dead_share,
        "lowest": summary.finite(encoder.scaler.invert(trained.low[None]).min()),
        "depth": depth[1] if depth else None,
        "depth_quantiles": summary.depth_quantiles(plan.source, rows),
        "depth_r": summary.correlations(trained.mu, depth[0]) if depth else None,
        "error_q99": summary.finite(q99),
        "error_beyond": None if held_out is None else float((judged.errors > q99).mean()),
    }


@torch.no_grad()
def recalibrate_noise(
    module: VAEModule, validation: Batches, *, seed: int, means: Tensor | None = None
) -> None:
    """Set the standard deviations of a Gaussian likelihood to the validation rows' residuals.

    All genes by their common ratio of squared residual to variance, and each gene by its own as
    far as the rows bear it: the common ratio counts as `PSEUDO_ROWS` rows. Posterior means and
    reconstructions do not depend on these numbers.

    Parameters
    ----------
    module : VAEModule
        Changed in place.
    validation : Batches
        Transformed rows on the module's device.
    seed : int
        Of the posterior noise.
    means : Tensor, shape (n_classes, n_genes), optional
        Imputation means of missing levels, which are NaN and count for nothing. Left out: there
        are none.
    """
    likelihood = module.likelihood
    if not isinstance(likelihood, Gaussian) or likelihood.raw_scale is None:
        return
    scale = likelihood.log_scale().exp()
    squares, n = _squared_residuals(module, validation, seed, means)
    ratio = squares / n.clamp_min(1) / scale.square()
    common = ratio[n > 0].mean()
    if likelihood.raw_scale.numel() == 1:
        ratio, n = common[None], n.new_tensor([validation.n_rows])
    likelihood.set_scale(scale * ((PSEUDO_ROWS * common + n * ratio) / (PSEUDO_ROWS + n)).sqrt())


def _squared_residuals(
    module: VAEModule, validation: Batches, seed: int, means: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Squared residual of each gene summed over rows, and its known levels, both (n_genes,)."""
    total = torch.zeros(module.n_genes, device=next(module.parameters()).device)
    n = torch.full_like(total, validation.n_rows if means is None else 0)
    noise = make_generator(seed, total.device)
    with evaluating(module):
        for x, *rest in validation.epoch(0):
            codes, known = rest[0] if module.n_classes else None, None
            if means is not None:
                x, known = mask_missing(x, means, codes)
                n += known.sum(0)
            mu, logvar = module.encode(x, codes)
            spread = torch.exp(0.5 * logvar) if module.config.beta > 0 else torch.zeros_like(mu)
            for _ in range(DRAWS):
                z = mu + spread * torch.randn(mu.shape, generator=noise, device=mu.device)
                squares = known_only((x - module.decode(z, codes)).square(), known)
                total += squares.sum(0) / DRAWS
    return total, n
