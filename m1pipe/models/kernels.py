"""Kernels that are not public torch: full-width float32 products, the fused AdamW step, norms.

Each has a public fallback, taken where a version of torch lacks it, and the tests compare the two.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Multiplications of a product from which on the full width pays for a gradient of Python's own.
LARGE_PRODUCT = 2**21


@contextmanager
def float32_products() -> Iterator[None]:
    """Take the float32 products of a block, or of a function that it decorates, at full width.

    torch takes them by MKL, which keeps to 256 bits on processors that are not Intel's, also where
    they have AVX-512: half of the speed. oneDNN does not, but torch asks it only where bf16 would
    be allowed inside. Without AMX tiles oneDNN has no such products and stays with float32
    (oneDNN developer guide, "Floating-point Math Mode"); a first product checks that it does.
    Elsewhere nothing is changed.
    """
    with asking_onednn() if full_width_pays() else nullcontext():
        yield


def full_width_pays() -> bool:
    """Whether oneDNN's float32 products are the faster ones here, and float32."""
    return _mkl_is_narrow() and _onednn_is_exact()


@contextmanager
def asking_onednn() -> Iterator[None]:
    """Take the float32 products of a block by oneDNN; only where `full_width_pays`."""
    backend = getattr(torch.backends.mkldnn, "matmul")  # noqa: B009
    before = backend.fp32_precision
    backend.fp32_precision = "bf16"
    try:
        yield
    finally:
        backend.fp32_precision = before


@cache
def _mkl_is_narrow() -> bool:
    """Whether torch multiplies by MKL on a CPU of AMD that has AVX-512 and no AMX."""
    if not hasattr(torch.backends.mkldnn, "matmul"):  # torch before 2.9
        return False
    probe = getattr(torch.cpu, "get_capabilities", None)
    found = probe() if probe is not None else {}
    wide = found.get("avx512_dq", False) and not found.get("amx_tile", False)
    return wide and "AMD" in found.get("cpu_name", "") and torch.backends.mkl.is_available()


@cache
def _onednn_is_exact() -> bool:
    """Whether oneDNN keeps digits of a float32 that bf16 has not."""
    x = torch.full((64, 64), 1 + 2**-12)
    with asking_onednn():
        return bool((x @ x).sub_(64 * (1 + 2**-12) ** 2).abs().max() < 64 * 2**-14)


class Linear(nn.Linear):
    """`torch.nn.Linear`, up to rounding; under `vmap` to the bit."""

    def forward(self, input: Tensor) -> Tensor:
        """Map rows, shape (n_samples, n_in) -> (n_samples, n_out)."""
        if _multiplies_much(input, self.weight) and full_width_pays():
            return FullWidth.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
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
        and not under_vmap()
        and len(x) * weight.numel() >= LARGE_PRODUCT
        and not torch.is_autocast_enabled("cpu")
    )


def under_vmap() -> bool:
    """Whether a transform of `torch.func` is at work, or torch cannot tell."""
    probe = getattr(torch._C, "_are_functorch_transforms_active", None)
    return probe is None or bool(probe())


def multiplies_bf16() -> bool:
    """Whether this CPU has instructions for bf16 products; False where torch cannot tell."""
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(probe() for name in names if (probe := getattr(torch.cpu, name, None)))


def gradient_norm(gradients: list[Tensor]) -> Tensor:
    """Euclidean norm of all gradients together, shape ()."""
    if hasattr(torch, "_foreach_norm"):
        norms = list(torch._foreach_norm(gradients))
    else:
        norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
    return torch.linalg.vector_norm(torch.stack(norms))


def add_to_each(counts: list[Tensor], value: Tensor) -> None:
    """Add a value, shape (), to each tensor in place."""
    if hasattr(torch, "_foreach_add_"):
        torch._foreach_add_(counts, value)
        return
    for count in counts:
        count.add_(value)


class EagerAdamW(torch.optim.AdamW):
    """AdamW without the import of torch's compiler, a second of processor time.

    torch wraps these methods to keep them out of compiled graphs, of which there are none here.
    """

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)


@torch.no_grad()
def fused_adamw(
    tensors: list[Tensor],
    slopes: list[Tensor],
    moments: tuple[list[Tensor], list[Tensor]],
    steps: list[Tensor],
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    bad: Tensor | None = None,
) -> None:
    """AdamW's step on some tensors, in place.

    Parameters
    ----------
    tensors, slopes : list of Tensor
        Values and their gradients.
    moments : pair of list of Tensor
        First and second, of the same shapes.
    steps : list of Tensor of float32, shape ()
        Number of steps, this one included.
    lr, weight_decay, betas, eps
        As of `torch.optim.AdamW`.
    bad : Tensor of float32, shape (), optional
        1 leaves everything as it is; otherwise 0.

    References
    ----------
    Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2.
    """
    if not hasattr(torch, "_fused_adamw_"):
        if bad is None or not bool(bad):
            for values in zip(tensors, slopes, *moments, steps, strict=True):
                _adamw(*values, lr=lr, weight_decay=weight_decay, betas=betas, eps=eps)
        return
    torch._fused_adamw_(
        tensors,
        slopes,
        *moments,
        [],
        steps,
        lr=lr,
        beta1=betas[0],
        beta2=betas[1],
        weight_decay=weight_decay,
        eps=eps,
        amsgrad=False,
        maximize=False,
        found_inf=bad,
    )


def _adamw(
    tensor: Tensor,
    slope: Tensor,
    first: Tensor,
    second: Tensor,
    step: Tensor,
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """AdamW's step on one tensor, in place."""
    tensor.mul_(1 - lr * weight_decay)
    first.lerp_(slope, 1 - betas[0])
    second.mul_(betas[1]).addcmul_(slope, slope, value=1 - betas[1])
    spread = (second / (1 - betas[1] ** step)).sqrt_().add_(eps)
    tensor.sub_(lr / (1 - betas[0] ** step) * first / spread)
