"""Sentences, tables and figures of the quality report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from m1pipe.plots import quality as plots
from m1pipe.plots import style
from m1pipe.reports.layout import Picture, Table
from m1pipe.reports.numbers import ABSENT, count, decimals_for, interval, listing, number
from m1pipe.synthesis.quality import SYNTHETIC, QualityReport
from m1pipe.synthesis.scores import Score

WIDTH = 9.2
NEAR = 0.9
HEADLINE = (
    "ks_mean",
    "variance_ratio",
    "gamma",
    "correlation_rmse",
    "c2st_forest",
    "recall",
    "tstr_over_trtr",
    "closer_to_train",
)
FAMILIES = {
    "marginal": ("Marginal fidelity", "Every gene by itself."),
    "dependence": ("Dependence", "How genes go together."),
    "joint": (
        "Joint fidelity and diversity",
        "Whole profiles: their law, whether a classifier tells them from real ones, and whether "
        "all kinds of samples are there. Precision and density above those of real samples mean "
        "that the samples crowd in the middle.",
    ),
    "utility": ("Utility", "What can be learned from the synthetic samples."),
    "privacy": (
        "Privacy",
        "The only scores that look at training samples. They find leaks; they never prove that "
        "there is none. In the column of real samples: held-out ones in the synthetic ones' place.",
    ),
}
_ARROWS = {
    "higher": "\N{UPWARDS ARROW}",
    "lower": "\N{DOWNWARDS ARROW}",
    "one": "\N{RIGHTWARDS ARROW} 1",
    "half": "\N{RIGHTWARDS ARROW} 0.5",
    "shown": "",
}
_DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Verdict:
    """One headline score in words."""

    kind: str
    tag: str
    text: str


def answer(report: QualityReport) -> str:
    """How many of the headline scores are like those of real samples."""
    found = verdicts(report)
    like = [v for v in found if v.kind == "better"]
    behind = [v.text.split(" (")[0] for v in found if v.kind in ("worse", "failed")]
    text = f"In {len(like)} of {len(found)} headline scores the synthetic samples are like real "
    text += "ones."
    return f"{text} They fall short in {listing(behind)}." if behind else text


def verdicts(report: QualityReport) -> list[Verdict]:
    """One a headline score, failed ones included."""
    by_name = {score.definition.name: score for score in report.scores[SYNTHETIC]}
    texts = headline_texts(report)
    return [Verdict(*_kind(by_name[name]), texts[name]) for name in HEADLINE if name in by_name]


def headline_texts(report: QualityReport) -> dict[str, str]:
    """Each headline score with its value, interval and yardsticks, by name."""
    by_name = {score.definition.name: score for score in report.scores[SYNTHETIC]}
    return {name: _text(by_name[name]) for name in HEADLINE if name in by_name}


def _kind(score: Score) -> tuple[str, str]:
    """Style and word of a score's tag."""
    if not math.isfinite(score.value):
        return "failed", "failed"
    ideal = score.definition.ideal
    if score.definition.name == "closer_to_train":
        return ("worse", "leak") if score.low > 0.5 else ("better", "no leak seen")
    if ideal == "one":
        if score.low <= 1 <= score.high:
            return "better", "like real"
        return ("open", "near") if score.abs_log_ratio < -math.log(NEAR) else ("worse", "short")
    reached = score.high >= score.ceiling if ideal == "higher" else score.low <= score.ceiling
    if reached:
        return "better", "like real"
    return ("open", "near") if score.calibrated >= NEAR else ("worse", "short")


def _text(score: Score) -> str:
    title = score.definition.title
    if not math.isfinite(score.value):
        return f"{title}: {score.error or score.not_applicable}"
    digits = _digits(score)
    text = f"{title} {number(score.value, digits)}"
    if math.isfinite(score.low):
        text += f" ({interval(score.low, score.high, digits)})"
    beside = [("real", score.ceiling), ("worthless", score.floor), ("mildly corrupted",
              score.corrupted)]  # fmt: skip
    known = [f"{name} {number(value, digits)}" for name, value in beside if math.isfinite(value)]
    return f"{title} {text.removeprefix(title).strip()}" + (
        f"; {', '.join(known)}" if known else ""
    )


