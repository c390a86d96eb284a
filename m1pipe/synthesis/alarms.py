"""What a reader should know before believing the scores."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from m1pipe.synthesis.privacy import WARNING
from m1pipe.synthesis.score import Alarm, Score

FEW = 100
FEW_DONORS = 10
COLLAPSED = 0.7
DIFFERENT = 0.6


def find_alarms(scores: Sequence[Score], info: Mapping[str, Any]) -> list[Alarm]:
    """Alarms of the synthetic samples and of the material, the severe ones first.

    Parameters
    ----------
    scores : sequence of Score
        Of the synthetic samples.
    info : mapping
        As in `QualityReport`.
    """
    by_name = {score.definition.name: score for score in scores}
    found = [*_of_material(info), *_of_scores(by_name)]
    found += [
        Alarm("score_not_computed", "warning", f"{s.definition.title}: not computed: {s.error}.")
        for s in scores
        if s.error
    ]
    found.append(Alarm("privacy", "note", WARNING))
    order = {"severe": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda alarm: order[alarm.severity])


def _of_material(info: Mapping[str, Any]) -> list[Alarm]:
    found = []
    n_same = info["holdout_rows_in_real"]
    if n_same:
        text = f"{n_same:,} held-out samples are in the training samples, to the last digit: the "
        text += "hold-out is none, and every score flatters."
        found.append(Alarm("holdout_leak", "severe", text))
    n_donors = info["donors_on_both_sides"]
    if n_donors:
        text = f"{n_donors:,} donors are on both sides of the split: fidelity scores flatter, and "
        text += "privacy scores hide leaks. Split by donors."
        found.append(Alarm("shared_donors", "warning", text))
    if info["size"] < FEW:
        text = f"Only {info['size']} samples a side: scores are noisy, small sets look alike."
        found.append(Alarm("few_samples", "warning", text))
    if info["donors"] and info["n_independent"] < FEW_DONORS:
        text = f"Only {info['n_independent']} donors in the hold-out: intervals are rough."
        found.append(Alarm("few_donors", "warning", text))
    return found


def _of_scores(scores: Mapping[str, Score]) -> list[Alarm]:
    checks: list[tuple[str, str, Callable[[Score], bool], str]] = [
        (
            "variance_ratio",
            "variance_collapse",
            lambda s: s.value < COLLAPSED,
            "Variance has collapsed: that of a typical gene is {value:.2f} of the real one.",
        ),
        (
            "c2st_forest",
            "holdout_differs",
            lambda s: s.ceiling > DIFFERENT,
            "Hold-out and training samples differ: a forest tells them apart (AUC {ceiling:.2f}), "
            "so the ceiling is low and says little.",
        ),
        (
            "copies",
            "copies",
            lambda s: s.value > 0 and s.low > s.ceiling,
            "{value:.1%} of the synthetic samples are near copies of training samples (held-out "
            "ones: {ceiling:.1%}).",
        ),
        (
            "closer_to_train",
            "leak",
            lambda s: s.low > 0.5,
            "Synthetic samples lie closer to training than to held-out samples ({value:.2f} of "
            "them, interval from {low:.2f}): the generator has remembered some.",
        ),
    ]
    out = []
    for name, alarm, fires, text in checks:
        score = scores.get(name)
        if score is not None and not score.error and fires(score):
            numbers = {"value": score.value, "low": score.low, "ceiling": score.ceiling}
            severity = "severe" if alarm == "copies" else "warning"
            out.append(Alarm(alarm, severity, text.format(**numbers)))  # type: ignore[arg-type]
    return out
