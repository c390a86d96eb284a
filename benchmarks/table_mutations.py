"""Random single edits of valid tables: never another matrix without a word, never a fault of ours.

A cell, a delimiter, a name, the header, a line dropped or doubled, of every kind of text that
`m1pipe convert` takes. An oracle reads the edited text by itself, strictly, knowing what the table
is: where that gives a matrix, `convert` must give the same one, warn, or refuse; where it gives
none, `convert` must warn or refuse. Exit code 70 is never right.

    python benchmarks/table_mutations.py --edits 3000 --out benchmarks/results/table_mutations.json
"""

import argparse
import contextlib
import io
import json
import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

from m1pipe.cli.main import run

SAMPLES = [f"S{i}" for i in range(1, 7)]
GENES = [f"ENSG0000000000{j}" for j in range(1, 6)]
COUNTS = np.random.default_rng(7).integers(1, 400, (len(SAMPLES), len(GENES)))
TISSUES = ["liver", "brain", "liver", "lung", "brain", "lung"]
NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
CELLS = [
    "",
    "NA",
    "x",
    "1,5",
    "1.234,5",
    "7",
    "-3",
    "1e3",
    " 12 ",
    "2.5",
    "1 2",
    "#N/A",
    "inf",
    "0",
]


@dataclass(frozen=True)
class Kind:
    """A kind of table: how a valid one is written, and how `convert` is told what it is.

    Attributes
    ----------
    text : str
        The valid table.
    delimiter : str
    options : tuple of str
        Of `convert`; TABLE stands for the table where that is no source.
    read : callable
        Cells of the edited table (header first) -> what comes out, or None where it is no table.
    source : str or None
        The source, where the table goes beside one.
    """

    text: str
    delimiter: str
    options: tuple[str, ...]
    read: Callable[[list[list[str]]], pd.DataFrame | None]
    source: str | None = None


def _table(rows: list[list[str]], delimiter: str) -> str:
    return "\n".join(delimiter.join(row) for row in rows) + "\n"


def _by_samples(corner: str = "sample") -> list[list[str]]:
    rows = [[s, *map(str, row)] for s, row in zip(SAMPLES, COUNTS, strict=True)]
    return [[corner, *GENES], *rows]


def _by_genes(*describing: tuple[str, list[str]]) -> list[list[str]]:
    head = ["gene", *(name for name, _ in describing), *SAMPLES]
    rows = [
        [g, *(cells[j] for _, cells in describing), *map(str, COUNTS[:, j])]
        for j, g in enumerate(GENES)
    ]
    return [head, *rows]


def _numbers(
    cells: list[list[str]], *, decimal: str = ".", skip: int = 0, short: bool = False
) -> pd.DataFrame | None:
    """The strict reading of a table of numbers: all rows alike, names once, numbers only."""
    if len(cells) < 2:
        return None
    head, *rows = cells
    names = [c.strip() for c in (head if short else head[1:])]
    if any(len(row) != len(names) + 1 for row in rows):
        return None
    index = [row[0].strip() for row in rows]
    for several in (names, index):
        if "" in several or len(set(several)) < len(several):
            return None
    table = []
    for row in rows:
        texts = [c.strip() for c in row[1 + skip :]]
        texts = [t.replace(decimal, ".") if decimal not in "." else t for t in texts]
        if not all(NUMBER.fullmatch(t) for t in texts):
            return None
        table.append([float(t) for t in texts])
    return pd.DataFrame(table, index, names[skip:], dtype=float)


def _turned(found: pd.DataFrame | None) -> pd.DataFrame | None:
    return None if found is None else found.T


def _gct(cells: list[list[str]]) -> pd.DataFrame | None:
    above = [[c.strip() for c in row if c.strip()] for row in cells[:2]]
    if len(cells) < 4 or above[0] != ["#1.2"]:
        return None
    if above[1] != [str(len(cells) - 3), str(len(cells[2]) - 2)]:
        return None
    return _turned(_numbers(cells[2:], skip=1))


def _labels(cells: list[list[str]], *, genes: bool = False) -> pd.DataFrame | None:
    """The matrix with the labels of every sample beside it; None where a label is not clear."""
    names, column = (GENES, "gene_id") if genes else (SAMPLES, "tissue")
    head, *rows = cells
    if any(len(row) != len(head) for row in rows) or len(head) != 2:
        return None
    known = {row[0].strip(): row[1].strip() for row in rows}
    if len(known) < len(rows) or set(names) - set(known) or head[0].strip() in names:
        return None
    matrix = pd.DataFrame(COUNTS.astype(float), SAMPLES, GENES)
    column = head[1].strip() if not genes or head[1].strip() != "gene" else column
    if not column:
        return None
    missing = ("", "NA", "#N/A")
    values = [np.nan if known[name] in missing else known[name] for name in names]
    if genes:
        matrix.loc[f"var {column}"] = values
    else:
        matrix[f"obs {column}"] = values
    return matrix


