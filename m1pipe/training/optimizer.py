"""AdamW: number of epochs, learning rate and KL weight over them; groups, decay, step, averages.

Where a model starts at its PCA, every layer is stepped in proportion to its natural scale, so that
one rate fits layers whose weights differ a hundredfold, and is drawn back to the start by the same
share in every step. The fewer the training rows, the more it is drawn: what a few hundred samples
cannot support decays, and the PCA is left.

Averages are exponential over the steps, as in Polyak & Juditsky 1992 (SIAM J. Control Optim.
30:838), with a short memory at first so that the start is soon forgotten.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from m1pipe.config import ModelConfig, TrainingConfig
from m1pipe.models.kernels import add_to_each, fused_adamw, gradient_norm
from m1pipe.models.vae import VAEModule

NETWORK_RATE = 10.0  # the linear maps start close to their goal, networks far from it
BIAS_RATE = 10.0
DISPERSION_RATE = 10.0
DECAY_ROWS = 15.0
DECAY_BOUNDS = (1e-4, 0.1)  # of a step
HALF_LIFE_STEPS = 10
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


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: matrices with weight decay, the rest without."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1]},
    ]
    return [group for group in groups if group["params"]]


def default_weight_decay(model: ModelConfig, training: TrainingConfig, n_samples: int) -> float:
    """Weight decay for a training set of this size, where left open.

    A step at the learning rate takes away `DECAY_ROWS` / n_samples of the weights.
    """
    if training.weight_decay is not None:
        return training.weight_decay
    if not model.starts_at_pca:
        return 0.0
    low, high = DECAY_BOUNDS
    return min(max(DECAY_ROWS / n_samples, low), high) / training.lr


def vae_groups(module: VAEModule, training: TrainingConfig) -> list[dict[str, Any]]:
    """Groups for the optimiser: by scale where the model starts at its PCA; counts' dispersions.

    Parameters
    ----------
    module : VAEModule
        Started already.
    training : TrainingConfig
        With its weight decay settled.

    Returns
    -------
    list of dict
        With a PCA start a group a matrix, with rate lr * scale and decay weight_decay / scale, then
        one of everything else, without decay. Otherwise those of `decay_groups`, and one of the
        dispersions of counts, that move on a log scale and have far to go.
    """
    if not module.config.starts_at_pca:
        groups = decay_groups(module, training.weight_decay or 0.0)
        if not module.of_counts:
            return groups
        theirs = list(module.likelihood.parameters())
        own = {id(p) for p in theirs}
        for group in groups:
            group["params"] = [p for p in group["params"] if id(p) not in own]
        return [*groups, {"params": theirs, "lr": training.lr * DISPERSION_RATE}]
    groups = []
    for weight, scale in _scales(module):
        rate, decay = training.lr * scale, (training.weight_decay or 0.0) / scale
        groups.append({"params": [weight], "lr": rate, "weight_decay": decay})
    rest = [p for p in module.parameters() if p.requires_grad and p.ndim == 1]
    return [*groups, {"params": rest, "lr": training.lr * BIAS_RATE}]


def _scales(module: VAEModule) -> list[tuple[Tensor, float]]:
    """Trained matrices, each with the scale of a step at rate 1."""
    found = []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear) and layer.weight.requires_grad:
            scale = NETWORK_RATE * layer.in_features**-0.5
            if name in ("mu_head", "logvar_head") and not len(module.encoder):
                assert module.skip_encoder is not None
                scale = max(
                    float(module.skip_encoder.weight[:, : module.n_genes].square().mean().sqrt()),
                    1e-12,
                )
            found.append((layer.weight, scale))
    return found


def clip_gradient(parameters: list[Tensor], most: float) -> Tensor:
    """Norm of the gradient, which is then clipped to `most`; left alone where that is 0."""
    norm = gradient_norm([p.grad for p in parameters if p.grad is not None])
    if most:
        nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return norm


@torch.no_grad()
def adamw_step(optimizer: torch.optim.AdamW, bad: Tensor) -> None:
    """Change the parameters as `optimizer.step()` does, to the bit, unless something is wrong.

    The decision is taken where the parameters lie, so that nothing has to be read for it.

    Parameters
    ----------
    optimizer : AdamW
        Fused; its groups say what is stepped and how, and its state is used and kept up.
    bad : Tensor of float32, shape ()
        1 leaves parameters and state as they are; otherwise 0.

    References
    ----------
    Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2.
    """
    taken = 1 - bad
    for group in optimizer.param_groups:
        stepped = [p for p in group["params"] if p.grad is not None]
        if not stepped:
            continue
        states = [optimizer.state[p] or _start(optimizer, p) for p in stepped]
        steps = [state["step"] for state in states]
        add_to_each(steps, taken)
        fused_adamw(
            stepped,
            [p.grad for p in stepped if p.grad is not None],
            ([state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states]),
            steps,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            betas=group["betas"],
            eps=group["eps"],
            bad=bad,
        )


def _start(optimizer: torch.optim.AdamW, parameter: Tensor) -> dict[str, Any]:
    """State of a parameter before its first step."""
    state: dict[str, Any] = optimizer.state[parameter]
    state["step"] = torch.zeros((), device=parameter.device)
    state["exp_avg"] = torch.zeros_like(parameter)
    state["exp_avg_sq"] = torch.zeros_like(parameter)
    return state


def moving_values(module: nn.Module) -> dict[str, Tensor]:
    """What changes in training, by name: trained parameters, and buffers such as running means.

    The tensors are the module's own, so that one look at a module serves all its steps, also where
    they are made to look elsewhere by their `data`.
    """
    trained: dict[str, Tensor] = {n: p for n, p in module.named_parameters() if p.requires_grad}
    return trained | dict(module.named_buffers())


def start_average(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the values that training changes, by their name in the module."""
    return {name: value.detach().clone() for name, value in moving_values(module).items()}


def update_average(
    average: dict[str, Tensor], values: dict[str, Tensor], *, decay: float, n_steps: int
) -> None:
    """Take a module's values after `n_steps` steps into the average, in place.

    Parameters
    ----------
    average : dict of Tensor
        From `start_average`. Counters, being no floating-point numbers, are copied.
    values : dict of Tensor
        From `moving_values`.
    decay : float
        Share of the old average that stays; less in the first steps.
    n_steps : int
        Steps that were taken, this one included.
    """
    share = 1 - min(decay, n_steps / (n_steps + HALF_LIFE_STEPS))
    for name, value in values.items():
        if value.is_floating_point():
            average[name].lerp_(value.detach(), share)
        else:
            average[name].copy_(value)


def load_average(module: nn.Module, average: dict[str, Tensor]) -> None:
    """Put averages into the module."""
    for name, value in moving_values(module).items():
        value.detach().copy_(average[name])


@contextmanager
def averaged(module: nn.Module, average: dict[str, Tensor] | None) -> Iterator[None]:
    """Averages in the module for a block, and its own values after it.

    Where the block raises, what it left in the module stays: it has put the best weights there.
    """
    if average is None:
        yield
        return
    with torch.no_grad():
        own = start_average(module)
        load_average(module, average)
        yield
        load_average(module, own)
