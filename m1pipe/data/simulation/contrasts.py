"""Simulated studies of counts, cases against controls, with planted programmes of genes.

Every case condition turns on a few of the programmes, up or down, each a set of genes that stands
in the file of gene sets; as many sets beside them are never turned on. Counts are negative
binomial, with a dispersion that falls with the mean and a library size a sample.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from m1pipe import seeds
from m1pipe.atomic import atomic_folder, refuse_folder, write_text
from m1pipe.data.units import Units
from m1pipe.io.writer import write_matrix
from m1pipe.settings import check_at_least, check_choice, setting

Size = Literal["tiny", "small", "medium"]
SIZES = {"tiny": (12, 400), "small": (60, 1000), "medium": (300, 6000)}  # studies, genes
WHAT = "a simulation"
FILES = ("counts.h5ad", "design.tsv", "gene_sets.gmt", "truth.tsv")
N_PROGRAMMES, GENES_A_SET = 20, 30
N_REPLICATES = (3, 6)
DEPTH = 2e6
RUNS_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class ContrastsSimulation:
    """Options of `m1pipe simulate contrasts`.

    Attributes
    ----------
    size : str
        "tiny", "small" or "medium".
    effect : float
        Mean size of a programme's log2 fold change.
    seed : int
        At least 0; the same settings give the same files.
    """

    size: Size = setting("small", "12 studies x 400 genes, 60 x 1,000 or 300 x 6,000.")
    effect: float = setting(1.5, "Mean log2 fold change of a programme.")
    seed: int = setting(0, "Of all drawn.")

    def __post_init__(self) -> None:
        check_choice("--size", self.size, Size)
        check_at_least("effect", self.effect, 0)
        check_at_least("seed", self.seed, 0)


@dataclass(frozen=True, eq=False)
class ContrastsTruth:
    """What is planted.

    Attributes
    ----------
    sets : ndarray of int64, shape (2 * N_PROGRAMMES, GENES_A_SET)
        Genes of each set; only the first half are ever turned on.
    level : ndarray, shape (n_genes,)
        Share of each gene in a library.
    dispersion : ndarray, shape (n_genes,)
        Variance is mean + dispersion * mean**2.
    activity : ndarray, shape (n_studies, N_PROGRAMMES)
        log2 fold change of a programme's genes in the case condition.
    """

    sets: np.ndarray
    level: np.ndarray
    dispersion: np.ndarray
    activity: np.ndarray

    def fold_changes(self) -> np.ndarray:
        """True log2 fold changes, shape (n_studies, n_genes)."""
        folds = np.zeros((len(self.activity), self.level.size))
        for programme, genes in enumerate(self.sets[:N_PROGRAMMES]):
            folds[:, genes] += self.activity[:, [programme]]
        return folds


def plant_contrasts(config: ContrastsSimulation) -> ContrastsTruth:
    """Plant the truth of one seed and size."""
    rng = seeds.rng(config.seed, seeds.CONTRASTS_TRUTH)
    n_studies, n_genes = SIZES[config.size]
    level = rng.lognormal(0, 1.5, n_genes)
    sets = [rng.choice(n_genes, GENES_A_SET, replace=False) for _ in range(2 * N_PROGRAMMES)]
    on = rng.random((n_studies, N_PROGRAMMES)) < 2.5 / N_PROGRAMMES
    size = rng.gamma(8, config.effect / 8, on.shape) * rng.choice([-1, 1], on.shape)
    means = level / level.mean() * DEPTH / n_genes
    return ContrastsTruth(
        sets=np.array(sets),
        level=level / level.sum(),
        dispersion=0.02 + 2 / means.clip(1),
        activity=np.where(on, size, 0.0),
    )


def simulate_contrasts(
    out: str | os.PathLike[str], config: ContrastsSimulation, *, force: bool = False
) -> Path:
    """Write counts.h5ad, design.tsv, gene_sets.gmt and truth.tsv.

    The design has the columns study, condition, experiment and batch: some experiments were
    sequenced in two runs. The truth says which sets are turned on in which contrast.

    Parameters
    ----------
    out : path
        Folder to make.
    config : ContrastsSimulation
    force : bool
        Replace an earlier simulation in `out`.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If the folder holds anything else.
    """
    out = refuse_folder(out, FILES, what=WHAT, force=force)
    truth = plant_contrasts(config)
    genes = [f"G{j + 1:05d}" for j in range(truth.level.size)]
    counts, design = _draw(truth, seeds.rng(config.seed, seeds.CONTRASTS_COUNTS))
    with atomic_folder(out, FILES, what=WHAT, force=force) as folder:
        write_matrix(
            folder / "counts.h5ad", counts, obs=design, var=pd.DataFrame(index=genes),
            units=Units("counts"),
        )  # fmt: skip
        write_text(folder / "design.tsv", design.to_csv(sep="\t", index_label="sample"))
        write_text(folder / "gene_sets.gmt", _gmt(truth.sets, genes))
        write_text(folder / "truth.tsv", _truth(truth))
    return out


def _draw(truth: ContrastsTruth, rng: np.random.Generator) -> tuple[np.ndarray, pd.DataFrame]:
    """Counts of all runs, and their design."""
    counts, rows = [], []
    for study, change in enumerate(truth.fold_changes()):
        own = rng.normal(0, 0.4, change.size)  # what a study's material has of its own
        for condition, fold in (("control", 0.0), ("case", change)):
            for replicate in range(int(rng.integers(*N_REPLICATES))):
                share = truth.level * np.exp2(own + fold)
                mean = share / share.sum() * DEPTH * rng.lognormal(0, 0.3)
                level = rng.gamma(1 / truth.dispersion, mean * truth.dispersion)
                experiment = f"E{study + 1:03d}_{condition}_{replicate + 1}"
                n_runs = 1 + int(rng.random() < RUNS_SHARE)
                for run in range(n_runs):
                    counts.append(rng.poisson(level / n_runs))
                    rows.append((f"{experiment}_{run + 1}", f"S{study + 1:03d}", condition,
                                 experiment, f"b{replicate % 2 + 1}"))  # fmt: skip
    names = ["sample", "study", "condition", "experiment", "batch"]
    design = pd.DataFrame(rows, columns=names).set_index("sample")
    return np.array(counts, dtype=np.float32), design


def _set_name(i: int) -> str:
    return f"programme_{i + 1}" if i < N_PROGRAMMES else f"silent_{i + 1 - N_PROGRAMMES}"


def _gmt(sets: np.ndarray, genes: list[str]) -> str:
    lines = []
    for i, members in enumerate(sets):
        kind = "turned on in some studies" if i < N_PROGRAMMES else "never turned on"
        lines.append("\t".join([_set_name(i), kind, *(genes[j] for j in members)]))
    return "\n".join(lines) + "\n"


def _truth(truth: ContrastsTruth) -> str:
    names = [_set_name(i) for i in range(N_PROGRAMMES)]
    index = [f"S{study + 1:03d}:case" for study in range(len(truth.activity))]
    return pd.DataFrame(truth.activity.round(4), index=index, columns=names).to_csv(
        sep="\t", index_label="contrast"
    )
