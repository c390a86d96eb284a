"""Job scripts for Slurm and LSF: thin shell around one m1pipe command.

A script asks for resources, prepares the environment, passes the queue's warnings on to the
command and tells the queue when the work is to go on in another start (exit 75).
"""

import os
import shlex
from dataclasses import dataclass

from m1pipe.errors import InputError
from m1pipe.runs.resources import JOB_STAGES, Resources, System, read_resources
from m1pipe.runs.stages import array_tasks
from m1pipe.runs.study import Study

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
SUFFIX = {"slurm": "sbatch", "lsf": "bsub"}
MOST_RESTARTS = 100


@dataclass(frozen=True)
class Job:
    """One stage as a job.

    Attributes
    ----------
    stage : str
        One of `JOB_STAGES`.
    n_tasks : int
        Elements of its array; 1: no array.
    resources : Resources
    """

    stage: str
    n_tasks: int
    resources: Resources


def study_jobs(study: Study, system: System, stage: str) -> list[Job]:
    """Jobs of a stage, or of all stages that the study has for "pipeline".

    Raises
    ------
    InputError
        If the study has no such stage.
    """
    wanted = JOB_STAGES if stage == "pipeline" else (stage,)
    jobs = []
    for name in wanted:
        n_tasks = count_tasks(study, name)
        if n_tasks:
            jobs.append(Job(name, n_tasks, read_resources(study, system, name)))
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
    return _script(study, system, jobs[0])


def _script(study: Study, system: System, job: Job) -> str:
    options = _slurm_options if system == "slurm" else _lsf_options
    mark = "#SBATCH" if system == "slurm" else "#BSUB"
    lines = [
        "#!/usr/bin/env bash",
        f"# {TITLES[job.stage]} Submitted from the folder of {study.file.name}.",
        *(f"{mark} {option}" for option in options(study, job)),
        "set -euo pipefail",
        "",
        *_environment(job.resources),
        *_command(study, system, job),
        *_supervision(_spread(job)),
        *_resumable_workers(study, system, job),
        *(_slurm_end(job.n_tasks > 1) if system == "slurm" else _LSF_END),
    ]
    return "\n".join(lines) + "\n"


def _slurm_options(study: Study, job: Job) -> list[str]:
    asked, array = job.resources, job.n_tasks > 1
    log = _logs(study) + ("/%x_%A_%a.log" if array else "/%x_%j.log")
    gres = f"gpu:{asked.gpu_type}:{asked.gpus}" if asked.gpu_type else f"gpu:{asked.gpus}"
    return [
        f"--job-name={asked.name}-{job.stage}",
        f"--output={log}",
        "--open-mode=append",
        *([f"--partition={asked.queue}"] if asked.queue else []),
        *([f"--account={asked.account}"] if asked.account else []),
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={asked.cpus}",
        f"--mem={asked.memory_mb}M",
        *([f"--gres={gres}"] if asked.gpus else []),
        f"--time={asked.minutes // 60:02d}:{asked.minutes % 60:02d}:00",
        *([f"--array=1-{job.n_tasks}{_at_once(asked)}"] if array else []),
        "--requeue",
        f"--signal=B:USR1@{60 * asked.warning}",
        *asked.extra,
    ]


def _lsf_options(study: Study, job: Job) -> list[str]:
    asked, array = job.resources, job.n_tasks > 1
    name = f"{asked.name}-{job.stage}"
    log = f"{_logs(study)}/{name}_{'%J_%I' if array else '%J'}"
    selected = f"select[{asked.gpu_type}] " if asked.gpus and asked.gpu_type else ""
    return [
        f'-J "{name}[1-{job.n_tasks}]{_at_once(asked)}"' if array else f"-J {name}",
        f"-o {log}.out",
        f"-e {log}.err",
        *([f"-q {asked.queue}"] if asked.queue else []),
        *([f"-P {asked.account}"] if asked.account else []),
        f"-n {asked.cpus}",
        f'-R "{selected}span[hosts=1]"',
        f'-R "rusage[mem={-(-asked.memory_mb // asked.cpus)}MB]"',
        *([f'-gpu "num={asked.gpus}:mode=exclusive_process"'] if asked.gpus else []),
        f"-W {asked.minutes // 60:02d}:{asked.minutes % 60:02d}",
        f"-wa USR2 -wt {asked.warning}",
        '-Q "75"',
        "-r",
        *asked.extra,
    ]


def _logs(study: Study) -> str:
    return f"{os.path.relpath(study.out, study.folder)}/logs"


def _at_once(asked: Resources) -> str:
    return "" if asked.at_once is None else f"%{asked.at_once}"


