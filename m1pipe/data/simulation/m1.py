"""Simulated M1 data: an unlabelled and a labelled set, written by row blocks beside the truth."""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd

from m1pipe import seeds
from m1pipe.atomic import atomic_folder, refuse_folder
from m1pipe.console import progress
from m1pipe.data.simulation.m1_truth import (
    M1Size,
    M1Truth,
    draw_latent,
    gene_tpm,
    isoform_tpm,
    plant,
    row_generator,
    tissue_expression,
    usage,
)
from m1pipe.data.units import Units, log2p1, to_linear
from m1pipe.errors import InputError
from m1pipe.io.writer import MatrixWriter
from m1pipe.settings import check_choice, setting

_TINY: dict[str, Any] = {"n_organs": 3, "n_tissues": 6, "n_factors": 8, "n_modules": 30}
_PAPER: dict[str, Any] = {"isoforms_per_gene": 156_958 / 18_965, "most_isoforms": 14}
SIZES = {
    "tiny": M1Size(n_unlabelled=300, n_labelled=120, n_genes=60, samples_per_donor=4, **_TINY),
    "small": M1Size(n_unlabelled=2_000, n_labelled=600, n_genes=500),
    "medium": M1Size(n_unlabelled=6_000, n_labelled=600, n_genes=1_000),
    "large": M1Size(n_unlabelled=20_000, n_labelled=3_000, n_genes=5_000, samples_per_donor=12),
    "paper": M1Size(
        n_unlabelled=167_884, n_labelled=17_356, n_genes=18_965, samples_per_donor=18.31, **_PAPER
    ),
}
WHAT = "a simulation"
# Tables of counts, and how deeply their samples are sequenced.
_TEXT = {
    "unlabelled": ("genes_unlabeled.tsv.gz", 2e6),
    "genes": ("genes.tsv.gz", 1e6),
    "isoforms": ("isoforms.tsv.gz", 1e6),
}
_DEPTH_SD = 0.3
_MOST_TEXT = 10**8
M1_FILES = ("unlabelled.h5ad", "genes.h5ad", "isoforms.h5ad", "truth.h5", "README.txt")
M1_TABLES = (*(name for name, _ in _TEXT.values()), "labels.tsv", "tx2gene.tsv")
_UNITS = Units("log2_tpm1")
_BLOCK_BYTES = 2**26


@dataclass(frozen=True, kw_only=True)
class M1Config:
    """Options of `m1pipe simulate m1`.

    Attributes
    ----------
    size : str
        One of `SIZES`.
    seed : int
        At least 0; the same seed and size give the same files.
    n_unlabelled, n_labelled, n_genes : int or None
        Replace those of the size.
    text : bool
        Write counts as tables of text too.
    """

    size: str = "small"
    seed: int = setting(0, "Of all that is drawn.")
    n_unlabelled: int | None = setting(None, "Instead of the size's own.", metavar="N")
    n_labelled: int | None = setting(None, "Instead of the size's own.", metavar="N")
    n_genes: int | None = setting(None, "Instead of the size's own.", metavar="N")
    text: bool = setting(False, "Also write counts as text: genes.tsv.gz and the like.")

    def __post_init__(self) -> None:
        resolve_size(self.size, self.n_unlabelled, self.n_labelled, self.n_genes)
        _check_seed(self.seed)


@dataclass(frozen=True, eq=False)
class M1Samples:
    """Where samples come from, before any value is drawn.

    Attributes
    ----------
    obs : DataFrame, shape (n_samples, n_columns)
        Annotations as written, indexed by sample id.
    tissue : ndarray of int, shape (n_samples,)
    origin : ndarray of int, shape (n_samples,)
        Study of an unlabelled sample, donor of a labelled one.
    """

    obs: pd.DataFrame
    tissue: np.ndarray
    origin: np.ndarray


