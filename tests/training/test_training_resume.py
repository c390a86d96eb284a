"""A run stopped at any step and resumed ends with the same weights, bit for bit."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from m1pipe.config import ModelConfig, TrainingConfig
from m1pipe.data.batches import MemoryBatches, StreamedBatches
from m1pipe.data.transforms import fit_gene_transform
from m1pipe.errors import InputError, M1Warning, StoppedBySignalError
from m1pipe.models.vae import VAEModule, vae_objective
from m1pipe.training.batches import ResidentFeed, StreamedFeed
from m1pipe.training.checkpoint import (
    FitState,
    load_checkpoint,
    pack_state,
    save_checkpoint,
    unpack_state,
)
from m1pipe.training.history import Observer
from m1pipe.training.loop import Loop, fit
from m1pipe.training.optimizer import start_average
from m1pipe.training.signals import StopFlag

X = np.random.default_rng(0).normal(size=(83, 12)).astype(np.float32)
N_STEPS = 6  # of an epoch: 83 rows in batches of 16, the last of 3


class _Rows:
    shape = X.shape

    def take(self, indices: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        return X[indices]


def _config(**settings: object) -> TrainingConfig:
    chosen = {"epochs": 6, "plateau_patience": 0, "lr": 0.2, "patience": 3, "seed": 5, "ema": 0.9}
    chosen |= {"schedule": "plateau", "clip": 1.0}
    return TrainingConfig(**{**chosen, "kl_warmup": 0.2, "batch_size": 16, **settings})


def _feed(kind: str = "memory") -> ResidentFeed | StreamedFeed:
    if kind == "streamed":
        streamed = StreamedBatches(_Rows(), None, 16, 5, 4 * 12 * 64)
        return StreamedFeed(streamed, fit_gene_transform("standardize", [X]), torch.device("cpu"))
    tensors = (torch.from_numpy(X),)
    return ResidentFeed(tensors, np.arange(len(X)), MemoryBatches(tensors, 16, 5))


def _run(
    checkpoint: Path | None = None, kind: str = "memory", resume: bool = False, **options: object
):
    torch.manual_seed(0)
    module = VAEModule(12, ModelConfig(n_latent=3, hidden=(8,), dropout=0.2))
    held_out = torch.from_numpy(X[:20] + 0.3)
    validation = ResidentFeed(
        (held_out,), np.arange(20), MemoryBatches((held_out,), 9, 0, shuffle=False)
    )
    config = options.pop("config", _config())
    history = fit(
        Loop(
            module,
            _feed(kind),
            vae_objective,
            config,
            beta=1.0,
            validation=validation,
            checkpoint=checkpoint,
            **options,
        ),
        resume=resume,
    )
    return module.state_dict(), history


def _same(a: tuple, b: tuple) -> None:
    weights, expected = a[0], b[0]
    assert weights.keys() == expected.keys()
    for name, value in weights.items():
        assert torch.equal(value, expected[name]), name
    rows, others = (
        [{k: v for k, v in r.items() if k != "seconds"} for r in h[1].rows] for h in (a, b)
    )
    assert rows == others
    assert a[1].best_epoch == b[1].best_epoch


@pytest.fixture(scope="module")
def unbroken() -> dict[str, tuple]:
    results = {kind: _run(kind=kind) for kind in ("memory", "streamed")}
    rows = results["memory"][1].rows
    assert len({row["lr"] for row in rows}) > 1  # the plateau schedule has moved
    return results


@pytest.mark.parametrize("kind", ["memory", "streamed"])
@pytest.mark.parametrize("step", [1, N_STEPS - 1, N_STEPS, N_STEPS + 1, 15, 22])
def test_stopped_by_the_flag_and_resumed(
    step: int, kind: str, unbroken: dict[str, tuple], tmp_path: Path
) -> None:
    flag, count = StopFlag(), []

    def on_step(told: dict) -> None:
        count.append(told["step"])
        if len(count) == step:
            flag.set("SIGTERM")

    path = tmp_path / "resume.pt"
    with pytest.raises(StoppedBySignalError, match=r"stopped by SIGTERM in epoch \d, after step"):
        _run(path, kind, stop=flag, observer=Observer(on_step=on_step))
    assert len(count) == step
    again: list[dict] = []
    resumed = _run(path, kind, resume=True, observer=Observer(on_step=again.append))
    assert (again[0]["epoch"], again[0]["step"]) == (1 + step // N_STEPS, 1 + step % N_STEPS)
    _same(resumed, unbroken[kind])


@pytest.mark.parametrize("step", [2, 9, 13])
@pytest.mark.parametrize("minutes", [0.0, 10.0])
def test_broken_off_by_an_exception_and_resumed(
    step: int, minutes: float, unbroken: dict[str, tuple], tmp_path: Path
) -> None:
    """Goes on from the last checkpoint: every step's, or the last epoch's."""
    count = []

    def on_step(told: dict) -> None:
        count.append(told["step"])
        if len(count) == step:
            raise MemoryError("the machine")

    path, config = tmp_path / "resume.pt", _config(checkpoint_minutes=minutes)
    with pytest.raises(MemoryError, match="the machine"):
        _run(path, observer=Observer(on_step=on_step), config=config)
    assert path.exists() == (minutes == 0 or step > N_STEPS)
    _same(_run(path, resume=path.exists(), config=config), unbroken["memory"])


def test_the_average_goes_to_the_device_of_the_module() -> None:
    here, there = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, device="meta")
    optimizers = [torch.optim.AdamW(module.parameters()) for module in (here, there)]
    generator, state = torch.Generator(), FitState(average=start_average(here))
    packed = pack_state(state, here, optimizers[0], generator, {})
    with pytest.warns(UserWarning, match="meta"):
        found = unpack_state(packed, there, optimizers[1], generator, {})
    assert found.average is not None
    assert {value.device.type for value in found.average.values()} == {"meta"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_stopped_and_resumed_on_a_card(tmp_path: Path) -> None:
    """Single precision; one of the two runs is left in its third epoch and resumed."""

    def trained(resume: bool = False, **options: object) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        module = VAEModule(12, ModelConfig(n_latent=3, hidden=(8,))).to("cuda")
        rows = torch.from_numpy(X).to("cuda")
        feed = ResidentFeed((rows,), np.arange(len(X)), MemoryBatches((rows,), 16, 5))
        loop = Loop(module, feed, vae_objective, _config(precision="fp32"), beta=1.0, **options)
        fit(loop, resume=resume)
        return {name: value.cpu() for name, value in module.state_dict().items()}

    wanted, stop = trained(), StopFlag()

    def leave(place: dict[str, object]) -> None:
        if place["epoch"] == 3:
            stop.set("test")

    with pytest.raises(StoppedBySignalError):
        trained(checkpoint=tmp_path / "c.pt", stop=stop, observer=Observer(on_step=leave))
    found = trained(checkpoint=tmp_path / "c.pt", resume=True)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


def test_a_finished_run_resumes_to_itself(unbroken: dict[str, tuple], tmp_path: Path) -> None:
    path = tmp_path / "resume.pt"
    _run(path)
    told: list[dict] = []
    _same(_run(path, resume=True, observer=Observer(on_step=told.append)), unbroken["memory"])
    assert told == []


_CHILD = """
import os, signal, sys
import torch
torch.set_num_threads({threads})
sys.path.insert(0, {folder!r})
from pathlib import Path
import test_training_resume as t
from m1pipe.training.history import Observer
count = []
def on_step(told):
    count.append(1)
    if len(count) == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
