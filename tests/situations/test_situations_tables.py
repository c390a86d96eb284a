"""Tables as people have them: annotations among samples, odd headers, other notations."""

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from said import Said

GENES = "--genes-as-rows"
COUNTS = ("--units", "counts")
Run = Callable[..., Said]
Text = Callable[..., Path]


def _converted(m1pipe: Run, source: Path, *options: str) -> tuple[ad.AnnData, Said]:
    dest = source.with_name("x.h5ad")
    said = m1pipe("convert", source, dest, *options, "--force")
    assert said.code == 0, said.err
    return ad.read_h5ad(dest), said


DESCRIBED = {
    "length": "Geneid\tLength\tS1\tS2\ng1\t500\t3\t4\ng2\t900\t5\t6\n",
    "places": '# Program:p v2; Command:"p" "-a"\nGeneid\tChr\tStart\tEnd\tStrand\tLength\tS1\tS2\n'
    "g1\tchr1;chr1\t1;9\t5;12\t+;+\t9\t3\t4\ng2\tchr2\t1\t5\t-\t5\t5\t6\n",
    "gene_name": "gene_id\tgene_name\tS1\tS2\ng1\tA\t3\t4\ng2\tB\t5\t6\n",
    "entrez": "Hugo_Symbol\tEntrez_Gene_Id\tS1\tS2\ng1\t7157\t3\t4\ng2\t672\t5\t6\n",
    "statistics": "gene\tbaseMean\tpadj\tS1\tS2\ng1\t3.5\t0.1\t3\t4\ng2\t5.5\t1\t5\t6\n",
    "at the end": "gene\tS1\tS2\tdescription\tbiotype\ng1\t3\t4\tone, two\tx\ng2\t5\t6\tthree\ty\n",
    "transcripts": "gene_id,transcript_id(s),length,effective_length,S1,S2\n"
    'g1,"t1,t2",10,5.5,3,4\ng2,t3,20,7.5,5,6\n',
    "lengths in bases": "gene\tGene length (bp)\tS1\tS2\ng1\t500\t3\t4\ng2\t900\t5\t6\n",
    "a range": "\tseqnames\tstart\tend\twidth\tstrand\tS1\tS2\ng1\t1\t5\t9\t5\t+\t3\t4\n"
    "g2\t1\t15\t19\t5\t-\t5\t6\n",
    "commented header": "# made by x\n#gene\tS1\tS2\ng1\t3\t4\ng2\t5\t6\n",
}


@pytest.mark.parametrize("name", DESCRIBED)
def test_columns_that_describe_genes_go_to_var(m1pipe: Run, text: Text, name: str) -> None:
    found, said = _converted(m1pipe, text(DESCRIBED[name]), GENES, *COUNTS)
    assert list(found.obs_names) == ["S1", "S2"] and list(found.var_names) == ["g1", "g2"]
    np.testing.assert_array_equal(found.X, [[3, 5], [4, 6]])
    known = set(found.var.columns)
    header = next(li for li in DESCRIBED[name].splitlines() if "S1" in li).replace(",", "\t")
    assert known == set(header.lstrip("#").split("\t")[1:]) - {"S1", "S2"}
    for column in known:
        assert column in said.err, "said aloud"


def test_other_columns_are_named_by_an_option(m1pipe: Run, text: Text) -> None:
    source = text("gene\tflag\tS1\tS2\ng1\tyes\t3\t4\ng2\tno\t5\t6\n")
    said = m1pipe("convert", source, source.with_name("x.h5ad"), GENES, *COUNTS)
    assert said.code == 1
    assert "found 'yes' in column 'flag'" in said.err and "--var-columns" in said.err
    found, _ = _converted(m1pipe, source, GENES, *COUNTS, "--var-columns", "flag")
    assert found.var["flag"].tolist() == ["yes", "no"]
    np.testing.assert_array_equal(found.X, [[3, 5], [4, 6]])


