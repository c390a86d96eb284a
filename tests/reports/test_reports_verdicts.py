import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from pages import Page

from m1pipe.errors import Alarm
from m1pipe.evaluation.result import ladder_table
from m1pipe.reports import verdicts
from m1pipe.reports.crossval_report import report_html

CLEAR = {"mean": 1.0, "ridge": 0.7, "raw": 0.8, "vae": 0.5}


def sentence(result, model, rival):
    pair = (model, rival)
    found = verdicts.verdicts(result)
    (one,) = [v for v in found if (v.row["model_a"], v.row["model_b"]) == pair]
    return one


def limitations(result):
    """What the page lists under that heading, one item each."""
    html = report_html(result, provenance={}, config={})
    listed = re.search(r'<section id="cautions">(.*?)</section>', html, re.DOTALL)
    items = re.findall(r"<li>.*?</li>", listed.group(1), re.DOTALL) if listed else []
    return [Page(item).text for item in items]


def headline(result, a, b):
    table = result.comparisons
    same = (table["model_a"] == a) & (table["model_b"] == b) & (table["test"] == "nadeau_bengio")
    return table[same].iloc[0]


def test_a_planted_gain_is_claimed_with_its_numbers(planted):
    result = planted(CLEAR, {"vae": 3})
    found, row = sentence(result, "vae", "raw"), headline(result, "vae", "raw")
    assert found.kind == "better"
    pattern = (
        r"vae is better than raw by ([\d.]+) \(95 % CI ([\d.]+) to ([\d.]+)\), "
        r"p < 0\.001 after Holm over 3 comparisons, 3 encoder seeds\."
    )
    numbers = [float(x) for x in re.fullmatch(pattern, found.text).groups()]
    np.testing.assert_allclose(
        numbers, [-row["difference"], -row["ci_high"], -row["ci_low"]], atol=6e-4
    )
    assert numbers[0] == pytest.approx(0.3, abs=0.03)


def test_a_planted_loss_is_said_as_plainly(planted):
    result = planted(CLEAR | {"vae": 0.9}, {"vae": 3})
    found, row = sentence(result, "vae", "ridge"), headline(result, "vae", "ridge")
    assert row["difference"] > 0
    assert found.kind == "worse"
    gap = float(re.match(r"vae is worse than ridge by ([\d.]+) ", found.text).group(1))
    assert gap == pytest.approx(0.2, abs=0.02)


def test_equal_models_are_not_called_equal_or_different(planted):
    result = planted(CLEAR | {"vae": 0.7}, {"vae": 3})
    found = sentence(result, "vae", "ridge")
    assert headline(result, "vae", "ridge")["p_holm"] > 0.05
    assert found.kind == "open"
    assert found.text.startswith("No difference between vae and ridge is shown")
    assert re.search(r"95 % CI [\d.]+ lower to [\d.]+ higher", found.text)


def test_significance_is_judged_after_holm(planted):
    result = planted(CLEAR | {"vae": 0.7}, {"vae": 3})
    result.comparisons.loc[headline(result, "vae", "ridge").name, ["p", "p_holm"]] = [0.04, 0.08]
    assert sentence(result, "vae", "ridge").kind == "open"


def test_a_test_without_a_number_is_said_to_have_failed(planted):
    result = planted(CLEAR, {"vae": 3})
    columns = ["ci_low", "ci_high", "statistic", "p", "p_holm"]
    result.comparisons.loc[headline(result, "vae", "ridge").name, columns] = np.nan
    assert sentence(result, "vae", "ridge").kind == "failed"
    assert "could not be compared" in sentence(result, "vae", "ridge").text
    assert len(verdicts.family(result)) == 3


@pytest.mark.parametrize(
    ("n", "subject"), [(1, "The one trained vae encoder is"), (2, "The 2 trained vae encoders")]
)
def test_fewer_than_three_seeds_carry_no_sentence_about_the_model(planted, n, subject):
    result = planted(CLEAR, {"vae": n})
    assert sentence(result, "vae", "raw").text.startswith(subject)
    assert any("does not carry to the model in general" in text for text in limitations(result))


def test_an_encoder_trained_in_the_folds_is_called_so(planted):
    result = planted(CLEAR, {"vae": 1})
    result.info["encoders"]["vae"]["mode"] = "fold"
    text = sentence(result, "vae", "raw").text
    assert text.startswith("The vae encoder trained once in each fold is better than raw")