def simulate_m1(
    out: str | os.PathLike[str],
    size: str | M1Size = M1Config.size,
    seed: int = M1Config.seed,
    *,
    n_unlabelled: int | None = None,
    n_labelled: int | None = None,
    n_genes: int | None = None,
    text: bool = False,
    force: bool = False,
) -> M1Size:
    """Write an unlabelled set, a labelled set with genes and isoforms, and the truth.

    Both sets hold log2(TPM + 1). The unlabelled samples come from studies and are shifted against
    the labelled ones, which come from donors; a donor gives several tissues. Isoforms of a gene
    sum to the gene's TPM. Nothing is held whole, and a sample does not depend on how many are
    made at a time.

    Parameters
    ----------
    out : path
        Folder to make; see `M1_FILES`.
    size : str or M1Size
        One of `SIZES`, or a size of your own.
    seed : int
        At least 0; the same seed and size give the same files.
    n_unlabelled, n_labelled, n_genes : int, optional
        Replace those of the size.
    text : bool
        Write what a sequencing study has too: tables of counts (`M1_TABLES`), samples as rows, of
        other depths in the two sets, labels, and the gene of every isoform.
    force : bool
        Replace an earlier simulation in `out`.

    Returns
    -------
    M1Size
        What was made.

    Raises
    ------
    InputError
        If the size is unknown or impossible, the disk is too small, or `out` exists and is not
        an earlier simulation that `force` allows to replace.
    """
    resolved = resolve_size(size, n_unlabelled, n_labelled, n_genes)
    _check_seed(seed)
    files = (*M1_FILES, *M1_TABLES)
    out = refuse_folder(out, files, what=WHAT, force=force)
    _check_space(out, resolved, text)
    with atomic_folder(out, files, what=WHAT, force=force) as folder:
        truth = plant(resolved, seed)
        unlabelled, labelled = unlabelled_samples(resolved, seed), labelled_samples(resolved, seed)
        latents = {
            "unlabelled": _write_unlabelled(folder, truth, unlabelled, seed),
            "labelled": _write_labelled(folder, truth, labelled, seed),
        }
        with h5py.File(folder / "truth.h5", "w") as file:
            _write_truth(file, truth, resolved, seed)
            for name, samples in (("unlabelled", unlabelled), ("labelled", labelled)):
                file[f"{name}/latents"] = latents[name]
                file[f"{name}/tissue"] = samples.tissue
        (folder / "README.txt").write_text(_readme(resolved, seed, text), encoding="utf-8")
        if text:
            _write_tables(folder, seed)
    return resolved


def resolve_size(
    size: str | M1Size, n_unlabelled: int | None, n_labelled: int | None, n_genes: int | None
) -> M1Size:
    """Size of that name, with the numbers given in place of its own.

    Raises
    ------
    InputError
        If there is no such size, or a number is impossible.
    """
    if isinstance(size, str):
        check_choice("--size", size, tuple(SIZES))
        size = SIZES[size]
    given = {"n_unlabelled": n_unlabelled, "n_labelled": n_labelled, "n_genes": n_genes}
    return dataclasses.replace(size, **{k: v for k, v in given.items() if v is not None})


def _write_unlabelled(folder: Path, truth: M1Truth, samples: M1Samples, seed: int) -> np.ndarray:
    latents = []
    var = pd.DataFrame(index=_gene_names(truth))
    path = folder / "unlabelled.h5ad"
    with MatrixWriter(path, obs=samples.obs, var=var, units=_UNITS) as writer:
        for start, stop in _blocks(len(samples.obs), len(var), "unlabelled samples"):
            z, X = unlabelled_rows(truth, samples, seed, start, stop)
            writer.write(start, X)
            latents.append(z)
    return np.concatenate(latents)


def _write_labelled(folder: Path, truth: M1Truth, samples: M1Samples, seed: int) -> np.ndarray:
    latents = []
    genes, isoforms = pd.DataFrame(index=_gene_names(truth)), _isoform_table(truth)
    obs = samples.obs
    with (
        MatrixWriter(folder / "genes.h5ad", obs=obs, var=genes, units=_UNITS) as gene_writer,
        MatrixWriter(folder / "isoforms.h5ad", obs=obs, var=isoforms, units=_UNITS) as writer,
    ):
        for start, stop in _blocks(len(obs), len(isoforms), "labelled samples"):
            z, X, Y = labelled_rows(truth, samples, seed, start, stop)
            gene_writer.write(start, X)
            writer.write(start, Y)
            latents.append(z)
    return np.concatenate(latents)


