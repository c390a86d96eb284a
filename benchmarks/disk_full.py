"""Fill the disk under every command that writes: one line, nothing half-written, nothing lost.

    OMP_NUM_THREADS=1 python benchmarks/disk_full.py --out benchmarks/results/disk_full.json

Each command runs once undisturbed while the bytes that it writes are counted, and then so often
with less room, on a file system of its own, which root may mount. Right is exit 1 and one line
that says that there is no room, or exit 0 and the undisturbed result; no file under a final name
that is not whole; what was there before is as it was; and the same command, once there is room,
ends as if there had always been.

    ... --read-only

runs them with a folder that may not be written in (not as root: the script then becomes another
user), and with names of 255 and more bytes.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kill_operations import Case, make_cases
from world import build_world, check_whole, copy, digests, in_child

import m1pipe
from m1pipe.cli.main import hide_failed_closes, run

PAGE, ROOM = 4096, 2**30
NOBODY = 65534
WORDS = ("No space left on device", "make room")


def run_case(case: Case, world: Path, folder: Path, points: int) -> dict[str, Any]:
    """A command with less and less room than it needs."""
    place, known = folder / "full", digests(world)
    with disk(place, world) as here:
        before = used(place)
        code, _ = in_child(lambda: run(["-q", *case.arguments]), here, logs=folder)
        if code != 0:
            raise SystemExit(f"{case.name}: exit {code}: {(folder / 'stderr').read_text()}")
        wanted, peak = case.result(here), max(used(place) - before, points * PAGE)
    wrong, n_refused = [], 0
    for room in sorted({round(peak * i / points / PAGE) * PAGE for i in range(points)}):
        with disk(place, world) as here:
            set_room(place, used(place) + room)
            code, _ = in_child(lambda: run(["-q", *case.arguments]), here, logs=folder)
            n_refused += code == 1
            why = _judge(case, here, code, (folder / "stderr").read_text(), wanted, known)
            set_room(place, ROOM)
            if not why and code == 1:
                why = _again(case, here, folder, wanted)
        if why:
            wrong.append({"room": room, "why": why})
    return {"command": case.name, "bytes": peak, "refused": n_refused, "wrong": wrong}


def _judge(case: Case, here: Path, code: int, said: str, wanted: Any, known: dict[str, str]) -> str:
    """What went wrong on a full disk; empty where nothing did."""
    errors = [line for line in said.splitlines() if line.startswith("m1pipe: error")]
    if code not in (0, 1) or (code == 1 and (len(errors) != 1 or "Traceback" in said)):
        return f"exit {code}: {said[-600:]}"
    if code == 1 and not any(word in errors[0] for word in WORDS):
        return f"the line does not say why: {errors[0]}"
    left = [str(path.relative_to(here)) for path in here.rglob(".*.part")]
    if left:
        return f"left: {left}"
    check_whole(here)
    lost = [name for name, digest in known.items() if digests(here).get(name) != digest]
    if lost:
        return f"changed: {lost}"
    return "" if code == 1 or case.result(here) == wanted else "another result"


def _again(case: Case, here: Path, logs: Path, wanted: Any) -> str:
    """What went wrong when there was room again."""
    code, _ = in_child(lambda: run(["-q", *case.arguments, *case.again]), here, logs=logs)
    if code != 0:
        return f"with room again exit {code}: {(logs / 'stderr').read_text()[-600:]}"
    return "" if case.result(here) == wanted else "another result with room again"


@contextmanager
def disk(place: Path, world: Path) -> Iterator[Path]:
    """A copy of the world on a file system of its own, with much room."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "m1pipe", place], check=True)
    try:
        shutil.copytree(world, place / "case")
        yield place / "case"
    finally:
        subprocess.run(["umount", place], check=True)


def set_room(place: Path, size: int) -> None:
    """Let a file system hold so many bytes."""
    subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)


def used(place: Path) -> int:
    """Bytes that a file system holds."""
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def run_refused(case: Case, world: Path, folder: Path) -> dict[str, Any]:
    """A command in a folder that may not be written in, and with names that are too long."""
    wrong = []
    for what in ("read-only", "too long"):
        here, logs = copy(world, folder), folder / "logs"
        logs.mkdir(exist_ok=True)
        logs.chmod(0o777)
        arguments = list(case.arguments)
        if what == "too long" and "--out" in arguments:
            arguments[arguments.index("--out") + 1] = "x" * 250 + ".h5ad"
        known = digests(here)

        def work(arguments: list[str] = arguments, what: str = what, here: Path = here) -> int:
            if what == "read-only":
                for place in (here, *here.rglob("*")):
                    place.chmod(0o555 if place.is_dir() else 0o444)
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            return run(["-q", *arguments])

        code, _ = in_child(work, here, logs=logs)
        said = (logs / "stderr").read_text(errors="replace")
        for place in (here, *here.rglob("*")):
            place.chmod(0o755 if place.is_dir() else 0o644)
        errors = [line for line in said.splitlines() if line.startswith("m1pipe: error")]
        if code == 0 and what == "too long":
            continue  # a name of 255 bytes does
        if code != 1 or len(errors) != 1 or "Traceback" in said or digests(here) != known:
            wrong.append({"what": what, "why": f"exit {code}: {said[-500:]}"})
    return {"command": case.name, "wrong": wrong}


def run_all(
    folder: Path, points: int, only: list[str] | None = None, *, read_only: bool = False
) -> list[dict[str, Any]]:
    """All commands, or some."""
    hide_failed_closes()
    folder.chmod(0o755)
    world = build_world(folder)
    found = []
    for case in (case for case in make_cases() if not only or case.name in only):
        if read_only:
            found.append(run_refused(case, world, folder))
        else:
            found.append(run_case(case, world, folder, points))
        print(json.dumps(found[-1]), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=12, help="sizes of the disk")
    parser.add_argument("--only", action="append", help="a command")
    parser.add_argument("--read-only", action="store_true")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = run_all(Path(temporary), chosen.points, chosen.only, read_only=chosen.read_only)
    if chosen.out is not None:
        facts = {"m1pipe": m1pipe.__version__, "python": platform.python_version()}
        chosen.out.write_text(json.dumps({**facts, "commands": found}, indent=2) + "\n")
    if any(facts["wrong"] for facts in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
