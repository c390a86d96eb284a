"""Units: what they are called, what becomes of them, and conversion by the recipe."""

import numpy as np
import pytest

from m1pipe.data.units import (
    LOG_OF,
    NAMES,
    Units,
    convert_units,
    log2p1,
    log_units,
    read_units,
    scale_rows,
)
from m1pipe.errors import InputError, M1Warning

COUNTS = np.array([[1.0, 3.0, 6.0], [0.0, 50.0, 50.0]], dtype=np.float32)


def test_every_name_is_linear_or_log_or_neither() -> None:
    for name in NAMES:
        units = Units(name)
        assert not (units.is_linear and units.is_log), name
    assert [n for n in NAMES if Units(n).is_linear] == [
        "counts",
        "cpm",
        "tpm",
        "normalized",
        "intensity",
    ]


@pytest.mark.parametrize("name", ["cpm", "log2_cpm1", "tpm", "log2_tpm1"])
def test_per_million_units_always_sum_to_a_million(name: str) -> None:
    assert Units(name) == Units(name, 1e6)
    assert str(Units(name)) == name
    with pytest.raises(InputError, match="sums to 1e6; found 10000"):
        Units(name, 1e4)


def test_impossible_units_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected one of counts, .* found 'fpkm'"):
        Units("fpkm")
    with pytest.raises(InputError, match="counts has no target sum"):
        Units("counts", 1e4)
    with pytest.raises(InputError, match="positive target sum"):
        Units("normalized", -1.0)


@pytest.mark.parametrize("name", NAMES)
def test_units_survive_uns(name: str) -> None:
    target = 1e4 if "normalized" in name else None
    assert read_units(Units(name, target).to_uns()) == Units(name, target)


def test_the_target_sum_is_said() -> None:
    assert str(Units("log2_normalized1", 1e4)) == "log2_normalized1 (target sum 10000)"


def test_units_that_nobody_recorded_are_unknown() -> None:
    assert read_units({"neighbors": {}}) == Units("unknown")
    with pytest.warns(M1Warning, match="'furlongs' are not known"):
        assert read_units({"units": "furlongs"}) == Units("unknown")


@pytest.mark.parametrize(("linear", "logged"), LOG_OF.items())
def test_the_logarithm_keeps_the_target_sum(linear: str, logged: str) -> None:
    target = 1e4 if linear == "normalized" else None
    assert log_units(Units(linear, target)) == Units(logged, target)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("counts", "normalised before the logarithm"),
        ("log2_tpm1", "linear scale; found log2_tpm1"),
        ("zscore", "linear scale; found zscore"),
        ("log_fold_change", "linear scale"),
        ("unknown", "units of the values are unknown"),
    ],
)
def test_logarithms_that_make_no_sense_are_refused(name: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        log_units(Units(name))


def test_log2p1_is_log2_of_one_more() -> None:
    X = np.array([[0.0, 1.0, 3.0, 1023.0, np.nan]], dtype=np.float32)
    assert np.array_equal(log2p1(X), [[0, 1, 2, 10, np.nan]], equal_nan=True)
    assert log2p1(X).dtype == np.float32


def test_scaled_rows_have_the_target_sum_and_empty_rows_stay() -> None:
    X = np.array([[1.0, 3.0], [0.0, 0.0]])
    assert np.array_equal(scale_rows(X, X.sum(axis=1), 100.0), [[25, 75], [0, 0]])


def test_counts_become_log_of_counts_per_target() -> None:
    expected = np.log2(1 + COUNTS / COUNTS.sum(axis=1, keepdims=True) * 1e4)
    found = convert_units(COUNTS, Units("counts"), Units("log2_normalized1", 1e4))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32


def test_totals_may_refer_to_more_genes_than_are_there() -> None:
    found = convert_units(COUNTS, Units("counts"), Units("cpm"), totals=np.array([20.0, 400.0]))
    np.testing.assert_allclose(found.sum(axis=1), [0.5e6, 0.25e6])


@pytest.mark.parametrize(
    ("have", "want", "factor"),
    [
        (Units("cpm"), Units("normalized", 1e4), 0.01),
        (Units("normalized", 1e4), Units("cpm"), 100.0),
        (Units("normalized", 1e4), Units("normalized", 2e4), 2.0),
    ],
)
def test_normalised_values_are_rescaled_without_totals(
    have: Units, want: Units, factor: float
) -> None:
    np.testing.assert_allclose(convert_units(COUNTS, have, want), COUNTS * factor, rtol=1e-6)


def test_equal_units_change_nothing() -> None:
    assert convert_units(COUNTS, Units("tpm"), Units("tpm")) is COUNTS


@pytest.mark.parametrize("pair", [("unknown", "tpm"), ("tpm", "unknown")])
def test_unknown_units_pass_with_a_warning(pair: tuple[str, str]) -> None:
    with pytest.warns(M1Warning, match="taken as they are"):
        assert np.array_equal(convert_units(COUNTS, Units(pair[0]), Units(pair[1])), COUNTS)


@pytest.mark.parametrize(
    ("have", "want"),
    [
        (Units("tpm"), Units("cpm")),
        (Units("log2_tpm1"), Units("tpm")),
        (Units("counts"), Units("tpm")),
        (Units("counts"), Units("normalized")),
        (Units("normalized"), Units("normalized", 1e4)),
        (Units("log2_cpm1"), Units("log2_normalized1", 1e4)),
        (Units("intensity"), Units("log2_cpm1")),
        (Units("tpm"), Units("zscore")),
    ],
)
def test_where_there_is_no_way_it_is_refused(have: Units, want: Units) -> None:
    with pytest.raises(InputError, match="there is no way between them"):
        convert_units(COUNTS, have, want)


def test_a_sample_without_counts_is_not_normalised() -> None:
    with pytest.raises(InputError, match=r"1 sample has no counts \(row 1 first\)"):
        convert_units(COUNTS * [[1], [0]], Units("counts"), Units("cpm"))


def test_negative_values_are_not_logged() -> None:
    with pytest.raises(InputError, match="at least 0 before the log"):
        convert_units(-COUNTS, Units("intensity"), Units("log2_intensity"))
