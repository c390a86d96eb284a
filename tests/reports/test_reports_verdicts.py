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

pytestmark = pytest.mark.usefixtures("figures_undrawn")

CLEAR = {"mean": 1.0, "ridge": 0.7, "raw": 0.8, "vae": 0.5}


def sentence(result, model, rival):
    pair = (model, rival)
    found = verdicts.verdicts(result)
    (one,) = [v for v in found if (v.row["model_a"], v.row["model_b"]) == pair]
    return one


def limitations(result):
    """What the page lists under that heading, one item each."""
    html = report_html(result, provenance={}, config={})
    listed = re.search(r'<ul id="limitations">(.*?)</ul>', html, re.DOTALL)
    items = re.findall(r"<li>.*?</li>", listed.group(1), re.DOTALL) if listed else []
    return [Page(item).text for item in items]


def headline(result, a, b):
    table = result.comparisons
    same = (table["model_a"] == a) & (table["model_b"] == b) & (table["test"] == "nadeau_bengio")
    return table[same].iloc[0]


def percents(result, a, b):
    """Difference and interval in per cent of b's loss, by another way: from losses and table."""
    row, losses = headline(result, a, b), result.losses[b]
    folds = [losses[r][result.folds[r] == k].mean() for r, k in np.ndindex(result.n_repeats, 5)]
    return 100 * row[["difference", "ci_low", "ci_high"]].to_numpy(float) / np.mean(folds)


def assert_shown(texts, values):
    """Every text is its number, rounded to the digits that it has."""
    for text, value in zip(texts, values, strict=True):
        assert text == f"{value:.{len(text.partition('.')[2])}f}"


def test_a_planted_gain_is_claimed_with_its_numbers(planted):
    result = planted(CLEAR, {"vae": 3})
    found = sentence(result, "vae", "raw")
    assert found.kind == "better"
    pattern = (
        r"vae is better than raw: its loss is ([\d.]+) % lower \(95 % CI ([\d.]+) % to ([\d.]+) % "
        r"lower\), p < 0\.001\."
    )
    gap, low, high = percents(result, "vae", "raw")
    assert_shown(re.fullmatch(pattern, found.text).groups(), [-gap, -high, -low])
    assert gap == pytest.approx(-37.5, abs=2)


def test_a_planted_loss_is_said_as_plainly(planted):
    result = planted(CLEAR | {"vae": 0.9}, {"vae": 3})
    found = sentence(result, "vae", "ridge")
    assert found.kind == "worse"
    pattern = r"its loss is ([\d.]+) % higher \(95 % CI ([\d.]+) % to ([\d.]+) % higher\)"
    numbers = percents(result, "vae", "ridge")
    assert_shown(re.search(pattern, found.text).groups(), numbers)
    assert numbers[0] == pytest.approx(100 * 0.2 / 0.7, abs=3)


@pytest.mark.parametrize(
    ("level", "word", "kind"),
    [(0.5, "Yes", "better"), (0.9, "No", "worse"), (0.75, "In part", "open")],
)
def test_the_page_opens_with_yes_or_no_and_by_how_much(planted, level, word, kind):
    result = planted(CLEAR | {"vae": level}, {"vae": 3})
    found = verdicts.answer(result)
    assert found.kind == kind
    assert found.text.startswith(f"{word}: vae is {'better' if word == 'Yes' else 'worse'} than ")
    (ridge,) = re.findall(r"ridge \(\+?(\S+) %\)", found.text)
    (raw,) = re.findall(r"the same model on the genes \(raw, \+?(\S+) %\)", found.text)
    assert_shown([ridge, raw], [percents(result, "vae", rival)[0] for rival in ("ridge", "raw")])


def test_no_difference_is_undecided_and_no_comparison_is_said(planted):
    result = planted(CLEAR | {"vae": 0.7, "raw": 0.7}, {"vae": 3})
    text = verdicts.answer(result).text
    assert text.startswith("Undecided: vae is not shown to differ from ridge (")
    alone = dataclasses.replace(result, comparisons=pd.DataFrame())
    assert "nothing is claimed" in verdicts.answer(alone).text


def test_encoders_with_different_answers_are_told_apart(planted):
    result = planted(CLEAR | {"ae": 0.9}, {"vae": 3, "ae": 3})
    text = verdicts.answer(result).text
    assert text.index("Yes for vae: vae is better than") < text.index("No for ae: ae is worse than")


def test_many_encoders_are_answered_in_one_sentence_with_their_range(planted):
    names = [f"vae{i}" for i in range(9)]
    levels = {"mean": 1.0, "ridge": 0.7, "raw": 0.8}
    levels |= {name: 0.50 + 0.01 * i for i, name in enumerate(names)}
    result = planted(levels, dict.fromkeys(names, 3), family_only=True)
    text = verdicts.answer(result).text
    assert text.startswith("Yes for vae0, vae1, vae2, vae3, vae4, vae5 and 3 more: ")
    ends = re.search(r"by ([-\d.]+) % to ([-\d.]+) % from ridge", text).groups()
    gaps = [percents(result, name, "ridge")[0] for name in names]
    assert_shown(ends, [min(gaps), max(gaps)])


