"""Running a study: its stages in order, without what is finished and up to date.

What is known of a task is one JSON file in OUT/stages, replaced atomically, so that tasks of a job
array write side by side.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from m1pipe.artefacts import read_json, reading
from m1pipe.atomic import make_folder, write_json
from m1pipe.console import leads, log
from m1pipe.errors import InputError, StoppedBySignalError
from m1pipe.provenance import describe_input, job_id, now, same_input
from m1pipe.training.signals import stopped_at_once
from m1pipe.workflow.run_folder import differences
from m1pipe.workflow.study import Study
from m1pipe.workflow.tasks import STAGES, Task, array_tasks, stage_tasks

FOLDER = "stages"
REMEDY = "remove it, and the task is done again"
Standing = Literal["done", "missing", "stale"]


def choose_tasks(
    study: Study, stages: Sequence[str] = (), *, element: int | None = None
) -> list[Task]:
    """Tasks of the stages named (all where none is), in order.

    Parameters
    ----------
    study : Study
    stages : sequence of str
        Of `STAGES`.
    element : int, optional
        Number (from 1) of the element of a job array over the one stage named.

    Raises
    ------
    InputError
        If the study has no such stage, or the stage no such element.
    """
    wanted = [stage for stage in STAGES if stage in stages or not stages]
    if element is None:
        tasks = [task for stage in wanted for task in stage_tasks(study, stage)]
        what = " and ".join(stages) or "stage"
    else:
        if len(wanted) != 1:
            raise InputError("task: expected one --stage beside it; found none or several")
        elements = array_tasks(study, wanted[0])
        tasks = elements[element - 1] if 0 < element <= len(elements) else []
        what = f"task {element} of {wanted[0]} (there are {len(elements)})"
    if not tasks:
        raise InputError(f"{study.file}: expected {what} in the study; found none")
    return tasks


def run_study(
    study: Study,
    tasks: Sequence[Task],
    *,
    force: bool = False,
    tell: Callable[[str], object] = log.info,
) -> list[str]:
    """Do what is not done of some tasks, in order.

    A finished result of other settings or inputs is replaced only with `force`; without it
    nothing is begun when one is met.

    Parameters
    ----------
    study : Study
    tasks : sequence of Task
        From `choose_tasks`.
    force : bool
        Redo what is out of date, and nothing else.
    tell : callable
        Called with the line on each task when it is done.

    Returns
    -------
    list of str
        A line on each task.

    Raises
    ------
    InputError
        If a result is out of date, or a task cannot be done.
    StoppedBySignalError, KeyboardInterrupt
        After a signal; the same call resumes.
    """
    if not force:
        for task in tasks:
            _refuse_stale(study, task)
    lines = []
    for i, task in enumerate(tasks, start=1):
        how, why = standing(study.out, task)
        if how == "done":
            lines.append(f"{task.name}: done")
        else:
            if not force:
                _refuse_stale(study, task)
            log.info("[%d/%d] %s%s", i, len(tasks), task.name, f": again, {why}" if why else "")
            lines.append(f"{task.name}: {_do(study, task, again=how == 'stale')}")
        tell(lines[-1])
    return lines


def plan_lines(study: Study, tasks: Sequence[Task]) -> list[str]:
    """What `run_study` would do: a line on each task."""
    words = {"done": "done", "missing": "to do", "stale": "out of date"}
    lines: list[str] = []
    again: dict[Path, str] = {}
    for task in tasks:
        how, why = standing(study.out, task)
        before = [again[path] for path in task.inputs.values() if path in again]
        if how == "done" and before:
            how, why = "stale", f"{before[0]} is done again before"
        if how != "done":
            again |= dict.fromkeys(task.outputs, task.name)
        lines.append(f"{task.name}: {words[how]}{f' ({why})' if why else ''}")
    return lines


def _do(study: Study, task: Task, *, again: bool) -> str:
    """Do a task; what a killed one left of a stage that does not resume is replaced."""
    record = read_record(record_file(study.out, task.name))
    resumes = task.stage in ("train", "crossval")
    force = again or (record is not None and not resumes)
    with stopped_at_once(), recorded(study.out, task) if leads() else nullcontext():
        return task.work(force)


def _refuse_stale(study: Study, task: Task) -> None:
    how, why = standing(study.out, task)
    if how == "stale":
        raise InputError(
            f"{task.name}: what is in {study.out} is out of date: {why}: redo what is out of date "
            "with --force, or name another `out`"
        )


def record_file(out: Path, name: str) -> Path:
    """Where the record of a task is."""
    return out / FOLDER / f"{name}.json"


def read_record(file: Path) -> dict[str, Any] | None:
    """A task's record, or None where there is none.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    if not file.exists():
        return None
    record = read_json(file, "a record of a study", remedy=REMEDY)
    with reading(file, "a record of a study", remedy=REMEDY):
        known = record["state"] in ("queued", "running", "done", "stopped", "failed")
        if not known or (record["state"] == "done" and not _is_complete(record)):
            raise ValueError(f"state {record['state']!r}, or what belongs to it is not there")
    return record


