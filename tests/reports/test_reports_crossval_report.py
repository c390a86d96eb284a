import base64
import copy
import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest
from pages import Page, assert_as_kept, assert_browser_shows

from m1pipe.errors import Alarm
from m1pipe.evaluation.result import ladder_table
from m1pipe.reports.crossval_report import report_html, write_report
from m1pipe.reports.files import RESULT_FILES
from m1pipe.reports.terms import GUARDS

LEVELS = {"mean": 1.0, "ridge": 0.7, "raw": 0.8, "vae": 0.5}
ALARMS = (
    Alarm("leak", "severe", "3 donors stand on both sides of a split & <more>."),
    Alarm("depth", "warning", "5 latent units follow library size."),
    Alarm("coverage", "note", "12 genes were missing."),
)


@pytest.fixture
def build(planted, provenance, settings):
    def make(result=None, **facts):
        result = result or planted(LEVELS, {"vae": 3}, **facts)
        return Page(report_html(result, provenance=provenance, config=settings))

    return make


def test_the_page_is_whole_and_refers_to_nothing_outside(build):
    page = build(alarms=ALARMS)
    assert page.open == []
    assert "script" not in page.tags
    assert page.references
    assert all(reference.startswith(("data:", "#")) for reference in page.references)


def test_nothing_inside_the_style_or_the_figures_is_fetched(planted, provenance, settings):
    text = report_html(planted(LEVELS, {"vae": 3}), provenance=provenance, config=settings)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "@import" not in style
    assert "url(" not in style
    figures = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", text)
    assert len(figures) >= 4
    for figure in figures:
        svg = base64.b64decode(figure).decode()
        links = re.findall(r'(?:href|src)="([^"]*)"', svg)
        assert all(link.startswith("#") for link in links)


def test_every_alarm_is_shown_the_severe_ones_before_the_answer(build):
    page = build(alarms=ALARMS)
    for alarm in ALARMS:
        assert alarm.text in page.text
    assert page.text.index(ALARMS[0].text) < page.text.index("Answer")
    assert "should not be believed" in page.text
    assert "should not be believed" not in build(alarms=ALARMS[1:]).text


def test_guards_are_listed_with_what_they_found(planted, tmp_path):
    result = planted(LEVELS, {"vae": 3})
    alarm = Alarm("dead_units", "warning", "3 of 8 units are dead.")
    page = Page(report_html(dataclasses.replace(result, alarms=[alarm]), provenance={}, config={}))
    found, others = re.search(
        r"Found \(at the top of the page\): (.*?)\. Not found: (.*?)\.", page.text
    ).groups()
    assert found == "dead units"
    assert set(others.split("; ")) == set(GUARDS.values()) - {GUARDS["dead_units"]}
    write_report(dataclasses.replace(result, alarms=[alarm]), tmp_path)
    counts = json.loads((tmp_path / "summary.json").read_text())["guards"]
    assert counts["dead_units"] == 1 and counts["weak_encoder"] == 0


def test_a_score_that_is_not_a_number_is_an_error_not_a_blank(planted, build):
    result = planted(LEVELS, {"vae": 3})
    lost = (result.scores["model"] == "ridge") & (result.scores["metric"] == "r2")
    result.scores.loc[lost, "value"] = np.nan
    page = build(result)
    assert page.absent == [("ridge",)]
    assert "not computed" in page.row("ridge")
    assert "R2 of ridge could not be computed in 5 of 5 folds." in page.text


def test_a_missing_loss_does_not_hide(planted, build):
    result = planted(LEVELS, {"vae": 3})
    result.comparisons.loc[result.comparisons["model_b"] == "raw", ["p", "p_holm", "ci_low"]] = (
        np.nan
    )
    page = build(result)
    assert "vae and raw could not be compared" in page.text


def test_the_ladder_shows_means_shares_and_spreads(planted, build):
    result = planted(LEVELS, {"vae": 3})
    row = build(result).row("vae")
    by_fold = result.scores.query("model == 'vae' and metric == 'mse'")["value"]
    base = result.scores.query("model == 'mean' and metric == 'mse'")["value"]
    by_seed = result.seed_losses["vae"].mean(axis=(1, 2))
    shown = [float(cell) for cell in row[1:6]]
    expected = [
        by_fold.mean(),
        by_fold.std(ddof=1),
        by_fold.mean() / base.mean(),
        3,
        by_seed.std(ddof=1),
    ]
    np.testing.assert_allclose(shown, expected, atol=6e-4)


