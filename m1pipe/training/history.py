"""Record of a training run, its observers, its log line, and where a loss is not finite."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Explain = Callable[[tuple[Tensor, ...], Tensor], str]
_NAMED = 3


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
        Epoch whose weights were kept; 0 if none was eligible, or the start was better than all.
    best_loss : float
        Its validation loss (training loss without validation rows).
    start : dict or None
        Validation loss (val_loss) and its terms before the first step, where the start counts.
    stopped_early : bool
        Whether patience was exhausted before the last epoch.
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
    """Functions that are called as training proceeds; either may be left out.

    Attributes
    ----------
    on_step : callable, optional
        Called for every step, in order, with a dict: epoch and step (from 1), rows, lr, beta and
        the means over the batch of the loss and its terms. On a GPU, which is read after every 64
        steps, for all of these at once.
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


def explain_rows(
    samples: Sequence[str], genes: Sequence[str], *, some_missing: bool = False
) -> Explain:
    """A function that names the first offending samples and genes of a batch.

    Parameters
    ----------
    samples : sequence of str
        Names by the row numbers that the batches carry.
    genes : sequence of str, length n_genes
        Names of the columns of a batch's first tensor.
    some_missing : bool
        Levels that are NaN are missing, and not named.

    Returns
    -------
    callable
        Takes a batch (its first tensor the levels, its last the row numbers) and the loss of
        each of its rows; returns text for an error message. Samples are those whose loss is not
        finite (the largest losses if all are finite); genes are those whose level is not finite
        in them, otherwise those whose level lies farthest from zero.
    """

    def explain(batch: tuple[Tensor, ...], loss: Tensor) -> str:
        x, rows = batch[0].detach().cpu(), batch[-1]
        bad = torch.nonzero(~torch.isfinite(loss.detach().cpu()))[:_NAMED, 0]
        if bad.numel() == 0:
            bad = loss.detach().cpu().argsort(descending=True)[:_NAMED]
        levels = x[bad].abs()
        if some_missing:
            levels = levels.nan_to_num(nan=0.0, posinf=torch.inf)
        broken = torch.nonzero(~torch.isfinite(levels).all(0))[:_NAMED, 0]
        if broken.numel() == 0:
            broken = levels.amax(0).argsort(descending=True)[:_NAMED]
            word = "most extreme genes"
        else:
            word = "genes without a finite level"
        who = ", ".join(samples[int(rows[i])] for i in bad)
        which = ", ".join(genes[int(j)] for j in broken)
        return f"samples {who}; {word} {which}"

    return explain
