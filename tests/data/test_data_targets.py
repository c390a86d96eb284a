from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from m1pipe.data.matrix import Matrix
from m1pipe.data.targets import Targets, load_targets, own_columns, read_own_genes
from m1pipe.data.units import Units
from m1pipe.errors import InputError
from m1pipe.io.reader import open_matrix
from m1pipe.io.writer import write_matrix


def make_matrix(samples: list[str], n_columns: int = 3, **obs: object) -> Matrix:
    anndata = pytest.importorskip("anndata")
    values = np.arange(len(samples) * n_columns, dtype=np.float32).reshape(-1, n_columns)
    frame = pd.DataFrame(obs, index=samples)
    var = pd.DataFrame(index=[f"t{i}" for i in range(n_columns)])
    return open_matrix(anndata.AnnData(values, obs=frame, var=var, uns={"units": "log2_tpm1"}))


def test_levels_pair_by_sample_id_in_the_order_of_x() -> None:
    x = make_matrix(["a", "b", "c", "d"])
    y = make_matrix(["d", "z", "a", "c"])
    rows, targets, dropped = load_targets(x, y=y)
    assert rows.tolist() == [0, 2, 3]
    np.testing.assert_array_equal(targets.values, y.read()[[2, 3, 0]])
    assert targets.kind == "regression"
    assert targets.names == ("t0", "t1", "t2")
    assert (targets.n, targets.n_outputs, targets.is_classes) == (3, 3, False)
    assert targets.units == Units("log2_tpm1")
    assert dropped == {"samples of X without Y": ["b"], "samples of Y without X": ["z"]}


def test_levels_from_a_file_and_a_choice_of_them(tmp_path: Path) -> None:
    path = tmp_path / "y.h5ad"
    y = make_matrix(["a", "b"])
    write_matrix(path, y.read(), obs=y.obs, var=y.var, units=y.units)
    with open_matrix(path) as levels:
        _, targets, dropped = load_targets(make_matrix(["a", "b"]), y=levels, targets=["t2", "t0"])
    assert targets.names == ("t2", "t0")
    np.testing.assert_array_equal(targets.values, [[2, 0], [5, 3]])
    assert dropped == {}


def test_many_blocks_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m1pipe.data.targets._BLOCK_BYTES", 24)
    samples = [f"s{i}" for i in range(11)]
    y = make_matrix(samples[::-1])
    _, targets, _ = load_targets(make_matrix(samples), y=y)
    np.testing.assert_array_equal(targets.values, y.read()[::-1])


def test_levels_that_cannot_be_used_are_refused() -> None:
    x = make_matrix(["a", "b"])
    with pytest.raises(InputError, match="found none: X has a, b"):
        load_targets(x, y=make_matrix(["c"]))
    with pytest.raises(InputError, match=r"3 columns \(t0, t1, t2, .*\) or their genes; found t9"):
        load_targets(x, y=make_matrix(["a"]), targets=["t0", "t9"])
    with pytest.raises(InputError, match="targets: expected unique names"):
        load_targets(x, y=make_matrix(["a"]), targets=["t0", "t0"])
    values = pd.DataFrame([[1.0, np.nan]], index=["b"], columns=["t0", "t1"])
    with pytest.raises(InputError, match="sample 'b', gene 't1'"):
        load_targets(x, y=open_matrix(values))


def test_two_classes_are_binary_and_the_second_is_positive() -> None:
    x = make_matrix(["a", "b", "c"], status=pd.Categorical(["well", "ill", "well"]))
    rows, targets, _ = load_targets(x, label="status")
    assert rows.tolist() == [0, 1, 2]
    assert (targets.kind, targets.names, targets.n_outputs) == ("binary", ("ill", "well"), 1)
    assert targets.values.tolist() == [1, 0, 1]
    assert targets.values.dtype == np.int64


def test_several_classes() -> None:
    x = make_matrix(["a", "b", "c", "d"], cell=["T", "B", "NK", "B"])
    _, targets, _ = load_targets(x, label="cell")
    assert (targets.kind, targets.names, targets.n_outputs) == ("multiclass", ("B", "NK", "T"), 3)
    assert targets.values.tolist() == [2, 0, 1, 0]
    assert targets.take(np.array([3, 0])).values.tolist() == [0, 2]


def test_samples_without_a_label_are_dropped_and_counted() -> None:
    x = make_matrix(["a", "b", "c", "d", "e"], status=["x", None, "y", "", " "])
    rows, targets, dropped = load_targets(x, label="status")
    assert rows.tolist() == [0, 2]
    assert targets.values.tolist() == [0, 1]
    assert dropped == {"samples without status": ["b", "d", "e"]}


