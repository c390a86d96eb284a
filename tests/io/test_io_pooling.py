"""Genes under other names, and genes of one name: refused, or summed where sums mean something."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from m1pipe.cli.main import run
from m1pipe.data.names import resolve_aliases
from m1pipe.errors import InputError
from m1pipe.io.conversion.config import ConvertConfig
from m1pipe.io.conversion.convert import convert

RNG = np.random.default_rng(12)
GENES = ["TP53", "P53", "ENSG00000000001.4", "BRCA1", "BRCA1", "ENSG00000000001.9"]
COUNTS = pd.DataFrame(
    RNG.poisson(50, (9, 6)), index=[f"s{i}" for i in range(9)], columns=GENES, dtype=int
)
ALIASES = "alias\tname\nP53\tTP53\nENSG00000000001\tMYC\nBRCAI\tBRCA1\n"
RENAMED = ["TP53", "TP53", "MYC", "BRCA1", "BRCA1", "MYC"]


@pytest.fixture
def aliases(tmp_path: Path) -> str:
    (tmp_path / "aliases.tsv").write_text(ALIASES)
    return str(tmp_path / "aliases.tsv")


def _write(path: Path, genes_as_rows: bool) -> Path:
    (COUNTS.T if genes_as_rows else COUNTS).to_csv(path, sep="\t", index_label="name")
    return path


def _convert(source: Path, **settings: Any) -> anndata.AnnData:
    dest = source.with_name("out.h5ad")
    convert(source, dest, ConvertConfig(units="counts", **settings), force=True)
    return anndata.read_h5ad(dest)


def test_names_are_resolved_with_and_without_version() -> None:
    assert resolve_aliases(GENES, {"P53": "TP53", "ENSG00000000001": "MYC"}) == RENAMED
    assert resolve_aliases(GENES, {}) == GENES
    assert resolve_aliases(["ENSG00000000001.4"], {"ENSG00000000001.4": "A"}) == ["A"]


@pytest.mark.parametrize("genes_as_rows", [False, True])
def test_genes_of_one_name_are_summed(tmp_path: Path, genes_as_rows: bool, aliases: str) -> None:
    source = _write(tmp_path / "m.tsv", genes_as_rows)
    for settings, names in [({}, GENES), ({"aliases": aliases}, RENAMED)]:
        adata = _convert(source, genes_as_rows=genes_as_rows, duplicates="sum", **settings)
        expected = COUNTS.T.set_axis(names).groupby(level=0, sort=False).sum().T
        assert adata.var_names.tolist() == expected.columns.tolist()
        assert adata.obs_names.tolist() == expected.index.tolist()
        assert np.array_equal(adata.X, expected)


def test_samples_that_repeat_stay_refused(tmp_path: Path) -> None:
    twice = pd.concat([COUNTS, COUNTS.iloc[:1]])
    for frame, genes_as_rows in ((twice, False), (twice.T, True)):
        frame.to_csv(tmp_path / "m.tsv", sep="\t", index_label="name")
        with pytest.raises(InputError, match="found 's0' again"):
            _convert(tmp_path / "m.tsv", duplicates="sum", genes_as_rows=genes_as_rows)


def test_sums_come_before_totals(tmp_path: Path) -> None:
    source = _write(tmp_path / "m.tsv", False)
    adata = _convert(source, duplicates="sum", normalize="total", log2p1=True)
    sums = COUNTS.T.groupby(level=0, sort=False).sum().T
    expected = np.log2(1 + sums.to_numpy() / COUNTS.sum(axis=1).to_numpy()[:, None] * 1e6)
    np.testing.assert_allclose(adata.X, expected, rtol=1e-6)


def test_renaming_keeps_the_old_names(tmp_path: Path, aliases: str) -> None:
    COUNTS.iloc[:, [0, 2, 3]].to_csv(tmp_path / "m.tsv", sep="\t", index_label="name")
    adata = _convert(tmp_path / "m.tsv", aliases=aliases)
    assert adata.var_names.tolist() == ["TP53", "MYC", "BRCA1"]
    assert adata.var["source_name"].tolist() == ["TP53", "ENSG00000000001.4", "BRCA1"]


def test_refusals(tmp_path: Path, refused: Callable[..., str], aliases: str) -> None:
    COUNTS.iloc[:, :4].to_csv(tmp_path / "m.tsv", sep="\t", index_label="name")
    options = ["--units", "counts", "--aliases", aliases]
    line = refused(tmp_path / "m.tsv", *options)
    assert "genes: expected unique names; found 'TP53' at positions 1 and 2" in line
    assert "or sum them with --duplicates sum" in line
    options = ["--units", "log2_cpm1", "--aliases", aliases, "--duplicates", "sum"]
    assert "summed on a linear scale only; found log2_cpm1" in refused(tmp_path / "m.tsv", *options)
    Path(aliases).write_text(f"{ALIASES}P53\tQ\n")
    options = ["--units", "counts", "--aliases", aliases]
    assert "aliases: expected unique names; found 'P53'" in refused(tmp_path / "m.tsv", *options)


def test_inspect_takes_aliases(tmp_path: Path, aliases: str, capsys: Any) -> None:
    for name, genes in [("x", ["P53", "ENSG00000000001.4", "A"]), ("u", ["TP53", "MYC", "B"])]:
        values = np.ones((4, 3), dtype=np.float32)
        data = anndata.AnnData(values, var=pd.DataFrame(index=genes), uns={"units": "tpm"})
        data.write_h5ad(tmp_path / f"{name}.h5ad")
    command = ["inspect", str(tmp_path / "x.h5ad"), "--against", str(tmp_path / "u.h5ad")]
    assert run(command) == 0
    assert "0 of 3 (0.0%) are here" in capsys.readouterr().out
    assert run([*command, "--aliases", aliases]) == 0
    assert "2 of 3 (66.7%) are here: 2 by alias table" in capsys.readouterr().out
