"""Feed-forward heads: one network, many of one shape in batched products, loss, initial bias.

Kinds of target: "regression" (levels), "binary" (one log-odds for the second class),
"multiclass" (one logit a class), "multilabel" (one log-odds a label).
"""

import warnings
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m1pipe.models.kernels import Linear
from m1pipe.models.mlp import MLP


class Head(nn.Module):
    """A linear map, a hidden part, or both added up.

    Parameters
    ----------
    n_in, n_out : int
        Numbers of inputs and outputs.
    widths : sequence of int or None
        Widths of the hidden layers, with ReLU between them and no batch norm; () makes a linear
        hidden part, None leaves it out.
    dropout : float
        Probability of dropping a hidden unit while training.
    linear : bool
        Whether a linear map of the inputs stands beside the hidden part.

    Raises
    ------
    ValueError
        If neither part is there.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        widths: Sequence[int] | None,
        *,
        dropout: float = 0.0,
        linear: bool = False,
    ) -> None:
        super().__init__()
        if widths is None and not linear:
            raise ValueError("a head needs a hidden or a linear part")
        self.n_out = n_out
        self.hidden: MLP | None = None
        self.output: Linear | None = None
        if widths is not None:
            with warnings.catch_warnings():  # components of constant data are none
                warnings.filterwarnings("ignore", "Initializing zero-element tensors")
                self.hidden = MLP(n_in, widths, activation="relu", dropout=dropout)
            self.output = Linear(self.hidden.n_out, n_out)
        self.linear: Linear | None = None
        if linear:
            self.linear = _zero_linear(n_in, n_out)

    def forward(self, x: Tensor) -> Tensor:
        """Levels or logits, shape (n_samples, n_out), of inputs of shape (n_samples, n_in)."""
        if self.hidden is None or self.output is None:
            return self.linear(x)  # type: ignore[misc]
        added = self.output(self.hidden(x))
        return added if self.linear is None else self.linear(x) + added


def _zero_linear(n_in: int, n_out: int) -> Linear:
    """A linear map at zero, since its solution is given and not trained; `n_in` may be 0."""
    with torch.random.fork_rng(devices=[]):
        linear = Linear(1, n_out)
    linear.in_features = n_in
    linear.weight = nn.Parameter(torch.zeros(n_out, n_in))
    nn.init.zeros_(linear.bias)
    return linear


def mean_head(heads: Sequence[Head]) -> Head:
    """One head whose hidden part gives the mean output of those of several heads of one shape.

    The layers are put side by side: hidden widths add up, deeper layers are block-diagonal.

    Parameters
    ----------
    heads : sequence of Head
        With hidden layers and without linear parts.

    Raises
    ------
    ValueError
        If there are no hidden layers.
    """
    if len(heads) == 1:
        return heads[0]
    depths = list(zip(*(linear_layers(head) for head in heads), strict=True))
    if len(depths) == 1:
        raise ValueError("a mean of heads needs hidden layers to put side by side")
    widths = [sum(layer.out_features for layer in layers) for layers in depths[:-1]]
    with torch.random.fork_rng(devices=[]):
        whole = Head(depths[0][0].in_features, heads[0].n_out, widths)
    whole.to(depths[0][0].weight.device)
    with torch.no_grad():
        for depth, (own, layers) in enumerate(zip(linear_layers(whole), depths, strict=True)):
            weights = [layer.weight for layer in layers]
            biases = [layer.bias for layer in layers]
            if depth == len(depths) - 1:
                own.weight.copy_(torch.cat(weights, 1) / len(heads))
                own.bias.copy_(torch.stack(biases).mean(0))
            else:
                own.weight.copy_(torch.block_diag(*weights) if depth else torch.cat(weights))
                own.bias.copy_(torch.cat(biases))
    return whole


def linear_layers(head: Head) -> list[nn.Linear]:
    """Layers of the hidden part, the output layer last."""
    if head.hidden is None or head.output is None:
        return []
    hidden = [layer for layer in head.hidden if isinstance(layer, nn.Linear)]
    return [*hidden, head.output]


class StackedHeads:
    """Weights of several heads of one shape, first axis the head: each layer one batched product.

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
        """Keep these heads only: numbers, shape (n_left,)."""
        for tensors in (self.matrices, self.biases):
            tensors[:] = [t.detach()[heads].requires_grad_() for t in tensors]


