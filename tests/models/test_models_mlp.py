import pytest
import torch
from torch import nn

from m1pipe.models.kernels import Linear
from m1pipe.models.mlp import ACTIVATIONS, MLP, BatchNorm, activation_layer, evaluating


def test_layers_are_linear_norm_activation_dropout_for_each_width() -> None:
    mlp = MLP(5, (4, 3), activation="relu", batch_norm=True, dropout=0.5)
    kinds = [type(layer) for layer in mlp]
    assert kinds == [Linear, BatchNorm, nn.ReLU, nn.Dropout] * 2
    assert mlp.n_out == 3
    assert mlp(torch.randn(7, 5)).shape == (7, 3)


def test_no_layers_make_the_identity() -> None:
    x = torch.randn(3, 5)
    mlp = MLP(5, ())
    assert mlp.n_out == 5
    assert torch.equal(mlp(x), x)


def test_unknown_activation_is_refused() -> None:
    assert "swish" not in ACTIVATIONS
    with pytest.raises(ValueError, match=r"expected one of leaky_relu.*'swish'"):
        activation_layer("swish")


def test_batch_norm_equals_torch_on_several_rows() -> None:
    torch.manual_seed(0)
    ours, theirs = BatchNorm(4), nn.BatchNorm1d(4)
    x = torch.randn(6, 4)
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_var, theirs.running_var)


def test_batch_norm_of_one_row_uses_the_running_statistics_and_keeps_them() -> None:
    torch.manual_seed(0)
    norm = BatchNorm(4)
    norm(torch.randn(50, 4) + 3)
    before = norm.running_mean.clone()
    assert before.abs().min() > 0.1
    x = torch.randn(1, 4, requires_grad=True)
    out = norm(x)
    expected = (x - before) / torch.sqrt(norm.running_var + norm.eps)
    torch.testing.assert_close(out, expected)
    assert torch.equal(norm.running_mean, before)
    out.sum().backward()
    assert norm.weight.grad is not None and norm.bias.grad is not None


@pytest.mark.parametrize("training", [True, False])
def test_evaluating_restores_the_mode_even_after_an_error(training: bool) -> None:
    mlp = MLP(2, (2,), batch_norm=True).train(training)
    with pytest.raises(RuntimeError, match="inside"), evaluating(mlp):
        assert not mlp.training and not mlp[1].training
        raise RuntimeError("inside")
    assert mlp.training is training and mlp[1].training is training
