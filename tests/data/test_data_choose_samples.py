import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from m1pipe.data.choose_samples import DEEPEST, LONGEST, matching_samples
from m1pipe.data.regex import LONGEST_PATTERN, compile_pattern, texts_with
from m1pipe.errors import InputError

ATTACKS = [
    "@pd.io.common.os.system('touch {mark}') == 0",
    "@re.enum.sys.modules['os'].system('touch {mark}') == 0",
    "tissue.to_csv('{mark}')",
    "tissue.to_csv('{mark}') == 0",
    "x.to_pickle('{mark}').isna()",
    "tissue.str.contains(x.to_csv('{mark}'))",
    "tissue.str.to_csv('{mark}')",
    "tissue == x.to_csv('{mark}')",
    "x in [x.to_csv('{mark}')]",
    "x.pipe(print)",
    "__import__('os').system('touch {mark}') == 0",
    "().__class__.__bases__[0].__subclasses__()",
    'x.apply(\'__import__("os").system("touch {mark}")\')',
    "[open('{mark}', 'w') for _ in '1']",
    "(lambda: open('{mark}', 'w'))()",
    "(y := open('{mark}', 'w'))",
    'f\'{{open("{mark}", "w")}}\' == tissue',
    "x ** 9 ** 9 ** 9 > 1",
    "index.to_series().to_csv('{mark}')",
]


@pytest.fixture
def obs() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "age": pd.array([20, None, 40, 50], dtype="Int64"),
            "flag": pd.array([True, False, None, True], dtype="boolean"),
            "tissue": pd.Categorical(["Liver", "Skin", None, "Liver"]),
            "tissue:ch1": ["liver", "skin", "Liver", "x"],
            "x": [1.5, np.nan, 2.0, 7.0],
            "text_age": ["45", "50", "60", "7"],
            "grade": pd.Categorical(["low", "high", "mid", None], ["low", "mid", "high"], True),
        },
        index=["s1", "s2", "s3", "s4"],
    )


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("age > 30", "0011"),
        ("30 < age", "0011"),
        ("not age > 30", "1000"),
        ("20 < age <= 40", "0010"),
        ("flag", "1001"),
        ("~flag", "0100"),
        ("flag == True", "1001"),
        ("tissue != 'Liver'", "0100"),
        ("tissue not in ['Liver']", "0100"),
        ("tissue in ('Liver', 'Skin')", "1101"),
        ("tissue.isna() or tissue != 'Liver'", "0110"),
        ("(age > 30) & (x > 3) | tissue.isna()", "0011"),
        ("`tissue:ch1` == 'liver'", "1000"),
        ("`tissue:ch1`.str.contains('liv|sk')", "1100"),
        ("tissue:ch1~liver", "1010"),
        (" `tissue:ch1` ~^sk", "0100"),
        ("tissue.str.startswith('L')", "1001"),
        ("index.str.endswith('4')", "0001"),
        ("text_age > 46", "0110"),
        ("grade > 'low'", "0110"),
        ("tissue == `tissue`", "1101"),
        ("x == -1.5 or x > 1\n and age == 40", "0010"),
        ("tissue == 'a&b|c' or x < 2", "1000"),
        ("x < 1e39", "1011"),
    ],
)
def test_samples_for_which_a_condition_is_true(
    obs: pd.DataFrame, condition: str, expected: str
) -> None:
    assert "".join("01"[int(yes)] for yes in matching_samples(obs, condition)) == expected


