"""The script for a machine with a card works before there is one: its dry run on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "on_card.py"


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_dry_run_measures_every_line(tmp_path: Path) -> None:
    out = tmp_path / "card.json"
    done = _run(
        *("--device", "cpu", "--rows", "512", "--genes", "200", "--small", "--out", str(out)),
        *("--batch-sizes", "128", "64", "--epochs", "2", "1"),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert json.loads(done.stdout) == found
    assert [run["steps_an_epoch"] for run in found["epochs"]] == [4, 8]
    assert [len(run["epochs_s"]) for run in found["epochs"]] == [2, 1]
    for run in found["epochs"]:
        flop = 2 * (3 * (200 * 256 + 256 * 128 + 128 * 64 + 64 * 64))  # down
        flop += 2 * (3 * (32 * 64 + 64 * 128 + 128 * 256 + 256 * 200)) - 2 * 200 * 256
        assert run["tflops"] == pytest.approx(run["samples_per_s"] * flop / 1e12)
        assert run["samples_per_s"] == pytest.approx(512 / run["epoch_s"])
        assert "hundred_epochs_s" not in run  # 100 were not run: it is called an extrapolation
        assert run["hundred_epochs_s_extrapolated"] == pytest.approx(100 * run["epoch_s"])
    assert found["copies"]["steps"] == 4 and found["copies"]["table"]
    assert found["limits"]["bf16_tflops"] > 0
    assert found["machine"]["versions"]["torch"] and found["settings"]["rows"] == 512


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_so_in_a_line() -> None:
    done = _run("--rows", "8")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "on_card: no CUDA device here: run it where there is one, or --device cpu"
    )


def test_epochs_are_given_for_every_batch_size() -> None:
    done = _run("--device", "cpu", "--batch-sizes", "64", "--epochs", "1", "2")
    assert done.returncode == 2
    assert "expected 1 numbers" in done.stderr
