"""The options of a job as its script states them: lines of #SBATCH, lines of #BSUB.

No shell reads these lines: each queueing system has a reader of its own, and what that cannot carry
is refused here. Everything else in a script is quoted for the shell.
"""

import os
import re
import shlex
from pathlib import Path

from m1pipe.errors import InputError
from m1pipe.runs.resources import Resources, System
from m1pipe.runs.study import Study

_PLAIN = re.compile(r"[\w./+,:=@-]+")
_CANNOT = {
    "slurm": re.compile(r"\\|packjob|hetjob", re.IGNORECASE),
    "lsf": re.compile(r"[\"'\\$`%]"),
}


def directives(
    study: Study, system: System, stage: str, asked: Resources, n_tasks: int
) -> list[str]:
    """Lines of a script's head.

    Parameters
    ----------
    study : Study
    system : "slurm" or "lsf"
    stage : str
    asked : Resources
    n_tasks : int
        Elements of the job's array; 1: no array.

    Raises
    ------
    InputError
        If the folder of the logs has a name that the system cannot be told.
    """
    if system == "slurm":
        return [f"#SBATCH {option}" for option in _slurm(study, stage, asked, n_tasks)]
    return [f"#BSUB {option}" for option in _lsf(study, stage, asked, n_tasks)]


def from_study(study: Study, path: Path) -> str:
    """A path as seen from the study's folder, where scripts run; never taken for an option."""
    return plain_start(os.path.relpath(path, study.folder))


def plain_start(path: str) -> str:
    """The same path, with ./ before a leading dash."""
    return f"./{path}" if path.startswith("-") else path


def shell_path(study: Study, path: Path) -> str:
    """A path seen from the study's folder as one word of shell."""
    return shlex.quote(from_study(study, path))


def _slurm(study: Study, stage: str, asked: Resources, n_tasks: int) -> list[str]:
    array = n_tasks > 1
    log = _log(study, "slurm", "/%x_%A_%a.log" if array else "/%x_%j.log")
    gres = f"gpu:{asked.gpu_type}:{asked.gpus}" if asked.gpu_type else f"gpu:{asked.gpus}"
    return [
        f"--job-name={asked.name}-{stage}",
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
        *([f"--array=1-{n_tasks}{_at_once(asked)}"] if array else []),
        "--requeue",
        f"--signal=B:USR1@{60 * asked.warning}",
        *asked.extra,
    ]


def _lsf(study: Study, stage: str, asked: Resources, n_tasks: int) -> list[str]:
    array = n_tasks > 1
    name = f"{asked.name}-{stage}"
    log = f"/{name}_{'%J_%I' if array else '%J'}"
    selected = f"select[{asked.gpu_type}] " if asked.gpus and asked.gpu_type else ""
    return [
        f'-J "{name}[1-{n_tasks}]{_at_once(asked)}"' if array else f"-J {name}",
        f"-o {_log(study, 'lsf', log + '.out')}",
        f"-e {_log(study, 'lsf', log + '.err')}",
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


def _log(study: Study, system: System, file: str) -> str:
    """Place of a log, quoted as the system's reader wants it; a percent sign stands for itself."""
    folder = from_study(study, study.out / "logs")
    cannot = _CANNOT[system].search(folder)
    if cannot:
        raise InputError(
            f"{study.file}: out: expected a name that {system} can be told as the place of its "
            f"logs; found {cannot.group()!r} in {folder!r}: choose another `out`"
        )
    if _PLAIN.fullmatch(folder):
        return folder + file
    escaped = folder.replace("%", "%%").replace('"', '\\"')
    return f'"{escaped}{file}"'


def _at_once(asked: Resources) -> str:
    return "" if asked.at_once is None else f"%{asked.at_once}"
