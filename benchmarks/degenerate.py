"""Data without anything to learn from, in every command: a result that says so, or one line.

    OMP_NUM_THREADS=1 python benchmarks/degenerate.py --out benchmarks/results/degenerate.json

Files that are all constant, all zero, constant but for one value, of one to three samples or one
gene, of samples that are all the same, and with one value at the end of what float32 holds, go
through every command in a forked child: to train on, and to apply a sound model to. Right is exit 0
with matrices that are finite, or a warning that they are not, or exit 1 with one line. No
RuntimeWarning of numpy's, and nothing that says fault of m1pipe.
"""

import argparse
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from world import build_world, copy, in_child

import m1pipe
from m1pipe.cli.main import run

N_SAMPLES, N_GENES = 24, 6
LIGHT = ["--latent", "2", "--hidden", "4", "--epochs", "2", "--seed", "1"]
HEAD = ["--head-epochs", "2", "--head-hidden", "4"]
LARGEST = 3e38


def make_levels(rng: np.random.Generator, n: int = N_SAMPLES) -> np.ndarray:
    """Logarithms of two planted factors; the first two genes tell the classes apart."""
    factors = rng.normal(size=(n, 2))
    X = 5 + factors @ rng.normal(size=(2, N_GENES)) + 0.3 * rng.normal(size=(n, N_GENES))
    X[:, :2] += np.where(np.arange(n) % 2 == 0, 1.0, -1.0)[:, None]
    return X.clip(min=0)


