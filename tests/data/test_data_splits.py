import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from m1pipe.data.groups import resolve_groups
from m1pipe.data.splits import inner_split, make_folds
from m1pipe.errors import InputError, M1Warning


def codes(n_values: int) -> Any:
    return st.lists(st.integers(0, n_values - 1), min_size=12, max_size=60).map(np.array)


def quiet_folds(*args: Any, **kwargs: Any) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", M1Warning)
        return make_folds(*args, **kwargs)


def renamed(values: np.ndarray, seed: int) -> np.ndarray:
    names = np.random.default_rng(seed).permutation([f"name {i}" for i in range(100)])
    return names[values]


options = {
    "n_folds": st.integers(2, 5),
    "repeats": st.integers(1, 3),
    "seed": st.integers(0, 2**63 - 1),
}


@given(**options, strata=codes(4), grouped=st.booleans(), stratified=st.booleans())
@settings(deadline=None)
def test_folds_cover_are_reproducible_and_do_not_see_names(
    n_folds: int, repeats: int, seed: int, strata: np.ndarray, grouped: bool, stratified: bool
) -> None:
    groups = np.random.default_rng(seed).integers(0, 9, strata.size)
    assume(np.unique(groups).size >= n_folds)
    given_ = {"strata": strata if stratified else None, "groups": groups if grouped else None}
    folds = quiet_folds(n_folds, repeats, seed, n=strata.size, **given_)
    assert folds.shape == (repeats, strata.size)
    for row in folds:
        assert set(row) == set(range(n_folds))  # a number per sample: disjoint and covering
        if grouped:
            assert pd.Series(row).groupby(groups).nunique().max() == 1
    np.testing.assert_array_equal(
        folds, quiet_folds(n_folds, repeats, seed, n=strata.size, **given_)
    )
    other = {k: None if v is None else renamed(v, seed % 100) for k, v in given_.items()}
    np.testing.assert_array_equal(
        folds, quiet_folds(n_folds, repeats, seed, n=strata.size, **other)
    )


@given(strata=codes(3), n_folds=st.integers(2, 4), seed=st.integers(0, 99))
@settings(deadline=None)
def test_strata_are_balanced_to_one_sample(strata: np.ndarray, n_folds: int, seed: int) -> None:
    assume(np.bincount(strata).max() >= n_folds)
    folds = quiet_folds(n_folds, 1, seed, strata=strata)[0]
    table = pd.crosstab(strata, folds).to_numpy()
    assert (table.max(axis=1) - table.min(axis=1)).max() <= 1


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("stratified", [False, True])
def test_the_splitter_is_scikit_learns(grouped: bool, stratified: bool) -> None:
    strata = np.repeat([0, 1, 2], [12, 10, 8])
    groups = np.arange(30) // 2
    splitter = {
        (False, False): KFold,
        (False, True): StratifiedKFold,
        (True, False): GroupKFold,
        (True, True): StratifiedGroupKFold,
    }[grouped, stratified]
    state = int(np.random.SeedSequence([5, 1]).generate_state(1)[0])
    expected = np.empty(30, dtype=int)
    split = splitter(n_splits=4, shuffle=True, random_state=state).split(
        strata, strata, groups if grouped else None
    )
    for fold, (_, test) in enumerate(split):
        expected[test] = fold
    found = make_folds(
        4,
        2,
        5,
        n=30,
        strata=strata if stratified else None,
        groups=groups if grouped else None,
    )
    np.testing.assert_array_equal(found[1], expected)


def test_repeats_and_seeds_differ() -> None:
    folds = make_folds(5, 3, 0, n=50)
    assert len({tuple(row) for row in folds}) == 3
    assert not np.array_equal(folds, make_folds(5, 3, 1, n=50))
    np.testing.assert_array_equal(folds[:2], make_folds(5, 2, 0, n=50))


def test_a_small_stratum_warns_and_a_small_class_is_refused() -> None:
    strata = np.array(["a"] * 10 + ["b"] * 2, dtype=object)
    with pytest.warns(M1Warning, match=r"1 stratum has fewer .* 5 folds.* b \(2\)"):
        folds = make_folds(5, 1, 0, strata=strata)
    assert np.unique(folds[0, 10:]).size == 2
    with pytest.raises(InputError, match=r"at least 5 samples of every class; found b \(2\)"):
        make_folds(5, 1, 0, strata=strata, strata_is_label=True)


def test_strata_that_are_all_too_small_fall_back_to_plain_folds() -> None:
    with pytest.warns(M1Warning, match="6 strata have fewer"):
        folds = make_folds(5, 1, 0, strata=np.repeat(np.arange(6), 2))
    assert np.bincount(folds[0]).tolist() == [3, 3, 2, 2, 2]


