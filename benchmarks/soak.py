"""Kill, stop and rerun a study at random, for so many minutes: it ends in the undisturbed result.

    OMP_NUM_THREADS=1 python benchmarks/soak.py --minutes 30 --out benchmarks/results/soak.json

A study of a conversion, a training, a cross-validation and a final model runs once undisturbed.
Then it begins anew again and again; each time it is killed (SIGKILL), stopped (SIGTERM, SIGUSR1,
SIGINT) or started twice at once, at random moments, until it ends by itself. Its results must be
the undisturbed ones, and no unfinished file may be left.
"""

import argparse
import collections
import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from world import build_world, check_whole, copy, in_child, start

import m1pipe
from m1pipe.cli.main import run

STUDY = """out = "runs"
[data.u]
source = "x.tsv"
units = "counts"
normalize = "total"
log2p1 = true
labels = "labels.tsv"
[encoders.vae]
data = "u"
seeds = [1]
n_latent = 2
hidden = [4]
epochs = 8
[crossval]
x = "u"
label = "tissue"
models = ["prior", "logistic"]
folds = 2
head.epochs = 2
"""
COMMAND = ["-q", "run", "study.toml"]
WAYS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
STOPPED = (0, 75, 130, -signal.SIGKILL)


def result(folder: Path) -> Any:
    """What a study leaves, but for times."""
    data = anndata.read_h5ad(folder / "runs/data/u.h5ad")
    (weights,) = sorted(folder.glob("runs/vae*/model.safetensors"))
    (summary,) = sorted(folder.glob("runs/cv/summary.json"))
    found = json.loads(summary.read_text())
    return data.X.tobytes(), weights.read_bytes(), found["models"], found["comparisons"]


def disturb(here: Path, rng: np.random.Generator, span: float) -> tuple[str, int]:
    """Run the study for a random time; how it was ended, and its exit code."""
    pid = start(lambda: run(COMMAND), here)
    time.sleep(float(rng.uniform(0, span)))
    if os.waitpid(pid, os.WNOHANG)[0] == 0:
        way = WAYS[rng.integers(len(WAYS))]
        os.kill(pid, way)
        return way.name, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return "none", 0


def soak(folder: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Rounds of a study until the time is over."""
    world = build_world(folder)
    (world / "study.toml").write_text(STUDY)
    here = copy(world, folder)
    code, span = in_child(lambda: run(COMMAND), here)
    if code != 0:
        raise SystemExit((here / "stderr").read_text())
    wanted, rng = result(here), np.random.default_rng(seed)
    ends: collections.Counter[str] = collections.Counter()
    wrong, rounds, until = [], 0, time.monotonic() + 60 * minutes
    while time.monotonic() < until:
        rounds += 1
        here = copy(world, folder)
        for _ in range(int(rng.integers(1, 12))):
            way, code = disturb(here, rng, span / 2)
            ends[f"{way} {code}"] += 1
            if code not in STOPPED:
                wrong.append({"round": rounds, "why": (here / "stderr").read_text()[-500:]})
            check_whole(here)
        code, _ = in_child(lambda: run(COMMAND), here)
        left = [str(path) for path in here.rglob(".*.part")]
        if code != 0 or left or result(here) != wanted:
            said = (here / "stderr").read_text()[-500:]
            wrong.append({"round": rounds, "why": f"exit {code}, left {left}: {said}"})
    return {"minutes": minutes, "rounds": rounds, "ends": dict(ends), "wrong": wrong}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = soak(Path(temporary), chosen.minutes, chosen.seed)
    print(json.dumps(found))
    if chosen.out is not None:
        facts = {"m1pipe": m1pipe.__version__, "seed": chosen.seed}
        chosen.out.write_text(json.dumps({**facts, **found}, indent=2) + "\n")
    if found["wrong"]:
        raise SystemExit("the study did not end as it should")


if __name__ == "__main__":
    main()
