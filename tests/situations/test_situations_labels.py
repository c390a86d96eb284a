"""Labels as people have them, read in one way by everything that takes a column."""

import json
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from said import Said

from m1pipe.data.groups import group_column, recurring_columns, resolve_groups
from m1pipe.data.labels import as_text, label_column, tidy
from m1pipe.data.targets import load_targets
from m1pipe.errors import InputError, M1Warning
from m1pipe.io.reader import open_matrix

Run = Callable[..., Said]
Text = Callable[..., Path]
FOUR = "s\tg1\tg2\n" + "".join(f"s{i}\t{i + 1}\t{9 - i}\n" for i in range(4))


def _obs(m1pipe: Run, text: Text, labels: str) -> tuple[pd.DataFrame, str]:
    source, table = text(FOUR), text(labels, "labels.tsv")
    dest = source.with_name("x.h5ad")
    said = m1pipe("convert", source, dest, "--units", "tpm", "--labels", table, "--force")
    assert said.code == 0, said.err
    return ad.read_h5ad(dest).obs, said.err


KEPT = {
    "clusters": ["1.1", "1.10", "1.2", "2.1"],
    "leading zeros": ["007.5", "7.5", "8.5", "9.5"],
    "wells": ["1E5", "1E05", "2E1", "3.5"],
    "whole numbers": ["101", "102", "103", "104"],
    "dates": ["1.10", "2.10", "3.10", "4.10"],
}


@pytest.mark.parametrize("name", KEPT)
def test_text_stays_as_it_is_unless_it_comes_back(m1pipe: Run, text: Text, name: str) -> None:
    rows = "".join(f"s{i}\t{value}\n" for i, value in enumerate(KEPT[name]))
    obs, _ = _obs(m1pipe, text, f"s\tlabel\n{rows}")
    assert obs["label"].astype(object).tolist() == KEPT[name]


def test_measurements_are_numbers() -> None:
    assert label_column(["1.5", "2", "NA"])[:2].tolist() == [1.5, 2.0]
    many = [f"{x / 10:.2f}" for x in range(100, 140)]
    assert many[1] == "10.10"
    np.testing.assert_allclose(label_column(many), np.arange(100, 140) / 10)


MISSING = ["#N/A", "<NA>", "n/a", "na", "NA", "nan", "NaN", "NULL", "", " ", "\u00a0"]


@pytest.mark.parametrize("word", MISSING)
@pytest.mark.parametrize("kind", ["object", "category", "string"])
def test_missing_words_are_missing_everywhere(word: str, kind: str) -> None:
    values = ["case", "control ", "\u00a0case", word, "control", "case"]
    obs = pd.DataFrame(
        {"status": pd.Series(values, dtype=kind).values}, [f"s{i}" for i in range(6)]
    )
    data = ad.AnnData(np.ones((6, 3), "f4"), obs)
    rows, targets, dropped = load_targets(open_matrix(data), label="status")
    assert rows.tolist() == [0, 1, 2, 4, 5] and dropped == {"samples without status": ["s3"]}
    assert targets.names == ("case", "control") and targets.values.tolist() == [0, 1, 0, 1, 0]
    assert tidy(obs["status"]).isna().tolist() == [False] * 3 + [True] + [False] * 2
    assert label_column(values)[[0, 1, 2, 4]].tolist() == ["case", "control", "case", "control"]


def test_words_and_levels_that_are_doubtful_are_warned_of(m1pipe: Run, text: Text) -> None:
    obs, err = _obs(m1pipe, text, "s\tstatus\ns0\tcontrol\ns1\tcontrol \ns2\t#N/A\ns3\tNone\n")
    assert obs["status"].astype(object).tolist()[:2] == ["control", "control"]
    assert obs["status"].isna().tolist() == [False, False, True, False]
    assert "the level 'None' (1 sample)" in err
    _, err = _obs(m1pipe, text, "s\tstatus\ns0\tControl\ns1\tcontrol\ns2\tcase_1\ns3\tcase 1\n")
    assert "'Control', 'control' differ by case or blanks" in err
    assert "'case 1', 'case_1' differ" in err


