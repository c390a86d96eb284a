"""What a cross-validation and an epoch of training cost, against the sizes of their data.

From one base, one of samples, genes, outputs and folds at a time is doubled and doubled again. Each
command is a process of its own on one thread; CPU seconds and peak memory are the process's,
imports included, so that what counts is the further cost of a doubling: where it doubles as well,
the cost is linear. Samples of `convert`, `train` and `encode` from files larger than the memory are
in `scaling.py`. `read_mb` is what the process asked of the system, imports included: what more
epochs add to it is what an epoch reads, what more outputs add how often a run reads the targets.

    python benchmarks/costs.py --out FILE
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from turns import keep

from m1pipe.data.units import Units
from m1pipe.io.writer import write_matrix

# Prints what the process has cost once the command is done.
MEASURED = """
import os, resource, sys
from pathlib import Path
from m1pipe.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    if end.code:
        raise
used = resource.getrusage(resource.RUSAGE_SELF)
status = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
read = Path("/proc/self/io").read_text().split()[1]
print("cost", used.ru_utime + used.ru_stime, int(status) / 1024, read)
"""


@dataclass(frozen=True)
class Sizes:
    """Of the labelled data."""

    samples: int = 600
    genes: int = 1000
    outputs: int = 3000
    folds: int = 3
    epochs: int = 5


QUANTITIES = {
    "crossval": ("samples", "genes", "outputs", "folds", "epochs"),
    "train": ("samples", "genes"),
}


def write(path: Path, n_samples: int, n_columns: int) -> None:
    X = np.random.default_rng(n_columns).gamma(2, 2, (n_samples, n_columns)).astype(np.float32)
    obs = pd.DataFrame(index=[f"s{i}" for i in range(n_samples)])
    var = pd.DataFrame(index=[f"G{j}" for j in range(n_columns)])
    write_matrix(path, X, obs=obs, var=var, units=Units("log2_tpm1"), force=True)


def cost(arguments: list[str]) -> tuple[float, float, int]:
    """CPU seconds, peak megabytes and bytes read of a command."""
    command = [sys.executable, "-c", MEASURED, "-q", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr}")
    cpu, peak, read = done.stdout.splitlines()[-1].split()[1:]
    return float(cpu), float(peak), int(read)


def measure(step: str, sizes: Sizes, folder: Path) -> dict[str, Any]:
    x, y = folder / "x.h5ad", folder / "y.h5ad"
    write(x, sizes.samples, sizes.genes)
    out = ["--out", str(folder / "out"), "--force", "--device", "cpu"]
    if step == "train":
        shape = ["--epochs", "3", "--hidden", "512", "--latent", "32"]
        cpu, peak, _ = cost(["train", str(x), *shape, *out])
        return {"cpu_s": cpu, "peak_mb": peak}
    write(y, sizes.samples, sizes.outputs)
    files = ["crossval", "--x", str(x), "--y", str(y), "--folds", str(sizes.folds)]
    files += ["--models", "mean,ridge,raw", "--head-epochs", str(sizes.epochs), *out]
    cpu, peak, read = cost(files)
    y_mb = y.stat().st_size / 2**20
    return {"cpu_s": cpu, "peak_mb": peak, "read_mb": read / 2**20, "y_mb": y_mb}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", nargs="+", choices=QUANTITIES, default=list(QUANTITIES))
    parser.add_argument("--factors", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--tmp", default=None, help="folder for the files")
    parser.add_argument("--out", type=Path, help="results as JSON")
    options = parser.parse_args()
    base, table = Sizes(), []
    with tempfile.TemporaryDirectory(dir=options.tmp) as folder:
        for step in options.steps:
            first = measure(step, base, Path(folder))
            for quantity in QUANTITIES[step]:
                for factor in options.factors:
                    sizes = replace(base, **{quantity: factor * getattr(base, quantity)})
                    used = first if factor == 1 else measure(step, sizes, Path(folder))
                    table.append({"step": step, "of": quantity, "factor": factor, **used})
                    print(table[-1], flush=True)
    keep(options, {"base": asdict(base), "table": table})


if __name__ == "__main__":
    main()
