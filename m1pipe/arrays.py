"""Arrays of models, held and stored in one order: rows one after another (C order).

How an operand lies in memory decides which kernel multiplies it, and so the last bits of the
product: a loaded model computes what the saved one did because both hold their arrays alike.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save


def hold_in_rows(model: Any) -> None:
    """Put every array that a dataclass holds in C order; called when the dataclass is made."""
    for name, value in vars(model).items():
        if isinstance(value, np.ndarray):
            object.__setattr__(model, name, np.asarray(value, order="C"))  # also where frozen


def pack_arrays(
    arrays: Mapping[str, np.ndarray], *, metadata: dict[str, str] | None = None
) -> bytes:
    """Arrays as safetensors holds them, each in C order.

    Parameters
    ----------
    arrays : mapping of str to ndarray
    metadata : dict of str to str, optional
        Text beside them.
    """
    in_rows = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    packed: bytes = save(in_rows, metadata=metadata)
    return packed
