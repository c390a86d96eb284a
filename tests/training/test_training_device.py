import subprocess
import sys

import numpy as np
import pytest
import torch

from m1pipe.config import TrainingConfig
from m1pipe.errors import InputError
from m1pipe.training import device as device_module
from m1pipe.training.device import (
    choose_threads,
    make_generator,
    resolve_device,
    resolve_precision,
    seeded,
    threads,
    tune_allocator,
)
from m1pipe.training.optimizer import (
    Plateau,
    beta_at,
    cosine_factor,
    resolve_epochs,
    warmup_epochs,
)

CPU = torch.device("cpu")


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu") == CPU
    for name in ("tpu", "mps", "cuda:x", ""):
        with pytest.raises(InputError, match="expected auto, cpu, cuda or cuda:N"):
            resolve_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == CPU
    with pytest.raises(InputError, match="'cuda:1' asked for; this machine has 0 CUDA devices"):
        resolve_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", 0)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("name", "in_hardware", "n_parameters", "batch_size", "expected"),
    [
        ("auto", True, 10_000_000, 64, torch.bfloat16),
        ("auto", False, 10_000_000, 64, torch.float32),
        ("auto", True, 1_000_000, 64, torch.float32),
        ("auto", True, 10_000_000, 32, torch.float32),
        ("fp32", True, 10_000_000, 64, torch.float32),
        ("bf16", False, 10, 1, torch.bfloat16),
    ],
)
def test_precision_is_a_rule_of_device_and_shapes(
    name: str,
    in_hardware: bool,
    n_parameters: int,
    batch_size: int,
    expected: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device_module, "multiplies_bf16", lambda: in_hardware)
    found = resolve_precision(name, CPU, n_parameters=n_parameters, batch_size=batch_size)
    assert found == expected


def test_seeded_gives_the_global_generator_back() -> None:
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    with seeded(1):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with seeded(1):
        assert torch.equal(torch.rand(3), inside)
    first, second = (torch.rand(2, generator=make_generator(4)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_allocator_settings_are_taken() -> None:
    """In a process of its own, because the settings last."""
    script = "from m1pipe.training.device import tune_allocator; print(tune_allocator())"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.stdout.strip() in ("True", "False"), ended.stderr


def test_allocator_settings_are_silently_absent_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module.ctypes, "CDLL", lambda name: object())
    assert tune_allocator() is False


def test_plateau_matches_torch() -> None:
    config = TrainingConfig(plateau_factor=0.5, plateau_patience=2)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, eps=0)
    generator, ours = np.random.default_rng(0), Plateau()
    factors = []
    for loss in 100 + np.cumsum(generator.normal(size=60)):
        ours.update(loss, config)
        oracle.step(loss)
        assert ours.factor == optimizer.param_groups[0]["lr"]
        factors.append(ours.factor)
    assert len(set(factors)) > 3


def test_epochs_make_enough_steps() -> None:
    assert resolve_epochs(TrainingConfig(epochs=7), 5) == 7
    assert resolve_epochs(TrainingConfig(), 50) == 40
    assert resolve_epochs(TrainingConfig(), 2000) == 20
    assert resolve_epochs(TrainingConfig(), 1) == 100


def test_warm_up_rises_linearly_from_above_zero() -> None:
    config = TrainingConfig(kl_warmup=0.25)
    assert warmup_epochs(config, 40, 1.0) == 10
    assert warmup_epochs(config, 40, 0.0) == 0
    assert warmup_epochs(TrainingConfig(kl_warmup=1.0), 40, 1.0) == 39
    values = [beta_at(0.5, epoch, 4) for epoch in range(6)]
    np.testing.assert_allclose(values, [0.1, 0.2, 0.3, 0.4, 0.5, 0.5])
    assert cosine_factor(0, 10) == 1.0 and cosine_factor(10, 10) == 0.0


def test_small_steps_take_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(device_module, "_FOUND_THREADS", 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert choose_threads(500_000, 64) == 1
    assert choose_threads(150_000_000, 64) == 8
    monkeypatch.setattr(device_module, "_FOUND_THREADS", 2)  # set by hand since
    assert choose_threads(500_000, 64) == 8
    monkeypatch.setattr(device_module, "_FOUND_THREADS", 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert choose_threads(500_000, 64) == 8


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="inside"), threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise RuntimeError("inside")
    assert torch.get_num_threads() == before