def test_the_fold_table_is_that_of_the_paper(planted, build):
    from scipy.stats import ttest_rel

    result = planted(LEVELS, {"vae": 3})
    page = build(result)
    here = result.folds[0] == 1
    losses = {name: loss[0][here] for name, loss in result.losses.items()}
    row = page.row("2", str(here.sum()))
    np.testing.assert_allclose(
        [float(cell) for cell in row[2:6]], [v.mean() for v in losses.values()], atol=6e-4
    )
    assert ttest_rel(losses["vae"], losses["raw"]).pvalue < 1e-3
    assert row[6] == "< 0.001"
    assert "describe the models fitted in that fold" in page.text


def test_equal_losses_within_a_fold_are_no_crash(planted, build):
    result = planted(LEVELS, {"vae": 3})
    losses = dict(result.losses) | {"vae": result.losses["ridge"].copy()}
    page = build(dataclasses.replace(result, losses=losses))
    assert page.open == []


def test_direction_units_and_family_are_stated(build):
    text = build().text
    assert "lower is better" in text
    assert "negative difference favours the first" in text
    assert "log2_normalized1\N{SUPERSCRIPT TWO}" in text
    assert "Holm over 3" in text
    assert "describe the models trained here" in text


def test_the_data_and_what_each_model_saw_are_listed(build):
    page = build(n_groups=8, group="donor")
    assert page.row("inputs (X)")[1].startswith("968 genes, log2_normalized1")
    assert page.row("targets (Y)")[1].startswith("1,505 targets")
    assert "8 donors (by donor)" in page.row("donors")[1]
    assert page.row("samples")[1] == "150 samples paired by sample id (991 in X, 991 in Y)"
    assert page.row("vae", page.row("vae")[1])
    assert "867 samples of runs/u.h5ad" in page.text


def test_provenance_names_command_version_and_hashes(build, provenance):
    text = build().text
    assert provenance["command"] in text
    assert provenance["git_commit"] in text
    assert provenance["inputs"]["x"]["sha256"] in text
    assert '"patience": 20' in text


def test_encoders_have_curves_and_health(build):
    page = build()
    assert page.row("vae", "runs/vae0")[2:] == ["780", "52", "25 / 32", "31 / 32", *_R2, "0.42"]
    assert "KL divergence" in page.text


def test_the_unlabelled_file_is_named(planted, build):
    result = planted(LEVELS, {"vae": 1})
    assert "Trained on" not in build(result).text
    encoders = copy.deepcopy(result.info["encoders"])
    encoders["vae"]["runs"][0]["data"] = "cohort/unlabelled.h5ad"
    named = dataclasses.replace(result, info=dict(result.info) | {"encoders": encoders})
    assert "Trained on cohort/unlabelled.h5ad." in build(named).text


_R2 = ["0.310", "0.330"]


def test_every_number_of_folds_and_kind_of_target_gives_a_page(planted, build):
    result = planted(LEVELS, {"vae": 1}, n_folds=3, n_repeats=5)
    assert build(result).open == []
    scores = result.scores.replace({"metric": {"mse": "log_loss", "mae": "accuracy"}})
    tests = result.comparisons.assign(metric="log_loss")
    info = dict(result.info) | {
        "kind": "binary",
        "metric": "log_loss",
        "label": "disease",
        "classes": {"ALL": 47, "AML": 25},
        "target_names": ["ALL", "AML"],
        "target_units": None,
    }
    page = build(dataclasses.replace(result, scores=scores, comparisons=tests, info=info))
    assert "predict disease" in page.text
    assert "ALL (47), AML (25)" in page.text
    assert "average precision are those of AML" in page.text
    assert "log loss (nats), mean over test samples" in page.text


def test_a_result_without_facts_or_comparisons_still_gives_a_page(planted, tmp_path):
    result = dataclasses.replace(
        planted(LEVELS, {}), info={"metric": "mse"}, comparisons=pd.DataFrame()
    )
    page = Page(write_report(result, tmp_path).read_text(encoding="utf-8"))
    assert page.open == []
    assert "nothing is claimed" in page.text


