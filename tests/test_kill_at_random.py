"""Five SIGKILLs in a row at random moments, and the rerun ends as if there had been none."""

from pathlib import Path
from types import ModuleType

import pytest
from scripts import load_script


@pytest.fixture(scope="module")
def kill_many() -> ModuleType:
    """The script that kills sixty times; its results are kept in benchmarks/results."""
    return load_script("kill_many")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "crossval", "convert"])
def test_killed_five_times(kill_many: ModuleType, tmp_path: Path, command: str) -> None:
    case = next(c for c in kill_many.make_cases(tmp_path) if c.name == command)
    facts = kill_many.kill_case(case, tmp_path, 5, 1, in_a_row=True)
    assert facts["kills"] == 5
    assert len(facts["shares of it"]) == 5 and facts["different results"] == 0


def test_a_torn_file_is_noticed(kill_many: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"x": ')
    with pytest.raises(ValueError, match="Expecting value"):
        kill_many.check_whole(tmp_path)
