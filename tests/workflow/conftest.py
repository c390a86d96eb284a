"""A small study: text files of counts and the TOML that takes them to a report."""

from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

STUDY = """
out = "runs"

[convert]
units = "counts"
normalize = "total"
target_sum = 1e4
log2p1 = true

[data.u]
source = "u.tsv"
split.holdout = 0.25

[data.x]
source = "x.tsv"

[data.y]
source = "y.tsv"

[encoders.vae]
data = "u.training"
seeds = [1, 2]
n_latent = 3
hidden = [8]
epochs = 3
batch_size = 16

[crossval]
x = "x"
y = "y"
folds = 2
repeats = 2
models = ["mean", "ridge"]
hidden = [4]
epochs = 3

[jobs]
cpus = 1
memory = "1G"
time = "0:10"
"""


def _write(adata: anndata.AnnData, path: Path) -> None:
    frame = pd.DataFrame(adata.X.astype(int), index=adata.obs_names, columns=adata.var_names)
    frame.to_csv(path, sep="\t", index_label="sample")


@pytest.fixture(scope="session")
def make_study(
    expression: Callable[..., anndata.AnnData],
) -> Callable[[Path], Path]:
    """Maker of study.toml, with its text files, in a folder."""

    def make(folder: Path) -> Path:
        _write(expression(80, 30, counts=True), folder / "u.tsv")
        x = expression(60, 30, seed=1, counts=True)
        _write(x, folder / "x.tsv")
        y = expression(60, 30, seed=1, counts=True)[:, :10].copy()
        y.X = y.X + np.random.default_rng(0).poisson(3, y.shape)
        _write(y, folder / "y.tsv")
        (folder / "study.toml").write_text(STUDY)
        return folder / "study.toml"

    return make
