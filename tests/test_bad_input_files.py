"""Bad files: exit code 1, one line that says what and where, and nothing left behind."""

import gzip
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from m1pipe.cli.main import run

HEADER = "sample\tG1\tG2\tG3\n"
GOOD = HEADER + "s1\t1\t2\t3\ns2\t4\t5\t6\n"
COUNTS = ["--units", "counts"]
NORMALISED = [*COUNTS, "--normalize", "total"]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `convert` on a text, expect a refusal, return its line."""

    def convert(content: str | bytes, *options: str, name: str = "genes.tsv") -> str:
        source = tmp_path / name
        source.write_bytes(content.encode() if isinstance(content, str) else content)
        before = sorted(tmp_path.iterdir())
        code = run(["convert", str(source), str(tmp_path / "x.h5ad"), *(options or COUNTS)])
        lines = capsys.readouterr().err.strip().splitlines()
        assert code == 1 and len(lines) == 1, (code, lines)
        assert lines[0].startswith("m1pipe: error: ")
        assert sorted(tmp_path.iterdir()) == before, "something was left behind"
        return lines[0]

    return convert


def test_the_good_text_is_good(tmp_path: Path) -> None:
    (tmp_path / "genes.tsv").write_text(GOOD)
    assert run(["convert", str(tmp_path / "genes.tsv"), str(tmp_path / "x.h5ad"), *COUNTS]) == 0


@pytest.mark.parametrize("cut", [12, 60, 2000, -9, -3])
def test_truncated_gzip(refused: Callable[..., str], cut: int) -> None:
    numbers = np.random.default_rng(0).integers(0, 999, (400, 3))
    rows = "".join(f"s{i}\t{a}\t{b}\t{c}\n" for i, (a, b, c) in enumerate(numbers))
    whole = gzip.compress((HEADER + rows).encode())
    line = refused(whole[:cut], name="genes.tsv.gz")
    assert "genes.tsv.gz: the compressed file ends too early" in line


def test_damaged_gzip(refused: Callable[..., str]) -> None:
    whole = bytearray(gzip.compress(GOOD.encode()))
    whole[-8] ^= 0xFF
    assert "genes.tsv.gz: could not be read: CRC check failed" in refused(
        bytes(whole), name="genes.tsv.gz"
    )


@pytest.mark.parametrize(
    ("row", "n_fields"), [("s3\t7\t8", 3), ("s3\t7\t8\t9\t10", 5), ("s3\t7\t8\t9\t", 5), ("s3", 1)]
)
def test_ragged_line(refused: Callable[..., str], row: str, n_fields: int) -> None:
    line = refused(f"{GOOD}{row}\ns4\t1\t1\t1\n")
    assert f"line 4: expected 4 fields as in the header; found {n_fields}" in line


def test_ragged_line_with_genes_as_rows(refused: Callable[..., str]) -> None:
    assert "line 4: expected 4 fields" in refused(f"{GOOD}s3\t7\n", "--genes-as-rows", *COUNTS)


def test_all_lines_wider_than_the_header(refused: Callable[..., str]) -> None:
    line = refused("sample\tG1\ns1\t1\t2\t3\ns2\t4\t5\t6\n")
    assert "line 2: expected 2 fields as in the header; found 4" in line


@pytest.mark.parametrize("word", ["", "NA", "NaN", "nan", "null"])
def test_missing_value(refused: Callable[..., str], word: str) -> None:
    line = refused(f"{GOOD}s3\t7\t{word}\t9\n")
    assert f"line 4: expected a number; found {word or 'an empty field'!r} in column 'G2'" in line
    assert "--missing keep" in line


@pytest.mark.parametrize("word", ["liver", "1,5", "12abc", "1_000", "0x1F", "inf", "1e99", "1 2"])
def test_text_in_a_number(refused: Callable[..., str], word: str) -> None:
    line = refused(f"{GOOD}s3\t7\t{word}\t9\n")
    assert f"line 4: expected a number; found {word!r} in column 'G2'" in line


def test_duplicate_sample_ids(refused: Callable[..., str]) -> None:
    line = refused(f"{GOOD}s1\t7\t8\t9\n")
    assert "line 4: expected each name once; found 's1' again, first on line 2" in line


def test_duplicate_gene_names(refused: Callable[..., str]) -> None:
    line = refused(GOOD.replace("G3", "G1"))
    assert "line 1: expected each column name once; found 'G1' again in column 4" in line


def test_duplicate_gene_names_as_rows(refused: Callable[..., str]) -> None:
    text = "gene\ta\tb\nG1\t1\t2\nG2\t3\t4\nG1\t5\t6\n"
    assert "found 'G1' again, first on line 2" in refused(text, "--genes-as-rows", *COUNTS)


GENES = [f"ENSG{i:011d}.3" for i in range(3)]


@pytest.mark.parametrize(
    ("rows", "columns", "options", "reason"),
    [
        (GENES, ["s1", "s2"], [], "found 3 of 3 named like genes ('ENSG00000000000.3'): the table"),
        (["s1", "s2"], GENES, ["--genes-as-rows"], "the table is transposed: "),
        (
            ["s1", GENES[0]],
            GENES[1:],
            [],
            "found 1 of 2 named like genes ('ENSG00000000000.3'), and",
        ),
    ],
)
def test_mixed_orientation(
    refused: Callable[..., str],
    rows: list[str],
    columns: list[str],
    options: list[str],
    reason: str,
) -> None:
    text = "\t".join(["id", *columns]) + "\n"
    text += "".join("\t".join([row, *("1" * len(columns))]) + "\n" for row in rows)
    assert reason in refused(text, *COUNTS, *options)


def test_negative_counts(refused: Callable[..., str]) -> None:
    line = refused(f"{GOOD}s3\t7\t-8\t9\n")
    assert "for units counts; found -8 in sample 's3', gene 'G2'" in line


def test_samples_that_no_label_knows(refused: Callable[..., str], tmp_path: Path) -> None:
    labels = tmp_path / "labels.tsv"
    labels.write_text("sample\ttissue\n" + "".join(f"other{i}\tliver\n" for i in range(4)))
    line = refused(GOOD, *COUNTS, "--labels", str(labels))
    assert "such as 's1', 's2'; found 'other0', 'other1', 'other2', and none in common" in line


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD.replace("G2", " "), "line 1: column 3 has no name"),
        (GOOD.replace("s2", ""), "line 3: expected a name in the first field; found none"),
        (GOOD.replace("s2", "\ns2"), "line 3: expected a row; found an empty line"),
        ("just words\n", "line 1: expected names separated by tabs or commas; found 'just words'"),
    ],
)
def test_odd_lines(refused: Callable[..., str], text: str, reason: str) -> None:
    assert reason in refused(text)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_empty_file(refused: Callable[..., str], pack: Callable[[bytes], bytes]) -> None:
    assert "genes.tsv: expected a header line; found an empty file" in refused(pack(b""))


def test_header_only(refused: Callable[..., str]) -> None:
    assert "expected rows below the header; found the header only" in refused(HEADER)


def test_binary_file(refused: Callable[..., str]) -> None:
    assert "expected delimited text; found a binary file" in refused(b"\x7fELF\0\0\0stuff")
    assert "could not be unpacked: File is not a zip file" in refused(b"PK\x03\x04\0\0\0stuff")
    assert "expected UTF-8 text" in refused(GOOD.replace("G2", "\xe9").encode("latin-1"))


def test_zero_total_under_normalize(refused: Callable[..., str]) -> None:
    line = refused(f"{GOOD}s3\t0\t0\t0\ns4\t0\t0\t0\n", *NORMALISED)
    assert "2 of 4 samples have a total of 0 ('s3', 's4') and cannot be normalised" in line
    assert "--zero-total drop" in line


def test_zero_total_everywhere(refused: Callable[..., str]) -> None:
    text = HEADER + "s1\t0\t0\t0\n"
    assert "1 of 1 samples" in refused(text, *NORMALISED, "--zero-total", "drop")


def test_negative_before_the_logarithm(refused: Callable[..., str]) -> None:
    line = refused(f"{GOOD}s3\t7\t-8\t9\n", "--units", "intensity", "--log2p1")
    assert "for the logarithm; found -8 in sample 's3', gene 'G2': intensities are" in line
    assert "--floor" in line


def test_source_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, expected in [
        ("none.tsv", "expected a text file; found none of that name"),
        (".", "expected a folder of 10x with matrix.mtx (.gz), or one of salmon"),
    ]:
        assert run(["convert", str(tmp_path / name), str(tmp_path / "x.h5ad"), *COUNTS]) == 1
        assert expected in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_existing_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, dest = tmp_path / "genes.tsv", tmp_path / "x.h5ad"
    source.write_text(GOOD)
    dest.write_text("precious")
    assert run(["convert", str(source), str(dest), *COUNTS]) == 1
    assert "x.h5ad exists already" in capsys.readouterr().err
    assert dest.read_text() == "precious"
    assert run(["convert", str(source), str(source), *COUNTS, "--force"]) == 1
    assert "source and destination are the same file" in capsys.readouterr().err
    assert source.read_text() == GOOD


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads and writes everything")
def test_files_without_permission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "genes.tsv"
    source.write_text(GOOD)
    source.chmod(0)
    assert run(["convert", str(source), str(tmp_path / "x.h5ad"), *COUNTS]) == 1
    assert "genes.tsv: could not be read: Permission denied" in capsys.readouterr().err


def test_a_file_that_cannot_be_opened(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("m1pipe.io.text.lines.open", forbidden, raising=False)
    assert "genes.tsv: could not be read: Permission denied" in refused(GOOD)


@pytest.fixture
def inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Path], str]:
    """Run `inspect` on a file, expect a refusal, return its line."""

    def inspect(path: Path) -> str:
        assert run(["inspect", str(path)]) == 1
        captured = capsys.readouterr()
        lines = captured.err.strip().splitlines()
        assert len(lines) == 1 and captured.out == "", captured
        return lines[0]

    return inspect


def test_not_hdf5(tmp_path: Path, inspected: Callable[[Path], str]) -> None:
    (tmp_path / "x.h5ad").write_text(GOOD)
    line = inspected(tmp_path / "x.h5ad")
    assert "x.h5ad: expected an HDF5 file (h5ad or flat); found another kind of file" in line
    assert "m1pipe convert" in line


def test_hdf5_without_a_known_layout(tmp_path: Path, inspected: Callable[[Path], str]) -> None:
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        file["data/values"], file["info"] = [[1]], [2]
    line = inspected(tmp_path / "odd.h5")
    assert "odd.h5: expected h5ad (X, obs, var), flat HDF5 (expressions, row_names" in line
    assert "found the keys data, info" in line


def test_truncated_hdf5(tmp_path: Path, inspected: Callable[[Path], str]) -> None:
    path = tmp_path / "cut.h5"
    with h5py.File(path, "w") as file:
        file["X"] = np.ones((300, 300))
    path.write_bytes(path.read_bytes()[:5000])
    assert "cut.h5: could not be read as HDF5" in inspected(path)


def test_hdf5_that_is_empty_or_not_there(tmp_path: Path, inspected: Callable[[Path], str]) -> None:
    (tmp_path / "empty.h5ad").touch()
    assert "expected an HDF5 file; found an empty file" in inspected(tmp_path / "empty.h5ad")
    assert "expected a file; there is none of that name" in inspected(tmp_path / "none.h5ad")
    assert "expected a file; found a folder" in inspected(tmp_path)


@pytest.mark.parametrize("when", ["load.load_text", "convert.apply_steps"])
def test_ctrl_c_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], when: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"m1pipe.io.conversion.{when}", interrupted)
    (tmp_path / "genes.tsv").write_text(GOOD)
    assert run(["convert", str(tmp_path / "genes.tsv"), str(tmp_path / "x.h5ad"), *COUNTS]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["genes.tsv"]


READS_SLOWLY = """
import signal, sys, time
from m1pipe.cli.main import main
from m1pipe.io.text import lines

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

