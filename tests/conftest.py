"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

# Before torch is imported: two OpenMP threads beside another busy process are far slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder with the real expression sets; tests that need it skip where it is not given."""
    folder = os.environ.get("M1PIPE_TEST_DATA")
    if not folder:
        pytest.skip("M1PIPE_TEST_DATA is not set: it names the folder with the real data sets")
    return Path(folder)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sub-processes use one thread, so that results do not depend on the machine."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
