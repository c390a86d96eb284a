"""Learning rates and weight decay of a model that starts at its PCA.

Every layer is stepped in proportion to its natural scale, so that one rate fits layers whose
weights differ a hundredfold, and is drawn back to the start by the same share in every step. The
fewer the training rows, the more it is drawn: what a few hundred samples cannot support decays,
and the PCA is left.
"""

from typing import Any

from torch import Tensor, nn

from m1pipe.config import ModelConfig, TrainingConfig
from m1pipe.models.vae import VAEModule

NETWORK_RATE = 10.0  # the linear maps start close to their goal, networks far from it
BIAS_RATE = 10.0
DECAY_ROWS = 15.0
DECAY_BOUNDS = (1e-4, 0.1)  # of a step


def default_weight_decay(model: ModelConfig, training: TrainingConfig, n_samples: int) -> float:
    """Weight decay for a training set of this size, where left open.

    A step at the learning rate takes away `DECAY_ROWS` / n_samples of the weights.
    """
    if training.weight_decay is not None:
        return training.weight_decay
    if not model.starts_at_pca:
        return 0.0
    low, high = DECAY_BOUNDS
    return min(max(DECAY_ROWS / n_samples, low), high) / training.lr


def parameter_groups(module: VAEModule, training: TrainingConfig) -> list[dict[str, Any]] | None:
    """Groups for the optimiser; None, for the ordinary ones, where the model has no PCA start.

    Parameters
    ----------
    module : VAEModule
        Started already.
    training : TrainingConfig
        With its weight decay settled.

    Returns
    -------
    list of dict or None
        A group a matrix, with rate lr * scale and decay weight_decay / scale, then one of
        everything else, without decay.
    """
    if not module.config.starts_at_pca:
        return None
    groups: list[dict[str, Any]] = []
    for weight, scale in _scales(module):
        rate, decay = training.lr * scale, (training.weight_decay or 0.0) / scale
        groups.append({"params": [weight], "lr": rate, "weight_decay": decay})
    rest = [p for p in module.parameters() if p.requires_grad and p.ndim == 1]
    return [*groups, {"params": rest, "lr": training.lr * BIAS_RATE}]


def _scales(module: VAEModule) -> list[tuple[Tensor, float]]:
    """Trained matrices, each with the scale of a step at rate 1."""
    found = []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear) and layer.weight.requires_grad:
            scale = NETWORK_RATE * layer.in_features**-0.5
            if name in ("mu_head", "logvar_head") and not len(module.encoder):
                assert module.skip_encoder is not None
                scale = max(
                    float(module.skip_encoder.weight[:, : module.n_genes].square().mean().sqrt()),
                    1e-12,
                )
            found.append((layer.weight, scale))
    return found