def test_numbers_agree_with_numpy(obs: pd.DataFrame) -> None:
    values = np.random.default_rng(1).normal(size=200)
    values[::7] = np.nan
    table = pd.DataFrame({"v": values.astype(np.float32), "n": np.arange(200) - 100})
    for text, oracle in (
        ("v > 0.5", values > 0.5),
        ("v >= 0 and n < 3", (values >= 0) & (table["n"] < 3)),
        ("v < n", values < table["n"]),
        ("not (v > 0 or n > 5)", (values <= 0) & (table["n"] <= 5)),
    ):
        np.testing.assert_array_equal(matching_samples(table, text), oracle)


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_in_a_condition_is_run(obs: pd.DataFrame, attack: str, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    with pytest.raises(InputError, match="expected COLUMN~REGEX or a condition of"):
        matching_samples(obs, attack.format(mark=mark))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("age ** 2 > 3", "found a power at character 1 of"),
        ("x > 1 and tissue.upper() == 'A'", "found a call at character 11"),
        ("tissue == 'ä' and zzz == 1", "found no column 'zzz' at character 19"),
        ("`tissue:ch1` == 'a' and x + 1 > 2", "found arithmetic at character 25"),
        ("x.__class__ == 1", "the attribute '__class__'"),
        ("[x for x in age]", "found a comprehension"),
        ("tissue == ['a']", r"found a list: write `in \[...\]`"),
        ("tissue == None", r"write .isna\(\)"),
        ("tissue is None", "found `is`"),
        ("'Liver' in tissue", "found no list"),
        ("tissue > 'a'", "text has none"),
        ("grade > 'other'", "no level of 'grade'"),
        ("tissue > 3", "a number beside the column 'tissue' of text, such as 'Liver'"),
        ("x == 'a'", "text beside numbers of 'x'"),
        ("x.str.contains('a')", "on the column 'x' of numbers"),
        ("tissue.str.contains('(a+)+$')", "without repeats inside repeats"),
        ("tissue.str.contains('(')", "is no regular expression"),
        ("@x", "@ names nothing here"),
        ("zz:z~a", "expected the column zz:z among"),
        ("tissue", "found the column 'tissue' alone"),
        ("\0", "null bytes"),
        ("'a' == 1", "expected a column"),
        (f"x == {2**63}", "more than 18 digits"),
        ("(" * 300 + "x" + ")" * 300, "too many nested parentheses"),
        ("-" * 10_000 + "1 == x", "expected a condition|cannot be read"),
        ("not " * (DEEPEST + 2) + "flag", f"more than {DEEPEST} levels"),
        ("x == 1 or " * LONGEST, f"at most {LONGEST:,} characters"),
    ],
)
def test_what_a_condition_may_not_hold_is_named_with_its_place(
    obs: pd.DataFrame, condition: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        matching_samples(obs, condition)
    assert len(str(error.value)) < 1200


def test_a_column_that_is_there_twice_is_refused() -> None:
    obs = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(InputError, match="found the column 'a' twice"):
        matching_samples(obs, "a == 1")


@pytest.mark.parametrize("text", ["(a+)+$", "(a*b)*", "((a{2,})c?)+", r"(\d+|x)*y"])
def test_repeats_inside_repeats_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"group: expected a regular .* repeats inside repeats"):
        compile_pattern(text, "group")


@pytest.mark.parametrize(
    "text", ["^GTEX-[A-Z0-9]+", "liver|hepat", ".*a.*", r"(\d{2}-)+", "(ab)?c+"]
)
def test_usual_patterns_are_taken(text: str) -> None:
    assert compile_pattern(text, "group") == re.compile(text)


def test_a_long_pattern_is_refused() -> None:
    with pytest.raises(InputError, match=f"at most {LONGEST_PATTERN:,} characters"):
        compile_pattern("a" * (LONGEST_PATTERN + 1), "where")


def test_a_pattern_that_takes_for_ever_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m1pipe.data.regex.SECONDS", 0.2)
    pattern = compile_pattern("^(a|aa)+$", "where")
    with pytest.raises(InputError, match=r"takes more than 0\.2 s"):
        texts_with(pattern, ["a" * 60 + "b"], "where")


def test_patterns_serve_other_threads() -> None:
    found: list[Any] = []
    pattern = compile_pattern("a", "where")
    thread = threading.Thread(target=lambda: found.extend(texts_with(pattern, ["a", "b"], "where")))
    thread.start()
    thread.join()
    assert found == [True, False]
