"""What is minimised: the losses of models, in the form that the training loop calls."""

from typing import cast

from torch import Tensor, nn

from m1pipe.models.missing import see_through
from m1pipe.models.vae import VAEModule, vae_loss
from m1pipe.training.distributed import Draw
from m1pipe.training.feed import Batch


def vae_objective(
    module: nn.Module, batch: Batch, beta: float, draw: Draw, *, means: Tensor | None = None
) -> dict[str, Tensor]:
    """Negative evidence lower bound and its terms of a batch: levels, any classes, row numbers.

    With `means`, shape (n_classes, n_genes), levels that are NaN are missing and stand at them;
    `partial` fills it in.
    """
    vae, x, known = cast(VAEModule, module), batch[0], None
    codes = batch[1] if vae.n_classes else None
    if means is not None:
        x, known = see_through(x, means, codes)
    return vae_loss(
        vae,
        x,
        beta=beta,
        codes=codes,
        known=known,
        generator=draw.generator,
        part=draw.part,
        noise=draw.noise,
    )
