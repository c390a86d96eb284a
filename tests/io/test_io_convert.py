"""Text to h5ad: what pandas reads, whichever way round, with every step's units and labels."""

import bz2
import gzip
import tracemalloc
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m1pipe.cli.main import run
from m1pipe.data.units import Units
from m1pipe.errors import InputError, M1Warning
from m1pipe.io.conversion import loaded
from m1pipe.io.conversion.config import ConvertConfig, ConvertSummary
from m1pipe.io.conversion.convert import convert
from m1pipe.io.reader import open_matrix
from m1pipe.io.tables import read_table
from m1pipe.io.text.numbers import compiled_scan

RNG = np.random.default_rng(11)
SAMPLES = [f"s{i}" for i in range(40)]
GENES = [f"ENSG{i:011d}" for i in range(30)]
COUNTS = pd.DataFrame(RNG.poisson(RNG.gamma(2, 5, 30), (40, 30)), index=SAMPLES, columns=GENES)
LEVELS = pd.DataFrame(RNG.lognormal(0, 3, (40, 30)), index=SAMPLES, columns=GENES)
LABELS = pd.DataFrame(
    {
        "tissue": ["liver", "brain"] * 20,
        "donor": ["101", "007"] * 20,
        "rin": np.linspace(5, 9.5, 40),
        "case": ["0", "1"] * 20,
        "stage": ["", "II"] * 20,
    },
    index=SAMPLES,
)


def _write(frame: pd.DataFrame, path: Path, **options: Any) -> Path:
    frame.to_csv(path, sep=options.pop("sep", "\t"), index_label="sample", **options)
    return path


def _convert(source: Path, **settings_: Any) -> tuple[anndata.AnnData, ConvertSummary]:
    dest = source.with_name("out.h5ad")
    summary = convert(source, dest, ConvertConfig(**settings_), force=True)
    assert not [p for p in source.parent.iterdir() if p.name.startswith(".")]
    return anndata.read_h5ad(dest), summary


def _normalised(frame: pd.DataFrame, target: float) -> np.ndarray:
    values = frame.to_numpy(dtype=np.float64)
    return np.asarray(values / values.sum(axis=1, keepdims=True) * target)


@pytest.mark.parametrize("name", ["m.tsv", "m.tsv.gz", "m.csv", "m.csv.bz2", "m.txt.gz"])
@pytest.mark.parametrize("genes_as_rows", [False, True])
def test_values_are_those_of_pandas(tmp_path: Path, name: str, genes_as_rows: bool) -> None:
    frame = LEVELS.T if genes_as_rows else LEVELS
    source = _write(frame, tmp_path / name, sep="," if ".csv" in name else "\t")
    adata, _ = _convert(source, units="tpm", genes_as_rows=genes_as_rows)
    assert np.array_equal(adata.X, LEVELS.to_numpy(dtype=np.float32))
    assert adata.obs_names.tolist() == SAMPLES and adata.var_names.tolist() == GENES
    assert Units("tpm") == open_matrix(tmp_path / "out.h5ad").units


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    values=st.lists(
        st.lists(st.floats(-(2.0**126), 2.0**126, width=32), min_size=3, max_size=3),
        min_size=1,
        max_size=6,
    ),
    shape=st.sampled_from(["%r", "%.3e", "%+.17g"]),
)
def test_every_float_is_read_exactly(tmp_path: Path, values: list[list[float]], shape: str) -> None:
    fields = [[shape % value for value in row] for row in values]
    lines = ["id\ta\tb\tc", *("\t".join([f"s{i}", *row]) for i, row in enumerate(fields))]
    source = tmp_path / "floats.tsv"
    source.write_text("\n".join(lines))
    adata, _ = _convert(source, units="zscore")
    expected = np.array([[float(field) for field in row] for row in fields], dtype=np.float32)
    assert np.array_equal(adata.X, expected)


