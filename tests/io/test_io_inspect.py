"""What inspect says is what numpy and pandas find, in lines of 80 columns."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from m1pipe.cli.main import run
from m1pipe.data.matrix import Matrix
from m1pipe.data.survey import survey
from m1pipe.data.units import Units
from m1pipe.io.inspect import column_words, guess_scale, inspect_matrix, overlap
from m1pipe.io.reader import open_matrix
from m1pipe.io.writer import write_matrix

RNG = np.random.default_rng(5)
X = np.where(RNG.random((60, 25)) < 0.3, 0, RNG.lognormal(2, 1, (60, 25))).astype(np.float32)
OBS = pd.DataFrame(
    {
        "tissue": RNG.choice(["a very long name of a tissue, of the kind people use", "brain"], 60),
        "donor": RNG.choice([f"donor{i}" for i in range(30)], 60),
        "age": RNG.uniform(20, 90, 60),
    },
    index=[f"s{i}" for i in range(60)],
)
VAR = pd.DataFrame({"symbol": [f"SYM{i}" for i in range(25)]}, index=[f"G{i}" for i in range(25)])


def _matrix(values: np.ndarray, units: str = "unknown") -> Matrix:
    frame = pd.DataFrame(values, index=[f"s{i}" for i in range(len(values))]).add_prefix("G")
    frame.attrs["units"] = units
    return open_matrix(frame)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_matrix(tmp_path / "x.h5ad", X, obs=OBS, var=VAR, units=Units("tpm"))
    return tmp_path / "x.h5ad"


def test_the_survey_finds_what_numpy_finds() -> None:
    values = X.copy()
    values[3, 4], values[5, 6], values[7, :2] = np.nan, np.inf, -1.5
    for n_rows in (1, 7, 100):
        found = survey(_matrix(values).blocks(n_rows), 60, 25)
        np.testing.assert_allclose(found.totals, np.nansum(values, axis=1, dtype=float))
        assert (found.minimum, found.maximum) == (np.nanmin(values), np.inf)
        assert found.n_zero == (values == 0).sum() and found.n_negative == 2
        assert (found.n_missing, found.n_infinite, found.n_values) == (1, 1, 1500)
        assert not found.whole and (found.ones == -1).all()


def test_the_survey_finds_columns_of_zeros_and_ones() -> None:
    values = RNG.integers(0, 9, (60, 25)).astype(np.float32)
    values[:, 7] = np.arange(60) % 3 == 0
    values[:, 9] = 0
    found = survey(_matrix(values).blocks(7), 60, 25)
    assert found.whole and found.ones[7] == 20 and found.ones[9] == 0
    assert (np.delete(found.ones, [7, 9]) == -1).all()


def test_the_inspection_of_a_file(path: Path) -> None:
    with open_matrix(path) as matrix:
        report = inspect_matrix(matrix)
    assert (report.layout, report.shape, report.units) == ("h5ad", (60, 25), Units("tpm"))
    assert report.looks_like == "linear" and report.doubts == ()
    np.testing.assert_allclose(report.sums, np.quantile(X.sum(axis=1), [0, 0.05, 0.5, 0.95, 1]))
    text = str(report)
    assert f"zeros {(X == 0).mean():.1%}" in text and "60 samples x 25 genes" in text
    assert "and 1" in report.obs["donor"] and report.var["symbol"] == "25 different values"
    assert max(map(len, text.splitlines())) <= 80 and text.isascii()


def test_levels_come_with_their_numbers() -> None:
    column = pd.Series(["b", "a", "b", None, "c", "b", "a"], dtype="category")
    assert column_words(column) == "3 levels: b (3), a (2), c (1); 1 missing"
    assert column_words(pd.Series([True, False, True])) == "2 levels: True (2), False (1)"
    assert column_words(pd.Series(["x"] * 4)) == "1 level: x (4)"
    assert column_words(pd.Series([1.0, np.nan, 4.0])) == "1 to 4, median 2.5; 1 missing"
    assert column_words(pd.Series([np.nan])) == "all missing"


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (RNG.poisson(5, (9, 4)), "counts"),
        (np.log2(1 + X), "log"),
        (X, "linear"),
        (RNG.normal(size=(9, 4)), "signed"),
        (np.full((2, 2), np.nan), "empty"),
    ],
)
def test_scales_are_guessed(values: np.ndarray, scale: str) -> None:
    found = survey(_matrix(values.astype(np.float32)).blocks(), *values.shape)
    assert guess_scale(found) == scale


@pytest.mark.parametrize(
    ("values", "units", "doubt"),
    [
        (X, "unknown", "units are not recorded; the values look like linear"),
        (X, "counts", "units are counts; the values look like linear"),
        (X * 100, "log2_tpm1", "is too large for a logarithm"),
        (np.log2(1 + X), "tpm", "tpm, a linear scale; the values look like log"),
        (X * np.nan, "tpm", "there are no values"),
        (np.where(X > 50, np.nan, X), "tpm", "values are missing"),
        (X * (np.arange(60) > 1)[:, None], "tpm", "2 samples are zero throughout, such as 's0'"),
        (np.c_[X, X[:, 0] > 0], "tpm", "0 and 1 only: 1 gene, such as 'G25'"),
    ],
)
def test_doubts(values: np.ndarray, units: str, doubt: str) -> None:
    report = inspect_matrix(_matrix(values.astype(np.float32), units))
    assert any(doubt in found for found in report.doubts), report.doubts


def test_hardly_sequenced_samples_are_a_doubt() -> None:
    values = RNG.poisson(50, (60, 25)).astype(np.float32)
    values[4], values[4, 0], values[9] = 0, 3, 0
    doubt = "1 sample has less than 1% of the median depth, such as 's4'"
    assert doubt in inspect_matrix(_matrix(values, "counts")).doubts
    matrix = _matrix(np.log2(1 + values), "log2_cpm1")
    assert doubt not in inspect_matrix(matrix).doubts
    matrix.obs["total_counts"] = values.sum(axis=1)
    assert doubt in inspect_matrix(matrix).doubts


def test_names_that_come_twice_are_a_doubt_and_no_failure() -> None:
    matrix = open_matrix((X[:, :3], ["A", "B", "A"]))
    assert "1 gene names come more than once, such as 'A'" in str(inspect_matrix(matrix))
    assert "cannot be matched" in overlap(matrix, matrix)


def test_the_overlap_of_two_matrices(path: Path) -> None:
    other = pd.DataFrame(X[:, 5:], index=[f"s{i}" for i in range(50, 110)])
    other.columns = [f"G{i}" for i in range(20, 40)]
    other.attrs["units"] = "cpm"
    with open_matrix(path) as matrix:
        shared = overlap(matrix, open_matrix(other))
        again = overlap(matrix, matrix)
    said = " ".join(shared.split())
    assert (
        "5 of 20 (25.0%) are here: 5 by exact name; missing such as G25, G26, G27; 20 more" in said
    )
    assert "10 ids are in both" in said and "DIFFERENT: tpm here, cpm there" in said
    assert "25 of 25 (100.0%)" in again and "60 ids" in again and "the same: tpm" in again


@pytest.mark.parametrize(
    ("here", "there", "said"),
    [
        ("counts", "log2_tpm1", "DIFFERENT"),
        ("counts", "log2_cpm1", "the counts are converted by train --thin-to"),
        ("log2_cpm1", "counts", "the counts are converted by train --thin-to"),
        ("cpm", "log2_cpm1", "crossval and predict convert them"),
        ("cpm", "unknown", "say them by convert --units"),
    ],
)
def test_units_that_differ_are_told_with_what_becomes_of_it(
    here: str, there: str, said: str
) -> None:
    both = [_matrix(np.ones((3, 2), dtype=np.float32), name) for name in (here, there)]
    line = " ".join(str(overlap(*both)).split())
    assert f"{both[0].units} here, {both[1].units} there" in line and said in line


def test_isoforms_are_counted_by_their_genes(path: Path) -> None:
    var = pd.DataFrame({"gene_id": ["G1", "G1", "G2", "H"]}, index=["T1", "T2", "T3", "T4"])
    write_matrix(path.parent / "y.h5ad", X[:, :4], obs=OBS, var=var, units=Units("tpm"))
    with open_matrix(path) as genes, open_matrix(path.parent / "y.h5ad") as isoforms:
        said = " ".join(overlap(isoforms, genes).split())
        assert "isoform" not in overlap(genes, genes)
    assert "these are isoforms, the others genes" in said
    assert "the gene of 3 of 4 columns here (gene_id) is there" in said


def test_the_command(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(path), "--against", str(path)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "25 of 25 (100.0%) are here: 25 by exact name" in captured.out
    assert "60 ids are in both" in captured.out


@pytest.mark.slow
def test_real_sets(test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = test_data / "sc_pbmc_kang12k"
    command = ["convert", str(folder / "genes.tsv.gz"), str(tmp_path / "x.h5ad")]
    assert run([*command, "--units", "counts", "--labels", str(folder / "labels.tsv")]) == 0
    assert run(["inspect", str(tmp_path / "x.h5ad")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "12,261 samples x 1,287 genes" in out and "the values look like counts" in out
    assert "8 levels: CD4 T cells (5,154), CD14+ Monocytes (2,770)" in out
    assert "101 (858), 107 (517), 1039 (408)" in out and "doubt" not in out
