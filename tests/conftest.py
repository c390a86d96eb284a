"""Fixtures shared by all tests."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import anndata

# Before torch is imported: two OpenMP threads beside another busy process are far slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# ... and numba, once it works in parallel, would give torch as many as it takes itself.
os.environ.setdefault("NUMBA_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder with the real expression sets; tests that need it skip where it is not given."""
    folder = os.environ.get("M1PIPE_TEST_DATA")
    if not folder:
        pytest.skip("M1PIPE_TEST_DATA is not set: it names the folder with the real data sets")
    return Path(folder)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sub-processes use one thread, so that results do not depend on the machine."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def expression() -> "Callable[..., anndata.AnnData]":
    """Maker of small expression sets with four planted factors, on a log scale or as counts."""
    import anndata
    import numpy as np
    import pandas as pd

    def make(
        n: int = 240, p: int = 40, *, seed: int = 0, counts: bool = False
    ) -> "anndata.AnnData":
        loadings = np.random.default_rng(99).normal(size=(4, p))
        rng = np.random.default_rng(seed)
        factors = rng.normal(size=(n, 4))
        log_level = 5 + factors @ loadings + 0.5 * rng.normal(size=(n, p))
        obs = pd.DataFrame(
            {
                "tissue": np.where(factors[:, 0] > 0, "Liver", "Brain"),
                "donor": [f"d{i % 40}" for i in range(n)],
                "factor": factors[:, 1],
            },
            index=[f"s{seed}_{i}" for i in range(n)],
        )
        var = pd.DataFrame(
            {"symbol": [f"SYM{j}" for j in range(p)]},
            index=[f"ENSG{j + 1:011d}" for j in range(p)],
        )
        linear = np.exp2(log_level)
        if counts:
            X = rng.poisson(linear * rng.uniform(2, 6, size=(n, 1)))
            uns = {"units": "counts"}
        else:
            X = np.log2(1 + 1e4 * linear / linear.sum(axis=1, keepdims=True))
            uns = {"units": "log2_normalized1", "target_sum": 1e4}
        return anndata.AnnData(X=X.astype(np.float32), obs=obs, var=var, uns=uns)

    return make
