"""What steps found, read many at once as on a card, against one by one."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from m1pipe.config import ModelConfig, TrainingConfig
from m1pipe.data.batches import MemoryBatches
from m1pipe.errors import InputError, StoppedBySignalError
from m1pipe.models.vae import VAEModule, vae_objective
from m1pipe.training import loop as loop_module
from m1pipe.training.batches import ResidentFeed
from m1pipe.training.history import History, Observer, explain_rows
from m1pipe.training.loop import STEPS_A_READING, Loop, fit
from m1pipe.training.signals import StopFlag

N_STEPS = 6  # of an epoch: 83 rows in batches of 16
CONFIG = {"epochs": 4, "batch_size": 16, "schedule": "cosine", "clip": 0.5, "ema": 0.9, "lr": 0.05}


def _levels() -> Tensor:
    return torch.randn(83, 12, generator=torch.Generator().manual_seed(0))


def _feed(x: Tensor, batch_size: int = 16) -> ResidentFeed:
    return ResidentFeed((x,), np.arange(len(x)), MemoryBatches((x,), batch_size, 5))


def _vae(*, batch_norm: bool = True) -> VAEModule:
    torch.manual_seed(0)
    return VAEModule(12, ModelConfig(n_latent=3, hidden=(8,), batch_norm=batch_norm))


def _trained(x: Tensor, resume: bool = False, **options: object) -> tuple[VAEModule, History]:
    module = _vae()
    history = fit(
        Loop(
            module,
            _feed(x),
            vae_objective,
            TrainingConfig(**CONFIG),
            beta=1.0,
            validation=_feed(x[:20] + 0.3, 9),
            **options,
        ),
        resume=resume,
    )
    return module, history


def _read_every(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STEPS_A_READING, "cpu", n)


def _without_seconds(history: History) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows]


def _same_weights(one: nn.Module, two: nn.Module) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name


@pytest.mark.parametrize("n", [4, N_STEPS, 1000])
def test_reading_many_steps_at_once_changes_nothing(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: tuple[list[dict], list[dict]] = ([], [])
    module, history = _trained(_levels(), observer=Observer(on_step=told[0].append))
    readings = []
    _read_every(n, monkeypatch)
    read = loop_module.read_steps
    monkeypatch.setattr(
        loop_module, "read_steps", lambda loop: (readings.append(len(loop.unread)), read(loop))
    )
    other, again = _trained(_levels(), observer=Observer(on_step=told[1].append))
    assert max(readings) == min(n, N_STEPS) and sum(readings) == 4 * N_STEPS
    _same_weights(module, other)
    assert _without_seconds(history) == _without_seconds(again)
    assert told[0] == told[1] and len(told[0]) == 4 * N_STEPS


def test_on_the_cpu_every_step_is_read_and_on_a_card_many() -> None:
    assert STEPS_A_READING["cpu"] == 1 < STEPS_A_READING["cuda"]


def _failed(module: nn.Module, x: Tensor, **settings: object) -> str:
    explain = explain_rows([f"s{i}" for i in range(83)], [f"g{j}" for j in range(12)])
    config = TrainingConfig(**{**CONFIG, **settings})
    with pytest.raises(InputError, match="non-finite") as raised:
        fit(Loop(module, _feed(x), vae_objective, config, beta=1.0, explain=explain))
    return str(raised.value)


def test_a_bad_step_is_named_and_no_later_one_changes_a_weight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = _levels()
    bad_row = _feed(x).batches.order(0)[2 * 16 + 3]  # of the third step
    x[bad_row, 7] = math.nan
    one, many = _vae(batch_norm=False), _vae(batch_norm=False)
    message = _failed(one, x)
    assert (
        f"loss at step 3 of epoch 1 (samples s{bad_row}; genes without a finite level g7)"
        in message
    )
    assert not torch.equal(one.output.weight, _vae(batch_norm=False).output.weight)
    _read_every(5, monkeypatch)
    assert _failed(many, x) == message
    _same_weights(one, many)


def test_a_bad_epoch_later_on_restores_the_best_one(monkeypatch: pytest.MonkeyPatch) -> None:
    _read_every(1000, monkeypatch)
    x, kept = _levels(), []
    module = _vae(batch_norm=False)

    def poison(row: dict) -> None:
        kept.append(module.output.weight.detach().clone())
        if row["epoch"] == 2:
            x[3] = math.inf

    config = TrainingConfig(**{**CONFIG, "ema": 0.0, "lr": 1e-3, "schedule": "constant"})
    with pytest.raises(InputError, match=r"non-finite loss at step \d of epoch 3"):
        fit(Loop(module, _feed(x), vae_objective, config, observer=Observer(on_epoch=poison)))
    assert torch.equal(module.output.weight, kept[1])


def test_a_checkpoint_holds_all_steps_that_were_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module, history = _trained(_levels())
    _read_every(4, monkeypatch)
    flag, told, path = StopFlag(), [], tmp_path / "resume.pt"

    def on_step(step: dict) -> None:
        told.append(step)
        if len(told) == N_STEPS + 3:  # told with the fourth step of the epoch
            flag.set("SIGTERM")

    with pytest.raises(StoppedBySignalError, match="in epoch 2, after step 4"):
        _trained(_levels(), checkpoint=path, stop=flag, observer=Observer(on_step=on_step))
    assert len(told) == N_STEPS + 4
    resumed, again = _trained(_levels(), checkpoint=path, resume=True)
    _same_weights(module, resumed)
    assert _without_seconds(history) == _without_seconds(again)


def test_the_validation_batch_that_is_not_finite_is_found_again() -> None:
    x, held_out = _levels(), _levels()[:20]
    held_out[_feed(held_out, 9).batches.order(0)[10], 4] = math.inf
    bad = int(_feed(held_out, 9).batches.order(0)[10])
    explain = explain_rows([f"s{i}" for i in range(83)], [f"g{j}" for j in range(12)])
    with pytest.raises(InputError, match=rf"validation loss of epoch 1 \(samples s{bad}; .* g4\)"):
        fit(
            Loop(
                _vae(batch_norm=False),
                _feed(x),
                vae_objective,
                TrainingConfig(**CONFIG),
                beta=1.0,
                validation=_feed(held_out, 9),
                explain=explain,
            )
        )