def make_odd(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Matrices by what is odd about them."""
    sound = make_levels(rng)
    one = np.full_like(sound, 5)
    one[3, 2] = 6
    gene = np.full_like(sound, 5)
    gene[:, 2] = sound[:, 2]
    large, logs = sound.copy(), sound.copy()
    large[3, 2], logs[3, 2] = LARGEST, 1e30
    return {
        "constant": np.full_like(sound, 5),
        "zero": np.zeros_like(sound),
        "one value": one,
        "one gene varies": gene,
        "one sample": sound[:1],
        "two samples": sound[:2],
        "three samples": sound[:3],
        "same samples": np.repeat(sound[:1], N_SAMPLES, axis=0),
        "one gene": sound[:, :1],
        "3e38": large,
        "1e30": logs,
        "all 1e30": sound * 1e30,
        "tiny": sound * 1e-30,
    }


def write(path: Path, X: np.ndarray, units: str = "log2_tpm1") -> None:
    """An h5ad file with a label, a donor and a study."""
    n, p = X.shape
    index = pd.Index([f"s{i}" for i in range(n)])
    obs = pd.DataFrame({"tissue": ["a" if i % 2 else "b" for i in range(n)]}, index)
    obs["study"] = [f"st{i // 8}" for i in range(n)]
    obs["condition"] = ["control" if i % 2 else "case" for i in range(n)]
    var = pd.DataFrame(index=[f"g{j}" for j in range(p)])
    with np.errstate(over="ignore"):
        made = anndata.AnnData(X.astype(np.float32), obs, var)
    made.uns["units"] = units
    made.write_h5ad(path)


def make_world(folder: Path) -> None:
    """Sound files, a model and a head on them, and the odd files."""
    (folder / "small.json").write_text('{"n_latent": 2, "hidden": [4], "epochs": 2}')
    write(folder / "sound.h5ad", make_levels(np.random.default_rng(1)))
    write(folder / "holdout.h5ad", make_levels(np.random.default_rng(2)))
    write(folder / "isoforms.h5ad", make_levels(np.random.default_rng(3)))
    for name, X in make_odd(np.random.default_rng(0)).items():
        write(folder / f"{name}.h5ad", X)
        counts = np.rint(np.exp2(np.minimum(X, 120)) - 1).clip(0)
        write(folder / f"{name} counts.h5ad", counts, "counts")
    fit = ["fit", "--x", "sound.h5ad", "--label", "tissue", "--encoder", "run", *HEAD]
    for arguments in (
        ["train", "sound.h5ad", "--out", "run", *LIGHT],
        [*fit, "--out", "head"],
        ["generate", "run", "-n", "20", "--out", "made.h5ad"],
    ):
        if run(["-q", *arguments]) != 0:
            raise SystemExit(f"the world could not be made: {arguments}")


def make_cases(name: str) -> dict[str, list[list[str]]]:
    """What is run on one odd file: lines of commands, each on what the one before has made."""
    odd, counts = f"{name}.h5ad", f"{name} counts.h5ad"
    train = ["train", odd, "--out", "new", *LIGHT]
    out = ["--out", "out.h5ad"]
    crossval = ["crossval", "--folds", "2", "--group", "none", "--out", "cv", *HEAD]
    fold = ["--encoder", "vae=fold:small.json"]
    quality = ["quality", "--out", "q", "--resamples", "5"]
    return {
        "train": [train, ["generate", "new", "-n", "5", *out], ["score", "new", "sound.h5ad",
                  "--out", "s.h5ad"], ["loadings", "new", "--out", "loadings"],
                  ["plot", "history", "new", "--out", "p.png"]],
        "train, normal scores": [[*train, "--transform", "normal_score"]],
        "train, hurdle": [[*train, "--likelihood", "hurdle_gaussian"]],
        "train, counts": [["train", counts, "--out", "new", *LIGHT, "--transform", "none",
                           "--likelihood", "negative_binomial"],
                          ["generate", "new", "-n", "5", *out]],
        "train, normalized": [["train", counts, "--out", "new", *LIGHT, "--normalize", "total",
                               "--target-sum", "1e4", "--log2p1"]],
        "encode": [["encode", "run", odd, *out], ["cluster", "out.h5ad", "--out", "c.h5ad"],
                   ["map", "out.h5ad", "--out", "m.h5ad"]],
        "map, pca": [["map", "run", odd, "--method", "pca", *out]],
        "reconstruct": [["reconstruct", "run", odd, *out]],
        "impute": [["impute", "run", odd, *out]],
        "score": [["score", "run", odd, *out]],
        "interpolate": [["interpolate", "run", odd, "--from", "s0", "--to", "s1", *out]],
        "cluster": [["cluster", "run", odd, "--label", "tissue", *out]],
        "generate": [["generate", "run", "-n", "5", "--data", odd, *out]],
        "inspect": [["inspect", odd]],
        "split": [["split", odd, "--out", "parts"]],
        "convert": [["convert", counts, "out.h5ad", "--normalize", "total", "--log2p1"]],
        "crossval of labels": [[*crossval, "--x", odd, "--label", "tissue", *fold]],
        "crossval of levels": [[*crossval, "--x", "sound.h5ad", "--y", odd, *fold]],
        "crossval of itself": [[*crossval, "--x", odd, "--y", odd, "--encoder", "vae=run"]],
        "fit": [["fit", "--x", odd, "--label", "tissue", "--encoder", "run", *HEAD, "--out",
                 "new"], ["predict", "new", "sound.h5ad", *out]],
        "fit of levels": [["fit", "--x", "sound.h5ad", "--y", odd, "--encoder", "run", *HEAD,
                           "--out", "new"], ["predict", "new", "sound.h5ad", *out]],
        "predict": [["predict", "head", odd, *out]],
        "evaluate": [["evaluate", "head", "--x", odd, "--label", "tissue", "--out", "eval"]],
        "quality of real": [[*quality, "--real", odd, "--synthetic", "made.h5ad", "--holdout",
                             "holdout.h5ad"]],
        "quality of synthetic": [[*quality, "--real", "sound.h5ad", "--synthetic", odd, "--holdout",
                                  "holdout.h5ad", "--label", "tissue", "--rivals"]],
        "quality of holdout": [[*quality, "--real", "sound.h5ad", "--synthetic", "made.h5ad",
                                "--holdout", odd]],
        "sweep": [["sweep", odd, "--neurons", "2,3", "--epochs", "2", "--out", "sweep"]],
        "sweep in folds": [["sweep", odd, "--neurons", "2", "--epochs", "2", "--folds", "2",
                            "--group", "none", "--out", "sweep"]],
        "contrasts": [["contrasts", counts, *out]],
    }  # fmt: skip


def find_not_finite(folder: Path, before: set[str]) -> list[str]:
    """Matrices among new files that hold numbers which are not finite."""
    found = []
    for path in sorted(folder.rglob("*.h5ad")):
        name = str(path.relative_to(folder))
        if name in before:
            continue
        data = anndata.read_h5ad(path)
        X = data.X.toarray() if hasattr(data.X, "toarray") else data.X
        if X is not None and not np.isfinite(X).all():
            found.append(name)
    return found


def judge(folder: Path, code: int, before: set[str]) -> str:
    """What is wrong with how a command ended; empty where nothing is."""
    said = (folder / "stderr").read_text(errors="replace")
    if code not in (0, 1):
        return f"exit {code}: {said[-700:]}"
    odd = [line for line in said.splitlines() if "RuntimeWarning" in line]
    if odd:
        return f"exit {code}: {odd}"
    errors = [line for line in said.splitlines() if line.startswith("m1pipe: error")]
    if code == 1 and (len(errors) != 1 or "Traceback" in said):
        return f"not one line: {said[-700:]}"
    if any("another place" in line or "make it again" in line for line in errors):
        return f"a false remedy: {errors}"
    found = find_not_finite(folder, before) if code == 0 and "infinite" not in said else []
    return f"not finite: {', '.join(found)}" if found else ""


def run_all(
    folder: Path, only: list[str] | None = None, commands: list[str] | None = None
) -> dict[str, Any]:
    """Every command on every odd file, or some on some."""
    world = build_world(folder, make_world)
    told: dict[str, dict[str, str]] = {}
    wrong = []
    for name in only or list(make_odd(np.random.default_rng(0))):
        for command, lines in make_cases(name).items():
            if commands and command not in commands:
                continue
            here = copy(world, folder)
            for line in lines:
                before = {str(path.relative_to(here)) for path in here.rglob("*")}
                code, _ = in_child(lambda line=line: run(["-q", *line]), here)
                why = judge(here, code, before)
                said = (here / "stderr").read_text(errors="replace").strip().splitlines()
                told.setdefault(name, {})[f"{command}: {line[0]}"] = f"{code}: {' | '.join(said)}"
                if why:
                    wrong.append({"data": name, "case": command, "line": line, "why": why})
                    print(json.dumps(wrong[-1]), flush=True)
                if code != 0:
                    break
    return {"wrong": wrong, "said": told}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="what is odd")
    parser.add_argument("--command", action="append", help="a case")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = run_all(Path(temporary), chosen.only, chosen.command)
    facts = {"m1pipe": m1pipe.__version__, "python": platform.python_version()}
    if chosen.out is not None:
        chosen.out.write_text(json.dumps({**facts, **found}, indent=2) + "\n")
    n = sum(map(len, found["said"].values()))
    print(f"{n} commands, {len(found['wrong'])} wrong")
    if found["wrong"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
