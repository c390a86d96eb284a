"""Words for a loss that is not finite: which samples and genes it comes from."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Explain = Callable[[tuple[Tensor, ...], Tensor], str]
FIRST = 3


def explain_rows(
    samples: Sequence[str], genes: Sequence[str], *, some_missing: bool = False
) -> Explain:
    """A function that names the first offending samples and genes of a batch.

    Parameters
    ----------
    samples : sequence of str
        Names by the row numbers that the batches carry.
    genes : sequence of str, length n_genes
        Names of the columns of a batch's first tensor.
    some_missing : bool
        Levels that are NaN are missing, and no offence.

    Returns
    -------
    callable
        Takes a batch (its first tensor the levels, its last the row numbers) and the loss of
        each of its rows; returns text for an error message. Samples are those whose loss is not
        finite (the largest losses if all are finite); genes are those whose level is not finite
        in them, otherwise those whose level lies farthest from zero.
    """

    def explain(batch: tuple[Tensor, ...], loss: Tensor) -> str:
        x, rows = batch[0].detach().cpu(), batch[-1]
        bad = torch.nonzero(~torch.isfinite(loss.detach().cpu()))[:FIRST, 0]
        if bad.numel() == 0:
            bad = loss.detach().cpu().argsort(descending=True)[:FIRST]
        levels = x[bad].abs()
        if some_missing:
            levels = levels.nan_to_num(nan=0.0, posinf=torch.inf)
        broken = torch.nonzero(~torch.isfinite(levels).all(0))[:FIRST, 0]
        if broken.numel() == 0:
            broken = levels.amax(0).argsort(descending=True)[:FIRST]
            word = "most extreme genes"
        else:
            word = "genes without a finite level"
        who = ", ".join(samples[int(rows[i])] for i in bad)
        which = ", ".join(genes[int(j)] for j in broken)
        return f"samples {who}; {word} {which}"

    return explain
