"""AdamW's step: torch's kernel and state, without what its optimiser does around every step."""

from typing import Any

import torch
from torch import Tensor

from m1pipe.models.kernels import add_to_each, fused_adamw


@torch.no_grad()
def adamw_step(optimizer: torch.optim.AdamW, bad: Tensor) -> None:
    """Change the parameters as `optimizer.step()` does, to the bit, unless something is wrong.

    The decision is taken where the parameters lie, so that nothing has to be read for it.

    Parameters
    ----------
    optimizer : AdamW
        Fused; its groups say what is stepped and how, and its state is used and kept up.
    bad : Tensor of float32, shape ()
        1 leaves parameters and state as they are; otherwise 0.

    References
    ----------
    Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2.
    """
    taken = 1 - bad
    for group in optimizer.param_groups:
        stepped = [p for p in group["params"] if p.grad is not None]
        if not stepped:
            continue
        states = [optimizer.state[p] or _start(optimizer, p) for p in stepped]
        steps = [state["step"] for state in states]
        add_to_each(steps, taken)
        fused_adamw(
            stepped,
            [p.grad for p in stepped if p.grad is not None],
            ([state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states]),
            steps,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            betas=group["betas"],
            eps=group["eps"],
            bad=bad,
        )


def _start(optimizer: torch.optim.AdamW, parameter: Tensor) -> dict[str, Any]:
    """State of a parameter before its first step."""
    state: dict[str, Any] = optimizer.state[parameter]
    state["step"] = torch.zeros((), device=parameter.device)
    state["exp_avg"] = torch.zeros_like(parameter)
    state["exp_avg_sq"] = torch.zeros_like(parameter)
    return state
