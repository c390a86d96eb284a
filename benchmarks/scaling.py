"""Cost over the number of samples: convert, one epoch of train, encode, at 1x, 2x, 4x and 8x.

Each step is the command in a process of its own, on one thread; CPU seconds and the largest
resident memory are those of the process, imports included, so that what counts is the cost of one
more sample between two sizes. The sizes take turns, `--repeats` times; the least is kept. Training
streams at every size: `--memory` is smaller than the file.

    python benchmarks/scaling.py --samples 2000 --genes 4000 --repeats 3 --out FILE
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

FACTORS = (1, 2, 4, 8)
STEPS = ("convert", "train", "encode")
TRAIN = ["--epochs", "1", "--hidden", "512", "--latent", "64", "--seed", "0", "--device", "cpu"]


def make_text(path: Path, n_samples: int, n_genes: int) -> None:
    rng = np.random.default_rng(0)
    rate = rng.gamma(0.5, 60, n_genes)
    with open(path, "w") as file:
        file.write("sample\t" + "\t".join(f"G{j}" for j in range(n_genes)) + "\n")
        for i in range(n_samples):
            counts = rng.poisson(rate * rng.lognormal(0, 0.5, n_genes))
            file.write(f"s{i}\t" + "\t".join(map(str, counts)) + "\n")


def measure(command: list[str]) -> tuple[float, float]:
    """CPU seconds and peak resident megabytes of a command."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, **quiet)
    errors = process.stderr.read() if process.stderr else ""
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: {errors}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def run_size(folder: Path, factor: int, memory: str) -> dict[str, tuple[float, float]]:
    """Every step at one size."""
    m1pipe = [sys.executable, "-m", "m1pipe", "-q"]
    text, data = folder / f"{factor}.tsv", folder / f"{factor}.h5ad"
    steps = ["--units", "counts", "--normalize", "total", "--log2p1", "--force"]
    run, latents = folder / f"run{factor}", folder / f"z{factor}.h5ad"
    training = [*TRAIN, "--memory", memory, "--out", str(run), "--force"]
    return {
        "convert": measure([*m1pipe, "convert", str(text), str(data), *steps]),
        "train": measure([*m1pipe, "train", str(data), *training]),
        "encode": measure(
            [*m1pipe, "encode", str(run), str(data), "--out", str(latents), "--force"]
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000, help="at 1x")
    parser.add_argument("--genes", type=int, default=4000)
    parser.add_argument("--memory", default="24M", help="of train")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tmp", default=None, help="folder for the files")
    parser.add_argument("--out", type=Path, help="results as JSON")
    options = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    load = os.getloadavg()[0]
    print(f"{machine}, load {load:.1f}; {options.samples} x {options.genes} at 1x, one thread")
    runs: dict[str, dict[int, list[tuple[float, float]]]] = {
        step: {factor: [] for factor in FACTORS} for step in STEPS
    }
    with tempfile.TemporaryDirectory(dir=options.tmp) as name:
        for factor in FACTORS:
            make_text(Path(name) / f"{factor}.tsv", factor * options.samples, options.genes)
        for _ in range(options.repeats):
            for factor in FACTORS:
                for step, used in run_size(Path(name), factor, options.memory).items():
                    runs[step][factor].append(used)
    table = []
    print("step     factor  samples  CPU s  ms a further sample  peak MB")
    for step in STEPS:
        least = {f: min(cpu for cpu, _ in runs[step][f]) for f in FACTORS}
        for factor, cpu in least.items():
            n, peak = factor * options.samples, max(mb for _, mb in runs[step][factor])
            further = None
            if factor > 1:
                further = 1000 * (cpu - least[factor // 2]) / (n - n // 2)
            row = {"step": step, "factor": factor, "samples": n, "cpu_s": cpu, "peak_mb": peak}
            table.append({**row, "ms_a_further_sample": further})
            shown = "" if further is None else f"{further:.3f}"
            print(f"{step:8s} {factor:5d}x {n:8d} {cpu:6.2f} {shown:>20s} {peak:8.0f}")
    if options.out:
        settings = {k: v for k, v in vars(options).items() if k not in ("out", "tmp")}
        found = {
            "machine": machine,
            "load": load,
            "settings": {**settings, "train": TRAIN},
            "table": table,
        }
        options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
