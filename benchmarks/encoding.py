"""Encoding a file against the forward products alone, at the published size.

A network of the `m1` preset is trained for one epoch on a few samples; then three ways take turns
in this process on a file of `--rows` samples:

- products: the encoder's matrix products, biases and ReLU, on a resident block of scaled levels;
- encode: the file read, scaled and encoded (`Encoder.transform`);
- command: what `m1pipe encode` does, which also reconstructs samples for their distance.

    OMP_NUM_THREADS=1 python benchmarks/encoding.py --rows 3000 --repeats 5 --out FILE
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from turns import compare, keep, peak_mb

from m1pipe.config import EncoderConfig
from m1pipe.config.presets import preset_options
from m1pipe.data.units import Units
from m1pipe.encoder.drift import encode_with_drift
from m1pipe.encoder.load import load_encoder
from m1pipe.encoder.trained import CHUNK_ROWS, Encoder
from m1pipe.io.reader import open_matrix
from m1pipe.io.writer import write_matrix
from m1pipe.models.kernels import float32_products
from m1pipe.settings import build
from m1pipe.training.device import tune_allocator
from m1pipe.workflow.training_run import run_training


def make_file(path: Path, n_rows: int, n_genes: int) -> None:
    rng = np.random.default_rng(0)
    X = np.log2(1 + rng.gamma(0.5, 20, (n_rows, n_genes))).astype(np.float32)
    obs = pd.DataFrame(index=[f"s{i}" for i in range(n_rows)])
    var = pd.DataFrame(index=[f"G{j}" for j in range(n_genes)])
    write_matrix(path, X, obs=obs, var=var, units=Units("log2_tpm1"))


def products(encoder: Encoder, n_rows: int) -> Callable[[], object]:
    """The products of a forward pass over so many rows, from one block."""
    block = torch.rand(CHUNK_ROWS, len(encoder.genes))
    layers = [m for m in encoder.module.encoder if isinstance(m, torch.nn.Linear)]
    sizes = [min(CHUNK_ROWS, n_rows - start) for start in range(0, n_rows, CHUNK_ROWS)]

    @float32_products()
    @torch.no_grad()
    def run() -> None:
        for n in sizes:
            h = block[:n]
            for layer in layers:
                h = torch.addmm(layer.bias, h, layer.weight.t()).relu_()
            torch.addmm(encoder.module.mu_head.bias, h, encoder.module.mu_head.weight.t())

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--genes", type=int, default=18_965)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tmp", default=None, help="folder for the files")
    parser.add_argument("--out", type=Path, help="results as JSON")
    options = parser.parse_args()
    tune_allocator()
    with tempfile.TemporaryDirectory(dir=options.tmp) as name:
        folder = Path(name)
        make_file(folder / "few.h5ad", 300, options.genes)
        make_file(folder / "rows.h5ad", options.rows, options.genes)
        config = build(EncoderConfig, preset_options("m1"), {"epochs": 1, "device": "cpu"})
        run_training(folder / "few.h5ad", folder / "run", config)
        encoder = load_encoder(folder / "run")
        with open_matrix(folder / "rows.h5ad") as matrix:
            ways: dict[str, Callable[[], object]] = {
                "products": products(encoder, options.rows),
                "encode": lambda: encoder.transform(matrix),
                "command": lambda: encode_with_drift(encoder, matrix),
            }
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
            for _ in range(options.repeats):
                for way, act in ways.items():
                    begun, cpu = time.perf_counter(), time.process_time()
                    act()
                    wall, used = time.perf_counter() - begun, time.process_time() - cpu
                    rates = {
                        "rows_per_s": options.rows / wall,
                        "rows_per_cpu_s": options.rows / used,
                    }
                    runs[way].append({**rates, "peak_mb": peak_mb()})
    ratios = [
        compare(runs, way, "products", key)
        for way in ("encode", "command")
        for key in ("rows_per_s", "rows_per_cpu_s")
    ]
    keep(options, {"ratios": ratios, "runs": runs})


if __name__ == "__main__":
    main()
