from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m1pipe.data.names import canonical_gene, match_genes, pair_samples, require_coverage
from m1pipe.errors import InputError

P53, PTEN, RB1 = "ENSG00000141510", "ENSG00000171862", "ENSG00000139687"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"{P53}.18", P53),
        ("ENSMUSG00000059552.14", "ENSMUSG00000059552"),
        ("ENST00000269305.9", "ENST00000269305"),
        ("ENSG00000182378.15_PAR_Y", "ENSG00000182378_PAR_Y"),
        ("ENST00000269305.9_1", "ENST00000269305.9_1"),
        ("MSTRG.12.3", "MSTRG.12.3"),
        ("RP11-34P13.7", "RP11-34P13.7"),
        ("NM_000546.6", "NM_000546.6"),
        ("TP53", "TP53"),
    ],
)
def test_only_an_ensembl_version_is_stripped(name: str, expected: str) -> None:
    assert canonical_gene(name) == expected


@given(
    wanted=st.lists(st.sampled_from("abcdefghij"), unique=True),
    available=st.lists(st.sampled_from("abcdefghij"), unique=True),
)
@settings(deadline=None)
def test_exact_names_are_found_wherever_they_are(wanted: list[str], available: list[str]) -> None:
    match = match_genes(wanted, available)
    for name, column in zip(wanted, match.columns, strict=True):
        assert (available[column] == name) if column >= 0 else (name not in available)
    assert match.missing == [name for name in wanted if name not in available]
    assert match.n_extra == len(set(available) - set(wanted))
    assert match.coverage == (len(set(wanted) & set(available)) / len(wanted) if wanted else 0)


def test_versions_are_stripped_where_the_exact_name_is_missing() -> None:
    match = match_genes([f"{P53}.1", f"{PTEN}.2", RB1], [f"{PTEN}.2", f"{RB1}.7", f"{P53}.9"])
    assert match.columns.tolist() == [2, 0, 1]
    assert match.how == "1 by exact name, 2 by Ensembl id without version"


def test_exact_name_wins_over_another_version() -> None:
    assert match_genes([f"{P53}.1"], [f"{P53}.2", f"{P53}.1"]).columns.tolist() == [1]


def test_two_versions_of_one_gene_are_refused_where_neither_is_exact() -> None:
    with pytest.raises(InputError, match=f"one version of {P53}"):
        match_genes([P53], [f"{P53}.2", f"{P53}.1"])


def test_symbol_and_entrez_parts() -> None:
    available = ["?|100130426", "TP53|7157", "SLC35E2|728661", "SLC35E2|9906", "PTEN|5728"]
    match = match_genes(["PTEN", "7157", "SLC35E2", "?"], available)
    assert match.columns.tolist() == [4, 1, -1, -1]
    assert match.missing == ["SLC35E2", "?"]
    assert match.how == "2 by symbol or id"


def test_annotations_serve_on_either_side() -> None:
    var = pd.DataFrame({"symbol": ["TP53", "PTEN"], "gene_id": [f"{P53}.3", f"{PTEN}.4"]})
    assert match_genes([PTEN, P53], ["TP53", "PTEN"], available_var=var).columns.tolist() == [1, 0]
    assert match_genes(["p", "q"], ["PTEN", P53], wanted_var=var).columns.tolist() == [1, 0]


def test_an_isoforms_gene_is_not_its_name() -> None:
    available = pd.DataFrame({"gene_id": [P53, P53, PTEN]})
    wanted = pd.DataFrame({"gene_id": [PTEN]})
    match = match_genes(["t9"], ["t1", "t2", "t3"], available_var=available, wanted_var=wanted)
    assert match.columns.tolist() == [-1]


def test_no_available_gene_is_used_twice() -> None:
    match = match_genes(["TP53", "7157"], ["TP53|7157"])
    assert sorted(match.columns.tolist()) == [-1, 0]


