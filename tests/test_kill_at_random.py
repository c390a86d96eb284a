"""SIGKILLs at random moments, some in a row, and the rerun ends as if there had been none."""

from pathlib import Path

import pytest
from scripts import load_script


@pytest.mark.slow
def test_commands_killed_at_random(tmp_path: Path) -> None:
    found = load_script("kill_many").run_all(tmp_path, 5, seed=1)
    assert len(found) == 11
    for facts in found:
        assert facts["wrong"] == [] and facts["kills"] >= 5, facts


def test_a_torn_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"x": ')
    with pytest.raises(ValueError, match="Expecting value"):
        load_script("world").check_whole(tmp_path)
