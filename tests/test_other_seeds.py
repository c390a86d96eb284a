"""Tests of statistics and of synthesis pass by what they test, not by the luck of a seed."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FOLDERS = ("evaluation", "synthesis")
# Long, and of no statistic: what is filled in, which settings are tried.
LEFT_OUT = ("evaluation/test_evaluation_missing.py", "evaluation/test_evaluation_tuning.py")
SEEDS = range(1, 6)


def _run(seed: int, folder: Path) -> str:
    """Last lines of the fast tests of these folders at another seed; empty if all pass."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    command += [f"--basetemp={folder}", *(f"--ignore={HERE / name}" for name in LEFT_OUT)]
    command += [str(HERE / name) for name in FOLDERS]
    env = {**os.environ, "M1PIPE_TEST_SEED": str(seed)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent, env=env)
    return "" if done.returncode == 0 else f"seed {seed}:\n{done.stdout[-4000:]}"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_statistics_and_synthesis_hold_at_other_seeds(tmp_path: Path) -> None:
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        failed = list(pool.map(_run, SEEDS, [tmp_path / str(seed) for seed in SEEDS]))
    assert not any(failed), "\n".join(failed)
