"""Halves share no sample and no subject, and planted programmes are predicted across them."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m1pipe import cross_validate
from m1pipe.cli.main import run
from m1pipe.config import CrossvalConfig
from m1pipe.contrasts.design import deal_halves

CELLS = st.tuples(st.sampled_from("AB"), st.sampled_from(["control", "case", "drug"]))


def _run(*arguments: object) -> int:
    return run(["-q", *map(str, arguments)])


def _table(rows: list[tuple[str, str, str]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["study", "condition", "subject"])
    return table.set_axis([f"s{i}" for i in range(len(table))])


@settings(deadline=None)
@given(st.lists(st.tuples(CELLS, st.integers(0, 8)), min_size=1, max_size=60), st.integers(0, 99))
def test_subjects_are_in_one_half_whatever_they_have(rows, seed) -> None:
    table = _table([(study, condition, f"p{subject}") for (study, condition), subject in rows])
    half = deal_halves(table, seed)
    assert set(half) <= {1, 2}
    assert (pd.Series(half).groupby(table["subject"].to_numpy()).nunique() == 1).all()
    assert np.array_equal(half, deal_halves(table, seed))


def test_each_condition_is_shared_out_alike() -> None:
    sizes = {("A", "control"): 5, ("A", "case"): 4, ("B", "control"): 7, ("B", "case"): 2}
    rows = [(*cell, f"{cell}{i}") for cell, n in sizes.items() for i in range(n)]
    table = _table(rows)
    seen = set()
    for seed in range(20):
        half = deal_halves(table, seed)
        seen.add(tuple(half))
        counts = pd.crosstab([table["study"], table["condition"]], half)
        assert (abs(counts[1] - counts[2]) <= 1).all()
    assert len(seen) == 20


def test_pairs_stay_together_and_are_shared_out() -> None:
    rows = [("A", c, f"p{i}") for i in range(6) for c in ("control", "case")]
    table = _table([*rows, *(("A", "control", f"q{i}") for i in range(5))])
    for seed in range(10):
        counts = pd.crosstab(table["condition"], deal_halves(table, seed))
        assert counts.loc["case"].tolist() == [3, 3]
        assert abs(counts.loc["control", 1] - counts.loc["control", 2]) <= 1


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Contrasts of both halves of sixty simulated studies, and the gene sets in each."""
    pytest.importorskip("inmoose", reason="inmoose (extra limma) is not installed")
    folder = tmp_path_factory.mktemp("halves")
    sim, a, b = folder / "sim", folder / "a.h5ad", folder / "b.h5ad"
    options = ["--size", "small", "--seed", 5]
    assert _run("simulate", "contrasts", "--out", sim, *options) == 0
    anndata.read_h5ad(sim / "counts.h5ad")[:, :500].write_h5ad(folder / "counts.h5ad")
    rest = ["--experiment", "experiment", "--unexpressed", "zero", "--min-samples", 1]
    assert _run("contrasts", folder / "counts.h5ad", *rest, "--out", a, "--held-out", b) == 0
    for name in "ab":
        sets = ["--gene-sets", sim / "gene_sets.gmt", "--direction", "up"]
        out = ["--min-prevalence", 0.08, "--out", folder / f"go_{name}.h5ad"]
        assert _run("enrich", folder / f"{name}.h5ad", *sets, *out) == 0
    return folder


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.slow
def test_the_files_have_the_same_contrasts_and_no_sample_in_common(halves: Path) -> None:
    a, b = (anndata.read_h5ad(halves / f"{name}.h5ad") for name in "ab")
    assert a.obs_names.tolist() == b.obs_names.tolist() and 50 < a.n_obs <= 60
    design = pd.read_csv(halves / "sim" / "design.tsv", sep="\t", index_col=0)
    for name in a.obs_names:
        ids = [part.obs.loc[name, "samples"].split(";") for part in (a, b)]
        experiments = [set(design.loc[mine, "experiment"]) for mine in ids]
        assert not experiments[0] & experiments[1]
        study = design[design["study"] == name.split(":")[0]]
        assert experiments[0] | experiments[1] == set(study["experiment"])
        assert len(experiments[0]) == a.obs.loc[name, ["n_case", "n_control"]].sum()
    assert a.uns["m1pipe"]["samples"] == "half 1 of 2"
    assert len(a.uns["m1pipe"]["skipped"]) >= max(1, 60 - a.n_obs)
    go = anndata.read_h5ad(halves / "go_b.h5ad")
    assert (go.obs["samples"] == b.obs["samples"]).all()
    assert go.uns["m1pipe"]["source"] == "b.h5ad" and len(go.uns["m1pipe"]["source_sha256"]) == 64


@pytest.mark.slow
def test_planted_programmes_are_predicted_from_held_out_replicates(halves: Path) -> None:
    config = CrossvalConfig(models=("logistic", "pca_logistic"), group="study", folds=4)
    found = cross_validate(halves / "a.h5ad", multilabel=halves / "go_b.h5ad", config=config)
    assert found.info["labels_from"] == "other samples"
    assert not [a for a in found.alarms if a.name == "labels_of_same_samples"]
    ap = found.to_frame()["average_precision"]
    assert ap["logistic"] > 0.5 > 2 * ap["prior"]
    tested = found.labels[found.labels["verdict"] != "too few"]
    assert len(tested) > 3 and (tested["verdict"] == "learned").mean() > 0.7
    assert all(name.startswith("programme") for name in tested["label"])

    assert found.labels["roc_auc_logistic"].mean() > 0.8

    go = anndata.read_h5ad(halves / "go_b.h5ad")
    rng = np.random.default_rng(0)
    aucs, learned = [], 0
    for _ in range(6):
        go.X = go.X[rng.permutation(go.n_obs)]
        shuffled = cross_validate(halves / "a.h5ad", multilabel=go, config=config).labels
        aucs.append(shuffled["roc_auc_logistic"].mean())
        learned += (shuffled["verdict"] == "learned").sum()
    assert learned <= 2 and abs(np.mean(aucs) - 0.5) < 0.1


@pytest.mark.slow
def test_labels_of_the_same_fold_changes_are_called_compression(halves: Path) -> None:
    config = CrossvalConfig(models=("prior",), folds=3)
    found = cross_validate(halves / "a.h5ad", multilabel=halves / "go_a.h5ad", config=config)
    assert found.info["labels_from"] == "the same samples"
    (alarm,) = [a for a in found.alarms if a.name == "labels_of_same_samples"]
    assert alarm.severity == "warning" and "compression, not prediction" in alarm.text
