"""One matrix in every layout reads alike; what cannot be read is refused in one line."""

from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from m1pipe import open_matrix
from m1pipe.data import matrix as matrix_module
from m1pipe.data.matrix import Matrix, check_finite
from m1pipe.data.units import Units
from m1pipe.errors import InputError

RNG = np.random.default_rng(7)
X = np.where(RNG.random((23, 11)) < 0.4, 0, RNG.gamma(1.0, 5.0, (23, 11))).astype(np.float32)
SAMPLES = [f"s{i}" for i in range(23)]
GENES = [f"G{i}" for i in range(11)]
OBS = pd.DataFrame({"tissue": ["liver", "brain", "liver"] * 7 + ["skin"] * 2}, index=SAMPLES)


def _adata(values: object) -> anndata.AnnData:
    return anndata.AnnData(
        X=values, obs=OBS.copy(), var=pd.DataFrame(index=GENES), uns={"units": "tpm"}
    )


def _write_adata(path: Path, values: object, **options: str) -> Path:
    _adata(values).write_h5ad(path, **options)
    return path


def _write_flat(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["expressions"] = X
        file["row_names"] = SAMPLES
        file["col_names"] = np.array(GENES, dtype="S4")
        file["tissue"] = OBS.tissue.tolist()
        file["age"] = np.arange(23)
        file["notes"] = ["not one a row"]
        file.attrs["units"] = "tpm"
    return path


def _write_behind_userblock(path: Path) -> Path:
    with (
        h5py.File(path, "w", userblock_size=1024) as file,
        h5py.File(_write_flat(path.with_suffix(".flat"))) as flat,
    ):
        for key in flat:
            flat.copy(key, file)
    return path


def _write_chunked(path: Path) -> Path:
    _write_adata(path, X)
    with h5py.File(path, "a") as file:
        attributes = dict(file["X"].attrs)
        del file["X"]
        file.create_dataset("X", data=X, chunks=(4, 3), compression="gzip")
        file["X"].attrs.update(attributes)
    return path


SOURCES: dict[str, Callable[[Path], object]] = {
    "frame": lambda _: pd.DataFrame(X, index=SAMPLES, columns=GENES),
    "anndata": lambda _: _adata(X),
    "anndata_sparse": lambda _: _adata(sparse.csr_matrix(X)),
    "anndata_view": lambda _: _adata(np.vstack([X, X[:1]])[:23])[:, GENES],
    "h5ad": lambda path: _write_adata(path, X),
    "h5ad_float64": lambda path: _write_adata(path, X.astype(np.float64)),
    "h5ad_gzip": lambda path: _write_adata(path, X, compression="gzip"),
    "h5ad_chunked": _write_chunked,
    "h5ad_csr": lambda path: _write_adata(path, sparse.csr_matrix(X)),
    "h5ad_csc": lambda path: _write_adata(path, sparse.csc_matrix(X)),
    "flat": _write_flat,
    "flat_behind_userblock": _write_behind_userblock,
}


@pytest.fixture(params=SOURCES)
def matrix(request: pytest.FixtureRequest, tmp_path: Path) -> Matrix:
    return open_matrix(SOURCES[request.param](tmp_path / "matrix.h5ad"))


def test_every_layout_reads_alike(matrix: Matrix) -> None:
    assert matrix.shape == (matrix.n_samples, matrix.n_genes) == X.shape
    assert matrix.samples.tolist() == SAMPLES and matrix.genes.tolist() == GENES
    assert matrix.nbytes == X.nbytes
    for found, expected in [
        (matrix.read(), X),
        (matrix.read(np.array([10, 0, 3])), X[:, [10, 0, 3]]),
        (matrix.rows(5, 9), X[5:9]),
        (matrix.rows(20, 99, np.array([1])), X[20:, [1]]),
        (matrix.rows(3, 3), X[3:3]),
        (matrix.take(np.array([22, 0, 5, 5, 6])), X[[22, 0, 5, 5, 6]]),
        (matrix.take(np.array([4, 2]), np.array([7, 7])), X[[4, 2]][:, [7, 7]]),
        (matrix.take(np.array([], dtype=int)), X[:0]),
    ]:
        assert np.array_equal(found, expected)
        assert found.dtype == np.float32 and found.flags.c_contiguous
    assert repr(matrix).startswith("<Matrix 23 samples x 11 genes, ")


def test_blocks_cover_the_rows_in_order(matrix: Matrix) -> None:
    for n_rows in (1, 4, 23, 100, None):
        blocks = list(matrix.blocks(n_rows))
        assert [b[0] for b in blocks] == [0, *[b[1] for b in blocks][:-1]]
        assert np.array_equal(np.vstack([b[2] for b in blocks]), X)
    (only,) = matrix.blocks(columns=np.array([2, 1]))
    assert np.array_equal(only[2], X[:, [2, 1]])


def test_what_is_read_may_be_changed(matrix: Matrix) -> None:
    for found in (matrix.rows(0, 5), matrix.take(np.arange(5)), matrix.read()):
        found += 1
    assert np.array_equal(matrix.read(), X)


def test_rows_that_are_not_there_are_an_error(matrix: Matrix) -> None:
    for indices in ([23], [-1]):
        with pytest.raises(IndexError, match="outside a matrix with 23 rows"):
            matrix.take(np.array(indices))
    with pytest.raises(IndexError, match="rows -1 to 3"):
        matrix.rows(-1, 3)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    indices=st.lists(st.integers(0, 22), max_size=60), block_bytes=st.sampled_from([1, 200, 1e9])
)
def test_any_rows_in_any_order(tmp_path: Path, indices: list[int], block_bytes: float) -> None:
    path = tmp_path / "chunked.h5ad"
    source = path if path.exists() else _write_chunked(path)
    with pytest.MonkeyPatch.context() as patch, open_matrix(source) as matrix:
        patch.setattr(matrix_module, "BLOCK_BYTES", int(block_bytes))
        assert np.array_equal(matrix.take(np.array(indices, dtype=int)), X[indices])
        assert np.array_equal(matrix.read(), X)


