"""Feed-forward heads: the network, its loss per sample, and where its output bias starts.

Kinds of target: "regression" (levels), "binary" (one log-odds for the second class),
"multiclass" (one logit a class), "multilabel" (one log-odds a label).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m1pipe.models.linear import Linear
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
            self.hidden = MLP(n_in, widths, activation="relu", dropout=dropout)
            self.output = Linear(self.hidden.n_out, n_out)
        self.linear: Linear | None = None
        if linear:
            self.linear = _zero_linear(n_in, n_out)

    def forward(self, x: Tensor) -> Tensor:
        """Levels or logits, shape (n_samples, n_out), of inputs of shape (n_samples, n_in)."""
        out = None if self.linear is None else self.linear(x)
        if self.hidden is not None and self.output is not None:
            added = self.output(self.hidden(x))
            out = added if out is None else out + added
        assert out is not None
        found: Tensor = out
        return found


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


def head_loss(
    kind: str, output: Tensor, target: Tensor, class_weight: Tensor | None = None
) -> Tensor:
    """Loss of each sample.

    Parameters
    ----------
    kind : str
        Kind of target.
    output : Tensor, shape (n_samples, n_out)
        What the head returns.
    target : Tensor
        Levels or 0/1 labels, shape (n_samples, n_out); for classes codes, shape (n_samples,).
    class_weight : Tensor, optional
        From `balanced_weight`.

    Returns
    -------
    Tensor, shape (n_samples,)
        Squared error averaged over the targets; cross-entropy in nats, for several labels
        averaged over them.
    """
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
        Training targets as for `head_loss`.
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
        Training targets as for `head_loss`.
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
