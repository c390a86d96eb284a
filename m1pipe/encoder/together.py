"""Encoders of one shape on the same rows, trained in one pass where they fit."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from m1pipe.config import EncoderConfig
from m1pipe.encoder.plan import TrainingPlan
from m1pipe.encoder.prepare import Prepared, prepare
from m1pipe.encoder.rates import parameter_groups
from m1pipe.encoder.train import explain_plan, finish, train_planned
from m1pipe.encoder.trained import Encoder
from m1pipe.errors import InputError
from m1pipe.training.device import resolve_device, resolve_precision
from m1pipe.training.feed import ResidentFeed
from m1pipe.training.fit_together import fit_together
from m1pipe.training.opened import open_loop

# What trials of one pass may differ in.
FREE = ("lr", "weight_decay", "schedule", "plateau_factor", "plateau_patience", "clip", "ema",
        "patience", "seed")  # fmt: skip


def pass_of(config: EncoderConfig) -> EncoderConfig | None:
    """What encoders of one pass have in common; None for one that is trained alone.

    Parameters
    ----------
    config : EncoderConfig
        Of the same rows.

    Returns
    -------
    EncoderConfig or None
        Equal for encoders that differ in `FREE` or in a KL weight above 0 alone. Dropout, classes
        and laws other than the normal one go alone: what they draw or look at cannot be stacked.
    """
    model, training = config.model, config.training
    alone = (
        model.dropout > 0
        or model.condition is not None
        or not model.likelihood.startswith("gaussian")
        or training.micro_batch is not None
    )
    if alone:
        return None
    blank = type(training)()
    same = {name: getattr(blank, name) for name in FREE}
    return replace(
        config,
        model=replace(model, beta=float(model.beta > 0)),
        training=replace(training, **same),
    )


def train_together(plans: Sequence[TrainingPlan]) -> list[Encoder | InputError]:
    """Train encoders of one pass, equal to rounding to those that are trained one by one.

    Parameters
    ----------
    plans : sequence of TrainingPlan
        On the same rows, with equal `pass_of`.

    Returns
    -------
    list of Encoder or InputError
        In the order of the plans; why one could not be trained. One by one where rows are
        streamed or products are not in single precision.
    """
    if len(plans) == 1 or not all(_is_stackable(plan) for plan in plans):
        return [_alone(plan) for plan in plans]
    first = prepare(plans[0])
    several = [first, *(_sharing(prepare(plan), first) for plan in plans[1:])]
    loops = [
        open_loop(
            one.module,
            one.batches,
            first.objective,
            one.plan.config.training,
            beta=one.plan.config.model.beta,
            validation=one.validation,
            parameters=parameter_groups(one.module, one.plan.config.training),
            explain=explain_plan(one.plan),
            start_counts=one.plan.config.model.starts_at_pca,
        )
        for one in several
    ]
    histories = fit_together(loops, first.plan.config.model.n_latent)
    return [
        history if isinstance(history, InputError) else finish(one, history)
        for one, history in zip(several, histories, strict=True)
    ]


def _sharing(one: Prepared, first: Prepared) -> Prepared:
    """The same with the rows of the first, which are equal and on an equal scale."""
    assert isinstance(one.batches, ResidentFeed) and isinstance(first.batches, ResidentFeed)
    return replace(one, batches=replace(one.batches, tensors=first.batches.tensors))


def _is_stackable(plan: TrainingPlan) -> bool:
    """Whether the rows are held in memory and products are in single precision."""
    training = plan.config.training
    dtype = resolve_precision(
        training.precision,
        resolve_device(training.device),
        n_parameters=plan.n_parameters,
        batch_size=training.batch_size,
    )
    return not plan.streams and dtype is torch.float32


def _alone(plan: TrainingPlan) -> Encoder | InputError:
    try:
        return train_planned(plan)
    except InputError as error:
        return error
