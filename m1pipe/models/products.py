"""Who takes the matrix products in float32."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache

import torch


@contextmanager
def float32_products() -> Iterator[None]:
    """Take the float32 products of a block, or of a function that it decorates, at full width.

    torch takes them by MKL, which keeps to 256 bits on processors that are not Intel's, also where
    they have AVX-512: half of the speed. oneDNN does not, but torch asks it only where bf16 would
    be allowed inside. Without AMX tiles oneDNN has no such products and stays with float32
    (oneDNN developer guide, "Floating-point Math Mode"); a product that shows it is looked at
    first. Elsewhere nothing is changed.
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
