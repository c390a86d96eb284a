"""HDF5 files on which the library itself crashes or never ends are refused by the command line."""

import os
import signal
import threading
from pathlib import Path

import h5py
import pytest

from m1pipe.errors import InputError
from m1pipe.io import hdf5


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(hdf5.LOOK_FIRST, "1")
    monkeypatch.setattr(threading, "active_count", lambda: 1)  # other tests leave some
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["x"] = [1.0]
    return path


def test_a_good_file_opens_and_the_child_ran_once(path: Path) -> None:
    for _ in range(2):
        with hdf5.open_hdf5(path) as file:
            assert file["x"][0] == 1
    assert hdf5._exit_of_child.cache_info().hits >= 1


@pytest.mark.parametrize(
    ("number", "how"), [(signal.SIGSEGV, "ends by SIGSEGV"), (signal.SIGXCPU, "never ends")]
)
def test_a_file_that_ends_the_child_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, how: str
) -> None:
    parent = os.getpid()

    def crash(handle: h5py.File, where: Path) -> None:
        assert os.getpid() != parent
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(hdf5, "refuse_links", crash)
    with pytest.raises(InputError, match=f"the library that reads them {how}: it is damaged"):
        hdf5.open_hdf5(path)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["values"] = [1.0]
    path.write_bytes(path.read_bytes().replace(b"values", b"\xff\xff\xff\xff\xff\xff"))
    with pytest.raises(InputError, match=r"x\.h5: could not be read as HDF5: .*codec can't decode"):
        hdf5.open_hdf5(path)
