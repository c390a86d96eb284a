"""Prepare the training of an encoder: scaler, batches, network, PCA, and its initialisation."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from m1pipe.data.recipe import Aligned
from m1pipe.data.transforms import GeneTransform, fit_gene_transform
from m1pipe.encoder.conditional import class_means, fit_shift
from m1pipe.encoder.missing import fill_missing, known_means, known_variances
from m1pipe.encoder.plan import TrainingPlan, block_rows, raw_blocks
from m1pipe.models.count_likelihoods import COUNT_LIKELIHOODS, CountInputs
from m1pipe.models.likelihoods import HurdleGaussian
from m1pipe.models.pca import PCA, fit_pca
from m1pipe.models.pca_start import initialize_from_pca, noise_variance
from m1pipe.models.vae import VAEModule, initialize_output_bias, network_inputs, vae_objective
from m1pipe.training.batches import Batches, Feed, ResidentFeed, make_feed
from m1pipe.training.device import resolve_device, seeded
from m1pipe.training.distributed import ALONE, Objective, Workers

VALIDATION_MEMORY = 0.25
LEAST_COUNT = 0.1  # of 10,000
MOST_THETA = 1000.0
"""Counts of less dispersion start as those of this one: training can tell them no more apart."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Everything before the first step.

    Attributes
    ----------
    plan : TrainingPlan
        With the means of its classes.
    scaler : GeneTransform
    pca : PCA
    module : VAEModule
        Started, on the device.
    batches, validation : Feed, and Feed or None
    means : Tensor, shape (n_classes, n_genes), or None
        Imputation means of missing levels; None where there are none.
    begun : float
        When it began, for `time.perf_counter`.
    """

    plan: TrainingPlan
    scaler: GeneTransform
    pca: PCA
    module: VAEModule
    batches: Feed
    validation: Feed | None
    means: torch.Tensor | None
    begun: float

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        return partial(vae_objective, means=self.means)


def prepare(plan: TrainingPlan, workers: Workers = ALONE) -> Prepared:
    """Scale, components, network and batches of what was planned.

    Parameters
    ----------
    plan : TrainingPlan
    workers : Workers
    """
    begun = time.perf_counter()
    gaps, kind = plan.missing is not None, plan.config.model.transform
    assert kind is not None
    scaler = fit_gene_transform(kind, raw_blocks(plan.source, plan.rows), keep_missing=gaps)
    device = resolve_device(plan.config.training.device)
    batches, validation = _feeds(plan, scaler, device, workers)
    module = _fresh(plan, scaler, lambda: scaled_blocks(plan.source, plan.rows, scaler, batches))

    def inputs() -> Iterator[np.ndarray]:
        blocks = scaled_blocks(plan.source, plan.rows, scaler, batches)
        return (network_inputs(module, X) for X in blocks) if module.of_counts else blocks

    if plan.condition is not None and plan.codes is not None:
        shift = fit_shift(inputs(), plan.codes[plan.rows], plan.n_classes)
        plan = replace(plan, condition=replace(plan.condition, shift=shift))
    pca = _components(plan, inputs)
    _start(module, plan, pca)
    module.to(device)
    means = torch.from_numpy(class_means(pca.mean, plan.condition)).to(device) if gaps else None
    return Prepared(plan, scaler, pca, module, batches, validation, means, begun)


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
    """Components of the training rows about their class; missing levels are at their mean."""
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
    plan: TrainingPlan, scaler: GeneTransform, device: torch.device, workers: Workers
) -> tuple[Feed, Feed | None]:
    """Batches of the training rows, and of the validation rows where there are any."""
    training = plan.config.training
    memory = training.data_memory
    share = VALIDATION_MEMORY if plan.streams and plan.held_out is not None else 0.0
    feed = partial(
        make_feed,
        transform=scaler,
        batch_size=training.batch_size,
        seed=training.seed,
        device=device,
        part=(workers.rank, workers.size),
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
    """A network with random weights, and the scale of its data where its likelihood needs it."""
    with seeded(plan.config.training.seed):
        module = VAEModule(plan.source.shape[1], plan.config.model, n_classes=plan.n_classes)
    if isinstance(module.likelihood, HurdleGaussian):
        module.likelihood.set_units(
            torch.from_numpy(scaler.location), torch.from_numpy(scaler.scale)
        )
    if isinstance(module.inputs, CountInputs):
        assert isinstance(module.likelihood, COUNT_LIKELIHOODS)
        codes = None if plan.codes is None else plan.codes[plan.rows]
        module.likelihood.set_theta(fit_count_inputs(module.inputs, blocks, codes))
    if (shares := _shares(plan)) is not None:
        module.batch_shares.copy_(shares)
    return module


def _shares(plan: TrainingPlan) -> torch.Tensor | None:
    """Share of every batch in the training rows; None where the decoder is not told batches."""
    if plan.condition is None or not plan.condition.is_batch:
        return None
    counts = torch.tensor(plan.condition.counts, dtype=torch.float32)
    return counts / counts.sum()


def _start(module: VAEModule, plan: TrainingPlan, pca: PCA) -> None:
    """Start a network at the principal components where its shape allows, else at the mean."""
    mean = torch.from_numpy(pca.mean)
    if not plan.config.model.starts_at_pca:
        if isinstance(module.inputs, CountInputs):
            _start_at_classes(module, plan, mean)
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
        shares=_shares(plan),
    )


@torch.no_grad()
def _start_at_classes(module: VAEModule, plan: TrainingPlan, mean: torch.Tensor) -> None:
    """Start the decoder's linear path from classes at the counts of each class."""
    if plan.condition is None or module.skip_decoder is None:
        return
    assert isinstance(module.inputs, CountInputs)
    seen = mean + torch.from_numpy(np.vstack([np.zeros_like(mean), plan.condition.shift]))
    counts = torch.expm1(seen * module.inputs.scale + module.inputs.location)
    logs = counts.clamp_min(LEAST_COUNT).log()
    from_classes = module.skip_decoder.weight[: module.n_genes, module.config.n_latent :]
    from_classes.copy_((logs[1:] - logs[0]).T)


