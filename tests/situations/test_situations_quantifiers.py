"""Folders of salmon, kallisto and RSEM, and stores of zarr: what isoform heads start from."""

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from said import Said

Run = Callable[..., Said]
TRANSCRIPTS = [f"ENST{j:011d}.{j + 1}" for j in range(5)]
GENES = ["ENSG00000000001", "ENSG00000000001", "ENSG00000000002", "ENSG00000000003", ""]
SAMPLES = ["A", "B", "C"]
RNG = np.random.default_rng(3)
LENGTH = np.array([500, 900, 1200, 300, 700])
TPM = RNG.integers(0, 50, (3, 5)).astype(float)
COUNTS = RNG.integers(0, 900, (3, 5)) + 0.5
EFFECTIVE = LENGTH - RNG.integers(20, 60, (3, 5)) + 0.25
TPM[0, :2] = 0  # a gene that one sample does not express


def _rows(i: int, kind: str, order: np.ndarray) -> list[list[str]]:
    rows = []
    for j in order:
        t, g = TRANSCRIPTS[j], GENES[j]
        level, count, eff = (f"{x[i, j]:g}" for x in (TPM, COUNTS, EFFECTIVE))
        rows.append(
            {
                "salmon": [t, str(LENGTH[j]), eff, level, count],
                "kallisto": [t, str(LENGTH[j]), eff, count, level],
                "rsem": [t, g or t, str(LENGTH[j]), eff, count, level, "0", "0"],
            }[kind]
        )
    return rows


HEADS = {
    "salmon": "Name Length EffectiveLength TPM NumReads",
    "kallisto": "target_id length eff_length est_counts tpm",
    "rsem": "transcript_id gene_id length effective_length expected_count TPM FPKM IsoPct",
}


def _folder(folder: Path, kind: str, *, shuffled: bool = False) -> Path:
    """As the program leaves it, one run a sample."""
    for i, sample in enumerate(SAMPLES):
        order = np.arange(5)[:: -1 if shuffled and i else 1]
        text = "\n".join("\t".join(row) for row in [HEADS[kind].split(), *_rows(i, kind, order)])
        if kind == "rsem":
            path = folder / "quants" / f"{sample}.isoforms.results"
        else:
            path = folder / "quants" / sample / {"salmon": "quant.sf"}.get(kind, "abundance.tsv")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        (path.parent / "run_info.json").write_text("{}")
    known = [f"{t.split('.')[0]}\t{g}" for t, g in zip(TRANSCRIPTS, GENES, strict=True) if g]
    (folder / "tx2gene.tsv").write_text("transcript\tgene\n" + "\n".join(known) + "\n")
    return folder / "quants"


