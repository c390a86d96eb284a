"""The type in which matrix products are taken, and whether it gives the same loss."""

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from m1pipe.errors import M1Warning

BF16_TOLERANCE = 0.01


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """A block whose matrix products are taken in "fp32" or "bf16"."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def judge_bf16(losses: Mapping[str, float], asked: str) -> tuple[float, str]:
    """Whether bf16 is taken, from the loss of the first batch in both types.

    Parameters
    ----------
    losses : mapping
        "fp32" and "bf16" to the mean loss.
    asked : str
        As configured; bf16 is taken whatever it gives where it was asked for by name.

    Returns
    -------
    gap : float
        Relative difference.
    precision : {"fp32", "bf16"}

    Warns
    -----
    M1Warning
        Where the losses differ by more than `BF16_TOLERANCE`.
    """
    gap = abs(losses["bf16"] - losses["fp32"]) / max(abs(losses["fp32"]), 1e-12)
    agrees = gap <= BF16_TOLERANCE
    precision = "bf16" if agrees or asked == "bf16" else "fp32"
    if not agrees:
        warnings.warn(
            f"the loss in bf16 differs by {gap:.1%} from fp32 on the first batch; "
            f"training goes on in {precision}",
            M1Warning,
            stacklevel=2,
        )
    return gap, precision
