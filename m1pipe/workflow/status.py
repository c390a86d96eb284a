"""What `m1pipe status` tells: where every run and every task of a study stands, and why."""

import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from m1pipe.artefacts import read_json
from m1pipe.errors import InputError, counted
from m1pipe.training.signals import AGAIN
from m1pipe.workflow.crossval_shares import PLAN
from m1pipe.workflow.pipeline import FOLDER
from m1pipe.workflow.tasks import CV, STAGES

SECONDS = 20
_SLURM = ("squeue", "--noheader", "--array", "--format=%i|%t|%r")
_LSF = ("bjobs", "-noheader", "-o", "jobid jobindex stat pend_reason delimiter='|'")
_WAITING = {"PD": "slurm", "PEND": "lsf", "PSUSP": "lsf"}
Queue = Mapping[str, str | None] | None  # as `ask_queue` gives it


def ask_queue() -> dict[str, str | None] | None:
    """Jobs of this user that have not ended, and why each waits.

    Returns
    -------
    dict or None
        By identifier, as `m1pipe.provenance.job_id` gives it: None for a job that has begun, else
        the reason in the queue's words, which may be empty. None where there is no queue, or it
        does not answer.
    """
    found: dict[str, str | None] | None = None
    for command in ((*_SLURM, f"--user={getpass.getuser()}"), _LSF):
        lines = _ask(command)
        if lines is not None:
            read = _read_slurm if command[0] == "squeue" else _read_lsf
            found = {**(found or {}), **dict(map(read, lines))}
    return found