def _lengths(cells: list[list[str]]) -> pd.DataFrame | None:
    found = _numbers(cells)
    if found is None or set(GENES) - set(found.index) or (found.iloc[:, 0] < 1).any():
        return None
    rates = COUNTS / found.loc[GENES].iloc[:, 0].to_numpy()
    return pd.DataFrame(1e6 * rates / rates.sum(axis=1, keepdims=True), SAMPLES, GENES)


def kinds() -> dict[str, Kind]:
    """Every kind by its name."""
    counts = ("--units", "counts")
    genes = ("--genes-as-rows", *counts)
    plain = _table(_by_samples(), "\t")
    commas = [[c.replace(".", ",") for c in row] for row in _halves(_by_samples())]
    gct = [["#1.2"], [str(len(GENES)), str(len(SAMPLES))]]
    gct += [
        [*row[:1], f"sym{i}" if i else "Description", *row[1:]] for i, row in enumerate(_by_genes())
    ]
    gct[2][0] = "Name"
    lengths = [str(1000 * (j + 1)) for j in range(len(GENES))]
    described = _by_genes(("Chr", ["c1"] * 5), ("Length", lengths))
    var = [["gene_name", "gene"], *([g, f"G{j}"] for j, g in enumerate(GENES))]
    labels = [["sample", "tissue"], *map(list, zip(SAMPLES, TISSUES, strict=True))]
    of_lengths = [["gene", "length"], *map(list, zip(GENES, lengths, strict=True))]
    short = _by_samples()
    short[0] = short[0][1:]
    table = "TABLE"
    return {
        "samples as rows": Kind(plain, "\t", counts, _numbers),
        "comma-separated": Kind(_table(_by_samples("id"), ","), ",", counts, _numbers),
        "genes as rows": Kind(
            _table(_by_genes(), "\t"), "\t", genes, lambda c: _turned(_numbers(c))
        ),
        "R's short header": Kind(
            _table(short, "\t"), "\t", counts, lambda c: _numbers(c, short=True)
        ),
        "decimal commas": Kind(
            _table(commas, ";"),
            ";",
            ("--units", "intensity", "--decimal", ","),
            lambda c: _numbers(c, decimal=","),
        ),
        "described genes": Kind(
            _table(described, "\t"), "\t", genes, lambda c: _turned(_numbers(c, skip=2))
        ),
        "GCT": Kind(_table(gct, "\t"), "\t", counts, _gct),
        "labels": Kind(_table(labels, "\t"), "\t", (*counts, "--labels", table), _labels, plain),
        "annotations": Kind(
            _table(var, ","),
            ",",
            (*counts, "--var", table),
            lambda c: _labels(c, genes=True),
            plain,
        ),
        "lengths": Kind(
            _table(of_lengths, "\t"),
            "\t",
            (*counts, "--normalize", "tpm", "--lengths", table),
            _lengths,
            plain,
        ),
    }


def _halves(rows: list[list[str]]) -> list[list[str]]:
    return [rows[0], *([row[0], *(f"{c}.5" for c in row[1:])] for row in rows[1:])]


def edit(text: str, delimiter: str, rng: np.random.Generator) -> tuple[str, str]:
    """One random edit: the new text, and what was done in words."""
    lines = text.split("\n")[:-1]
    cells = [line.split(delimiter) for line in lines]
    i = int(rng.integers(len(cells)))
    j = int(rng.integers(len(cells[i])))
    way = str(rng.choice(WAYS))
    if way == "cell":
        cells[i][j] = str(rng.choice(CELLS))
    elif way == "character":
        old = cells[i][j]
        place = int(rng.integers(len(old) + 1))
        cells[i][j] = old[:place] + str(rng.choice(list("aZ0_-. "))) + old[place:]
    elif way == "character lost":
        place = int(rng.integers(max(len(cells[i][j]), 1)))
        cells[i][j] = cells[i][j][:place] + cells[i][j][place + 1 :]
    elif way == "cell lost":
        del cells[i][j]
    elif way == "cell doubled":
        cells[i].insert(j, cells[i][j])
    elif way == "neighbour's name":
        cells[i][0] = cells[i - 1][0]
    elif way == "delimiter lost" and len(cells[i]) > 1:
        j = min(j, len(cells[i]) - 2)
        cells[i][j : j + 2] = ["".join(cells[i][j : j + 2])]
    elif way == "delimiter doubled":
        cells[i].insert(j, "")
    elif way == "another delimiter" and len(cells[i]) > 1:
        j = min(j, len(cells[i]) - 2)
        other = str(rng.choice([d for d in "\t,; |" if d != delimiter]))
        cells[i][j : j + 2] = [other.join(cells[i][j : j + 2])]
    elif way == "delimiter behind":
        cells[i].append("")
    elif way == "line lost":
        del cells[i]
    elif way == "line doubled":
        cells.insert(i, list(cells[i]))
    elif way == "lines swapped":
        k = int(rng.integers(len(cells)))
        cells[i], cells[k] = cells[k], cells[i]
    elif way == "blank line":
        cells.insert(i, [""])
    elif way == "header lost":
        del cells[0]
    return _table(cells, delimiter), f"{way} at line {i + 1}, field {j + 1}"


