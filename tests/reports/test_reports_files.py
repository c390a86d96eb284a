import json

import numpy as np
import pandas as pd
import pytest

from m1pipe.errors import Alarm, InputError
from m1pipe.reports.files import RESULT_FILES, read_result, write_tables

pytestmark = pytest.mark.usefixtures("figures_undrawn")

LEVELS = {"mean": 1.0, "ridge": 0.7, "vae": 0.5}
COMPARISON_COLUMNS = (
    "model_a model_b metric test difference ci_low ci_high statistic p p_holm effect n_independent"
).split()


@pytest.fixture
def written(planted, tmp_path):
    result = planted(LEVELS, {"vae": 3}, n_repeats=2, alarms=(Alarm("a", "severe", "Do not."),))
    write_tables(result, tmp_path / "cv")
    return result, tmp_path / "cv"


def test_reading_gives_what_was_written_bit_for_bit(written):
    result, folder = written
    again = read_result(folder)
    np.testing.assert_array_equal(again.samples, result.samples)
    np.testing.assert_array_equal(again.folds, result.folds)
    assert again.models == result.models
    for name in result.models:
        np.testing.assert_array_equal(again.losses[name], result.losses[name])
    np.testing.assert_array_equal(again.seed_losses["vae"], result.seed_losses["vae"])
    pd.testing.assert_frame_equal(again.scores, result.scores, check_exact=True)
    pd.testing.assert_frame_equal(again.comparisons, result.comparisons, check_exact=True)
    assert again.alarms[0] == result.alarms[0]
    assert again.info["linear_rival"] == "ridge"
    runs, expected = (r.info["encoders"]["vae"]["runs"] for r in (again, result))
    assert [run["history"] for run in runs] == [run["history"] for run in expected]


def test_writing_what_was_read_changes_nothing(written, tmp_path):
    _, folder = written
    write_tables(read_result(folder), tmp_path / "again")
    for name in set(RESULT_FILES) - {"losses.h5"}:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_the_tables_have_the_columns_of_the_contract(written):
    result, folder = written
    columns = {
        "folds.csv": ["sample", "repeat", "fold"],
        "scores.csv": ["model", "repeat", "fold", "metric", "value"],
        "comparisons.csv": COMPARISON_COLUMNS,
    }
    for name, expected in columns.items():
        assert list(pd.read_csv(folder / name).columns) == expected
    folds = pd.read_csv(folder / "folds.csv")
    assert len(folds) == 2 * len(result.samples)
    assert set(folds["sample"]) == set(result.samples)


def test_the_summary_holds_means_folds_comparisons_and_warnings(written):
    result, folder = written
    summary = json.loads((folder / "summary.json").read_text())
    mine = result.scores.query("model == 'vae' and metric == 'mse'")["value"]
    assert summary["models"]["vae"]["mse"] == pytest.approx(mine.mean(), rel=1e-12)
    np.testing.assert_allclose(summary["models"]["vae"]["folds"], mine, rtol=1e-12)
    assert len(summary["comparisons"]) == len(result.comparisons)
    assert summary["warnings"][0]["text"] == "Do not."
    assert "history" not in summary["info"]["encoders"]["vae"]["runs"][0]


def test_a_missing_score_is_nan_in_the_table_and_a_warning_in_the_summary(planted, tmp_path):
    result = planted(LEVELS, {"vae": 3})
    lost = (result.scores["model"] == "ridge") & (result.scores["metric"] == "r2")
    result.scores.loc[lost & (result.scores["fold"] < 2), "value"] = np.nan
    write_tables(result, tmp_path)
    assert "ridge,0,0,r2,NaN" in (tmp_path / "scores.csv").read_text()
    warnings = json.loads((tmp_path / "summary.json").read_text())["warnings"]
    assert [w["text"] for w in warnings] == ["R2 of ridge could not be computed in 2 of 5 folds."]


def test_the_constant_yardstick_needs_no_correlation(planted, tmp_path):
    result = planted(LEVELS, {"vae": 3})
    nan = result.scores.loc[result.scores["value"].isna(), ["model", "metric"]]
    assert set(nan.itertuples(index=False, name=None)) == {("mean", "pearson")}
    write_tables(result, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["warnings"] == []


def test_an_unfinished_folder_is_refused(written):
    _, folder = written
    (folder / "losses.h5").unlink()
    with pytest.raises(InputError, match=r"found no losses\.h5"):
        read_result(folder)


def test_a_file_that_is_not_ours_is_refused(written):
    _, folder = written
    (folder / "losses.h5").write_text("text")
    with pytest.raises(InputError, match=r"losses\.h5: expected losses written by m1pipe"):
        read_result(folder)
    (folder / "summary.json").write_text("{")
    with pytest.raises(InputError, match=r"summary\.json: expected JSON"):
        read_result(folder)


def test_a_single_model_and_no_comparison_survive(planted, tmp_path):
    result = planted({"mean": 1.0}, {})
    assert result.comparisons.empty
    write_tables(result, tmp_path)
    again = read_result(tmp_path)
    assert again.models == ["mean"]
    assert again.comparisons.empty
    assert dict(again.seed_losses) == {}
