"""Running a study: its stages in order, without what is finished and up to date."""

import time
from collections.abc import Sequence
from contextlib import nullcontext

from m1pipe.console import leads, log
from m1pipe.errors import InputError
from m1pipe.runs.records import read_record, record_file, recorded, standing
from m1pipe.runs.stages import STAGES, Task, array_tasks, stage_tasks
from m1pipe.runs.study import Study
from m1pipe.training.signals import stopped_at_once


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


def run_study(study: Study, tasks: Sequence[Task], *, force: bool = False) -> list[str]:
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

    Returns
    -------
    list of str
        A line on each task.

    Raises
    ------
    InputError
        If a result is out of date, or a task cannot be done.
    StoppedBySignalError, KeyboardInterrupt
        After a signal; the same call goes on.
    """
    if not force:
        for task in tasks:
            _refuse_stale(study, task)
    lines = []
    for i, task in enumerate(tasks, start=1):
        how, why = standing(study.out, task)
        if how == "done":
            lines.append(f"{task.name}: up to date")
            log.info("[%d/%d] %s", i, len(tasks), lines[-1])
            continue
        if not force:
            _refuse_stale(study, task)
        log.info("[%d/%d] %s%s", i, len(tasks), task.name, f": again, {why}" if why else "")
        lines.append(f"{task.name}: {_do(study, task, again=how == 'stale')}")
    return lines


def plan_lines(study: Study, tasks: Sequence[Task]) -> list[str]:
    """What `run_study` would do: a line on each task."""
    words = {"done": "up to date", "missing": "to do", "stale": "out of date"}
    lines = []
    for task in tasks:
        how, why = standing(study.out, task)
        lines.append(f"{task.name}: {words[how]}{f' ({why})' if why else ''}")
    return lines


def _do(study: Study, task: Task, *, again: bool) -> str:
    """Do a task; what a killed one left of a stage that does not resume is replaced."""
    record = read_record(record_file(study.out, task.name))
    resumes = task.stage in ("train", "crossval")
    force = again or (record is not None and not resumes)
    begun = time.monotonic()
    with stopped_at_once(), recorded(study.out, task) if leads() else nullcontext():
        line = task.work(force)
    log.info("%s (%.0f s)", line, time.monotonic() - begun)
    return line


def _refuse_stale(study: Study, task: Task) -> None:
    how, why = standing(study.out, task)
    if how == "stale":
        raise InputError(
            f"{task.name}: expected a result that is up to date in {study.out}; this differs: "
            f"{why}: redo what is out of date with --force, or name another `out`"
        )
