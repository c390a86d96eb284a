"""A study as DEE2 serves it: a zip of tables or its content; quality measures beside bulk files."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from m1pipe.cli.main import run
from m1pipe.errors import InputError
from m1pipe.io.conversion.config import ConvertConfig
from m1pipe.io.conversion.convert import convert

RNG = np.random.default_rng(3)
RUNS = [f"SRR{10 + i}" for i in range(6)]
EXPERIMENTS = ["SRX1", "SRX1", "SRX2", "SRX3", "SRX3", "SRX3"]
VERDICTS = ["PASS", "PASS", "WARN(3,4)", "PASS", "FAIL(7)", "PASS"]
GENES = [f"ENSG{i:011d}" for i in range(9)]
TRANSCRIPTS = [f"ENST{i:011d}" for i in range(12)]
COUNTS = pd.DataFrame(RNG.poisson(60, (6, 9)), index=RUNS, columns=GENES)
ESTIMATES = pd.DataFrame(RNG.gamma(2, 30, (6, 12)).round(3), index=RUNS, columns=TRANSCRIPTS)


def _tables(*, summary: bool = True) -> dict[str, str]:
    """The members of the zip, as the server pastes them together."""
    metadata = ["SRR_accession\tQC_summary\tSRX_accession\tSRP_accession\tExperiment_title"]
    for srr, verdict, srx in zip(RUNS, VERDICTS, EXPERIMENTS, strict=True):
        metadata.append(f'{srr}\t{verdict}\t{srx}\tSRP1\tGSM1: 5" of {srr}; RNA-Seq')
    metadata.append("SRR999\tPASS\tSRX9\tSRP1\tanother")
    genes = ["GeneID\tGeneSymbol\tmean\tmedian\tlongest_isoform\tmerged"]
    genes += [f"{g}\tSYM{j}\t1{j}00\t9{j}0\t2000\t2{j}00" for j, g in enumerate(GENES)]
    isoforms = ["TxID\tGeneID\tGeneSymbol\tTxLength"]
    isoforms += [f"{t}\t{GENES[j % 9]}\tSYM{j % 9}\t{500 + j}" for j, t in enumerate(TRANSCRIPTS)]
    measures = ["SeqMetric2\t" + "\t".join(RUNS), "QualityEncoding\t" + "\t".join(["33"] * 6)]
    measures.append("QC_SUMMARY\t" + "\t".join(VERDICTS))
    texts = {
        "README.md": ["# Contents"],
        "GeneCountMatrix.tsv": COUNTS.T.to_csv(sep="\t", index_label="GeneID").splitlines(),
        "TxCountMatrix.tsv": ESTIMATES.T.to_csv(sep="\t", index_label="TxID").splitlines(),
        "GeneInfo.tsv": genes,
        "TxInfo.tsv": isoforms,
        "QC_Matrix.tsv": measures,
        "logs/SRR10.log": ["done"],
        **({"MetadataSummary.tsv": metadata} if summary else {}),
    }
    return {name: "\n".join(lines) + "\n" for name, lines in texts.items()}


def _zip(path: Path, tables: dict[str, str] | None = None, inside: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (tables or _tables()).items():
            archive.writestr(inside + name, text)
    return path


def _folder(path: Path) -> Path:
    for name, text in _tables().items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def _convert(source: Path, **settings: Any) -> anndata.AnnData:
    dest = source.with_name("out.h5ad")
    convert(source, dest, ConvertConfig(**settings), force=True)
    assert not [p for p in source.parent.iterdir() if p.name.startswith(".")]
    return anndata.read_h5ad(dest)


@pytest.mark.parametrize("inside", ["", "SRP1_NA/"])
@pytest.mark.parametrize("packed", [True, False])
def test_a_study_is_read_with_its_tables(tmp_path: Path, packed: bool, inside: str) -> None:
    source = _zip(tmp_path / "Data.zip", inside=inside) if packed else _folder(tmp_path / "SRP1")
    adata = _convert(source)
    assert np.array_equal(adata.to_df(), COUNTS) and adata.uns["units"] == "counts"
    assert adata.obs_names.tolist() == RUNS and adata.var_names.tolist() == GENES
    assert adata.obs["QC_summary"].tolist() == VERDICTS
    assert adata.obs["SRX_accession"].tolist() == EXPERIMENTS
    assert adata.obs["Experiment_title"].iloc[0] == 'GSM1: 5" of SRR10; RNA-Seq'
    assert adata.var["symbol"].tolist() == [f"SYM{j}" for j in range(9)]


def test_its_transcripts_know_their_gene(tmp_path: Path) -> None:
    with pytest.warns(match="not all values are whole"):
        adata = _convert(_zip(tmp_path / "Data.zip"), isoforms=True)
    assert np.array_equal(adata.to_df(), ESTIMATES.astype(np.float32))
    assert adata.var["gene_id"].tolist() == [GENES[j % 9] for j in range(12)]


def test_runs_are_chosen_and_summed_by_its_own_tables(tmp_path: Path) -> None:
    source = _zip(tmp_path / "Data.zip")
    kept = [verdict != "FAIL(7)" for verdict in VERDICTS]
    expected = COUNTS[kept].groupby(np.array(EXPERIMENTS)[kept]).sum()
    adata = _convert(source, qc="warn", sum_runs=True)
    assert np.array_equal(adata.to_df().loc[expected.index], expected)
    assert adata.obs["n_runs"].tolist() == [2, 1, 2]
    assert _convert(source, qc="pass").obs_names.tolist() == ["SRR10", "SRR11", "SRR13", "SRR15"]


def test_without_metadata_the_measures_tell_the_quality(tmp_path: Path) -> None:
    source = _zip(tmp_path / "Data.zip", _tables(summary=False))
    assert _convert(source, qc="pass").n_obs == 4
    with pytest.raises(InputError, match=r"Data\.zip: expected a column of experiments"):
        _convert(source, sum_runs=True)


def test_a_table_that_is_given_outranks_the_studys(tmp_path: Path) -> None:
    table = pd.DataFrame({"SRX_accession": ["A"] * 6}, index=pd.Index(RUNS, name="run"))
    table.to_csv(tmp_path / "runs.tsv", sep="\t")
    adata = _convert(_zip(tmp_path / "Data.zip"), runs=str(tmp_path / "runs.tsv"))
    assert np.array_equal(adata.X[0], COUNTS.sum()) and adata.obs_names.tolist() == ["A"]


def test_the_command(tmp_path: Path, capsys: Any) -> None:
    source, dest = _zip(tmp_path / "Data.zip"), tmp_path / "x.h5ad"
    options = ["--sum-runs", "--qc", "pass", "--normalize", "total", "--log2p1"]
    assert run(["convert", str(source), str(dest), *options]) == 0
    assert "2 samples x 9 genes, log2_cpm1, from 6 samples" in capsys.readouterr().out


def test_broken_studies(tmp_path: Path, refused: Callable[..., str]) -> None:
    tables = _tables()
    broken = tables | {"GeneCountMatrix.tsv": tables["GeneCountMatrix.tsv"] + "ENSGX\t1\n"}
    line = refused(_zip(tmp_path / "ragged.zip", broken))
    assert "ragged.zip/GeneCountMatrix.tsv: line 11: expected 7 fields" in line
    other = _zip(tmp_path / "other.zip", {"notes.txt": "hello"})
    assert "expected a zip of DEE2 with GeneCountMatrix.tsv; found notes.txt" in refused(other)
    whole = _zip(tmp_path / "whole.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-40])
    assert "cut.zip: could not be unpacked: File is not a zip" in refused(tmp_path / "cut.zip")
    at = whole.index(b"GeneCountMatrix.tsv") + 60
    (tmp_path / "bad.zip").write_bytes(whole[:at] + b"\xff\xff\xff" + whole[at + 3 :])
    assert "bad.zip: could not be unpacked:" in refused(tmp_path / "bad.zip")
    with zipfile.ZipFile(tmp_path / "whole.zip", "a") as archive:
        archive.writestr("again/GeneInfo.tsv", "x")
    assert "expected one study; found GeneInfo.tsv twice" in refused(tmp_path / "whole.zip")
    folder = _folder(tmp_path / "part")
    (folder / "TxCountMatrix.tsv").unlink()
    assert "part: expected TxCountMatrix.tsv" in refused(folder, "--isoforms")
    text = tmp_path / "m.tsv"
    text.write_text("a\tb\nx\t1\n")
    assert "--isoforms is for a study of DEE2; found text" in refused(text, "--isoforms")


def _bulk(path: Path, values: np.ndarray, columns: list[str], runs: list[str] = RUNS) -> Path:
    """As R writes runs x columns: the file holds columns x runs."""
    with h5py.File(path, "w") as file:
        file["bigmatrix"], file["rownames"], file["colnames"] = values.T, runs, columns
    return path


def _measures(path: Path, columns: list[str], runs: list[str] = RUNS) -> Path:
    text = [["33", verdict, str(90 + i)] for i, verdict in enumerate(VERDICTS)]
    return _bulk(path, np.array(text, dtype="S16"), columns, runs)


@pytest.mark.parametrize("columns", [["Enc", "QC_SUMMARY", "Mapped"], ["1", "2", "3"]])
@pytest.mark.parametrize("name", ["hsapiens_se.h5", "se.h5"])
def test_quality_is_read_from_the_file_beside(
    tmp_path: Path, name: str, columns: list[str]
) -> None:
    source = _bulk(tmp_path / name, COUNTS.to_numpy(), GENES)
    _measures(tmp_path / name.replace("se", "qc"), columns)
    adata = _convert(source, qc="warn")
    kept = [not verdict.startswith("FAIL") for verdict in VERDICTS]
    assert np.array_equal(adata.to_df(), COUNTS[kept])
    assert adata.obs["QC_summary"].tolist() == [v for v in VERDICTS if v != "FAIL(7)"]


def test_quality_from_a_file_that_is_named(tmp_path: Path, refused: Callable[..., str]) -> None:
    source = _bulk(tmp_path / "counts.h5", COUNTS.to_numpy(), GENES)
    assert "qc: expected the column QC_summary" in refused(source, "--qc", "pass")
    measures = _measures(tmp_path / "measures.h5", ["1", "2", "3"], [*RUNS[:5], "SRR77"])
    quality = ["--qc", "pass", "--quality"]
    alone = refused(source, "--quality", str(measures), expected=2)
    assert "it serves --qc pass" in alone
    assert "expected the quality measures of DEE2" in refused(source, *quality, str(source))
    others = _measures(tmp_path / "others.h5", ["1", "2", "3"], [f"X{i}" for i in range(6)])
    assert "expected runs such as 'SRR10'; found none" in refused(source, *quality, str(others))
    none = _bulk(tmp_path / "none.h5", np.array([["a", "b"]] * 6, dtype="S1"), ["1", "2"])
    assert "expected a measure QC_SUMMARY" in refused(source, *quality, str(none))
    # a run without measures has not passed
    adata = _convert(source, qc="pass", quality=str(measures))
    assert adata.obs_names.tolist() == ["SRR10", "SRR11", "SRR13"]
