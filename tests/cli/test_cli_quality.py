"""`m1pipe quality` from files to a folder with a report."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import pandas as pd
import pytest

from m1pipe.cli.main import run
from m1pipe.console import log
from m1pipe.synthesis import c2st

Make = Callable[..., anndata.AnnData]
QUICK = {"n_resamples": 4, "n_permutations": 19, "n_seeds": 2, "max_samples": 40}


@pytest.fixture(scope="module")
def files(expression: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """real.h5ad, synthetic.h5ad and holdout.h5ad of one law, donors apart, and quick.json."""
    folder = tmp_path_factory.mktemp("files")
    for seed, role in enumerate(("real", "synthetic", "holdout")):
        adata = expression(60, 30, seed=seed)
        adata.obs["donor"] = [f"{role} {name}" for name in adata.obs["donor"]]
        adata.write_h5ad(folder / f"{role}.h5ad")
    (folder / "quick.json").write_text(json.dumps(QUICK))
    return folder


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(c2st, "N_TREES", 10)
    yield
    log.handlers.clear()


def _quality(files: Path, out: Path, *arguments: str) -> int:
    roles = ("real", "synthetic", "holdout")
    named = [part for role in roles for part in (f"--{role}", str(files / f"{role}.h5ad"))]
    return run(
        ["quality", *named, "--out", str(out), "--config", str(files / "quick.json"), *arguments]
    )


def test_from_files_to_a_report(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "q"
    assert (
        _quality(files, out, "--label", "tissue", "--rivals", "--preset", "camda", "--seed", "3")
        == 0
    )
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{out / 'quality.html'}: Like real samples in ")
    assert "closer to training" in captured.out.splitlines()[-1]
    assert "warning: Only 60 samples a side" in captured.err
    assert "grouped by the column donor" in captured.err
    assert {path.name for path in out.iterdir()} == {
        "config.json", "provenance.json", "quality.html", "quality.json", "quality.csv",
        "missing_genes.csv",
    }  # fmt: skip
    config = json.loads((out / "config.json").read_text())
    assert (config["seed"], config["label"], config["n_resamples"]) == (3, "tissue", 4)
    stored = json.loads((out / "quality.json").read_text())
    table = pd.read_csv(out / "quality.csv")
    assert set(table["model"]) == set(stored["models"])
    assert len(stored["models"]) == 4
    for row in table.to_dict("records"):
        value = stored["models"][row["model"]][row["score"]]["value"]
        assert value == pytest.approx(row["value"]) or (value is None and math.isnan(row["value"]))
    page = (
        (out / "quality.html").read_text().replace("\N{NO-BREAK SPACE}", " ").replace("<wbr>", "")
    )
    for title in table["title"].unique():
        assert title in page
    assert "no guarantee of privacy" in page
    assert "http" not in page.split("</head>")[1].replace("http://www.w3.org", "")
    provenance = json.loads((out / "provenance.json").read_text())
    assert set(provenance["inputs"]) == {"real", "synthetic", "holdout"}


def test_the_stored_config_repeats_the_scores_and_reports_are_kept(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _quality(files, tmp_path / "a", "--max-genes", "20") == 0
    assert _quality(files, tmp_path / "b", "--config", str(tmp_path / "a" / "config.json")) == 0
    a, b = (tmp_path / name / "quality.csv" for name in "ab")
    assert a.read_bytes() == b.read_bytes()
    assert _quality(files, tmp_path / "a") == 1
    assert "overwrite with --force" in capsys.readouterr().err
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("text")
    assert _quality(files, tmp_path / "thesis", "--force") == 1
    assert "holds chapter.tex, which is no part of a quality report" in capsys.readouterr().err
    assert (tmp_path / "thesis" / "chapter.tex").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--preset", "camda"], 1, "--preset camda: expected --label COL"),
        (["--label", "disease"], 1, "label: expected a column"),
        (["--holdout", "none.h5ad"], 1, "none.h5ad"),
        (["--max-genes", "1"], 2, "max-genes: expected at least 2"),
        (["--group", "tissue"], 1, "group: expected donors of the hold-out apart"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    files: Path, tmp_path: Path, arguments: list[str], code: int, message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert _quality(files, tmp_path / "q", *arguments) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("m1pipe: error: ")
    assert message in error
    assert list(tmp_path.iterdir()) == []
