"""Change files at random and run commands on them: the right result, or one line.

    OMP_NUM_THREADS=1 python benchmarks/mutate.py --n 10000 --out benchmarks/results/mutate.json

Every kind of input and of artefact is made once, small. Each case copies a world, changes one file
of it (bytes flipped, cut, doubled or put in; lines and cells of text; values of JSON; datasets and
attributes of HDF5) and runs a command in a forked child with limits of memory and time. Right is:
exit 0 with the result that an independent reader (anndata, scipy) finds in the changed file, or
with the undisturbed one; or exit 1 and one line. A value that was changed to another one of its
kind makes another file, and no reader can know: these are counted apart. Fails if anything else
comes: exit 70, a crash, a hang, more memory, or another result from a file whose structure changed.
"""

import argparse
import collections
import gzip
import hashlib
import json
import os
import platform
import signal
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
from safetensors import safe_open
from scipy import sparse
from world import build_world, copy, in_child

import m1pipe
from m1pipe.cli.main import run

ODD = ("", "nan", "NaN", "1e309", "-1", "abc", "99999999999999999999", "1,5", "\x00", "é", '"')
Outcome = tuple[str, str]


@dataclass(frozen=True)
class Kind:
    """A world's files that are changed, the command on them, and how its result is read.

    `reread` finds in the changed file, independently, what the command must make of it; None: the
    file is an artefact, and its result is compared with the undisturbed one.
    """

    name: str
    files: tuple[str, ...]
    arguments: tuple[str, ...]
    result: Callable[[Path], Any]
    reread: Callable[[Path], Any] | None = None


def _table(names: Any, genes: Any, values: Any, labels: Any = ()) -> Any:
    """What is compared of a matrix."""
    X = np.ascontiguousarray(np.asarray(values, dtype=np.float32))
    return [str(n) for n in names], [str(g) for g in genes], X.tobytes(), [str(v) for v in labels]


def read_made(folder: Path) -> Any:
    found = anndata.read_h5ad(folder / "out.h5ad")
    labels = found.obs["tissue"].astype(object) if "tissue" in found.obs else ()
    X = found.X.toarray() if sparse.issparse(found.X) else found.X
    return _table(found.obs_names, found.var_names, X, labels)


def _of_text(name: str, separator: str) -> Callable[[Path], Any]:
    def reread(folder: Path) -> Any:
        content = (folder / name).read_bytes()
        if name.endswith(".gz"):
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
        cells = [line.split(separator) for line in text.split("\n") if line.strip()]
        header, body = cells[0], cells[1:]
        header = header[1:] if len(header) == len(body[0]) else header
        values = [[float(cell) for cell in row[1:]] for row in body]
        if any(len(row) != len(header) for row in values) or not np.isfinite(values).all():
            raise ValueError("ragged, or not finite")
        names = [row[0].strip('"').strip() for row in body]
        return _table(names, [name.strip('"').strip() for name in header], values)

    return reread


def _of_h5ad(name: str) -> Callable[[Path], Any]:
    def reread(folder: Path) -> Any:
        found = anndata.read_h5ad(folder / name)
        X = found.X
        if sparse.issparse(X):
            X.check_format(full_check=True)
            once = X.copy()
            once.sum_duplicates()
            if once.nnz != X.nnz:
                raise ValueError("a place twice")
            X = X.toarray()
        labels = found.obs["tissue"].astype(object) if "tissue" in found.obs else ()
        return _table(found.obs_names, found.var_names, X, labels)

    return reread


def _of_flat(folder: Path) -> Any:
    with h5py.File(folder / "flat.h5") as file:
        names = [[_text(v) for v in file[key][:]] for key in ("row_names", "col_names")]
        return _table(*names, file["expressions"][:])


