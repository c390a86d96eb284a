"""What a job asks of the queue: the [jobs] table of a study, and lines of #SBATCH or #BSUB.

No shell reads these lines: each queueing system has a reader of its own, and what that cannot carry
is refused here. Everything else in a script is quoted for the shell.
"""

import os
import re
import shlex
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from m1pipe.errors import InputError
from m1pipe.settings import build, check_at_least, parse_bytes, refuse_unknown
from m1pipe.workflow.study import Study

System = Literal["slurm", "lsf"]
SYSTEMS: tuple[System, ...] = ("slurm", "lsf")
JOB_STAGES = ("convert", "train", "crossval", "gather", "generate")
_TIME = re.compile(r"(\d{1,4}):([0-5]\d)")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PLAIN = re.compile(r"[\w./+,:=@-]+")
_CANNOT = {
    "slurm": re.compile(r"\\|packjob|hetjob", re.IGNORECASE),
    "lsf": re.compile(r"[\"'\\$`%]"),
}


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Resources and environment of one job, or of each element of an array.

    Attributes
    ----------
    name : str
        First part of the job's name.
    cpus : int
        Cores.
    memory : str
        Of the whole job, such as "8G".
    time : str
        Limit, hours:minutes. A shorter one than the work takes is made up for by restarts.
    gpus : int
        With several, training is spread over them.
    gpu_type : str or None
        Slurm: of --gres; LSF: a resource to select, such as gpu32gb.
    queue, account : str or None
        Slurm: partition, account; LSF: queue, project.
    at_once : int or None
        Elements of an array that may run at a time.
    warning : int
        Minutes before the limit at which the job is told to save its state.
    setup : tuple of str
        Lines of shell before the command: modules, environment.
    container : str or None
        Apptainer image in which the command runs.
    extra : tuple of str
        More options, as the queue takes them.
    """

    name: str = "study"
    cpus: int = 2
    memory: str = "8G"
    time: str = "4:00"
    gpus: int = 0
    gpu_type: str | None = None
    queue: str | None = None
    account: str | None = None
    at_once: int | None = None
    warning: int = 5
    setup: tuple[str, ...] = ()
    container: str | None = None
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, low in {"cpus": 1, "gpus": 0, "warning": 1}.items():
            check_at_least(name, getattr(self, name), low)
        check_at_least("at_once", self.at_once, 1)
        _ = self.job_memory  # refused here
        if not _TIME.fullmatch(self.time):
            raise InputError(f"time: expected hours:minutes, such as 4:00; found {self.time!r}")
        if self.minutes <= self.warning:
            raise InputError(
                f"time: expected more than the warning of {self.warning} minutes; found {self.time}"
            )
        for name in ("name", "gpu_type", "queue", "account"):
            value = getattr(self, name)
            if value is not None and not _WORD.fullmatch(value):
                raise InputError(f"{name}: expected one word; found {value!r}")
        wrong = [option for option in self.extra if not option.startswith("-")]
        if wrong:
            raise InputError(f"extra: expected options, such as --qos=long; found {wrong[0]!r}")

    @property
    def minutes(self) -> int:
        """The limit in minutes."""
        hours, minutes = self.time.split(":")
        return 60 * int(hours) + int(minutes)

    @cached_property
    def job_memory(self) -> int:
        """Bytes that the job asks of the queue."""
        return parse_bytes(self.memory)

    @property
    def memory_mb(self) -> int:
        """The same in MiB."""
        return -(-self.job_memory // 2**20)


def check_resources(study: Study) -> None:
    """Refuse a [jobs] table that no script could be made of, whatever the system and the stage."""
    for system in SYSTEMS:
        for stage in JOB_STAGES:
            read_resources(study, system, stage)


def read_resources(study: Study, system: System, stage: str) -> Resources:
    """Resources of a stage: [jobs], then [jobs.SYSTEM], [jobs.STAGE], [jobs.SYSTEM.STAGE].

    Raises
    ------
    InputError
        If a setting is unknown or cannot be.
    """
    where = f"{study.file}: jobs"
    common, systems, stages = _apart(study.jobs, where, (*SYSTEMS, *JOB_STAGES))
    own, _, own_stages = _apart(systems.get(system, {}), f"{where}.{system}", JOB_STAGES)
    layers = [{"name": _as_word(study.file.stem)}, common, own]
    layers += [stages.get(stage, {}), own_stages.get(stage, {})]
    return build(Resources, *layers, where=f"{where} ({system}, {stage})")


def _as_word(text: str) -> str:
    """A name of a file as the name of a job."""
    word = re.sub(r"[^A-Za-z0-9_.-]", "_", text)
    return word if word[:1].isalpha() else f"study_{word}"


def _apart(
    table: dict[str, Any], where: str, sub_tables: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Settings of a table, its tables of systems, its tables of stages."""
    known = {f.name for f in fields(Resources)}
    for name, value in table.items():
        if name not in known and name not in sub_tables:
            refuse_unknown(name, (*sorted(known), *sub_tables), where, place="docs/hpc.md")
        if (name in sub_tables) != isinstance(value, dict):
            kind = "a table" if name in sub_tables else "a value"
            raise InputError(f"{where}: {name}: expected {kind}; found {value!r}")
    return (
        {name: value for name, value in table.items() if name in known},
        {name: value for name, value in table.items() if name in SYSTEMS},
        {name: value for name, value in table.items() if name in JOB_STAGES},
    )


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
