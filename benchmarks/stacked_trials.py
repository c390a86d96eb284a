"""Trials of a sweep in one pass against one by one: seconds of processor time, and the ratio.

Both sides alternate in one process; the least of the repeats is shown. On a CPU processor time is
taken, which other programs on the machine disturb less than they do the clock; with --device cuda
the clock.

    OMP_NUM_THREADS=1 python benchmarks/stacked_trials.py --trials 8 --out stacked.json
"""

import argparse
import json
import os
import platform
import time
from typing import Any

import numpy as np
import torch

from m1pipe.config import EncoderConfig
from m1pipe.encoder.plan import TrainingPlan, plan_training
from m1pipe.encoder.train import train_planned
from m1pipe.encoder.train_together import train_together
from m1pipe.settings import build

SIZES = (
    {"n_genes": 50, "n_latent": 2, "hidden": [16]},
    {"n_genes": 100, "n_latent": 8, "hidden": [64]},
    {"n_genes": 400, "n_latent": 16, "hidden": [128]},
    {"n_genes": 1000, "n_latent": 50, "hidden": [128]},
    {"n_genes": 1000, "n_latent": 200, "hidden": [512]},
)
N_ROWS = 600


def make_plans(size: dict[str, Any], n_trials: int, beta: float, device: str) -> list[TrainingPlan]:
    """Plans of trials that differ in their learning rate."""
    rng = np.random.default_rng(0)
    p = size["n_genes"]
    X = rng.normal(size=(N_ROWS, 5)) @ rng.normal(size=(5, p)) + rng.normal(size=(N_ROWS, p))
    data = (X.astype(np.float32), [f"g{j}" for j in range(p)])
    shared = {"n_latent": size["n_latent"], "hidden": size["hidden"], "epochs": 5, "patience": 0}
    rates = np.geomspace(3e-4, 3e-3, n_trials)
    return [
        plan_training(
            data,
            build(EncoderConfig, shared, {"beta": beta, "lr": float(lr), "device": device}),
        )
        for lr in rates
    ]


def seconds_of(plans: list[TrainingPlan], *, stacked: bool, clock: Any) -> float:
    """Time of all trials, one way or the other."""
    begun = clock()
    if stacked:
        train_together(plans)
    else:
        for plan in plans:
            train_planned(plan)
    return float(clock() - begun)


def main() -> None:
    """Measure every size, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out")
    chosen = parser.parse_args()
    clock = time.process_time if chosen.device == "cpu" else time.perf_counter
    rows = []
    for size in SIZES:
        for beta in (0.0, 1.0):
            plans = make_plans(size, chosen.trials, beta, chosen.device)
            times: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(chosen.repeats):
                for stacked, found in times.items():
                    found.append(seconds_of(plans, stacked=stacked, clock=clock))
            alone, together = min(times[False]), min(times[True])
            rows.append({**size, "beta": beta, "alone": alone, "together": together,
                         "ratio": alone / together})  # fmt: skip
            print(f"{size} beta {beta:g}: {alone:.2f} s alone, {together:.2f} s together, "
                  f"ratio {alone / together:.2f}", flush=True)  # fmt: skip
    if chosen.out:
        setting = {"trials": chosen.trials, "rows": N_ROWS, "threads": torch.get_num_threads(),
                   "machine": platform.processor() or platform.machine(), "device": chosen.device,
                   "torch": str(torch.__version__), "load": os.getloadavg()}  # fmt: skip
        with open(chosen.out, "w", encoding="utf-8") as file:
            json.dump({"setting": setting, "rows": rows}, file, indent=2)


if __name__ == "__main__":
    main()
