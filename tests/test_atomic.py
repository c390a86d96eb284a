"""Nothing half-written ever stands under a finished name."""

import errno
import os
import shutil
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from m1pipe.atomic import (
    atomic_file,
    atomic_folder,
    refuse_existing,
    refuse_folder,
    write_json,
    writing,
)
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
    make = partial(atomic_folder, folder, ("a", "b"), what="a thing")
    with make() as temporary:
        (temporary / "a").write_text("1")
    with pytest.raises(InputError, match=r"exists already and holds a thing: .*force"), make():
        pass
    with pytest.raises(ValueError, match="stop"), make(force=True) as temporary:
        (temporary / "a").write_text("2")
        raise ValueError("stop")
    assert (folder / "a").read_text() == "1"
    with make(force=True) as temporary:
        (temporary / "b").write_text("2")
    assert [p.name for p in folder.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from m1pipe.atomic import atomic_file, atomic_folder\n"
        "with atomic_folder(sys.argv[1], ('x',), what='it') as a, atomic_file(sys.argv[2]) as b:\n"
        "    (a / 'x').touch(); b.touch(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    names = [str(tmp_path / "folder[1]"), str(tmp_path / "file")]
    subprocess.run([sys.executable, "-c", code, *names], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    living = tmp_path / f".file.{socket.gethostname()}-{os.getppid()}.part"
    living.touch()
    with pytest.raises(InputError, match=f"another process \\({os.getppid()}\\) is writing it"):
        refuse_existing(names[1])
    with atomic_folder(names[0], ("x",), what="it"), atomic_file(names[1]) as part:
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


def test_a_folder_with_anything_else_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    make = partial(atomic_folder, folder, ("a", "part/b"), what="a thing", force=True)
    for other in ("notes.txt", "part/notes.txt", "more/a", "part/more/b"):
        (folder / "part").mkdir(parents=True)
        (folder / "a").write_text("old")
        (folder / other).parent.mkdir(parents=True, exist_ok=True)
        (folder / other).write_text("mine")
        found = other.removesuffix("/a").removesuffix("/b")
        with pytest.raises(InputError, match=f"holds {found}, which is no part of a thing"), make():
            pass
        assert (folder / other).read_text() == "mine"
        assert (folder / "a").read_text() == "old"
        shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(InputError, match=r"holds notes\.txt"), make() as temporary:
        (temporary / "a").write_text("new")
        (folder / "notes.txt").write_text("put there meanwhile")
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_links_as_destinations(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_text("old")
    link = tmp_path / "link"
    link.symlink_to("real")
    with atomic_folder(link, ("a",), what="a thing", force=True) as temporary:
        (temporary / "a").write_text("new")
    assert link.is_symlink() and (tmp_path / "real" / "a").read_text() == "new"
    (tmp_path / "nowhere").symlink_to("gone")
    for refuse in (refuse_existing, partial(refuse_folder, own=(), what="a thing")):
        with pytest.raises(InputError, match=r"is a link to .*gone, which is not there"):
            refuse(tmp_path / "nowhere", force=True)
    (tmp_path / "real" / "b").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="holds b, which is no part"):
        refuse_folder(tmp_path / "real", ("a", "c/b"), what="a thing", force=True)


def test_a_folder_put_aside_by_a_killed_process_comes_back(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from m1pipe import atomic\n"
        "def kill(a, b):\n"
        "    if str(b) == sys.argv[1]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    replace(a, b)\n"
        "replace = os.replace; os.replace = kill\n"
        "with atomic.atomic_folder(sys.argv[1], ('x',), what='it', force=True) as a:\n"
        "    (a / 'x').write_text('new')\n"
    )
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "x").write_text("old")
    done = subprocess.run([sys.executable, "-c", code, str(folder)], check=False)
    assert done.returncode == -9 and not folder.exists()
    with pytest.raises(InputError, match="exists already and holds it"):
        refuse_folder(folder, ("x",), what="it")
    assert (folder / "x").read_text() == "old"


@pytest.mark.parametrize("kind", ["ENOSPC", "EROFS", "EACCES", "EDQUOT", "EIO"])
def test_what_the_file_system_refuses_is_a_line(tmp_path: Path, kind: str) -> None:
    number = getattr(errno, kind)
    with (
        pytest.raises(InputError, match=rf"a\.txt: could not be written; {os.strerror(number)}"),
        atomic_file(tmp_path / "a.txt") as temporary,
    ):
        temporary.write_text("half")
        raise OSError(number, os.strerror(number), str(temporary))
    assert not any(tmp_path.iterdir())


def test_other_faults_are_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="a fault of ours"), writing(tmp_path / "a"):
        raise OSError("a fault of ours")


@pytest.mark.parametrize("length", [200, 240, 255])
def test_long_names_are_written_if_the_file_system_takes_them(tmp_path: Path, length: int) -> None:
    name = "a" * length
    write_json(tmp_path / name, [1])
    with atomic_folder(tmp_path / ("b" * length), (), what="it"):
        assert len(max(os.listdir(tmp_path), key=len)) <= 255
    assert {len(p.name) for p in tmp_path.iterdir()} == {length}


def test_names_that_are_too_long_are_refused(tmp_path: Path) -> None:
    for refuse in (refuse_existing, partial(refuse_folder, own=(), what="a thing")):
        with pytest.raises(InputError, match="could not be written; File name too long"):
            refuse(tmp_path / ("a" * 256))
    with pytest.raises(InputError, match="File name too long"):
        write_json(tmp_path / ("a" * 256), [1])


def test_a_folder_in_the_place_of_a_file_is_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for force in (False, True):
        with pytest.raises(
            InputError, match="exists already and is a folder: choose the name of a file"
        ):
            refuse_existing(tmp_path / "x", force=force)
