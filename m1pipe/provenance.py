"""Where a result came from: version, commit, libraries, command line, host, job, input files."""

import os
import platform
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from m1pipe._version import __version__
from m1pipe.artefacts import file_digest, read_json, reading
from m1pipe.atomic import PathLike
from m1pipe.errors import InputError
from m1pipe.io.hdf5 import split_address
from m1pipe.settings import read_config_file

LIBRARIES = ("torch", "numpy", "pandas", "scipy", "scikit-learn", "h5py", "anndata", "safetensors")
PACKAGE = Path(__file__).parent
PROVENANCE_FILE = "provenance.json"
REMEDY = "put the file back, or start again in another folder"


def now() -> str:
    """Time of day, UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def job_id() -> str | None:
    """Identifier given by Slurm or LSF (array index included), or None outside a queue."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    if "SLURM_JOB_ID" in os.environ:
        return os.environ["SLURM_JOB_ID"]
    if "LSB_JOBID" in os.environ:
        index = os.environ.get("LSB_JOBINDEX", "0")
        return os.environ["LSB_JOBID"] + (f"[{index}]" if index != "0" else "")
    return None


def command_line() -> str:
    """The command as it can be typed again."""
    program = Path(sys.argv[0]).name
    return shlex.join(["m1pipe" if program == "__main__.py" else program, *sys.argv[1:]])


def git_commit(folder: Path = PACKAGE) -> str | None:
    """Commit of the checkout that `folder` belongs to ("-dirty" if changed); None outside one."""
    ask = ["git", "-C", str(folder)]
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 10}
    try:
        tracked = subprocess.run([*ask, "ls-files", "--error-unmatch", "__init__.py"], **options)
        if tracked.returncode != 0:
            return None
        describe = [*ask, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, **options).stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        return None


def libraries() -> dict[str, str]:
    """Versions of python and of the libraries that decide the numbers."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """What the numbers were computed on: processors of other kinds round differently."""
    import torch

    found = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return found + (", CUDA" if torch.cuda.is_available() else "")


def describe_input(path: PathLike, folder: PathLike | None = None) -> dict[str, Any]:
    """Absolute path, size in bytes, time of change and SHA-256 of an input file.

    Parameters
    ----------
    path : path
    folder : path, optional
        Of the result. Where both lie under the working directory, or the file lies beside the
        folder, `relative` is the way from the folder to the file, which holds when all is moved.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    path, part = split_address(path)
    try:
        digest = file_digest(path)
        stat = path.stat()
    except OSError as error:
        raise InputError(f"{path}: expected a readable file; {error.strerror}") from None
    return {
        "path": str(path.resolve()),
        **({"part": part} if part else {}),
        **({} if folder is None else _relative(path.resolve(), Path(folder).resolve())),
        "size": stat.st_size,
        "modified_ns": stat.st_mtime_ns,
        "sha256": digest,
    }


def _relative(path: Path, folder: Path) -> dict[str, str]:
    """The way from a folder to a file of the same tree; empty where they are of two."""
    tree = Path.cwd() if folder.is_relative_to(Path.cwd()) else folder.parent
    return {"relative": os.path.relpath(path, folder)} if path.is_relative_to(tree) else {}


def seen_from(provenance: Mapping[str, Any], folder: PathLike, old: PathLike) -> dict[str, Any]:
    """A provenance for another folder: its relative paths lead from there.

    Parameters
    ----------
    provenance : mapping
    folder, old : path
        The folder that it goes into, and the one that it was made for.
    """
    inputs = {}
    for role, known in (provenance.get("inputs") or {}).items():
        inputs[role] = dict(known)
        if "relative" in known:
            inputs[role]["relative"] = os.path.relpath(Path(old) / known["relative"], folder)
    return {**provenance, "inputs": inputs}


def same_input(known: Mapping[str, Any], path: PathLike) -> bool:
    """Whether the file at `path` still is the input that `describe_input` saw.

    A file of the same path, size and time of change is taken for the same; any other is hashed.
    """
    path, part = split_address(path)
    if part != known.get("part", ""):
        return False
    if path.exists():
        stat = path.stat()
        stamp = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
        if stamp == (known["path"], known["size"], known["modified_ns"]):
            return True
        if stat.st_size != known["size"]:
            return False
    return bool(describe_input(path)["sha256"] == known["sha256"])


