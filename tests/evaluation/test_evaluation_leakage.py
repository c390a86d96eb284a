"""Labels of the same fold changes, of the same samples, of others, and of unknown ones."""

import numpy as np
import pandas as pd
import pytest

from m1pipe.data.duplicates import row_digests
from m1pipe.evaluation.leakage import OTHER, SAME, UNKNOWN, label_origin, same_samples

X = np.array([[1.0, np.nan, 2.0], [3.0, 4.0, 5.0], [0.0, 0.0, 1.0]])
NAMES = ["A:case", "B:case", "C:case"]


def _obs(samples: list[str] | None = None, digests: list[str] | None = None) -> pd.DataFrame:
    parts = {"samples": samples, "fold_changes": digests}
    return pd.DataFrame({k: v for k, v in parts.items() if v is not None}, index=NAMES)


def test_digests_are_of_the_last_bit() -> None:
    changed = X.copy()
    changed[1, 2] = np.nextafter(np.float32(5), np.float32(6))
    same = np.array(row_digests(X)) == np.array(row_digests(changed.astype(np.float32)))
    assert same.tolist() == [True, False, True]
    assert row_digests(np.asfortranarray(X)) == row_digests(X)


@pytest.mark.parametrize(
    ("mine", "theirs", "digests", "expected"),
    [
        (["a;b", "c;d", "e;f"], ["g;h", "i;j", "k;l"], "other", (OTHER, 0)),
        (["a;b", "c;d", "e;f"], ["g;h", "d;j", "k;l"], "other", (SAME, 1)),
        (["ab;c", "d", "e"], ["a;bc", "f", "g"], "other", (OTHER, 0)),
        (["a", "b", "c"], ["d", "e", "f"], "same", (SAME, 3)),
        (None, None, "same", (SAME, 3)),
        (None, ["d", "e", "f"], "other", (UNKNOWN, 0)),
        (["a", "b", "c"], ["a", "b", "c"], None, (None, 0)),
    ],
)
def test_the_origin_of_labels(mine, theirs, digests, expected) -> None:
    made_of = {"same": row_digests(X), "other": ["0"] * 3, None: None}[digests]
    assert label_origin(_obs(mine), _obs(theirs, made_of), row_digests(X)) == expected


@pytest.mark.parametrize(
    ("origin", "severity"), [(SAME, "warning"), (UNKNOWN, "note"), (OTHER, None), (None, None)]
)
def test_what_is_said_of_it(origin, severity) -> None:
    alarms = same_samples(origin, 2, 3)
    assert [alarm.severity for alarm in alarms] == ([severity] if severity else [])
    assert all("compression, not prediction" in alarm.text for alarm in alarms)
