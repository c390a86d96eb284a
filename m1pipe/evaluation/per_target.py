"""The view by target: each isoform's R2, and which of two models predicts it better, streamed.

Predictions of one model and fold are in memory at a time. What a comparison needs of the others,
the mean loss of every donor (or sample) and target, waits in a temporary file.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from m1pipe.evaluation.compared_models import Pair
from m1pipe.evaluation.folds import Fold, train_mean
from m1pipe.evaluation.metrics import HARDLY_VARIES
from m1pipe.evaluation.significance import benjamini_hochberg

_BLOCK_CELLS = 2**21
ALPHA = 0.05


@dataclass(frozen=True, eq=False)
class TargetSums:
    """Sums over the test samples of one fold, or of several.

    Attributes
    ----------
    sst : ndarray, shape (n_targets,)
        Squared distance from the training means.
    sse : dict of str to ndarray, shape (n_targets,)
        Squared error of every model, the mean over its seeds.
    pairs : dict of (str, str) to ndarray, shape (2, n_targets)
        Sum and sum of squares, over units, of the difference of the units' mean losses.
    n_units : int
        Donors, or samples where donors are not known.
    """

    sst: np.ndarray
    sse: Mapping[str, np.ndarray]
    pairs: Mapping[Pair, np.ndarray]
    n_units: int


class TargetTally:
    """Takes the predictions of one model after the other; owns a temporary file until `close`.

    Parameters
    ----------
    split : Fold
        Of levels.
    values : ndarray of float32, shape (n_test, n_targets)
        Levels of the test rows.
    pairs : sequence of (str, str)
        Models to be compared target by target.
    """

    def __init__(self, split: Fold, values: np.ndarray, pairs: Sequence[Pair]) -> None:
        self.split, self.values, self.pairs = split, values, pairs
        groups = np.arange(split.test.size) if split.groups is None else split.groups[split.test]
        self.unit = pd.factorize(groups)[0]
        self.n_units = int(self.unit.max()) + 1
        self.waiting = {
            model: i for i, model in enumerate(dict.fromkeys(r for p in pairs for r in p))
        }
        shape = (len(self.waiting), self.values.shape[1], self.n_units)
        with tempfile.TemporaryFile() as file:  # the map keeps it until nothing refers to that
            self.means = np.memmap(file, np.float32, shape=shape) if self.waiting else None
        self.sse: dict[str, np.ndarray] = {}
        mean = train_mean(split).astype(np.float32)
        self.sst = np.concatenate(
            [
                ((self.values[:, c] - mean[c]) ** 2).sum(axis=0, dtype=np.float64)
                for c in self._cuts()
            ]
        )

    def add(self, model: str, predictions: Sequence[np.ndarray]) -> None:
        """Take a model's predictions of the test samples, one array a seed.

        Parameters
        ----------
        model : str
        predictions : sequence of ndarray, each of shape (n_test, n_targets)
        """
        total = np.empty(self.values.shape[1])
        for columns in self._cuts():
            true = self.values[:, columns]
            loss = sum((p[:, columns] - true) ** 2 for p in predictions) / len(predictions)
            total[columns] = loss.sum(axis=0, dtype=np.float64)
            if self.means is not None and model in self.waiting:
                self.means[self.waiting[model], columns] = self._unit_means(loss).T
        self.sse[model] = total

    def close(self) -> TargetSums:
        """Compare what was kept, pair by pair, and let the file go."""
        found = {}
        for pair in self.pairs:
            if self.means is None or not all(model in self.sse for model in pair):
                continue
            sums = np.empty((2, self.values.shape[1]))
            for columns in self._cuts():
                a, b = (self.means[self.waiting[model], columns] for model in pair)
                difference = a.astype(np.float64) - b
                sums[:, columns] = difference.sum(axis=1), (difference**2).sum(axis=1)
            found[pair] = sums
        self.means = None
        return TargetSums(self.sst, self.sse, found, self.n_units)

    def _cuts(self) -> list[slice]:
        width = max(1, _BLOCK_CELLS // max(1, len(self.values)))
        return [slice(s, s + width) for s in range(0, self.values.shape[1], width)]

    def _unit_means(self, loss: np.ndarray) -> np.ndarray:
        if self.n_units == len(loss):
            return loss
        sums = np.zeros((self.n_units, loss.shape[1]), dtype=loss.dtype)
        np.add.at(sums, self.unit, loss)
        return np.asarray(sums / np.bincount(self.unit)[:, None].astype(loss.dtype))


def add_sums(parts: Sequence[TargetSums]) -> TargetSums:
    """Sums over several folds."""
    return TargetSums(
        sst=np.sum([part.sst for part in parts], axis=0),
        sse={model: np.sum([p.sse[model] for p in parts], axis=0) for model in parts[0].sse},
        pairs={pair: np.sum([p.pairs[pair] for p in parts], axis=0) for pair in parts[0].pairs},
        n_units=sum(part.n_units for part in parts),
    )


def target_table(
    names: Sequence[str], genes: Sequence[str] | None, every: TargetSums, once: TargetSums
) -> pd.DataFrame:
    """One row a target: its gene, its R2 by every model, and the pairs with BH's q values.

    Parameters
    ----------
    names : sequence of str
    genes : sequence of str or None
    every : TargetSums
        Over all folds and repeats.
    once : TargetSums
        Over the folds of the first repeat: every donor (or sample) once.

    Returns
    -------
    DataFrame
        target, gene, n_isoforms (of that gene among the targets), sst, varies ("yes", "hardly": sst
        at most `HARDLY_VARIES` of the mean over targets, "no": sst is 0), r2_MODEL = 1 - sse / sst
        (NaN but for "yes": an error of any size is boundless beside next to nothing), and for each
        pair difference_A_B, p_A_B (t-test over donors, or samples; NaN for "no") and q_A_B
        (Benjamini and Hochberg over all targets).
    """
    table = pd.DataFrame({"target": list(names)})
    if genes is not None:
        table["gene"] = list(genes)
        table["n_isoforms"] = table.groupby("gene")["target"].transform("size")
    table["sst"] = every.sst
    varies = every.sst > 0
    clearly = every.sst > HARDLY_VARIES * every.sst.mean()
    table["varies"] = np.select([clearly, varies], ["yes", "hardly"], "no")
    for model, sse in every.sse.items():
        table[f"r2_{model}"] = np.where(clearly, 1 - sse / np.where(clearly, every.sst, 1), np.nan)
    for (a, b), sums in once.pairs.items():
        mean, p = _t_tests(sums[0], sums[1], once.n_units)
        p[~varies] = np.nan
        table[f"difference_{a}_{b}"], table[f"p_{a}_{b}"] = mean, p
        table[f"q_{a}_{b}"] = benjamini_hochberg(p, missing="drop")
    return table


def r2_summary(table: pd.DataFrame, models: Sequence[str]) -> dict[str, object]:
    """R2 by target in short, by numbers that no single target can carry away.

    Parameters
    ----------
    table : DataFrame, shape (n_targets, n_columns)
        From `target_table`.
    models : sequence of str

    Returns
    -------
    dict
        n_targets, and of these n_hardly_vary and n_constant, which have no R2; models, a list of
        dict with model, median and above_zero (share of the targets with an R2).
    """
    lines = []
    for model in models:
        r2 = table[f"r2_{model}"].dropna()
        above = float((r2 > 0).mean()) if len(r2) else np.nan
        lines.append({"model": model, "median": float(r2.median()), "above_zero": above})
    return {
        "n_targets": len(table),
        "n_hardly_vary": int((table["varies"] == "hardly").sum()),
        "n_constant": int((table["varies"] == "no").sum()),
        "models": lines,
    }


def pair_summary(table: pd.DataFrame, pairs: Sequence[Pair]) -> list[dict[str, object]]:
    """For each pair: targets tested, share that the first predicts better, and how many clearly.

    Parameters
    ----------
    table : DataFrame, shape (n_targets, n_columns)
        From `target_table`.
    pairs : sequence of (str, str)

    Returns
    -------
    list of dict
        model_a, model_b, n_targets, improved (share), better and worse (targets with q below
        `ALPHA`).
    """
    found: list[dict[str, object]] = []
    for a, b in pairs:
        difference, q = table[f"difference_{a}_{b}"], table[f"q_{a}_{b}"]
        varies = table["sst"] > 0
        clear = q < ALPHA
        found.append(
            {
                "model_a": a,
                "model_b": b,
                "n_targets": int(varies.sum()),
                "improved": float((difference[varies] < 0).mean()),
                "better": int((clear & (difference < 0)).sum()),
                "worse": int((clear & (difference > 0)).sum()),
            }
        )
    return found


def isoform_classes(table: pd.DataFrame, every: TargetSums) -> list[dict[str, object]]:
    """Pooled R2 of every model over isoforms of genes with several, and of genes with one.

    Parameters
    ----------
    table : DataFrame, shape (n_targets, n_columns)
        From `target_table`.
    every : TargetSums
        Over all folds and repeats.

    Returns
    -------
    list of dict
        model, kind ("several" or "one"), n_targets, r2; empty where genes are not known, and
        without a kind that no target is of.
    """
    if "n_isoforms" not in table.columns:
        return []
    several = (table["n_isoforms"] > 1).to_numpy()
    found: list[dict[str, object]] = []
    for model, sse in every.sse.items():
        for kind, mask in (("several", several), ("one", ~several)):
            total = float(every.sst[mask].sum())
            if not mask.any():
                continue
            r2 = 1 - float(sse[mask].sum()) / total if total > 0 else np.nan
            found.append({"model": model, "kind": kind, "n_targets": int(mask.sum()), "r2": r2})
    return found


def _t_tests(total: np.ndarray, squares: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean difference and two-sided p of a one-sample t-test, from sums over n units."""
    mean = total / n
    if n < 2:
        return mean, np.full(mean.size, np.nan)
    variance = np.maximum(squares - n * mean**2, 0) / (n - 1)
    error = np.sqrt(variance / n)
    flat = error <= 1e-12 * np.maximum(np.abs(mean), 1e-300)
    t = np.where(flat, 0, mean / np.where(flat, 1, error))
    p = 2 * stats.t.sf(np.abs(t), n - 1)
    return mean, np.where(flat, np.where(mean == 0, 1.0, np.nan), p)


def gather_targets(
    names: Sequence[str] | None,
    genes: Sequence[str] | None,
    parts: Sequence[tuple[int, TargetSums | None]],
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The view by target, and what it says in short.

    Parameters
    ----------
    names, genes : sequence of str, or None
        Of the targets.
    parts : sequence of (int, TargetSums or None)
        Repeat and sums of every fold.

    Returns
    -------
    table : DataFrame
        From `m1pipe.evaluation.per_target.target_table`; empty where there is none.
    info : dict
        `r2_by_target` (from `r2_summary`, of all models but the first, the training mean),
        `per_target` (pairs) and `isoforms` (R2 by the number of isoforms), where there are any.
    """
    sums = [(repeat, part) for repeat, part in parts if part is not None]
    if names is None or len(sums) < len(parts):
        return pd.DataFrame(), {}
    every = add_sums([part for _, part in sums])
    once = add_sums([part for repeat, part in sums if repeat == 0])
    table = target_table(names, genes, every, once)
    info: dict[str, Any] = {
        "r2_by_target": r2_summary(table, list(every.sse)[1:]),
        "per_target": pair_summary(table, list(once.pairs)),
    }
    by_kind = isoform_classes(table, every)
    return table, {**info, "isoforms": by_kind} if by_kind else info