def make_provenance(
    inputs: Mapping[str, PathLike],
    *,
    folder: PathLike,
    seed: int | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Everything that `provenance.json` holds.

    Parameters
    ----------
    inputs : mapping
        Role ("data", "x", "y", ...) to the file that plays it.
    folder : path
        That it goes into.
    seed, threads : int, optional
        Seed of the run; number of threads, which decides the last bits of its numbers.

    Raises
    ------
    InputError
        If an input cannot be read.
    """
    return {
        "m1pipe": __version__,
        "git_commit": git_commit(),
        "libraries": libraries(),
        "command": command_line(),
        "folder": os.getcwd(),
        "host": socket.gethostname(),
        "processor": processor(),
        "job_id": job_id(),
        "started": now(),
        "seed": seed,
        "threads": threads,
        "inputs": {role: describe_input(path, folder) for role, path in inputs.items()},
    }


def read_provenance(folder: Path) -> dict[str, Any] | None:
    """Contents of a folder's `provenance.json`; None where there is none.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    path = folder / PROVENANCE_FILE
    if not path.is_file():
        return None
    found = read_json(path, "JSON written by m1pipe", remedy=REMEDY)
    with reading(path, "the provenance of a run", remedy=REMEDY):
        for known in (found.get("inputs") or {}).values():
            known["path"], known["size"], known["modified_ns"], known["sha256"]
    return found


def recorded_paths(known: Mapping[str, Any], folder: PathLike) -> list[Path]:
    """Where a recorded input may lie: as it lay to the folder, which may be moved, and absolutely.

    Parameters
    ----------
    known : mapping
        From `inputs` of `provenance.json`.
    folder : path
        That this file is in.
    """
    found, part = [], f"#{known['part']}" if known.get("part") else ""
    if "relative" in known:
        found.append(Path(os.path.normpath(Path(folder) / known["relative"]) + part))
    return [*found, Path(known["path"] + part)] if "path" in known else found


def environment_changes(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What differs of two provenances, of all that decides the last bits of a number."""

    def flat(record: Mapping[str, Any]) -> dict[str, Any]:
        names = ("m1pipe", "git_commit", "processor", "threads")
        return {**{name: record.get(name) for name in names}, **(record.get("libraries") or {})}

    old, new = flat(there), flat(here)
    return [
        f"{name.replace('_', ' ')} {old.get(name, 'none')} there, {new.get(name, 'none')} here"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def find_input(
    role: str, known: Mapping[str, Any], folder: Path, search: PathLike | None = None
) -> str:
    """Where an input of a result is, as it was: the address of a file of the same SHA-256.

    Parameters
    ----------
    role : str
    known : mapping
        From `inputs` of the provenance.
    folder : Path
        That has this provenance.
    search : path, optional
        A folder to look in, whatever the names there.

    Raises
    ------
    InputError
        If there is no such file.
    """
    paths = recorded_paths(known, folder)
    there = [path for path in paths if split_address(path)[0].is_file()]
    for path in there:
        if describe_input(path)["sha256"] == known["sha256"]:
            return str(path)
    part = f"#{known['part']}" if known.get("part") else ""
    for found in [] if search is None else sorted(Path(search).rglob("*")):
        same_size = found.is_file() and found.stat().st_size == known["size"]
        if same_size and describe_input(found)["sha256"] == known["sha256"]:
            return f"{found}{part}"
    other = f"{there[0]} with SHA-256 {describe_input(there[0])['sha256'][:12]}" if there else ""
    raise InputError(
        f"{folder}: expected the input {role} as it was, SHA-256 {known['sha256'][:12]}; found "
        f"{other or 'no file ' + ' or '.join(map(str, paths))}: put it back, or name a folder that "
        "holds it with --inputs"
    )


def training_data(run: Path, data: PathLike | None, what_for: str, advice: str) -> Path:
    """The file that a run was trained on, as it was.

    Parameters
    ----------
    run : Path
    data : path or None
        Where it lies now. None: where it lay in training, to the run or absolutely.
    what_for, advice : str
        For the message.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If there is no such file, or it is another one.
    """
    known = ((read_provenance(run) or {}).get("inputs") or {}).get("data")
    paths = [Path(data)] if data is not None else recorded_paths(known or {}, run)
    there = [path for path in paths if split_address(path)[0].exists()]
    if not there:
        raise InputError(
            f"{run}: expected the training data, {what_for}; found no file "
            f"{' or '.join(map(str, paths)) or 'named there'}: {advice}"
        )
    for path in there:
        if known is None or same_input(known, path):
            return path
    raise InputError(
        f"{there[0]}: expected the training data of {run} as they were; found another file: "
        f"{advice}"
    )


def training_files(source: str) -> list[Path]:
    """Files that a run was trained on, as its provenance has them, that are there."""
    there = [path for path in training_paths(source) if split_address(path)[0].is_file()]
    return list(dict.fromkeys(path.resolve() for path in there))


def training_paths(source: str) -> list[Path]:
    """Where the files that a run was trained on may lie by its provenance; empty if unknown.

    Parameters
    ----------
    source : str
        Folder of the run.
    """
    record = Path(source) / "provenance.json"
    if not record.is_file():
        return []
    inputs = read_config_file(record).get("inputs") or {}
    known = [file for role, file in inputs.items() if role.split(" ")[0] == "data"]
    return [path for file in known for path in recorded_paths(file or {}, source)]
