"""How long Python takes to start with m1pipe, and what it loads for that.

Each of the sides is a process of its own, and they take turns: `nothing` is Python alone, `import`
imports m1pipe, `help` prints the help of the program and `train_help` that of a command.

    python benchmarks/start.py --repeats 15 --out FILE
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from turns import keep

SIDES = {
    "nothing": ["-c", "pass"],
    "import": ["-c", "import m1pipe"],
    "help": ["-m", "m1pipe", "--help"],
    "train_help": ["-m", "m1pipe", "train", "--help"],
}
HEAVY = ("torch", "numpy", "pandas", "anndata", "scipy", "sklearn", "matplotlib", "numba")


def seconds(arguments: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - begun


def loaded(arguments: list[str]) -> list[str]:
    """Large libraries that a side imports."""
    command = [sys.executable, "-X", "importtime", *arguments]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    modules = {line.rsplit("|", 1)[-1].strip() for line in told.splitlines()}
    return [name for name in HEAVY if name in modules]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, help="results as JSON")
    options = parser.parse_args()
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(options.repeats):
        for side, arguments in SIDES.items():
            times[side].append(seconds(arguments))
    sides = {
        side: {"best_s": min(took), "median_s": median(took), "loads": loaded(SIDES[side])}
        for side, took in times.items()
    }
    for side, found in sides.items():
        print(f"{side:11s} best {found['best_s']:.3f} s, median {found['median_s']:.3f} s")
    keep(options, {"sides": sides})


if __name__ == "__main__":
    main()
