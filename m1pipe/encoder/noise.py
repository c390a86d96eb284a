"""The noise of the genes after training, from rows that were not trained on."""

import torch
from torch import Tensor

from m1pipe.models.likelihoods import Gaussian
from m1pipe.models.mlp import evaluating
from m1pipe.models.vae import VAEModule, known_only, mask_missing
from m1pipe.training.batches import Batches
from m1pipe.training.device import make_generator

PSEUDO_ROWS = 100
DRAWS = 4


@torch.no_grad()
def recalibrate_noise(
    module: VAEModule, validation: Batches, *, seed: int, means: Tensor | None = None
) -> None:
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
    means : Tensor, shape (n_classes, n_genes), optional
        What missing levels, which are NaN, stand at; they count for nothing. Left out: there are
        none.
    """
    law = module.likelihood
    if not isinstance(law, Gaussian) or law.raw_scale is None:
        return
    scale = law.log_scale().exp()
    squares, n = _squared_residuals(module, validation, seed, means)
    if isinstance(n, Tensor):
        ratio = squares / n.clamp_min(1) / scale.square()
        common = ratio[n > 0].mean()
    else:
        ratio = squares / n / scale.square()
        common = ratio.mean()
    if law.raw_scale.numel() == 1:
        ratio, n = common[None], validation.n_rows
    law.set_scale(scale * ((PSEUDO_ROWS * common + n * ratio) / (PSEUDO_ROWS + n)).sqrt())


def _squared_residuals(
    module: VAEModule, validation: Batches, seed: int, means: Tensor | None
) -> tuple[Tensor, Tensor | int]:
    """Squared residual of each gene summed over rows, and its known levels, both (n_genes,)."""
    total = torch.zeros(module.n_genes, device=next(module.parameters()).device)
    n: Tensor | int = validation.n_rows if means is None else torch.zeros_like(total)
    noise = make_generator(seed, total.device)
    with evaluating(module):
        for x, *rest in validation.epoch(0):
            codes, known = rest[0] if module.n_classes else None, None
            if means is not None:
                x, known = mask_missing(x, means, codes)
                n = n + known.sum(0)
            mu, logvar = module.encode(x, codes)
            spread = torch.exp(0.5 * logvar) if module.config.beta > 0 else torch.zeros_like(mu)
            for _ in range(DRAWS):
                z = mu + spread * torch.randn(mu.shape, generator=noise, device=mu.device)
                squares = known_only((x - module.decode(z, codes)).square(), known)
                total += squares.sum(0) / DRAWS
    return total, n