def test_annotations_and_units_come_along(tmp_path: Path) -> None:
    for source in (_write_adata(tmp_path / "a.h5ad", X), _adata(X), _write_flat(tmp_path / "f")):
        matrix = open_matrix(source)
        assert matrix.obs["tissue"].astype(str).tolist() == OBS.tissue.tolist()
        assert matrix.units == Units("tpm")
    assert matrix.layout == "flat" and list(matrix.obs.columns) == ["age", "tissue"]


def test_arrays_with_names_and_frames() -> None:
    matrix = open_matrix((X, GENES))
    assert matrix.samples.tolist() == [str(i) for i in range(23)]
    assert matrix.genes.tolist() == GENES and matrix.units == Units("unknown")
    frame = pd.DataFrame(X, index=range(23), columns=GENES)
    frame.attrs["units"] = "counts"
    assert open_matrix(frame).samples[3] == "3" and open_matrix(frame).units == Units("counts")
    assert open_matrix(matrix) is matrix


def test_closing_closes_the_file(tmp_path: Path) -> None:
    path = _write_adata(tmp_path / "a.h5ad", X)
    with open_matrix(str(path)) as matrix:
        assert matrix.path == path
    with pytest.raises(ValueError, match=r"a\.h5ad is closed"):
        matrix.rows(0, 1)
    with h5py.File(path, "a"):  # HDF5 refuses to write what is still open for reading
        pass


def test_a_backed_anndata_is_read(tmp_path: Path) -> None:
    adata = anndata.read_h5ad(_write_adata(tmp_path / "a.h5ad", X), backed="r")
    assert np.array_equal(open_matrix(adata).read(), X)
    adata.file.close()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(bad: float) -> None:
    values = X.copy()
    values[17, 4] = bad
    matrix = open_matrix(pd.DataFrame(values, index=SAMPLES, columns=GENES))
    check_finite(matrix.rows(0, 17), matrix)
    with pytest.raises(InputError, match=r"found -?(nan|inf) in sample 's17', gene 'G4'"):
        check_finite(matrix.rows(15, 20), matrix, 15)
    rows, columns = np.array([3, 17]), np.array([9, 4])
    with pytest.raises(InputError, match="sample 's17', gene 'G4'"):
        check_finite(matrix.take(rows, columns), matrix, rows, columns=columns)


def test_opposite_infinities_are_found() -> None:
    values = X.copy()
    values[2, :2] = [np.inf, -np.inf]
    matrix = open_matrix((values, GENES))
    with pytest.raises(InputError, match="found inf in sample '2', gene 'G0'"):
        check_finite(values, matrix)


def _refused(tmp_path: Path, make: Callable[[Path], object]) -> str:
    path = tmp_path / "bad.h5ad"
    make(path)
    with pytest.raises(InputError) as caught:
        open_matrix(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


def test_names_that_do_not_fit_the_array_are_refused(tmp_path: Path) -> None:
    def swapped(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file["expressions"] = X
            file["row_names"], file["col_names"] = GENES, SAMPLES

    message = _refused(tmp_path, swapped)
    assert "expected 11 rows x 23 columns by its names; found 23 x 11" in message


def test_values_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    def text(path: Path) -> None:
        _write_flat(path)
        with h5py.File(path, "a") as file:
            del file["expressions"]
            file["expressions"] = [["a", "b"]]

    assert "two-dimensional array of numbers" in _refused(tmp_path, text)


def test_annotations_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    def broken(path: Path) -> None:
        _write_adata(path, X)
        with h5py.File(path, "a") as file:
            del file["obs"]["tissue"]

    assert "obs could not be read" in _refused(tmp_path, broken)


def test_a_damaged_block_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "damaged.h5ad"
    _write_chunked(path)
    with h5py.File(path) as file:
        where = file["X"].id.get_chunk_info(0)
    with open(path, "r+b") as handle:
        handle.seek(where.byte_offset)
        handle.write(b"\0" * where.size)
    with open_matrix(path) as matrix, pytest.raises(InputError, match=r"rows 0 to 2 could not be"):
        matrix.rows(0, 2)


def test_labels_inside_a_frame_are_refused() -> None:
    frame = pd.DataFrame({"G0": [1.0], "tissue": ["liver"]})
    with pytest.raises(InputError, match="found object in column 'tissue'"):
        open_matrix(frame)


def test_other_things_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected a path, AnnData, .* found int"):
        open_matrix(3)
    with pytest.raises(InputError, match="23 samples x 2 genes by the names"):
        open_matrix((X, ["A", "B"]))
    with pytest.raises(InputError, match="its X is None"):
        open_matrix(anndata.AnnData(obs=OBS))
