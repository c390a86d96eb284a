"""Which epoch's weights are kept, and when patience runs out."""

from collections.abc import Callable
from typing import Any, Protocol


class Faring(Protocol):
    """Whatever is trained and judged epoch by epoch.

    Attributes
    ----------
    best_loss, best_epoch, best_weights
        Of the best epoch so far; numbered from 1.
    waited : int
        Epochs since.
    """

    best_loss: float
    best_epoch: int
    best_weights: Any
    waited: int


def judge(faring: Faring, loss: float, epoch: int, weights: Callable[[], Any]) -> None:
    """Keep the weights if no earlier epoch was as good; else wait one epoch longer.

    Parameters
    ----------
    faring : Faring
        Changed in place.
    loss : float
        Of this epoch.
    epoch : int
        Its number.
    weights : callable
        Makes a copy of the weights; called only if they are kept.
    """
    if loss < faring.best_loss:
        faring.best_loss, faring.best_epoch, faring.waited = loss, epoch, 0
        faring.best_weights = weights()
    else:
        faring.waited += 1


def ran_out(faring: Faring, patience: int) -> bool:
    """Whether so many epochs were no better; never with a patience of 0.

    Parameters
    ----------
    faring : Faring
    patience : int
    """
    return bool(patience) and faring.waited >= patience
