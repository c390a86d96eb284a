"""Job scripts handed to sbatch or bsub, and recorded as queued."""

import re
import subprocess

from m1pipe.atomic import make_folder
from m1pipe.errors import InputError
from m1pipe.runs.jobs import count_tasks, job_script
from m1pipe.runs.provenance import now
from m1pipe.runs.records import standing, write_record
from m1pipe.runs.resources import JOB_STAGES, System
from m1pipe.runs.stages import array_tasks
from m1pipe.runs.study import Study

_JOB_ID = {"slurm": re.compile(r"(\d+)(?:;\S+)?"), "lsf": re.compile(r"Job <(\d+)> is submitted")}

PATIENCE = 300


def submit(study: Study, system: System, stage: str) -> list[tuple[str, str]]:
    """Hand a stage, or the whole pipeline, to sbatch or bsub.

    Tasks that are not done are recorded as queued, so that `m1pipe status` knows of them.

    Returns
    -------
    list of (str, str)
        Stage and number of its job.

    Raises
    ------
    InputError
        If the queue is not there or refuses, in its own words.
    """
    script = job_script(study, system, stage)
    make_folder(study.out / "logs")
    client = "sbatch" if system == "slurm" else "bsub"
    command = ["bash"] if stage == "pipeline" else [client]
    command += ["--parsable"] if command == ["sbatch"] else []
    printed = _call(command, script, study)
    if stage == "pipeline":
        pairs = [tuple(line.split()) for line in printed.splitlines() if len(line.split()) == 2]
        submitted = [(name, number) for name, number in pairs if name in JOB_STAGES]
    else:
        found = _JOB_ID[system].search(printed)
        submitted = [(stage, found.group(1))] if found else []
    if not submitted:
        raise InputError(f"{client}: expected the number of a job; found {printed.strip()!r}")
    for name, number in submitted:
        _record_queued(study, system, name, number)
    return submitted


def _call(command: list[str], script: str, study: Study) -> str:
    try:
        done = subprocess.run(
            command,
            input=script,
            capture_output=True,
            encoding="utf-8",
            cwd=study.folder,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"{command[0]}: expected an answer of the queue; none came in {PATIENCE} s"
        ) from None
    except OSError:
        raise InputError(
            f"{command[0]}: expected this command of the queue; found none: submit on the cluster"
        ) from None
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise InputError(f"{command[0]}: the queue refused: {said}")
    return done.stdout


def _record_queued(study: Study, system: System, stage: str, number: str) -> None:
    names = ("generate", "quality") if stage == "generate" else (stage,)
    elements = [element for name in names for element in array_tasks(study, name)]
    for i, tasks in enumerate(elements, start=1):
        element = f"{number}_{i}" if system == "slurm" else f"{number}[{i}]"
        job = element if count_tasks(study, stage) > 1 else number
        for task in tasks:
            if standing(study.out, task)[0] != "done":
                record = {"stage": task.stage, "state": "queued", "job_id": job, "queued": now()}
                write_record(study.out, task.name, record)
