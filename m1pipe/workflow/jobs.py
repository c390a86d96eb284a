"""Job scripts for Slurm and LSF, and their submission: thin shell around one m1pipe command.

A script asks for resources, prepares the environment, passes the queue's warnings on to the
command and tells the queue when the work needs another start (exit 75).
"""

import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping

from m1pipe.atomic import make_folder
from m1pipe.errors import InputError
from m1pipe.provenance import now
from m1pipe.workflow.pipeline import standing, write_record
from m1pipe.workflow.resources import (
    JOB_STAGES,
    Resources,
    System,
    directives,
    plain_start,
    read_resources,
    shell_path,
)
from m1pipe.workflow.study import Study
from m1pipe.workflow.tasks import array_tasks

TITLES = {
    "convert": "Convert the sources, one data set a task.",
    "train": "Train the encoders, one run a task.",
    "crossval": "Cross-validation, one fold of one repeat a task.",
    "gather": "Gather the folds, test, write report.html.",
    "generate": "Generate synthetic samples and score them.",
}
AFTER = {
    "train": ("convert",),
    "crossval": ("convert", "train"),
    "gather": ("crossval",),
    "generate": ("convert", "train"),
}
INDEX = {"slurm": "SLURM_ARRAY_TASK_ID", "lsf": "LSB_JOBINDEX"}
MOST_RESTARTS = 100
_JOB_ID = {"slurm": re.compile(r"(\d+)(?:;\S+)?"), "lsf": re.compile(r"Job <(\d+)> is submitted")}

PATIENCE = 300


def study_jobs(study: Study, system: System, stage: str) -> dict[str, Resources]:
    """What a stage asks for, or every stage that the study has for "pipeline".

    Raises
    ------
    InputError
        If the study has no such stage.
    """
    wanted = JOB_STAGES if stage == "pipeline" else (stage,)
    jobs = {
        name: read_resources(study, system, name) for name in wanted if count_tasks(study, name)
    }
    if not jobs:
        raise InputError(f"{study.file}: expected something to {stage}; found no such stage in it")
    return jobs


def count_tasks(study: Study, stage: str) -> int:
    """Elements of a stage's job array; 0 where the study has no such stage."""
    if stage == "generate":
        return 1 if array_tasks(study, "generate") or array_tasks(study, "quality") else 0
    return len(array_tasks(study, stage))


def job_script(study: Study, system: System, stage: str) -> str:
    """Text of a stage's script, or of the script that submits all of them for "pipeline"."""
    jobs = study_jobs(study, system, stage)
    if stage == "pipeline":
        return _pipeline(study, system, jobs)
    return "\n".join([*_start(study, system, stage, jobs[stage]), *_END[system]]) + "\n"


def _start(study: Study, system: System, stage: str, asked: Resources) -> list[str]:
    """A script up to the loop that waits for its command, which all scripts share."""
    return [
        "#!/usr/bin/env bash",
        f"# {TITLES[stage]} Submitted from the folder of {study.file.name}.",
        *directives(study, system, stage, asked, count_tasks(study, stage)),
        "set -eo pipefail",
        "",
        *_environment(asked),
        *_command(study, system, stage, asked),
        *_warning(study, system, stage, asked),
    ]


