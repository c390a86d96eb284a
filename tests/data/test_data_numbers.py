"""Numbers out of text are those of `float`, to the bit, whichever way they are read."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m1pipe.data.sources.numbers import PADDING, one_number, parse_decimals
from m1pipe.data.sources.pieces import Piece, compiled_scan, parse_piece

DIGITS = st.text("0123456789", max_size=17)
DECIMALS = st.builds(
    lambda sign, whole, point, rest: sign + whole + point + rest,
    st.sampled_from(["", "-"]),
    DIGITS,
    st.sampled_from(["", "."]),
    DIGITS,
).filter(lambda text: any(character.isdigit() for character in text))
FLOATS = st.floats(-1e30, 1e30).map(repr)
ODD = ["", ".", "-", "-.", "--1", "1.2.3", "1-2", "12a", "1e5", "+5", " 5", "NA", "inf", "1_0"]


def _nearest(text: str) -> np.float32:
    with np.errstate(over="ignore"):
        return np.float32(float(text))


def _parse(tokens: list[str]) -> tuple[np.ndarray, set[int]]:
    text = "\t".join(tokens) + "\t"
    raw = np.frombuffer(b"7" * PADDING + text.encode(), dtype=np.uint8)
    ends = np.flatnonzero(raw == ord("\t"))
    starts = np.concatenate([[PADDING], ends[:-1] + 1])
    values, odd = parse_decimals(raw, starts, ends)
    return values, set(odd.tolist())


@settings(deadline=None)
@given(st.lists(DECIMALS | FLOATS, min_size=1, max_size=60))
def test_decimals_are_those_of_float(tokens: list[str]) -> None:
    values, odd = _parse(tokens)
    for i, token in enumerate(tokens):
        simple = "e" not in token and len(token.lstrip("-")) <= 16
        assert (i not in odd) == simple, token
        if simple:
            assert values[i].tobytes() == _nearest(token).tobytes(), token


@pytest.mark.parametrize("n_before", [0, 1, 2**14 - 1, 2**14])
def test_odd_tokens_are_left_to_the_caller(n_before: int) -> None:
    values, odd = _parse(["1.5"] * n_before + ODD)
    assert odd == {n_before + i for i in range(len(ODD))}
    assert (values[:n_before] == 1.5).all()


@pytest.mark.parametrize(
    ("text", "value"), [("5", 5.0), ("-1e-3 ", -1e-3), ("1e99", None), ("x", None), ("1_0", None)]
)
def test_one_number(text: str, value: float | None) -> None:
    assert one_number(text) == value
    assert np.isnan(one_number("NA"))


@pytest.fixture(params=["numpy", "compiled"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both ways of reading a piece, with the extra `fast` and without."""
    if request.param == "compiled":
        pytest.importorskip("numba")
        scan = compiled_scan()
        assert scan is not None
        monkeypatch.setitem(OPTIONS, "scan", scan)
    yield request.param


OPTIONS: dict[str, Any] = {"delimiter": "\t", "scan": None}


def _piece(
    text: str, n_fields: int, cut: tuple[int, ...] = (), missing: bool = False
) -> Piece | None:
    return parse_piece(text.encode(), n_fields=n_fields, cut=cut, keep_missing=missing, **OPTIONS)


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_piece_is_read(way: str, end: str) -> None:
    first = ["1", "-2.5", "1e-3", "2", "3", "4"]
    second = ["0", "-0", "123456789.123456789", "6", "7", ".5"]
    parsed = _piece(f"s1\t{chr(9).join(first)}\nEle\u0301\t{chr(9).join(second)}{end}", 7)
    assert parsed is not None and parsed.names == ["s1", "Ele\u0301"]
    expected = np.array([[_nearest(v) for v in row] for row in (first, second)])
    assert parsed.values.tobytes() == expected.tobytes()


