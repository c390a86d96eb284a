"""Small files under the names that the documentation's examples use.

All of them are of one simulation, 120 labelled and 300 unlabelled samples, so that any of them
fits any other; values that an example calls counts, intensities or fold changes are only that
by name.
"""

import gzip
import io
import re
import shutil
import zipfile
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy import sparse, stats
from scipy.io import mmwrite

from m1pipe.data.simulation.contrasts import ContrastsSimulation, simulate_contrasts
from m1pipe.data.simulation.m1 import simulate_m1

TISSUES = ("Liver", "Lung", "Brain", "B", "NK", "Blood")
SETTINGS = {
    "ae.toml": "beta = 0.0\n",
    "ae50.toml": "beta = 0.0\nn_latent = 50\n",
    "vae50.toml": "n_latent = 50\n",
    "relu.toml": "beta = 0.0\nlatent_activation = 'relu'\nlinear_skip = false\n",
    "sg_ae.toml": "beta = 0.0\nn_latent = 10\n",
    "sg_vae.toml": "n_latent = 10\n",
    "space.toml": "lr = {low = 1e-4, high = 1e-2, log = true}\nhidden = [[], [16]]\n",
}
QUEUE = """#!/bin/bash
cat >/dev/null
[[ $0 == *bsub ]] && echo "Job <7> is submitted to queue <hpc>." || echo 7
"""


def make_sources(folder: Path, study: Path) -> None:
    """Write text and HDF5 files as a user has them before anything was run."""
    simulate_m1(folder / "sim", size="tiny", seed=3, n_genes=300)
    names = {"GENE001": "TP53", "GENE002": "MYC"}
    parts = {}
    for name in ("genes", "unlabelled", "isoforms"):
        parts[name] = anndata.read_h5ad(folder / f"sim/{name}.h5ad")
        kind = "u" if name == "unlabelled" else "s"
        parts[name].obs_names = [f"{kind}{i + 1}" for i in range(parts[name].n_obs)]
        parts[name].var_names = [names.get(gene, gene) for gene in parts[name].var_names]
    shutil.rmtree(folder / "sim")
    genes, isoforms = parts["genes"], parts["isoforms"][:, :200]
    genes.obs = labels(genes.obs)
    _counts(genes).to_csv(folder / "genes.tsv.gz", sep="\t", index_label="sample")
    _counts(isoforms).to_csv(folder / "isoforms.tsv.gz", sep="\t", index_label="sample")
    unlabelled = _counts(parts["unlabelled"])
    unlabelled.to_csv(folder / "genes_unlabeled.tsv.gz", sep="\t", index_label="sample")
    for name in ("labels", "alike", "same", "tcga_labels"):
        genes.obs.to_csv(folder / f"{name}.tsv", sep="\t", index_label="sample")
    tissues = pd.DataFrame(index=unlabelled.index)
    tissues["tissue"] = tissues["cell_type"] = np.resize(TISSUES, len(unlabelled))
    tissues.to_csv(folder / "labels_unlabeled.tsv", sep="\t", index_label="sample")
    source = isoforms.var["gene_id"].astype(str).replace(names)
    pairs = pd.DataFrame({"transcript": isoforms.var_names, "gene": source.to_numpy()})
    pairs.to_csv(folder / "tx2gene.tsv", sep="\t", index=False)
    for name, text in SETTINGS.items():
        (folder / name).write_text(text)
    whole = study.read_text(encoding="utf-8")
    (folder / "study.toml").write_text(whole[: whole.index("[jobs]")])
    _write_matrices(folder, genes, isoforms)
    _write_contrasts(folder, genes)
    _write_quants(folder / "quants", _counts(isoforms).iloc[:6])
    _write_formats(folder, _counts(genes).iloc[:40])


def _write_quants(folder: Path, counts: pd.DataFrame) -> None:
    """A folder of salmon, one run a sample."""
    for sample, row in counts.iterrows():
        table = pd.DataFrame({"Name": row.index, "Length": 1000, "EffectiveLength": 850.5})
        table["TPM"] = (1e6 * row / row.sum()).to_numpy()
        table["NumReads"] = row.to_numpy()
        (folder / str(sample)).mkdir(parents=True)
        table.to_csv(folder / str(sample) / "quant.sf", sep="\t", index=False)