def test_a_table_turned_round_keeps_its_lengths(m1pipe: Run, text: Text) -> None:
    source = text("sample\tg1\tg2\nLength\t500\t900\nS1\t3\t5\nS2\t4\t6\n")
    found, said = _converted(m1pipe, source, *COUNTS, "--normalize", "total")
    assert list(found.obs_names) == ["S1", "S2"]
    assert found.var["Length"].tolist() == [500, 900]
    assert found.obs["total_counts"].tolist() == [8, 10]
    assert "Length" in said.err


def test_lengths_come_from_the_same_kind_of_table(m1pipe: Run, text: Text) -> None:
    """featureCounts' own table is a table of lengths, versions count for nothing."""
    one, two = "ENSG00000000001", "ENSG00000000002"
    source = text(f"gene\tS1\n{one}.3\t10\n{two}.1\t30\n")
    lengths = text(
        f"Geneid\tChr\tStart\tEnd\tStrand\tLength\n{two}\tc\t1\t9\t+\t3000\n{one}\tc\t1\t9\t+\t1000\n",
        "lengths.tsv",
    )
    found, _ = _converted(
        m1pipe, source, GENES, *COUNTS, "--normalize", "tpm", "--lengths", str(lengths)
    )
    np.testing.assert_allclose(found.X, [[5e5, 5e5]])


def test_lengths_have_the_notation_of_the_values(m1pipe: Run, text: Text) -> None:
    one, two = "ENSG00000000001", "ENSG00000000002"
    source = text(f"gene\tS1\n{one}\t10\n{two}\t30\n")
    lengths = text(f"gene\tlength\n{two}\t3000,6\n{one}\t1.000,2\n", "lengths.tsv")
    options = [GENES, *COUNTS, "--normalize", "tpm", "--lengths", str(lengths)]
    commas = ["--decimal", ",", "--thousands", "."]
    found, _ = _converted(m1pipe, source, *options, *commas)
    shares = np.array([10 / 1000.2, 30 / 3000.6])
    np.testing.assert_allclose(found.X, [1e6 * shares / shares.sum()], rtol=1e-6)
    said = m1pipe("convert", str(source), "no.h5ad", *options)
    assert said.code == 1 and "expected a length of at least 1" in said.err


NO_GENES = {
    "HTSeq": ["__no_feature", "__ambiguous", "__too_low_aQual"],
    "STAR": ["N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous"],
    "a total": ["Total"],
}


@pytest.mark.parametrize("as_rows", [True, False], ids=["rows", "columns"])
@pytest.mark.parametrize("kind", NO_GENES)
def test_rows_that_are_no_genes_are_left_out_before_totals(
    m1pipe: Run, text: Text, kind: str, as_rows: bool
) -> None:
    names = [*NO_GENES[kind][:1], "ENSG00000000001", "ENSG00000000002", *NO_GENES[kind][1:]]
    counts = {"ENSG00000000001": (30, 40), "ENSG00000000002": (70, 60)}
    rows = [[name, *map(str, counts.get(name, (900, 1000)))] for name in names]
    table = [["gene", "S1", "S2"], *rows]
    if not as_rows:
        table = [list(column) for column in zip(*table, strict=True)]
    source = text("\n".join("\t".join(row) for row in table) + "\n")
    way = [GENES] if as_rows else []
    found, said = _converted(m1pipe, source, *way, *COUNTS, "--normalize", "total")
    np.testing.assert_allclose(found.X, [[3e5, 7e5], [4e5, 6e5]])
    assert found.obs["total_counts"].tolist() == [100, 100]
    for name in NO_GENES[kind]:
        assert name in said.err


def test_a_column_of_sums_is_no_sample(m1pipe: Run, text: Text) -> None:
    found, said = _converted(m1pipe, text("gene\tS1\tS2\tTotal\ng1\t3\t4\t7\n"), GENES, *COUNTS)
    assert list(found.obs_names) == ["S1", "S2"] and "Total" in said.err


