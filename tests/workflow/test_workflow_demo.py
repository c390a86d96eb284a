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

PAIR = ("vae", "logistic")


@pytest.mark.slow
def test_the_demo_ends_in_a_verdict_and_the_paths_of_two_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "with space" / "demo"
    assert run(["-q", "demo", "--out", str(out), "--size", "tiny", "--epochs", "3"]) == 0
    quality, verdict, *reports = capsys.readouterr().out.strip().splitlines()[-4:]
    page = Path(quality.removeprefix("synthetic samples: "))
    assert page == out / "runs" / "quality" / "quality.html"
    scores = pd.read_csv(page.with_name("quality.csv")).set_index("score")["value"]
    assert 0 < scores["ks_mean"] < 0.3 and scores["tstr_over_trtr"] > 0.5
    assert anndata.read_h5ad(out / "synthetic.h5ad").obs["synthetic"].all()
    pages = [Path(line.partition(": ")[2]) for line in reports]
    assert pages == [out / "runs" / run / "report.html" for run in ("cell_types", "isoforms")]
    few, many = (read_result(page.parent) for page in pages)
    assert isinstance(few, CrossvalResult) and isinstance(many, CrossvalResult)
    assert {"prior", "logistic", "pca_linear", "vae_linear", "vae"} == set(few.models)
    assert few.seed_losses["vae"].shape[0] == N_SEEDS
    curve = few.curve.query("n_train == 20 and metric == 'log_loss'")
    from_latents, from_genes = (curve.query(f"model == '{m}'")["value"].mean() for m in PAIR)
    assert from_latents < from_genes / 2
    assert verdict.startswith("M1 pays with 20 labels (log loss 0.")
    assert f" {from_latents:.2g}, genes {from_genes:.2g})" in verdict
    assert len(verdict) <= 120
    from_latents, from_genes = (many.losses[m].mean() for m in ("vae", "ridge"))
    assert from_genes < from_latents and "but does not pay with 96 (squared error" in verdict
    assert f" {from_latents:.2g}, genes {from_genes:.2g})" in verdict
    assert len(verdict) <= 120
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
