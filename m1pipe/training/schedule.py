"""Number of epochs, and the KL weight and learning rate over them."""

import math
from dataclasses import dataclass

from m1pipe.config import TrainingConfig

ENOUGH_STEPS = 2000
FEWEST_EPOCHS, MOST_EPOCHS = 20, 100
WARMUP = 0.25


def resolve_epochs(config: TrainingConfig, n_steps: int) -> int:
    """Epochs as configured, or as many as make about `ENOUGH_STEPS` steps.

    Parameters
    ----------
    config : TrainingConfig
        Its `epochs` may be left open.
    n_steps : int
        Steps an epoch.
    """
    if config.epochs is not None:
        return config.epochs
    return min(MOST_EPOCHS, max(FEWEST_EPOCHS, math.ceil(ENOUGH_STEPS / max(n_steps, 1))))


def warmup_epochs(config: TrainingConfig, n_epochs: int, beta: float) -> int:
    """Epochs of rising KL weight; at least one epoch is left after them, none at beta = 0."""
    if beta == 0:
        return 0
    share = WARMUP if config.kl_warmup is None else config.kl_warmup
    return min(round(share * n_epochs), n_epochs - 1)


def beta_at(beta: float, epoch: int, n_warmup: int) -> float:
    """KL weight in an epoch (from 0): rises linearly, and is never 0 unless `beta` is."""
    return beta * min(1.0, (epoch + 1) / (n_warmup + 1))


def cosine_factor(step: int, n_steps: int) -> float:
    """Learning-rate factor after `step` of `n_steps` steps: half a cosine from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * min(step / n_steps, 1.0)))


@dataclass
class Plateau:
    """Learning-rate factor that falls when a loss no longer does.

    Attributes
    ----------
    factor : float
        Present factor of the learning rate.
    best : float
        Best loss so far.
    waited : int
        Epochs since the best one.
    """

    factor: float = 1.0
    best: float = math.inf
    waited: int = 0

    def update(self, loss: float, config: TrainingConfig) -> None:
        """Take an epoch's loss; a gain under 1e-4 of it counts as none."""
        if loss < self.best - 1e-4 * abs(self.best) or math.isinf(self.best):
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > config.plateau_patience:
            self.factor *= config.plateau_factor
            self.waited = 0
