"""The law of a gene's level by its name in the configuration."""

from m1pipe.models.counts import NegativeBinomial, ZeroInflatedNegativeBinomial
from m1pipe.models.likelihoods import Bernoulli, Gaussian, LogNormal
from m1pipe.models.zeros import HurdleGaussian, ZeroInflatedLogNormal

Law = (
    Gaussian
    | LogNormal
    | Bernoulli
    | HurdleGaussian
    | ZeroInflatedLogNormal
    | NegativeBinomial
    | ZeroInflatedNegativeBinomial
)
OF_COUNTS = (NegativeBinomial, ZeroInflatedNegativeBinomial)


def make_likelihood(name: str, n_genes: int) -> Law:
    """Likelihood by its name in the configuration.

    Raises
    ------
    ValueError
        If there is no likelihood of that name.
    """
    n_scales = {"gaussian": n_genes, "gaussian_shared": 1, "gaussian_unit": 0}
    if name in n_scales:
        return Gaussian(n_scales[name])
    if name == "log_normal":
        return LogNormal()
    if name == "bernoulli":
        return Bernoulli()
    if name == "hurdle_gaussian":
        return HurdleGaussian(n_genes)
    if name == "zero_inflated_log_normal":
        return ZeroInflatedLogNormal(n_genes)
    if name == "negative_binomial":
        return NegativeBinomial(n_genes)
    if name == "zero_inflated_negative_binomial":
        return ZeroInflatedNegativeBinomial(n_genes)
    raise ValueError(f"likelihood: no law is named {name!r}")
