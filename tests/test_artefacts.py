"""What m1pipe wrote, damaged: one line that names the file and the way out."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save_file

from m1pipe.artefacts import pack_arrays, read_arrays, read_json, read_table, reading
from m1pipe.data.transforms import GeneTransform
from m1pipe.encoder.conditional import Condition
from m1pipe.errors import InputError
from m1pipe.evaluation.external_validation import Rivals
from m1pipe.heads.features import FeatureMap
from m1pipe.heads.linear import OwnTerm
from m1pipe.models.pca import PCA
from m1pipe.synthesis.mixture import Mixture

DAMAGE: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("empty", lambda content: b""),
    ("half", lambda content: content[: len(content) // 2]),
    ("binary", lambda content: bytes(range(256))),
    ("not UTF-8", lambda content: b"\xff\xfe" + content),
    ("NUL", lambda content: content + b"\0"),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGE, ids=[name for name, _ in DAMAGE])
def test_damaged_json_is_a_line(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(damage(json.dumps({"x": [1, 2], "y": "text"}).encode()))
    with pytest.raises(InputError, match=r"a\.json: expected a thing; .*: make it again$"):
        read_json(path, "a thing")


@pytest.mark.parametrize(
    "text", ["[1]", "3", '"x"', "null", "[" * 100_000, '{"a":' * 100_000, "{}{}", "{'a': 1}"]
)
def test_json_that_is_no_object_or_nested_beyond_reason_is_a_line(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json: expected a thing; .+: do so$") as error:
        read_json(tmp_path / "a.json", "a thing", remedy="do so")
    assert len(str(error.value)) < 600


def test_json_beyond_all_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with open(path, "wb") as file:
        file.truncate(2**40)  # takes no room
    with pytest.raises(InputError, match="are more than m1pipe writes"):
        read_json(path, "a thing")


def test_a_missing_file_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a thing; found no such file: make it again"):
        read_json(tmp_path / "a.json", "a thing")


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "a,c\n1,2,3\n1\n1,2,3,4\n", '"a\n', "\0"])
def test_a_damaged_table_is_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=r"a\.csv: expected a table; .+: make it again$"):
        read_table(tmp_path / "a.csv", "a table", ("a", "c"))


def test_a_table_comes_back_bit_for_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=100)
    lines = [repr(float(value)) for value in values]
    (tmp_path / "a.csv").write_text("name,value\n" + "\n".join(f"NA,{line}" for line in lines))
    table = read_table(tmp_path / "a.csv", "a table", ("name", "value"))
    assert table["value"].to_numpy().tobytes() == values.tobytes()
    assert set(table["name"]) == {"NA"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": np.array([1, value], dtype=np.float32)}, path)
    with pytest.raises(InputError, match="w holds numbers that are not finite: train again"):
        read_arrays(path, "weights", remedy="train again")
    arrays, _ = read_arrays(path, "weights", finite=False)
    assert len(arrays["w"]) == 2


def test_damaged_weights_are_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": np.ones(1000, dtype=np.float32)}, path)
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[:-4], b"\xff" * 8 + whole[8:], whole[8:]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"expected weights; .+: make it again"):
            read_arrays(path, "weights")


def test_faults_that_are_no_damage_pass(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), reading(tmp_path, "a thing"):
        raise KeyboardInterrupt
    with pytest.raises(InputError, match=r"^as it was$"), reading(tmp_path, "a thing"):
        raise InputError("as it was")


LINE = np.arange(8, dtype=np.float32)[::2]
TURNED = np.arange(12, dtype=np.float32).reshape(4, 3).T
MODELS = {
    "rivals": Rivals("regression", 1.0, LINE, LINE, LINE, TURNED, TURNED, LINE),
    "pca": PCA(LINE, TURNED, LINE, LINE),
    "own genes": OwnTerm(LINE, LINE, LINE, TURNED),
    "features": FeatureMap(GeneTransform("none", LINE, LINE), TURNED),
    "normal scores": GeneTransform("normal_score", LINE, LINE, TURNED),
    "mixture": Mixture("full", LINE, TURNED, np.stack([TURNED.T] * 2).transpose(0, 2, 1)),
    "condition": Condition("tissue", ("a", "b", "c"), (1, 1, 1), TURNED),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_hold_arrays_row_by_row(name: str) -> None:
    assert not TURNED.flags.c_contiguous and not LINE.flags.c_contiguous
    held = {k: v for k, v in vars(MODELS[name]).items() if isinstance(v, np.ndarray)}
    assert any(array.ndim > 1 for array in held.values())
    for field, array in held.items():
        assert array.flags.c_contiguous, field
    if name != "mixture":
        given = [array for array in held.values() if array.ndim == 2]
        assert all((array == TURNED).all() for array in given)


def test_stored_arrays_come_back_row_by_row() -> None:
    again = load(pack_arrays({"turned": TURNED, "line": LINE, "number": np.float32(3)}))
    np.testing.assert_array_equal(again["turned"], TURNED)
    np.testing.assert_array_equal(again["line"], LINE)
    assert again["number"].shape == () and again["turned"].flags.c_contiguous
