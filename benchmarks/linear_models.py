"""CPU seconds of the linear rivals and of one wide head, at the sizes of the sets at hand.

Ridge with its penalty by leave-one-out, logistic regression with its penalty by inner folds, of few
samples of many genes and of many samples, and a head of default settings. One process; medians.

    OMP_NUM_THREADS=1 python benchmarks/linear_models.py --repeats 3 --out FILE
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from turns import keep, peak_mb

from m1pipe.config import HeadConfig
from m1pipe.data.targets import Targets
from m1pipe.evaluation.linear import fit_logistic, fit_ridge
from m1pipe.training.fit_heads import fit_head

Fit = Callable[[], object]


def ridge(rng: np.random.Generator, n: int, p: int, n_targets: int) -> Fit:
    X = rng.normal(size=(n, p)).astype(np.float32)
    Y = X[:, :4] @ rng.normal(size=(4, n_targets)) + rng.normal(size=(n, n_targets))
    return lambda: fit_ridge(X, Y.astype(np.float32))


def logistic(rng: np.random.Generator, n: int, p: int, n_classes: int) -> Fit:
    X = rng.normal(size=(n, p))
    logits = 1.5 * X[:, :3] @ rng.normal(size=(3, n_classes))
    y = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return lambda: fit_logistic(X, y, kind="multiclass")


def head(rng: np.random.Generator, n: int, p: int, n_targets: int) -> Fit:
    Z = rng.normal(size=(n, 10))
    X = (Z @ rng.normal(size=(10, p)) + rng.normal(size=(n, p))).astype(np.float32)
    Y = (Z @ rng.normal(size=(10, n_targets)) + rng.normal(size=(n, n_targets))).astype(np.float32)
    targets = Targets("regression", Y, tuple(str(j) for j in range(n_targets)))
    return lambda: fit_head(X, targets, HeadConfig(), rows=np.arange(n * 4 // 5), seed=0)


# Samples, genes, outputs.
CASES: dict[str, tuple[Callable[..., Fit], tuple[int, int, int]]] = {
    "ridge": (ridge, (800, 968, 1505)),
    "logistic, wide": (logistic, (317, 20_531, 6)),
    "logistic, long": (logistic, (12_000, 1287, 8)),
    "head": (head, (991, 968, 1505)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="results as JSON")
    options = parser.parse_args()
    found = {}
    for name, (make, sizes) in CASES.items():
        fit = make(np.random.default_rng(0), *sizes)
        took = []
        for _ in range(options.repeats):
            begun = time.process_time()
            fit()
            took.append(time.process_time() - begun)
        found[name] = {"sizes": sizes, "median_cpu_s": median(took), "cpu_s": took}
        print(f"{name:15s} {sizes}: {median(took):.2f} CPU s")
    keep(options, {"cases": found, "peak_mb": peak_mb()})


if __name__ == "__main__":
    main()