@pytest.mark.parametrize("block_bytes", [1, 300, 10**9])
@pytest.mark.parametrize("genes_as_rows", [False, True])
@pytest.mark.parametrize("by_threads", [False, True])
def test_blocks_of_any_size_give_the_same(
    tmp_path: Path,
    block_bytes: int,
    genes_as_rows: bool,
    by_threads: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if by_threads:
        monkeypatch.setattr("m1pipe.io.text.table._LARGE_BYTES", 0)
    monkeypatch.setattr(loaded, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(loaded, "TRANSPOSE_BYTES", 3 * block_bytes)
    monkeypatch.setattr("m1pipe.io.text.lines._READ_BYTES", block_bytes)
    source = _write(COUNTS.T if genes_as_rows else COUNTS, tmp_path / "m.tsv")
    adata, _ = _convert(
        source, units="counts", normalize="total", log2p1=True, genes_as_rows=genes_as_rows
    )
    np.testing.assert_allclose(adata.X, np.log2(1 + _normalised(COUNTS, 1e6)), rtol=1e-6)


def _odd_texts() -> dict[str, str]:
    header, *rows = COUNTS.to_csv(sep="\t", index_label="sample").splitlines()
    return {
        "windows line ends": "\r\n".join([header, *rows, ""]),
        "windows line ends, written twice": "\r\r\n".join([header, *rows, ""]),
        "no last line end": "\n".join([header, *rows]),
        "byte order mark": "\ufeff" + "\n".join([header, *rows]),
        "header of R": "\n".join([header.removeprefix("sample\t"), *rows]),
        "empty corner": "\n".join([header.removeprefix("sample"), *rows]),
        "quoted names": "\n".join(
            ["\t".join(f'"{n}"' for n in header.split("\t"))]
            + ['"' + row.replace("\t", '"\t', 1) for row in rows]
        ),
        "blanks around numbers": "\n".join([header, *(r.replace("\t", "\t ") for r in rows)]),
        "empty lines at the end": "\n".join([header, *rows, "", "", ""]),
        "semicolons": "\n".join([header, *rows]).replace("\t", ";"),
    }


@pytest.mark.parametrize("what", _odd_texts())
def test_odd_texts_are_understood(tmp_path: Path, what: str) -> None:
    source = tmp_path / "m.tsv"
    source.write_bytes(_odd_texts()[what].encode())
    adata, _ = _convert(source, units="counts")
    assert np.array_equal(adata.X, COUNTS)
    assert adata.obs_names.tolist() == SAMPLES and adata.var_names.tolist() == GENES


def test_the_kind_of_file_is_seen_by_its_content(tmp_path: Path) -> None:
    plain = _write(COUNTS, tmp_path / "plain.tsv").read_bytes()
    for pack in (gzip.compress, bz2.compress, bytes):
        source = tmp_path / "misnamed.csv"
        source.write_bytes(pack(plain))
        assert np.array_equal(_convert(source, units="counts")[0].X, COUNTS)
    source.write_bytes(gzip.compress(plain[:99]) + gzip.compress(plain[99:]))
    assert np.array_equal(_convert(source, units="counts")[0].X, COUNTS)


@pytest.mark.parametrize(
    ("settings_", "units", "expected"),
    [
        ({"units": "counts"}, Units("counts"), COUNTS),
        ({"units": "counts", "normalize": "total"}, Units("cpm"), _normalised(COUNTS, 1e6)),
        (
            {"units": "counts", "normalize": "total", "log2p1": True},
            Units("log2_cpm1"),
            np.log2(1 + _normalised(COUNTS, 1e6)),
        ),
        (
            {"units": "counts", "normalize": "total", "target_sum": 1e4, "log2p1": True},
            Units("log2_normalized1", 1e4),
            np.log2(1 + _normalised(COUNTS, 1e4)),
        ),
        (
            {"units": "counts", "normalize": "median"},
            Units("normalized", float(np.median(COUNTS.sum(axis=1)))),
            _normalised(COUNTS, np.median(COUNTS.sum(axis=1))),
        ),
        ({"units": "tpm", "log2p1": True}, Units("log2_tpm1"), np.log2(1 + COUNTS)),
        ({"units": "tpm", "normalize": "total"}, Units("tpm"), _normalised(COUNTS, 1e6)),
        ({"units": "normalized", "log2p1": True}, Units("log2_normalized1"), np.log2(1 + COUNTS)),
        (
            {"units": "intensity", "floor": 5.0, "log2p1": True},
            Units("log2_intensity"),
            np.log2(1 + np.maximum(COUNTS, 5)),
        ),
    ],
)
def test_units_follow_the_steps(
    tmp_path: Path, settings_: dict[str, Any], units: Units, expected: Any
) -> None:
    adata, summary = _convert(_write(COUNTS, tmp_path / "m.tsv"), **settings_)
    np.testing.assert_allclose(adata.X, np.asarray(expected, dtype=np.float64), rtol=1e-6)
    assert summary.units == units == open_matrix(tmp_path / "out.h5ad").units
    assert ("total_counts" in adata.obs) == ("normalize" in settings_)
    if "normalize" in settings_:
        assert np.array_equal(adata.obs["total_counts"], COUNTS.sum(axis=1))


def test_tpm_divides_by_length_first(tmp_path: Path) -> None:
    lengths = pd.Series(RNG.integers(200, 9000, 30), index=GENES, name="length")
    lengths.sample(frac=1, random_state=1).to_csv(tmp_path / "l.tsv", sep="\t", index_label="gene")
    adata, summary = _convert(
        _write(COUNTS, tmp_path / "m.tsv"),
        units="counts",
        normalize="tpm",
        lengths=str(tmp_path / "l.tsv"),
        log2p1=True,
    )
    expected = np.log2(1 + _normalised(COUNTS / lengths, 1e6))
    np.testing.assert_allclose(adata.X, expected, rtol=1e-6)
    assert summary.units == Units("log2_tpm1")
    assert np.array_equal(adata.obs["total_counts"], COUNTS.sum(axis=1))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ENSG00000000000\t7", "29 of 30 have none, such as 'ENSG00000000001'"),
        (
            "\n".join(f"{g}\tlong" for g in GENES),
            "length of at least 1; found 'long' for gene 'ENSG0",
        ),
        ("\n".join(f"{g}\t0" for g in GENES), "length of at least 1; found '0'"),
    ],
)
def test_lengths_must_serve_every_gene(tmp_path: Path, line: str, reason: str) -> None:
    (tmp_path / "l.tsv").write_text(f"gene\tlength\n{line}\n")
    with pytest.raises(InputError, match=reason):
        _convert(
            _write(COUNTS, tmp_path / "m.tsv"),
            units="counts",
            normalize="tpm",
            lengths=str(tmp_path / "l.tsv"),
        )