@pytest.mark.parametrize(
    ("levels", "encoders", "said"),
    [
        ({"pca": 0.8, "pca_linear": 0.7, "vae_linear": 0.5, "vae": 0.6}, {"vae": 3},
         r"vae_linear, better than pca_linear \((.+) %\), the best on PCA"),
        ({"pca_gene": 0.5, "ridge_gene": 0.7, "vae_gene": 0.6, "vae": 0.65}, {"vae": 3},
         r"vae_gene, worse than pca_gene \(\+(.+) %\), the best with own genes and no encoder"),
        ({"vae_gene": 0.6, "ridge_gene": 0.6, "vae": 0.65}, {"vae": 3},
         r"vae_gene, not shown to differ from ridge_gene \((.+) %\), the best with .*"),
    ],
)  # fmt: skip
def test_the_best_encoder_model_is_told_beside_its_best_simple_rival(
    planted, levels, encoders, said
):
    result = planted({"mean": 1.0, "ridge": 0.75} | levels, encoders)
    text = verdicts.beside_simple(result)
    (size,) = re.fullmatch(rf"Best with an encoder: {said}\.", text).groups()
    a, b = re.findall(r"[a-z_]+(?=,| \()", text.removeprefix("Best with an encoder: "))[:2]
    a, b = a.split()[-1], b.split()[-1]
    losses = {m: np.mean([result.losses[m][0][result.folds[0] == k].mean() for k in range(5)])
              for m in (a, b)}  # fmt: skip
    assert_shown([size.lstrip("+")], [100 * (losses[a] / losses[b] - 1)])
    assert text in Page(report_html(result, provenance={}, config={})).text
    assert verdicts.summary(result, "p.html").splitlines()[1] == text


def test_without_pca_or_an_encoder_nothing_is_told_beside(planted):
    assert verdicts.beside_simple(planted(CLEAR, {"vae": 3})) == ""
    assert verdicts.beside_simple(planted({"mean": 1.0, "ridge": 0.7, "pca": 0.6}, {})) == ""


def test_targets_that_disagree_with_the_mean_are_explained(planted):
    pair = {"model_a": "vae", "model_b": "ridge", "n_targets": 1505, "better": 0, "worse": 0}
    worse = CLEAR | {"vae": 0.9}
    result = planted(worse, {"vae": 3}, per_target=[pair | {"improved": 0.55}])
    text = verdicts.by_target(result)
    assert text.startswith("vae predicts 55 % of the 1,505 targets better than ridge, and yet")
    assert "its mean loss is higher" in text
    assert text in Page(report_html(result, provenance={}, config={})).text
    assert (
        verdicts.by_target(planted(worse, {"vae": 3}, per_target=[pair | {"improved": 0.2}])) == ""
    )


def test_equal_models_are_not_called_equal_or_different(planted):
    result = planted(CLEAR | {"vae": 0.7}, {"vae": 3})
    found = sentence(result, "vae", "ridge")
    assert headline(result, "vae", "ridge")["p_holm"] > 0.05
    assert found.kind == "open"
    assert found.text.startswith("No difference between vae and ridge is shown")
    assert re.search(r"95 % CI [\d.]+ % lower to [\d.]+ % higher", found.text)


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
    ("n", "subject"), [(1, "the one trained vae encoder is"), (2, "the 2 trained vae encoders are")]
)
def test_fewer_than_three_seeds_carry_no_sentence_about_the_model(planted, n, subject):
    result = planted(CLEAR, {"vae": n})
    assert verdicts.answer(result).text.startswith(f"Yes: {subject} better than ridge")
    assert any("does not carry to the model in general" in text for text in limitations(result))


def test_an_encoder_trained_in_the_folds_is_called_so(planted):
    result = planted(CLEAR, {"vae": 1})
    result.info["encoders"]["vae"]["mode"] = "fold"
    text = verdicts.answer(result).text
    assert text.startswith("Yes: the vae encoder trained once in each fold is better than ridge")


def test_a_wide_interval_is_without_decimals(planted):
    result = planted(CLEAR, {"vae": 3})
    where = headline(result, "vae", "raw").name
    columns = ["difference", "ci_low", "ci_high", "p_holm", "effect"]
    result.comparisons.loc[where, columns] = [0.026, -0.730, 0.781, 0.93, 0.0325]
    text = sentence(result, "vae", "raw").text
    assert "the loss of vae is 3 % higher (95 % CI 91 % lower to 98 % higher), p = 0.93." in text


def test_three_seeds_do(planted):
    result = planted(CLEAR, {"vae": 3})
    assert not any("in general" in text for text in limitations(result))


def test_repeats_are_recommended_only_where_they_are_missing(planted):
    once = limitations(planted(CLEAR, {"vae": 3}))
    assert any("5 x 5 (--folds 5" in text and "4 degrees of freedom" in text for text in once)
    assert not limitations(planted(CLEAR, {"vae": 3}, n_repeats=5))


def test_donors_are_named_as_the_units(planted):
    result = planted(CLEAR, {"vae": 3}, n_groups=8, group="donor", n_repeats=5)
    assert limitations(result) == [
        "150 samples come from 8 donors: donors are the independent units, of equal weight; the "
        "tests beside the headline average the differences within donor."
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


def test_methods_cite_what_they_mention(planted, settings):
    result = planted(CLEAR, {"vae": 3}, n_repeats=5)
    html = report_html(result, provenance={"m1pipe": "1.2"}, config=settings)
    methods = html[html.index('<p class="paste">') : html.index("</ol>", html.index("paste"))]
    text, references = methods.split("</p>")[0], re.findall("<li>(.*?)</li>", methods)
    assert len(references) == 5
    cited = {int(n) for group in re.findall(r"\[([\d, ]+)\]", text) for n in group.split(",")}
    assert cited == set(range(1, len(references) + 1))
    assert "repeated 5 times" in text
    assert "m1pipe 1.2" in text
    assert any("Nadeau" in reference for reference in references)