def _environment(asked: Resources) -> list[str]:
    threads = max(1, asked.cpus // max(1, asked.gpus))
    marked = ["# shellcheck source=/dev/null"] if asked.setup else []
    lines = [*asked.setup, f"export OMP_NUM_THREADS={threads}"]
    return [*marked, *lines, ""]


def _command(study: Study, system: System, job: Job) -> list[str]:
    """The one command, in the background so that the shell can hear signals."""
    asked, index = job.resources, f"${INDEX[system]}"
    stages = ["generate", "quality"] if job.stage == "generate" else [job.stage]
    stages = [stage for stage in stages if array_tasks(study, stage)]
    command = ["run", shlex.quote(study.file.name), *(f"--stage {stage}" for stage in stages)]
    command += [f'--task "{index}"'] if job.n_tasks > 1 else []
    inside = ["apptainer exec", "--nv" if asked.gpus else "", shlex.quote(asked.container or "")]
    runner = [word for word in inside if word] if asked.container else []
    if _spread(job):
        runner += [f"torchrun --standalone --nproc-per-node={asked.gpus} -m"]
    line = " ".join([*runner, "m1pipe", *command])
    if _spread(job):  # the launcher would die of a warning meant for its workers
        line = f"(trap '' USR1 USR2 && exec {line})"
    return [f"{line} &", "child=$!", ""]


def _spread(job: Job) -> bool:
    """Whether the command runs as several processes."""
    return job.stage == "train" and job.resources.gpus > 1


def _supervision(spread: bool) -> list[str]:
    """Pass signals on to the command, or to the workers below its launcher; wait for its end."""
    warn = 'kill -USR1 "$child"'
    walk: tuple[str, ...] = ()
    if spread:
        warn = 'below "$child" | xargs -r kill -USR1'
        walk = (
            "# shellcheck disable=SC2317  # called by the trap",
            'below() { local p; for p in $(pgrep -P "$1"); do echo "$p"; below "$p"; done; }',
        )
    return [
        "# A warning is passed on: the command saves its state at the next step, leaves with 75.",
        "warned=",
        *walk,
        f"trap 'warned=yes; {warn} || true' USR1 USR2",
        "trap 'kill -TERM \"$child\" || true' TERM INT",
        "while true; do",
        "    code=0",
        '    wait "$child" || code=$?',
        '    kill -0 "$child" 2>/dev/null || break',
        "done",
    ]


def _resumable_workers(study: Study, system: System, job: Job) -> list[str]:
    """Torchrun leaves with 1 whatever its workers say; the run's status.json knows better."""
    if not _spread(job):
        return []
    tasks = [tasks[0] for tasks in array_tasks(study, "train")]
    folders = " ".join(os.path.relpath(task.folder or study.out, study.folder) for task in tasks)
    place = f"{INDEX[system]} - 1" if job.n_tasks > 1 else "0"
    return [
        f"runs=({folders})",
        f"status=${{runs[{place}]}}/status.json",
        'if [ "$code" -ne 0 ] && grep -q \'"state": "stopped"\' "$status"; then code=75; fi',
    ]


def _slurm_end(array: bool) -> list[str]:
    """Ask for another start; the number of an array's last element is that of the whole array."""
    job = "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" if array else "$SLURM_JOB_ID"
    return [
        "# After a warning the work goes on in another start of the same job.",
        'if [ -n "$warned" ] && { [ "$code" -eq 75 ] || [ "$code" -gt 128 ]; } &&',
        f'    [ "${{SLURM_RESTART_COUNT:-0}}" -lt {MOST_RESTARTS} ]; then',
        f'    scontrol requeue "{job}"',
        "    code=75",
        "fi",
        'exit "$code"',
    ]


_LSF_END = (
    "# After a warning the work goes on in another start: -Q requeues what leaves with 75.",
    'if [ -n "$warned" ] && [ "$code" -gt 128 ]; then code=75; fi',
    'if [ -z "$warned" ] && [ "$code" -eq 75 ]; then code=143; fi',
    'exit "$code"',
)


def _pipeline(study: Study, system: System, jobs: list[Job]) -> str:
    """A script that submits every stage after those that it needs."""
    lines = [
        "#!/usr/bin/env bash",
        f"# Submit every stage of {study.file.name}, each after those that it needs. Run it in",
        "# the folder of that file; it prints the stages and the numbers of their jobs.",
        "set -euo pipefail",
        f"mkdir -p {_logs(study)}",
    ]
    present = [job.stage for job in jobs]
    for job in jobs:
        before = [stage for stage in AFTER.get(job.stage, ()) if stage in present]
        lines += ["", *_submission(system, job.stage, before, _script(study, system, job))]
    return "\n".join(lines) + "\n"


def _submission(system: System, stage: str, before: list[str], script: str) -> list[str]:
    if system == "slurm":
        wait = ":".join(f"${name}" for name in before)
        options = f' --dependency="afterok:{wait}" --kill-on-invalid-dep=yes' if before else ""
        first = f"{stage}=$(sbatch --parsable{options} <<'JOB'"
        clean = f"{stage}=${{{stage}%%;*}}"
    else:
        wait = " && ".join(f"done(${name})" for name in before)
        options = f' -w "{wait}" -ti' if before else ""
        first = f"{stage}=$(bsub{options} <<'JOB'"
        clean = f"{stage}=${{{stage}#*<}} {stage}=${{{stage}%%>*}}"
    return [first, script + "JOB", ")", clean, f'echo "{stage} ${stage}"']