@pytest.mark.parametrize(
    ("settings_", "reason"),
    [
        ({"units": "log2_tpm1", "log2p1": True}, "linear scale; found log2_tpm1"),
        ({"units": "zscore", "normalize": "total"}, "linear scale; found zscore"),
        ({"units": "counts", "log2p1": True}, "add normalize total"),
        ({"log2p1": True}, "units of the values are unknown: say them with units"),
        ({"normalize": "total"}, "units of the values are unknown"),
        ({"units": "log2_cpm1", "floor": 1.0}, "floor: expected values on a linear scale"),
    ],
)
def test_steps_that_make_no_sense_are_refused(
    tmp_path: Path, settings_: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        _convert(_write(COUNTS, tmp_path / "m.tsv"), **settings_)


@pytest.mark.parametrize("by_threads", [False, True])
@pytest.mark.parametrize("genes_as_rows", [False, True])
@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("1e20", r"m.tsv: expected counts up to 1e\+15; found 1e\+20 in sample '\w+', gene '\w+'"),
        ("\r7", "m.tsv: line 9: expected a line end; found a carriage return inside the line"),
        ("7\r", "m.tsv: line 9: expected a line end; found a carriage return inside the line"),
        ('"', "m.tsv: line 9: expected quotes in pairs around a field; found one alone"),
    ],
)
def test_what_would_be_read_as_another_value_is_refused(
    tmp_path: Path,
    cell: str,
    reason: str,
    genes_as_rows: bool,
    by_threads: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if by_threads:
        monkeypatch.setattr("m1pipe.io.text.table._LARGE_BYTES", 0)
    frame = (COUNTS.T if genes_as_rows else COUNTS).astype(str)
    frame.iloc[7, 1] = cell
    lines = ["\t".join(["id", *frame.columns]), *map("\t".join, frame.reset_index().to_numpy())]
    (tmp_path / "m.tsv").write_bytes("\n".join(lines).encode())
    with pytest.raises(InputError, match=reason):
        _convert(tmp_path / "m.tsv", units="counts", genes_as_rows=genes_as_rows)


@pytest.mark.parametrize(
    "text", ['s1\tbrain\t"\n', 's1\t"brain\t1\n', 's1\t"a"b\t1\n', "s1\ta\rb\t1\n"]
)
def test_labels_are_read_as_they_are_or_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.tsv").write_bytes(f'id\ttissue\tage\ns0\t5" of it\t2\n{text}'.encode())
    with pytest.raises(InputError, match=r"line 3: expected (quotes in pairs|a line end)"):
        read_table(tmp_path / "labels.tsv")
    (tmp_path / "labels.tsv").write_bytes(b'id\ttissue\tage\ns0\t5" of it\t2\n')
    assert read_table(tmp_path / "labels.tsv").loc["s0", "tissue"] == '5" of it'


@pytest.mark.parametrize(
    ("settings_", "reason"),
    [
        ({"units": "fpkm"}, "units: expected one of"),
        ({"normalize": "tpm"}, "normalize tpm and lengths need each other"),
        ({"lengths": "l.tsv"}, "need each other"),
        ({"zero_total": "ignore"}, "zero_total: expected one of error, drop, keep"),
        ({"target_sum": 0.0}, "expected a positive number"),
        ({"format": "excel"}, "from: expected one of auto, text"),
    ],
)
def test_settings_are_checked(settings_: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        ConvertConfig(**settings_)


@pytest.mark.parametrize("units", ["intensity", "counts", "tpm"])
def test_negative_values_are_named(tmp_path: Path, units: str) -> None:
    frame = COUNTS.copy()
    frame.iloc[7, 3] = -342
    log = {"log2p1": True} if units == "intensity" else {}
    where = "found -342 in sample 's7', gene 'ENSG00000000003'"
    with pytest.raises(InputError, match=where):
        _convert(_write(frame, tmp_path / "m.tsv"), units=units, **log)
    with pytest.raises(InputError, match=where):
        _convert(_write(frame.T, tmp_path / "t.tsv"), units=units, genes_as_rows=True, **log)


def test_labels_join_by_sample_id(tmp_path: Path) -> None:
    table = LABELS.sample(frac=1, random_state=3)
    labels = _write(table, tmp_path / "labels.tsv")
    adata, summary = _convert(
        _write(COUNTS, tmp_path / "m.tsv"), units="counts", labels=str(labels)
    )
    assert summary.n_labelled == 40
    for name in ("tissue", "donor", "case"):  # whole numbers are names, not measurements
        assert adata.obs[name].astype(str).tolist() == LABELS[name].tolist()
        assert adata.obs[name].dtype == "category"
    np.testing.assert_allclose(adata.obs["rin"], LABELS["rin"])
    assert adata.obs["stage"].isna().tolist() == [True, False] * 20


def test_samples_without_labels_stay_and_are_counted(tmp_path: Path) -> None:
    labels = _write(LABELS[:10], tmp_path / "labels.tsv")
    with pytest.warns(M1Warning, match=r"samples: 30 of 40 have no row \(such as 's10'"):
        adata, summary = _convert(
            _write(COUNTS, tmp_path / "m.tsv"), units="counts", labels=str(labels)
        )
    assert summary.n_labelled == 10 and "labels for 10 samples" in str(summary)
    assert adata.obs["tissue"].isna().sum() == 30


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    source = _write(COUNTS.assign(tissue="liver"), tmp_path / "m.tsv")
    labels = str(_write(LABELS, tmp_path / "labels.tsv"))
    with pytest.raises(InputError, match="column 'tissue' is there already"):
        _convert(source, units="counts", labels=labels, obs_columns=("tissue",))
    others = LABELS[["donor"]].set_axis([f"x{i}" for i in range(40)])
    strangers = str(_write(others, tmp_path / "x.tsv"))
    with pytest.raises(InputError, match=r"such as 's0', 's1', 's2'; found 'x0', .*none in common"):
        _convert(source, units="counts", labels=strangers, obs_columns=("tissue",))
    twice = str(_write(pd.concat([LABELS, LABELS[:1]]), tmp_path / "twice.tsv"))
    with pytest.raises(
        InputError, match=r"twice\.tsv: first column: .* 's0' at positions 1 and 41"
    ):
        _convert(source, units="counts", labels=twice)


def test_a_gene_column_becomes_gene_id(tmp_path: Path) -> None:
    table = pd.DataFrame({"gene": [f"G{i // 3}" for i in range(30)]}, index=GENES)
    table[::-1].to_csv(tmp_path / "tx2gene.tsv", sep="\t", index_label="transcript")
    adata, summary = _convert(
        _write(COUNTS, tmp_path / "m.tsv"), units="counts", var=str(tmp_path / "tx2gene.tsv")
    )
    assert adata.var["gene_id"].tolist() == table["gene"].tolist()
    assert summary.n_annotated == 30


@pytest.mark.parametrize("genes_as_rows", [False, True])
def test_labels_among_the_genes_are_taken_out(tmp_path: Path, genes_as_rows: bool) -> None:
    frame = COUNTS.astype(object)
    frame.insert(4, "tissue", LABELS["tissue"])
    frame.insert(0, "case", LABELS["case"])
    frame["rin"] = LABELS["rin"]
    source = _write(frame.T if genes_as_rows else frame, tmp_path / "m.tsv")
    adata, _ = _convert(
        source,
        units="counts",
        obs_columns=("tissue", "case", "rin"),
        genes_as_rows=genes_as_rows,
    )
    assert np.array_equal(adata.X, COUNTS) and adata.var_names.tolist() == GENES
    assert adata.obs["tissue"].tolist() == LABELS["tissue"].tolist()
    assert adata.obs["case"].astype(str).tolist() == LABELS["case"].tolist()
    np.testing.assert_allclose(adata.obs["rin"], LABELS["rin"])


def test_text_among_the_genes_is_named(tmp_path: Path) -> None:
    source = _write(COUNTS.assign(tissue=LABELS["tissue"]), tmp_path / "m.tsv")
    reason = r"line 2: .* found 'liver' in column 'tissue': the column holds no numbers: name it"
    with pytest.raises(InputError, match=reason):
        _convert(source, units="counts")
    with pytest.raises(InputError, match="expected the column 'tissues'"):
        _convert(source, units="counts", obs_columns=("tissues",))
    with pytest.raises(InputError, match="expected a row of labels named 'tissues'"):
        _convert(
            _write(COUNTS.T, tmp_path / "t.tsv"),
            units="counts",
            obs_columns=("tissues",),
            genes_as_rows=True,
        )


@pytest.mark.parametrize("frame", [COUNTS, LEVELS], ids=["counts", "levels"])
def test_a_column_of_zeros_and_ones_is_doubted(tmp_path: Path, frame: pd.DataFrame) -> None:
    source = _write(frame.assign(case=LABELS["case"]), tmp_path / "m.tsv")
    with pytest.warns(M1Warning, match=r"1 hold 0 and 1 only \(case\).*obs_columns case"):
        _convert(source, units="intensity")


def test_rare_genes_of_counts_are_not_doubted(tmp_path: Path) -> None:
    rare = pd.DataFrame(RNG.random((40, 60)) < 0.1, index=SAMPLES).astype(int).add_prefix("R")
    assert ((rare.sum() > 0) & (rare.sum() < 40)).sum() > 50
    _convert(_write(pd.concat([COUNTS, rare], axis=1), tmp_path / "m.tsv"), units="counts")


def test_doubtful_values_warn(tmp_path: Path) -> None:
    with pytest.warns(M1Warning, match="units are counts, but not all values are whole"):
        _convert(_write(LEVELS, tmp_path / "m.tsv"), units="counts")
    with pytest.warns(M1Warning, match="the units are not known: say them by units"):
        _convert(_write(LEVELS, tmp_path / "m.tsv"))


@pytest.fixture
def with_empty_cell(tmp_path: Path) -> Path:
    frame = COUNTS.copy()
    frame.loc["s5"] = 0
    return _write(frame, tmp_path / "m.tsv")


@pytest.mark.parametrize("log", [False, True])
def test_samples_without_counts_are_dropped(with_empty_cell: Path, log: bool) -> None:
    with pytest.warns(M1Warning, match=r"1 of 40 samples have a total of 0 \('s5'\): dropped"):
        adata, summary = _convert(
            with_empty_cell, units="counts", normalize="total", zero_total="drop", log2p1=log
        )
    expected = _normalised(COUNTS.drop(index="s5"), 1e6)
    np.testing.assert_allclose(adata.X, np.log2(1 + expected) if log else expected, rtol=1e-6)
    assert adata.obs_names.tolist() == [s for s in SAMPLES if s != "s5"]
    assert summary.dropped == ("s5",) and summary.n_samples == 39
    assert "1 dropped (total 0)" in str(summary)
    assert adata.uns["m1pipe"]["steps"][-1] == "dropped 1 sample with a total of 0"


def test_samples_without_counts_are_kept_at_zero(with_empty_cell: Path) -> None:
    with pytest.warns(M1Warning, match="kept at 0"):
        adata, _ = _convert(
            with_empty_cell, units="counts", normalize="median", zero_total="keep", log2p1=True
        )
    assert not adata["s5"].X.any() and np.isfinite(adata.X).all()
    totals = COUNTS.drop(index="s5").sum(axis=1)
    assert adata.uns["target_sum"] == np.median(totals)


def test_without_normalisation_an_empty_sample_is_kept_and_named(with_empty_cell: Path) -> None:
    with pytest.warns(M1Warning, match=r"1 of 40 samples have a total of 0 \('s5'\): kept at 0"):
        adata, _ = _convert(with_empty_cell, units="counts")
    assert adata.n_obs == 40


@pytest.mark.parametrize("genes_as_rows", [False, True])
def test_missing_values_are_kept_on_request(tmp_path: Path, genes_as_rows: bool) -> None:
    frame = LEVELS.astype(object)
    for position, word in enumerate(["", "NA", "NaN", "nan", "N/A", "null", "NULL"]):
        frame.iloc[2 * position, position] = word
    expected = frame.apply(pd.to_numeric, errors="coerce")
    assert expected.isna().to_numpy().sum() == 7
    source = _write(frame.T if genes_as_rows else frame, tmp_path / "m.tsv")
    settings_: dict[str, Any] = {"units": "tpm", "genes_as_rows": genes_as_rows}
    with pytest.raises(InputError, match=r"line 2: expected a number; found '?an empty field"):
        _convert(source, **settings_)
    adata, _ = _convert(source, **settings_, missing="keep")
    assert np.array_equal(adata.X, expected.to_numpy(dtype=np.float32), equal_nan=True)
    adata, _ = _convert(source, **settings_, missing="keep", normalize="total", log2p1=True)
    values = expected.to_numpy()
    scaled = values / np.nansum(values, axis=1, keepdims=True) * 1e6
    np.testing.assert_allclose(adata.X, np.log2(1 + scaled), rtol=1e-5)


def test_h5ad_and_flat_sources(tmp_path: Path) -> None:
    first = tmp_path / "counts.h5ad"
    labels = str(_write(LABELS, tmp_path / "labels.tsv"))
    convert(_write(COUNTS, tmp_path / "m.tsv"), first, ConvertConfig(units="counts", labels=labels))
    adata, summary = _convert(first, normalize="total", log2p1=True)
    np.testing.assert_allclose(adata.X, np.log2(1 + _normalised(COUNTS, 1e6)), rtol=1e-6)
    assert summary.units == Units("log2_cpm1") and "tissue" in adata.obs
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["expressions"] = LEVELS.to_numpy(dtype=np.float32)
        file["row_names"], file["col_names"] = SAMPLES, GENES
        file["tissue"] = LABELS["tissue"].tolist()
    adata, _ = _convert(tmp_path / "flat.h5", units="tpm", log2p1=True)
    np.testing.assert_allclose(adata.X, np.log2(1 + LEVELS), rtol=1e-5)
    assert adata.obs["tissue"].tolist() == LABELS["tissue"].tolist()
    with pytest.warns(M1Warning, match="says its units are counts; taken as normalized as asked"):
        _convert(first, units="normalized")
    with pytest.raises(InputError, match="are for text; found HDF5"):
        _convert(first, genes_as_rows=True)


def test_missing_values_of_an_h5ad_are_refused_or_kept(tmp_path: Path) -> None:
    values = LEVELS.to_numpy(dtype=np.float32)
    values[3, 4] = np.nan
    source = anndata.AnnData(values, obs=LABELS[[]], var=LEVELS.T[[]], uns={"units": "tpm"})
    source.write_h5ad(tmp_path / "in.h5ad")
    with pytest.raises(InputError, match=f"found nan in sample 's3', gene '{LEVELS.columns[4]}'"):
        _convert(tmp_path / "in.h5ad")
    adata, _ = _convert(tmp_path / "in.h5ad", missing="keep")
    assert np.array_equal(adata.X, values, equal_nan=True)


def test_the_record_says_how_it_was_made(tmp_path: Path) -> None:
    adata, _ = _convert(
        _write(COUNTS, tmp_path / "m.tsv"),
        units="intensity",
        floor=2.5,
        normalize="total",
        target_sum=1e4,
        log2p1=True,
    )
    record = adata.uns["m1pipe"]
    assert record["source"] == "m.tsv"
    assert record["steps"].tolist() == [
        "units intensity",
        "floor 2.5",
        "normalize total to 10000",
        "log2(1 + x)",
    ]


@pytest.mark.parametrize("large_bytes", [0, 2**40])
def test_memory_does_not_grow_with_the_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large_bytes: int
) -> None:
    compiled_scan()  # what it loads is not of the text
    monkeypatch.setattr("m1pipe.io.text.table._LARGE_BYTES", large_bytes)
    for module, name in [
        (loaded, "BLOCK_BYTES"),
        (loaded, "TRANSPOSE_BYTES"),
    ]:
        monkeypatch.setattr(module, name, 2**17)
    monkeypatch.setattr("m1pipe.io.text.lines._READ_BYTES", 2**17)
    config = ConvertConfig(units="counts", normalize="total", log2p1=True)
    wide = pd.concat([COUNTS] * 30, axis=1).set_axis([f"g{i}" for i in range(900)], axis=1)
    peaks, sizes = [], []
    for repeats in (10, 60):
        frame = pd.concat([wide] * repeats, ignore_index=True)
        source = _write(frame, tmp_path / "m.tsv")
        sizes.append(4 * frame.size)
        tracemalloc.start()
        convert(source, tmp_path / "x.h5ad", config, force=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # What still grows is the names of the samples.
    assert peaks[1] - peaks[0] < 0.2 * (sizes[1] - sizes[0]), (peaks, sizes)


def test_the_command_takes_a_config_file_and_typed_options_win(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _write(COUNTS, tmp_path / "m.tsv")
    config = tmp_path / "steps.toml"
    config.write_text('units = "counts"\nnormalize = "total"\ntarget_sum = 1e4\nlog2p1 = true\n')
    command = ["convert", str(source), str(tmp_path / "x.h5ad"), "--config", str(config)]
    assert run([*command, "--target-sum", "2e4"]) == 0
    out = capsys.readouterr().out.strip()
    assert out.endswith("40 samples x 30 genes, log2_normalized1 (target sum 20000)")
    assert "\n" not in out


def test_the_command_takes_every_option(tmp_path: Path) -> None:
    frame = COUNTS.assign(case=LABELS["case"], tissue=LABELS["tissue"]).T
    labels = _write(LABELS[["donor"]], tmp_path / "labels.tsv")
    lengths = tmp_path / "lengths.tsv"
    pd.Series(1000, index=GENES).to_csv(lengths, sep="\t", header=["length"])
    options = (
        "--from text --genes-as-rows --units counts --floor 0 --normalize tpm --log2p1 "
        f"--lengths {lengths} --labels {labels} --var {lengths} --obs-columns case,tissue "
        "--zero-total drop --missing keep --force"
    ).split()
    dest = tmp_path / "x.h5ad"
    assert run(["convert", str(_write(frame, tmp_path / "m.tsv")), str(dest), *options]) == 0
    adata = anndata.read_h5ad(dest)
    assert adata.shape == COUNTS.shape and adata.uns["units"] == "log2_tpm1"
    assert list(adata.obs.columns) == ["case", "tissue", "donor", "total_counts"]
    assert list(adata.var.columns) == ["length"]


@pytest.mark.parametrize(
    ("folder", "options", "expected"),
    [
        (
            "dma_golub",
            {"units": "intensity", "floor": 20.0, "log2p1": True},
            lambda X: np.log2(1 + np.maximum(X, 20)),
        ),
        (
            "tcga_rnaseq_6cancers",
            {"units": "normalized", "log2p1": True},
            lambda X: np.log2(1 + X),
        ),
        (
            "paired_scmixology",
            {
                "units": "counts",
                "normalize": "total",
                "target_sum": 1e4,
                "log2p1": True,
                "zero_total": "keep",
            },
            lambda X: np.log2(1 + X / np.maximum(X.sum(axis=1, keepdims=True), 1) * 1e4),
        ),
        ("lcl_rnaseq_counts", {"units": "counts"}, lambda X: X),
    ],
)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*total of 0")
def test_real_sets_are_those_of_pandas(
    test_data: Path, tmp_path: Path, folder: str, options: dict[str, Any], expected: Any
) -> None:
    source = test_data / folder / "genes.tsv.gz"
    frame = pd.read_csv(source, sep="\t", index_col=0)
    labels = test_data / folder / "labels.tsv"
    config = ConvertConfig(**options, labels=str(labels))
    convert(source, tmp_path / "x.h5ad", config)
    adata = anndata.read_h5ad(tmp_path / "x.h5ad")
    assert adata.obs_names.tolist() == frame.index.astype(str).tolist()
    assert adata.var_names.tolist() == frame.columns.tolist()
    np.testing.assert_allclose(adata.X, expected(frame.to_numpy(dtype=float)), rtol=2e-6)
    table = pd.read_csv(labels, sep="\t", index_col=0, dtype=str)
    for name in table.columns:
        assert adata.obs[name].astype(str).tolist() == table[name][adata.obs_names].tolist()
