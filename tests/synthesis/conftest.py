"""Three sets of one law, with planted classes, donors and zeros."""

from collections.abc import Callable

import anndata
import numpy as np
import pandas as pd
import pytest

Made = Callable[..., anndata.AnnData]


@pytest.fixture(scope="session")
def profiles() -> Made:
    """Maker of log2(TPM+1) profiles with six factors; the same law for every seed."""

    def make(n: int = 120, p: int = 60, *, seed: int = 0) -> anndata.AnnData:
        law = np.random.default_rng(99)
        loadings, level = law.normal(size=(6, p)), law.uniform(0.5, 6, p)
        rng = np.random.default_rng([seed, 1])
        factors = rng.normal(size=(n, 6))
        factors[:, 0] += np.where(rng.random(n) < 0.5, 2, -2)
        X = np.maximum(level + 0.5 * factors @ loadings + 0.5 * rng.normal(size=(n, p)), 0)
        obs = pd.DataFrame(
            {
                "tissue": np.where(factors[:, 0] > 0, "Liver", "Brain"),
                "person": [f"p{seed}_{i // 3}" for i in range(n)],
            },
            index=[f"s{seed}_{i}" for i in range(n)],
        )
        var = pd.DataFrame(index=[f"G{j}" for j in range(p)])
        return anndata.AnnData(X.astype(np.float32), obs, var, uns={"units": "log2_tpm1"})

    return make
