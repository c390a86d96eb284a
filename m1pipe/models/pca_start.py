"""Initialisation of a VAE's linear paths by probabilistic PCA of its training rows."""

import torch
from torch import Tensor

from m1pipe.models.likelihoods import SIGMA_BOUNDS, Gaussian
from m1pipe.models.vae import VAEModule, zero_layer

PSEUDO_ROWS = 10


def noise_variance(
    residual_variance: Tensor, gene_variance: Tensor, *, n_samples: int, n_components: int
) -> Tensor:
    """Variance of each gene about the components, as rows that were not fitted will show it.

    Components take up n_components / n_samples of the noise of the rows that they are fitted to,
    which is put back; and a gene that is all but explained, or hardly expressed, is drawn towards
    the mean variance by `PSEUDO_ROWS` rows.

    Parameters
    ----------
    residual_variance, gene_variance : Tensor, shape (n_genes,)
        Variance of the training rows about the components, and about the mean.
    n_samples, n_components : int
        Training rows and axes.

    Returns
    -------
    Tensor, shape (n_genes,)
    """
    grown = residual_variance * n_samples / max(n_samples - n_components, 1)
    prior = gene_variance.mean()
    drawn = (n_samples * grown + PSEUDO_ROWS * prior) / (n_samples + PSEUDO_ROWS)
    return drawn.clamp(SIGMA_BOUNDS[0] ** 2, SIGMA_BOUNDS[1] ** 2)


@torch.no_grad()
def initialize_from_pca(
    module: VAEModule,
    components: Tensor,
    variances: Tensor,
    residual_variance: Tensor | float,
    *,
    mean: Tensor | None = None,
    class_shift: Tensor | None = None,
    shares: Tensor | None = None,
) -> None:
    """Start the linear paths at the probabilistic-PCA solution, the networks at zero.

    With beta > 0 mu starts at the exact posterior mean of the factor model with loadings W and
    noise psi, `(I + W' psi^-1 W)^-1 W' psi^-1 (x - mean)`, the latents turned so that its
    posterior covariance is diagonal, and logvar at the log of that diagonal. With beta = 0 the
    latents start as whitened principal components and the reconstruction is that of the PCA.

    Parameters
    ----------
    module : VAEModule
        With linear paths; changed in place.
    components : Tensor, shape (k, n_genes)
        Orthonormal principal axes, k <= n_latent; further units start at zero.
    variances : Tensor, shape (k,)
        Variance of the training rows along each axis.
    residual_variance : Tensor, shape (n_genes,), or float
        Variance of each gene that the axes leave over, as from `noise_variance`.
    mean : Tensor, shape (n_genes,), optional
        Mean of the training rows on the transformed scale; zero where not given.
    class_shift : Tensor, shape (n_classes, n_genes), optional
        What each class's mean lies off that mean; a conditional model needs it. Its components
        are those of the rows about the mean of their class.
    shares : Tensor, shape (n_classes,), optional
        Of the training rows, where the classes are batches that the encoder is not told: it starts
        at the posterior mean of the factor model in which they are unknown.

    Raises
    ------
    ValueError
        If the module has no linear paths, or another likelihood than a normal one.

    References
    ----------
    Tipping & Bishop 1999, J. R. Stat. Soc. B 61:611, equations 6-8.
    """
    skip_encoder, skip_decoder = module.skip_encoder, module.skip_decoder
    if skip_encoder is None or skip_decoder is None or not module.config.starts_at_pca:
        raise ValueError(
            "a PCA start needs linear_skip, a Gaussian likelihood and no outer activations"
        )
    k = components.shape[0]
    psi = torch.as_tensor(residual_variance, dtype=torch.float64).expand(module.n_genes).cpu()
    axes, spread = components.double().cpu(), variances.double().cpu()
    centre = torch.zeros(module.n_genes) if mean is None else mean.double().cpu()
    if module.config.beta == 0:
        weight, loadings = axes / spread.sqrt()[:, None], axes.T * spread.sqrt()
        logvar = torch.zeros(k)
    else:
        weight, loadings, logvar = factor_posterior(axes, spread, psi)
    if class_shift is not None and shares is not None:
        shifts = class_shift.double().cpu().T * shares.double().sqrt()
        noise, prior = (psi, 1.0) if module.config.beta > 0 else (torch.ones_like(psi), 1e-6)
        weight, found = unknown_shift_posterior(loadings, shifts, noise, prior)
        logvar = found if module.config.beta > 0 else logvar
    for layer in (skip_encoder, skip_decoder, module.mu_head, module.logvar_head, module.output):
        zero_layer(layer)
    skip_encoder.weight[:k, : module.n_genes] = weight.to(skip_encoder.weight)
    skip_encoder.bias[:k] = -(weight @ centre.double()).to(skip_encoder.bias)
    skip_decoder.weight[:, :k] = loadings.to(skip_decoder.weight)
    skip_decoder.bias.copy_(centre)
    if class_shift is not None:
        shift = class_shift.double().cpu().T
        if shares is None:
            skip_encoder.weight[:k, module.n_genes :] = -(weight @ shift).to(skip_encoder.weight)
        skip_decoder.weight[:, module.config.n_latent :] = shift.to(skip_encoder.weight)
    module.logvar_head.bias[:k] = logvar.to(module.logvar_head.bias)
    if isinstance(module.likelihood, Gaussian):
        scale = psi.sqrt() if module.config.likelihood == "gaussian" else psi.mean().sqrt()[None]
        module.likelihood.set_scale(scale.to(skip_encoder.weight))


