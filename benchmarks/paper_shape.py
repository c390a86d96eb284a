"""The published sizes on this machine: what an epoch of the `m1` preset and encoding it would take.

`m1pipe simulate m1 --size paper --out SIM` makes the files first (25 GB). Each phase of a training
that streams with `--memory` is then run on a part: the scale, the moments and one product of the
PCA, `--steps` steps of `fit` on batches from disk, and encoding; times are extrapolated to all
rows, and said to be. Nothing is extrapolated within a phase but by rows: every phase is linear in
them.

    python benchmarks/paper_shape.py SIM/unlabelled.h5ad --memory 2G --steps 200 --out FILE
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from m1pipe.config import EncoderConfig
from m1pipe.config.presets import preset_options
from m1pipe.data.matrix import Matrix
from m1pipe.data.transforms import fit_gene_transform
from m1pipe.encoder.plan import complete_config
from m1pipe.io.reader import open_matrix
from m1pipe.models.vae import VAEModule, encode_mean, vae_objective
from m1pipe.settings import build, parse_bytes
from m1pipe.training.batches import Batch, StreamedFeed, make_feed
from m1pipe.training.device import tune_allocator
from m1pipe.training.history import Observer
from m1pipe.training.loop import Loop, fit

KRYLOV_PRODUCTS = 5  # of the PCA, each a pass over the rows, beside one for the moments


class FirstSteps:
    """The first batches of an epoch of a feed."""

    def __init__(self, feed: StreamedFeed, n_steps: int) -> None:
        self.feed, self.n_steps = feed, n_steps
        self.n_rows = n_steps * feed.batches.batch_size

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Batches as the feed gives them."""
        for step, batch in enumerate(self.feed.epoch(epoch, skip)):
            if step + skip == self.n_steps:
                return
            yield batch


def peak_gb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**20


def drop_from_cache(path: Path) -> None:
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def time_scale(matrix: Matrix, n_rows: int) -> tuple[float, Any]:
    begun = time.perf_counter()
    blocks = (matrix.rows(i, min(i + 400, n_rows)) for i in range(0, n_rows, 400))
    scaler = fit_gene_transform("standardize", blocks)
    return (time.perf_counter() - begun) / n_rows, scaler


def time_pca_product(matrix: Matrix, scaler: Any, n_rows: int, width: int) -> float:
    """Seconds a row of one product with the Gram matrix, reading and scaling included."""
    vectors = np.random.default_rng(0).standard_normal((matrix.n_genes, width)).astype(np.float32)
    total = np.zeros((matrix.n_genes, width), dtype=np.float32)
    begun = time.perf_counter()
    for start in range(0, n_rows, 400):
        X = scaler.apply(matrix.rows(start, min(start + 400, n_rows)))
        total += X.T @ (X @ vectors)
    return (time.perf_counter() - begun) / n_rows


def time_steps(feed: StreamedFeed, module: VAEModule, config: EncoderConfig, n: int) -> list[float]:
    """Seconds of every step; the first holds the filling of the first buffer."""
    seconds, last = [], [time.perf_counter()]

    def on_step(*_: Any) -> None:
        now = time.perf_counter()
        seconds.append(now - last[0])
        last[0] = now

    fit(
        Loop(
            module,
            FirstSteps(feed, n),
            vae_objective,
            config.training,
            beta=config.model.beta,
            observer=Observer(on_step=on_step),
            keep_best=False,
        )
    )
    return seconds


def time_encoding(matrix: Matrix, scaler: Any, module: VAEModule, n_rows: int) -> float:
    begun = time.perf_counter()
    for start in range(0, n_rows, 1024):
        rows = matrix.rows(start, min(start + 1024, n_rows))
        encode_mean(module, torch.from_numpy(scaler.apply(rows)))
    return (time.perf_counter() - begun) / n_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--memory", default="2G")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rows", type=int, default=8000, help="of the phases before and after")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--out", type=Path, help="results as JSON")
    options = parser.parse_args()
    tune_allocator()
    load = os.getloadavg()[0]
    typed = {"epochs": 1, "batch_size": options.batch_size, "precision": options.precision}
    config = build(EncoderConfig, preset_options("m1"), typed)
    drop_from_cache(options.file)
    with open_matrix(options.file) as matrix:
        config = complete_config(config, matrix.n_samples)
        scale, scaler = time_scale(matrix, options.rows)
        product = time_pca_product(matrix, scaler, options.rows // 4, 2 * config.model.n_latent)
        module = VAEModule(matrix.n_genes, config.model)
        every = np.arange(matrix.n_samples)
        feed = make_feed(
            matrix,
            every,
            scaler,
            batch_size=options.batch_size,
            seed=0,
            memory_bytes=parse_bytes(options.memory),
            device=torch.device("cpu"),
        )
        assert isinstance(feed, StreamedFeed), "the file is to be larger than the memory"
        steps = time_steps(feed, module, config, options.steps)
        encoding = time_encoding(matrix, scaler, module, options.rows // 4)
        n = matrix.n_samples
    a_step = float(np.median(steps[5:]))
    hours = {
        "scale": scale * n / 3600,
        "pca": (KRYLOV_PRODUCTS * product + scale) * n / 3600,
        "one epoch": (steps[0] + a_step * feed.n_steps) / 3600,
        "encode": encoding * n / 3600,
    }
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    print(f"{machine}, load {load:.1f}; {n} x {matrix.n_genes}, {module_size(module):,} parameters")
    print(
        f"step {a_step:.3f} s (median), {options.batch_size / a_step:.0f} samples/s, "
        f"first batch after {steps[0]:.1f} s, peak RSS {peak_gb():.2f} GiB"
    )
    for phase, took in hours.items():
        print(f"{phase:10s} {took:6.2f} h, extrapolated to all rows")
    if options.out:
        settings = {k: str(v) for k, v in vars(options).items() if k not in ("out", "file")}
        found = {
            "machine": machine,
            "load": load,
            "settings": settings,
            "shape": [n, matrix.n_genes],
        }
        found |= {"step_seconds": steps, "hours_extrapolated": hours, "peak_gib": peak_gb()}
        options.out.write_text(json.dumps(found, indent=2) + "\n")


def module_size(module: VAEModule) -> int:
    return sum(p.numel() for p in module.parameters())


if __name__ == "__main__":
    main()