def test_duplicates_are_refused_with_their_places() -> None:
    with pytest.raises(InputError, match=r"available genes: .*'b' at positions 2 and 4"):
        match_genes(["a"], ["a", "b", "c", "b"])
    with pytest.raises(InputError, match=r"wanted genes: .*'a' at positions 1 and 2"):
        match_genes(["a", "a"], ["a"])


def test_coverage_is_required_with_counts() -> None:
    match = match_genes(["a", "b", "c", "d"], ["a", "b", "c", "x"])
    require_coverage(match, 0.75, "x.h5ad")
    with pytest.raises(
        InputError, match=r"x.h5ad: .*at least 80% .*4 genes; found 3 \(75.0%\).* d"
    ):
        require_coverage(match, 0.8, "x.h5ad")


def test_no_gene_in_common_is_refused_at_any_coverage() -> None:
    with pytest.raises(InputError, match="found 0"):
        require_coverage(match_genes(["a"], ["b"]), 0.0, "x.h5ad")


@given(
    x=st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=1),
    y=st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=1),
)
@settings(deadline=None)
def test_samples_pair_by_id_in_the_order_of_x(x: list[str], y: list[str]) -> None:
    if not set(x) & set(y):
        with pytest.raises(InputError, match="found none"):
            pair_samples(x, y)
        return
    ix, iy = pair_samples(x, y)
    assert [x[i] for i in ix] == [y[i] for i in iy] == [name for name in x if name in y]
    assert (np.diff(ix) > 0).all()


def test_unpaired_samples_are_named() -> None:
    with pytest.raises(InputError, match=r"X has s1, s2, s3, \.\.\.; Y has t1, t2, t3"):
        pair_samples(["s1", "s2", "s3", "s4"], ["t1", "t2", "t3", "t4"])
    with pytest.raises(InputError, match="samples of Y: expected unique"):
        pair_samples(["a"], ["a", "a"])
    with pytest.raises(
        InputError, match=r"as its columns \(s1, s2\.\.\.\): convert Y with"
    ) as told:
        pair_samples(["s1", "s2"], ["G1", "G2"], y_columns=["s1", "s2"])
    assert "\n" not in str(told.value)


def test_real_names_of_two_kinds_match(test_data) -> None:
    folder = test_data / "tcga_rnaseq_6cancers"
    names = pd.read_csv(folder / "genes.tsv.gz", sep="\t", nrows=0).columns[1:].tolist()
    named = [name for name in names if not name.startswith("?")]
    times = Counter(name.split("|")[0] for name in named)
    unique = sorted(symbol for symbol, n in times.items() if n == 1)[:2000]
    match = match_genes(unique, names)
    assert match.coverage == 1
    assert [names[column].split("|")[0] for column in match.columns] == unique


def test_a_table_of_aliases_serves_either_side() -> None:
    table = {"P53": "TP53", "ENSG00000141510": "TP53", "OLD": "NEW"}
    match = match_genes(["P53", "NEW", "G"], ["ENSG00000141510.4", "OLD", "G"], aliases=table)
    assert match.columns.tolist() == [0, 1, 2] and "2 by alias table" in match.how
    assert match_genes(["P53", "NEW"], ["ENSG00000141510.4", "OLD"]).columns.tolist() == [-1, -1]


def test_an_exact_name_outranks_an_alias_and_a_shared_one_serves_nobody() -> None:
    assert match_genes(["TP53"], ["P53", "TP53"], aliases={"P53": "TP53"}).columns.tolist() == [1]
    twins = {"P53": "TP53", "TRP53": "TP53"}
    assert match_genes(["TP53"], ["P53", "TRP53"], aliases=twins).missing == ["TP53"]


def test_aliases_reach_symbols_of_the_annotations() -> None:
    var = pd.DataFrame({"symbol": ["P53", "B"]}, index=["1", "2"])
    match = match_genes(["TP53"], ["1", "2"], available_var=var, aliases={"P53": "TP53"})
    assert match.columns.tolist() == [0] and "1 by symbol or id" in match.how