def test_unknown_donors_are_not_one_donor() -> None:
    for words in (["nan", "nan"], ["unknown", "unknown"], ["not available", "?"], [np.nan, ""]):
        obs = pd.DataFrame({"donor": ["D1", "D1", *words]}, index=list("abcd"))
        with pytest.warns(M1Warning, match="2 samples have no entry in the column donor"):
            groups = resolve_groups(obs, "donor")
        assert groups is not None
        assert groups[0] == groups[1] and len(set(groups)) == 3, words


@pytest.mark.parametrize(
    "name", ["patient", "Subject", "donor_id", "CASE_ID", "individual", "participant.id", "donor"]
)
def test_groups_are_found_by_their_name(name: str, caplog: pytest.LogCaptureFixture) -> None:
    obs = pd.DataFrame({"tissue": ["a", "b"] * 3, name: ["p1", "p1", "p2", "p2", "p3", "p3"]})
    obs.index = list("uvwxyz")
    assert group_column(obs) == name
    groups = resolve_groups(obs, None)
    assert groups is not None and groups.tolist() == obs[name].tolist()
    assert resolve_groups(obs, "none") is None
    assert (
        group_column(obs.assign(**{name: list("abcdef")}).drop(columns="donor", errors="ignore"))
        is None
        or name == "donor"
    )


def test_columns_that_recur_are_named() -> None:
    obs = pd.DataFrame({"mother": [f"m{i // 3}" for i in range(30)], "sex": ["f", "m"] * 15})
    obs["barcode"] = [f"b{i}" for i in range(30)]
    obs["age"] = np.arange(30) / 2
    obs.index = [f"s{i}" for i in range(30)]
    assert recurring_columns(obs, {"status"}) == ["mother"]
    assert recurring_columns(obs, {"mother"}) == []


