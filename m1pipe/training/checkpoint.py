"""Checkpoints: tensors and plain types in one file, replaced atomically."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from m1pipe.artefacts import DAMAGE
from m1pipe.atomic import atomic_file
from m1pipe.errors import InputError

FORMAT_VERSION = 1


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
