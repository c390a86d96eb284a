"""What tests of situations share: a command, its exit code and what it said."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from said import Said

from m1pipe.cli.main import run


@pytest.fixture
def m1pipe(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command; warnings are lines on stderr, as for a user."""

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            code = run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Said(code, said.out, " ".join(said.err.split()))

    return call


@pytest.fixture
def text(tmp_path: Path) -> Callable[..., Path]:
    """Write a small file and give its path."""

    def write(content: str | bytes, name: str = "table.tsv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write