@settings(deadline=None)
@given(st.lists(DECIMALS | FLOATS, min_size=1, max_size=60), st.data())
def test_compiled_numbers_are_those_of_float(tokens: list[str], data: st.DataObject) -> None:
    scan = pytest.importorskip("m1pipe.data.sources.compiled").scan
    text = "s\t" + "\t".join(tokens) + "\n"
    values = np.full((1, len(tokens)), np.nan, dtype=np.float32)
    odd = np.empty((len(tokens), 3), dtype=np.int64)
    raw = np.frombuffer(text.encode(), dtype=np.uint8)
    n_odd = scan(raw, np.uint8(9), np.empty((1, 2), dtype=np.int64), values, odd)
    for i, start, end in odd[:n_odd].tolist():
        assert text[start:end] == tokens[i]
        values[0, i] = _nearest(tokens[i])
    assert values.tobytes() == np.array([_nearest(t) for t in tokens]).tobytes()
    plain = {i for i, t in enumerate(tokens) if "e" not in t and len(t.lstrip("-")) <= 15}
    assert not plain & set(odd[:n_odd, 0].tolist())


def _float32_midpoints() -> list[str]:
    """Texts beside the middle of two float32, which rounding twice could send the wrong way."""
    rng = np.random.default_rng(0)
    below = rng.lognormal(0, 5, 200).astype(np.float32)
    middle = (below.astype(float) + np.nextafter(below, np.float32(np.inf)).astype(float)) / 2
    return [f"{v:.16e}" for m in middle for v in (m, np.nextafter(m, 0), np.nextafter(m, 9e99))]


def test_numbers_in_the_middle_between_two_are_rounded_as_float_does(way: str) -> None:
    tokens = _float32_midpoints()
    for many in (tokens, ["1"] * 4 * len(tokens) + tokens):
        parsed = _piece("s\t" + "\t".join(many) + "\n", len(many) + 1)
        if parsed is not None:
            assert parsed.values.tobytes() == np.array([_nearest(t) for t in many]).tobytes()
    assert parsed is not None


def test_labels_are_cut_out(way: str) -> None:
    parsed = _piece("g1\tTP53\tx\t1\t2\ng2\t\ty\t3\t4\n", 5, (1, 2))
    assert parsed is not None and parsed.text == [["TP53", "x"], ["", "y"]]
    assert parsed.values.tolist() == [[1, 2], [3, 4]]
    parsed = _piece("g1\t1\tliver\t2\n", 4, (2,))
    assert parsed is not None and parsed.text == [["liver"]] and parsed.values.tolist() == [[1, 2]]


@pytest.mark.parametrize("n", [1, 7, 300, 700])
def test_random_tables_are_those_of_float(way: str, n: int) -> None:
    rng = np.random.default_rng(1)
    values = np.where(rng.random((50, n)) < 0.3, 0, rng.lognormal(0, 8, (50, n)))
    for form in ("%.4f", "%.9g", "%.17g", "%d"):
        rows = [[form % v for v in row] for row in values]
        parsed = _piece("".join(f"s\t{chr(9).join(row)}\n" for row in rows), n + 1)
        if way == "numpy" and form == "%.17g":
            assert parsed is None  # digits that only strtod can round
            continue
        assert parsed is not None
        expected = np.array([[_nearest(v) for v in row] for row in rows])
        assert parsed.values.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "text",
    [
        "s1\t1\t2\ns2\t3\n",
        "s1\t1\t2\t3\ns2\t3\n",
        "s1\t1\t2\n\ns2\t3\t4\n",
        "s1\t1\tx\n",
        "s1\t1\t\n",
        "s1\t1\tNA\n",
        "s1\t1\tnull\n",
        "s1\t1\ttrue\n",
        "s1\t1\t[2]\n",
        "s1\t1\t1,5\n",
        "s1\t1\t1e99\n",
        "s1\t1\tinf\n",
        's1\t"1"\t2\n',
        "s1\t1\t2\r\n",
        "s1\n",
    ],
)
def test_anything_else_is_left_to_the_careful(way: str, text: str) -> None:
    assert _piece(text, 3) is None


def test_missing_values_are_kept_on_request(way: str) -> None:
    parsed = _piece("s1\t1\tNA\t2\t3\t4\n", 6, missing=True)
    assert parsed is not None
    assert np.array_equal(parsed.values, [[1, np.nan, 2, 3, 4]], equal_nan=True)


def test_names_that_are_no_utf8_are_left_to_the_careful(way: str) -> None:
    piece = "\u00e9\t1\n".encode("latin-1")
    assert parse_piece(piece, n_fields=2, cut=(), keep_missing=False, **OPTIONS) is None