def labels(obs: pd.DataFrame) -> pd.DataFrame:
    """Every column of labels that an example names, in some relation to tissue and donor."""
    code = pd.factorize(obs["tissue"])[0]
    donor = obs["donor"].astype(str).to_numpy()
    rng = np.random.default_rng(0)
    tissue = np.array(TISSUES)[code]
    columns = {
        "tissue": tissue,
        "cell_type": tissue,
        "cancer": tissue,
        "donor": donor,
        "patient": np.array([f"TCGA-{name}" for name in donor]),
        "source": np.array(["tcga_rnaseq", "ovary", "colon", "bladder"])[np.arange(len(code)) % 4],
        "individual": donor,
        "alike": donor,
        "signature": donor,
        "study": np.array(["Cheung", "Montgomery", "Pickrell"])[pd.factorize(donor)[0] % 3],
        "population": np.where(pd.factorize(donor)[0] % 3 == 2, "YRI", "CEU"),
        "status": np.where((code + rng.integers(0, 2, len(code))) % 2, "case", "control"),
        "sample_type": np.where(rng.random(len(code)) < 0.2, "normal", "tumour"),
        "condition": np.array(["a", "b", "c", "d"])[np.arange(len(code)) % 4],
        "line": np.array([f"l{i}" for i in range(6)])[pd.factorize(donor)[0] % 6],
        "gender": np.array(["female", "male"])[pd.factorize(donor)[0] // 3 % 2],
        "age": rng.uniform(20, 80, len(code)),
    }
    return pd.DataFrame(columns, index=obs.index)


def _counts(data: anndata.AnnData) -> pd.DataFrame:
    frame = data.to_df()
    tpm = np.exp2(frame) - 1
    return (tpm.mul(1e5 / tpm.sum(axis=1), axis=0)).round().astype(int)


def _log_share(data: anndata.AnnData) -> pd.DataFrame:
    counts = _counts(data)
    return np.log2(1 + counts.mul(1e4 / counts.sum(axis=1), axis=0)).astype(np.float32)


def _write_matrices(folder: Path, genes: anndata.AnnData, isoforms: anndata.AnnData) -> None:
    """Log levels of a cohort; of an outside set counts, and the levels that they go with."""
    genes.write_h5ad(folder / "cohort.h5ad")
    genes.write_h5ad(folder / "pbmc3000.h5ad")
    gtex = genes.copy()
    gtex.obs_names = [f"GTEX-{donor}-{i}" for i, donor in enumerate(genes.obs["donor"])]
    gtex.write_h5ad(folder / "gtex.h5ad")
    _counts(genes).to_csv(folder / "x.csv")
    others = [f"other{i}" for i in range(60)]
    counts = _counts(genes)[:60].set_axis(others).astype(np.float32)
    outside = anndata.AnnData(counts, obs=genes.obs[:60].set_axis(others), uns={"units": "counts"})
    for name in ("new", "other", "other_x"):
        outside.write_h5ad(folder / f"{name}.h5ad")
    elsewhere = "t" + genes.obs["donor"].astype(str)
    studies = anndata.AnnData(
        np.maximum(_log_share(genes) + np.random.default_rng(1).normal(0, 1, genes.shape), 0),
        obs=genes.obs.assign(donor=elsewhere, patient=elsewhere, individual=elsewhere),
        uns={"units": "log2_normalized1", "target_sum": 1e4},
    )
    studies.obs_names = [f"t{i}" for i in range(studies.n_obs)]
    studies.write_h5ad(folder / "studies.h5ad")
    levels = _log_share(isoforms)[:60].set_axis(others)
    scale = {"units": "log2_normalized1", "target_sum": 1e4}
    for name in ("levels", "other_y"):
        anndata.AnnData(levels, uns=scale).write_h5ad(folder / f"{name}.h5ad")
    gaps = anndata.AnnData(_log_share(genes), uns=scale)
    gaps.X[::3, ::5] = np.nan
    gaps.write_h5ad(folder / "gaps.h5ad")


def _write_contrasts(folder: Path, genes: anndata.AnnData) -> None:
    """Counts of studies, their design, and gene sets: planted ones, and genes that go together."""
    simulate_contrasts(folder / "simc", ContrastsSimulation(size="tiny", seed=1))
    counts = anndata.read_h5ad(folder / "simc/counts.h5ad")
    shutil.copy(folder / "simc/design.tsv", folder / "samples.tsv")
    counts.obs["gender"] = np.array(["female", "male"])[np.arange(counts.n_obs) % 2]
    counts.write_h5ad(folder / "counts.h5ad")
    changes = anndata.AnnData(_changes(_counts(genes)), uns={"units": "log_fold_change"})
    changes.layers["padj"] = 2 * stats.norm.sf(2 * np.abs(changes.X))
    changes.obs["study"] = genes.obs["donor"].to_numpy()
    changes.write_h5ad(folder / "changes.h5ad")
    sets = (folder / "simc/gene_sets.gmt").read_text()
    shutil.rmtree(folder / "simc")
    centred = genes.X - genes.X.mean(axis=0)
    for i, direction in enumerate(np.linalg.svd(centred, full_matrices=False)[2][:8]):
        for end, order in (("up", np.argsort(-direction)), ("down", np.argsort(direction))):
            name = f"axis {i} {end}" if i else f"TERM{end.removeprefix('up')}"
            sets += f"{name}\t-\t" + "\t".join(genes.var_names[order[:25]]) + "\n"
    for name in ("go.gmt", "go_bp_2021.gmt"):
        (folder / name).write_text(sets)


def _write_formats(folder: Path, counts: pd.DataFrame) -> None:
    """The same counts as ARCHS4, GCT, DEE2 and 10x write them."""
    _write_archs4(folder, counts)
    gct = counts.T.rename_axis("Name").reset_index()
    gct.insert(1, "Description", gct["Name"])
    head = f"#1.2\n{counts.shape[1]}\t{counts.shape[0]}\n"
    with gzip.open(folder / "gene_tpm.gct.gz", "wt") as file:
        file.write(head + gct.to_csv(sep="\t", index=False))
    samples = pd.DataFrame({"SAMPID": counts.index, "SMTSD": "Liver"})
    samples.to_csv(folder / "SampleAttributesDS.txt", sep="\t", index=False)
    with h5py.File(folder / "hsapiens_se.h5", "w") as file:
        file["bigmatrix"] = counts.to_numpy().T
        file["rownames"], file["colnames"] = list(counts.index), list(counts.columns)
    experiments = [f"SRX{i // 2}" for i in range(len(counts))]
    runs = pd.DataFrame({"run": counts.index, "QC_summary": "PASS", "SRX_accession": experiments})
    runs.to_csv(folder / "hsapiens_metadata.tsv", sep="\t", index=False)
    with zipfile.ZipFile(folder / "Data.zip", "w") as study:
        study.writestr("GeneCountMatrix.tsv", counts.T.to_csv(sep="\t"))
        renamed = runs.rename(columns={"run": "SRR_accession"})
        study.writestr("MetadataSummary.tsv", renamed.to_csv(sep="\t", index=False))
    tenx = folder / "filtered_feature_bc_matrix"
    tenx.mkdir()
    stream = io.BytesIO()
    mmwrite(stream, sparse.coo_matrix(counts.to_numpy().T), field="integer")
    (tenx / "matrix.mtx").write_bytes(stream.getvalue())
    (tenx / "barcodes.tsv").write_text("".join(f"{i}\n" for i in counts.index))
    features = "".join(f"{gene}\t{gene}\tGene Expression\n" for gene in counts.columns)
    (tenx / "features.tsv").write_text(features)


def _write_archs4(folder: Path, counts: pd.DataFrame) -> None:
    n = len(counts)
    with h5py.File(folder / "human_gene_v2.h5", "w") as file:
        file["data/expression"] = counts.to_numpy(np.uint32).T
        file["meta/genes/symbol"] = list(counts.columns)
        file["meta/genes/ensembl_gene_id"] = [f"ENSG{i:011d}" for i in range(counts.shape[1])]
        file["meta/samples/geo_accession"] = [f"GSM{i}" for i in range(n)]
        file["meta/samples/series_id"] = [f"GSE{i // 8}" for i in range(n)]
        file["meta/samples/source_name_ch1"] = ["Liver", "blood"] * (n // 2)
        file["meta/samples/singlecellprobability"] = np.linspace(0, 0.6, n)
    lengths = pd.DataFrame({"gene": counts.columns, "length": 1000})
    lengths.to_csv(folder / "lengths.tsv", sep="\t", index=False)


def _changes(counts: pd.DataFrame) -> pd.DataFrame:
    levels = np.log2(1 + counts)
    return ((levels - levels.mean()) / levels.std()).astype(np.float32)


def make_fold_changes(folder: Path) -> None:
    """Have genes.tsv.gz hold what goes up and down, in the place of counts."""
    changes = _changes(pd.read_csv(folder / "genes.tsv.gz", sep="\t", index_col=0))
    changes.to_csv(folder / "genes.tsv.gz", sep="\t", index_label="sample")


def make_queues(folder: Path) -> None:
    """Stand-ins of sbatch and bsub, which take a job and give its number."""
    folder.mkdir()
    for name in ("sbatch", "bsub"):
        (folder / name).write_text(QUEUE)
        (folder / name).chmod(0o755)


def without_results(folder: Path, line: str) -> None:
    """Remove what a command would write, as if it were run for the first time."""
    written = re.findall(r"--(?:out|onnx|bundle) (\S+)", line)
    written += re.findall(r"m1pipe convert \S+ (\S+)", line)
    for path in map(folder.joinpath, written):
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
