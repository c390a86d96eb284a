"""The linear layer of every network, whose large products in float32 are taken at full width."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m1pipe.models.products import asking_onednn, full_width_pays

# Multiplications of a product from which on the full width pays for a gradient of Python's own.
LARGE_PRODUCT = 2**21


class Linear(nn.Linear):
    """`torch.nn.Linear`, up to rounding; under `vmap` to the bit."""

    def forward(self, input: Tensor) -> Tensor:
        """Map rows, shape (n_samples, n_in) -> (n_samples, n_out)."""
        if _multiplies_much(input, self.weight) and full_width_pays():
            found: Tensor = FullWidth.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return found
        return super().forward(input)


class FullWidth(torch.autograd.Function):
    """`torch.nn.functional.linear` with its products, forward and backward, at full width.

    Small products lose by it what large ones gain: hence layer by layer, by a rule of shapes.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Rows through the layer, shape (n_samples, n_in) -> (n_samples, n_out)."""
        ctx.save_for_backward(x, weight)
        with asking_onednn():
            return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of rows, weight and bias, as far as they are needed."""
        x, weight = ctx.saved_tensors
        of_rows, of_weight, of_bias = ctx.needs_input_grad
        with asking_onednn():
            return (
                slope @ weight if of_rows else None,
                slope.t() @ x if of_weight else None,
                slope.sum(0) if of_bias else None,
            )


def _multiplies_much(x: Tensor, weight: Tensor) -> bool:
    """Whether these are large, in float32, on the CPU, and computed as they stand."""
    return (
        x.dtype is torch.float32
        and x.is_cpu
        and x.ndim == 2
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and len(x) * weight.numel() >= LARGE_PRODUCT
        and not torch.is_autocast_enabled("cpu")
    )
