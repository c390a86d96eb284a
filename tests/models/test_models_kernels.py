"""Kernels that are not public torch, against public torch."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m1pipe.models import kernels
from m1pipe.models.kernels import (
    LARGE_PRODUCT,
    FullWidth,
    Linear,
    add_to_each,
    float32_products,
    fused_adamw,
    gradient_norm,
    multiplies_bf16,
    under_vmap,
)
from m1pipe.models.mlp import evaluating

needs_setting = pytest.mark.skipif(
    not hasattr(torch.backends.mkldnn, "matmul"), reason="torch before 2.9 has no such setting"
)


def _layer(n: int, n_in: int, n_out: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(n, n_in), torch.randn(n_out, n_in), torch.randn(n_out)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


@needs_setting
@pytest.mark.parametrize("shape", [(64, 500, 256), (64, 256, 500), (1, 40, 3), (33, 129, 65)])
@pytest.mark.parametrize("expanded", [False, True])
def test_gradients_are_those_of_the_plain_layer(
    shape: tuple[int, int, int], expanded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, which the setting does not touch, and with slopes that are one number."""
    inputs = tuple(t.detach().double().requires_grad_() for t in _layer(*shape))
    size = (shape[0], shape[2])
    slope = torch.ones((), dtype=torch.float64).expand(size) if expanded else torch.randn(size)
    found, plain = FullWidth.apply(*inputs), F.linear(*inputs)
    torch.testing.assert_close(found, plain)
    pairs = zip(
        torch.autograd.grad(found, inputs, slope.double()),
        torch.autograd.grad(plain, inputs, slope.double()),
        strict=True,
    )
    for ours, torchs in pairs:
        torch.testing.assert_close(ours, torchs)


@needs_setting
def test_products_forward_and_backward_are_at_full_width_and_nothing_else_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernels, "full_width_pays", lambda: True)
    setting, seen = torch.backends.mkldnn.matmul, []  # type: ignore[attr-defined]
    before, multiply, plain = setting.fp32_precision, torch.Tensor.__matmul__, F.linear

    def watched(x: Tensor, y: Tensor) -> Tensor:
        seen.append(setting.fp32_precision)
        return multiply(x, y)

    def watched_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        seen.append(setting.fp32_precision)
        return plain(x, weight, bias)

    monkeypatch.setattr(torch.Tensor, "__matmul__", watched)
    monkeypatch.setattr(F, "linear", watched_linear)
    large, small = Linear(256, 128), Linear(128, 64)
    small(large(torch.randn(64, 256))).square().sum().backward()
    assert seen == ["bf16", before, "bf16"]  # no gradient of the rows is needed
    assert setting.fp32_precision == before
    assert all(p.grad is not None for p in (*large.parameters(), *small.parameters()))


