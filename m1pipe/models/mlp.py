"""Multi-layer perceptrons, the trunk of every network, and the switch to evaluation mode."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn

from m1pipe.models.kernels import Linear, float32_products

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


def activation_layer(name: str) -> nn.Module:
    """Layer of an activation by its name in the configuration.

    Raises
    ------
    ValueError
        If the name is not a key of `ACTIVATIONS`.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}; found {name!r}")
    return ACTIVATIONS[name]()


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation that takes a training batch of one row, or of none.

    One row has no variance, so it is normalised by the running statistics, which it leaves
    unchanged; the learned scale and shift still get their gradients.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise rows, shape (n_samples, n_features)."""
        if self.training and input.shape[0] <= 1:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


class MLP(nn.Sequential):
    """Hidden layers: linear, batch norm, activation, dropout, once for each width.

    Parameters
    ----------
    n_in : int
        Width of the input.
    widths : sequence of int
        Widths of the hidden layers, first to last; none makes the identity.
    activation : str
        Key of `ACTIVATIONS`.
    batch_norm : bool
        Normalise after each linear layer.
    dropout : float
        Probability of dropping a hidden unit while training.

    Attributes
    ----------
    n_out : int
        Width of the output: the last width, or `n_in` without layers.
    """

    n_out: int

    def __init__(
        self,
        n_in: int,
        widths: Sequence[int],
        *,
        activation: str = "leaky_relu",
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        layers: list[nn.Module] = []
        for width in widths:
            layers.append(Linear(n_in, width))
            if batch_norm:
                layers.append(BatchNorm(width))
            layers.append(activation_layer(activation))
            if dropout:
                layers.append(nn.Dropout(dropout))
            n_in = width
        super().__init__(*layers)
        self.n_out = n_in


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put `module` in evaluation mode for a block, with products at full width (`kernels.py`).

    It is given its mode back afterwards.
    """
    was_training = module.training
    module.eval()
    try:
        with float32_products():
            yield
    finally:
        module.train(was_training)