@pytest.mark.parametrize(
    ("columns", "values"),
    [("age sex", "4{i} {b}"), ("batch RIN", "{b} 7"), ("bmi days_to_death", "2{i}.5 31")],
)
def test_labels_among_genes_are_warned_of(
    m1pipe: Run, text: Text, columns: str, values: str
) -> None:
    genes = "\t".join(f"ENSG{j:011d}" for j in range(3))
    rows = [values.format(i=i, b=i % 2).replace(" ", "\t") for i in range(6)]
    tab = columns.replace(" ", "\t")
    lines = [f"s\t{tab}\t{genes}", *(f"s{i}\t{row}\t{i}\t7\t9" for i, row in enumerate(rows))]
    _, said = _converted(m1pipe, text("\n".join(lines) + "\n"), *COUNTS)
    assert f"--obs-columns {columns.replace(' ', ',')}" in said.err


def test_genes_that_became_dates_are_warned_of(m1pipe: Run, text: Text) -> None:
    _, said = _converted(m1pipe, text("gene\tA\n2-Sep\t1\n1-Mar\t2\nTP53\t3\n"), GENES, *COUNTS)
    assert "2 gene names are dates or numbers (2-Sep, 1-Mar)" in said.err


def test_a_column_of_fractions_among_counts_is_warned_of(m1pipe: Run, text: Text) -> None:
    names = "\t".join(f"GENE{j}" for j in range(60))
    lines = [f"s\t{names}\tmystery"]
    lines += [f"s{i}\t" + "\t".join("5" * 60) + f"\t{i}.25" for i in range(5)]
    _, said = _converted(m1pipe, text("\n".join(lines) + "\n"), *COUNTS)
    assert "hold values unlike the others' (mystery)" in said.err


TRAILING = {
    "rows only": "id,g1,g2\nS1,1,2,\nS2,3,4,\n",
    "header too": "sample,g1,g2,\nS1,1,2,\nS2,3,4,\n",
    "header only": "sample,g1,g2,\nS1,1,2\nS2,3,4\n",
    "tabs": "\tg1\tg2\nS1\t1\t2\t\nS2\t3\t4\t\n",
}


@pytest.mark.parametrize("missing", ["error", "keep"])
@pytest.mark.parametrize("name", TRAILING)
def test_a_trailing_delimiter_shifts_no_name(
    m1pipe: Run, text: Text, name: str, missing: str
) -> None:
    found, _ = _converted(m1pipe, text(TRAILING[name], "t.csv"), *COUNTS, "--missing", missing)
    assert list(found.var_names) == ["g1", "g2"] and list(found.obs_names) == ["S1", "S2"]
    np.testing.assert_array_equal(found.X, [[1, 2], [3, 4]])


def test_what_stands_behind_the_last_delimiter_later_is_refused(m1pipe: Run, text: Text) -> None:
    rows = "".join(f"S{i},1,2,\n" for i in range(40))
    source = text(f"id,g1,g2\n{rows}S40,1,2,3\n")
    said = m1pipe("convert", source, source.with_name("x.h5ad"), *COUNTS)
    assert said.code == 1 and "line 42: expected nothing behind the last name" in said.err


SHORT = {
    "R's own": ("A\tB\ng1\t1\t2\ng2\t3\t4\n", ["A", "B"]),
    "whole numbers": ("1\t2\ng1\t1\t2\ng2\t3\t4\n", ["1", "2"]),
    "quoted, by blanks": ('"A" "B"\n"g1" 1 2\n"g2" 3 4\n', ["A", "B"]),
    "aligned by blanks": ("gene  A   B\ng1    1   2\ng2    3   4\n", ["A", "B"]),
    "numbered rows": ('"gene_id" "A" "B"\n"1" "g1" 1 2\n"2" "g2" 3 4\n', ["A", "B"]),
    "numbered by pandas": (",gene,A,B\n0,g1,1,2\n1,g2,3,4\n", ["A", "B"]),
}


