"""Gzip'd text to HDF5: `m1pipe convert` against the row-by-row csv loop, in one run.

The rival reads lines with `csv.reader`, makes an array of each and writes it as one row, as the
published pipeline's create_h5.py does. Both run in processes of their own, in turn; values must be
equal to the bit. Wall time, CPU time and the largest resident memory are those of the process;
imports are not timed but given apart, which for `m1pipe` include compiled code kept on the disk.

    python benchmarks/convert_text.py --samples 2000 --genes 18965 --repeats 3
"""

import argparse
import csv
import gzip
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np

DISTINCT_ROWS = 100


def make_text(path: Path, n_samples: int, n_genes: int, kind: str) -> int:
    """Write the table, `DISTINCT_ROWS` rows of values over and over; bytes of text."""
    rng = np.random.default_rng(0)
    levels = rng.gamma(0.3, 60, (DISTINCT_ROWS, n_genes)) * (rng.random((1, n_genes)) > 0.3)
    values, form = {
        "log4": (np.log2(1 + levels), "%.4f"),
        "float32": (np.log2(1 + levels), "%.9g"),
        "counts": (np.rint(levels), "%d"),
    }[kind]
    rows = ["\t".join("0" if v == 0 else form % v for v in row) for row in values]
    n_bytes = 0
    with gzip.open(path, "wt", compresslevel=6) as file:
        n_bytes += file.write("sample\t" + "\t".join(f"G{j}" for j in range(n_genes)) + "\n")
        for i in range(n_samples):
            n_bytes += file.write(f"s{i}\t{rows[i % DISTINCT_ROWS]}\n")
    return n_bytes


def csv_loop(source: Path, dest: Path, n_samples: int) -> None:
    with gzip.open(source, "rt") as file, h5py.File(dest, "w") as out:
        reader = csv.reader(file, delimiter="\t")
        header = next(reader)
        X = out.create_dataset("X", (n_samples, len(header) - 1), dtype=np.float32)
        for i, row in enumerate(reader):
            X[i] = np.array(row[1:], dtype=np.float32)


def ours(source: Path, dest: Path, n_samples: int) -> None:
    from m1pipe.io.conversion.config import ConvertConfig
    from m1pipe.io.conversion.convert import convert

    warnings.simplefilter("ignore")
    convert(source, dest, ConvertConfig(units="normalized"))


def run_one(name: str, source: Path, dest: Path, n_samples: int) -> dict[str, float]:
    """Run one side in a process of its own."""
    command = [sys.executable, __file__, "--side", name, str(source), str(dest), str(n_samples)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def side(name: str, source: str, dest: str, n_samples: str) -> None:
    """What a process of `run_one` does; imports are timed apart."""
    before = time.perf_counter()
    if name == "m1pipe":
        import m1pipe.io.conversion.convert  # noqa: F401
        from m1pipe.io.text.numbers import compiled_scan

        compiled_scan()
    start = time.perf_counter(), time.process_time()
    {"m1pipe": ours, "csv": csv_loop}[name](Path(source), Path(dest), int(n_samples))
    usage = {
        "wall": time.perf_counter() - start[0],
        "cpu": time.process_time() - start[1],
        "imports": start[0] - before,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(usage))


def same_values(first: Path, second: Path) -> bool:
    with h5py.File(first) as a, h5py.File(second) as b:
        step = 200
        return all(
            np.array_equal(
                a["X"][i : i + step].view(np.uint32), b["X"][i : i + step].view(np.uint32)
            )
            for i in range(0, len(a["X"]), step)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--genes", type=int, default=18965)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--values", choices=("log4", "float32", "counts"), default="log4")
    parser.add_argument("--tmp", default=None, help="folder for the files")
    parser.add_argument("--out", type=Path, help="results as JSON")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    inflater = "isal" if find_spec("isal") else "zlib"
    parser_name = "numba" if find_spec("numba") else "numpy"
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load "
        f"{load:.1f}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"{inflater}, {parser_name}; {options.samples} x {options.genes} {options.values}"
    )
    with tempfile.TemporaryDirectory(dir=options.tmp) as folder:
        source = Path(folder) / "m.tsv.gz"
        megabytes = make_text(source, options.samples, options.genes, options.values) / 1e6
        print(f"{megabytes:.0f} MB of text, {source.stat().st_size / 1e6:.0f} MB gzip'd")
        runs: dict[str, list[dict[str, float]]] = {"csv": [], "m1pipe": []}
        for _ in range(options.repeats):
            for name, done in runs.items():
                dest = Path(folder) / f"{name}.h5"
                dest.unlink(missing_ok=True)
                done.append(run_one(name, source, dest, options.samples))
        assert same_values(Path(folder) / "csv.h5", Path(folder) / "m1pipe.h5"), "values differ"
    best = {n: {k: min(r[k] for r in done) for k in done[0]} for n, done in runs.items()}
    for name, usage in best.items():
        print(
            f"{name:7s} wall {usage['wall']:6.2f} s ({megabytes / usage['wall']:6.1f} MB/s)  cpu "
            f"{usage['cpu']:6.2f} s ({megabytes / usage['cpu']:6.1f} MB/s)  peak "
            f"{max(r['rss_mb'] for r in runs[name]):.0f} MB  imports {usage['imports']:.2f} s"
        )
    for kind in ("wall", "cpu"):
        each = [a[kind] / b[kind] for a, b in zip(runs["csv"], runs["m1pipe"], strict=True)]
        print(
            f"ratio by {kind}: {best['csv'][kind] / best['m1pipe'][kind]:.2f}, run by run "
            + ", ".join(f"{ratio:.2f}" for ratio in each)
        )
    print("values equal to the bit")
    if options.out:
        settings = {k: v for k, v in vars(options).items() if k not in ("out", "tmp")}
        machine = (
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        )
        found = {"machine": machine, "load": load, "settings": settings, "inflater": inflater}
        found["parser"] = parser_name
        found |= {"text_mb": megabytes, "runs": runs, "equal_to_the_bit": True}
        options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        side(*sys.argv[2:])
    else:
        main()
