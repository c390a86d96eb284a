"""GCT as GTEx writes it: values, symbols, transcripts' genes, tissues and donors."""

import bz2
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from m1pipe.cli.main import run
from m1pipe.errors import InputError
from m1pipe.io.conversion.config import ConvertConfig
from m1pipe.io.conversion.convert import convert

RNG = np.random.default_rng(4)
SAMPLES = [f"GTEX-{1117 + i // 3}F-0{i % 3}26-SM-5GZ{i}" for i in range(9)]
DONORS = [f"GTEX-{1117 + i // 3}F" for i in range(9)]
GENES = [f"ENSG{i:011d}.{i % 5 + 1}" for i in range(12)]
SYMBOLS = [f"SYM{i % 11}" for i in range(12)]
TPM = np.round(np.where(RNG.random((12, 9)) < 0.3, 0, RNG.lognormal(1, 2, (12, 9))), 4)


def _table(**changes: Any) -> list[list[str]]:
    names = changes.get("names", ("Name", "Description"))
    header = [*names, *SAMPLES]
    rows = [[g, s, *map(str, v)] for g, s, v in zip(GENES, SYMBOLS, TPM, strict=True)]
    return [header, *rows]


def _text(head: str, rows: list[list[str]]) -> str:
    return head + "".join("\t".join(row) + "\n" for row in rows)


GENE_GCT = _text("#1.2\n12\t9\n", _table())
LABELS = "SAMPID\tSMATSSCR\tSMTSD\n" + "".join(
    f"{s}\t{i}.5\t{['Whole Blood', 'Brain - Cortex'][i % 2]}\n" for i, s in enumerate(SAMPLES)
)


