"""Several processes end where one does; one that dies or is told to stop ends them all."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from m1pipe.config import EncoderConfig, ModelConfig, TrainingConfig
from m1pipe.data.batches import MemoryBatches, StreamedBatches, own_part
from m1pipe.models.vae import VAEModule, vae_objective
from m1pipe.settings import build, to_dict
from m1pipe.training.batches import ResidentFeed
from m1pipe.training.distributed import ALONE, Workers, place_in_batch, row_parts
from m1pipe.training.loop import Loop, fit
from m1pipe.workflow.training_run import run_training

SETTINGS = {
    "n_latent": 3, "hidden": [8], "batch_norm": False, "linear_skip": False, "seed": 1,
    "epochs": 4, "batch_size": 16, "ema": 0.9, "validation": 0.0, "clip": 1.0,
}  # fmt: skip
N = 12 * 16 + 1  # the last batch has one row: a process has none


class _Rows:
    shape = (101, 5)

    def __init__(self) -> None:
        self.read: list[int] = []

    def take(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        self.read += indices.tolist()
        values = np.repeat(indices[:, None], 5, axis=1).astype(np.float32)
        if out is None:
            return values
        out[:] = values
        return out


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("skip", [0, 4, 9])
def test_parts_of_a_batch_make_it_whole_and_each_row_is_read_once(size: int, skip: int) -> None:
    def streamed(part: tuple[int, int]) -> tuple[StreamedBatches, _Rows]:
        source = _Rows()
        return StreamedBatches(source, None, 10, 3, 5 * 4 * 120, part=part), source

    whole = list(streamed((0, 1))[0].epoch(2, skip))
    assert len(whole[-1]) == 1
    parts = []
    for rank in range(size):
        batches, source = streamed((rank, size))
        parts.append(list(batches.epoch(2, skip)))
        own = [i for batch in batches.indices(2, skip) for i in batch.tolist()]
        np.testing.assert_array_equal([x for b in parts[-1] for x in b[:, 0]], own)
        assert len(source.read) == len(set(source.read)) <= sum(map(len, batches.indices(2)))
    for step, batch in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([p[step] for p in parts]), batch)


def test_places_in_a_batch_are_those_of_the_rows() -> None:
    memory = MemoryBatches((np.zeros(101),), 10, 3)
    for size in (2, 3):
        for rank in range(size):
            memory.part = (rank, size)
            for step, rows in enumerate(memory.epoch(0)):
                memory.part = (0, 1)
                batch = list(memory.epoch(0))[step]
                memory.part = (rank, size)
                first, n = place_in_batch(
                    len(rows), Workers(rank, size), n_rows=101, batch_size=10, step=step
                )
                assert n == len(batch)
                np.testing.assert_array_equal(batch[first : first + len(rows)], rows)
                np.testing.assert_array_equal(own_part(batch, (rank, size)), rows)
    assert place_in_batch(7, ALONE, n_rows=101, batch_size=10, step=0) == (0, 7)


@pytest.mark.parametrize("most", [1, 5, 16])
def test_gradients_added_up_give_the_same_weights(most: int) -> None:
    x = torch.randn(N, 6, generator=torch.Generator().manual_seed(1))
    found = []
    for micro in (None, most):
        torch.manual_seed(0)
        module = VAEModule(6, ModelConfig(n_latent=2, hidden=(8,), batch_norm=False))
        feed = ResidentFeed((x,), np.arange(N), MemoryBatches((x,), 16, 0))
        config = TrainingConfig(epochs=3, batch_size=16, micro_batch=micro, validation=0.0)
        history = fit(Loop(module, feed, vae_objective, config, beta=1.0))
        found.append((module.state_dict(), history.rows[-1]["train_loss"]))
    for name, value in found[0][0].items():
        torch.testing.assert_close(found[1][0][name], value, rtol=1e-5, atol=1e-5)
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-6)


def test_parts_of_a_batch_are_small_enough_and_in_order() -> None:
    batch = (torch.arange(22).reshape(11, 2), torch.arange(11))
    parts = row_parts(batch, 4)
    assert [len(part[-1]) for part in parts] == [4, 4, 3]
    assert torch.equal(torch.cat([part[0] for part in parts]), batch[0])
    assert row_parts(batch, 11) == [batch]
    empty = (torch.empty(0, 2), torch.empty(0))
    assert row_parts(empty, 4) == [empty]


@pytest.fixture(scope="module")
def data(
    expression: Callable[..., anndata.AnnData], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("data") / "u.h5ad"
    expression(N, 30).write_h5ad(path)
    return path


def _config(**more: object) -> EncoderConfig:
    return build(EncoderConfig, {**SETTINGS, **more})


def _launch(
    data: Path, out: Path, config: EncoderConfig, *more: str, script: Path | None = None
) -> "subprocess.Popen[str]":
    """Two processes at one training."""
    file = out.with_suffix(".json")
    file.write_text(json.dumps(to_dict(config)))
    program = ["-m", "m1pipe"] if script is None else [str(script)]
    return subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
            *program, "train", str(data), "--out", str(out), "--config", str(file), *more,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def _check_close(run: Path, other: Path) -> None:
    a, b = (load_file(folder / "model.safetensors") for folder in (run, other))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"micro_batch": 5, "validation": 0.2, "linear_skip": True, "kl_warmup": 0.5},
        {"memory": "16K", "beta": 0.0},
    ],
    ids=["in parts, held at the PCA", "streamed at beta 0"],
)
def test_two_processes_equal_one(data: Path, tmp_path: Path, settings: dict[str, object]) -> None:
    config = _config(**settings)
    run_training(data, tmp_path / "one", config)
    process = _launch(data, tmp_path / "two", config)
    stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    assert stdout.count("epochs (best") == 1
    assert stderr.count("epoch 1/4") == 1
    _check_close(tmp_path / "two", tmp_path / "one")
    histories = [(tmp_path / run / "history.csv").read_text() for run in ("one", "two")]
    rows = [[line.split(",")[3] for line in text.splitlines()[1:]] for text in histories]
    np.testing.assert_allclose(*np.array(rows, dtype=float), rtol=1e-5)


def _workers(launcher: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(launcher)], capture_output=True, text=True)
    return sorted(map(int, found.stdout.split()))


def _wait_for_epoch(run: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not ((run / "status.json").exists() and "epoch" in (run / "status.json").read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_signal_to_one_stops_all_and_one_alone_goes_on(data: Path, tmp_path: Path) -> None:
    config = _config(epochs=150, linear_skip=True)
    run_training(data, tmp_path / "whole", config)
    process = _launch(data, tmp_path / "run", config)
    _wait_for_epoch(tmp_path / "run", process)
    os.kill(_workers(process.pid)[1], signal.SIGUSR1)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1, "torchrun hides the workers' exit code"
    assert "stopped by SIGUSR1" in stderr
    assert "m1pipe/training" not in stderr, "no traceback of ours"
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "stopped"
    run_training(data, tmp_path / "run", config)
    _check_close(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
def test_a_process_that_fails_ends_the_run_with_its_traceback(data: Path, tmp_path: Path) -> None:
    script = tmp_path / "failing.py"
    script.write_text(
        "import os\n"
        "from m1pipe.cli.main import main\n"
        "from m1pipe.training import loop\n"
        "def failing(batch, most, parts=loop.row_parts, seen=[]):\n"
        "    seen.append(1)\n"
        "    if os.environ['RANK'] == '1' and len(seen) == 30:\n"
        "        raise ZeroDivisionError('planted')\n"
        "    return parts(batch, most)\n"
        "loop.row_parts = failing\n"
        "main()\n"
    )
    process = _launch(data, tmp_path / "run", _config(), script=script)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert len(re.findall(r"^ZeroDivisionError: planted$", stderr, re.MULTILINE)) == 1
    assert "process 0 of 2: another process of this run has ended" in stderr
    assert "RuntimeError" not in stderr
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_run(data: Path, tmp_path: Path) -> None:
    process = _launch(data, tmp_path / "run", _config(epochs=3000, patience=0))
    _wait_for_epoch(tmp_path / "run", process)
    os.kill(_workers(process.pid)[1], signal.SIGKILL)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "another process of this run has ended" in stderr or "SIGKILL" in stderr
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] != "done"
