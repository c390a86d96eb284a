"""Heads of equal shape as one: each layer of all of them is one batched product.

Every head keeps its own weights; nothing is shared but the arithmetic.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from m1pipe.models.heads import Head, linear_layers


class StackedHeads:
    """Weights of several heads of one shape, first axis the head.

    Parameters
    ----------
    heads : sequence of Head
        Of equal widths, without dropout; their weights are copied.

    Attributes
    ----------
    matrices, biases : list of Tensor, shapes (n_heads, n_out, n_in) and (n_heads, n_out)
        Of every layer, the output layer last.
    """

    def __init__(self, heads: Sequence[Head]) -> None:
        depths = list(zip(*(linear_layers(head) for head in heads), strict=True))
        self.matrices = [torch.stack([m.weight.detach() for m in layers]) for layers in depths]
        self.biases = [torch.stack([m.bias.detach() for m in layers]) for layers in depths]
        for tensor in self.tensors:
            tensor.requires_grad_()

    @property
    def tensors(self) -> list[Tensor]:
        """All weights: of the matrices, then of the biases."""
        return [*self.matrices, *self.biases]

    @property
    def n_heads(self) -> int:
        """How many heads there are."""
        return self.biases[0].shape[0]

    def hidden(self, x: Tensor, keep: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Last hidden layer, (n_heads, n_rows, width), of inputs (n_heads, n_rows, n_in).

        Rows are columns on the way, so that gradients of the matrices come as these lie. `keep`
        makes of every layer, (n_heads, width, n_rows), what dropout leaves of it.
        """
        x = x.transpose(1, 2)
        for matrix, bias in zip(self.matrices[:-1], self.biases[:-1], strict=True):
            x = torch.baddbmm(bias[:, :, None], matrix, x).relu()
            x = x if keep is None else keep(x)
        return x.transpose(1, 2).contiguous()

    def output(self, hidden: Tensor) -> Tensor:
        """Levels or logits, shape (n_heads, n_rows, n_out)."""
        return torch.baddbmm(self.biases[-1][:, None], hidden, self.matrices[-1].transpose(1, 2))

    def weights_of(self, k: int) -> list[Tensor]:
        """Copies of one head's weights, in the order of `tensors`."""
        return [tensor.detach()[k].clone() for tensor in self.tensors]

    def keep(self, heads: Tensor) -> None:
        """Go on with these heads only: numbers, shape (n_left,)."""
        for tensors in (self.matrices, self.biases):
            tensors[:] = [t.detach()[heads].requires_grad_() for t in tensors]


def set_weights(head: Head, weights: Sequence[Tensor]) -> None:
    """Give a head the weights that `StackedHeads.weights_of` took: matrices, then biases."""
    layers = linear_layers(head)
    with torch.no_grad():
        for layer, matrix, bias in zip(layers, weights, weights[len(layers) :], strict=False):
            layer.weight.copy_(matrix)
            layer.bias.copy_(bias)


def stacked_loss(
    kind: str, output: Tensor, target: Tensor, class_weight: Tensor | None = None
) -> Tensor:
    """Loss of every sample under every head; what `head_loss` is for one.

    Parameters
    ----------
    kind : str
        Kind of target.
    output : Tensor, shape (n_heads, n_rows, n_out)
    target : Tensor
        Levels or labels, shape (n_heads, n_rows, n_out); for classes codes, (n_heads, n_rows).
    class_weight : Tensor, optional
        Of `balanced_weight` for every head, stacked.

    Returns
    -------
    Tensor, shape (n_heads, n_rows)
    """
    if kind == "regression":
        return (output - target).square().mean(2)
    if kind == "multilabel":
        loss = F.binary_cross_entropy_with_logits(output, target, reduction="none")
        if class_weight is not None:
            absent, present = class_weight[:, 0, None], class_weight[:, 1, None]
            loss = loss * torch.where(target > 0.5, present, absent)
        return loss.mean(2)
    if kind == "binary":
        goal = target.to(output.dtype)
        loss = F.binary_cross_entropy_with_logits(output[:, :, 0], goal, reduction="none")
    else:
        flat = F.cross_entropy(output.flatten(0, 1), target.flatten(), reduction="none")
        loss = flat.view(target.shape)
    return loss if class_weight is None else loss * class_weight.gather(1, target)