def _labelled(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    data = ad.AnnData(rng.normal(5, 1, (60, 12)).astype("f4"))
    data.obs_names = [f"s{i}" for i in range(60)]
    data.var_names = [f"g{j}" for j in range(12)]
    status = ["case" if i % 2 else "control" for i in range(60)]
    data.obs["status"] = pd.Categorical(["nan" if i % 7 == 0 else s for i, s in enumerate(status)])
    data.obs["mother"] = [f"m{i // 3}" for i in range(60)]
    data.obs["code"] = [i % 25 for i in range(60)]
    data.uns["units"] = "log2_tpm1"
    data.write_h5ad(folder / "x.h5ad")
    return folder / "x.h5ad"


def test_a_cross_validation_of_such_labels(m1pipe: Run, tmp_path: Path) -> None:
    x, out = _labelled(tmp_path), tmp_path / "cv"
    ladder = ["--models", "prior,logistic", "--folds", "2"]
    said = m1pipe("crossval", "--x", x, "--label", "status", "--out", out, *ladder)
    assert said.code == 0, said.err
    assert "left out: 9 samples without status (such as s0)" in said.err
    assert "not checked: mother recurs" in said.err
    summary = json.loads((out / "summary.json").read_text())
    assert summary["info"]["classes"] == {"case": 26, "control": 25}
    assert "group_on_both_sides" in summary["info"]["not_checked"]
    assert "not checked: mother recurs" in str(summary["warnings"])
    page = (out / "report.html").read_text()
    assert "Not checked here" in page and "9 samples without status (such as s0)" in page


def test_nearly_lost_pairs_stand_in_the_report(m1pipe: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, ids in (
        ("x", [f"s{i}" for i in range(40)]),
        ("y", [f"s{i}" + " " * (i % 2) for i in range(40)]),
    ):
        data = ad.AnnData(rng.normal(5, 1, (40, 6)).astype("f4"), pd.DataFrame(index=ids))
        data.var_names = [f"g{j}" for j in range(6)]
        data.uns["units"] = "log2_tpm1"
        data.write_h5ad(tmp_path / f"{name}.h5ad")
    files = ["--x", tmp_path / "x.h5ad", "--y", tmp_path / "y.h5ad"]
    out = ["--models", "mean,ridge", "--folds", "2", "--out", tmp_path / "cv"]
    said = m1pipe("crossval", *files, *out)
    assert said.code == 0 and "20 samples are paired" in said.err and "'s1' and 's1 '" in said.err
    summary = json.loads((tmp_path / "cv/summary.json").read_text())
    assert "nearly_paired" in [alarm["name"] for alarm in summary["warnings"]]


def test_codes_are_warned_of_and_can_be_said_to_be_classes(tmp_path: Path) -> None:
    x = open_matrix(_labelled(tmp_path))
    with pytest.warns(M1Warning, match="25 different whole numbers, taken as a level.*code:class"):
        _, targets, _ = load_targets(x, label="code")
    assert targets.kind == "regression"
    _, targets, _ = load_targets(x, label="code:class")
    assert targets.kind == "multiclass" and targets.names[:3] == ("0", "1", "2")
    _, targets, _ = load_targets(x, label="code:level")
    assert targets.kind == "regression"
    with pytest.raises(InputError, match="expected numbers in 'status' for status:level"):
        load_targets(x, label="status:level")


def test_a_column_with_a_colon_is_itself() -> None:
    obs = pd.DataFrame({"a:class": ["x", "y", "x"], "a": [1.5, 2.5, 3.5]}, index=list("uvw"))
    data = open_matrix(ad.AnnData(np.ones((3, 2), "f4"), obs))
    assert load_targets(data, label="a:class")[1].names == ("x", "y")


def test_whole_numbers_with_gaps_keep_their_names() -> None:
    assert as_text(pd.Series([1.0, np.nan, 2.0])).tolist()[::2] == ["1", "2"]


@pytest.mark.parametrize(
    ("names", "example"),
    [
        ([f"s{i}" + " " * (i % 2) for i in range(40)], "'s1' and 's1 '"),
        ([f"S{i}" if i % 2 else f"s{i}" for i in range(40)], "'s1' and 'S1'"),
        ([f"s-{i}" if i % 2 else f"s{i}" for i in range(40)], "'s1' and 's-1'"),
    ],
)
def test_pairs_that_are_nearly_lost_are_warned_of(names: list[str], example: str) -> None:
    def table(ids: list[str]) -> ad.AnnData:
        data = ad.AnnData(np.ones((40, 3), "f4"), pd.DataFrame(index=ids))
        data.uns["units"] = "log2_tpm1"
        return data

    x = open_matrix(table([f"s{i}" for i in range(40)]))
    with pytest.warns(M1Warning, match="20 samples are paired; left out: 20 samples of X") as said:
        load_targets(x, y=open_matrix(table(names)))
    assert example in str(said[0].message)


def test_a_column_of_decimal_commas_is_doubted_or_read(m1pipe: Run, text: Text) -> None:
    x = text("s\tg1\tg2\ns0\t1\t2\ns1\t3\t4\n", "x.tsv")
    labels = text("s;rin\ns0;7,1\ns1;8\n", "labels.csv")
    dest = x.with_name("x.h5ad")
    said = m1pipe("convert", x, dest, "--units", "counts", "--labels", labels)
    assert said.code == 0 and "rin: decimal commas ('7,1') are taken as text" in said.err
    options = ("--decimal", ",", "--force")
    said = m1pipe("convert", x, dest, "--units", "counts", "--labels", labels, *options)
    assert said.code == 0 and said.err == ""
    assert ad.read_h5ad(dest).obs["rin"].tolist() == [7.1, 8]


@pytest.mark.parametrize(
    ("ids", "how"),
    [
        (["TCGA-A1-A0SB", "TCGA-A1-A0SD"], "'TCGA-A1-A0SB' is the beginning of"),
        (["tcga.a1.a0sb.01A", "x"], "differ by blanks, case or marks only"),
    ],
)
def test_ids_in_another_form_are_told(m1pipe: Run, text: Text, ids: list[str], how: str) -> None:
    x = text("s\tg1\nTCGA-A1-A0SB-01A\t1\nTCGA-A1-A0SD-01A\t2\n", "x.tsv")
    labels = text("id\tsex\n" + "".join(f"{name}\tF\n" for name in ids), "labels.tsv")
    said = m1pipe("convert", x, x.with_name("x.h5ad"), "--labels", labels)
    assert said.code == 1 and how in said.err and "name them alike" in said.err


def test_a_table_of_another_index_says_which_column_names_its_rows(m1pipe: Run, text: Text) -> None:
    x = text("s\tg1\ns0\t1\ns1\t2\n", "x.tsv")
    labels = text("patient\tsample\tsex\nP\ts0\tF\nP\ts1\tF\n", "labels.tsv")
    said = m1pipe("convert", x, x.with_name("x.h5ad"), "--labels", labels)
    assert said.code == 1 and "put the column 'sample' first" in said.err
