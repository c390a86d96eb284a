"""Kill train, crossval and convert at random moments; each rerun must end as if undisturbed.

    python benchmarks/kill_many.py --kills 20 --out benchmarks/results/kill_many.json

A command runs once undisturbed, then so many times with a SIGKILL after a random share of that
time. After each kill, files under finished names must be whole; then the same command runs to its
end, and its result must be equal to the undisturbed one, bit by bit where the file is one of ours.
The processes are on one thread. Prints a line a command, and fails at the first difference.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import torch
from safetensors import safe_open

import m1pipe

N_SAMPLES, N_GENES = 400, 200


@dataclass(frozen=True)
class Case:
    """A command, what its rerun adds, the file that it writes last, and what its result is."""

    name: str
    arguments: list[str]
    again: list[str]
    last: str
    result: Callable[[Path], object]


def _train_result(folder: Path) -> object:
    names = ("model.safetensors", "pca.safetensors", "samples.csv", "config.json")
    history = pd.read_csv(folder / "run" / "history.csv").drop(columns="seconds")
    return [(folder / "run" / name).read_bytes() for name in names], history.to_csv()


def _crossval_result(folder: Path) -> object:
    summary = json.loads((folder / "cv" / "summary.json").read_text())
    with h5py.File(folder / "cv" / "losses.h5") as file:
        losses: list[tuple[str, bytes]] = []
        file.visititems(
            lambda name, item: (
                losses.append((name, item[()].tobytes()))
                if isinstance(item, h5py.Dataset) and item.dtype.kind == "f"
                else None
            )
        )
    return summary["models"], summary["comparisons"], losses


def _convert_result(folder: Path) -> object:
    found = anndata.read_h5ad(folder / "x.h5ad")
    return np.asarray(found.X).tobytes(), found.obs.to_csv(), found.var.to_csv()


def make_cases(folder: Path) -> list[Case]:
    """Write the inputs into a folder; the three commands on them."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(N_SAMPLES, 4)) @ rng.normal(size=(4, N_GENES))
    counts = rng.poisson(20 * np.exp2(factors / 2))
    samples = [f"s{i}" for i in range(N_SAMPLES)]
    frame = pd.DataFrame(counts, samples, [f"g{j}" for j in range(N_GENES)])
    frame.to_csv(folder / "x.tsv", sep="\t", index_label="sample")
    pd.concat([frame] * 12, axis=1).set_axis(range(12 * N_GENES), axis=1).to_csv(
        folder / "wide.tsv.gz", sep="\t", index_label="sample"
    )
    options = ["--units", "counts", "--normalize", "total", "--log2p1"]
    _run(["convert", "x.tsv", "u.h5ad", *options], folder)
    train = ["train", "u.h5ad", "--out", "run", "--latent", "4", "--epochs", "30", "--seed", "1"]
    crossval = ["crossval", "--x", "u.h5ad", "--y", "u.h5ad", "--encoder", "vae=fold:small.json"]
    crossval += ["--out", "cv", "--folds", "3", "--models", "mean,raw", "--head-epochs", "10"]
    (folder / "small.json").write_text('{"n_latent": 3, "hidden": [8], "epochs": 5}')
    convert = ["convert", "wide.tsv.gz", "x.h5ad", *options]
    return [
        Case("train", train, ["--resume"], "run/model.json", _train_result),
        Case("crossval", crossval, [], "cv/report.html", _crossval_result),
        Case("convert", convert, [], "x.h5ad", _convert_result),
    ]


def _start(arguments: list[str], folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "m1pipe", "-q", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _run(arguments: list[str], folder: Path) -> None:
    process = _start(arguments, folder)
    _, stderr = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"{arguments[0]}: exit {process.returncode}: {stderr}")


def check_whole(folder: Path) -> int:
    """Open every file that stands under a finished name; their number."""
    n = 0
    for path in folder.rglob("*"):
        if not path.is_file() or any(p.startswith(".") for p in path.relative_to(folder).parts):
            continue
        n += 1
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            with safe_open(path, "np") as file:
                list(file.keys())
        elif path.suffix in (".h5", ".h5ad"):
            with h5py.File(path) as file:
                file.visititems(lambda name, item: item[()] if hasattr(item, "dtype") else None)
        elif path.suffix == ".pt":
            torch.load(path, weights_only=True)
        elif path.suffix == ".html":
            assert path.read_text().rstrip().endswith("</html>"), path
    return n


def kill_case(
    case: Case, folder: Path, n_kills: int, seed: int, *, in_a_row: bool = False
) -> dict[str, object]:
    """Kill a command so many times, each time from the beginning or each rerun again."""
    before = {path.name for path in folder.iterdir()}
    begun = time.monotonic()
    _run(case.arguments, folder)
    seconds = time.monotonic() - begun
    wanted = case.result(folder)
    _clear(folder, before)
    rng = np.random.default_rng(seed)
    moments: list[float] = []
    n_late = 0
    span = seconds
    while len(moments) < n_kills:
        moment = float(rng.uniform(0, span))
        if not _kill([*case.arguments, *case.again], folder, moment):
            n_late += 1
            span *= 0.8  # the machine is less busy than it was, or a row of kills left little to do
            assert case.result(folder) == wanted, f"{case.name}: another result, not killed"
            _clear(folder, before)
            continue
        moments.append(round(moment / seconds, 3))
        check_whole(folder)
        if in_a_row and len(moments) < n_kills:
            continue
        if case.name == "train" or not (folder / case.last).exists():
            _run([*case.arguments, *case.again], folder)
        assert case.result(folder) == wanted, f"{case.name}: another result after {moment:.2f} s"
        left = list(folder.rglob(".*.part"))
        assert not left, f"{case.name}: {left}"
        _clear(folder, before)
    return {
        "command": case.name,
        "kills": len(moments),
        "ended before the kill": n_late,
        "undisturbed seconds": round(seconds, 2),
        "shares of it": sorted(moments),
        "different results": 0,
    }


def _kill(arguments: list[str], folder: Path, moment: float) -> bool:
    """Start a command and kill it after so many seconds; False where it had ended."""
    process = _start(arguments, folder)
    try:
        process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return process.returncode == -signal.SIGKILL


def _clear(folder: Path, keep: set[str]) -> None:
    for path in folder.iterdir():
        if path.name not in keep:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one of train, crossval, convert")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    found: dict[str, object] = {
        "m1pipe": m1pipe.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seed": chosen.seed,
        "commands": [],
    }
    with tempfile.TemporaryDirectory() as temporary:
        for case in make_cases(Path(temporary)):
            if chosen.only not in (None, case.name):
                continue
            facts = kill_case(case, Path(temporary), chosen.kills, chosen.seed)
            found["commands"].append(facts)  # type: ignore[attr-defined]
            print(
                f"{case.name}: {facts['kills']} kills, each rerun ended with the same result",
                flush=True,
            )
    if chosen.out is not None:
        chosen.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