def _convert(m1pipe: Run, folder: Path, source: Path, *options: object) -> ad.AnnData:
    said = m1pipe("convert", source, folder / "x.h5ad", *options)
    assert said.code == 0, said.err
    return ad.read_h5ad(folder / "x.h5ad")


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("kind", HEADS)
def test_isoforms_and_their_sums(m1pipe: Run, tmp_path: Path, kind: str, shuffled: bool) -> None:
    source = _folder(tmp_path, kind, shuffled=shuffled)
    table = ["--tx2gene", tmp_path / "tx2gene.tsv"]
    found = _convert(m1pipe, tmp_path, source, "--from", kind, *table)
    assert list(found.obs_names) == SAMPLES and list(found.var_names) == TRANSCRIPTS
    assert found.uns["units"] == "tpm"
    np.testing.assert_allclose(found.X, TPM)
    np.testing.assert_allclose(found.layers["counts"], COUNTS)
    np.testing.assert_allclose(found.layers["effective_length"], EFFECTIVE)
    np.testing.assert_array_equal(found.var["length"], LENGTH)
    assert found.var["gene_id"].astype(object).tolist()[:4] == GENES[:4]
    genes = ad.read_h5ad(tmp_path / "x.genes.h5ad")
    frame = pd.DataFrame(TPM.T, GENES).groupby(level=0).sum().T
    for gene in genes.var_names:
        np.testing.assert_allclose(genes[:, gene].X[:, 0], frame[gene])
    first = genes[:, "ENSG00000000001"]
    np.testing.assert_allclose(first.layers["counts"][:, 0], COUNTS[:, :2].sum(axis=1))
    weights = TPM[:, :2].copy()
    weights[0] = TPM[:, :2].mean(axis=0)
    expected = (weights * EFFECTIVE[:, :2]).sum(axis=1) / weights.sum(axis=1)
    np.testing.assert_allclose(first.layers["effective_length"][:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("kind", HEADS)
def test_the_program_is_seen_and_steps_are_taken(m1pipe: Run, tmp_path: Path, kind: str) -> None:
    source = _folder(tmp_path, kind)
    found = _convert(m1pipe, tmp_path, source, "--log2p1")
    assert found.uns["units"] == "log2_tpm1"
    np.testing.assert_allclose(found.X, np.log2(1 + TPM), rtol=1e-6)
    np.testing.assert_allclose(found.layers["counts"], COUNTS)
    assert (tmp_path / "x.genes.h5ad").exists() is (kind == "rsem"), "RSEM says its genes itself"
    counts = _convert(m1pipe, tmp_path, source, "--units", "counts", "--force")
    assert counts.uns["units"] == "counts"
    np.testing.assert_allclose(counts.X, COUNTS)
    np.testing.assert_allclose(counts.layers["tpm"], TPM)


def test_isoforms_of_one_sample_may_not_differ(m1pipe: Run, tmp_path: Path) -> None:
    source = _folder(tmp_path, "salmon")
    path = source / "B" / "quant.sf"
    path.write_text(path.read_text().replace(TRANSCRIPTS[2], "ENST99999999999"))
    said = m1pipe("convert", source, tmp_path / "x.h5ad")
    assert said.code == 1 and "B/quant.sf" in said.err and "one index" in said.err
    path.write_text(path.read_text().replace("NumReads", "Reads"))
    said = m1pipe("convert", source, tmp_path / "x.h5ad")
    assert said.code == 1 and "expected the columns TPM, NumReads" in said.err
    said = m1pipe("convert", source, tmp_path / "x.h5ad", "--from", "kallisto")
    assert said.code == 1 and "expected abundance.tsv of each sample" in said.err
    assert not list(tmp_path.glob("*.h5ad"))


def test_a_layer_follows_its_samples(m1pipe: Run, tmp_path: Path) -> None:
    source = _folder(tmp_path, "salmon")
    (tmp_path / "labels.tsv").write_text("sample\ttissue\nA\tliver\nB\tlung\nC\tliver\n")
    options = ["--labels", tmp_path / "labels.tsv", "--where", 'tissue == "liver"']
    found = _convert(m1pipe, tmp_path, source, *options)
    assert list(found.obs_names) == ["A", "C"]
    np.testing.assert_allclose(found.layers["counts"], COUNTS[[0, 2]])


@pytest.mark.parametrize("part", ["", "#layers/counts", "#raw"])
def test_zarr_is_read_as_h5ad_is(m1pipe: Run, tmp_path: Path, part: str) -> None:
    pytest.importorskip("zarr")
    X = np.arange(6, dtype="f4").reshape(2, 3)
    data = ad.AnnData(X, pd.DataFrame({"tissue": ["a ", "nan"]}, ["s1", "s2"]))
    data.var_names = list("xyz")
    data.layers["counts"] = X + 1
    data.raw = ad.AnnData(X + 2, data.obs, data.var)
    data.uns["units"] = "intensity"
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.write_zarr(tmp_path / "x.zarr")
    said = m1pipe("inspect", tmp_path / "x.zarr")
    assert said.code == 1 and "zarr: m1pipe convert reads it" in said.err
    options = [] if not part else ["--units", "counts"]
    found = _convert(m1pipe, tmp_path, Path(f"{tmp_path / 'x.zarr'}{part}"), *options)
    np.testing.assert_array_equal(found.X, X + {"": 0, "#layers/counts": 1, "#raw": 2}[part])
    assert found.obs["tissue"].astype(object).tolist()[0] == "a"
    assert found.obs["tissue"].isna().tolist() == [False, True]


def test_sample_folders_behind_links_are_followed(m1pipe: Run, tmp_path: Path) -> None:
    quants, linked = _folder(tmp_path, "salmon"), tmp_path / "linked"
    linked.mkdir()
    for sample in ("A", "B"):
        (linked / sample).symlink_to(quants / sample)
    (linked / "self").symlink_to(linked)
    (linked / "D").mkdir()
    said = m1pipe("convert", linked, tmp_path / "x.h5ad")
    assert said.code == 0 and "2 folders without quant.sf are left out (such as 'D')" in said.err
    assert list(ad.read_h5ad(tmp_path / "x.h5ad").obs_names) == ["A", "B"]
    (linked / "D" / "quant.sf").symlink_to(tmp_path / "nowhere")
    said = m1pipe("convert", linked, tmp_path / "x.h5ad", "--force")
    assert said.code == 1 and "D/quant.sf" in said.err


def test_transcripts_without_a_gene_are_named_and_left_out_of_sums(
    m1pipe: Run, tmp_path: Path
) -> None:
    quants = _folder(tmp_path, "kallisto")
    tx2gene = tmp_path / "tx2gene.tsv"
    said = m1pipe("convert", quants, tmp_path / "x.h5ad", "--tx2gene", tx2gene)
    assert "1 of 5 transcripts have no gene" in said.err and TRANSCRIPTS[4] in said.err


def test_genes_of_gencode_are_read_from_the_names(m1pipe: Run, tmp_path: Path) -> None:
    folder = tmp_path / "S"
    folder.mkdir()
    names = [f"{t}|{g}.2|-|-|N|S|9|x|" for t, g in zip(TRANSCRIPTS[:4], GENES[:4], strict=True)]
    rows = [f"{name}\t9\t8\t{j}\t1" for j, name in enumerate(names)]
    head = "\t".join(HEADS["salmon"].split())
    (folder / "quant.sf").write_text("\n".join([head, *rows]) + "\n")
    assert m1pipe("convert", tmp_path, tmp_path / "x.h5ad").code == 0
    genes = ad.read_h5ad(tmp_path / "x.genes.h5ad")
    assert list(genes.var_names) == [f"{g}.2" for g in dict.fromkeys(GENES[:4])]
    assert genes.X[0].tolist() == [0 + 1, 2, 3]


@pytest.mark.parametrize("command", ["train", "inspect"])
def test_folders_that_only_convert_reads_are_said_so(
    m1pipe: Run, tmp_path: Path, command: str
) -> None:
    quants = _folder(tmp_path, "salmon")
    out = ("--out", tmp_path / "run") if command == "train" else ()
    said = m1pipe(command, quants, *out)
    assert said.code == 1 and "found a folder: m1pipe convert reads" in said.err