def test_a_class_within_one_group_warns() -> None:
    strata = np.repeat(["a", "b"], [30, 6])
    groups = np.concatenate([np.arange(30) // 3, np.full(6, 99)])
    with pytest.warns(M1Warning, match="all samples of b are in one group"):
        make_folds(3, 1, 0, strata=strata, groups=groups, strata_is_label=True)


def test_too_few_samples_or_groups_are_refused() -> None:
    with pytest.raises(InputError, match="found 4 samples for 5 folds"):
        make_folds(5, 1, 0, n=4)
    with pytest.raises(InputError, match="found 3 groups for 5 folds"):
        make_folds(5, 1, 0, groups=np.arange(30) % 3)
    with pytest.raises(ValueError, match="one number of samples"):
        make_folds(5, 1, 0, n=4, groups=np.arange(30))


@given(
    strata=codes(4),
    fraction=st.floats(0.05, 0.6),
    seed=st.integers(0, 2**63 - 1),
    grouped=st.booleans(),
    stratified=st.booleans(),
)
@settings(deadline=None)
def test_inner_split_parts_the_rows(
    strata: np.ndarray, fraction: float, seed: int, grouped: bool, stratified: bool
) -> None:
    generator = np.random.default_rng(seed)
    groups = generator.integers(0, 7, strata.size)
    rows = generator.permutation(strata.size)[: max(2, strata.size // 2)]
    assume(np.unique(groups[rows]).size > 1)
    given_ = {"strata": strata if stratified else None, "groups": groups if grouped else None}
    train, val = inner_split(rows, fraction, seed, **given_)
    assert train.size and val.size
    assert sorted([*train, *val]) == sorted(rows)
    if grouped:
        assert not set(groups[train]) & set(groups[val])
    else:
        assert val.size == min(max(round(fraction * rows.size), 1), rows.size - 1)
    again = inner_split(rows, fraction, seed, **given_)
    np.testing.assert_array_equal(again[1], val)
    other = {k: None if v is None else renamed(v, 3) for k, v in given_.items()}
    np.testing.assert_array_equal(inner_split(rows, fraction, seed, **other)[1], val)


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6), seed=st.integers(0, 999))
@settings(deadline=None)
def test_inner_split_keeps_strata_in_proportion(sizes: list[int], seed: int) -> None:
    strata = np.repeat(np.arange(len(sizes)), sizes)
    assume(strata.size >= 2 and max(sizes) > 1)
    _, val = inner_split(np.arange(strata.size), 0.2, seed, strata=strata)
    several = np.array(sizes) > 1
    share = val.size / strata[several[strata]].size
    drawn = np.bincount(strata[val], minlength=len(sizes))
    assert not drawn[~several].any()
    assert (np.abs(drawn - share * np.array(sizes))[several] <= 2).all()


def test_inner_split_of_rows_out_of_many_uses_their_own_strata() -> None:
    strata = np.repeat(["train", "elsewhere"], [20, 80])
    train, val = inner_split(np.arange(20), 0.25, 0, strata=strata)
    assert (train.size, val.size) == (15, 5)


def test_grouped_stratified_inner_split_meets_the_fraction() -> None:
    generator = np.random.default_rng(0)
    groups = np.arange(600) // 4
    strata = generator.integers(0, 5, 600)
    _, val = inner_split(np.arange(600), 0.15, 1, strata=strata, groups=groups)
    assert 0.12 < val.size / 600 < 0.18
    assert np.abs(np.bincount(strata[val]) / np.bincount(strata) - 0.15).max() < 0.06


def test_inner_split_needs_two_units() -> None:
    with pytest.raises(InputError, match="at least two rows"):
        inner_split(np.array([3]), 0.5, 0)
    with pytest.raises(InputError, match="at least two groups"):
        inner_split(np.arange(4), 0.5, 0, groups=np.zeros(4))


@pytest.fixture
def obs() -> pd.DataFrame:
    return pd.DataFrame(
        {"donor": ["d1", "d1", None, ""], "batch": pd.Categorical(["x", "y", "x", "y"])},
        index=["GTEX-1-a", "GTEX-1-b", "GTEX-2-a", "GTEX-3-a"],
    )


def test_donors_are_the_groups_where_there_are_any(obs: pd.DataFrame, caplog: Any) -> None:
    with (
        caplog.at_level("INFO", logger="m1pipe"),
        pytest.warns(M1Warning, match="2 samples have no entry in the column donor"),
    ):
        groups = resolve_groups(obs, None)
    assert groups is not None
    assert groups.tolist() == ["d1", "d1", "donor of GTEX-2-a", "donor of GTEX-3-a"]
    assert "grouped by the column donor" in caplog.text
    assert resolve_groups(obs.drop(columns="donor"), None) is None
    assert resolve_groups(obs, "none") is None


def test_groups_from_a_column_or_the_sample_ids(obs: pd.DataFrame) -> None:
    by_column = resolve_groups(obs, "batch")
    by_part = resolve_groups(obs, r"^(GTEX-\d+)-")
    by_match = resolve_groups(obs, r"-[ab]$")
    assert by_column is not None and by_part is not None and by_match is not None
    assert by_column.tolist() == ["x", "y", "x", "y"]
    assert by_part.tolist() == ["GTEX-1", "GTEX-1", "GTEX-2", "GTEX-3"]
    assert by_match.tolist() == ["-a", "-b", "-a", "-a"]


def test_series_that_share_a_sample_are_one_group() -> None:
    listed = ["GSE1", "GSE2,GSE1", "GSE3", "GSE4; GSE3", "GSE5", "GSE2", None, "GSE6\tGSE5"]
    table = pd.DataFrame({"series_id": listed}, index=[f"GSM{i}" for i in range(8)])
    with pytest.warns(M1Warning, match="1 sample has no entry"):
        groups = resolve_groups(table, "series_id")
    assert groups is not None
    assert groups.tolist() == [
        *("GSE1", "GSE1", "GSE3", "GSE3", "GSE5", "GSE1", "series_id of GSM6", "GSE5")
    ]


def test_groups_that_cannot_be_had_are_refused(obs: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=r"donor, batch.*does not match 'GTEX-1-a'"):
        resolve_groups(obs, "patient")
    with pytest.raises(InputError, match=r"found '\('"):
        resolve_groups(obs, "(")
