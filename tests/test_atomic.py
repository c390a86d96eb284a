"""Nothing half-written ever stands under a finished name."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from m1pipe.atomic import atomic_file, atomic_folder, refuse_existing, write_json
from m1pipe.errors import InputError


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, OSError])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(failure), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise failure
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_complete_write_takes_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": 0.1})
    assert path.read_text() == '{\n  "x": 0.1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert list(tmp_path.iterdir()) == []


def test_folders(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with atomic_folder(folder) as temporary:
        (temporary / "a").write_text("1")
    with pytest.raises(InputError, match=r"exists already: .*--force"), atomic_folder(folder):
        pass
    with pytest.raises(ValueError, match="stop"), atomic_folder(folder, force=True) as temporary:
        (temporary / "a").write_text("2")
        raise ValueError("stop")
    assert (folder / "a").read_text() == "1"
    with atomic_folder(folder, force=True) as temporary:
        (temporary / "b").write_text("2")
    assert [p.name for p in folder.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from m1pipe.atomic import atomic_file, atomic_folder\n"
        "with atomic_folder(sys.argv[1]) as a, atomic_file(sys.argv[2]) as b:\n"
        "    (a / 'x').touch(); b.touch(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    names = [str(tmp_path / "folder[1]"), str(tmp_path / "file")]
    subprocess.run([sys.executable, "-c", code, *names], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    living = tmp_path / f".file.{socket.gethostname()}-{os.getppid()}.part"
    living.touch()
    with atomic_folder(names[0]), atomic_file(names[1]) as part:
        part.touch()
    assert {p.name for p in tmp_path.iterdir()} == {"folder[1]", "file", living.name}


def test_refuse_existing_makes_the_parent(tmp_path: Path) -> None:
    path = refuse_existing(tmp_path / "deep" / "er" / "x")
    assert path.parent.is_dir()
    path.write_text("x")
    with pytest.raises(InputError, match="exists already"):
        refuse_existing(path)
    assert refuse_existing(path, force=True) == path


@pytest.mark.parametrize("below", ["x", "deeper/x"])
def test_a_file_in_the_place_of_a_folder_is_said(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="expected a folder to write in"):
        refuse_existing(tmp_path / "file" / below)