def scaled_blocks(
    source: Aligned,
    rows: np.ndarray,
    scaler: GeneTransform,
    batches: Batches | None,
    chosen: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Transformed rows in order, or chosen ones, from memory where the batches are held there.

    Parameters
    ----------
    source : Aligned
    rows : ndarray of int, shape (n_rows,)
    scaler : GeneTransform
    batches : Batches or None
        Those of the rows.
    chosen : ndarray of int, shape (n_chosen,), optional
        Places among `rows`. Left out: all.

    Yields
    ------
    ndarray of float32, shape (n_block, n_genes)
    """
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


@torch.no_grad()
def fit_count_inputs(
    inputs: CountInputs, blocks: Callable[[], Iterator[np.ndarray]], codes: np.ndarray | None = None
) -> torch.Tensor:
    """Fit the inputs of an encoder of counts to the training rows.

    Parameters
    ----------
    inputs : CountInputs
        As it is made; changed in place.
    blocks : callable
        Every call gives the training rows anew, arrays of counts of shape (n_rows, n_genes).
    codes : ndarray of int64, shape (n_rows,), optional
        Classes of these rows.

    Returns
    -------
    Tensor of float32, shape (n_genes,)
        Inverse dispersion of each gene by moments, about its share of the totals of its class.
    """
    logs = (inputs(torch.from_numpy(X)).numpy() for X in blocks())
    scaler = fit_gene_transform("standardize", logs)
    totals, means, theta = _count_moments(blocks(), codes)
    depth = np.log(np.maximum(totals, 1))
    inputs.location.copy_(torch.from_numpy(scaler.location))
    inputs.scale.copy_(torch.from_numpy(scaler.scale))
    inputs.mean_counts.copy_(torch.from_numpy(means))
    inputs.log_library.copy_(torch.tensor([depth.mean(), depth.std()]))
    return torch.from_numpy(theta.astype(np.float32))


def _count_moments(
    blocks: Iterator[np.ndarray], codes: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Totals of rows; mean and inverse dispersion of genes.

    The latter is the squared mean divided by what the variance is more than a Poisson's.
    """
    n_classes = 1 if codes is None else int(codes.max()) + 1
    totals: list[np.ndarray] = []
    found = np.zeros(())  # sums of counts, their squares, their products with totals
    depths = np.zeros(())
    n = 0
    for block in blocks:
        X = block.astype(np.float64)
        here = np.zeros(len(X), int) if codes is None else codes[n : n + len(X)]
        of_class, total = np.eye(n_classes)[here].T, X.sum(axis=1)
        found = found + np.stack([of_class @ part for part in (X, X**2, total[:, None] * X)])
        depths = depths + np.stack([of_class @ total, of_class @ total**2])[..., None]
        totals.append(total)
        n += len(X)
    sums, squares, crossed = found
    depth, depth_squared = depths
    share = sums / np.maximum(depth, 1)
    expected = share**2 * depth_squared
    excess = (squares - 2 * share * crossed + expected - sums).sum(axis=0)
    least = np.maximum(expected.sum(axis=0), np.finfo(np.float64).tiny) / MOST_THETA
    theta = np.maximum(expected.sum(axis=0) / np.maximum(excess, least), 1 / MOST_THETA)
    return np.concatenate(totals), sums.sum(axis=0) / n, np.where(sums.any(axis=0), theta, 1.0)
