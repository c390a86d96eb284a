"""What tests of the sources share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from m1pipe.cli.main import run


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `convert` on a source, expect a refusal in one line and nothing left, return the line."""

    def convert(source: Path, *options: str, expected: int = 1) -> str:
        before = sorted(tmp_path.rglob("*"))
        code = run(["convert", str(source), str(tmp_path / "x.h5ad"), *options])
        lines = capsys.readouterr().err.strip().splitlines()
        assert code == expected and len(lines) == 1, (code, lines)
        assert lines[0].startswith("m1pipe: error: ")
        assert sorted(tmp_path.rglob("*")) == before, "something was left behind"
        return lines[0]

    return convert
