"""The demo: every stage leaves its result, and nothing that is not a demo is ever removed."""

from pathlib import Path

import anndata
import pandas as pd
import pytest

from m1pipe.cli.main import run
from m1pipe.errors import InputError
from m1pipe.evaluation.result import CrossvalResult
from m1pipe.reports.files import read_result
from m1pipe.workflow.demo import N_SEEDS, run_demo


@pytest.mark.slow
def test_the_demo_ends_in_the_path_of_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "with space" / "demo"
    assert run(["-q", "demo", "--out", str(out), "--size", "tiny", "--epochs", "3"]) == 0
    quality, last = capsys.readouterr().out.strip().splitlines()[-2:]
    page = Path(quality.removeprefix("synthetic samples: "))
    assert page == out / "runs" / "quality" / "quality.html"
    scores = pd.read_csv(page.with_name("quality.csv")).set_index("score")["value"]
    assert 0 < scores["ks_mean"] < 0.3 and scores["tstr_over_trtr"] > 0.5
    assert anndata.read_h5ad(out / "synthetic.h5ad").obs["synthetic"].all()
    report = Path(last.removeprefix("report: "))
    assert report.is_file() and report == out / "runs" / "cv" / "report.html"
    result = read_result(report.parent)
    assert isinstance(result, CrossvalResult)
    assert {"mean", "ridge", "raw", "pca", "vae", "ae"} <= set(result.models)
    assert result.seed_losses["vae"].shape[0] == N_SEEDS
    again = ["-q", "demo", "--out", str(out), "--size", "tiny", "--epochs", "1"]
    assert run(again) == 1
    assert run([*again, "--force"]) == 0


def test_a_folder_that_is_no_demo_is_kept(tmp_path: Path) -> None:
    precious = tmp_path / "thesis.txt"
    precious.write_text("years of work")
    for force in (False, True):
        with pytest.raises(InputError, match="exists already"):
            run_demo(tmp_path, force=force)
    assert precious.read_text() == "years of work"