def _digits(score: Score) -> int:
    width = score.high - score.low
    return decimals_for(width / 2 if math.isfinite(width) else None, most=4)


def family_table(title: str, scores: Sequence[Score]) -> Table:
    """All scores of a family, those that failed with their reason.

    Parameters
    ----------
    title : str
        Of the family.
    scores : sequence of Score
    """
    has_corrupted = any(math.isfinite(score.corrupted) for score in scores)
    privacy = scores[0].definition.family == "privacy"
    head = ["score", "what it says", "value", "95 % interval", "real"]
    head += [] if privacy else ["floor"]
    head += ["corrupted"] if has_corrupted else []
    head += [] if privacy else ["of the way"]
    rows = [_row(score, has_corrupted, privacy) for score in scores]
    return Table(
        caption=f"{title} of the synthetic samples. Arrows point to better values.",
        head=head,
        rows=rows,
        n_text=2,
        note=_note(scores, has_corrupted),
    )


def _row(score: Score, has_corrupted: bool, privacy: bool) -> list[str]:
    definition = score.definition
    name = f"{definition.title} {_ARROWS[definition.ideal]}".strip()
    digits = _digits(score)
    says = definition.meaning
    cells = [ABSENT if score.error else _DASH]
    if math.isfinite(score.value):
        cells = [number(score.value, digits)]
    else:
        says += f" [{score.error or 'does not apply: ' + score.not_applicable}]"
    has_interval = math.isfinite(score.low) and math.isfinite(score.high)
    cells.append(interval(score.low, score.high, digits) if has_interval else _DASH)
    cells.append(_cell(score.ceiling, digits))
    cells += [] if privacy else [_cell(score.floor, digits)]
    cells += [_cell(score.corrupted, digits)] if has_corrupted else []
    cells += [] if privacy else [_cell(score.calibrated, 2)]
    return [name, says, *cells]


def _cell(value: float, digits: int) -> str:
    return number(value, digits) if math.isfinite(value) else _DASH


def _note(scores: Sequence[Score], has_corrupted: bool) -> str:
    family = scores[0].definition.family
    floors = {
        "marginal": "Floor: every value its gene's mean.",
        "dependence": "Floor: real samples with every gene shuffled on its own.",
        "joint": "Floor: real samples with every gene shuffled on its own.",
        "utility": "Floor: real samples with their classes shuffled.",
        "privacy": "Never calibrated.",
    }
    text = floors[family]
    if has_corrupted:
        text += " Corrupted: real samples with a tenth of the genes shifted by 0.3 sd."
    if family != "privacy":
        text += (
            " Of the way: (value - floor) / (real - floor), for one-sided scores whose floor is "
            "worse than real."
        )
    n = {score.n_independent for score in scores if score.n_independent}
    return f"{text} Independent units behind a value: {listing([f'{k:,}' for k in sorted(n)])}."


def overview(report: QualityReport) -> list[Picture]:
    """The figure of all calibrated scores."""
    table = report.to_frame()
    models = list(report.scores)
    usable = table[table["model"] == SYNTHETIC].set_index("title")["calibrated"].notna()
    table = table[table["title"].map(usable).fillna(False).astype(bool)]
    if not len(table):
        return []
    n_rows = table["title"].nunique()
    figure, axes = style.panels(width=WIDTH, height=1.1 + 0.27 * n_rows)
    colours = style.colours(models)
    with style.styled():
        plots.plot_calibrated(axes[0, 0], table, models, colours=colours)
        if len(models) > 1:
            axes[0, 0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(models))
    caption = (
        "One-sided scores between floor (dotted) and ceiling (dashed); beyond the panel: hollow, "
        "at its edge. Values a little above 1 are noise of the ceiling."
    )
    alt = "Calibrated scores of the synthetic samples" + (" and rivals" if len(models) > 1 else "")
    return [Picture(caption=caption, alt=alt, source=style.data_uri(figure))]