def _ask(command: tuple[str, ...]) -> list[str] | None:
    """Lines that a client prints; None where it is not there or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = [line for line in done.stdout.splitlines() if "|" in line]
    nothing = "No unfinished job found" in done.stderr  # bjobs says so, with exit code 255
    return lines if lines or nothing or done.returncode == 0 else None


def _read_slurm(line: str) -> tuple[str, str | None]:
    job, state, reason = line.split("|", 2)
    return job.strip(), _reason(state.strip(), reason, "None")


def _reason(state: str, reason: str, nothing: str) -> str | None:
    if state not in _WAITING:
        return None
    return "" if reason == nothing else reason


def _read_lsf(line: str) -> tuple[str, str | None]:
    job, index, state, reason = (part.strip() for part in line.split("|", 3))
    name = job if index in ("0", "-", "") else f"{job}[{index}]"
    return name, _reason(state, reason, "-")


class RunLine(NamedTuple):
    """A run or task: its name, its state in a word, and what else there is to say."""

    name: str
    state: str
    detail: str


def run_lines(root: Path, queue: Queue) -> list[RunLine]:
    """Everything that stands in a folder of results: a study's tasks by stage, then other runs.

    Parameters
    ----------
    root : Path
        A study's results, a folder of runs, or one run.
    queue : mapping or None
        From `m1pipe.workflow.status.ask_queue`.

    Returns
    -------
    list of RunLine
        States: queued, running, done, to do, stopped (resumable), failed, lost (neither at work
        nor in the queue).

    Raises
    ------
    InputError
        If there is no such folder, or nothing of m1pipe in it.
    """
    if not root.is_dir():
        raise InputError(f"{root}: expected a folder of runs; found none")
    found = {file.stem: _read(file) for file in sorted((root / FOLDER).glob("*.json"))}
    tasks = [(name, record) for name, record in found.items() if record.get("stage") in STAGES]
    records = dict(sorted(tasks, key=lambda item: STAGES.index(item[1]["stage"])))
    lines = [_task_line(root, name, record, records, queue) for name, record in records.items()]
    has_folds = any(record["stage"] == "crossval" for record in records.values())
    told = {record["folder"] for record in records.values() if record.get("folder")}
    for folder in [root, *sorted(path for path in root.iterdir() if path.is_dir())]:
        if (folder / "status.json").is_file() and os.path.relpath(folder, root) not in told:
            status = _read(folder / "status.json")
            lines.append(RunLine(folder.name, *_standing(status, status, queue)))
        elif (folder / "shares" / PLAN).is_file() and not (has_folds and folder.name == CV):
            lines.append(_crossval_line(folder))
    if not lines:
        raise InputError(f"{root}: expected runs of m1pipe; found none: name the folder of results")
    return lines


def status_text(lines: list[RunLine]) -> str:
    """The lines in columns."""
    wide = max(len(line.name) for line in lines)
    return "\n".join(
        f"{line.name:<{wide}}  {line.state:<7}  {line.detail}".rstrip() for line in lines
    )


def _read(file: Path) -> dict[str, Any]:
    return read_json(file, "JSON written by m1pipe", remedy="remove it, and run the command again")


def _task_line(
    root: Path, name: str, record: dict[str, Any], records: Mapping[str, Any], queue: Queue
) -> RunLine:
    """Line of a study's task; a run's own status says more while it is at work."""
    status = record
    if record["stage"] == "gather" and record["state"] == "done":
        return RunLine(name, "done", str(root / CV / "report.html"))
    if record["state"] != "queued" and record.get("folder"):
        own = root / record["folder"] / "status.json"
        status = _read(own) if own.is_file() else record
    if record["state"] == "queued" and not _in_queue(record, queue):
        failed = [n for n, r in records.items() if r["state"] == "failed"]
        why = f"{failed[0]} failed" if failed else f"its log in {root / 'logs'} may say why"
        return RunLine(name, "lost", f"job {record['job_id']} never began: {why}")
    return RunLine(name, *_standing(record, status, queue))


def _standing(record: dict[str, Any], status: dict[str, Any], queue: Queue) -> tuple[str, str]:
    """State and detail of something that has a record (or status.json, which is alike)."""
    state = str(record.get("state"))
    job = f"job {record['job_id']}" if record.get("job_id") else ""
    if state == "failed":
        return state, str(record.get("message") or status.get("message", ""))
    if state == "done":
        return state, _progress(status, left=False)
    reason = None if queue is None else queue.get(str(record.get("job_id")))
    if reason is not None:
        return "queued", ", ".join(filter(None, (_progress(status), job, reason)))
    if state == "queued" and queue is not None:
        return "running", f"{job}, starting"
    if state == "stopped":
        said = str(record.get("message") or "").removesuffix(f"; {AGAIN}")
        return state, "; ".join(filter(None, (said, AGAIN)))
    if state == "running" and not _at_work(record, queue):
        return (
            "lost",
            f"killed{f' ({job})' if job else ''} {_progress(status, left=False)}; {AGAIN}",
        )
    where = f"on {record['host']}" if record.get("host") else ""
    return state, ", ".join(filter(None, (_progress(status), " ".join(filter(None, (job, where))))))


def _progress(status: dict[str, Any], *, left: bool = True) -> str:
    """Epoch, loss and time left, as far as they are known."""
    if "epoch" not in status:
        return ""
    words = [f"epoch {status['epoch']}/{status.get('epochs', '?')}"]
    if "loss" in status:
        words.append(f"loss {status['loss']:.5g}")
    if left and "eta_seconds" in status:
        minutes, seconds = divmod(round(status["eta_seconds"]), 60)
        words.append(f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d} left")
    return ", ".join(words)


def _in_queue(record: dict[str, Any], queue: Queue) -> bool:
    """Whether a job is in the queue; believed where the queue cannot be asked."""
    return queue is None or record.get("job_id") in queue


def _at_work(record: dict[str, Any], queue: Queue) -> bool:
    """Whether what is said to be running can be; believed where nobody knows."""
    if record.get("job_id"):
        return _in_queue(record, queue)
    pid = record.get("pid")
    if pid is None or record.get("host") != socket.gethostname():
        return True
    return Path(f"/proc/{pid}").exists() if Path("/proc").exists() else True


def _crossval_line(folder: Path) -> RunLine:
    """How many folds of a cross-validation are done."""
    plan = _read(folder / "shares" / PLAN)
    n_shares = sum(len(set(folds)) for folds in plan["folds"])
    done = (folder / "shares").glob("r*_f*/share.json")
    n_done = len({path.parent.name.partition("_n")[0] for path in done})
    if (folder / "report.html").exists():
        return RunLine(folder.name, "done", str(folder / "report.html"))
    return RunLine(folder.name, "to do", f"{n_done} of {counted(n_shares, 'fold')} done")
