"""The training loop: encoders and heads are trained here and nowhere else."""

from pathlib import Path
from typing import Any, Literal

from torch import nn

from m1pipe.config import TrainingConfig
from m1pipe.training.device import seeded
from m1pipe.training.distributed import ALONE, Objective, World
from m1pipe.training.faults import Explain
from m1pipe.training.feed import Batches
from m1pipe.training.history import History, Observer
from m1pipe.training.loop import begin, close, close_epoch, train_epoch
from m1pipe.training.opened import open_loop
from m1pipe.training.signals import StopFlag


def fit(
    module: nn.Module,
    batches: Batches,
    objective: Objective,
    config: TrainingConfig,
    *,
    beta: float = 0.0,
    validation: Batches | None = None,
    parameters: list[dict[str, Any]] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    stop: StopFlag | None = None,
    observer: Observer | None = None,
    explain: Explain | None = None,
    keep: Literal["best", "last"] = "best",
    start_counts: bool = False,
    world: World = ALONE,
) -> History:
    """Train a module in place and leave it, in evaluation mode, at its best weights.

    The result is a function of the module's weights, the batches and the configuration: torch's
    global generators are seeded for the run and given back afterwards. A run that was stopped at
    any step and resumed ends, on the CPU, with the same weights bit for bit.

    Parameters
    ----------
    module : nn.Module
        On the device where it is to be trained.
    batches : Batches
        Tuples of tensors on that device.
    objective : callable
        Takes the module, a batch, the present KL weight and where random numbers come from;
        returns tensors of shape (n_samples,): "loss", which is minimised, and any terms to be
        recorded. Their mean over a batch is the gradient's scale, their mean over all rows the
        epoch's record.
    config : TrainingConfig
        Epochs, rates, schedule, patience, seed, precision.
    beta : float
        KL weight after the warm-up; 0 (no warm-up) where there is no KL term.
    validation : Batches, optional
        Rows for early stopping, always visited in the order of their epoch 0, with the same noise
        each time and the full `beta`. Without them the training loss decides.
    parameters : list of dict, optional
        Parameter groups for AdamW, as torch takes them. All trainable parameters where not
        given, with weight decay on matrices only.
    checkpoint : Path, optional
        File written after every epoch, every `checkpoint_minutes`, and before a stop.
    resume : bool
        Go on from `checkpoint`.
    stop : StopFlag, optional
        Looked at after every step.
    observer : Observer, optional
        Told of every step and epoch.
    explain : callable, optional
        From `explain_rows`: names samples and genes when a loss is not finite.
    keep : {"best", "last"}
        "last" neither restores the best weights nor stops early.
    start_counts : bool
        The weights that the module comes with are validated too, and kept if no epoch is better;
        only where there are validation rows and no warm-up.
    world : World
        Processes that train together, each with its part of every batch in `batches` and
        `validation`; the first writes the checkpoint, which any number of processes can resume.

    Returns
    -------
    History
        With the epoch whose weights were kept; epochs of the warm-up are not eligible.

    Raises
    ------
    InputError
        If a loss or gradient is not finite. The weights are then those of the best epoch so far,
        or those before the step if no epoch is finished (running means of batch normalisation
        have then seen its batch); a checkpoint on disk stays.
    StoppedBySignalError, KeyboardInterrupt
        If `stop` was raised; the checkpoint, if any, is written.
    """
    loop = open_loop(
        module,
        batches,
        objective,
        config,
        beta=beta,
        validation=validation,
        parameters=parameters,
        checkpoint=checkpoint,
        stop=stop,
        observer=observer,
        explain=explain,
        keep=keep,
        start_counts=start_counts,
        world=world,
    )
    with seeded(config.seed, loop.device):
        begin(loop, resume)
        while not loop.state.finished:
            train_epoch(loop)
            close_epoch(loop)
    return close(loop)
