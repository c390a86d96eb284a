"""What a training run leaves behind besides its weights, and who may watch it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class History:
    """Record of one training run.

    Attributes
    ----------
    rows : list of dict
        One a finished epoch: epoch (from 1), lr, beta, train_loss and its terms train_*, val_loss
        and its terms val_* (absent without validation rows), seconds. Losses are means over all
        rows of the epoch.
    best_epoch : int
        Epoch whose weights were kept; 0 if none was counted, or the start was better than all.
    best_loss : float
        Its validation loss (training loss without validation rows).
    start : dict or None
        Validation loss (val_loss) and its terms before the first step, where the start counts.
    stopped_early : bool
        Whether patience ran out before the last epoch.
    precision : str
        "fp32" or "bf16": type of the matrix products.
    precision_gap : float or None
        Relative difference of the first batch's loss between bf16 and fp32, where compared.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_loss: float = float("inf")
    start: dict[str, float] | None = None
    stopped_early: bool = False
    precision: str = "fp32"
    precision_gap: float | None = None

    @property
    def n_epochs(self) -> int:
        """Number of epochs that were finished."""
        return len(self.rows)


@dataclass(frozen=True)
class Observer:
    """Functions that are told how training goes; either may be left out.

    Attributes
    ----------
    on_step : callable, optional
        Called for every step, in order, with a dict: epoch and step (from 1), rows, lr, beta and
        the means over the batch of the loss and its terms. On a GPU, which is read now and then
        only, for several steps at once.
    on_epoch : callable, optional
        Called after every epoch with the row that `History.rows` got.
    """

    on_step: Callable[[dict[str, Any]], None] | None = None
    on_epoch: Callable[[dict[str, Any]], None] | None = None


def epoch_line(row: dict[str, Any], n_epochs: int) -> str:
    """One line for a log: epoch, losses, learning rate, seconds."""
    losses = "  ".join(
        f"{name} {row[key]:.4g}"
        for name, key in (("train", "train_loss"), ("val", "val_loss"))
        if key in row
    )
    return f"epoch {row['epoch']}/{n_epochs}  {losses}  lr {row['lr']:.2g}  {row['seconds']:.1f} s"
