"""AdamW's step against torch's optimiser."""

import copy
import importlib
import sys

import pytest
import torch
from torch import nn

from m1pipe.models.kernels import EagerAdamW
from m1pipe.training.optimizer import adamw_step

GOOD, BAD = torch.zeros(()), torch.ones(())


def _optimizer(
    module: nn.Module, kind: type[torch.optim.AdamW] = torch.optim.AdamW
) -> torch.optim.AdamW:
    groups = [
        {"params": [module[0].weight], "weight_decay": 0.1, "lr": 0.02},
        {"params": [module[0].bias, *module[2].parameters()], "betas": (0.8, 0.99), "eps": 1e-6},
    ]
    return kind(groups, lr=0.01, weight_decay=0.0, fused=True)


def _pair() -> tuple[nn.Module, torch.optim.AdamW, nn.Module, torch.optim.AdamW]:
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    theirs = copy.deepcopy(ours)
    return ours, _optimizer(ours, EagerAdamW), theirs, _optimizer(theirs)


def _give_gradients(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def _same(one: nn.Module, a: torch.optim.AdamW, two: nn.Module, b: torch.optim.AdamW) -> None:
    for ours, theirs in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    mine, other = a.state_dict(), b.state_dict()
    assert mine["param_groups"] == other["param_groups"]
    assert mine["state"].keys() == other["state"].keys()
    for k, state in mine["state"].items():
        assert state.keys() == other["state"][k].keys()
        for name, value in state.items():
            assert torch.equal(value, other["state"][k][name]), name
            assert value.dtype == other["state"][k][name].dtype


def test_steps_are_those_of_torch_to_the_bit() -> None:
    ours, a, theirs, b = _pair()
    for step in range(5):
        for module in (ours, theirs):
            _give_gradients(module, step)
            if step < 3:
                module[2].bias.grad = None  # its state begins later
        a.param_groups[1]["lr"] = b.param_groups[1]["lr"] = 0.01 / (1 + step)
        adamw_step(a, GOOD)
        b.step()
    assert len(a.state) == 4 and a.state[ours[2].bias]["step"] == 2
    _same(ours, a, theirs, b)


def test_a_bad_step_changes_neither_weights_nor_state_and_the_next_goes_on() -> None:
    ours, a, theirs, b = _pair()
    for step in range(3):
        for module in (ours, theirs):
            _give_gradients(module, step)
        adamw_step(a, GOOD)
        b.step()
        ours[0].weight.grad.fill_(torch.nan)
        adamw_step(a, BAD)
    _same(ours, a, theirs, b)


def test_state_goes_back_and_forth_between_torch_and_here() -> None:
    ours, a, theirs, b = _pair()
    for module in (ours, theirs):
        _give_gradients(module, 0)
    adamw_step(a, GOOD)
    b.load_state_dict(copy.deepcopy(a.state_dict()))
    theirs.load_state_dict(ours.state_dict())
    b.step()
    adamw_step(a, GOOD)
    _same(ours, a, theirs, b)


def test_no_step_asks_for_torchs_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    module = nn.Linear(2, 2)
    optimizer = EagerAdamW(module.parameters(), fused=True)
    optimizer.zero_grad()
    _give_gradients(module, 0)
    adamw_step(optimizer, GOOD)
    optimizer.load_state_dict(optimizer.state_dict())
    with pytest.raises(ImportError, match="_dynamo"):
        importlib.import_module("torch._dynamo")
