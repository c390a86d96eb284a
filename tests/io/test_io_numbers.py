"""Numbers out of text are those of `float`, to the bit, whichever way they are read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m1pipe.data.labels import one_number
from m1pipe.io.text.numbers import TextBlock, compiled_scan, parse_piece
from m1pipe.io.text.table import open_table

DIGITS = st.text("0123456789", max_size=17)
DECIMALS = st.builds(
    lambda sign, whole, point, rest: sign + whole + point + rest,
    st.sampled_from(["", "-"]),
    DIGITS,
    st.sampled_from(["", "."]),
    DIGITS,
).filter(lambda text: any(character.isdigit() for character in text))
FLOATS = st.floats(-1e30, 1e30).map(repr)


def _nearest(text: str) -> np.float32:
    with np.errstate(over="ignore"):
        return np.float32(float(text))


@pytest.mark.parametrize(
    ("text", "value"), [("5", 5.0), ("-1e-3 ", -1e-3), ("1e99", None), ("x", None), ("1_0", None)]
)
def test_one_number(text: str, value: float | None) -> None:
    assert one_number(text) == value
    assert np.isnan(one_number("NA"))


def _piece(
    text: str, n_fields: int, cut: tuple[int, ...] = (), missing: bool = False
) -> TextBlock | None:
    return _parse(text.encode(), n_fields, cut, missing)


def _parse(piece: bytes, n_fields: int, cut: tuple[int, ...], missing: bool) -> TextBlock | None:
    pytest.importorskip("numba")
    scan = compiled_scan()
    assert scan is not None
    return parse_piece(
        piece, delimiter="\t", n_fields=n_fields, cut=cut, keep_missing=missing, scan=scan
    )


@pytest.fixture(params=["row by row", "compiled"])
def read(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[list[list[str]]], np.ndarray]:
    """Both ways of reading a table, with the extra `fast` and without."""
    if request.param == "compiled":
        pytest.importorskip("numba")
        monkeypatch.setattr("m1pipe.io.text.table._LARGE_BYTES", 0)

    def values(rows: list[list[str]]) -> np.ndarray:
        path = tmp_path / "t.tsv"
        lines = ["\t".join(["id", *(f"G{j}" for j in range(len(rows[0])))])]
        lines += ["\t".join([f"s{i}", *row]) for i, row in enumerate(rows)]
        path.write_text("\n".join(lines) + "\n")
        with open_table(path) as table:
            return np.concatenate([block.values for block in table.blocks()])

    return values


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_piece_is_read(end: str) -> None:
    first = ["1", "-2.5", "1e-3", "2", "3", "4"]
    second = ["0", "-0", "123456789.123456789", "6", "7", ".5"]
    parsed = _piece(f"s1\t{chr(9).join(first)}\nEle\u0301\t{chr(9).join(second)}{end}", 7)
    assert parsed is not None and parsed.names == ["s1", "Ele\u0301"]
    expected = np.array([[_nearest(v) for v in row] for row in (first, second)])
    assert parsed.values.tobytes() == expected.tobytes()


@settings(deadline=None)
@given(st.lists(DECIMALS | FLOATS, min_size=1, max_size=60), st.data())
def test_compiled_numbers_are_those_of_float(tokens: list[str], data: st.DataObject) -> None:
    scan = pytest.importorskip("m1pipe.io.text.compiled").scan
    text = "s\t" + "\t".join(tokens) + "\n"
    values = np.full((1, len(tokens)), np.nan, dtype=np.float32)
    odd = np.empty((len(tokens), 3), dtype=np.int64)
    raw = np.frombuffer(text.encode(), dtype=np.uint8)
    is_text = np.arange(len(tokens) + 1) == 0
    n_odd = scan(raw, np.uint8(9), is_text, np.empty((1, 1, 2), dtype=np.int64), values, odd)
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


def test_numbers_in_the_middle_between_two_are_rounded_as_float_does(
    read: Callable[[list[list[str]]], np.ndarray],
) -> None:
    tokens = _float32_midpoints()
    for many in (tokens, ["1"] * 4 * len(tokens) + tokens):
        expected = np.array([[_nearest(t) for t in many]])
        assert read([many]).tobytes() == expected.tobytes()


def test_labels_are_cut_out() -> None:
    parsed = _piece("g1\tTP53\tx\t1\t2\ng2\t\ty\t3\t4\n", 5, (1, 2))
    assert parsed is not None and parsed.text == [["TP53", "x"], ["", "y"]]
    assert parsed.values.tolist() == [[1, 2], [3, 4]]
    parsed = _piece("g1\t1\tliver\t2\n", 4, (2,))
    assert parsed is not None and parsed.text == [["liver"]] and parsed.values.tolist() == [[1, 2]]
    parsed = _piece("g1\tx\t1\ty\n", 4, (3, 1))  # in the order that was asked for
    assert parsed is not None and parsed.text == [["y", "x"]] and parsed.values.tolist() == [[1]]


@pytest.mark.parametrize("n", [1, 7, 300, 700])
def test_random_tables_are_those_of_float(
    read: Callable[[list[list[str]]], np.ndarray], n: int
) -> None:
    rng = np.random.default_rng(1)
    values = np.where(rng.random((50, n)) < 0.3, 0, rng.lognormal(0, 8, (50, n)))
    for form in ("%.4f", "%.9g", "%.17g", "%d"):
        rows = [[form % v for v in row] for row in values]
        expected = np.array([[_nearest(v) for v in row] for row in rows])
        assert read(rows).tobytes() == expected.tobytes()


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
def test_anything_else_is_left_to_the_careful(text: str) -> None:
    assert _piece(text, 3) is None


def test_missing_values_are_kept_on_request() -> None:
    parsed = _piece("s1\t1\tNA\t2\t3\t4\n", 6, missing=True)
    assert parsed is not None
    assert np.array_equal(parsed.values, [[1, np.nan, 2, 3, 4]], equal_nan=True)


def test_names_that_are_no_utf8_are_left_to_the_careful() -> None:
    piece = "\u00e9\t1\n".encode("latin-1")
    assert _parse(piece, 2, (), False) is None