t._run(Path({path!r}), observer=Observer(on_step=on_step), config=t._config(checkpoint_minutes=0.0))
"""


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, 17])
def test_killed_and_resumed(step: int, unbroken: dict[str, tuple], tmp_path: Path) -> None:
    path = tmp_path / "resume.pt"
    script = _CHILD.format(
        threads=torch.get_num_threads(),
        folder=str(Path(__file__).parent),
        step=step,
        path=str(path),
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    _same(_run(path, resume=True, config=_config(checkpoint_minutes=0.0)), unbroken["memory"])


def test_checkpoint_holds_tensors_and_plain_types_only(tmp_path: Path) -> None:
    path = tmp_path / "resume.pt"
    _run(path)
    state = torch.load(path, weights_only=True)
    assert {"weights", "optimizer", "fit", "generator", "cpu_generator", "settings"} <= set(state)
    assert state["fit"]["best_weights"] is not None
    assert [p.name for p in tmp_path.iterdir()] == ["resume.pt"]


def test_other_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "resume.pt"
    _run(path)
    with pytest.raises(InputError, match=r"lr was 0\.2 and is 0\.1 now"):
        _run(path, resume=True, config=_config(lr=0.1))


def test_another_thread_count_is_said(tmp_path: Path) -> None:
    path = tmp_path / "resume.pt"
    _run(path)
    state = load_checkpoint(path)
    state["machine"]["threads"] += 1
    save_checkpoint(path, state)
    with pytest.warns(M1Warning, match="resumed with threads"):
        _run(path, resume=True)


def test_unusable_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "resume.pt"
    with pytest.raises(InputError, match="no such file"):
        load_checkpoint(path)
    _run(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="expected a readable checkpoint"):
        load_checkpoint(path)
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="format version 1; found None"):
        load_checkpoint(path)
    torch.save(Path(), path)
    with pytest.raises(InputError, match="expected a readable checkpoint"):
        load_checkpoint(path)


def test_a_full_disk_leaves_the_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "resume.pt"
    save_checkpoint(path, {"a": 1})

    def full(state: dict, temporary: Path) -> None:
        Path(temporary).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match=r"could not be written; .*No space left") as raised:
        save_checkpoint(path, {"a": 2})
    assert "\n" not in str(raised.value)
    assert load_checkpoint(path)["a"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["resume.pt"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2"])
def test_signals_raise_the_flag_and_handlers_come_back(name: str) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with StopFlag() as flag:
        assert not flag.is_set
        os.kill(os.getpid(), number)
        assert flag.reason == name
        with pytest.raises(StoppedBySignalError, match=f"stopped by {name} here"):
            flag.leave("here")
    assert signal.getsignal(number) is before


def test_ctrl_c_saves_first_and_a_second_one_interrupts(tmp_path: Path) -> None:
    path, flag = tmp_path / "resume.pt", StopFlag()
    with flag, pytest.raises(KeyboardInterrupt):
        _run(path, stop=flag, observer=Observer(on_step=lambda told: os.kill(os.getpid(), 2)))
    assert load_checkpoint(path)["fit"]["step"] == 1
    with StopFlag() as flag, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        assert flag.is_set
        os.kill(os.getpid(), signal.SIGINT)


def test_outside_the_main_thread_no_handler_is_installed() -> None:
    before, found = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with StopFlag() as flag:
            found.append(signal.getsignal(signal.SIGTERM))
            flag.set("asked")
            found.append(flag.is_set)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before, True]