def _environment(asked: Resources) -> list[str]:
    """Modules and environments first: their scripts read variables that are not set."""
    threads = max(1, asked.cpus // max(1, asked.gpus))
    marked = ["# shellcheck source=/dev/null"] if asked.setup else []
    return [*marked, *asked.setup, "set -u", f"export OMP_NUM_THREADS={threads}", ""]


def _command(study: Study, system: System, stage: str, asked: Resources) -> list[str]:
    """The one command, in the background so that the shell can hear signals."""
    line = _line(study, stage, asked, f'"${INDEX[system]}"')
    if _spread(stage, asked):  # the launcher would die of a warning meant for its workers
        line = f"(trap '' USR1 USR2 && exec {line})"
    return [f"{line} &", "child=$!", ""]


def element_script(study: Study, stage: str, asked: Resources, element: int) -> str:
    """Lines of shell that do one element of a stage, for a workflow that has queued them itself.

    Parameters
    ----------
    study : Study
    stage : str
    asked : Resources
    element : int
        Of the stage's job array, from 1.
    """
    there = f"cd -- {shlex.quote(plain_start(str(study.folder)))}"
    return "\n".join(
        ["set +u", there, *_environment(asked), f"exec {_line(study, stage, asked, str(element))}"]
    )


def _line(study: Study, stage: str, asked: Resources, element: str) -> str:
    """The command that does an element of a stage, where it is to run."""
    stages = ["generate", "quality"] if stage == "generate" else [stage]
    stages = [name for name in stages if array_tasks(study, name)]
    file = shlex.quote(plain_start(study.file.name))
    command = ["run", file, *(f"--stage {name}" for name in stages)]
    command += [f"--task {element}"] if count_tasks(study, stage) > 1 else []
    image = shlex.quote(plain_start(asked.container or ""))
    inside = ["apptainer exec", "--nv" if asked.gpus else "", image]
    runner = [word for word in inside if word] if asked.container else []
    if _spread(stage, asked):
        runner += [f"torchrun --standalone --nproc-per-node={asked.gpus} -m"]
    return " ".join([*runner, "m1pipe", *command])


def _spread(stage: str, asked: Resources) -> bool:
    """Whether the command runs as several processes."""
    return stage == "train" and asked.gpus > 1


def _warning(study: Study, system: System, stage: str, asked: Resources) -> list[str]:
    """How the command is warned, and the file that says whether it can be resumed.

    Torchrun leaves with 1 whatever its workers say; the run's status.json knows better.
    """
    if not _spread(stage, asked):
        return [_CALLED, 'warn() { kill -USR1 "$child"; }', "status="]
    tasks = [tasks[0] for tasks in array_tasks(study, "train")]
    folders = " ".join(shell_path(study, task.folder or study.out) for task in tasks)
    place = f"{INDEX[system]} - 1" if len(tasks) > 1 else "0"
    return [
        _CALLED,
        'below() { local p; for p in $(pgrep -P "$1"); do echo "$p"; below "$p"; done; }',
        _CALLED,
        'warn() { below "$child" | xargs -r kill -USR1; }',
        f"runs=({folders})",
        f"status=${{runs[{place}]}}/status.json",
    ]


_CALLED = "# shellcheck disable=SC2317  # called by the trap"
_WAIT = (
    "# A warning is passed on: the command saves its state at the next step, leaves with 75.",
    "warned=",
    "trap 'warned=yes; warn || true' USR1 USR2",
    "trap 'kill -TERM \"$child\" || true' TERM INT",
    "while true; do",
    "    code=0",
    '    wait "$child" || code=$?',
    '    kill -0 "$child" 2>/dev/null || break',
    "done",
    'if [ "$code" -ne 0 ] && [ -n "$status" ] &&',
    '    grep -q \'"state": "stopped"\' "$status"; then code=75; fi',
)
_END = {
    "slurm": (
        *_WAIT,
        "# After a warning the work goes on in another start of the same job.",
        'if [ -n "$warned" ] && { [ "$code" -eq 75 ] || [ "$code" -gt 128 ]; } &&',
        f'    [ "${{SLURM_RESTART_COUNT:-0}}" -lt {MOST_RESTARTS} ]; then',
        "    # The number of an array's last element is that of the whole array.",
        '    scontrol requeue "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}'
        '${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}"',
        "    code=75",
        "fi",
        'exit "$code"',
    ),
    "lsf": (
        *_WAIT,
        "# After a warning the work goes on in another start: -Q requeues what leaves with 75.",
        'if [ -n "$warned" ] && [ "$code" -gt 128 ]; then code=75; fi',
        'if [ -z "$warned" ] && [ "$code" -eq 75 ]; then code=143; fi',
        'exit "$code"',
    ),
}


def _pipeline(study: Study, system: System, jobs: Mapping[str, Resources]) -> str:
    """A script that submits every stage after those that it needs."""
    lines = [
        "#!/usr/bin/env bash",
        f"# Submit every stage of {study.file.name}, each after those that it needs. Run it in",
        "# the folder of that file; it prints the stages and the numbers of their jobs.",
        "set -euo pipefail",
        f"mkdir -p -- {shell_path(study, study.out / 'logs')}",
        "",
        "# The end of every script: how it waits for its command.",
        "ending=$(",
        *_here(_END[system]),
        ")",
    ]
    for stage, asked in jobs.items():
        before = [name for name in AFTER.get(stage, ()) if name in jobs]
        lines += ["", *_submission(system, stage, before, _start(study, system, stage, asked))]
    return "\n".join(lines) + "\n"


def _here(lines: Iterable[str]) -> list[str]:
    """Lines of shell that print some lines as they are."""
    kept, mark = list(lines), "JOB"
    while mark in kept:
        mark += "_"
    return [f"cat <<'{mark}'", *kept, mark]


def _submission(system: System, stage: str, before: list[str], start: list[str]) -> list[str]:
    if system == "slurm":
        wait = ":".join(f"${name}" for name in before)
        options = f' --dependency="afterok:{wait}" --kill-on-invalid-dep=yes' if before else ""
        client = f"sbatch --parsable{options}"
        clean = f"{stage}=${{{stage}%%;*}}"
    else:
        wait = " && ".join(f"done(${name})" for name in before)
        client = "bsub" + (f' -w "{wait}" -ti' if before else "")
        clean = f"{stage}=${{{stage}#*<}} {stage}=${{{stage}%%>*}}"
    text = ["{", *_here(start), 'echo "$ending"', f"}} | {client}"]
    return [f"{stage}=$(", *text, ")", clean, f'echo "{stage} ${stage}"']


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
    done = _call(command, script, study)
    if stage == "pipeline":
        pairs = [tuple(line.split()) for line in done.stdout.splitlines() if line.count(" ") == 1]
        submitted = [(name, number) for name, number in pairs if name in JOB_STAGES]
    else:
        found = _JOB_ID[system].search(done.stdout) if done.returncode == 0 else None
        submitted = [(stage, found.group(1))] if found else []
    for name, number in submitted:
        _record_queued(study, system, name, number)
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise InputError(f"{client}: the queue refused: {said}{_left_behind(system, submitted)}")
    if not submitted:
        raise InputError(f"{client}: expected the number of a job; found {done.stdout.strip()!r}")
    return submitted


def _left_behind(system: System, submitted: list[tuple[str, str]]) -> str:
    """What of a pipeline the queue had taken before it refused a stage, and how to end it."""
    if not submitted:
        return ""
    cancel = "scancel" if system == "slurm" else "bkill"
    stages, numbers = zip(*submitted, strict=True)
    return f"; already submitted: {', '.join(stages)}, which {cancel} {' '.join(numbers)} cancels"


def _call(command: list[str], script: str, study: Study) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
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
