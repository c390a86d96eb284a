"""A run killed at any moment and resumed ends with the very bits of one that was left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest

from m1pipe.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_RESUMABLE

OPTIONS = ["--latent", "4", "--hidden", "32", "--epochs", "40", "--batch-size", "16", "--seed", "5"]
SAME = ("model.safetensors", "pca.safetensors", "samples.csv", "config.json")


def _command(data: Path, run: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "m1pipe", "train", str(data), "--out", str(run), *OPTIONS, *more]


def _wait_for_steps(run: Path, n: int, process: "subprocess.Popen[str]") -> None:
    """Until steps.csv has n lines, so that a signal falls into the training loop."""
    deadline = time.monotonic() + 120
    file = run / "steps.csv"
    while not file.exists() or file.read_text().count("\n") < n:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "training did not begin"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def data(
    expression: Callable[..., anndata.AnnData], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("data") / "u.h5ad"
    expression(400, 60).write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    subprocess.run(_command(data, run), check=True, capture_output=True)
    return run


def _check_same(run: Path, whole: Path) -> None:
    for name in SAME:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    stored = [json.loads((r / "model.json").read_text()) for r in (run, whole)]
    for model in stored:
        del model["summary"]["seconds"]
    assert stored[0] == stored[1]
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert not (run / "resume.pt").exists()
    assert not list(run.glob("*.part"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_steps(data: Path, whole: Path, tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    run = tmp_path / "run"
    for kill in range(2):
        process = subprocess.Popen(
            _command(data, run, "--resume", "--log-steps"), stderr=subprocess.PIPE, text=True
        )
        _wait_for_steps(run, int(rng.integers(2, 200)) + 200 * kill, process)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.communicate()
    done = subprocess.run(
        _command(data, run, "--resume"), capture_output=True, text=True, check=False
    )
    assert done.returncode == EXIT_DONE, done.stderr
    assert "resumed after epoch" in done.stderr
    (run / "steps.csv").unlink()
    _check_same(run, whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, EXIT_RESUMABLE),
        (signal.SIGUSR2, EXIT_RESUMABLE),
        (signal.SIGINT, EXIT_INTERRUPTED),
    ],
)
def test_stopped_by_signals(
    data: Path, whole: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(
        _command(data, run, "--log-steps"), stderr=subprocess.PIPE, text=True
    )
    _wait_for_steps(run, 60, process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert json.loads((run / "status.json").read_text())["state"] == "stopped"
    assert (run / "resume.pt").exists()
    subprocess.run(_command(data, run, "--resume"), check=True, capture_output=True)
    _check_same(run, whole)


@pytest.mark.slow
def test_a_second_run_in_the_same_folder_is_refused(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = subprocess.Popen(_command(data, run, "--log-steps"), stderr=subprocess.PIPE, text=True)
    _wait_for_steps(run, 2, first)
    os.kill(first.pid, signal.SIGSTOP)
    second = subprocess.run(
        _command(data, run, "--force"), capture_output=True, text=True, check=False
    )
    os.kill(first.pid, signal.SIGCONT)
    _, stderr = first.communicate(timeout=120)
    assert second.returncode == 1
    assert "another process is at work" in second.stderr
    assert first.returncode == EXIT_DONE, stderr
