"""Held-out loss and time of the same training in fp32 and in bf16, by seed.

`m1pipe train` is run in both types on a file, in turn, with everything else equal; the loss is that
of the validation rows (a fifth, drawn by the seed), of the epoch that is kept.

    OMP_NUM_THREADS=1 python benchmarks/precision.py levels.h5ad --train="--preset m1 --epochs 6"
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from turns import keep


def train(options: argparse.Namespace, seed: int, precision: str, out: Path) -> dict[str, Any]:
    before = os.times()
    command = [sys.executable, "-m", "m1pipe", "-q", "train", str(options.path), "--out", str(out)]
    command += ["--seed", str(seed), "--precision", precision, "--device", "cpu", *options.train]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    summary = json.loads((out / "model.json").read_text())["summary"]
    found = {k: summary[k] for k in ("val_loss", "r2", "epochs", "best_epoch", "precision_gap")}
    cpu = sum(after[2:4]) - sum(before[2:4])
    return {"seed": seed, "precision": precision, **found, "cpu_s": round(cpu, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="results as JSON")
    parser.add_argument("--train", type=shlex.split, default=[], help="options of m1pipe train")
    options = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            for precision in ("fp32", "bf16"):
                runs.append(train(options, seed, precision, Path(folder) / f"{seed}{precision}"))
                print(runs[-1], file=sys.stderr, flush=True)
    options.path = options.path.name
    keep(options, {"runs": runs})


if __name__ == "__main__":
    main()
