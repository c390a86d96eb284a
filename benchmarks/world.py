"""A small world of every input and artefact, and commands run on it in forked children.

The scripts beside this one import it: their parent has all modules loaded, so that a case costs a
fork and not a start.
"""

import gc
import gzip
import hashlib
import importlib
import json
import os
import pkgutil
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from scipy import sparse

import m1pipe
from m1pipe.cli.main import run

MEMORY, SECONDS = 3 * 2**30, 120
N_SAMPLES, N_GENES = 40, 12
LATE = (
    "torch._dynamo",
    "matplotlib.backends.backend_agg",
    "PIL.features",
    "pandas.io.formats.csvs",
)


def make_world(folder: Path) -> None:
    """Every input, and artefacts made from them by the commands."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(N_SAMPLES, 2)) @ rng.normal(size=(2, N_GENES))
    counts = rng.poisson(20 * np.exp2(factors / 2)).astype(np.float32)
    counts[rng.random(counts.shape) < 0.3] = 0
    samples, genes = [f"s{i}" for i in range(N_SAMPLES)], [f"g{j}" for j in range(N_GENES)]
    frame = pd.DataFrame(counts.astype(int), samples, genes)
    frame.to_csv(folder / "x.tsv", sep="\t", index_label="sample")
    (folder / "x.csv.gz").write_bytes(gzip.compress(frame.to_csv(index_label="sample").encode()))
    obs = pd.DataFrame({"tissue": ["a", "b"] * (N_SAMPLES // 2)}, index=samples)
    obs.to_csv(folder / "labels.tsv", sep="\t", index_label="sample")
    for name, values in (
        ("dense", counts), ("csr", sparse.csr_matrix(counts)), ("csc", sparse.csc_matrix(counts)),
    ):  # fmt: skip
        adata = anndata.AnnData(values, obs.copy(), pd.DataFrame(index=genes))
        adata.uns["units"] = "counts"
        adata.write_h5ad(folder / f"{name}.h5ad")
    with h5py.File(folder / "flat.h5", "w") as file:
        file["expressions"] = counts
        file["row_names"], file["col_names"] = np.array(samples, "S"), np.array(genes, "S")
    _write_tenx(folder, counts, samples, genes)
    (folder / "study.toml").write_text(
        'out = "runs"\n[data.u]\nsource = "x.tsv"\nunits = "counts"\n'
    )
    train = ["--latent", "2", "--hidden", "4", "--epochs", "2", "--seed", "1"]
    for arguments in (
        ["convert", "dense.h5ad", "log.h5ad", "--normalize", "total", "--log2p1"],
        ["train", "log.h5ad", "--out", "run", *train],
        ["fit", "--x", "log.h5ad", "--label", "tissue", "--encoder", "run", "--out", "model",
         "--head-epochs", "2", "--head-hidden", "4"],
        ["crossval", "--x", "log.h5ad", "--label", "tissue", "--models", "prior,logistic",
         "--folds", "2", "--out", "cv"],
        ["sweep", "log.h5ad", "--neurons", "2,3", "--epochs", "2", "--out", "sweep"],
    ):  # fmt: skip
        if run(["-q", *arguments]) != 0:
            raise SystemExit(f"the world could not be made: {arguments}")


def _write_tenx(folder: Path, counts: np.ndarray, samples: list[str], genes: list[str]) -> None:
    rows = sparse.csr_matrix(counts.astype(np.int32))
    with h5py.File(folder / "tenx.h5", "w") as file:
        group = file.create_group("matrix")
        group["data"], group["indices"], group["indptr"] = rows.data, rows.indices, rows.indptr
        group["shape"], group["barcodes"] = [N_GENES, N_SAMPLES], np.array(samples, "S")
        for key in ("id", "name"):
            group[f"features/{key}"] = np.array(genes, "S")
        group["features/feature_type"] = np.array(["Gene Expression"] * N_GENES, "S")
    (folder / "mtx").mkdir()
    entries = sparse.coo_matrix(counts.T.astype(int))
    head = "%%MatrixMarket matrix coordinate integer general\n"
    lines = [f"{i + 1} {j + 1} {v}" for i, j, v in zip(entries.row, entries.col, entries.data)]  # noqa: B905
    sizes = f"{N_GENES} {N_SAMPLES} {entries.nnz}\n"
    (folder / "mtx" / "matrix.mtx").write_text(head + sizes + "\n".join(lines) + "\n")
    (folder / "mtx" / "features.tsv").write_text("".join(f"{g}\t{g}\n" for g in genes))
    (folder / "mtx" / "barcodes.tsv").write_text("".join(f"{s}\n" for s in samples))


def load_everything() -> None:
    """Import all modules once, so that no child has to; what is there is frozen for the forks."""
    for module in pkgutil.walk_packages(m1pipe.__path__, "m1pipe."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in LATE:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def copy(world: Path, folder: Path) -> Path:
    here = folder / "case"
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(world, here)
    return here


def start(work: Callable[[], int], folder: Path, *, logs: Path | None = None) -> int:
    """Begin work in a forked process with limits; its id.

    What it prints is in the files stdout and stderr of the folder, or of `logs`.
    """
    child = os.fork()
    if child != 0:
        return child
    code = 70
    try:
        signal.alarm(SECONDS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        os.chdir(folder)
        for number, name in ((1, "stdout"), (2, "stderr")):
            place = (logs or folder) / name
            os.dup2(os.open(place, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        code = work()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def in_child(
    work: Callable[[], int], folder: Path, *, logs: Path | None = None
) -> tuple[int, float]:
    """Work as `start` begins it, to its end: exit code (negative: a signal), and seconds."""
    begun = time.monotonic()
    _, status = os.waitpid(start(work, folder, logs=logs), 0)
    return os.waitstatus_to_exitcode(status), time.monotonic() - begun


def build_world(folder: Path, make: Callable[[Path], None] | None = None) -> Path:
    """Load all modules, and make a world in a folder of its own, in a child; its path."""
    load_everything()
    world = folder / "world"
    world.mkdir()
    code, _ = in_child(lambda: (make or make_world)(world) or 0, world)
    if code != 0:
        raise SystemExit((world / "stderr").read_text())
    return world


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


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, but of what commands print."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("stdout", "stderr")
    }