def test_the_best_is_ranked_by_the_mean_over_folds(planted):
    result = planted(LEVELS, {"vae": 3})
    expected = result.scores.query("metric == 'mse'").groupby("model")["value"].mean()
    np.testing.assert_allclose(ladder_table(result)["loss"], expected.sort_values(), rtol=1e-12)


def test_writing_gives_all_files_and_the_same_page_each_time(
    planted, provenance, settings, tmp_path
):
    result = planted(LEVELS, {"vae": 3})
    page = write_report(result, tmp_path / "cv", provenance=provenance, config=settings)
    first = page.read_bytes()
    assert {p.name for p in (tmp_path / "cv").iterdir()} >= {*RESULT_FILES, "report.html"}
    write_report(result, tmp_path / "cv", provenance=provenance, config=settings)
    assert page.read_bytes() == first


def test_settings_are_read_from_the_folder_where_they_are_not_given(planted, tmp_path):
    (tmp_path / "provenance.json").write_text('{"command": "m1pipe crossval --x a.h5ad"}')
    (tmp_path / "config.json").write_text('{"x": "a.h5ad", "crossval": {"seed": 17}}')
    text = write_report(planted(LEVELS, {"vae": 3}), tmp_path).read_text(encoding="utf-8")
    assert "m1pipe crossval --x a.h5ad" in text
    assert "(seed 17)" in text


def test_every_sentence_and_number_is_as_kept(planted, provenance, settings):
    facts = {"n_groups": 8, "group": "donor", "n_repeats": 2, "alarms": ALARMS}
    result = planted(LEVELS | {"ae": 0.7}, {"vae": 3, "ae": 1}, **facts)
    assert_as_kept(report_html(result, provenance=provenance, config=settings), "crossval")


SECTIONS = ("answer", "data", "notes", "ladder", "comparisons", "folds", "encoders", "guards")


def test_answer_and_figure_come_first_then_data_notes_and_tables_in_2500_words(build):
    page = build(n_groups=8, group="donor", n_repeats=2, alarms=ALARMS)
    text = page.text
    assert page.ids == ["severe", *SECTIONS, "methods", "provenance"]
    assert 300 < len(page.seen) < 1200
    assert 500 < len(page.folded) < 2500 - len(page.seen)
    assert text.index("Answer") < text.index("Figure 1.") < text.index("Table 1.")
    assert (
        text.index("Warnings to read with this answer")
        < text.index(": depth.")
        < text.index("Data")
    )
    assert text.count("after Holm over 3 comparisons") == 1


def test_a_page_of_all_usual_models_is_read_in_ten_minutes(planted, build):
    names = ("mean", "ridge", "pca_linear", "raw", "pca", "gene", "ridge_gene", "pca_gene")
    levels = {name: 1 - 0.05 * i for i, name in enumerate(names)}
    ours = ("vae_gene", "vae_linear", "vae_ridge", "vae_ensemble", "vae")
    result = planted(levels | dict.fromkeys(ours, 0.5), {"vae": 2}, n_groups=8, group="donor")
    page = build(result)
    assert 300 < len(page.seen) < 1200 and len(page.seen + page.folded) < 2500


@pytest.mark.parametrize("n_encoders", [1, 17])
def test_two_models_and_twenty_with_long_names_give_a_page(planted, build, n_encoders):
    names = [f"an_encoder_with_a_name_of_some_length_{i}" for i in range(n_encoders)]
    known = {"mean": 1.0, "ridge": 0.7, "raw": 0.8} if n_encoders > 1 else {"mean": 1.0}
    result = planted(known | dict.fromkeys(names, 0.6), dict.fromkeys(names, 1), family_only=True)
    page = build(result)
    assert page.open == []
    assert len(page.seen) < 2500
    assert len([row for row in page.rows if row[0] in names]) >= 3 * n_encoders


@pytest.mark.slow
@pytest.mark.parametrize("width", [800, 1400])
def test_a_browser_shows_the_page_without_a_complaint(
    planted, provenance, settings, tmp_path, width
):
    page = write_report(
        planted(n_repeats=5, alarms=ALARMS), tmp_path, provenance=provenance, config=settings
    )
    fits = "[...document.querySelectorAll('.scroll')].every(t => t.scrollWidth <= t.clientWidth)"
    html = page.read_text(encoding="utf-8")
    assert assert_browser_shows(html, tmp_path, width, fits) == "true"
