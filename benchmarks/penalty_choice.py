"""Log loss on new samples by how many missed rows are assumed when a penalty is chosen.

    M1PIPE_TEST_DATA=FOLDER python benchmarks/penalty_choice.py --out penalty_choice.json

Few labels are drawn; logistic regression on the genes and on 32 PCA scores of all samples is fitted
to them and tested on a fifth of the samples or groups. 0 missed rows is the log loss of inner folds
alone. Every draw is fitted by each rule.
"""

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from m1pipe.heads import inner_folds
from m1pipe.heads.features import Scale, fit_features
from m1pipe.heads.logistic import fit_logistic
from m1pipe.models.pca import fit_pca

MISSED = (0.0, 0.25, 0.5, 1.0)
LEAST_OF_CLASS = 8  # samples of either class in a study


@dataclass(frozen=True)
class LabelledSet:
    """Genes on a log scale, class codes, groups that are not cut, sizes to draw."""

    name: str
    X: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    sizes: tuple[int, ...]
    scores: np.ndarray


def main() -> None:
    args = _parse()
    rows = [row for one in sets(Path(os.environ["M1PIPE_TEST_DATA"])) for row in compare(one, args)]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="%.3f"))
    if args.out:
        Path(args.out).write_text(json.dumps({"draws": args.draws, "rows": rows}, indent=1) + "\n")


def compare(one: LabelledSet, args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Mean log loss of every number of labels, input and rule."""
    inputs: tuple[tuple[str, np.ndarray, Scale], ...] = (
        ("genes", one.X, "each"),
        ("PCA", one.scores, "one"),
    )
    for n in one.sizes:
        for name, X, scale in inputs:
            drawn = [loss for draw in range(args.draws) for loss in _losses(one, X, scale, n, draw)]
            losses = np.array(drawn)
            row: dict[str, object] = {"set": one.name, "inputs": name, "labels": n}
            row |= {f"missed {m:g}": float(v) for m, v in zip(MISSED, losses.mean(0), strict=True)}
            error = (losses[:, MISSED.index(0.5)] - losses[:, 0]).std(ddof=1) / np.sqrt(len(losses))
            yield {**row, "error of 0.5 - 0": float(error), "draws": len(losses)}


def _losses(one: LabelledSet, X: np.ndarray, scale: Scale, n: int, draw: int) -> list[list[float]]:
    """Log loss by each rule of one draw; none where a single class is drawn."""
    rng = np.random.default_rng(draw)
    names = rng.permutation(np.unique(one.groups))
    is_test = np.isin(one.groups, names[: max(1, len(names) // 5)])
    train, test = rng.permutation(np.flatnonzero(~is_test))[:n], np.flatnonzero(is_test)
    if np.unique(one.y[train]).size < 2:
        return []
    n_classes = int(one.y.max()) + 1
    kind = "binary" if n_classes == 2 else "multiclass"
    features, _, rotation = fit_features(X[train], scale)
    found = []
    for missed in MISSED:
        inner_folds.MISSED_ROWS = missed
        fit = fit_logistic(
            rotation,
            one.y[train],
            kind=kind,
            n_classes=n_classes,
            groups=one.groups[train],
            seed=draw,
        )
        p = fit.predict(features.apply(X[test], np.float64))[np.arange(test.size), one.y[test]]
        found.append(float(-np.log(np.maximum(p, 1e-12)).mean()))
    return [found]


def sets(folder: Path) -> Iterator[LabelledSet]:
    """Studies of tuberculosis, two of arrays, cancers, cells."""
    genes, labels = _read(folder / "tb_blood_rnaseq")
    X = np.log2(1 + 1e6 * genes / genes.sum(1, keepdims=True)).astype(np.float32)
    scores = _pca(X)
    sick = (labels["status"] == "tuberculosis").to_numpy()
    for study in labels["study"].unique():
        own = (labels["study"] == study).to_numpy()
        if min(sick[own].sum(), (~sick[own]).sum()) >= LEAST_OF_CLASS:
            groups = labels["patient"][own].astype(str).to_numpy()
            y = sick[own].astype(int)
            yield LabelledSet(f"tuberculosis {study}", X[own], y, groups, (16, 32), scores[own])
    for name, floor, sizes in (("golub", 20, (16, 30, 57)), ("singh", 10, (20, 40, 81))):
        genes, labels = _read(folder / f"dma_{name}")
        X = np.log2(1 + np.maximum(genes, floor)).astype(np.float32)
        y = pd.Categorical(labels["status"]).codes.astype(int)
        yield LabelledSet(name, X, y, np.arange(len(y)), sizes, _pca(X))
    genes, labels = _read(folder / "tcga_rnaseq_6cancers")
    X, y = np.log2(1 + genes).astype(np.float32), pd.Categorical(labels["cancer"]).codes.astype(int)
    yield LabelledSet("cancers", X, y, labels["patient"].astype(str).to_numpy(), (24, 60), _pca(X))
    genes, labels = _read(folder / "sc_pbmc_kang12k")
    X = np.log2(1 + 1e4 * genes / np.maximum(genes.sum(1, keepdims=True), 1)).astype(np.float32)
    y = pd.Categorical(labels["cell_type"]).codes.astype(int)
    yield LabelledSet("cells", X, y, labels["donor"].astype(str).to_numpy(), (60, 300), _pca(X))


def _read(folder: Path) -> tuple[np.ndarray, pd.DataFrame]:
    genes = pd.read_csv(folder / "genes.tsv.gz", sep="\t", index_col=0)
    labels = pd.read_csv(folder / "labels.tsv", sep="\t", index_col=0)
    return genes.to_numpy(np.float64), labels.loc[genes.index]


def _pca(X: np.ndarray) -> np.ndarray:
    """32 scores of standardised genes, of all samples: they know no label."""
    Z = (X - X.mean(0)) / np.maximum(X.std(0), 0.1)
    scores: np.ndarray = fit_pca(lambda: [Z], 32).scores(Z).astype(np.float32)
    return scores


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=15)
    parser.add_argument("--out")
    return parser.parse_args()


if __name__ == "__main__":
    main()
