"""Random single edits of valid tables: never another matrix without a word, never exit code 70.

The full count, 3,000, is that of `benchmarks/table_mutations.py`, whose oracle this is.
"""

from pathlib import Path

import numpy as np
import pytest
from scripts import load_script

EDITS = 300


mutations = load_script("table_mutations")
KINDS = mutations.kinds()


@pytest.mark.parametrize("name", KINDS)
def test_the_oracle_reads_the_valid_table(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    right = mutations.expected(kind, kind.text)
    assert right is not None and right.shape >= (6, 5)
    assert mutations.judge(kind, kind.text, tmp_path)[0] == "same"


@pytest.mark.parametrize("name", KINDS)
def test_no_edit_gives_another_matrix_without_a_word(name: str, tmp_path: Path) -> None:
    kind, rng = KINDS[name], np.random.default_rng([17, list(KINDS).index(name)])
    verdicts = []
    for _ in range(EDITS // len(KINDS)):
        text, done = mutations.edit(kind.text, kind.delimiter, rng)
        verdict, said = mutations.judge(kind, text, tmp_path)
        assert not verdict.startswith("WRONG"), f"{done}: {verdict}\n{text}\n{said}"
        verdicts.append(verdict)
    assert {"same", "refused"} <= set(verdicts), "the premise: edits of both ends are met"


def test_the_oracle_sees_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = KINDS["samples as rows"]
    right = mutations.expected(kind, kind.text)
    monkeypatch.setattr(mutations, "outcome", lambda *_: (0, "", right.iloc[:, ::-1]))
    assert mutations.judge(kind, kind.text, tmp_path)[0].startswith("WRONG: another matrix")
    monkeypatch.setattr(mutations, "outcome", lambda *_: (70, "Traceback", None))
    assert mutations.judge(kind, kind.text, tmp_path)[0] == "WRONG: exit code 70"
