"""What is known of each task of a study: where it stands, and what its result was made from.

One JSON file a task in OUT/stages, replaced atomically, so that tasks of a job array write side by
side.
"""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from m1pipe.artefacts import read_json, reading
from m1pipe.atomic import make_folder, write_json
from m1pipe.errors import InputError, StoppedBySignalError
from m1pipe.runs.folder import differences
from m1pipe.runs.provenance import describe_input, job_id, now, same_input
from m1pipe.runs.stages import Task

FOLDER = "stages"
REMEDY = "remove it, and the task is done again"
Standing = Literal["done", "missing", "stale"]


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
