from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from m1pipe import cross_validate
from m1pipe.config import CrossvalConfig
from m1pipe.errors import InputError
from m1pipe.io.reader import open_matrix, read_obsm

SAMPLES = [f"s{i}" for i in range(60)]


@pytest.fixture
def marks() -> pd.DataFrame:
    values = np.random.default_rng(1).integers(0, 2, (60, 3)).astype(np.float32)
    return pd.DataFrame(values, index=SAMPLES, columns=["GO:1", "GO:2", "GO:3"])


@pytest.fixture
def path(tmp_path: Path, marks: pd.DataFrame) -> Path:
    X = np.random.default_rng(0).normal(5, 1, size=(60, 5)).astype(np.float32)
    data = anndata.AnnData(X, obs=pd.DataFrame(index=SAMPLES), uns={"units": "log2_tpm1"})
    data.var_names = list("abcde")
    data.obsm["terms"] = marks
    data.obsm["plain"] = marks.to_numpy()
    data.obsm["sparse"] = sparse.csr_matrix(marks.to_numpy())
    data.obsm["words"] = marks.astype(str) + " times"
    data.write_h5ad(tmp_path / "x.h5ad")
    return tmp_path / "x.h5ad"


def test_tables_keep_their_names_and_arrays_get_some(path: Path, marks: pd.DataFrame) -> None:
    with open_matrix(path) as matrix:
        pd.testing.assert_frame_equal(
            read_obsm(matrix, "terms"), marks, check_index_type=False, check_column_type=False
        )
        for key in ("plain", "sparse"):
            found = read_obsm(matrix, key)
            assert list(found.columns) == [f"{key}_{j}" for j in range(3)]
            np.testing.assert_array_equal(found.to_numpy(), marks.to_numpy())


def test_what_is_not_there_is_said(path: Path) -> None:
    with open_matrix(path) as matrix:
        with pytest.raises(
            InputError, match=r"expected an array 'pathways' in obsm; found .*terms"
        ):
            read_obsm(matrix, "pathways")
        with pytest.raises(InputError, match="expected a table of numbers"):
            read_obsm(matrix, "words")
    table = open_matrix(pd.DataFrame(np.eye(3), columns=list("abc")))
    with pytest.raises(InputError, match="expected X in an h5ad file"):
        read_obsm(table, "terms")


def test_cross_validation_takes_an_array_as_labels(path: Path, marks: pd.DataFrame) -> None:
    config = CrossvalConfig(folds=3, models=("logistic",))
    named = cross_validate(path, multilabel="obsm:terms", config=config)
    given = cross_validate(path, multilabel=marks, config=config)
    assert named.info["target_names"] == ["GO:1", "GO:2", "GO:3"]
    np.testing.assert_array_equal(named.losses["logistic"], given.losses["logistic"])
