"""Rows with missing levels, taken apart into what a network sees and what is known."""

import torch
from torch import Tensor


def see_through(x: Tensor, means: Tensor, codes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Filled rows, and which of their levels are known.

    Parameters
    ----------
    x : Tensor, shape (n_samples, n_genes)
        NaN where a level is missing.
    means : Tensor, shape (n_classes, n_genes)
        What missing levels of each class stand at; one class where the model is not conditional.
    codes : Tensor of int, shape (n_samples,), or None
        Class of each sample, for a conditional model.

    Returns
    -------
    filled : Tensor, shape (n_samples, n_genes)
    known : Tensor of bool, shape (n_samples, n_genes)
    """
    known = ~torch.isnan(x)
    return torch.where(known, x, means if codes is None else means[codes]), known