def set_weights(head: Head, weights: Sequence[Tensor]) -> None:
    """Give a head the weights that `StackedHeads.weights_of` took: matrices, then biases."""
    layers = linear_layers(head)
    with torch.no_grad():
        for layer, matrix, bias in zip(layers, weights, weights[len(layers) :], strict=False):
            layer.weight.copy_(matrix)
            layer.bias.copy_(bias)


def head_loss(
    kind: str, output: Tensor, target: Tensor, class_weight: Tensor | None = None
) -> Tensor:
    """Loss of every sample under every head.

    Parameters
    ----------
    kind : str
        Kind of target.
    output : Tensor, shape (n_heads, n_rows, n_out)
    target : Tensor
        Levels or labels, shape (n_heads, n_rows, n_out); for classes codes, (n_heads, n_rows).
    class_weight : Tensor, optional
        From `balanced_weight` for every head, stacked.

    Returns
    -------
    Tensor, shape (n_heads, n_rows)
        Squared error averaged over the targets; cross-entropy in nats, for several labels
        averaged over them.
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


def likeliest_other(kind: str, output: Tensor, target: Tensor) -> Tensor:
    """The class beside the given one that has the largest logit, or every label turned.

    Parameters
    ----------
    kind : str
        "binary", "multiclass" or "multilabel".
    output, target : Tensor
        As of `head_loss`; the result is shaped as `target`.
    """
    if kind != "multiclass":
        return 1 - target
    return output.scatter(2, target[:, :, None], -torch.inf).argmax(2)


def head_probabilities(kind: str, output: Tensor) -> Tensor:
    """Predictions in the target's units.

    Parameters
    ----------
    kind : str
        Kind of target.
    output : Tensor, shape (n_samples, n_out)
        What the head returns.

    Returns
    -------
    Tensor
        Levels (n_samples, n_targets); probabilities of each class (n_samples, n_classes), rows
        summing to 1, two columns for "binary"; probability of each label (n_samples, n_labels).
    """
    if kind == "regression":
        return output
    if kind == "multiclass":
        return torch.softmax(output, 1)
    positive = torch.sigmoid(output)
    return torch.cat([1 - positive, positive], 1) if kind == "binary" else positive


def balanced_weight(kind: str, target: Tensor, n_classes: int) -> Tensor | None:
    """Class weights n / (n_classes * count), which average 1 over the training rows.

    Parameters
    ----------
    kind : str
        Kind of target; None is returned for "regression".
    target : Tensor
        Training targets: levels or 0/1 labels, shape (n_samples, n_out); for classes codes, shape
        (n_samples,).
    n_classes : int
        Number of classes ("multiclass"); a class without rows gets the weight of one row.

    Returns
    -------
    Tensor or None
        Shape (n_classes,); for "multilabel" (2, n_labels): of the absent and the present label.
    """
    if kind == "regression":
        return None
    if kind == "multilabel":
        present = target.sum(0)
        counts = torch.stack([target.shape[0] - present, present])
    else:
        counts = torch.bincount(target, minlength=2 if kind == "binary" else n_classes)
    return (target.shape[0] / (counts.shape[0] * counts.clamp_min(1))).to(torch.float32)


def initial_bias(
    kind: str, target: Tensor, n_classes: int, class_weight: Tensor | None = None
) -> Tensor:
    """Output bias of a head that starts at the training mean, or the smoothed log-odds.

    Parameters
    ----------
    kind : str
        Kind of target.
    target : Tensor
        Training targets as for `balanced_weight`.
    n_classes : int
        Number of classes ("multiclass").
    class_weight : Tensor, optional
        From `balanced_weight`; shifts the log-odds as it shifts the loss.

    Returns
    -------
    Tensor, shape (n_out,)
        Mean level; log-odds with half a row added to each class.
    """
    if kind == "regression":
        return target.double().mean(0).to(target.dtype)
    if kind == "multiclass":
        counts = torch.bincount(target, minlength=n_classes) + 0.5
        if class_weight is not None:
            counts = counts * class_weight
        return torch.log(counts / counts.sum()).to(torch.float32)
    values = target[:, None] if kind == "binary" else target
    present = values.to(torch.float32).sum(0)
    odds = (present + 0.5) / (target.shape[0] - present + 0.5)
    if class_weight is not None:
        odds = odds * class_weight[1] / class_weight[0]
    return torch.log(odds)