def family_pictures(report: QualityReport, family: str) -> list[Picture]:
    """Figures that belong to a family of scores; none for some."""
    shown = report.pictures
    if family == "marginal":
        genes = shown["genes"]
        figure, axes = style.panels(1, 3, width=WIDTH, height=3.0)
        with style.styled():
            for ax, column, title in ((axes[0, 0], "mean", "means"), (axes[0, 1], "sd", "sds")):
                values = [
                    (genes[f"variance_{k}"] ** 0.5 if column == "sd" else genes[f"mean_{k}"])
                    for k in "ha"
                ]
                plots.plot_agreement(
                    ax, *(v.to_numpy(float) for v in values), title=f"gene {title}", unit=column
                )
            ceiling = report.score("ks_mean").ceiling
            plots.plot_ks(axes[0, 2], genes["ks"].to_numpy(), title="KS", ceiling=ceiling)
        caption = "Means and standard deviations of genes, and their KS statistics."
        return [Picture(caption=caption, alt=caption, source=style.data_uri(figure))]
    if family == "joint":
        figure, axes = style.panels(1, 2, width=WIDTH, height=3.8)
        with style.styled():
            places = shown["holdout_pcs"], shown["synthetic_pcs"]
            plots.plot_components(axes[0, 0], *places, title="samples")
            plots.plot_agreement(
                axes[0, 1], *shown["correlations"], title="gene-gene correlations", unit="r"
            )
        caption = (
            "Left: samples in the first two principal components of the real ones. Right: "
            "correlations of pairs of some genes."
        )
        return [Picture(caption=caption, alt=caption, source=style.data_uri(figure))]
    return []


def rivals_table(report: QualityReport) -> Table:
    """Values of every score, one column a model, ceiling beside them."""
    models = list(report.scores)
    rows = []
    for place, score in enumerate(report.scores[SYNTHETIC]):
        if score.definition.family == "utility" or score.not_applicable:
            continue
        digits = _digits(score)
        values = [_value_of(report, model, score.definition.name, digits) for model in models]
        name = f"{score.definition.title} {_ARROWS[score.definition.ideal]}".strip()
        rows.append([name, _cell(report.scores[SYNTHETIC][place].ceiling, digits), *values])
    return Table(
        caption="The same scores of rival generators.", head=["score", "real", *models], rows=rows
    )


def _value_of(report: QualityReport, model: str, name: str, digits: int) -> str:
    score = report.score(name, model)
    return number(score.value, digits) if not score.not_applicable else _DASH


def rules(report: QualityReport) -> list[str]:
    """How the numbers of this report were made."""
    info, settings = report.info, report.info["settings"]
    units = "donors" if info["donors"] else "samples"
    texts = [
        f"Scale: {info['scale']}. Sizes are equal: {info['size']:,} samples a side "
        f"({info['small_size']:,} for whatever is quadratic in samples), averaged over "
        f"{count(info['n_draws'], 'draw')}. Genes: {info['n_genes']:,} of the "
        f"{info['n_genes_of_real']:,} of the real samples; correlations, classifiers and privacy "
        f"use {info['n_genes_drawn']:,}.",
        f"Intervals: value \N{PLUS-MINUS SIGN} 1.96 standard errors from "
        f"{settings['n_resamples']} half-samples without replacement, over {units} of the "
        "hold-out (rows drawn twice would be their own nearest neighbours); C2ST by DeLong "
        "within folds (with donors: the spread over folds), utility by a bootstrap of the hold-out "
        "and of the seeds, copies by Wilson.",
        f"Joint scores: the first {info['n_components']} principal components of the standardised "
        "real training samples; MMD with a Gaussian kernel as wide as the median distance within "
        "the hold-out; balls to the fifth neighbour. C2ST: 5-fold cross-validated AUC on "
        "standardised genes. Distances of privacy scores: components of training and held-out "
        "samples together, so that neither side is favoured.",
    ]
    return texts
