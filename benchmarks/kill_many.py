"""Kill every command that writes at random moments; each rerun must end as if undisturbed.

    OMP_NUM_THREADS=1 python benchmarks/kill_many.py --kills 91 --out benchmarks/results/FILE.json

A command runs once undisturbed in a forked child, then so many times with a SIGKILL after a random
share of that time. After each kill, files under finished names must be whole and the inputs as they
were; then the same command runs to its end, and its result must be the undisturbed one, bit by bit
where the file is one of ours, with nothing half-written beside it; it may refuse to overwrite a
result that is there. Every fifth case is killed five times in a row. A command that ended before
its kill is counted apart.
"""

import argparse
import json
import os
import platform
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kill_operations import Case, make_cases
from world import build_world, check_whole, copy, digests, in_child, start

import m1pipe
from m1pipe.cli.main import run

IN_A_ROW = 5


def kill_case(case: Case, world: Path, folder: Path, n_kills: int, seed: int) -> dict[str, Any]:
    """Kill a command so many times at random moments, and run it again after each."""
    here = copy(world, folder)
    known = digests(here)
    code, span = in_child(lambda: run(["-q", *case.arguments]), here)
    if code != 0:
        raise SystemExit(f"{case.name}: exit {code}: {(here / 'stderr').read_text()}")
    wanted, rng = case.result(here), np.random.default_rng(seed)
    kills, late, number, wrong = 0, 0, 0, []
    while kills < n_kills:
        number += 1
        here = copy(world, folder)
        for _ in range(IN_A_ROW if number % IN_A_ROW == 0 else 1):
            moment = float(rng.uniform(0, span))
            if not _kill([*case.arguments, *case.again], here, moment):
                late, span = late + 1, 0.9 * span  # the machine is less busy than it was
                break
            kills += 1
            why = _check(here, known)
            if why:
                wrong.append({"case": number, "moment": round(moment, 3), "why": why})
        why = _rerun(case, here, wanted)
        if why:
            wrong.append({"case": number, "why": why})
    return {"command": case.name, "kills": kills, "ended before": late, "wrong": wrong}


def _kill(arguments: list[str], here: Path, moment: float) -> bool:
    """Run a command in a child and kill it after so many seconds; False where it had ended."""
    pid = start(lambda: run(["-q", *arguments]), here)
    time.sleep(moment)
    ended, _ = os.waitpid(pid, os.WNOHANG)
    if ended == 0:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return ended == 0


def _check(here: Path, known: dict[str, str]) -> str:
    """What is torn or changed after a kill; empty where nothing is."""
    try:
        check_whole(here)
    except Exception as error:  # noqa: BLE001 - whatever a torn file leads to
        return f"torn: {type(error).__name__}: {error}"
    found = digests(here)
    changed = [name for name, digest in known.items() if found.get(name) != digest]
    return f"changed: {changed}" if changed else ""


def _rerun(case: Case, here: Path, wanted: Any) -> str:
    """What is wrong with the result of the same command after a kill; empty where nothing is."""
    code, _ = in_child(lambda: run(["-q", *case.arguments, *case.again]), here)
    said = (here / "stderr").read_text()
    left = [str(path.relative_to(here)) for path in here.rglob(".*.part")]
    if code == 1 and "overwrite" in said:
        code, left = 0, []
    if code != 0 or left:
        return f"exit {code}, left {left}: {said[-300:]}"
    return "" if case.result(here) == wanted else "another result"


def run_all(
    folder: Path, n_kills: int, seed: int, only: list[str] | None = None
) -> list[dict[str, Any]]:
    """All commands, or some, each killed so often."""
    world = build_world(folder)
    found = []
    for case in (case for case in make_cases() if not only or case.name in only):
        found.append(kill_case(case, world, folder, n_kills, seed))
        print(json.dumps(found[-1]), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="a command")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = run_all(Path(temporary), chosen.kills, chosen.seed, chosen.only)
    facts = {
        "m1pipe": m1pipe.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seed": chosen.seed,
        "kills": sum(one["kills"] for one in found),
    }
    if chosen.out is not None:
        chosen.out.write_text(json.dumps({**facts, "commands": found}, indent=2) + "\n")
    if any(one["wrong"] for one in found):
        raise SystemExit("a rerun went wrong")


if __name__ == "__main__":
    main()