def _convert(path: Path, **settings: Any) -> anndata.AnnData:
    dest = path.with_name("out.h5ad")
    convert(path, dest, ConvertConfig(units="tpm", **settings), force=True)
    return anndata.read_h5ad(dest)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_genes_of_gtex(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "gene_tpm.gct.gz"
    path.write_bytes(pack(GENE_GCT.encode()))
    (tmp_path / "SampleAttributesDS.txt").write_text(LABELS)
    adata = _convert(path, labels=str(tmp_path / "SampleAttributesDS.txt"))
    assert np.array_equal(adata.X, TPM.T.astype(np.float32))
    assert adata.obs_names.tolist() == SAMPLES and adata.var_names.tolist() == GENES
    assert adata.var["symbol"].tolist() == SYMBOLS
    assert adata.obs["tissue"].tolist() == (["Whole Blood", "Brain - Cortex"] * 5)[:9]
    assert adata.obs["donor"].tolist() == DONORS and adata.uns["units"] == "tpm"


@pytest.mark.parametrize("head", ["#1.2\n12\t9\n", ""])
def test_transcripts_of_gtex_know_their_gene(tmp_path: Path, head: str) -> None:
    table = _table(names=("transcript_id", "gene_id"))
    (tmp_path / "t.gct").write_text(_text(head, table))
    adata = _convert(tmp_path / "t.gct", log2p1=True)
    np.testing.assert_allclose(adata.X, np.log2(1 + TPM.T), rtol=1e-6)
    assert adata.var["gene_id"].tolist() == SYMBOLS


def test_version_3_describes_genes_and_samples(tmp_path: Path) -> None:
    header, *rows = _table()
    header.insert(2, "pr_type")
    rows = [[*row[:2], "coding", *row[2:]] for row in rows]
    described = [["tissue", "na", "na", *("liver brain skin " * 3).split()]]
    described += [["dose", "na", "na", *[f"{i}.5" for i in range(9)]]]
    (tmp_path / "g.gct").write_text(_text("#1.3\n12\t9\t2\t2\n", [header, *described, *rows]))
    adata = _convert(tmp_path / "g.gct", where='tissue != "skin"')
    kept = [i for i in range(9) if i % 3 != 2]
    assert np.array_equal(adata.X, TPM.T.astype(np.float32)[kept])
    assert adata.var["pr_type"].tolist() == ["coding"] * 12
    assert adata.obs["dose"].tolist() == [i + 0.5 for i in kept]


def test_genes_of_one_symbol_are_summed_on_a_linear_scale(tmp_path: Path) -> None:
    (tmp_path / "g.gct").write_text(GENE_GCT)
    adata = _convert(tmp_path / "g.gct", gene_names="symbol", duplicates="sum")
    expected = pd.DataFrame(TPM, index=SYMBOLS).groupby(level=0, sort=False).sum()
    np.testing.assert_allclose(adata.X, expected.to_numpy().T, rtol=1e-6)
    assert adata.var_names.tolist() == expected.index.tolist()
    dest = tmp_path / "log.h5ad"
    settings = ConvertConfig(units="log2_tpm1", gene_names="symbol", duplicates="sum")
    with pytest.raises(InputError, match="on a linear scale only; found log2_tpm1"):
        convert(tmp_path / "g.gct", dest, settings)
    with pytest.raises(InputError, match="on a linear scale only; found unknown"):
        convert(tmp_path / "g.gct", dest, ConvertConfig(gene_names="symbol", duplicates="sum"))


def test_the_command_knows_gct_by_its_content(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "no_name").write_text(GENE_GCT)
    (tmp_path / "l.tsv").write_text(LABELS)
    options = ["--units", "tpm", "--log2p1", "--labels", str(tmp_path / "l.tsv")]
    options += ["--where", 'tissue == "Whole Blood"']
    assert run(["convert", str(tmp_path / "no_name"), str(tmp_path / "x.h5ad"), *options]) == 0
    assert "5 samples x 12 genes, log2_tpm1, from 9 samples" in capsys.readouterr().out


def _lines(text: str = GENE_GCT) -> list[str]:
    return text.splitlines(keepends=True)


def _with(line: int, text: str) -> str:
    lines = _lines()
    lines[line - 1] = text
    return "".join(lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (_with(2, "13\t9\n"), "line 2: expected 13 rows by the line of dimensions; found 12"),
        (_with(2, "11\t9\n"), "line 2: expected 11 rows by the line of dimensions; found 12"),
        (_with(2, "12\t8\n"), "line 2: says 8 samples and 1 columns of annotations; found 11"),
        (_with(2, "12 genes\n"), "line 2: expected 2 whole numbers, the dimensions; found '12 ge"),
        (_with(2, "12\t9\t1\t0\n"), "line 2: expected 2 whole numbers"),
        ("".join(_lines()[:2]), "line 2: says 9 samples and 1 columns of annotations; found 1"),
        ("".join(_lines()[:3]), "expected rows below the header; found the header only"),
        (_with(5, "ENSG5\tS\t1\t2\n"), "line 5: expected 11 fields as in the header; found 4"),
        (_with(5, _lines()[4].replace("\t", "\tx", 2)), "line 5: expected a number; found 'x"),
        (_with(5, _lines()[5]), "line 6: expected each name once; found 'ENSG00000000002.3'"),
        (_with(3, _lines()[2].replace(SAMPLES[1], SAMPLES[0])), "line 3: expected each column na"),
    ],
)
def test_broken_files(tmp_path: Path, refused: Callable[..., str], text: str, reason: str) -> None:
    (tmp_path / "g.gct").write_text(text)
    assert reason in refused(tmp_path / "g.gct", "--units", "tpm")


def test_other_refusals(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = tmp_path / "g.gct"
    path.write_bytes(gzip.compress(GENE_GCT.encode())[:-20])
    assert "the compressed file ends too early" in refused(path, "--units", "tpm")
    path.write_text("sample\tG1\ns1\t1\n")
    assert "line 1: expected #1.2 or #1.3" in refused(path, "--units", "tpm", "--from", "gct")
    path.write_text(GENE_GCT)
    assert "for text; found gct" in refused(path, "--units", "tpm", "--genes-as-rows")
    found = refused(path, "--gene-names", "name")
    assert "--gene-names: expected a column of the genes' annotations (symbol); found 'nam" in found
    short = GENE_GCT.replace("#1.2\n12\t9\n", "#1.3\n12\t9\t1\t1\n")
    path.write_text(short.replace("Description", "d").replace("\nENSG00000000000.1\t", "\nx\ty\t"))
    assert "line 4: expected 11 fields as in the header; found 12" in refused(path)
