"""Sides of a benchmark that take turns, each in a process of its own, and what is kept of them.

A script calls itself with `--side NAME` and prints one line of JSON there. Turns go round in
another order each time, so that what else the machine does falls on all sides alike.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

Run = dict[str, Any]
LIBRARIES = ("m1pipe", "numpy", "torch", "h5py", "numba")


def peak_mb() -> float:
    """Largest resident memory of this process alone; `ru_maxrss` would inherit its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def machine() -> dict[str, Any]:
    """Processor, memory, versions, threads and the present load."""
    cpu = next(x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x)
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "processor": cpu.split(":")[1].strip(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory) / 2**20, 1),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "versions": {name: found for name in LIBRARIES if (found := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def take_turns(script: str, sides: list[str], arguments: list[str], n: int) -> dict[str, list[Run]]:
    """Results of every side, `n` each, in a shuffled order of sides every time."""
    runs: dict[str, list[Run]] = {side: [] for side in sides}
    order = np.random.default_rng(0)
    for _ in range(n):
        for side in map(str, order.permutation(sides)):
            command = [sys.executable, script, "--side", side, *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{side}: {done.stderr}")
            runs[side].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{side}: {done.stdout.splitlines()[-1]}", file=sys.stderr, flush=True)
    return runs


def compare(runs: dict[str, list[Run]], ours: str, rival: str, key: str) -> Run:
    """How many times the rival's value ours is: of medians, of the best, and turn by turn."""
    a, b = ([run[key] for run in runs[side]] for side in (ours, rival))
    turns = [round(x / y, 3) for x, y in zip(a, b, strict=True)]
    return {
        "of": f"{ours} / {rival}, {key}",
        "median": round(median(a) / median(b), 3),
        "best": round(max(a) / max(b), 3),
        "turns": turns,
    }


def keep(options: argparse.Namespace, found: Run) -> None:
    """Print what was found; write it, with settings and machine, where `--out` says."""
    for ratio in found.get("ratios", []):
        print(f"{ratio['of']}: median {ratio['median']}, best {ratio['best']}, {ratio['turns']}")
    settings = {
        k: v for k, v in vars(options).items() if k not in ("side", "file", "out", "rivals")
    }
    kept = {"settings": settings, "machine": machine(), **found}
    if options.out:
        options.out.write_text(json.dumps(kept, indent=1) + "\n")
    else:
        print(json.dumps(kept))