def _write_tables(folder: Path, seed: int) -> None:
    """What was simulated as counts, which are Poisson about the levels."""
    for number, (name, (table, depth)) in enumerate(_TEXT.items()):
        rng = seeds.rng(seed, seeds.M1_COUNTS, number)
        data = anndata.read_h5ad(folder / f"{name}.h5ad")
        share = to_linear(np.asarray(data.X, dtype=np.float64), _UNITS)
        total = depth * rng.lognormal(0, _DEPTH_SD, (len(share), 1))
        counts = rng.poisson(share / share.sum(axis=1, keepdims=True) * total)
        frame = pd.DataFrame(counts, index=data.obs_names, columns=data.var_names)
        as_gz: Any = {"method": "gzip", "mtime": 0}
        frame.to_csv(folder / table, sep="\t", index_label="sample", compression=as_gz)
        if name == "isoforms":
            data.obs.to_csv(folder / "labels.tsv", sep="\t", index_label="sample")
            genes = data.var.set_axis(["gene"], axis=1)
            genes.to_csv(folder / "tx2gene.tsv", sep="\t", index_label="transcript")


def _blocks(n_rows: int, n_columns: int, label: str) -> Iterator[tuple[int, int]]:
    """Row ranges of bounded size, under a progress bar."""
    step = max(1, _BLOCK_BYTES // (4 * n_columns))
    with progress(total=n_rows, label=label, unit="samples") as bar:
        for start in range(0, n_rows, step):
            stop = min(start + step, n_rows)
            yield start, stop
            bar.update(stop - start)


def _write_truth(file: h5py.File, truth: M1Truth, size: M1Size, seed: int) -> None:
    file.attrs.update({"seed": seed, "size": json.dumps(dataclasses.asdict(size))})
    for name, value in dataclasses.asdict(truth).items():
        if isinstance(value, np.ndarray):
            file[f"world/{name}"] = value
        else:
            file.attrs[name] = value
    file["tissues/names"] = tissue_names(size)
    file["tissues/latents"] = truth.tissue_latents
    levels = [log2p1(tissue_expression(truth, z)) for z in truth.tissue_latents]
    file["tissues/expression"] = np.stack(levels)
    shares = [usage(truth, z, tissue) for tissue, z in enumerate(truth.tissue_latents)]
    file["tissues/usage"] = np.stack(shares)


def _readme(size: M1Size, seed: int, text: bool) -> str:
    tables = f"{', '.join(M1_TABLES)}: the same as raw counts\n" if text else ""
    return f"""\
Simulated by m1pipe (m1pipe simulate m1), seed {seed}. Not real data.

unlabelled.h5ad  {size.n_unlabelled} samples x {size.n_genes} genes, from {size.n_studies} studies
genes.h5ad       {size.n_labelled} samples x {size.n_genes} genes; tissue, donor
isoforms.h5ad    the same samples x {size.n_isoforms} isoforms; var: gene_id
truth.h5         what was planted: latents of every sample, tissue means, isoform usage, world
{tables}
Units are log2(TPM + 1). A sample's TPM sum to a million times the share of a genome that is
simulated; the isoforms of a gene sum to the gene. The unlabelled samples are shifted against the
labelled ones, as a whole and by study.
"""


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise InputError(f"seed: expected 0 to 2**63 - 1; found {seed}")


def _check_space(out: Path, size: M1Size, text: bool) -> None:
    genes = (size.n_unlabelled + size.n_labelled) * size.n_genes
    levels = genes + size.n_labelled * size.n_isoforms
    if text and levels > _MOST_TEXT:
        raise InputError(
            f"text: expected at most {_MOST_TEXT:,} levels; found {levels:,}: choose a smaller size"
        )
    needed = 8 * levels if text else 4 * levels
    free = shutil.disk_usage(out.parent).free
    if needed > free:
        raise InputError(
            f"{out}: needs {needed / 1e6:,.2f} MB; the disk has {free / 1e6:,.2f} MB left: make "
            "room or choose a smaller --size"
        )


def _gene_names(truth: M1Truth) -> list[str]:
    return numbered("GENE", truth.gene_base.size)


def _isoform_table(truth: M1Truth) -> pd.DataFrame:
    """Gene of every isoform; isoforms are numbered within their gene from 201, as Ensembl's."""
    genes = np.array(_gene_names(truth), dtype=object)[truth.gene_of]
    number = 201 + pd.Series(genes).groupby(genes).cumcount()
    index = [f"{gene}-{i}" for gene, i in zip(genes, number, strict=True)]
    return pd.DataFrame({"gene_id": genes}, index=index)


def unlabelled_samples(size: M1Size, seed: int) -> M1Samples:
    """Samples of the unlabelled set: study by study, each of a few tissues."""
    rng = row_generator(seed, "design", 0)
    shares = rng.dirichlet(np.full(size.n_studies, 2.0))
    study = np.sort(rng.choice(size.n_studies, size.n_unlabelled, p=shares))
    menu = rng.integers(0, size.n_tissues, (size.n_studies, 3))
    menu[:, 0] = np.arange(size.n_studies) % size.n_tissues  # so that none is left out
    tissue = menu[study, rng.integers(0, 3, size.n_unlabelled)]
    obs = pd.DataFrame(
        {"study": _categories(study, numbered("study", size.n_studies))},
        index=numbered("U", size.n_unlabelled),
    )
    return M1Samples(obs, tissue, study)


def labelled_samples(size: M1Size, seed: int) -> M1Samples:
    """Samples of the labelled set: donors in order, a donor gives a tissue at most once."""
    rng = row_generator(seed, "design", 1)
    popularity = rng.dirichlet(np.full(size.n_tissues, 20.0))
    cells = rng.choice(
        size.n_donors * size.n_tissues,
        size.n_labelled,
        replace=False,
        p=np.tile(popularity, size.n_donors) / size.n_donors,
    )
    donor, tissue = np.divmod(np.sort(cells), size.n_tissues)
    donors = _categories(donor, numbered("D", size.n_donors))
    tissues = _categories(tissue, tissue_names(size))
    index = [f"{d}_{t}" for d, t in zip(donors, tissues, strict=True)]
    return M1Samples(pd.DataFrame({"tissue": tissues, "donor": donors}, index=index), tissue, donor)


def unlabelled_rows(
    truth: M1Truth, samples: M1Samples, seed: int, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray]:
    """Samples start to stop of the unlabelled set: latents (n, n_factors) and X (n, n_genes).

    X is log2(TPM + 1), the batch shift included; both are float32.
    """
    latents, X = _empty(truth, stop - start)
    for i, row in enumerate(range(start, stop)):
        rng = row_generator(seed, "unlabelled", row)
        latents[i] = draw_latent(truth.tissue_latents[samples.tissue[row]], rng)
        shift = truth.platform + truth.studies[samples.origin[row]]
        X[i] = log2p1(gene_tpm(truth, latents[i], rng, shift))
    return latents, X


def labelled_rows(
    truth: M1Truth, samples: M1Samples, seed: int, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples start to stop of the labelled set: latents (n, n_factors), X (n, n_genes), Y.

    X and Y (n, n_isoforms) are log2(TPM + 1); all are float32.
    """
    latents, X = _empty(truth, stop - start)
    Y = np.empty((stop - start, truth.gene_of.size), dtype=np.float32)
    for i, row in enumerate(range(start, stop)):
        rng = row_generator(seed, "labelled", row)
        tissue, donor = samples.tissue[row], samples.origin[row]
        latents[i] = draw_latent(truth.tissue_latents[tissue] + truth.donor_latents[donor], rng)
        genes = gene_tpm(truth, latents[i], rng)
        X[i] = log2p1(genes)
        Y[i] = log2p1(isoform_tpm(truth, latents[i], tissue, genes, rng))
    return latents, X, Y


def _empty(truth: M1Truth, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Room for latents and genes of n samples."""
    widths = truth.tissue_latents.shape[1], truth.gene_base.size
    return np.empty((n, widths[0]), dtype=np.float32), np.empty((n, widths[1]), dtype=np.float32)


def numbered(prefix: str, n: int) -> list[str]:
    """Names from 1 on, padded with zeros to one length."""
    return [f"{prefix}{i:0{len(str(n))}d}" for i in range(1, n + 1)]


def tissue_names(size: M1Size) -> list[str]:
    """Names of the tissues, which say the organ."""
    return [f"organ{t % size.n_organs + 1}_tissue{t + 1:02d}" for t in range(size.n_tissues)]


def _categories(codes: np.ndarray, names: list[str]) -> pd.Categorical:
    return pd.Categorical(np.array(names, dtype=object)[codes], categories=pd.Index(names))