def unknown_shift_posterior(
    loadings: Tensor, shifts: Tensor, residual_variance: Tensor, prior: float
) -> tuple[Tensor, Tensor]:
    """Posterior of the latents of a factor model whose samples have an unknown shift as well.

    Parameters
    ----------
    loadings : Tensor, shape (n_genes, k)
        Of latents that are N(0, I).
    shifts : Tensor, shape (n_genes, n_shifts)
        Loadings of further such latents, which nobody asks for.
    residual_variance : Tensor, shape (n_genes,)
    prior : float
        Precision of the latents' prior: 1, or near 0 for least squares.

    Returns
    -------
    weight : Tensor, shape (k, n_genes)
        Map from centred genes to the posterior mean of the first k.
    logvar : Tensor, shape (k,)
        Natural log of their posterior variances.
    """
    both = torch.cat([loadings, shifts], 1)
    scaled = (both / residual_variance[:, None]).T
    covariance = torch.linalg.inv(scaled @ both + prior * torch.eye(len(scaled)).to(both))
    k = loadings.shape[1]
    return (covariance @ scaled)[:k], covariance.diagonal()[:k].log()


def factor_posterior(
    components: Tensor, variances: Tensor, residual_variance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Posterior of the factor model whose loadings are scaled principal axes.

    Parameters
    ----------
    components : Tensor, shape (k, n_genes)
        Orthonormal principal axes.
    variances : Tensor, shape (k,)
        Variance along each axis; the mean residual variance is taken off it (at least a
        twentieth of that is left).
    residual_variance : Tensor, shape (n_genes,)
        Noise variance psi of each gene.

    Returns
    -------
    weight : Tensor, shape (k, n_genes)
        Map from centred genes to the posterior mean.
    loadings : Tensor, shape (n_genes, k)
        Map from latents to genes, turned so that loadings' psi^-1 loadings is diagonal.
    logvar : Tensor, shape (k,)
        Natural log of the posterior variances.
    """
    noise = residual_variance.mean()
    loadings = components.T * (variances - noise).clamp_min(0.05 * noise).sqrt()
    precision, turn = torch.linalg.eigh(loadings.T @ (loadings / residual_variance[:, None]))
    precision, turn = precision.flip(0), turn.flip(1)
    loadings = loadings @ turn
    weight = (loadings / residual_variance[:, None]).T / (1 + precision)[:, None]
    return weight, loadings, -torch.log1p(precision)