def _asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the products at full width, on a machine where that pays."""
    sizes: list[int] = []

    def counted(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        sizes.append(len(x) * weight.numel())
        return F.linear(x, weight, bias)

    monkeypatch.setattr(kernels, "full_width_pays", lambda: True)
    monkeypatch.setattr(FullWidth, "apply", counted)
    return sizes


def test_only_large_products_in_float32_are_taken_so(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = _asked(monkeypatch)
    layer, x = Linear(256, 128), torch.randn(64, 256)
    assert x.shape[0] * layer.weight.numel() == LARGE_PRODUCT
    layer(x)
    assert sizes == [LARGE_PRODUCT]
    layer(x[1:])
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype is torch.bfloat16
    Linear(256, 128).double()(x.double())
    torch.vmap(layer)(x.expand(3, 64, 256))
    monkeypatch.setattr(kernels, "full_width_pays", lambda: False)
    layer(x)
    assert sizes == [LARGE_PRODUCT]


def test_layer_starts_and_is_stored_as_torchs() -> None:
    torch.manual_seed(0)
    ours = Linear(5, 3)
    torch.manual_seed(0)
    theirs = nn.Linear(5, 3)
    x = torch.randn(4, 5)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert torch.equal(ours(x), theirs(x))


@needs_setting
@pytest.mark.parametrize("exact", [True, False])
def test_onednn_is_asked_only_while_it_is_exact(
    exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_mkl_is_narrow", lambda: True)
    monkeypatch.setattr(kernels, "_onednn_is_exact", lambda: exact)
    setting = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = setting.fp32_precision

    @float32_products()
    def inside() -> str:
        return str(setting.fp32_precision)

    assert inside() == ("bf16" if exact else before)
    assert setting.fp32_precision == before
    with pytest.raises(ZeroDivisionError), float32_products():
        _ = 1 / 0
    assert setting.fp32_precision == before


@needs_setting
def test_products_of_bf16_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def rounded(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.mm(x.bfloat16().float(), y.bfloat16().float())

    kernels._onednn_is_exact.cache_clear()
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert not kernels._onednn_is_exact()
    kernels._onednn_is_exact.cache_clear()


@pytest.mark.parametrize("shape", [(64, 500, 256), (51, 32, 5000), (1, 7, 3), (300, 4097, 65)])
def test_float32_products_have_float32_errors(shape: tuple[int, int, int]) -> None:
    """The bound of Higham 2002, section 3.5: n u |x||y|, whoever takes the product."""
    n, k, m = shape
    source = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, k, generator=source), torch.randn(m, k, generator=source)
    with float32_products():
        found = x @ y.t()
    bound = k * 2**-24 * (x.double().abs() @ y.double().abs().t())
    assert bool(((found - x.double() @ y.double().t()).abs() <= bound).all())


@needs_setting
def test_evaluation_takes_its_products_at_full_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_mkl_is_narrow", lambda: True)
    monkeypatch.setattr(kernels, "_onednn_is_exact", lambda: True)
    with evaluating(torch.nn.Linear(2, 2)):
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"  # type: ignore[attr-defined]


def _adamw_values() -> tuple[list[Tensor], list[Tensor], tuple[list[Tensor], list[Tensor]]]:
    torch.manual_seed(0)
    tensors = [torch.randn(5, 4), torch.randn(3)]
    slopes = [torch.randn_like(t) for t in tensors]
    moments = ([torch.randn_like(t) for t in tensors], [torch.rand_like(t) for t in tensors])
    return tensors, slopes, moments


@pytest.mark.parametrize("bad", [None, 0.0, 1.0])
def test_public_adamw_agrees_with_the_fused_one(
    bad: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for fused in (True, False):
        if not fused:
            monkeypatch.delattr(torch, "_fused_adamw_")
        tensors, slopes, moments = _adamw_values()
        steps = [torch.tensor(3.0), torch.tensor(7.0)]
        flag = None if bad is None else torch.tensor(bad)
        settings = {"lr": 0.02, "weight_decay": 0.3, "betas": (0.8, 0.99), "eps": 1e-6}
        fused_adamw(tensors, slopes, moments, steps, bad=flag, **settings)
        found.append([*tensors, *moments[0], *moments[1], *steps])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    unchanged = torch.equal(found[0][0], _adamw_values()[0][0])
    assert unchanged == (bad == 1.0)


def test_public_norm_and_counts_agree_with_those_of_many_tensors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gradients = _adamw_values()[1]
    expected = torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients]))
    found = []
    for name in (None, "_foreach_norm", "_foreach_add_"):
        if name is not None:
            monkeypatch.delattr(torch, name)
        counts = [torch.tensor(2.0), torch.tensor(5.0)]
        add_to_each(counts, torch.tensor(1.0))
        found.append([gradient_norm(gradients), *counts])
        torch.testing.assert_close(found[-1][0], expected)
        assert [float(c) for c in counts] == [3.0, 6.0]


def test_where_torch_cannot_tell_the_plain_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    torch.vmap(lambda x: seen.append(under_vmap()) or x)(torch.zeros(2))
    assert seen == [True] and not under_vmap()
    monkeypatch.delattr(torch._C, "_are_functorch_transforms_active")
    assert under_vmap()
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not multiplies_bf16()
