import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m1pipe.models import linear as module
from m1pipe.models.linear import LARGE_PRODUCT, FullWidth, Linear

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
    monkeypatch.setattr(module, "full_width_pays", lambda: True)
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

    monkeypatch.setattr(module, "full_width_pays", lambda: True)
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
    monkeypatch.setattr(module, "full_width_pays", lambda: False)
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
