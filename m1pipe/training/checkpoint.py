"""State of a training run and its checkpoint: tensors and plain types in one file, atomically."""

import os
import pickle
import warnings
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from m1pipe.artefacts import DAMAGE
from m1pipe.atomic import atomic_file
from m1pipe.config import TrainingConfig
from m1pipe.errors import InputError, M1Warning
from m1pipe.training.history import History
from m1pipe.training.optimizer import Plateau

FORMAT_VERSION = 1
NOT_IN_RESULT = ("device", "memory", "checkpoint_minutes", "micro_batch")


@dataclass
class FitState(History):
    """Where a run stands: its history so far, and what the next step needs.

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
    best_weights : dict of Tensor or None
        Of the epoch to be restored; None if there is none yet.
    waited : int
        Epochs since the best one.
    average : dict of Tensor or None
        Averages of the weights over the steps.
    plateau : Plateau
        State of the learning rate.
    finished : bool
        Whether there is nothing left to do.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0
    seconds: float = 0.0
    best_weights: dict[str, Tensor] | None = None
    waited: int = 0
    average: dict[str, Tensor] | None = None
    plateau: Plateau = field(default_factory=Plateau)
    finished: bool = False

    def history(self) -> History:
        """The history alone."""
        return History(**{own.name: getattr(self, own.name) for own in fields(History)})


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


def save_checkpoint(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write a training state; an older file of that name is replaced when this one is complete.

    Parameters
    ----------
    path : path
        Of the file.
    state : dict
        Tensors, numbers, strings, lists and dictionaries only, so that the file is read without
        executing anything.

    Raises
    ------
    InputError
        If it cannot be written, as on a full disk; the older file stays.
    """
    try:
        with atomic_file(path) as temporary:
            torch.save({"format_version": FORMAT_VERSION, **state}, temporary)
    except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError on a full disk
        raise InputError(
            f"{path}: the checkpoint could not be written; {_reason(error)}: "
            "free space there or choose another folder"
        ) from None


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, onto the CPU.

    Raises
    ------
    InputError
        If the file is missing, damaged, of another format version, or holds anything but tensors
        and plain types.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a checkpoint; found no such file: train without resume")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (*DAMAGE, pickle.UnpicklingError) as error:
        raise InputError(
            f"{path}: expected a readable checkpoint; {_reason(error)}: start again with --force"
        ) from None
    found = state.get("format_version") if isinstance(state, dict) else None
    if found != FORMAT_VERSION:
        raise InputError(
            f"{path}: expected a checkpoint of format version {FORMAT_VERSION}; found {found}"
        )
    return dict(state)


def _reason(error: Exception) -> str:
    """First line of an error's message."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
