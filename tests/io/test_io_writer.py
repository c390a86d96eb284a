"""What is written is plain h5ad that anndata reads; what fails leaves nothing behind."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m1pipe.data.units import Units
from m1pipe.errors import InputError, M1Warning
from m1pipe.io.reader import open_matrix
from m1pipe.io.writer import MatrixWriter, write_matrix

UNITS = Units("log2_normalized1", 1e4)
X = np.random.default_rng(3).normal(5, 1, (9, 4)).astype(np.float32)
OBS = pd.DataFrame(
    {
        "tissue": ["liver", "brain", None] * 3,
        "donor": ["101", "7", "7"] * 3,
        "age": np.linspace(20, 60, 9),
        "dead": [True, False, False] * 3,
        "mixed": ["a", 1, 2.5] * 3,
        "empty": [None] * 9,
    },
    index=[f"s{i}" for i in range(9)],
)
VAR = pd.DataFrame({"gene_id": list("aabb")}, index=["T1", "T2", "T3", "T4"])


def _write(path: Path, **options: object) -> Path:
    write_matrix(path, X, **{"obs": OBS, "var": VAR, "units": UNITS, **options})  # type: ignore
    return path


def test_anndata_reads_it_back(tmp_path: Path) -> None:
    adata = anndata.read_h5ad(_write(tmp_path / "m.h5ad"))
    assert np.array_equal(adata.X, X) and adata.X.dtype == np.float32
    assert adata.obs_names.tolist() == OBS.index.tolist()
    assert adata.var["gene_id"].tolist() == list("aabb")
    assert adata.uns["units"] == "log2_normalized1" and adata.uns["target_sum"] == 1e4
    assert adata.obs["tissue"].isna().tolist() == [False, False, True] * 3
    assert adata.obs["tissue"].cat.categories.tolist() == ["brain", "liver"]
    assert adata.obs["donor"].astype(str).tolist() == ["101", "7", "7"] * 3
    assert adata.obs["mixed"].astype(str).tolist() == ["a", "1", "2.5"] * 3
    assert adata.obs["empty"].isna().all()
    assert np.array_equal(adata.obs["age"], OBS["age"])
    assert adata.obs["dead"].tolist() == OBS["dead"].tolist()


def test_the_values_lie_contiguous_and_uncompressed(tmp_path: Path) -> None:
    with h5py.File(_write(tmp_path / "m.h5ad")) as file:
        values = file["X"]
        assert values.chunks is None and values.compression is None
        assert values.id.get_offset() is not None
    assert [p.name for p in tmp_path.iterdir()] == ["m.h5ad"]
    assert (tmp_path / "m.h5ad").stat().st_size < 200_000  # what was reserved is given back


def test_open_matrix_reads_it_back(tmp_path: Path) -> None:
    with open_matrix(_write(tmp_path / "m.h5ad")) as matrix:
        assert np.array_equal(matrix.read(), X) and matrix.units == UNITS


def test_names_that_are_numbers_become_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({3: ["x"] * 9}, index=range(9))
    adata = anndata.read_h5ad(_write(tmp_path / "m.h5ad", obs=frame))
    assert adata.obs_names[4] == "4" and adata.obs.columns.tolist() == ["3"]


def test_columns_of_other_kinds_are_written(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "when": pd.to_datetime(["2020-01-31"] * 9),
            "count": pd.array([1, None, 3] * 3, dtype="Int64"),
            "known": pd.array([True, None, False] * 3, dtype="boolean"),
            "text": pd.array(["u", None, "v"] * 3, dtype="string"),
            "id": list("abcdefghi"),
        },
        index=pd.Index(OBS.index, name="id"),
    )
    obs = anndata.read_h5ad(_write(tmp_path / "m.h5ad", obs=frame)).obs
    assert obs["when"].astype(str).tolist() == ["2020-01-31"] * 9
    assert obs["count"].sum() == 12 and obs["known"].isna().sum() == 3
    assert obs["text"].cat.categories.tolist() == ["u", "v"]
    assert obs["id"].tolist() == list("abcdefghi") and obs.index.tolist() == OBS.index.tolist()


def test_names_of_columns_that_hdf5_cannot_hold(tmp_path: Path) -> None:
    with pytest.warns(M1Warning, match="renamed for HDF5: a/b -> a_b"):
        path = _write(tmp_path / "m.h5ad", obs=OBS.rename(columns={"age": "a/b"}))
    assert "a_b" in anndata.read_h5ad(path).obs
    for columns, reason in [
        ({"age": "_index"}, "'_index' is reserved"),
        ({"age": "tissue"}, "sample columns: expected each once; found 'tissue' again"),
    ]:
        with pytest.raises(InputError, match=reason):
            _write(tmp_path / "other.h5ad", obs=OBS.rename(columns=columns))


def test_a_table_without_columns_is_written(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.h5ad", obs=OBS[[]], var=VAR[[]])
    assert anndata.read_h5ad(path).obs.shape == (9, 0)


def test_the_tables_given_are_left_as_they_are(tmp_path: Path) -> None:
    before = OBS.copy(deep=True)
    _write(tmp_path / "m.h5ad")
    pd.testing.assert_frame_equal(OBS, before)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=st.lists(st.integers(0, 9), max_size=4), reverse=st.booleans())
def test_blocks_may_come_in_any_order(tmp_path: Path, cuts: list[int], reverse: bool) -> None:
    edges = [0, *sorted(cuts), 9]
    pairs = list(pairwise(edges))
    path = tmp_path / "m.h5ad"
    with MatrixWriter(path, obs=OBS, var=VAR, units=UNITS, force=True) as writer:
        for start, stop in reversed(pairs) if reverse else pairs:
            writer.write(start, X[start:stop].astype(np.float64))
    assert np.array_equal(anndata.read_h5ad(path).X, X)


def test_rows_that_were_forgotten_are_our_fault_and_leave_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="4 of 9 rows were written"),
        MatrixWriter(tmp_path / "m.h5ad", obs=OBS, var=VAR, units=UNITS) as writer,
    ):
        writer.write(0, X[:4])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError])
def test_an_exception_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with (
        pytest.raises(error),
        MatrixWriter(tmp_path / "m.h5ad", obs=OBS, var=VAR, units=UNITS) as writer,
    ):
        writer.write(0, X)
        raise error
    assert list(tmp_path.iterdir()) == []


def test_an_exception_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.h5ad")
    before = path.read_bytes()
    with (
        pytest.raises(KeyboardInterrupt),
        MatrixWriter(path, obs=OBS, var=VAR, units=UNITS, force=True) as writer,
    ):
        writer.write(0, X + 1)
        raise KeyboardInterrupt
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_existing_files_are_replaced_only_by_force(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.h5ad")
    with pytest.raises(InputError, match=r"m\.h5ad exists already.*force"):
        _write(path)
    write_matrix(path, X + 1, obs=OBS, var=VAR, units=UNITS, force=True)
    assert np.array_equal(anndata.read_h5ad(path).X, X + 1)


@pytest.mark.parametrize("which", ["obs", "var"])
def test_repeated_names_are_refused(tmp_path: Path, which: str) -> None:
    frame = {"obs": OBS, "var": VAR}[which]
    frame = frame.set_axis([*frame.index[:-1], frame.index[0]])
    with pytest.raises(InputError, match=f"'{frame.index[0]}'"):
        _write(tmp_path / "m.h5ad", **{which: frame})
    assert list(tmp_path.iterdir()) == []


def test_a_shape_that_does_not_fit_is_our_fault(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"X is \(8, 4\); obs and var say \(9, 4\)"):
        write_matrix(tmp_path / "m.h5ad", X[:8], obs=OBS, var=VAR, units=UNITS)


def test_half_precision_is_for_logs_that_fit(tmp_path: Path) -> None:
    path = tmp_path / "m.h5ad"
    with MatrixWriter(path, obs=OBS, var=VAR, units=UNITS, dtype="float16") as writer:
        writer.write(0, X)
    assert anndata.read_h5ad(path).X.dtype == np.float16
    np.testing.assert_allclose(open_matrix(path).read(), X, rtol=1e-3)
    with pytest.raises(InputError, match="float16 holds log units only; found cpm"):
        MatrixWriter(path, obs=OBS, var=VAR, units=Units("cpm"), dtype="float16", force=True)
    with (
        pytest.raises(InputError, match="too large for float16"),
        MatrixWriter(path, obs=OBS, var=VAR, units=UNITS, dtype="float16", force=True) as writer,
    ):
        writer.write(0, X * 1e5)


def test_more_than_the_disk_holds_is_refused_at_once(tmp_path: Path) -> None:
    obs = pd.DataFrame(index=pd.RangeIndex(10**6).astype(str))
    var = pd.DataFrame(index=pd.RangeIndex(10**6).astype(str))
    with (
        pytest.raises(InputError, match=r"needs 4,000,000\.00 MB; the disk has"),
        MatrixWriter(tmp_path / "m.h5ad", obs=obs, var=var, units=UNITS),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


FILLS_THE_DISK = """
import resource, sys
import numpy as np, pandas as pd
from m1pipe.data.units import Units
from m1pipe.io.writer import write_matrix
from m1pipe.errors import InputError, M1Warning
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
X = np.ones((30000, 100), dtype=np.float32)
obs, var = (pd.DataFrame(index=pd.RangeIndex(n).astype(str)) for n in X.shape)
try:
    write_matrix(sys.argv[1], X, obs=obs, var=var, units=Units("zscore"))
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [100, 20_000, 2_000_000, 2_600_000, 3_000_000])
def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, limit: int) -> None:
    # The limit on a file's size stands in for a full disk: writing fails in the same places.
    script = [sys.executable, "-c", FILLS_THE_DISK, str(tmp_path / "m.h5ad"), str(limit)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "could not be written, nothing is left of it" in done.stdout
    assert list(tmp_path.iterdir()) == []
