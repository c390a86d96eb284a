import anndata
import numpy as np
import pandas as pd
import pytest

from m1pipe.errors import InputError, M1Warning
from m1pipe.figures.samples import choose_genes, draw_rows, is_number, load_pair


def test_genes_are_matched_and_nothing_is_drawn_from_few_samples(expression):
    real, made = expression(30, 12), expression(20, 12, seed=1)
    shuffled = made[:, ::-1].copy()
    pair = load_pair(real, shuffled, label="tissue")
    np.testing.assert_array_equal(pair.synthetic, made.X)
    assert pair.genes.tolist() == real.var_names.tolist()
    assert pair.unit == "log2(normalized + 1)"
    assert pair.drawn == ""
    assert [part.tolist() for part in pair.labels] == [
        real.obs["tissue"].tolist(),
        made.obs["tissue"].tolist(),
    ]


def test_of_many_samples_some_are_drawn_and_the_title_says_so(expression):
    real, made = expression(30, 12), expression(8, 12, seed=1)
    pair = load_pair(real, made, max_samples=10, seed=3)
    assert pair.drawn == "10 of 30 real samples drawn, seed 3"
    np.testing.assert_array_equal(pair.real, real.X[draw_rows(30, 10, 3)])
    assert len(np.unique(draw_rows(30, 10, 3))) == 10
    assert not np.array_equal(draw_rows(30, 10, 3), draw_rows(30, 10, 4))


def test_logarithms_are_taken_once_of_what_is_linear_and_never_of_logarithms(expression):
    logs = expression(20, 12)
    linear = logs.copy()
    linear.X = np.exp2(logs.X) - 1
    linear.uns["units"] = "normalized"
    once = load_pair(linear, linear)
    np.testing.assert_allclose(once.real, logs.X, atol=1e-4)
    np.testing.assert_array_equal(load_pair(logs, logs).real, logs.X)
    assert once.unit == load_pair(logs, logs).unit == "log2(normalized + 1)"
    counts = expression(20, 12, counts=True)
    assert load_pair(counts, counts).unit == "log2(counts + 1)"


def test_what_does_not_fit_is_refused(expression):
    real, counts = expression(20, 12), expression(20, 12, counts=True)
    with pytest.raises(InputError, match="expected the same in both files"):
        load_pair(real, counts)
    other = real.copy()
    other.var_names = [f"x{i}" for i in range(12)]
    other.var = other.var.drop(columns="symbol")
    with pytest.raises(InputError, match="synthetic samples against the real ones"):
        load_pair(real, other)
    with pytest.raises(InputError, match=r"label: expected a column of .*tissue.*; found 'organ'"):
        load_pair(real, real, label="organ")
    with pytest.raises(InputError, match=r"expected names such as ENSG.*; found 'TP53'"):
        choose_genes(load_pair(real, real).genes, ["TP53"])
    holed = real.copy()
    holed.X[3, 4] = np.nan
    with pytest.raises(InputError, match="sample 's0_3'"):
        load_pair(real, holed)
    with pytest.warns(M1Warning, match="taken as classes"):
        load_pair(real, real, label="factor")
    many = anndata.concat([real] * 11, index_unique="-")
    many.uns = real.uns
    many.obs["factor"] = np.arange(len(many), dtype=float)
    with (
        pytest.warns(M1Warning, match="taken as classes"),
        pytest.raises(InputError, match="at most 200 classes; found 220"),
    ):
        load_pair(many, many, label="factor")


def test_numbers_are_shades_where_they_are_many():
    assert is_number(pd.Series(np.arange(20.0)))
    assert not is_number(pd.Series([0, 1] * 10))
    assert not is_number(pd.Series([True, False] * 10))
    assert not is_number(pd.Series([f"d{i}" for i in range(20)]))