def test_a_wide_interval_still_shows_two_digits(planted):
    result = planted(CLEAR, {"vae": 3})
    where = headline(result, "vae", "raw").name
    columns = ["difference", "ci_low", "ci_high", "p_holm"]
    result.comparisons.loc[where, columns] = [0.026, -0.730, 0.781, 0.93]
    text = sentence(result, "vae", "raw").text
    assert "0.03 higher than that of raw (95 % CI 0.73 lower to 0.78 higher)" in text


def test_three_seeds_do(planted):
    result = planted(CLEAR, {"vae": 3})
    assert not any("in general" in text for text in limitations(result))


def test_repeats_are_recommended_only_where_they_are_missing(planted):
    once = limitations(planted(CLEAR, {"vae": 3}))
    assert any("5 x 5 folds" in text and "4 degrees of freedom" in text for text in once)
    assert not limitations(planted(CLEAR, {"vae": 3}, n_repeats=5))


def test_donors_are_named_as_the_units(planted):
    result = planted(CLEAR, {"vae": 3}, n_groups=8, group="donor", n_repeats=5)
    assert limitations(result) == [
        "150 samples come from 8 donors: donors are the independent units. No donor is on both "
        "sides of a split, and the tests beside the headline average the differences within donor; "
        "all donors have the same weight."
    ]


def test_confounding_is_said_once(planted):
    text = "normal tissue occurs in two cancer types only"
    result = planted(CLEAR, {"vae": 3}, n_repeats=5, confounding=[text])
    assert limitations(result) == [text]
    alarmed = planted(
        CLEAR,
        {"vae": 3},
        n_repeats=5,
        confounding=[text],
        alarms=(Alarm("confounded", "warning", text),),
    )
    assert limitations(alarmed) == []


def test_the_best_of_all_is_named_with_its_distance(planted):
    result = planted(CLEAR, {"vae": 3})
    ladder = ladder_table(result)
    assert list(ladder.index) == ["vae", "ridge", "raw", "mean"]
    assert ladder["share"]["vae"] == pytest.approx(0.5, abs=0.01)
    text = verdicts.winner(result, ladder)
    assert text.startswith("Of the 4 models compared, vae has the lowest mean squared error: 0.")
    assert re.search(r"5\d\.\d % of that of the training mean|49\.\d %", text)


@pytest.mark.parametrize("is_turned", [False, True])
def test_the_runner_up_is_behind_by_a_positive_gap(planted, is_turned):
    result = planted(CLEAR, {"vae": 3})
    row = headline(result, "vae", "ridge")
    if is_turned:
        turned = row.rename({"ci_low": "ci_high", "ci_high": "ci_low"})
        turned[["difference", "ci_low", "ci_high"]] *= -1
        turned[["model_a", "model_b"]] = "ridge", "vae"
        result.comparisons.loc[row.name] = turned
    text = verdicts.runner_up(result, ladder_table(result))
    gap, low, high = map(float, re.search(_BEHIND, text).groups())
    assert gap == pytest.approx(-row["difference"], abs=1e-3)
    assert (low, high) == pytest.approx((-row["ci_high"], -row["ci_low"]), abs=1e-3)
    assert "no claim is made" in text
    alone = dataclasses.replace(result, comparisons=pd.DataFrame())
    assert "could not be computed" in verdicts.runner_up(alone, ladder_table(result))


_BEHIND = r"ridge, is behind by ([\d.]+) \(95 % CI ([\d.]+) to ([\d.]+)"


def test_methods_cite_what_they_mention(planted, settings):
    result = planted(CLEAR, {"vae": 3}, n_repeats=5)
    html = report_html(result, provenance={"m1pipe": "1.2"}, config=settings)
    methods = html[html.index('<p class="paste">') : html.index("</ol>", html.index("paste"))]
    text, references = methods.split("</p>")[0], re.findall("<li>(.*?)</li>", methods)
    assert len(references) == 7
    cited = {int(n) for group in re.findall(r"\[([\d, ]+)\]", text) for n in group.split(",")}
    assert cited == set(range(1, len(references) + 1))
    assert "repeated 5 times" in text
    assert "m1pipe 1.2" in text
    assert any("Nadeau" in reference for reference in references)
