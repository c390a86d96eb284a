"""Everything that a training run must remember to go on as if it had not been stopped."""

import warnings
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from m1pipe.config import TrainingConfig
from m1pipe.errors import InputError, M1Warning
from m1pipe.training.history import History
from m1pipe.training.schedule import Plateau

NOT_IN_RESULT = ("device", "memory", "checkpoint_minutes", "micro_batch")


@dataclass
class FitState:
    """Where a run stands.

    Attributes
    ----------
    epoch, step : int
        Finished epochs, and finished steps of the one that has begun.
    sums : dict
        Sum over the rows of the begun epoch of the loss and each of its terms.
    count : int
        Those rows.
    seconds : float
        Time that the begun epoch has taken.
    best_loss, best_epoch, best_weights
        Of the epoch to be restored; its number is from 1, 0 if there is none yet.
    waited : int
        Epochs since.
    start : dict or None
        Validation loss and terms before the first step, where the start counts.
    average : dict of Tensor or None
        Averages of the weights over the steps.
    plateau : Plateau
        State of the learning rate.
    rows : list of dict
        One a finished epoch.
    precision, precision_gap
        As in `History`.
    stopped_early, finished : bool
        Whether patience ran out; whether there is nothing left to do.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0
    seconds: float = 0.0
    best_loss: float = float("inf")
    best_epoch: int = 0
    best_weights: dict[str, Tensor] | None = None
    waited: int = 0
    start: dict[str, float] | None = None
    average: dict[str, Tensor] | None = None
    plateau: Plateau = field(default_factory=Plateau)
    rows: list[dict[str, Any]] = field(default_factory=list)
    precision: str = "fp32"
    precision_gap: float | None = None
    stopped_early: bool = False
    finished: bool = False

    def history(self) -> History:
        """What the run leaves behind."""
        return History(
            rows=self.rows,
            best_epoch=self.best_epoch,
            best_loss=self.best_loss,
            start=self.start,
            stopped_early=self.stopped_early,
            precision=self.precision,
            precision_gap=self.precision_gap,
        )


def result_settings(config: TrainingConfig) -> dict[str, Any]:
    """Settings that decide the weights a training ends with."""
    return {name: value for name, value in asdict(config).items() if name not in NOT_IN_RESULT}


def pack_state(
    state: FitState,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """State of a run as tensors and plain types, for `save_checkpoint`."""
    device = generator.device
    return {
        "fit": {**vars(state), "plateau": asdict(state.plateau)},
        "weights": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "generator": generator.get_state(),
        "cpu_generator": torch.get_rng_state(),
        "cuda_generator": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "settings": settings,
        "machine": _machine(),
    }


def unpack_state(
    packed: dict[str, Any],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    settings: dict[str, Any],
) -> FitState:
    """Put a packed state back into the module, the optimiser and the random generators.

    Raises
    ------
    InputError
        If the run that was packed had other settings, rows or shapes.

    Warns
    -----
    M1Warning
        If it ran with another number of threads or version of torch: the weights will then agree
        only to rounding with those of a run that was never stopped.
    """
    _compare(packed["settings"], settings)
    try:
        module.load_state_dict(packed["weights"])
        optimizer.load_state_dict(packed["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"checkpoint: expected the same model and optimiser; {reason}") from None
    for name, value in _machine().items():
        if packed["machine"][name] != value:
            warnings.warn(
                f"resumed with {name} {value} instead of {packed['machine'][name]}: "
                "the result will agree with an unbroken run only to rounding",
                M1Warning,
                stacklevel=2,
            )
    generator.set_state(packed["generator"])
    torch.set_rng_state(packed["cpu_generator"])
    if packed["cuda_generator"] is not None and generator.device.type == "cuda":
        torch.cuda.set_rng_state(packed["cuda_generator"], generator.device)
    state = FitState(**{**packed["fit"], "plateau": Plateau(**packed["fit"]["plateau"])})
    if state.average is not None:
        device = next(module.parameters()).device  # a checkpoint is read onto the CPU
        state.average = {name: value.to(device) for name, value in state.average.items()}
    return state


def _compare(before: dict[str, Any], now: dict[str, Any]) -> None:
    for name, value in now.items():
        if before.get(name) != value:
            raise InputError(
                f"checkpoint: {name} was {before.get(name)!r} and is {value!r} now: "
                "resume with the settings and files of the stopped run, or start anew"
            )


def _machine() -> dict[str, Any]:
    return {"threads": torch.get_num_threads(), "torch": str(torch.__version__)}
