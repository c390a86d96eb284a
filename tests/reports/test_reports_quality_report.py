"""The page says what the numbers say; nothing that failed is hidden; a browser shows it."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pages import Page, assert_as_kept, assert_browser_shows

from m1pipe.errors import Alarm
from m1pipe.reports.quality_report import (
    HEADLINE,
    privacy,
    quality_html,
    summary_line,
    verdicts,
    write_quality,
)
from m1pipe.synthesis.attacks import ATTACKED
from m1pipe.synthesis.c2st import C2ST
from m1pipe.synthesis.camda import CAMDA
from m1pipe.synthesis.dependence import DEPENDENCE
from m1pipe.synthesis.marginal import MARGINAL
from m1pipe.synthesis.mmd_prdc import PRDC
from m1pipe.synthesis.privacy import PRIVACY
from m1pipe.synthesis.quality import QualityReport
from m1pipe.synthesis.scores import Definition, Score, failed


def _score(definition: Definition, value: float = 0.6, **changes: float) -> Score:
    known = {"low": value - 0.02, "high": value + 0.02, "ceiling": 0.8, "floor": 0.1}
    return Score(definition=definition, value=value, n_independent=40, **{**known, **changes})


@pytest.fixture
def report() -> QualityReport:
    """A report as it could be: one failed score, one that does not apply, one rival that failed."""
    scores = [_score(d) for d in (*MARGINAL, *DEPENDENCE, *PRDC, *C2ST, *PRIVACY)]
    scores += [_score(d, 0.52, low=0.48, ceiling=0.5) for d in ATTACKED["logan"]]
    scores += [Score(definition=d, value=0.6, ceiling=0.7) for d in CAMDA[:2]]
    scores = [
        Score(definition=s.definition, error="no genes vary") if s.definition.name == "gamma" else s
        for s in scores
    ]
    zero = next(i for i, s in enumerate(scores) if s.definition.name == "zero_r")
    scores[zero] = Score(definition=scores[zero].definition, not_applicable="no value is zero")
    rng = np.random.default_rng(0)
    genes = pd.DataFrame(
        rng.uniform(0.1, 1, (50, 5)), columns=["ks", "mean_h", "mean_a", "variance_h", "variance_a"]
    )
    info = {
        "n": {"real": 90, "synthetic": 70, "holdout": 60},
        "n_genes": 50,
        "n_genes_of_real": 52,
        "n_genes_drawn": 50,
        "scale": "log2(1 + tpm)",
        "size": 60,
        "small_size": 60,
        "n_draws": 5,
        "n_components": 20,
        "donors": True,
        "settings": {"n_resamples": 50, "label": None},
    }
    return QualityReport(
        {
            "synthetic": scores,
            "copula": failed([s.definition for s in scores], "singular matrix"),
        },
        [Alarm("copies", "severe", "Copies!"), Alarm("privacy", "note", "No guarantee.")],
        info,
        {
            "genes": genes,
            "holdout_pcs": rng.normal(size=(60, 3)),
            "synthetic_pcs": rng.normal(size=(60, 1)),
            "correlations": rng.uniform(-1, 1, (2, 4000)),
        },
    )


def test_every_score_is_on_the_page_failed_ones_with_their_reason(report: QualityReport) -> None:
    page = quality_html(report, provenance={}).replace("\N{NO-BREAK SPACE}", " ")
    page = page.replace("<wbr>", "")
    for score in report.scores["synthetic"]:
        assert score.definition.title in page
    assert "[no genes vary]" in page
    assert "does not apply: no value is zero" in page
    assert page.count("not computed") >= 9  # those without a value, and headlines of the rival
    assert page.index("Copies!") < page.index("Answer")
    text = " ".join(page.split())
    assert "averaged over 5 draws" in text
    assert "over donors of the hold-out" in text


def test_every_sentence_and_number_is_as_kept(report: QualityReport) -> None:
    assert_as_kept(quality_html(report, provenance={"m1pipe": "0.1.0"}), "quality")


def test_verdicts_follow_interval_and_ceiling(report: QualityReport) -> None:
    kinds = {v.text.split(" 0.")[0].split(":")[0]: v.tag for v in verdicts(report)}
    assert kinds == {
        "gamma": "failed",
        "mean KS": "like real",  # lower is better: 0.6 against 0.8
        "correlation RMSE": "like real",
        "forest C2ST AUC": "like real",
        "recall": "unlike real",
        "geometric variance ratio": "falls short",
    }
    near = [_score(d, 0.76) for d in PRDC if d.name == "recall"]
    like = [_score(d, 0.79) for d in PRDC if d.name == "recall"]
    for scores, tag in ((near, "near"), (like, "like real")):
        assert [v.tag for v in verdicts(_with(report, scores))] == [tag]


@pytest.mark.parametrize(
    ("value", "tag"),
    [(1.3, "overshoots"), (1.05, "near"), (1.01, "like real"), (0.7, "falls short")],
)
def test_a_ratio_above_one_overshoots(report: QualityReport, value: float, tag: str) -> None:
    ratio = [_score(d, value) for d in MARGINAL if d.name == "variance_ratio"]
    assert [v.tag for v in verdicts(_with(report, ratio))] == [tag]


@pytest.mark.parametrize(
    ("low", "high", "tag", "kind"),
    [
        (0.55, 0.65, "leak", "worse"),
        (0.10, 0.96, "unsure", "open"),
        (0.45, 0.55, "not shown", "open"),
        (math.nan, math.nan, "unsure", "open"),
    ],
)
def test_privacy_is_no_score_of_fidelity_and_never_green(
    report: QualityReport, low: float, high: float, tag: str, kind: str
) -> None:
    closer = [_score(d, 0.5, low=low, high=high) for d in PRIVACY if d.name == "closer_to_train"]
    found = privacy(_with(report, closer))
    assert (found.tag, found.kind) == (tag, kind)
    assert verdicts(_with(report, closer)) == []
    ks = [score for score in report.scores["synthetic"] if score.definition.name == "ks_mean"]
    page = quality_html(_with(report, ks + closer), provenance={})
    assert page.index("no score of fidelity") < page.index(f'tag {kind}">{tag}<')
    assert page.count('tag better">') == 1  # of the mean KS


def test_an_attack_that_tells_members_is_a_leak(report: QualityReport) -> None:
    """Its interval has to hold for all five attacks together."""
    closer = [_score(d, 0.5, low=0.4, high=0.6) for d in PRIVACY if d.name == "closer_to_train"]
    for low, tag in ((0.56, "leak"), (0.51, "not shown")):
        attack = _score(ATTACKED["logan"][0], 0.6, low=low, ceiling=0.5)
        found = privacy(_with(report, [*closer, attack]))
        assert found.tag == tag
        assert ("LOGAN AUC 0.60" in found.text) == (tag == "leak")
        assert found.kind in ("worse", "open")


def test_the_first_screen_says_what_each_score_is_in_few_words(report: QualityReport) -> None:
    page = Page(quality_html(report, provenance={}))
    start = page.text[: page.text.index("Marginal fidelity")]
    for name in HEADLINE[:-1]:
        says = report.score(name).definition.meaning
        assert f"{says[0].upper()}{says[1:]}." in start
    assert "Like real samples in 3 of 6 scores; falls short in geometric variance ratio;" in start
    assert "Figure 1." in start
    assert len(page.seen) < 2500


def test_a_floor_that_a_score_cannot_see_is_none() -> None:
    recall, ks = PRDC[1], MARGINAL[0]
    assert _score(recall, 0.5, ceiling=0.8, floor=0.1).calibrated == pytest.approx(4 / 7)
    for unseen in (
        _score(recall, 0.5, ceiling=0.8, floor=0.8),
        _score(recall, 0.5, ceiling=0.8, floor=0.9),
        _score(ks, 0.5, ceiling=0.2, floor=0.1),
    ):
        assert math.isnan(unseen.floor) and math.isnan(unseen.calibrated)


def _with(report: QualityReport, scores: list[Score]) -> QualityReport:
    """A report of these scores alone."""
    return QualityReport({"synthetic": scores}, [], report.info, report.pictures)


def test_intervals_stay_within_what_can_be() -> None:
    score = _score(PRDC[0], 0.995)
    assert score.high == 1
    assert math.isnan(Score(definition=PRDC[0]).low)


def test_the_line_is_the_answer_in_short(report: QualityReport) -> None:
    fidelity, leak = summary_line(report).split("\n  ")
    counted, *others = fidelity.split("; ")
    assert re.fullmatch(r"Like real samples in \d of \d scores", counted)
    assert "not computed: gamma" in others and not any("near" in text for text in others)
    assert leak == "closer to training 0.600: a leak"


@pytest.mark.slow
@pytest.mark.parametrize("width", [800, 1400])
def test_a_browser_shows_the_page_without_a_complaint(
    report: QualityReport, tmp_path: Path, width: int
) -> None:
    page = write_quality(report, tmp_path).read_text(encoding="utf-8")
    assert assert_browser_shows(page, tmp_path, width, "document.images.length") == "3"