def slow(*arguments):
    for chunk in chunks(*arguments):
        print("reading", flush=True)
        time.sleep(0.05)
        yield chunk

chunks, lines._chunks, lines._READ_BYTES = lines._chunks, slow, 64
main(sys.argv[1:])
"""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_signal_in_the_middle_leaves_nothing(tmp_path: Path, sent: int, code: int) -> None:
    rows = "".join(f"s{i}\t1\t2\t3\n" for i in range(2000))  # ten seconds of reading
    (tmp_path / "genes.tsv").write_text(HEADER + rows)
    files = [str(tmp_path / "genes.tsv"), str(tmp_path / "x.h5ad")]
    command = [sys.executable, "-c", READS_SLOWLY, "convert", *files, *COUNTS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        process.send_signal(sent)
        assert process.wait(timeout=60) == code
    assert [p.name for p in tmp_path.iterdir()] == ["genes.tsv"]


FILLS_THE_DISK = """
import resource, sys
from m1pipe.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
main(sys.argv[2:])
"""


@pytest.mark.parametrize("limit", [1000, 3_000_000])
def test_a_full_disk_leaves_nothing(tmp_path: Path, limit: int) -> None:
    # The limit on a file's size stands in for a full disk: writing fails in the same places.
    # The smaller one is met by the temporary copy, the larger one by the destination, whose
    # reserve for annotations is larger than the values.
    source = tmp_path / "genes.tsv"
    names = "\t".join(f"{'long' * 8}{i}" for i in range(20_000))
    row = "\t1" * 20_000
    source.write_text(f"sample\t{names}\n" + "".join(f"s{i}{row}\n" for i in range(10)))
    command = [sys.executable, "-c", FILLS_THE_DISK, str(limit), "convert", str(source)]
    done = subprocess.run(
        [*command, str(tmp_path / "x.h5ad"), *COUNTS],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    reason = "no room for a temporary copy" if limit == 1000 else "nothing is left of it"
    assert reason in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["genes.tsv"]
