import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.dummy import DummyClassifier
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from m1pipe.models.heads import (
    Head,
    balanced_weight,
    head_loss,
    head_probabilities,
    initial_bias,
)

CODES = torch.tensor([0, 0, 0, 0, 0, 2, 2, 1, 2, 0])


def _loss(
    kind: str, output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """`head_loss` of one head."""
    return head_loss(kind, output[None], target[None], None if weight is None else weight[None])[0]


def _plain_loss(
    kind: str, output: torch.Tensor, target: torch.Tensor, class_weight: torch.Tensor | None
) -> torch.Tensor:
    """Loss of every sample under one head, without batched products."""
    if kind == "regression":
        return (output - target).square().mean(1)
    if kind == "multiclass":
        loss = F.cross_entropy(output, target, reduction="none")
        return loss if class_weight is None else loss * class_weight[target]
    if kind == "binary":
        goal = target.to(output.dtype)
        loss = F.binary_cross_entropy_with_logits(output[:, 0], goal, reduction="none")
        return loss if class_weight is None else loss * class_weight[target]
    loss = F.binary_cross_entropy_with_logits(output, target, reduction="none")
    if class_weight is not None:
        loss = loss * torch.where(target > 0.5, class_weight[1], class_weight[0])
    return loss.mean(1)


def test_shapes_and_linear_head() -> None:
    assert Head(5, 3, (8, 4))(torch.randn(7, 5)).shape == (7, 3)
    assert [name for name, _ in Head(5, 3, ()).named_parameters()] == [
        "output.weight",
        "output.bias",
    ]


def test_regression_loss_is_the_mean_over_targets() -> None:
    output, target = torch.randn(2, 6, 4)
    expected = ((output - target) ** 2).numpy().mean(1)
    np.testing.assert_allclose(_loss("regression", output, target), expected, rtol=1e-6)


def test_class_losses_match_sklearn() -> None:
    output = torch.randn(10, 3, dtype=torch.float64)
    loss = _loss("multiclass", output, CODES)
    p = head_probabilities("multiclass", output).numpy()
    assert loss.shape == (10,)
    assert loss.mean().item() == pytest.approx(log_loss(CODES, p, labels=[0, 1, 2]), abs=1e-10)
    binary = torch.randn(10, 1, dtype=torch.float64)
    codes = (CODES > 0).long()
    p = head_probabilities("binary", binary).numpy()
    assert p.shape == (10, 2)
    loss = _loss("binary", binary, codes)
    assert loss.mean().item() == pytest.approx(log_loss(codes, p), abs=1e-10)


def test_multilabel_loss_is_the_mean_of_the_labels_losses() -> None:
    output, target = torch.randn(10, 2), torch.randint(0, 2, (10, 2)).float()
    expected = sum(_loss("binary", output[:, [j]], target[:, j].long()) for j in (0, 1)) / 2
    torch.testing.assert_close(_loss("multilabel", output, target), expected)


def test_balanced_weights_match_sklearn_and_average_one() -> None:
    weight = balanced_weight("multiclass", CODES, 3)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=CODES.numpy())
    np.testing.assert_allclose(weight, expected, rtol=1e-6)
    assert weight[CODES].mean().item() == pytest.approx(1.0)
    assert balanced_weight("regression", torch.randn(3, 2), 2) is None
    labels = torch.stack([(CODES == 0).float(), (CODES == 1).float()], 1)
    assert balanced_weight("multilabel", labels, 2).shape == (2, 2)
    one = balanced_weight("binary", (CODES > 0).long(), 2)
    both = balanced_weight("multilabel", (CODES[:, None] > 0).float(), 1)
    torch.testing.assert_close(both[:, 0], one)


def test_bias_starts_at_the_mean_or_the_prior() -> None:
    levels = torch.randn(10, 4)
    torch.testing.assert_close(initial_bias("regression", levels, 4), levels.mean(0))
    prior = DummyClassifier().fit(np.zeros((10, 1)), CODES).predict_proba([[0]])[0]
    bias = initial_bias("multiclass", CODES, 3)
    np.testing.assert_allclose(torch.softmax(bias, 0), prior, atol=0.04)
    binary = initial_bias("binary", (CODES > 0).long(), 2)
    assert torch.sigmoid(binary).item() == pytest.approx(4.5 / 11)


def test_bias_is_finite_for_a_class_without_rows() -> None:
    for kind, target in [
        ("multiclass", torch.zeros(5, dtype=torch.long)),
        ("binary", torch.zeros(5, dtype=torch.long)),
        ("multilabel", torch.zeros(5, 3)),
    ]:
        weight = balanced_weight(kind, target, 3)
        assert torch.isfinite(initial_bias(kind, target, 3, weight)).all()


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_balanced_bias_minimises_the_balanced_loss(kind: str) -> None:
    """The gradient of the weighted loss at the starting bias is nearly zero."""
    codes = torch.cat([torch.zeros(900), torch.ones(100)]).long()
    target = codes[:, None].float() if kind == "multilabel" else codes
    weight = balanced_weight(kind, target, 2)
    bias = initial_bias(kind, target, 2, weight).requires_grad_()
    _loss(kind, bias.expand(1000, -1), target, weight).mean().backward()
    assert bias.grad.abs().max() < 2e-3
    assert initial_bias(kind, target, 2).abs().max() > 1.0


@pytest.mark.parametrize("kind", ["regression", "binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("weighted", [False, True])
def test_stacked_losses_are_those_of_each_head(kind: str, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(4, 10, 1 if kind == "binary" else 3, generator=generator)
    if kind == "regression":
        target = torch.randn(4, 10, 3, generator=generator)
    elif kind == "multilabel":
        target = (torch.rand(4, 10, 3, generator=generator) > 0.7).float()
    else:
        target = torch.randint(0, 2 if kind == "binary" else 3, (4, 10), generator=generator)
    weights = [balanced_weight(kind, t, 3) if weighted else None for t in target]
    stacked = torch.stack([w for w in weights if w is not None]) if weights[0] is not None else None
    losses = head_loss(kind, output, target, stacked)
    for k in range(4):
        expected = _plain_loss(kind, output[k], target[k], weights[k])
        torch.testing.assert_close(losses[k], expected)
