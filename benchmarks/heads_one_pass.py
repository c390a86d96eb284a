"""Heads of a cross-validation: one pass over the rows against loops over folds and models.

Three ways in one process, in turn, over the same rows:

- loop: as the published pipeline does it: DataLoader over rows, torch.Tensor copies, Adam, one
  fold and model after the other;
- alone: m1pipe's `fit_heads`, one fold and model after the other (batches of indices, fused AdamW);
- together: m1pipe's `fit_heads`, all in one pass.

The last two make the same steps, of 64 rows a head as the loop; their losses are compared. Wall and
CPU seconds are medians.

    OMP_NUM_THREADS=2 python benchmarks/heads_one_pass.py --targets 50000 --hidden 32 --models 3
"""

import argparse
import json
import platform
import time
from dataclasses import replace
from itertools import chain, pairwise
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, SubsetRandomSampler

from m1pipe.config import HeadConfig
from m1pipe.data.targets import Targets
from m1pipe.heads.fit import fit_heads
from m1pipe.heads.fitted import FittedHead
from m1pipe.heads.head_data import HeadData, HeadJob
from m1pipe.training.device import tune_allocator

PUBLISHED = HeadConfig(
    epochs=1,
    weight_decay=0.0,
    batch_size=64,
    patience=0,
    linear=False,
    validation=0.0,
    standardize=False,
    initialize_bias=False,
)
ROWS = 64  # a step of a head


class Rows(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Rows copied into new tensors one by one."""

    def __init__(self, X: np.ndarray, Y: np.ndarray) -> None:
        self.X, self.Y = X, Y

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.Tensor(self.X[i]), torch.Tensor(self.Y[i])


def loop(jobs: list[HeadJob], design: HeadData) -> None:
    for job in jobs:
        widths = (job.X.shape[1], *job.configs[0].hidden, design.targets.n_outputs)
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, b), nn.ReLU()]
        module = nn.Sequential(*layers[:-1])
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
        rows = Rows(job.X, design.targets.values)
        order = SubsetRandomSampler(job.rows.tolist())
        batches = DataLoader(rows, batch_size=ROWS, sampler=order)
        for x, y in chain.from_iterable(batches for _ in range(job.configs[0].epochs)):
            loss = nn.functional.mse_loss(module(x.float()), y.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()


def alone(jobs: list[HeadJob], design: HeadData) -> list[FittedHead]:
    return [fit_heads([job], design)[0] for job in jobs]


def make(arguments: argparse.Namespace) -> tuple[list[HeadJob], HeadData]:
    rng = np.random.default_rng(0)
    n, t = arguments.samples, arguments.targets
    genes = rng.random((n, arguments.genes), dtype=np.float32) * 5
    latents = [rng.normal(size=(n, arguments.latent)).astype(np.float32) for _ in range(2)]
    Y = np.log2(1 + rng.gamma(0.3, 60, (n, t))).astype(np.float32)
    targets = Targets("regression", Y, tuple(map(str, range(t))))
    folds = rng.permutation(n) % arguments.folds
    width = arguments.hidden
    models = [(genes, (256, width)), (latents[0], (width,)), (latents[1], (width,))]
    jobs = [
        HeadJob(
            X,
            np.flatnonzero(folds != k),
            (replace(PUBLISHED, hidden=hidden, epochs=arguments.epochs),),
            k,
        )
        for X, hidden in models[-arguments.models :]
        for k in range(arguments.folds)
    ]
    return jobs, HeadData(targets, 0, folds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (
        ("samples", 1024),
        ("targets", 50_000),
        ("genes", 4096),
        ("latent", 256),
        ("hidden", 32),
        ("folds", 5),
        ("models", 3),
        ("epochs", 3),
        ("repeats", 5),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    arguments = parser.parse_args()
    tune_allocator()
    jobs, design = make(arguments)
    ways: dict[str, Any] = {"loop": loop, "alone": alone, "together": fit_heads}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    heads: dict[str, list[FittedHead]] = {}
    for _ in range(arguments.repeats):
        for name, way in ways.items():
            begun, used = time.perf_counter(), time.process_time()
            heads[name] = way(jobs, design)
            wall[name].append(time.perf_counter() - begun)
            cpu[name].append(time.process_time() - used)
    losses = [[h.chosen["train_loss"] for h in heads[k]] for k in ("alone", "together")]
    gap = np.max(np.abs(np.subtract(*losses)) / np.array(losses[0]))
    found = {
        **vars(arguments),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "wall_s": {name: round(median(v), 3) for name, v in wall.items()},
        "cpu_s": {name: round(median(v), 3) for name, v in cpu.items()},
        "together_against_loop": round(median(wall["loop"]) / median(wall["together"]), 2),
        "together_against_alone": round(median(wall["alone"]) / median(wall["together"]), 2),
        "together_against_loop_cpu": round(median(cpu["loop"]) / median(cpu["together"]), 2),
        "together_against_alone_cpu": round(median(cpu["alone"]) / median(cpu["together"]), 2),
        "largest_relative_gap_of_losses": float(gap),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
