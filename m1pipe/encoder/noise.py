"""The noise of the genes after training, from rows that were not trained on."""

import torch
from torch import Tensor

from m1pipe.models.likelihoods import Gaussian
from m1pipe.models.mlp import evaluating
from m1pipe.models.vae import VAEModule
from m1pipe.training.device import make_generator
from m1pipe.training.feed import Batches

PSEUDO_ROWS = 100
DRAWS = 4


@torch.no_grad()
def recalibrate_noise(module: VAEModule, validation: Batches, *, seed: int) -> None:
    """Set the standard deviations of a normal law to the residuals of the validation rows.

    All genes by their common ratio of squared residual to variance, and each gene by its own as
    far as the rows bear it: the common ratio counts as `PSEUDO_ROWS` rows. Posterior means and
    reconstructions do not depend on these numbers.

    Parameters
    ----------
    module : VAEModule
        Changed in place.
    validation : Batches
        Transformed rows on the module's device.
    seed : int
        Of the posterior noise.
    """
    law = module.likelihood
    if not isinstance(law, Gaussian) or law.raw_scale is None:
        return
    scale = law.log_scale().exp()
    ratio = _squared_residuals(module, validation, seed) / scale.square()
    common = ratio.mean()
    if law.raw_scale.numel() == 1:
        ratio = common[None]
    n = validation.n_rows
    law.set_scale(scale * ((PSEUDO_ROWS * common + n * ratio) / (PSEUDO_ROWS + n)).sqrt())


def _squared_residuals(module: VAEModule, validation: Batches, seed: int) -> Tensor:
    """Mean squared residual of each gene over rows and posterior draws, shape (n_genes,)."""
    total = torch.zeros(module.n_genes, device=next(module.parameters()).device)
    noise = make_generator(seed, total.device)
    with evaluating(module):
        for x, *rest in validation.epoch(0):
            codes = rest[0] if module.n_classes else None
            mu, logvar = module.encode(x, codes)
            spread = torch.exp(0.5 * logvar) if module.config.beta > 0 else torch.zeros_like(mu)
            for _ in range(DRAWS):
                z = mu + spread * torch.randn(mu.shape, generator=noise, device=mu.device)
                total += (x - module.decode(z, codes)).square().sum(0) / DRAWS
    return total / validation.n_rows
