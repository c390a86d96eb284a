"""A run folder says how far its run is, and never loses or mixes one."""

import hashlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from m1pipe.console import log
from m1pipe.errors import InputError, StoppedBySignalError
from m1pipe.provenance import describe_input, git_commit, job_id, same_input
from m1pipe.workflow.run_folder import RunFolder, differences

CONFIG = {"model": {"beta": 1.0}, "training": {"lr": 0.001}}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(b"expression")
    return path


def _begin(path: Path, data: Path, **options: object) -> tuple[RunFolder, str]:
    folder = RunFolder(path, results=("model.json",))
    start = folder.prepare(CONFIG, {"data": data}, seed=3, threads=1, **options)  # type: ignore[arg-type]
    return folder, start


def _unfinished(path: Path, data: Path) -> None:
    folder, _ = _begin(path, data)
    with pytest.raises(StoppedBySignalError), folder:
        folder.checkpoint.write_bytes(b"state")
        raise StoppedBySignalError("stopped by SIGTERM")


def _finished(path: Path, data: Path) -> None:
    folder, _ = _begin(path, data)
    with folder:
        folder.checkpoint.write_bytes(b"state")
        (path / "model.json").write_text("{}")
    assert not folder.checkpoint.exists()


def test_a_run_is_recorded_from_begin_to_end(tmp_path: Path, data: Path) -> None:
    folder, start = _begin(tmp_path / "run", data)
    assert start == "fresh"
    with folder:
        assert folder.state == "running"
        folder.update(epoch=2, loss=0.5)
        folder.write_history([{"epoch": 1, "loss": 0.7}, {"epoch": 2, "loss": 0.5}])
        log.warning("a line for the log")
    assert folder.state == "done"
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["epoch"], status["loss"], status["pid"]) == (2, 0.5, os.getpid())
    assert (tmp_path / "run" / "history.csv").read_text() == "epoch,loss\n1,0.7\n2,0.5\n"
    assert "a line for the log" in (tmp_path / "run" / "log.txt").read_text()
    assert folder.read_config() == CONFIG
    assert not any(isinstance(h, logging.FileHandler) for h in log.handlers)


def test_provenance_names_the_input_by_its_sha256(tmp_path: Path, data: Path) -> None:
    folder, _ = _begin(tmp_path / "run", data)
    provenance = folder.read_provenance()
    assert provenance is not None
    assert provenance["inputs"]["data"]["sha256"] == hashlib.sha256(b"expression").hexdigest()
    assert provenance["inputs"]["data"]["size"] == len(b"expression")
    assert provenance["seed"] == 3
    assert {"torch", "numpy", "python"} <= set(provenance["libraries"])


def test_a_finished_run_is_not_overwritten_without_force(tmp_path: Path, data: Path) -> None:
    _finished(tmp_path / "run", data)
    assert _begin(tmp_path / "run", data)[1] == "finished"
    other = {"model": {"beta": 0.5}, "training": {"lr": 0.001}}
    message = r"holds a finished run that differs: model\.beta: 1\.0 there, 0\.5 here: .* force"
    with pytest.raises(InputError, match=message):
        RunFolder(tmp_path / "run").prepare(other, {"data": data}, threads=1)
    assert (tmp_path / "run" / "model.json").exists()
    folder, start = _begin(tmp_path / "run", data, force=True)
    assert start == "fresh"
    assert not (tmp_path / "run" / "model.json").exists()
    assert folder.state == "running"


def test_an_unfinished_run_is_resumed(tmp_path: Path, data: Path) -> None:
    _unfinished(tmp_path / "run", data)
    assert RunFolder(tmp_path / "run").state == "stopped"
    folder, start = _begin(tmp_path / "run", data)
    assert start == "resumed"
    assert folder.checkpoint.read_bytes() == b"state"
    provenance = folder.read_provenance()
    assert provenance is not None
    assert len(provenance["resumed"]) == 1


def test_what_a_killed_process_was_writing_is_swept_away(tmp_path: Path, data: Path) -> None:
    _unfinished(tmp_path / "run", data)
    part = tmp_path / "run" / ".resume.pt.4711.part"
    part.write_bytes(b"half a st")
    assert _begin(tmp_path / "run", data)[1] == "resumed"
    assert not part.exists()


def test_resume_refuses_other_settings_and_names_them(tmp_path: Path, data: Path) -> None:
    _unfinished(tmp_path / "run", data)
    other = {"model": {"beta": 0.5}, "training": {"lr": 0.001}}
    with pytest.raises(InputError, match=r"model\.beta: 1\.0 there, 0\.5 here"):
        RunFolder(tmp_path / "run").prepare(other, {"data": data}, threads=1)


