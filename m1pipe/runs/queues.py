"""What the queue says of a user's jobs, where there is a queue."""

import getpass
import shutil
import subprocess
from dataclasses import dataclass

SECONDS = 20
_SLURM = ("squeue", "--noheader", "--array", "--format=%i|%t|%r")
_LSF = ("bjobs", "-noheader", "-o", "jobid jobindex stat pend_reason delimiter='|'")
_WAITING = {"PD": "slurm", "PEND": "lsf", "PSUSP": "lsf"}


@dataclass(frozen=True)
class QueuedJob:
    """A job that has not ended.

    Attributes
    ----------
    waits : bool
        Whether it has not begun.
    reason : str
        Why it waits, in the queue's words; may be empty.
    """

    waits: bool
    reason: str


def ask_queue() -> dict[str, QueuedJob] | None:
    """Jobs of this user by identifier, as `m1pipe.runs.provenance.job_id` gives it.

    Returns
    -------
    dict or None
        None where there is no queue, or it does not answer.
    """
    found: dict[str, QueuedJob] | None = None
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


def _read_slurm(line: str) -> tuple[str, QueuedJob]:
    job, state, reason = line.split("|", 2)
    return job.strip(), QueuedJob(state.strip() in _WAITING, "" if reason == "None" else reason)


def _read_lsf(line: str) -> tuple[str, QueuedJob]:
    job, index, state, reason = (part.strip() for part in line.split("|", 3))
    name = job if index in ("0", "-", "") else f"{job}[{index}]"
    return name, QueuedJob(state in _WAITING, "" if reason == "-" else reason)