WAYS = (
    "cell",
    "character",
    "character lost",
    "cell lost",
    "cell doubled",
    "neighbour's name",
    "delimiter lost",
    "delimiter doubled",
    "another delimiter",
    "delimiter behind",
    "line lost",
    "line doubled",
    "lines swapped",
    "blank line",
    "header lost",
)


def expected(kind: Kind, text: str) -> pd.DataFrame | None:
    """What the edited table says, read strictly; None where it says nothing for certain."""
    lines = text.split("\n")
    while lines and lines[-1] == "":
        del lines[-1]
    cells = [line.split(kind.delimiter) for line in lines]
    known = [line.split(kind.delimiter) for line in kind.text.split("\n")[:-1]]
    if "#1.2" in kind.text:
        return kind.read(cells)
    beside = kind.source is not None
    if beside:  # a row of no sample or gene is of no account
        cells[1:] = [row for row in cells[1:] if row != known[0]]
    if cells and cells[0] == [*known[0], ""]:
        cells[0] = known[0]  # a delimiter behind the header shifts nothing
    if cells and cells[0] == known[0][1:] and len(cells[0]) == len(cells[-1]) - 1:
        cells[0] = known[0]  # the rows' own name needs no name
    heads = [row[1:] for row in known[1:]]
    if not cells or cells[0][1:] in heads or any(row[1:] == known[0][1:] for row in cells[1:]):
        return None  # the header was lost or moved: whatever stands there is no header
    return kind.read(cells)


def outcome(kind: Kind, text: str, folder: Path) -> tuple[int, str, pd.DataFrame | None]:
    """Exit code of `convert`, what it said, and what it wrote."""
    table, dest = folder / "table.txt", folder / "x.h5ad"
    table.write_text(text)
    source = table
    if kind.source is not None:
        source = folder / "source.tsv"
        source.write_text(kind.source)
    options = [str(table) if option == "TABLE" else option for option in kind.options]
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            code = run(["-q", "convert", str(source), str(dest), *options, "--force"])
    if code != 0:
        return code, said.getvalue(), None
    data = ad.read_h5ad(dest)
    found = pd.DataFrame(np.asarray(data.X, dtype=float), data.obs_names, data.var_names)
    if "--labels" in kind.options:
        for column in data.obs:
            found[f"obs {column}"] = data.obs[column].astype(object)
    elif "--var" in kind.options:
        for column in data.var:
            found.loc[f"var {column}"] = data.var[column].astype(object).to_numpy()
    return code, said.getvalue(), found


def same(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether two tables have the same names in the same order, and the same values."""
    if list(one.index) != list(other.index) or list(one.columns) != list(other.columns):
        return False
    for a, b in zip(one.to_numpy().ravel(), other.to_numpy().ravel(), strict=True):
        try:
            if not np.isclose(float(a), float(b), rtol=1e-5, equal_nan=True):
                return False
        except (TypeError, ValueError):
            if str(a) != str(b):
                return False
    return True


def judge(kind: Kind, text: str, folder: Path) -> tuple[str, str]:
    """Whether the result is the same, warned of, refused or wrong; and what was said."""
    right = expected(kind, text)
    code, said, found = outcome(kind, text, folder)
    if code == 1:
        return ("refused" if right is None else "refused though readable"), said
    if code != 0 or found is None:
        return f"WRONG: exit code {code}", said
    if right is not None and same(found, right):
        return "same", said
    if "warning" in said:
        return "warned", said
    return "WRONG: another matrix without a word", said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--edits", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    begun, rng, all_kinds = time.perf_counter(), np.random.default_rng(options.seed), kinds()
    counts: dict[str, Counter[str]] = {name: Counter() for name in all_kinds}
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        for n in range(options.edits):
            name = list(all_kinds)[n % len(all_kinds)]
            text, done = edit(all_kinds[name].text, all_kinds[name].delimiter, rng)
            verdict, said = judge(all_kinds[name], text, Path(folder))
            counts[name][verdict] += 1
            if verdict.startswith("WRONG"):
                wrong.append({"kind": name, "edit": done, "verdict": verdict, "text": text})
                print(f"{name}: {done}: {verdict}\n{text}{said[-600:]}")
    for name, found in counts.items():
        print(f"{name:18s} {dict(sorted(found.items()))}")
    print(f"{len(wrong)} of {options.edits} wrong, {time.perf_counter() - begun:.0f} s")
    if options.out:
        settings = {"edits": options.edits, "seed": options.seed}
        result = {"settings": settings, "wrong": wrong, "counts": counts}
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