@pytest.mark.parametrize("name", SHORT)
def test_headers_of_other_programs_are_read(m1pipe: Run, text: Text, name: str) -> None:
    content, samples = SHORT[name]
    found, _ = _converted(m1pipe, text(content), GENES, *COUNTS)
    assert list(found.obs_names) == samples and list(found.var_names) == ["g1", "g2"]
    np.testing.assert_array_equal(found.X, [[1, 3], [2, 4]])


REFUSED = {
    "one name is missing": ("gene_id\tA\tB\ng1\t10\t1\t2\ng2\t20\t3\t4\n", "one name is missing"),
    "sample too": ("sample\tA\tB\ns1\t10\t1\t2\ns2\t20\t3\t4\n", "one name is missing"),
    "numbers": ("S1\t1.5\t2.5\nS2\t3.5\t4.5\nS3\t5.5\t6.5\n", "the table has no header"),
    "whole numbers": ("S1\t1\t2\nS2\t3\t4\nS3\t5\t6\n", "the table has no header"),
    "numbers of a gene": ("TP53\t10\t0\nBRCA1\t3\t4\n", "the table has no header"),
    "which end is it": ("a,b\nS1,1,\nS2,3,\n", "the last is always empty"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_headers_that_cannot_be_are_refused(m1pipe: Run, text: Text, name: str) -> None:
    content, reason = REFUSED[name]
    source = text(content)
    for way in ([], [GENES]):
        said = m1pipe("convert", source, source.with_name("x.h5ad"), *way, *COUNTS)
        assert said.code == 1 and reason in said.err, said.err
        assert "line 1" in said.err


@pytest.mark.parametrize("corner", ["id", "gene_id", ""])
def test_names_may_be_whole_numbers(m1pipe: Run, text: Text, corner: str) -> None:
    found, _ = _converted(m1pipe, text(f"{corner}\t7157\t672\ns1\t1\t2\n"), *COUNTS)
    assert list(found.var_names) == ["7157", "672"]


ISOFORMS = "tx\tS1\tS2\nENST00000000001.2\t1.5\t2\nENST00000000002.2\t3.5\t4\n"
T1, T2 = "ENST00000000001", "ENST00000000002"
VAR = {
    "versions": f"tx\tgene\n{T1}\tG1\n{T2}\tG2\n",
    "other versions": f"tx\tgene\n{T1}.9\tG1\n{T2}.9\tG2\n",
    "two names in one": f"tx\tgene\n{T1}.2|NAME1\tG1\n{T2}.2|NAME2\tG2\n",
    "in brackets": f"tx\tgene\nNAME1 ({T1})\tG1\nNAME2 ({T2})\tG2\n",
}


@pytest.mark.parametrize("name", VAR)
def test_annotations_are_matched_as_genes_are(m1pipe: Run, text: Text, name: str) -> None:
    var = text(VAR[name], "var.tsv")
    found, _ = _converted(m1pipe, text(ISOFORMS), GENES, "--units", "tpm", "--var", str(var))
    assert found.var["gene_id"].tolist() == ["G1", "G2"]


@pytest.mark.parametrize(
    ("option", "content"),
    [
        ("--var", f"{T1}.2\tG1\tA\n{T2}.2\tG2\tB\n"),
        ("--aliases", f"{T1}.2\tNAME\n{T2}.2\tOTHER\n"),
        ("--labels", "S1\tliver\nS2\tbrain\n"),
        ("--lengths", f"{T1}\t1000\n{T2}\t2000\n"),
    ],
)
def test_tables_without_a_header_are_refused(
    m1pipe: Run, text: Text, option: str, content: str
) -> None:
    table, source = text(content, "other.tsv"), text(ISOFORMS)
    more = ["--normalize", "tpm", "--units", "counts"] if option == "--lengths" else []
    said = m1pipe("convert", source, source.with_name("x.h5ad"), GENES, option, table, *more)
    assert said.code == 1 and "no header" in said.err and "other.tsv" in said.err


NOTATIONS = {
    "thousands": ('id,g1,g2\nS1,"1,234",5\nS2,"2,000",6\n', "found '1,234'", ["--thousands", ","]),
    "decimal": ("id;g1;g2\nS1;1234,5;5\nS2;2000;6,25\n", "found '1234,5'", ["--decimal", ","]),
    "both": (
        "id;g1;g2\nS1;1.234,5;5\nS2;2.000;6\n",
        "found '1.234,5'",
        ["--decimal", ",", "--thousands", "."],
    ),
    "apostrophes": ("id\tg1\tg2\nS1\t1'234\t5\nS2\t2'000\t6\n", "1'234", ["--thousands", "'"]),
}


@pytest.mark.parametrize("name", NOTATIONS)
def test_other_notations_are_named_and_read(m1pipe: Run, text: Text, name: str) -> None:
    content, found, options = NOTATIONS[name]
    source = text(content)
    said = m1pipe("convert", source, source.with_name("x.h5ad"), "--units", "intensity")
    assert said.code == 1 and found in said.err and options[0] in said.err, said.err
    data, _ = _converted(m1pipe, source, "--units", "intensity", *options)
    half = 0.5 if "234,5" in content else 0
    last = 6.25 if "6,25" in content else 6
    np.testing.assert_array_equal(data.X, [[1234 + half, 5], [2000, last]])


def test_a_point_is_no_number_where_commas_are_decimal(m1pipe: Run, text: Text) -> None:
    source = text("id;g1\nS1;1,5\nS2;1.234\n")
    said = m1pipe("convert", source, source.with_name("x.h5ad"), "--decimal", ",")
    assert said.code == 1 and "found '1.234'" in said.err and "--thousands" in said.err


def test_blanks_around_names_are_taken_off(m1pipe: Run, text: Text) -> None:
    found, _ = _converted(m1pipe, text("s\tg1 \t g2\nS1 \t1\t2\n\u00a0S2\t3\t4\n"), *COUNTS)
    assert list(found.obs_names) == ["S1", "S2"] and list(found.var_names) == ["g1", "g2"]


GCT = {
    "by tissue": "#1.2\n2\t2\nid\tName\tDescription\tA\tB\n0\tE1\tx\t1.5\t2\n1\tE2\ty\t3\t4\n",
    "byte order mark": "\ufeff#1.2\n2\t2\nName\tDescription\tA\tB\nE1\tx\t1.5\t2\nE2\ty\t3\t4\n",
    "decimal commas": "#1.2\n2\t2\nName\tDescription\tA\tB\nE1\tx\t1,5\t2\nE2\ty\t3\t4\n",
}


@pytest.mark.parametrize("name", GCT)
def test_gct_of_every_kind(m1pipe: Run, text: Text, name: str) -> None:
    options = ["--decimal", ","] if "1,5" in GCT[name] else []
    found, _ = _converted(m1pipe, text(GCT[name], "a.gct"), "--units", "tpm", *options)
    assert list(found.var_names) == ["E1", "E2"] and list(found.obs_names) == ["A", "B"]
    assert found.var["symbol"].tolist() == ["x", "y"]
    np.testing.assert_array_equal(found.X, [[1.5, 3], [2, 4]])


@pytest.mark.parametrize(
    "content",
    [
        "sep=;\nid;g1;g2\nS1;1;2\nS2;3;4\n",
        "id,g1,g2,,\nS1,1,2,,\nS2,3,4,,\n",
        "id,g1,g2\nS1,1,2\nS2,3,4\n,,\n,,\n",
    ],
)
def test_what_spreadsheets_leave_around_a_table(m1pipe: Run, text: Text, content: str) -> None:
    a, said = _converted(m1pipe, text(content, "t.csv"), *COUNTS, "--missing", "keep")
    assert said.err == "" and a.X.tolist() == [[1, 2], [3, 4]]
    assert list(a.var_names) == ["g1", "g2"]


@pytest.mark.parametrize(
    ("header", "others"),
    [
        ("gene_id\tunstranded\tstranded_first\ttpm_unstranded", "stranded_first,tpm_unstranded"),
        ("Name\tTPM\tNumReads\tIsoPct", "NumReads,IsoPct"),
        ("id\tS1_counts\tS1_abundance\tS2_counts", "S1_abundance"),
    ],
)
def test_quantities_of_one_sample_are_no_samples(
    m1pipe: Run, text: Text, header: str, others: str
) -> None:
    source = text(f"{header}\ng1\t1\t2\t3\ng2\t4\t5\t6\n")
    said = m1pipe("convert", source, source.with_name("x.h5ad"), GENES, *COUNTS)
    assert said.code == 1 and "several quantities of one" in said.err
    a, _ = _converted(m1pipe, source, GENES, *COUNTS, "--var-columns", others)
    assert a.X[0].tolist() == [1, 4] and set(others.split(",")) <= set(a.var)


@pytest.mark.parametrize("content", ['"S1","S2"\n1,2\n3,4\n', "x1,x2\n0.5,2\n1.5,4\n"])
def test_a_first_column_of_numbers_names_no_rows(m1pipe: Run, text: Text, content: str) -> None:
    source = text(content, "t.csv")
    said = m1pipe("convert", source, source.with_name("x.h5ad"), GENES, *COUNTS)
    assert said.code == 1 and "expected names of the rows in the first column" in said.err


@pytest.mark.parametrize(
    ("content", "options", "way"),
    [
        ("gene\tS1\tS2\nkind\tcase\tcontrol\ng1\t1\t2\n", (GENES,), "--obs-columns kind"),
        ("s\tg1\ttissue\nS1\t1\tliver\nS2\t2\tlung\n", (), "--obs-columns tissue"),
        ("gene\tS1\tlot\ng1\t1\ta\ng2\t2\tb\n", (GENES,), "--var-columns lot"),
    ],
)
def test_the_way_out_of_text_among_numbers_works(
    m1pipe: Run, text: Text, content: str, options: tuple[str, ...], way: str
) -> None:
    source = text(content)
    said = m1pipe("convert", source, source.with_name("x.h5ad"), *COUNTS, *options)
    assert said.code == 1 and way.split()[0] in said.err
    _, said = _converted(m1pipe, source, *COUNTS, *options, *way.split())
    assert said.code == 0


def test_one_text_in_a_column_of_numbers_is_no_column_of_labels(m1pipe: Run, text: Text) -> None:
    source = text("s\tg1\tg2\nS1\t1\t<0.1\nS2\t2\t3\n")
    said = m1pipe("convert", source, source.with_name("x.h5ad"), *COUNTS)
    assert said.code == 1 and "found '<0.1' in column 'g2': correct it" in said.err


@pytest.mark.parametrize("name", ["2021-03-01", "02. Sep", "1-Mrz", "2.31E+13", "01.03.2021"])
def test_names_that_spreadsheets_change(m1pipe: Run, text: Text, name: str) -> None:
    dest = text(f"gene\tS1\n{name}\t1\nTP53\t2\n")
    _, said = _converted(m1pipe, dest, GENES, *COUNTS)
    assert f"1 gene names are dates or numbers ({name})" in said.err
    said = m1pipe("inspect", dest.with_name("x.h5ad"))
    assert name in " ".join(said.out.split())
    source = text(f"gene\tS1\n{name}\t1\n{name}\t2\n", "twice.tsv")
    said = m1pipe("convert", source, source.with_name("y.h5ad"), GENES, *COUNTS)
    assert said.code == 1 and "Excel made dates of genes" in said.err


def test_row_numbers_before_numbers_that_name_genes(m1pipe: Run, text: Text) -> None:
    source = text('"","GeneID","S1","S2"\n"1","653635",3,4\n"2","100287102",5,6\n', "t.csv")
    a, _ = _converted(m1pipe, source, GENES, *COUNTS)
    assert list(a.var_names) == ["653635", "100287102"] and a.X.tolist() == [[3, 5], [4, 6]]
