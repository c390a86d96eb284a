"""Held-out reconstruction of the default encoder beside PCA, for any expression files.

A fifth of the rows is held out before anything is fitted; encoder and PCA are fitted on the same
rows of the rest. R2 is pooled over genes and, after the stroke, the median over genes. One Markdown
row a file, setting and seed:

    python benchmarks/reconstruction.py sim/unlabelled.h5ad --seeds 0,1,2 --latent 32

Options after `--set` are settings of `m1pipe train`, as in `--set linear_skip=false`.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from m1pipe.config import EncoderConfig
from m1pipe.data.matrix import Matrix
from m1pipe.encoder import Encoder, summary, train_encoder
from m1pipe.io.reader import open_matrix
from m1pipe.settings import build

TEST_SHARE = 0.2
COLUMNS = (
    "file",
    "beta",
    "settings",
    "seed",
    "PCA R2",
    "encoder R2",
    "difference",
    "val. loss, start",
    "end",
    "active units",
    "best / run epochs",
    "CPU s",
)


def test_rows(n_samples: int, seed: int) -> np.ndarray:
    """Rows that nothing is fitted to, shape (n_test,)."""
    order = np.random.default_rng(seed).permutation(n_samples)
    return np.sort(order[: round(TEST_SHARE * n_samples)])


def measure(matrix: Matrix, settings: dict[str, Any], seed: int) -> list[str]:
    """Train, and reconstruct the held-out rows: the cells of a row after the settings."""
    test = test_rows(matrix.n_samples, seed)
    train = np.setdiff1d(np.arange(matrix.n_samples), test)
    config = build(EncoderConfig, settings, {"seed": seed})
    begun = time.process_time()
    encoder = train_encoder(matrix, config, rows=train)
    seconds = time.process_time() - begun
    rows = encoder.scaler.apply(matrix.take(test))
    scale = summary.gene_scale(encoder.scaler, encoder.pca)
    r2 = summary.measure(encoder.module, encoder.pca, [rows], scale).r2()
    return _cells(r2, encoder, seed, seconds)


def _cells(r2: dict[str, Any], encoder: Encoder, seed: int, seconds: float) -> list[str]:
    found = encoder.summary
    start = found["start_val_loss"]
    return [
        str(seed),
        f"{r2['pca_r2']:.3f} / {r2['pca_r2_median']:.3f}",
        f"{r2['r2']:.3f} / {r2['r2_median']:.3f}",
        f"{r2['r2'] - r2['pca_r2']:+.3f} / {r2['r2_median'] - r2['pca_r2_median']:+.3f}",
        "" if start is None else f"{start:.1f}",
        f"{found['val_loss']:.1f}",
        f"{found['active_units']} of {encoder.n_latent}",
        f"{found['best_epoch']} / {found['epochs']}",
        f"{seconds:.0f}",
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--betas", default="1,0")
    parser.add_argument("--latent", type=int, default=32)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()
    torch.set_num_threads(1)
    extra = {name: json.loads(value) for name, value in (s.split("=") for s in given.set)}
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for path in given.files:
        with open_matrix(path) as matrix:
            for beta in given.betas.split(","):
                settings = {"n_latent": given.latent, "beta": float(beta), **extra}
                for seed in given.seeds.split(","):
                    place = [f"{path.parent.name}/{path.stem}", beta, " ".join(given.set)]
                    cells = place + measure(matrix, settings, int(seed))
                    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
