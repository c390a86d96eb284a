import pytest
import torch

from m1pipe.models import products
from m1pipe.models.mlp import evaluating
from m1pipe.models.products import float32_products
from m1pipe.training.device import make_generator

HAS_SETTING = hasattr(torch.backends.mkldnn, "matmul")


@pytest.mark.skipif(not HAS_SETTING, reason="torch before 2.9 has no setting for oneDNN's products")
@pytest.mark.parametrize("exact", [True, False])
def test_onednn_is_asked_only_while_it_is_exact(
    exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "_mkl_is_narrow", lambda: True)
    monkeypatch.setattr(products, "_onednn_is_exact", lambda: exact)
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


@pytest.mark.skipif(not HAS_SETTING, reason="torch before 2.9 has no setting for oneDNN's products")
def test_products_of_bf16_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def rounded(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.mm(x.bfloat16().float(), y.bfloat16().float())

    products._onednn_is_exact.cache_clear()
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert not products._onednn_is_exact()
    products._onednn_is_exact.cache_clear()


@pytest.mark.parametrize("shape", [(64, 500, 256), (51, 32, 5000), (1, 7, 3), (300, 4097, 65)])
def test_float32_products_have_float32_errors(shape: tuple[int, int, int]) -> None:
    """The bound of Higham 2002, section 3.5: n u |x||y|, whoever takes the product."""
    n, k, m = shape
    source = make_generator(0)
    x, y = torch.randn(n, k, generator=source), torch.randn(m, k, generator=source)
    with float32_products():
        found = x @ y.t()
    bound = k * 2**-24 * (x.double().abs() @ y.double().abs().t())
    assert bool(((found - x.double() @ y.double().t()).abs() <= bound).all())


def test_evaluation_takes_its_products_at_full_width(monkeypatch: pytest.MonkeyPatch) -> None:
    if not HAS_SETTING:
        pytest.skip("torch before 2.9 has no setting for oneDNN's products")
    monkeypatch.setattr(products, "_mkl_is_narrow", lambda: True)
    monkeypatch.setattr(products, "_onednn_is_exact", lambda: True)
    with evaluating(torch.nn.Linear(2, 2)):
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"  # type: ignore[attr-defined]