def test_resume_refuses_another_input_but_not_a_moved_one(tmp_path: Path, data: Path) -> None:
    _unfinished(tmp_path / "run", data)
    moved = data.rename(tmp_path / "moved.bin")
    assert _begin(tmp_path / "run", moved)[1] == "resumed"
    moved.write_bytes(b"expressioN")
    with pytest.raises(InputError, match=r"moved\.bin is not the file that the run began with"):
        _begin(tmp_path / "run", moved)


def test_resume_refuses_an_input_more_or_less(tmp_path: Path, data: Path) -> None:
    _unfinished(tmp_path / "run", data)
    with pytest.raises(InputError, match="validation: none there"):
        RunFolder(tmp_path / "run").prepare(CONFIG, {"data": data, "validation": data}, threads=1)
    with pytest.raises(InputError, match=r"data: .*data\.bin there, none here"):
        RunFolder(tmp_path / "run").prepare(CONFIG, {}, threads=1)


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path, data: Path) -> None:
    keep = tmp_path / "thesis" / "chapter.tex"
    keep.parent.mkdir()
    keep.write_text("text")
    with pytest.raises(InputError, match="holds no run"):
        _begin(keep.parent, data)
    with _begin(keep.parent, data, force=True)[0]:
        pass
    assert keep.read_text() == "text"


@pytest.mark.parametrize("name", ["config.json", "history.csv", "log.txt"])
def test_files_of_others_that_are_named_as_ours_are_left_alone(
    tmp_path: Path, data: Path, name: str
) -> None:
    keep = tmp_path / "thesis" / name
    keep.parent.mkdir()
    keep.write_text('{"mine": 1}')
    for force in (False, True):
        with pytest.raises(InputError, match=f"holds no run: found {name}: .* move that file"):
            _begin(keep.parent, data, force=force)
    assert keep.read_text() == '{"mine": 1}'


@pytest.mark.parametrize("left", [["status.json"], ["status.json", "config.json"], ["config.json"]])
def test_a_start_that_was_killed_is_no_start(tmp_path: Path, data: Path, left: list[str]) -> None:
    folder, _ = _begin(tmp_path / "run", data)
    folder._release()
    for path in folder.path.iterdir():
        if path.name not in left:
            path.unlink()
    (folder.path / ".provenance.json.elsewhere-1.part").write_text('{"ha')
    _, start = _begin(tmp_path / "run", data)
    assert start == "fresh"
    assert (folder.path / "provenance.json").exists()


def test_a_folder_of_parts_alone_is_a_fresh_start(tmp_path: Path, data: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".status.json.host-1.part").touch()
    assert _begin(tmp_path / "run", data)[1] == "fresh"


def test_a_run_refused_for_its_input_leaves_nothing(tmp_path: Path, data: Path) -> None:
    folder, _ = _begin(tmp_path / "run", data)
    with pytest.raises(InputError, match="bad gene"), folder:
        raise InputError("bad gene")
    assert not (tmp_path / "run").exists()


def test_a_failure_of_ours_is_kept_and_explained(tmp_path: Path, data: Path) -> None:
    folder, _ = _begin(tmp_path / "run", data)
    with pytest.raises(ZeroDivisionError), folder:
        raise ZeroDivisionError("by nothing")
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed"
    assert status["message"] == "ZeroDivisionError: by nothing"


def test_two_processes_do_not_share_a_folder(tmp_path: Path, data: Path) -> None:
    folder, _ = _begin(tmp_path / "run", data)
    code = (
        "from m1pipe.workflow.run_folder import RunFolder\n"
        f"RunFolder({str(tmp_path / 'run')!r}).prepare({{}}, {{}}, force=True)"
    )
    with folder:
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "another process is at work" in other.stderr
    assert folder.read_config() == CONFIG
    alone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr


def test_differences_are_listed_with_dots() -> None:
    there = {"a": {"b": 1, "c": 2}, "d": 3}
    assert differences(there, there) == []
    assert differences(there, {"a": {"b": 1, "c": 4}}) == [
        "a.c: 2 there, 4 here",
        "d: 3 there, None here",
    ]


def test_an_input_touched_but_unchanged_is_the_same(data: Path) -> None:
    known = describe_input(data)
    os.utime(data, ns=(1, 1))
    assert same_input(known, data)
    data.write_bytes(b"longer than before")
    assert not same_input(known, data)


def test_an_input_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.h5ad: expected a readable file"):
        describe_input(tmp_path / "none.h5ad")


def test_the_commit_is_of_the_package_only(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "7"}, "7"),
        ({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}, "7_2"),
        ({"LSB_JOBID": "5", "LSB_JOBINDEX": "0"}, "5"),
        ({"LSB_JOBID": "5", "LSB_JOBINDEX": "4"}, "5[4]"),
    ],
)
def test_job_ids(
    environment: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "LSB_JOBID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert job_id() == expected
