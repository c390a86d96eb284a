"""One bad part does not take the rest: contrasts, samples, studies; what is lost is said."""

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from said import Said

from m1pipe.contrasts import differential
from m1pipe.contrasts.config import ContrastsConfig, EnrichConfig
from m1pipe.contrasts.design import StudyDesign
from m1pipe.contrasts.differential import compute_contrasts, compute_halves
from m1pipe.contrasts.enrichment import GeneSets, enrich
from m1pipe.errors import InputError
from m1pipe.io.reader import open_matrix

Run = Callable[..., Said]
GENES = [f"G{i}" for i in range(300)]
SETS = [GENES[j::9] for j in range(9)]


def _fold_changes(folder: Path, empty: np.ndarray | float) -> tuple[Path, Path]:
    """Two contrasts, the second with nothing to rank, and gene sets of which one is changed."""
    lfc = np.random.default_rng(0).normal(size=(2, 300)).astype("f4")
    lfc[0, ::9] += 4
    lfc[1] = empty
    data = ad.AnnData(lfc, pd.DataFrame(index=["good", "empty"]), pd.DataFrame(index=GENES))
    data.uns["units"] = "log_fold_change"
    data.write_h5ad(folder / "lfc.h5ad")
    lines = [f"set{j}\tna\t" + "\t".join(genes) for j, genes in enumerate(SETS)]
    (folder / "sets.gmt").write_text("\n".join(lines) + "\n")
    return folder / "lfc.h5ad", folder / "sets.gmt"


FEW = np.where(np.arange(300) < 6, np.arange(300), np.nan)


@pytest.mark.parametrize(
    ("method", "empty", "reason"),
    [
        ("ora", np.nan, "no gene was measured"),
        ("prerank", np.nan, "no gene was measured"),
        ("prerank", 1.5, "all genes change alike"),
        ("prerank", FEW, "no set has 5 to 500 of its 6 genes"),
    ],
)
def test_a_contrast_that_cannot_be_tested_is_named(
    m1pipe: Run, tmp_path: Path, method: str, empty: np.ndarray | float, reason: str
) -> None:
    if method == "prerank":
        pytest.importorskip("gseapy")
    lfc, sets = _fold_changes(tmp_path, empty)
    options = ["--method", method, "--min-size", "5", "--out", tmp_path / "go.h5ad"]
    options += ["--top", "40"] if method == "ora" else []
    said = m1pipe("enrich", lfc, "--gene-sets", sets, *options)
    assert said.code == 0, said.err
    assert f"empty cannot be tested: {reason}" in said.err
    found = ad.read_h5ad(tmp_path / "go.h5ad")
    assert np.isnan(found.X[1]).all() and np.isnan(found.layers["pvalue"][1]).all()
    assert found["good", "set0"].X.item() == 1
    assert found["good", "set0"].layers["pvalue"].item() < 0.01


def test_no_set_at_all_is_a_result(m1pipe: Run, tmp_path: Path) -> None:
    lfc, sets = _fold_changes(tmp_path, np.random.default_rng(1).normal(size=300))
    out = ["--top", "40", "--alpha", "1e-300", "--out", tmp_path / "go.h5ad"]
    said = m1pipe("enrich", lfc, "--gene-sets", sets, *out)
    assert said.code == 0 and "raise --alpha" in said.err
    assert (ad.read_h5ad(tmp_path / "go.h5ad").X == 0).all()


def test_the_setting_that_acted_is_named() -> None:
    lfc = np.random.default_rng(0).normal(size=(3, 300))
    lfc[:, ::9] += 4
    sets = GeneSets([f"s{j}" for j in range(9)], [""] * 9, [frozenset(s) for s in SETS])
    with pytest.raises(InputError, match=r"1 are enriched in more contrasts: raise max_preval"):
        enrich(lfc, None, GENES, sets, EnrichConfig(top=40))
    lfc[1:] = np.random.default_rng(1).normal(size=(2, 300))
    with pytest.raises(InputError, match=r"1 are enriched in fewer: lower min_prevalence"):
        enrich(lfc, None, GENES, sets, EnrichConfig(top=40, min_prevalence=0.5))
    with pytest.raises(InputError, match=r"none of 3 can: the first because no gene was measured"):
        enrich(np.full((3, 300), np.nan), None, GENES, sets, EnrichConfig(top=40))


def _counts(silent: tuple[int, ...] = ()) -> ad.AnnData:
    rng = np.random.default_rng(0)
    counts = rng.poisson(20, (24, 260))
    counts[12:18, :20] *= 4
    counts[list(silent)] = 0
    obs = pd.DataFrame({"study": ["one"] * 12 + ["two"] * 12}, [f"s{i}" for i in range(24)])
    obs["condition"] = (["control"] * 6 + ["case"] * 6) * 2
    data = ad.AnnData(counts.astype("f4"), obs, pd.DataFrame(index=[f"G{j}" for j in range(260)]))
    data.uns["units"] = "counts"
    return data


