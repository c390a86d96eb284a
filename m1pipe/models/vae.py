"""The variational autoencoder and its objective."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m1pipe.config import ModelConfig
from m1pipe.models.count_likelihoods import COUNT_LIKELIHOODS, CountInputs, library_size
from m1pipe.models.kernels import Linear
from m1pipe.models.likelihoods import Gaussian, make_likelihood
from m1pipe.models.mlp import MLP, activation_layer, evaluating

LOGVAR_BOUNDS = (-12.0, 4.0)
SMALL_SET = 2000
NARROW_SET, DEEP_SET = 500, 1000


class VAEModule(nn.Module):
    """Encoder genes -> (mu, logvar) and decoder z -> likelihood parameters.

    mu and logvar are linear in the last hidden layer (unless the configuration asks for another
    latent activation, for parity). With `linear_skip` a linear map of the genes is added to mu
    and a linear map of z to the output, and the networks start as zero beside them; where they
    are to hold a PCA, these maps and the noise of the genes are not trained.

    A conditional model is given the class of every sample, one-hot, beside the genes and beside
    the latents (Sohn, Lee & Yan 2015, Advances in Neural Information Processing Systems 28). Where
    the classes are batches (`config.batch`) only the decoder is given them, and -1, an unknown
    batch, stands for all of them by their shares.

    Parameters
    ----------
    n_genes : int
        Number of genes p.
    config : ModelConfig
        Shape, likelihood and beta.
    hidden : sequence of int, optional
        Encoder widths that stand in for `config.hidden`, which may be left open there.
    n_classes : int
        Number of classes of a conditional model; 0 for any other.

    Raises
    ------
    ValueError
        If the widths of the hidden layers are given nowhere.
    """

    def __init__(
        self,
        n_genes: int,
        config: ModelConfig,
        *,
        hidden: Sequence[int] | None = None,
        n_classes: int = 0,
    ) -> None:
        super().__init__()
        widths = config.hidden if hidden is None else tuple(hidden)
        if widths is None:
            raise ValueError("hidden: expected layer widths in the configuration or as argument")
        back = widths[::-1] if config.decoder_hidden is None else config.decoder_hidden
        self.config = config
        self.n_genes = n_genes
        self.n_classes = n_classes
        n_in = n_genes + (0 if config.batch else n_classes)
        n_back = config.n_latent + n_classes
        self.batch_shares: Tensor
        if config.batch:
            self.register_buffer("batch_shares", torch.full((n_classes,), 1 / max(n_classes, 1)))
        self.encoder = _trunk(n_in, widths, config)
        self.mu_head = Linear(self.encoder.n_out, config.n_latent)
        self.logvar_head = Linear(self.encoder.n_out, config.n_latent)
        self.latent_activation = activation_layer(config.latent_activation)
        self.decoder = _trunk(n_back, back, config)
        self.likelihood = make_likelihood(config.likelihood, n_genes)
        n_out = n_genes * self.likelihood.n_outputs
        self.output = Linear(self.decoder.n_out, n_out)
        self.output_activation = activation_layer(config.output_activation)
        self.of_counts = isinstance(self.likelihood, COUNT_LIKELIHOODS)
        self.inputs = CountInputs(n_genes) if self.of_counts else nn.Identity()
        self.skip_encoder = Linear(n_in, config.n_latent) if config.linear_skip else None
        self.skip_decoder = Linear(n_back, n_out) if config.linear_skip else None
        if config.linear_skip:
            zero_layer(self.mu_head)
            zero_layer(self.output)
        if config.starts_at_pca:
            for held in (self.skip_encoder, self.skip_decoder, self.likelihood):
                held.requires_grad_(False)  # type: ignore[union-attr]

    @property
    def n_parameters(self) -> int:
        """Number of trained values; those of a PCA that is held come on top (`n_held`)."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @property
    def n_held(self) -> int:
        """Number of values that are set from the training rows and not trained."""
        return sum(p.numel() for p in self.parameters() if not p.requires_grad)

    def encode(self, x: Tensor, codes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and natural-log variance of the approximate posterior.

        Parameters
        ----------
        x : Tensor, shape (n_samples, n_genes)
            Levels after the per-gene transform.
        codes : Tensor of int, shape (n_samples,), optional
            Class of each sample; a conditional model needs it.

        Returns
        -------
        mu, logvar : Tensor, shape (n_samples, n_latent)
            In the type of `x`, also where the products are taken in bf16.

        Raises
        ------
        ValueError
            If a conditional model is not given classes.
        """
        seen = self._seen(x, codes)
        h = self.encoder(seen)
        return self._mu(seen, h), self.logvar_head(h).to(x.dtype).clamp(*LOGVAR_BOUNDS)

    def encode_mu(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """Mean of the approximate posterior alone, shape (n_samples, n_latent)."""
        seen = self._seen(x, codes)
        return self._mu(seen, self.encoder(seen))

    def decode(
        self, z: Tensor, codes: Tensor | None = None, library: Tensor | None = None
    ) -> Tensor:
        """Likelihood parameters `eta` of each gene.

        Parameters
        ----------
        z : Tensor, shape (n_samples, n_latent)
        codes : Tensor of int, shape (n_samples,), optional
            Class of each sample; a conditional model needs it.
        library : Tensor, shape (n_samples, 1), optional
            Total count of each sample, for a likelihood of counts. Left out: a typical
            one.

        Returns
        -------
        Tensor, shape (n_samples, n_genes) or `n_outputs` of the likelihood times as wide
        """
        seen = self._with_class(z, codes)
        eta = self.output(self.decoder(seen)).to(z.dtype)
        if self.skip_decoder is not None:
            eta = eta + self.skip_decoder(seen)
        eta = self.output_activation(eta).to(z.dtype)
        return self._with_depth(eta, library) if self.of_counts else eta

    def forward(self, x: Tensor, codes: Tensor | None = None) -> Tensor:
        """Likelihood parameters at the posterior mean, shape (n_samples, n_genes)."""
        return self.decode(self.encode_mu(x, codes), codes, self.library(x))

    def library(self, x: Tensor) -> Tensor | None:
        """Total count of each sample, shape (n_samples, 1); None but for counts."""
        return library_size(x) if self.of_counts else None

    def expected_inputs(self, eta: Tensor, library: Tensor | None) -> Tensor:
        """What the likelihood expects of the first layer's inputs, shape (n_samples, n_genes).

        Parameters
        ----------
        eta : Tensor
            From `decode`.
        library : Tensor, shape (n_samples, 1), or None
            For counts.
        """
        if isinstance(self.inputs, CountInputs) and library is not None:
            return self.inputs.expected(self.likelihood, eta, library)
        return self.likelihood.mean(eta)

    def _with_depth(self, eta: Tensor, library: Tensor | None) -> Tensor:
        """Log expected counts: each gene's share of the library, times its size."""
        assert isinstance(self.inputs, CountInputs)
        depth = self.inputs.log_library[0] if library is None else torch.log(library)
        shares = torch.log_softmax(eta[:, : self.n_genes], 1)
        return torch.cat([shares + depth, eta[:, self.n_genes :]], 1)

    def _seen(self, x: Tensor, codes: Tensor | None) -> Tensor:
        """What the encoder sees: the genes, and any class but a batch."""
        genes: Tensor = self.inputs(x)
        return genes if self.config.batch else self._with_class(genes, codes)

    def _with_class(self, values: Tensor, codes: Tensor | None) -> Tensor:
        """Genes or latents, and the class of each sample, one-hot, beside them."""
        if not self.n_classes:
            return values
        if codes is None and self.config.batch:
            codes = torch.full((len(values),), -1, device=values.device)
        if codes is None:
            raise ValueError("a conditional model needs the class of each sample")
        told = F.one_hot(codes.clamp_min(0), self.n_classes).to(values.dtype)
        if self.config.batch:
            told = torch.where(codes[:, None] < 0, self.batch_shares.to(values.dtype), told)
        return torch.cat([values, told], 1)

    def _mu(self, seen: Tensor, h: Tensor) -> Tensor:
        """Posterior mean from what the encoder sees and the last hidden layer."""
        mu = self.mu_head(h).to(seen.dtype)
        if self.skip_encoder is not None:
            mu = mu + self.skip_encoder(seen)
        return self.latent_activation(mu).to(seen.dtype)


def default_widths(config: ModelConfig, n_samples: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Widths of encoder and decoder for a training set of this size, where left open.

    One layer, narrower for a small set. A model that starts at its PCA has a linear encoder
    below `DEEP_SET` samples, where a network beside it gained nothing.
    """
    if config.hidden is not None:
        hidden, back = config.hidden, config.hidden[::-1]
    elif config.starts_at_pca:
        hidden = () if n_samples < DEEP_SET else (512,)
        back = (128,) if n_samples < NARROW_SET else (512,)
    else:
        hidden = back = (128,) if n_samples < SMALL_SET else (512,)
    return hidden, back if config.decoder_hidden is None else config.decoder_hidden


def encode_mean(module: VAEModule, x: Tensor, codes: Tensor | None = None) -> Tensor:
    """Latent means in evaluation mode and without gradients, shape (n_samples, n_latent)."""
    with evaluating(module), torch.no_grad():
        return module.encode_mu(x, codes)


def network_inputs(module: VAEModule, X: np.ndarray) -> np.ndarray:
    """What the first layer sees of rows, shape (n_samples, n_genes): of counts their logarithms."""
    device = next(module.parameters()).device
    with torch.no_grad():
        seen: np.ndarray = module.inputs(torch.from_numpy(X).to(device)).cpu().numpy()
    return seen


def decode_mean(
    module: VAEModule, z: Tensor, codes: Tensor | None = None, library: Tensor | None = None
) -> Tensor:
    """Expected levels given latents, in evaluation mode and without gradients.

    Parameters
    ----------
    module : VAEModule
        Left in the mode it was in.
    z : Tensor, shape (n_samples, n_latent)
        Latents.
    codes : Tensor of int, shape (n_samples,), optional
        Class of each sample; a conditional model needs it.
    library : Tensor, shape (n_samples, 1), optional
        Total count of each sample, for a likelihood of counts.

    Returns
    -------
    Tensor, shape (n_samples, n_genes)
        On the scale after the per-gene transform.
    """
    with evaluating(module), torch.no_grad():
        return module.likelihood.mean(module.decode(z, codes, library))


def kl_per_unit(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence of N(mu, exp(logvar)) from N(0, 1), per sample and latent unit.

    Parameters
    ----------
    mu, logvar : Tensor, shape (n_samples, n_latent)
        Mean and natural-log variance of the approximate posterior.

    Returns
    -------
    Tensor, shape (n_samples, n_latent)
        In nats; >= 0, and 0 exactly where mu = 0 and logvar = 0.

    Raises
    ------
    ValueError
        If the shapes differ.

    References
    ----------
    Kingma & Welling 2014, arXiv:1312.6114, appendix B.
    """
    if mu.shape != logvar.shape:
        raise ValueError(f"mu {tuple(mu.shape)} and logvar {tuple(logvar.shape)} differ in shape")
    return 0.5 * (mu.square() + torch.expm1(logvar) - logvar)


@dataclass(frozen=True)
class PosteriorNoise:
    """Standard normal noise of the rows at hand, for draws from the posterior.

    Attributes
    ----------
    generator : torch.Generator or None
        On the device of the rows; None is torch's own.
    part : (int, int) or None
        First row and number of rows of the whole batch, where these are a part of it; so that
        each row gets the noise that it would get in the whole batch.
    values : Tensor, shape (n_samples, n_latent), or None
        Drawn already; then the generator is left alone.
    """

    generator: torch.Generator | None = None
    part: tuple[int, int] | None = None
    values: Tensor | None = None

    @property
    def n_rows(self) -> int:
        """Rows of the whole batch."""
        assert self.part is not None
        return self.part[1]

    def like(self, mu: Tensor) -> Tensor:
        """Noise of the shape (n_samples, n_latent), type and device of `mu`."""
        if self.values is not None:
            return self.values
        first, n = self.part or (0, len(mu))
        size = (n, mu.shape[1])
        noise = torch.randn(size, generator=self.generator, dtype=mu.dtype, device=mu.device)
        return noise[first : first + len(mu)]


def vae_loss(
    module: VAEModule,
    x: Tensor,
    *,
    beta: float | Tensor,
    codes: Tensor | None = None,
    known: Tensor | None = None,
    noise: PosteriorNoise = PosteriorNoise(),
) -> dict[str, Tensor]:
    """Negative evidence lower bound of each sample, and its terms.

    At beta = 0 the module is a plain autoencoder: z = mu, no noise is drawn and logvar is not
    computed, so it gets no gradient.

    Parameters
    ----------
    module : VAEModule
        Used in the mode it is in.
    x : Tensor, shape (n_samples, n_genes)
        Levels after the per-gene transform.
    beta : float or Tensor of one value
        Weight of the KL divergence; a tensor is not 0.
    codes : Tensor of int, shape (n_samples,), optional
        Class of each sample; a conditional model needs it.
    known : Tensor of bool, shape (n_samples, n_genes), optional
        Levels that are not missing: the others have no part in the likelihood, so that the bound
        is that of the levels that are there. Left out: all.
    noise : PosteriorNoise
        Of the posterior.

    Returns
    -------
    dict of Tensor, shape (n_samples,)
        "reconstruction" (minus the log-likelihood, summed over genes, nats), "kl" (summed over
        latent units, nats; 0 at beta = 0) and "loss" = reconstruction + beta * kl, where each
        unit's share in the latter is at least the configuration's free bits.

    References
    ----------
    Kingma & Welling 2014, arXiv:1312.6114, equation 10; with missing levels Nazabal et al. 2020,
    Pattern Recognit. 107:107501, section 3.
    """
    if not isinstance(beta, Tensor) and beta == 0:
        reconstruction = _reconstruction(module, x, module.encode_mu(x, codes), codes, known)
        kl = torch.zeros_like(reconstruction)
        return {"loss": reconstruction, "reconstruction": reconstruction, "kl": kl}
    mu, logvar = module.encode(x, codes)
    z = mu + torch.exp(0.5 * logvar) * noise.like(mu)
    reconstruction = _reconstruction(module, x, z, codes, known)
    units = kl_per_unit(mu, logvar)
    kl = units.sum(1)
    free_bits = module.config.free_bits
    penalty = units.clamp_min(free_bits).sum(1) if free_bits else kl
    return {"loss": reconstruction + beta * penalty, "reconstruction": reconstruction, "kl": kl}


def vae_objective(
    module: nn.Module,
    batch: tuple[Tensor, ...],
    beta: float,
    noise: PosteriorNoise,
    *,
    means: Tensor | None = None,
) -> dict[str, Tensor]:
    """`vae_loss` in the form that the training loop calls.

    Parameters
    ----------
    module : VAEModule
    batch : tuple of Tensor
        Levels, any classes, row numbers.
    beta, noise
        As for `vae_loss`.
    means : Tensor, shape (n_classes, n_genes), optional
        Imputation means: levels that are NaN are missing. Left out: none is.

    Returns
    -------
    dict of Tensor, shape (n_samples,)
    """
    vae, x, known = cast(VAEModule, module), batch[0], None
    codes = batch[1] if vae.n_classes else None
    if means is not None:
        x, known = mask_missing(x, means, codes)
    return vae_loss(vae, x, beta=beta, codes=codes, known=known, noise=noise)


def mask_missing(x: Tensor, means: Tensor, codes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rows whose missing levels are imputed by means, and the mask of those that are known.

    Parameters
    ----------
    x : Tensor, shape (n_samples, n_genes)
        NaN where a level is missing.
    means : Tensor, shape (n_classes, n_genes)
        Imputation means of each class; one class where the model is not conditional.
    codes : Tensor of int, shape (n_samples,), or None
        Class of each sample, for a conditional model.

    Returns
    -------
    filled : Tensor, shape (n_samples, n_genes)
    known : Tensor of bool, shape (n_samples, n_genes)
    """
    known = ~torch.isnan(x)
    return torch.where(known, x, means if codes is None else means[codes]), known


def initialize_output_bias(module: VAEModule, mean: Tensor) -> None:
    """Start the output at the mean of each gene, shape (n_genes,), on the transformed scale.

    Left alone where an output activation stands between the bias and the mean.
    """
    if module.config.output_activation == "identity":
        with torch.no_grad():
            module.output.bias.copy_(module.likelihood.link(mean))


def _reconstruction(
    module: VAEModule, x: Tensor, z: Tensor, codes: Tensor | None, known: Tensor | None
) -> Tensor:
    """Minus the log-likelihood of each sample, summed over the genes whose levels are known."""
    eta = module.decode(z, codes, module.library(x))
    if known is None and isinstance(module.likelihood, Gaussian):
        return module.likelihood.negative_log_likelihood(x, eta)
    return -known_only(module.likelihood.log_prob(x, eta), known).sum(1)


def known_only(values: Tensor, known: Tensor | None) -> Tensor:
    """Values with 0 where a level is missing, of their shape; themselves where all are known."""
    return values if known is None else torch.where(known, values, 0.0)


def zero_layer(layer: nn.Linear) -> None:
    """Set weight and bias to zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


def _trunk(n_in: int, widths: Sequence[int], config: ModelConfig) -> MLP:
    """Hidden layers as the configuration wants them."""
    return MLP(
        n_in,
        widths,
        activation=config.activation,
        batch_norm=config.batch_norm,
        dropout=config.dropout,
    )