@pytest.mark.parametrize(
    ("column", "names", "codes"),
    [
        ([1, 0, 1], ("0", "1"), [1, 0, 1]),
        ([2.0, np.nan, 10.0], ("2", "10"), [0, 1]),
        ([True, False, True], ("False", "True"), [1, 0, 1]),
        (pd.array([True, None, False], dtype="boolean"), ("False", "True"), [1, 0]),
        (pd.Categorical([3, 1, 20]), ("1", "3", "20"), [1, 0, 2]),
        (pd.array([7, None, 5], dtype="Int64"), ("5", "7"), [1, 0]),
        (pd.array(["y", None, "x"], dtype="string"), ("x", "y"), [1, 0]),
    ],
)
def test_whole_numbers_are_classes_in_their_own_order(
    column: object, names: tuple[str, ...], codes: list[int]
) -> None:
    _, targets, _ = load_targets(make_matrix(["a", "b", "c"], status=column), label="status")
    assert targets.names == names
    assert targets.values.tolist() == codes


@pytest.mark.parametrize("ages", [np.arange(30) / 2, np.arange(30)])
def test_numbers_that_are_no_codes_are_a_level(ages: np.ndarray) -> None:
    x = make_matrix([f"s{i}" for i in range(30)], age=ages)
    _, targets, _ = load_targets(x, label="age:level")
    assert (targets.kind, targets.names, targets.values.shape) == ("regression", ("age",), (30, 1))
    np.testing.assert_array_equal(targets.values[:, 0], ages)


def test_labels_that_cannot_be_used_are_refused() -> None:
    x = make_matrix(["a", "b"], status=["x", "x"], empty=["", None], batch=[1, 2])
    with pytest.raises(InputError, match=r"status, empty, batch\); found 'tissue'"):
        load_targets(x, label="tissue")
    with pytest.raises(InputError, match="at least two classes in 'status'; found only 'x'"):
        load_targets(x, label="status")
    with pytest.raises(InputError, match="value of 'empty' for some samples; found none"):
        load_targets(x, label="empty")
    with pytest.raises(InputError, match="expected finite numbers"):
        load_targets(make_matrix(["a", "b"], age=[1.0, np.inf]), label="age")


def test_multilabel() -> None:
    x = make_matrix(["a", "b"])
    labels = pd.DataFrame([[0, 1], [1, 1]], index=["b", "a"], columns=["p", "q"])
    _, targets, _ = load_targets(x, multilabel=open_matrix(labels))
    assert (targets.kind, targets.n_outputs, targets.is_classes) == ("multilabel", 2, False)
    np.testing.assert_array_equal(targets.values, [[1, 1], [0, 1]])
    with pytest.raises(InputError, match="expected zeros and ones; found 2 in t2"):
        load_targets(x, multilabel=make_matrix(["a"]))


def test_exactly_one_source_is_needed() -> None:
    x = make_matrix(["a", "b"], status=["x", "y"])
    for given in ({}, {"y": x, "label": "status"}):
        with pytest.raises(InputError, match="expected one of y, label"):
            load_targets(x, **given)
    with pytest.raises(InputError, match="targets chooses columns of y"):
        load_targets(x, label="status", targets=["t0"])


def test_targets_default_to_unknown_units() -> None:
    assert Targets("binary", np.array([0, 1]), ("a", "b")).units == Units()


def test_isoforms_name_their_genes_and_a_gene_means_its_isoforms() -> None:
    y = make_matrix(["a", "b"], 4)
    y.var["gene_id"] = ["g1", "g2", "g1", "g3"]
    _, targets, _ = load_targets(make_matrix(["a", "b"]), y=y)
    assert targets.genes == ("g1", "g2", "g1", "g3")
    _, chosen, _ = load_targets(make_matrix(["a", "b"]), y=y, targets=["g1", "t1"])
    assert chosen.names == ("t0", "t2", "t1")
    assert chosen.genes == ("g1", "g1", "g2")


def test_own_genes_are_matched_by_name_and_missing_ones_are_said() -> None:
    x = make_matrix(["a", "b"], 3)
    x.var.index = ["ENSG00000000002.4", "ENSG00000000009.1", "ENSG00000000001.1"]
    genes = ("ENSG00000000001", "ENSG00000000002.7", "ENSG00000000003", "nan", "ENSG00000000001")
    columns = own_columns(genes, x.genes.tolist(), x.var)
    assert columns.tolist() == [2, 0, -1, -1, 2]
    own = read_own_genes(columns, x, np.array([1]))
    assert own.column.tolist() == [1, 0, -1, -1, 1]
    np.testing.assert_array_equal(own.values, x.read()[1:][:, [0, 2]])
    assert own.has.tolist() == [0, 1, 4]
