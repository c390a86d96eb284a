"""Log fold changes and their statistics: closed forms, planted truths, and the command."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, kstest

from m1pipe.cli.main import run
from m1pipe.contrasts.config import ContrastsConfig
from m1pipe.contrasts.design import CONTROL, StudyDesign
from m1pipe.contrasts.differential import expressed, fit_study, log_cpm
from m1pipe.data.simulation.contrasts import (
    ContrastsSimulation,
    plant_contrasts,
    simulate_contrasts,
)

pytest.importorskip("inmoose", reason="inmoose (extra limma) is not installed")
from m1pipe.contrasts.differential import moderated_t

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_counts_per_million_are_edgers() -> None:
    counts = np.array([[0.0, 10, 90], [5, 20, 175]])
    totals = counts.sum(axis=1)
    prior = 2 * totals / totals.mean()
    expected = np.log2((counts + prior[:, None]) / (totals + 2 * prior)[:, None] * 1e6)
    found = log_cpm(counts, totals / np.exp(np.log(totals).mean()))
    assert found == pytest.approx(expected)
    assert log_cpm(3 * counts[:1], np.ones(1)) == pytest.approx(
        np.log2((3 * counts[:1] + 2) / (300 + 4) * 1e6)
    )


def test_rare_genes_are_left_out() -> None:
    counts = np.array([[10, 9, 0, 100], [10, 9, 0, 100], [0, 9, 40, 100], [0, 9, 0, 100.0]])
    counts = np.column_stack([counts, 1e6 - counts.sum(axis=1)])
    assert expressed(counts, 2, 10).tolist() == [True, False, False, True, True]


def test_moderated_t_is_recovered_from_a_planted_prior() -> None:
    """Variances drawn as in Smyth (2004): d0 s0^2 / chi2(d0), coefficients of nothing."""
    rng = np.random.default_rng(0)
    n, d, d0, s0 = 2000, 4, 6.0, 0.5
    variance = d0 * s0 / chi2.rvs(d0, size=n, random_state=rng)
    sigma = np.sqrt(variance * chi2.rvs(d, size=n, random_state=rng) / d)
    unscaled = np.full((n, 1), np.sqrt(1 / 3 + 1 / 3))
    lfc = rng.standard_normal((n, 1)) * unscaled * np.sqrt(variance)[:, None]
    level = rng.uniform(0, 10, n)
    t, p = moderated_t(lfc, unscaled, sigma, np.full(n, float(d)), level)
    by_hand = lfc[:, 0] / unscaled[:, 0] / np.sqrt((d0 * s0 + d * sigma**2) / (d0 + d))
    assert np.corrcoef(t[:, 0], by_hand)[0, 1] > 0.998
    assert kstest(p[:, 0], "uniform").pvalue > 0.01
    # Without moderation there are as many p-values below 0.001 by t with 4 degrees; with it the
    # statistic is bounded by the prior: no tiny sigma makes a large one.
    assert np.abs(t).max() < np.abs(lfc[:, 0] / unscaled[:, 0] / sigma).max()


def _study(counts_of: np.ndarray) -> StudyDesign:
    n = len(counts_of) // 2
    condition = np.array([CONTROL] * n + ["case"] * n, dtype=object)
    return StudyDesign("S", [np.array([i]) for i in range(2 * n)], condition, np.empty((2 * n, 0)))


def _counts(seed: int, change: np.ndarray, n: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    level = rng.lognormal(5, 1, change.size)
    means = np.array([level * 2.0 ** (change * case) for case in [0] * n + [1] * n])
    means *= rng.lognormal(0, 0.5, (2 * n, 1))
    return rng.poisson(rng.gamma(20, means / 20)).astype(float)


@pytest.mark.parametrize("method", ["limma", "deseq2"])
def test_planted_changes_are_found(method: str) -> None:
    if method == "deseq2":
        pytest.importorskip("pydeseq2", reason="pydeseq2 (extra deseq2) is not installed")
    change = np.zeros(300)
    change[:30], change[30:45] = 2, -2
    counts = _counts(0, change)
    found = fit_study(counts, _study(counts), ContrastsConfig(method=method))  # type: ignore
    assert not isinstance(found, str)
    (lfc,), (statistic,), (padj,) = found
    kept = np.isfinite(lfc)
    assert kept.mean() > 0.9
    assert np.corrcoef(lfc[kept], change[kept])[0, 1] > 0.9
    assert (padj[:45] < 0.05).mean() > 0.8 and (padj[45:] < 0.05).mean() < 0.05
    assert np.array_equal(np.sign(statistic[:45]), np.sign(lfc[:45]))


def test_limmas_own_table_is_met() -> None:
    """Genes tested, changes, moderated t and adjusted p as R has them (limma.R)."""
    table = pd.read_csv(Path(__file__).parent / "limma.csv", comment="#")
    condition, batch = np.array([name.split("_")[:2] for name in table.columns[:16]], object).T
    rows = [np.array([i]) for i in range(16)]
    study = StudyDesign("S", rows, condition, batch.astype(float)[:, None])
    found = fit_study(table.iloc[:, :16].to_numpy(float).T, study, ContrastsConfig())
    for part, values in zip(("coefficients", "t", "p.value"), found, strict=True):
        expected = table[[f"{part}.a", f"{part}.b"]].to_numpy().T
        np.testing.assert_allclose(values, expected, rtol=2e-6, atol=1e-6)


def test_limma_fold_changes_are_differences_of_means() -> None:
    counts = _counts(1, np.zeros(60))
    found = fit_study(counts, _study(counts), ContrastsConfig(unexpressed="zero", min_count=1e4))
    assert isinstance(found, str) and "genes with enough counts" in found
    found = fit_study(counts, _study(counts), ContrastsConfig(min_count=0))
    assert not isinstance(found, str)
    ratios = np.exp(np.median(np.log(counts) - np.log(counts).mean(axis=0), axis=1))
    logs = log_cpm(counts, ratios)
    lfc = found[0][0]
    assert lfc == pytest.approx(logs[4:].mean(axis=0) - logs[:4].mean(axis=0), abs=1e-5)


def test_a_covariate_takes_its_effect_out() -> None:
    change = np.zeros(200)
    batch = np.array([0.0, 0, 0, 1, 0, 1, 1, 1])
    rng = np.random.default_rng(2)
    effect = rng.standard_normal(200)
    counts = np.rint(_counts(2, change) * 2.0 ** (effect * batch[:, None]))
    plain = _study(counts)
    told = StudyDesign("S", plain.rows, plain.condition, batch[:, None])
    found = [fit_study(counts, s, ContrastsConfig()) for s in (plain, told)]
    sizes = [np.nanmean(np.abs(f[0])) for f in found if not isinstance(f, str)]
    assert sizes[1] < 0.7 * sizes[0]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contrasts")
    simulate_contrasts(folder / "sim", ContrastsSimulation(size="tiny", seed=3))
    return folder


def _run(*arguments: object) -> int:
    return run(["-q", *map(str, arguments)])


def test_from_counts_to_the_planted_programmes(simulated: Path) -> None:
    sim, lfc, go = simulated / "sim", simulated / "lfc.h5ad", simulated / "go.h5ad"
    design = ["--design", sim / "design.tsv", "--experiment", "experiment"]
    assert _run("contrasts", sim / "counts.h5ad", *design, "--n-jobs", 2, "--out", lfc) == 0
    found = anndata.read_h5ad(lfc)
    law = plant_contrasts(ContrastsSimulation(size="tiny", seed=3))
    assert found.obs_names.tolist() == [f"S{i + 1:03d}:case" for i in range(12)]
    assert found.uns["units"] == "log_fold_change" and set(found.layers) == {"statistic", "padj"}
    table = pd.read_csv(sim / "design.tsv", sep="\t").drop_duplicates("experiment")
    sizes = table.groupby(["study", "condition"]).size().unstack()
    assert found.obs["n_case"].tolist() == sizes["case"].tolist()
    truth = law.fold_changes()
    known = np.isfinite(found.X)
    assert np.corrcoef(found.X[known], truth[known])[0, 1] > 0.8
    assert _run("enrich", lfc, "--gene-sets", sim / "gene_sets.gmt", "--out", go) == 0
    terms = anndata.read_h5ad(go)
    on = pd.read_csv(sim / "truth.tsv", sep="\t", index_col=0) != 0
    programmes = [name for name in terms.var_names if name.startswith("programme")]
    marked = terms[:, programmes].X.astype(bool)
    assert marked[on[programmes].to_numpy()].mean() > 0.9
    assert marked[~on[programmes].to_numpy()].mean() < 0.02
    assert not any(name.startswith("silent") for name in terms.var_names)
    assert set(terms.X.ravel().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--condition", "no"], "expected a column 'no'"),
        (["--design", "missing.tsv"], "missing.tsv"),
        (["--control", "placebo"], "say by --control what the others are compared with"),
        (["--min-samples", "9"], "expected a study with cases and controls"),
        (
            ["--held-out", "b.h5ad", "--min-samples", "5"],
            "expected a study with cases and controls",
        ),
    ],
)
def test_bad_input_is_one_line(
    simulated: Path, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = simulated / "no.h5ad"
    assert _run("contrasts", simulated / "sim/counts.h5ad", *arguments, "--out", out) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and reason in lines[0] and not out.exists()


def test_halves_need_two_files(simulated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts, out = simulated / "sim/counts.h5ad", simulated / "no.h5ad"
    assert _run("contrasts", counts, "--out", out, "--held-out", out) == 1
    assert "held-out: expected another file than --out" in capsys.readouterr().err
    assert _run("contrasts", counts, "--out", out, "--subject", "batch") == 2
    assert "--subject needs --held-out" in capsys.readouterr().err


def test_values_that_are_no_counts_are_refused(
    simulated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = anndata.read_h5ad(simulated / "sim/counts.h5ad")
    data.uns["units"] = "log2_tpm1"
    data.write_h5ad(simulated / "log.h5ad")
    assert _run("contrasts", simulated / "log.h5ad", "--out", simulated / "no.h5ad") == 1
    assert "expected raw counts; found log2_tpm1" in capsys.readouterr().err