def _plain_fit(counts: np.ndarray, study: StudyDesign) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """In the place of limma: differences of mean logarithms, refused where a sample is empty."""
    totals = counts.sum(axis=1)
    if (totals == 0).any():
        raise ValueError("array must not contain infs or NaNs")
    logs = np.log2(1 + 1e6 * counts / totals[:, None])
    case = study.condition != "control"
    lfc = (logs[case].mean(axis=0) - logs[~case].mean(axis=0))[None]
    return lfc, lfc, np.ones_like(lfc)


@pytest.mark.parametrize("silent", [(4,), (4, 13), (0, 1)])
def test_samples_without_counts_are_left_out_by_name(
    monkeypatch: pytest.MonkeyPatch, silent: tuple[int, ...]
) -> None:
    monkeypatch.setattr(differential, "_check_library", lambda config: None)
    monkeypatch.setattr(differential, "_by_limma", _plain_fit)
    found = compute_contrasts(open_matrix(_counts(silent)), None, ContrastsConfig())
    assert found.silent == tuple(f"s{i}" for i in silent)
    assert not found.skipped and list(found.obs["study"]) == ["one", "two"]
    used = ";".join(found.obs["samples"]).split(";")
    assert sorted(used) == sorted(f"s{i}" for i in range(24) if i not in silent)
    halves = compute_halves(open_matrix(_counts(silent)), None, ContrastsConfig())
    assert all(half.silent == found.silent for half in halves)


def test_a_study_that_cannot_be_fitted_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(counts: np.ndarray, study: StudyDesign) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if study.name == "one":
            raise np.linalg.LinAlgError("Singular matrix")
        return _plain_fit(counts, study)

    monkeypatch.setattr(differential, "_check_library", lambda config: None)
    monkeypatch.setattr(differential, "_by_limma", fit)
    found = compute_contrasts(open_matrix(_counts()), None, ContrastsConfig())
    assert list(found.obs["study"]) == ["two"]
    assert found.skipped == [("one", "could not be fitted by limma: Singular matrix")]


def test_a_study_without_any_count_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differential, "_check_library", lambda config: None)
    monkeypatch.setattr(differential, "_by_limma", _plain_fit)
    found = compute_contrasts(open_matrix(_counts(tuple(range(12)))), None, ContrastsConfig())
    assert list(found.obs["study"]) == ["two"]
    assert found.skipped == [("one", "no sample has counts")]


def test_a_control_without_counts_for_deseq2(m1pipe: Run, tmp_path: Path) -> None:
    pytest.importorskip("pydeseq2")
    _counts((4,)).write_h5ad(tmp_path / "x.h5ad")
    said = m1pipe(
        "contrasts", tmp_path / "x.h5ad", "--method", "deseq2", "--out", tmp_path / "l.h5ad"
    )
    assert said.code == 0 and "1 sample without counts left out: s4" in said.err
    assert "s4" not in ad.read_h5ad(tmp_path / "l.h5ad").obs["samples"].iloc[0].split(";")


@pytest.mark.parametrize("steps", [[], ["--normalize", "total"]])
def test_zero_total_acts_whenever_it_is_given(
    m1pipe: Run, tmp_path: Path, steps: list[str]
) -> None:
    (tmp_path / "x.tsv").write_text("s\tg1\tg2\ns1\t1\t2\ns2\t0\t0\ns3\t3\t4\n")
    base = ["convert", tmp_path / "x.tsv", tmp_path / "y.h5ad", "--units", "counts", *steps]
    said = m1pipe(*base, "--zero-total", "drop")
    assert said.code == 0 and "1 of 3 samples have a total of 0 ('s2'): dropped" in said.err
    assert list(ad.read_h5ad(tmp_path / "y.h5ad").obs_names) == ["s1", "s3"]
    said = m1pipe(*base, "--zero-total", "error", "--force")
    assert said.code == 1 and "'s2'" in said.err and "--zero-total drop" in said.err
    said = m1pipe(*base, "--force")
    assert said.code == (1 if steps else 0)


def test_a_sample_that_cannot_be_used_is_left_out_as_the_message_says(
    m1pipe: Run, tmp_path: Path
) -> None:
    data = _counts((4,))[:12].copy()
    data.write_h5ad(tmp_path / "x.h5ad")
    train = ["train", tmp_path / "x.h5ad", "--normalize", "total", "--log2p1", "--out"]
    small = [tmp_path / "run", "--latent", "1", "--hidden", "2", "--epochs", "1"]
    said = m1pipe(*train, *small)
    assert said.code == 1 and """leave them out, --rows 'index != "s4"'""" in said.err
    assert m1pipe(*train, *small, "--rows", 'index != "s4"').code == 0
    encode = ["encode", tmp_path / "run", tmp_path / "x.h5ad", "--out", tmp_path / "z.h5ad"]
    said = m1pipe(*encode)
    assert said.code == 1 and """m1pipe convert --where 'index != "s4"'""" in said.err


def test_samples_of_one_id_are_named_by_their_source(m1pipe: Run, tmp_path: Path) -> None:
    data = _counts()[:2].copy()
    data.obs.index = pd.Index(["x", "x"])
    data.write_h5ad(tmp_path / "twice.h5ad")
    said = m1pipe("convert", tmp_path / "twice.h5ad", tmp_path / "y.h5ad")
    assert said.code == 1 and "twice.h5ad: samples: expected unique names; found 'x'" in said.err
