"""What the steps of one training run share, from before the first to after the last."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from m1pipe.config import TrainingConfig
from m1pipe.training.averaging import moving_values
from m1pipe.training.device import make_generator
from m1pipe.training.distributed import ALONE, Losses, Objective, World, share_gradients
from m1pipe.training.faults import Explain
from m1pipe.training.feed import Batches
from m1pipe.training.gradients import Found
from m1pipe.training.history import Observer
from m1pipe.training.schedule import beta_at, decay_groups, resolve_epochs, warmup_epochs
from m1pipe.training.signals import StopFlag
from m1pipe.training.state import FitState

# Steps of which the host then reads at once what they found. Where it waits for a card to read,
# the card waits for the host's next step; on the CPU reading costs nothing.
STEPS_A_READING = {"cpu": 1, "cuda": 64}


@dataclass(frozen=True)
class Unread:
    """A step whose findings were not read yet: its number in the epoch, from 1, its rows, rates."""

    step: int
    n_rows: int
    lr: float
    found: Found
    norm: Tensor


@dataclass
class Loop:
    """What the steps of one run share; see `m1pipe.training.fit.fit` for its settings."""

    module: nn.Module
    objective: Objective
    losses: nn.Module
    world: World
    batches: Batches
    config: TrainingConfig
    n_epochs: int
    n_warmup: int
    beta: float
    validation: Batches | None
    optimizer: torch.optim.AdamW
    generator: torch.Generator
    bad: Tensor
    checkpoint: Path | None
    stop: StopFlag
    observer: Observer
    explain: Explain | None
    keep_best: bool
    start_counts: bool
    state: FitState
    saved_at: float = 0.0
    leaves: bool = False
    unread: list[Unread] = field(default_factory=list)

    @cached_property
    def parameters(self) -> list[Tensor]:
        """What is trained, looked up once."""
        return [p for p in self.module.parameters() if p.requires_grad]

    @cached_property
    def moving(self) -> dict[str, Tensor]:
        """What the steps change, looked up once."""
        return moving_values(self.module)

    @property
    def steps_a_reading(self) -> int:
        """Steps after which the host looks; at each where processes wait for one another anyway."""
        return STEPS_A_READING[self.device.type] if self.world.size == 1 else 1

    @property
    def device(self) -> torch.device:
        """Where it is trained."""
        return self.generator.device

    @property
    def beta_now(self) -> float:
        """KL weight of the present epoch."""
        return beta_at(self.beta, self.state.epoch, self.n_warmup)


def open_loop(
    module: nn.Module,
    batches: Batches,
    objective: Objective,
    config: TrainingConfig,
    *,
    beta: float = 0.0,
    validation: Batches | None = None,
    parameters: list[dict[str, Any]] | None = None,
    checkpoint: Path | None = None,
    stop: StopFlag | None = None,
    observer: Observer | None = None,
    explain: Explain | None = None,
    keep: Literal["best", "last"] = "best",
    start_counts: bool = False,
    world: World = ALONE,
) -> Loop:
    """What `fit` goes through, before its first step; parameters are those of `fit`."""
    device = next(module.parameters()).device
    n_epochs = resolve_epochs(config, batches.n_steps)
    groups = decay_groups(module, config.weight_decay or 0.0) if parameters is None else parameters
    optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=0.0, fused=True)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    n_warmup = warmup_epochs(config, n_epochs, beta)
    some_unused = beta == 0 or n_warmup > 0
    return Loop(
        module=module,
        objective=objective,
        losses=share_gradients(Losses(module, objective), world, some_unused=some_unused),
        world=world,
        batches=batches,
        config=config,
        n_epochs=n_epochs,
        n_warmup=n_warmup,
        beta=beta,
        validation=validation,
        optimizer=optimizer,
        generator=make_generator(config.seed, device),
        bad=torch.zeros((), device=device),
        checkpoint=checkpoint,
        stop=stop or StopFlag(),
        observer=observer or Observer(),
        explain=explain,
        keep_best=keep == "best",
        start_counts=start_counts,
        state=FitState(),
    )
