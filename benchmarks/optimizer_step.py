"""The optimiser's step at the published size against the memory's own rate.

AdamW reads a weight, its gradient and two moments and writes three of them back: seven streams. The
rival is a compiled loop over as many numbers that reads and writes the same streams and only adds.
Both take turns in one process, timed by the processor; `plain` is torch's AdamW without fusion.

    OMP_NUM_THREADS=1 python benchmarks/optimizer_step.py --repeats 7 --out FILE
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import torch
from turns import compare, keep, peak_mb

from m1pipe.config import EncoderConfig
from m1pipe.config.presets import preset_options
from m1pipe.models.vae import VAEModule
from m1pipe.settings import build
from m1pipe.training.device import tune_allocator

STREAMS = 7


@numba.njit(fastmath=True)  # type: ignore[untyped-decorator]
def add_streams(p: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray) -> None:
    for i in range(len(p)):
        p[i] += g[i]
        m[i] += g[i]
        v[i] += g[i]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--genes", type=int, default=18_965)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, help="results as JSON")
    options = parser.parse_args()
    tune_allocator()
    config = build(EncoderConfig, preset_options("m1"))
    parameters = list(VAEModule(options.genes, config.model).parameters())
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 1e-3)
    n = sum(parameter.numel() for parameter in parameters)
    fused = torch.optim.AdamW(parameters, fused=True)
    plain = torch.optim.AdamW(parameters, foreach=False)
    streams = [np.zeros(n // 2, dtype=np.float32) for _ in range(4)]
    ways: dict[str, tuple[Callable[[], object], int]] = {
        "streams": (lambda: add_streams(*streams), n // 2),
        "fused": (fused.step, n),
        "plain": (plain.step, n),
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for turn in range(options.repeats + 1):
        for name, (act, size) in ways.items():
            begun, cpu = time.perf_counter(), time.process_time()
            act()
            used, wall = time.process_time() - cpu, time.perf_counter() - begun
            if turn:  # the first one compiles, and makes the moments
                rate = 4e-9 * STREAMS * size
                runs[name].append({"gb_per_cpu_s": rate / used, "gb_per_s": rate / wall})
    ratios = [
        compare(runs, "fused", rival, key)
        for rival in ("streams", "plain")
        for key in ("gb_per_cpu_s", "gb_per_s")
    ]
    keep(options, {"parameters": n, "ratios": ratios, "runs": runs, "peak_mb": peak_mb()})


if __name__ == "__main__":
    main()
