"""Shuffled batches from a file larger than the memory, against reading it from end to end.

Every side reads the same contiguous float32 h5ad in a process of its own, with the file dropped
from the page cache before; the sides take turns in another order each of `--repeats` times, since
what ran before decides how large the kernel's pages are. `sequential` reads blocks of
rows in order by `preadv` into one buffer, `h5py` the same through HDF5; `m1pipe` is what
`m1pipe train` streams from; `naive` takes shuffled rows one by one through h5py; `scdataset` is
scDataset with its block shuffling, by the interpreter that has it (`--scdataset PYTHON`). The two
slow ones stop after `--seconds`. What is printed is the best of the repeats.

    python benchmarks/stream_batches.py --tmp /scratch --megabytes 4096 --repeats 3 --out FILE
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

N_GENES = 18_965
BATCH_ROWS = 64
SEQUENTIAL_ROWS = 512
SIDES = ("sequential", "h5py", "m1pipe", "naive", "scdataset")


def make_file(path: Path, n_rows: int) -> None:
    """Write a matrix whose first column is the number of the row, flushed to the disk."""
    import pandas as pd

    from m1pipe.data.units import Units
    from m1pipe.io.writer import MatrixWriter

    obs = pd.DataFrame(index=[f"s{i}" for i in range(n_rows)])
    var = pd.DataFrame(index=[f"G{j}" for j in range(N_GENES)])
    levels = np.random.default_rng(0).gamma(2, 2, (256, N_GENES)).astype(np.float32)
    with MatrixWriter(path, obs=obs, var=var, units=Units("log2_tpm1"), force=True) as writer:
        for start in range(0, n_rows, 256):
            block = levels[: min(256, n_rows - start)]
            block[:, 0] = np.arange(start, start + len(block))
            writer.write(start, block)


def drop_from_cache(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sequential(path: Path, _: argparse.Namespace) -> Iterator[np.ndarray]:
    with h5py.File(path) as file:
        X = file["X"]
        offset, n_rows, descriptor = X.id.get_offset(), len(X), file.id.get_vfd_handle()
        block = np.empty((SEQUENTIAL_ROWS, N_GENES), dtype=np.float32)
        for start in range(0, n_rows, SEQUENTIAL_ROWS):
            rows = block[: min(SEQUENTIAL_ROWS, n_rows - start)]
            view, at = rows.data.cast("B"), offset + start * N_GENES * 4
            while view:
                n_read = os.preadv(descriptor, [view], at)
                view, at = view[n_read:], at + n_read
            yield rows


def by_h5py(path: Path, _: argparse.Namespace) -> Iterator[np.ndarray]:
    with h5py.File(path) as file:
        X = file["X"]
        block = np.empty((SEQUENTIAL_ROWS, N_GENES), dtype=np.float32)
        for start in range(0, len(X), SEQUENTIAL_ROWS):
            rows = block[: min(SEQUENTIAL_ROWS, len(X) - start)]
            X.read_direct(rows, np.s_[start : start + len(rows)])
            yield rows


def ours(path: Path, options: argparse.Namespace) -> Iterator[np.ndarray]:
    from m1pipe.data.batches import StreamedBatches
    from m1pipe.io.reader import open_matrix

    with open_matrix(path) as matrix:
        memory = options.memory * 2**20 * 7 // 8  # as training does: the libraries take some
        yield from StreamedBatches(matrix, None, BATCH_ROWS, 0, memory).epoch(0)


def naive(path: Path, _: argparse.Namespace) -> Iterator[np.ndarray]:
    with h5py.File(path) as file:
        X = file["X"]
        order = np.random.default_rng(0).permutation(len(X))
        for start in range(0, len(X), BATCH_ROWS):
            yield np.stack([X[i] for i in order[start : start + BATCH_ROWS]])


def scdataset(path: Path, _: argparse.Namespace) -> Iterator[np.ndarray]:
    from scdataset import BlockShuffling, scDataset
    from torch.utils.data import DataLoader

    with h5py.File(path) as file:
        strategy = BlockShuffling(block_size=16)
        data = scDataset(file["X"], strategy, batch_size=BATCH_ROWS, fetch_factor=64)
        for batch in DataLoader(data, batch_size=None):
            yield np.asarray(batch)


READERS: dict[str, Callable[[Path, argparse.Namespace], Iterator[np.ndarray]]] = {
    "sequential": sequential,
    "h5py": by_h5py,
    "m1pipe": ours,
    "naive": naive,
    "scdataset": scdataset,
}


def peak_mb() -> float:
    """Largest resident memory of this process alone; `ru_maxrss` would inherit its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def side(options: argparse.Namespace) -> None:
    """What a process does: read until the end or the time is over, and say how it went."""
    path = Path(options.file)
    if options.side == "m1pipe":
        import m1pipe.data.batches
        import m1pipe.data.matrix  # noqa: F401 - loaded before the clock starts
    if options.side == "scdataset":
        import scdataset  # noqa: F401
        import torch  # noqa: F401
    before = peak_mb()
    limit = options.seconds if options.side in ("naive", "scdataset") else float("inf")
    seen, begun, cpu = [], time.perf_counter(), time.process_time()
    for batch in READERS[options.side](path, options):
        seen.append(batch[:, 0].copy())
        if time.perf_counter() - begun > limit:
            break
    seconds = time.perf_counter() - begun
    rows = np.concatenate(seen)
    print(
        json.dumps(
            {
                "rows": len(rows),
                "rows_per_s": len(rows) / seconds,
                "mb_per_s": 4 * N_GENES * len(rows) / seconds / 1e6,
                "cpu_s": time.process_time() - cpu,
                "rss_mb": peak_mb(),
                "libraries_mb": before,
                "each_once": bool(len(np.unique(rows)) == len(rows)),
                "whole": bool(len(rows) == options.rows),
            }
        )
    )