def _of_tenx(folder: Path) -> Any:
    with h5py.File(folder / "tenx.h5") as file:
        group = file["matrix"]
        shape = (len(group["barcodes"]), len(group["features/id"]))
        parts = (group["data"][:], group["indices"][:], group["indptr"][:])
        rows = sparse.csr_matrix(parts, shape=shape)
        rows.check_format(full_check=True)
        kinds = [_text(v) for v in group["features/feature_type"][:]]
        kept = [i for i, kind in enumerate(kinds) if kind == "Gene Expression"]
        genes = [_text(group["features/id"][i]) for i in kept]
        names = [_text(v) for v in group["barcodes"][:]]
        return _table(names, genes, rows.toarray()[:, kept])


def _of_mtx(folder: Path) -> Any:
    from scipy.io import mmread

    values = mmread(folder / "mtx" / "matrix.mtx")
    names, genes = (
        [line.split("\t")[0] for line in _decoded(folder / "mtx" / name).split("\n") if line]
        for name in ("barcodes.tsv", "features.tsv")
    )
    dense = np.asarray(values.todense()).T
    if dense.shape != (len(names), len(genes)):
        raise ValueError("other sizes")
    return _table(names, genes, dense)


def _decoded(path: Path) -> str:
    """Text of a file; what is not UTF-8 is Latin-1."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        return path.read_text(encoding="latin-1")


def _of_labels(folder: Path) -> Any:
    made = _of_text("x.tsv", "\t")(folder)
    text = (folder / "labels.tsv").read_text(encoding="utf-8-sig")
    rows = [line.split("\t") for line in text.splitlines() if line]
    if any(len(row) != 2 for row in rows):
        raise ValueError("ragged")
    if rows[0][1] != "tissue":  # a column of another name is kept, and not looked at here
        return (*made[:3], [])
    known = {row[0].strip(): row[1].strip().strip('"') for row in rows[1:]}
    return (*made[:3], [known.get(name) or "nan" for name in made[0]])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _summary(folder: Path) -> Any:
    found = json.loads((folder / "cv" / "summary.json").read_text())
    return found["models"], found["comparisons"]


def _printed(folder: Path) -> Any:
    return (folder / "stdout").read_text()


def make_kinds() -> list[Kind]:
    """All kinds of files and what is run on them."""
    to = ("convert", "--units", "counts")
    run_files = ("model.json", "model.safetensors", "pca.safetensors", "samples.csv", "history.csv")
    model_files = ("model.json", "head.safetensors", "encoder/model.json", "config.json")
    share = tuple(f"cv/shares/r0_f0/{name}" for name in ("losses.h5", "scores.csv", "share.json"))
    trials = ("sweep/trials/0001.json", "sweep/sweep.json", "sweep/config.json")
    return [
        Kind("tsv", ("x.tsv",), (*to, "x.tsv", "out.h5ad"), read_made, _of_text("x.tsv", "\t")),
        Kind("csv.gz", ("x.csv.gz",), (*to, "x.csv.gz", "out.h5ad"), read_made,
             _of_text("x.csv.gz", ",")),
        Kind("labels", ("labels.tsv",), (*to, "x.tsv", "out.h5ad", "--labels", "labels.tsv"),
             read_made, _of_labels),
        *(Kind(f"h5ad {n}", (f"{n}.h5ad",), ("convert", f"{n}.h5ad", "out.h5ad"), read_made,
               _of_h5ad(f"{n}.h5ad")) for n in ("dense", "csr", "csc")),
        Kind("flat", ("flat.h5",), (*to, "flat.h5", "out.h5ad"), read_made, _of_flat),
        Kind("10x h5", ("tenx.h5",), ("convert", "tenx.h5", "out.h5ad"), read_made, _of_tenx),
        Kind("10x folder", ("mtx/matrix.mtx", "mtx/features.tsv", "mtx/barcodes.tsv"),
             ("convert", "mtx", "out.h5ad"), read_made, _of_mtx),
        Kind("run", tuple(f"run/{name}" for name in run_files),
             ("encode", "run", "log.h5ad", "--out", "out.h5ad"), read_made),
        Kind("finished run", ("run/config.json", "run/provenance.json", "run/status.json"),
             ("train", "log.h5ad", "--out", "run", "--latent", "2", "--hidden", "4", "--epochs",
              "2", "--seed", "1", "--resume"), _printed),
        Kind("model", tuple(f"model/{name}" for name in model_files),
             ("predict", "model", "log.h5ad", "--out", "out.h5ad"), read_made),
        Kind("rivals", ("model/rivals.json", "model/rivals.safetensors", "model/samples.csv"),
             ("evaluate", "model", "--x", "log.h5ad", "--label", "tissue", "--out", "eval"),
             lambda folder: (folder / "eval" / "scores.csv").read_text()),
        Kind("crossval", ("cv/shares/plan.json", "cv/config.json", "cv/provenance.json", *share),
             ("report", "cv"), _summary),
        Kind("sweep", trials, ("sweep", "log.h5ad", "--neurons", "2,3", "--epochs", "2", "--out",
                               "sweep"), _printed),
        Kind("study", ("study.toml",), ("run", "study.toml", "--dry-run"), _printed),
    ]  # fmt: skip


def mutate(path: Path, rng: np.random.Generator) -> str:
    """Change a file in one place; a word for how."""
    ways: list[Callable[[Path, np.random.Generator], str | None]] = [_bytes]
    if path.suffix == ".json":
        ways += [_json, _json]
    if path.suffix in (".tsv", ".csv", ".mtx", ".toml"):
        ways += [_cells, _cells]
    if path.suffix in (".h5", ".h5ad"):
        ways += [_hdf5, _hdf5, _hdf5]
    for _ in range(20):
        before = path.read_bytes()
        done = ways[rng.integers(len(ways))](path, rng)
        if done is not None and path.read_bytes() != before:
            return done
    return "none"


def _bytes(path: Path, rng: np.random.Generator) -> str | None:
    content = bytearray(path.read_bytes())
    packed = path.suffix == ".gz" and rng.random() < 0.7
    if packed:
        content = bytearray(gzip.decompress(bytes(content)))
    i, n = int(rng.integers(len(content))), int(rng.integers(1, 64))
    way = ("flip", "bit", "cut", "end", "double", "insert", "fill")[rng.integers(7)]
    if way == "flip":
        content[i] = int(rng.integers(256))
    elif way == "bit":
        content[i] ^= 1 << int(rng.integers(8))
    elif way == "cut":
        del content[i : i + n]
    elif way == "end":
        del content[i:]
    elif way == "double":
        content[i:i] = content[i : i + n]
    elif way == "insert":
        content[i:i] = rng.bytes(n)
    else:
        content[i : i + n] = b"\xff" * len(content[i : i + n])
    path.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))
    return f"bytes: {way}"


def _cells(path: Path, rng: np.random.Generator) -> str | None:
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines:
        return None
    mark = "\t" if path.suffix == ".tsv" else "," if path.suffix == ".csv" else " "
    i, j = (int(k) for k in rng.integers(len(lines), size=2))
    cells = lines[i].split(mark)
    k = int(rng.integers(len(cells)))
    way = ("cell", "drop cell", "double cell", "drop line", "double line", "swap", "mark")[
        rng.integers(7)
    ]
    if way == "cell":
        cells[k] = ODD[rng.integers(len(ODD))]
    elif way == "drop cell":
        del cells[k]
    elif way == "double cell":
        cells.insert(k, cells[k])
    lines[i] = mark.join(cells)
    if way == "drop line":
        del lines[i]
    elif way == "double line":
        lines.insert(i, lines[i])
    elif way == "swap":
        lines[i], lines[j] = lines[j], lines[i]
    elif way == "mark":
        lines[i] = lines[i].replace(mark, ";", 1)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"text: {way}"


def _json(path: Path, rng: np.random.Generator) -> str | None:
    try:
        value = json.loads(path.read_text())
    except ValueError:
        return None
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(value)
    if not places:
        return None
    node, key = places[rng.integers(len(places))]
    if rng.random() < 0.3 and isinstance(node, dict):
        del node[key]
        way = "drop"
    else:
        odd: list[Any] = [None, [], {}, "x", -1, 0, 1e308, 2**70, True, [[]], "\0", 0.5]
        node[key] = odd[rng.integers(len(odd))]
        way = "value"
    path.write_text(json.dumps(value))
    return f"json: {way}"


def _hdf5(path: Path, rng: np.random.Generator) -> str | None:
    with h5py.File(path, "a") as file:
        found: list[str] = []
        file.visititems(lambda name, item: found.append(name))
        if not found:
            return None
        name = found[rng.integers(len(found))]
        item = file[name]
        if rng.random() < 0.25 and len(item.attrs):
            attribute = list(item.attrs)[rng.integers(len(item.attrs))]
            del item.attrs[attribute]
            return "hdf5: attribute"
        if rng.random() < 0.15 or isinstance(item, h5py.Group):
            del file[name]
            return "hdf5: drop"
        return _dataset(file, name, rng)


def _dataset(file: h5py.File, name: str, rng: np.random.Generator) -> str | None:
    values, attributes = file[name][()], dict(file[name].attrs)
    if not isinstance(values, np.ndarray) or not values.size:
        return None
    way = ("value", "short", "long", "turn", "type", "float", "hollow")[rng.integers(7)]
    number = values.dtype.kind in "iuf"
    if way == "value" and number:
        odd = [-1, 0, 2**31 - 1, 7] + ([np.nan, np.inf] if values.dtype.kind == "f" else [])
        values.flat[rng.integers(values.size)] = odd[rng.integers(len(odd))]
    elif way == "short":
        values = values[:-1]
    elif way == "long":
        values = np.concatenate([values, values[-1:]])
    elif way == "turn":
        values = values.reshape(1, -1)
    elif way == "type" and number:
        values = values.astype("S")
    elif way == "float" and number:
        values = values.astype(np.float64) + 0.5
    elif way != "hollow":
        return None
    kind = file[name].dtype
    del file[name]
    if way == "hollow":
        shape = (10**11, *values.shape[1:])
        kind = np.dtype("S8") if kind.kind in "OS" else kind
        made = file.create_dataset(name, shape=shape, dtype=kind, chunks=True)
    else:
        kind = h5py.string_dtype() if values.dtype.kind == "O" else None
        made = file.create_dataset(name, data=values, dtype=kind)
    made.attrs.update(attributes)
    return f"hdf5: {way}"


def structure(path: Path) -> Any:
    """Form of a file without its values: keys, shapes, types, numbers of lines and fields."""
    if path.suffix == ".json":
        return _form(json.loads(path.read_text()))
    if path.suffix == ".safetensors":
        with safe_open(path, "np") as file:
            names = sorted(file.keys())
            return [
                (n, file.get_slice(n).get_shape(), file.get_slice(n).get_dtype()) for n in names
            ]
    if path.suffix in (".h5", ".h5ad"):
        found = []
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item: found.append(
                    (name, getattr(item, "shape", None), str(getattr(item, "dtype", "")))
                )
            )
        return found
    cells = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    return [len(row) for row in cells], cells[0]


def _form(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _form(part) for key, part in value.items()}
    if isinstance(value, list):
        return [len(value), *(_form(part) for part in value[:3])]
    return "number" if isinstance(value, int | float) else type(value).__name__


def judge(kind: Kind, folder: Path, changed: Path, code: int, wanted: str) -> Outcome:
    """How a case ended, in a word, and what is to be said of it."""
    said = (folder / "stderr").read_text(errors="replace") if (folder / "stderr").exists() else ""
    if code == -signal.SIGALRM:
        return "hang", ""
    if code < 0:
        return "crash", signal.Signals(-code).name
    if code in (1, 2):
        errors = [line for line in said.splitlines() if line.startswith("m1pipe: error")]
        plain = code == 2 or (len(errors) == 1 and "Traceback" not in said)
        return ("refused", "") if plain else ("not one line", said[-300:])
    if code != 0:
        return f"exit {code}", said[-500:]
    found = _digest(lambda: kind.result(folder))
    if found == wanted:
        return "equal", ""
    if kind.reread is not None:
        if found == _digest(lambda: kind.reread(folder)):  # type: ignore[misc]
            return "faithful", ""
        return ("warned", "") if "warning" in said else ("silent change", "")
    try:
        whole = Path(folder).parent / "world" / changed.relative_to(folder)
        if structure(changed) == structure(whole):
            return "edited value", ""
    except Exception as error:  # noqa: BLE001 - a reader that fails finds another structure
        return ("warned", "") if "warning" in said else ("silent change", str(error)[:100])
    return ("warned", "") if "warning" in said else ("silent change", "")


def _digest(read: Callable[[], Any]) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return hashlib.sha256(repr(read()).encode()).hexdigest()
    except Exception as error:  # noqa: BLE001 - any reader may fail on a damaged file
        return f"unreadable: {type(error).__name__}"


GOOD = ("equal", "faithful", "refused", "edited value", "warned")


def run_cases(folder: Path, n: int, seed: int, only: str | None = None) -> dict[str, Any]:
    """Run so many cases; counts by kind and outcome, and what was wrong."""
    world = build_world(folder)
    kinds = [kind for kind in make_kinds() if only in (None, kind.name)]
    wanted = {}
    for kind in kinds:
        here = copy(world, folder)
        code, _ = in_child(lambda: run(list(kind.arguments)), here)  # noqa: B023 - runs at once
        if code != 0:
            raise SystemExit(f"{kind.name}: exit {code}: {(here / 'stderr').read_text()}")
        wanted[kind.name] = _digest(lambda: kind.result(here))  # noqa: B023
    counts: dict[str, collections.Counter[str]] = {k.name: collections.Counter() for k in kinds}
    wrong: list[dict[str, Any]] = []
    slowest = 0.0
    for case in range(n):
        rng = np.random.default_rng([seed, case])
        kind = kinds[case % len(kinds)]
        here = copy(world, folder)
        changed = here / kind.files[rng.integers(len(kind.files))]
        how = mutate(changed, rng)
        code, seconds = in_child(lambda: run(list(kind.arguments)), here)  # noqa: B023
        slowest = max(slowest, seconds)
        outcome, detail = judge(kind, here, changed, code, wanted[kind.name])
        counts[kind.name][outcome] += 1
        if outcome not in GOOD:
            where = str(changed.relative_to(here))
            wrong.append(
                {"case": case, "kind": kind.name, "file": where, "how": how, "outcome": outcome,
                 "detail": detail}
            )  # fmt: skip
            print(json.dumps(wrong[-1]), flush=True)
    return {
        "cases": n,
        "seed": seed,
        "slowest seconds": round(slowest, 1),
        "outcomes": {name: dict(found) for name, found in counts.items()},
        "wrong": wrong,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one kind")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = run_cases(Path(temporary), chosen.n, chosen.seed, chosen.only)
    found = {
        "m1pipe": m1pipe.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        **found,
    }
    for name, outcomes in found["outcomes"].items():
        print(f"{name}: {', '.join(f'{n} {word}' for word, n in sorted(outcomes.items()))}")
    if chosen.out is not None:
        chosen.out.write_text(json.dumps(found, indent=2) + "\n")
    if found["wrong"]:
        raise SystemExit(f"{len(found['wrong'])} of {chosen.n} cases went wrong")


if __name__ == "__main__":
    main()
