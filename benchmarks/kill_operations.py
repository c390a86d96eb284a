"""Kill commands before each of their first and last file operations; reruns must end the same.

    OMP_NUM_THREADS=1 python benchmarks/kill_operations.py --n 20 --out FILE

A command runs once undisturbed while its file operations are counted (files opened to be written,
renamed and removed, folders made and removed). Then it runs once for each of the first and the last
N of them, with a SIGKILL before that operation, and the same command runs again. The rerun must end
with exit 0, the undisturbed result, and nothing half-written beside it.
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutate import read_made
from world import build_world, copy, in_child

import m1pipe
from m1pipe.cli.main import run

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")


@dataclass(frozen=True)
class Case:
    """A command, what its rerun adds, and how its result is read."""

    name: str
    arguments: tuple[str, ...]
    result: Callable[[Path], Any]
    again: tuple[str, ...] = ()


def make_cases() -> list[Case]:
    """Every command that writes, on the world of `mutate.py`."""
    train = ("--latent", "2", "--hidden", "4", "--epochs", "2", "--seed", "1")
    fit = ("--x", "log.h5ad", "--label", "tissue", "--encoder", "run")
    return [
        Case("convert", ("convert", "x.tsv", "out.h5ad", "--units", "counts"), read_made),
        Case("split", ("split", "log.h5ad", "--out", "parts"), _bytes("parts/training.h5ad")),
        Case("train", ("train", "log.h5ad", "--out", "new", *train),
             _bytes("new/model.safetensors"), ("--resume",)),
        Case("encode", ("encode", "run", "log.h5ad", "--out", "out.h5ad"), read_made),
        Case("fit", ("fit", *fit, "--out", "head", "--head-epochs", "2", "--head-hidden", "4"),
             _bytes("head/head.safetensors")),
        Case("predict", ("predict", "model", "log.h5ad", "--out", "out.h5ad"), read_made),
        Case("evaluate", ("evaluate", "model", "--x", "log.h5ad", "--label", "tissue", "--out",
                          "eval"), _bytes("eval/scores.csv")),
        Case("crossval", ("crossval", "--x", "log.h5ad", "--label", "tissue", "--models",
                          "prior,logistic", "--folds", "2", "--out", "new"),
             lambda folder: json.loads((folder / "new/summary.json").read_text())["models"]),
        Case("sweep", ("sweep", "log.h5ad", "--neurons", "2,3", "--epochs", "2", "--out", "new"),
             _bytes("new/best/model.safetensors")),
        Case("generate", ("generate", "run", "-n", "10", "--data", "log.h5ad", "--out", "out.h5ad"),
             read_made),
        Case("run", ("run", "study.toml"), _bytes("runs/data/u.h5ad")),
    ]  # fmt: skip


def _bytes(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        if name.endswith(".h5ad"):
            import anndata

            found = anndata.read_h5ad(folder / name)
            return found.X.tobytes(), list(found.obs_names)
        return (folder / name).read_bytes()

    return read


def count_operations(folder: Path, kill_before: int | None) -> Callable[[], int]:
    """Count changes below a folder, and kill this process before one of them; the count so far."""
    n, here = 0, os.path.realpath(folder)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal n
        changes = event in CHANGES or (event == "open" and int(arguments[2] or 0) & WRITES)
        if not changes or not isinstance(arguments[0], str | os.PathLike):
            return
        if not os.path.abspath(os.fsdecode(arguments[0])).startswith(here):
            return
        n += 1
        if n == kill_before:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return lambda: n


def run_case(case: Case, world: Path, folder: Path, n: int) -> dict[str, Any]:
    """Kill a command before its first and last n operations."""
    here = copy(world, folder)

    def undisturbed() -> int:
        counted = count_operations(here, None)
        code = run(["-q", *case.arguments])
        (here / "operations").write_text(str(counted()))
        return code

    code, _ = in_child(undisturbed, here)
    if code != 0:
        raise SystemExit(f"{case.name}: exit {code}: {(here / 'stderr').read_text()}")
    total, wanted = int((here / "operations").read_text()), case.result(here)
    chosen = sorted({*range(1, min(n, total) + 1), *range(max(total - n, 0) + 1, total + 1)})
    wrong = []
    for k in chosen:
        here = copy(world, folder)

        def killed(k: int = k, here: Path = here) -> int:
            count_operations(here, k)
            return run(["-q", *case.arguments])

        code, _ = in_child(killed, here)
        if code not in (-signal.SIGKILL, 0):
            wrong.append({"operation": k, "why": f"exit {code} in the place of a kill"})
        if code == 0:
            continue  # fewer operations this time: nothing was killed
        again = [*case.arguments, *case.again]
        code, _ = in_child(lambda again=again: run(["-q", *again]), here)
        said = (here / "stderr").read_text()
        if code == 1 and "overwrite" in said and _is(case, here, wanted):
            continue  # it had ended: the last operations remove what is beside it
        left = [str(path.relative_to(here)) for path in here.rglob(".*.part")]
        if code != 0 or not _is(case, here, wanted) or left:
            wrong.append({"operation": k, "why": f"exit {code}, left {left}: {said[-300:]}"})
    return {"command": case.name, "operations": total, "kills": len(chosen), "wrong": wrong}


def _is(case: Case, folder: Path, wanted: Any) -> bool:
    try:
        return bool(case.result(folder) == wanted)
    except OSError:
        return False


def run_all(folder: Path, n: int, only: list[str] | None = None) -> list[dict[str, Any]]:
    """All commands, or some."""
    world = build_world(folder)
    cases = [case for case in make_cases() if not only or case.name in only]
    found = []
    for case in cases:
        found.append(run_case(case, world, folder, n))
        words = f"{found[-1]['kills']} kills among {found[-1]['operations']} operations"
        print(f"{case.name}: {words}, {len(found[-1]['wrong'])} wrong", flush=True)
        for wrong in found[-1]["wrong"]:
            print("   ", json.dumps(wrong), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=20, help="first and last operations")
    parser.add_argument("--only", action="append", help="a command")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = run_all(Path(temporary), chosen.n, chosen.only)
    if chosen.out is not None:
        facts = {"m1pipe": m1pipe.__version__, "python": platform.python_version()}
        chosen.out.write_text(json.dumps({**facts, "commands": found}, indent=2) + "\n")
    if any(facts["wrong"] for facts in found):
        raise SystemExit("a rerun went wrong")


if __name__ == "__main__":
    main()