def run_side(name: str, path: Path, options: argparse.Namespace) -> dict[str, float]:
    drop_from_cache(path)
    python = options.scdataset if name == "scdataset" else sys.executable
    command = [python, __file__, "--side", name, "--file", str(path), "--rows", str(options.rows)]
    command += ["--memory", str(options.memory), "--seconds", str(options.seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def report(runs: dict[str, list[dict[str, float]]]) -> None:
    best = {name: max(done, key=lambda r: r["rows_per_s"]) for name, done in runs.items()}
    for name, one in best.items():
        each = " ".join(f"{run['mb_per_s']:.0f}" for run in runs[name])
        peak = max(run["rss_mb"] for run in runs[name])
        print(
            f"{name:10s} {one['rows_per_s']:8.0f} rows/s {one['mb_per_s']:7.0f} MB/s "
            f"(runs {each})  cpu {one['cpu_s']:5.1f} s  peak RSS {peak:5.0f} MB, of which "
            f"libraries {one['libraries_mb']:.0f}  "
            f"{'whole epoch' if one['whole'] else 'part'}, "
            f"{'every row once' if one['each_once'] else 'ROWS TWICE'}"
        )
    for other in (name for name in best if name != "m1pipe"):
        each = [
            a["rows_per_s"] / b["rows_per_s"]
            for a, b in zip(runs["m1pipe"], runs[other], strict=True)
        ]
        ratio = best["m1pipe"]["rows_per_s"] / best[other]["rows_per_s"]
        turns = ", ".join(f"{value:.2f}" for value in each)
        print(f"m1pipe / {other}: {ratio:.2f} of the best runs; turn by turn {turns}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=4096, help="size of the file")
    parser.add_argument("--memory", type=int, default=1024, help="MB that m1pipe may use")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="limit of the slow sides")
    parser.add_argument("--scdataset", metavar="PYTHON", help="interpreter that has scDataset")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--tmp", default=None, help="folder for the file")
    parser.add_argument("--out", type=Path, help="results as JSON")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side(options)
        return
    options.rows = options.megabytes * 2**20 // (4 * N_GENES)
    names = [n for n in options.sides if n != "scdataset" or options.scdataset]
    load = os.getloadavg()[0]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(
        f"{machine}, load {load:.1f}; {options.rows} x {N_GENES} float32, {options.megabytes} MB, "
        f"memory {options.memory} MB, batches of {BATCH_ROWS}, cold cache"
    )
    with tempfile.TemporaryDirectory(dir=options.tmp) as folder:
        path = Path(folder) / "u.h5ad"
        make_file(path, options.rows)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        turns = np.random.default_rng(0)
        for _ in range(options.repeats):
            for name in turns.permutation(names):
                runs[name].append(run_side(name, path, options))
    report(runs)
    if options.out:
        settings = {k: v for k, v in vars(options).items() if k not in ("side", "file", "out")}
        settings.pop("scdataset"), settings.pop("tmp")
        found = {"machine": machine, "load": load, "settings": settings, "runs": runs}
        options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
