"""A file seen through a model's recipe: genes by name, units as in training, gaps at the mean."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from m1pipe.data.recipe import Recipe, align, name_columns
from m1pipe.data.unit_guess import refuse_counts
from m1pipe.data.units import Units
from m1pipe.data.universe import Universe
from m1pipe.errors import InputError, M1Warning
from m1pipe.io.reader import open_matrix
from m1pipe.io.writer import write_matrix

GENES = ("ENSG00000000001", "ENSG00000000002", "ENSG00000000003", "ENSG00000000004")
LOG_UNITS = Units("log2_normalized1", 100.0)


def _recipe(units: Units = LOG_UNITS) -> Recipe:
    means = np.array([1, 2, 3, 4], np.float32)
    names = pd.DataFrame(index=list(GENES))
    return Recipe(GENES, units, means, names, Universe(GENES, names))


def _anndata(X: np.ndarray, genes: list[str], units: Units) -> anndata.AnnData:
    obs = pd.DataFrame(index=[f"s{i}" for i in range(len(X))])
    return anndata.AnnData(
        X=np.asarray(X, np.float32), obs=obs, var=pd.DataFrame(index=genes), uns=units.to_uns()
    )


def test_genes_are_taken_by_name_in_the_recipes_order() -> None:
    X = np.arange(12, dtype=np.float32).reshape(3, 4)
    shuffled = [3, 1, 0, 2]
    source = _anndata(X[:, shuffled], [f"{GENES[j]}.7" for j in shuffled], LOG_UNITS)
    aligned = align(open_matrix(source), _recipe())
    np.testing.assert_array_equal(aligned.take(np.arange(3)), X)
    np.testing.assert_array_equal(aligned.take(np.array([2, 0, 2])), X[[2, 0, 2]])
    blocks = np.concatenate([block for _, _, block in aligned.blocks(2)])
    np.testing.assert_array_equal(blocks, X)


def test_counts_are_normalised_over_the_recipes_genes_and_logged() -> None:
    counts = np.array([[1, 2, 3, 4, 90], [5, 5, 0, 0, 7]], np.float32)
    aligned = align(open_matrix(_anndata(counts, [*GENES, "OTHER"], Units("counts"))), _recipe())
    own = counts[:, :4]
    expected = np.log2(1 + 100 * own / own.sum(1, keepdims=True))
    np.testing.assert_allclose(aligned.take(np.arange(2)), expected, rtol=1e-6)


def test_missing_genes_stand_at_the_training_mean() -> None:
    X = np.arange(8, dtype=np.float32).reshape(2, 4)
    aligned = align(
        open_matrix(_anndata(X[:, 1:], list(GENES[1:]), LOG_UNITS)), _recipe(), min_coverage=0.7
    )
    assert aligned.match.missing == [GENES[0]]
    np.testing.assert_array_equal(aligned.present, [False, True, True, True])
    expected = X.copy()
    expected[:, 0] = 1
    np.testing.assert_array_equal(aligned.take(np.arange(2)), expected)


def test_too_few_genes_are_refused_with_counts() -> None:
    source = _anndata(np.ones((2, 2)), list(GENES[:2]), LOG_UNITS)
    with pytest.raises(InputError, match=r"80% of the encoder's 4 genes; found 2 \(50\.0%\)"):
        align(open_matrix(source), _recipe())
    align(open_matrix(source), _recipe(), min_coverage=0.5)


def test_units_that_do_not_fit_are_refused_and_named() -> None:
    source = _anndata(np.ones((2, 4)), list(GENES), Units("zscore"))
    with pytest.raises(InputError, match=r"data: units: .*log2_normalized1.*zscore"):
        align(open_matrix(source), _recipe())
    other_sum = _anndata(np.ones((2, 4)), list(GENES), Units("log2_normalized1", 1e6))
    with pytest.raises(InputError, match="target sum"):
        align(open_matrix(other_sum), _recipe())


def test_unknown_units_are_taken_with_one_warning() -> None:
    X = np.ones((2, 4), np.float32)
    with pytest.warns(M1Warning, match="taken as they are") as caught:
        aligned = align(open_matrix((X, GENES)), _recipe())
        for _ in range(3):
            np.testing.assert_array_equal(aligned.take(np.arange(2)), X)
    assert len(caught) == 1


def test_a_sample_without_counts_is_named() -> None:
    counts = np.array([[1, 2, 3, 4], [0, 0, 0, 0]], np.float32)
    aligned = align(open_matrix(_anndata(counts, list(GENES), Units("counts"))), _recipe())
    with pytest.raises(InputError, match="sample 's1'"):
        aligned.take(np.arange(2))


def test_a_value_that_is_not_finite_is_named(tmp_path: Path) -> None:
    X = np.ones((3, 4), np.float32)
    X[2, 1] = np.nan
    source = _anndata(X, list(GENES), LOG_UNITS)
    path = tmp_path / "x.h5ad"
    write_matrix(path, X, obs=source.obs, var=source.var, units=LOG_UNITS)
    with pytest.raises(InputError, match=r"x\.h5ad.*nan.*'s2'.*'ENSG00000000002'"):
        align(open_matrix(path), _recipe()).take(np.array([0, 2]))


def test_symbols_known_in_training_find_genes_later() -> None:
    var = pd.DataFrame({"symbol": list("ABCD"), "length": [1, 2, 3, 4]}, index=list(GENES))
    names = name_columns(var)
    assert list(names.columns) == ["symbol"]
    recipe = Recipe(GENES, LOG_UNITS, np.zeros(4, np.float32), names)
    source = _anndata(np.arange(8).reshape(2, 4), list("DCBA"), LOG_UNITS)
    np.testing.assert_array_equal(
        align(open_matrix(source), recipe).take(np.array([0])), [[3, 2, 1, 0]]
    )


def test_a_recipe_survives_json() -> None:
    stored = _recipe().to_dict()
    again = Recipe.from_dict(stored, _recipe().gene_means)
    assert again.genes == GENES
    assert again.units == LOG_UNITS
    with pytest.raises(ValueError, match="4 genes and 3 means"):
        Recipe.from_dict(stored, np.zeros(3, np.float32))


def test_counts_under_a_gaussian_are_refused_naming_the_way_out() -> None:
    with pytest.raises(InputError, match=r"x\.h5ad: .*found counts.*log2p1.*file of logarithms$"):
        refuse_counts(Units("counts"), [], "x.h5ad")


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        ([[0, 3, 101]], True),
        ([[0, 3, 100]], False),
        ([[0, 3, 101.5]], False),
        ([[-1, 3, 200]], False),
    ],
)
def test_unknown_units_that_look_like_counts_are_refused(
    values: list[list[float]], refused: bool
) -> None:
    blocks = [np.zeros((2, 3), np.float32), np.array(values, np.float32)]
    if refused:
        with pytest.raises(InputError, match=r"whole numbers only.*log2p1"):
            refuse_counts(Units(), blocks, "x.h5ad")
    else:
        refuse_counts(Units(), blocks, "x.h5ad")


def test_linear_units_under_a_gaussian_are_warned_about() -> None:
    with pytest.warns(M1Warning, match="tpm under a Gaussian"):
        refuse_counts(Units("tpm"), [], "x.h5ad")