def _is_complete(record: Mapping[str, Any]) -> bool:
    """Whether the record of a finished task says what its result was made from."""
    files = [*record["inputs"].values(), *record["outputs"].values()]
    known = all(file.keys() >= {"path", "size", "modified_ns", "sha256"} for file in files)
    return known and isinstance(record["settings"], dict)


def write_record(out: Path, name: str, record: dict[str, Any]) -> None:
    """Write a task's record, with the time."""
    file = record_file(out, name)
    make_folder(file.parent)
    write_json(file, {**record, "updated": now()})


def standing(out: Path, task: Task) -> tuple[Standing, str]:
    """Whether a task is done and up to date, and if not, why.

    Returns
    -------
    standing : {"done", "missing", "stale"}
        "stale" is a finished result of other settings or inputs.
    why : str
        What differs; empty for the others.
    """
    record = read_record(record_file(out, task.name))
    if record is None or record["state"] != "done":
        return "missing", ""
    if not all(path.exists() for path in task.outputs):
        return "missing", ""
    changes = differences(record["settings"], json.loads(json.dumps(task.settings)))
    known = record["inputs"]
    for role in sorted({*known, *task.inputs}):
        path = task.inputs.get(role)
        if path is None or role not in known:
            changes.append(f"{role}: {'not' if path is None else 'now'} an input")
        elif not path.exists() or not same_input(known[role], path):
            changes.append(f"{role}: {path} is another file than then")
    for path in task.outputs:
        made = record["outputs"].get(os.path.relpath(path, out))
        if made is None or not same_input(made, path):
            changes.append(f"{path} is not as it was made")
    return ("stale", "; ".join(changes)) if changes else ("done", "")


@contextmanager
def recorded(out: Path, task: Task) -> Iterator[None]:
    """Keep the record of a task up to date around the work."""
    record: dict[str, Any] = {
        "stage": task.stage,
        "state": "running",
        "host": socket.gethostname(),
        "job_id": job_id(),
        "pid": os.getpid(),
        "started": now(),
        "folder": None if task.folder is None else os.path.relpath(task.folder, out),
        "settings": task.settings,
    }
    write_record(out, task.name, record)

    def close(
        kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        write_record(out, task.name, {**record, **_ending(kind, error)})

    with ExitStack() as stack:
        stack.push(close)
        record["inputs"] = {role: describe_input(path) for role, path in task.inputs.items()}
        yield
        made = {os.path.relpath(path, out): describe_input(path) for path in task.outputs}
        record["outputs"] = made


def _ending(kind: type[BaseException] | None, error: BaseException | None) -> dict[str, str]:
    """State of a task whose work ended so, and why."""
    if kind is None:
        return {"state": "done"}
    if issubclass(kind, StoppedBySignalError | KeyboardInterrupt):
        return {"state": "stopped", "message": str(error) or "interrupted"}
    prefix = "" if issubclass(kind, InputError) else f"{kind.__name__}: "
    return {"state": "failed", "message": " ".join(f"{prefix}{error}".split())}
