"""What was looked for in a cross-validation, and whether it was found."""

from collections import Counter
from collections.abc import Iterable

from m1pipe.reports.layout import Table
from m1pipe.reports.numbers import count

GUARDS = {
    "group_on_both_sides": "samples of one donor on both sides of a split",
    "group_not_checked": "columns that recur as donors would, and were not chosen",
    "nearly_paired": "samples left out since their ids in X and Y are not quite the same",
    "units_unknown": "values whose units nobody recorded, given to an encoder that knows its own",
    "copies_on_both_sides": "near-identical samples on both sides of a split",
    "seen_by_encoder": "labelled samples among those that an encoder was trained or stopped on",
    "copies_seen_by_encoder": "rows near-identical to labelled samples in an encoder's data",
    "conditioned_on_label": "an encoder that was told what is predicted",
    "widths_differ": "encoders of one row with different numbers of latents",
    "confounded_label": "a label that goes with another column of the samples",
    "class_in_few_groups": "a class that few donors have",
    "small_strata": "strata smaller than the number of folds",
    "few_groups": "too few donors to learn from their differences",
    "liberal_test": "repeats that make the test too bold for so few samples",
    "constant_targets": "targets that never change",
    "missing_levels": "levels of X that are missing, and had to be imputed",
    "nothing_tuned": "settings asked to be chosen on too few rows",
    "collapsed_predictor": "predictions that are the same for all samples",
    "dead_units": "hidden units that never change",
    "collapsed_latents": "latents that carry nothing",
    "latent_follows_depth": "a latent that follows sequencing depth",
    "depth_differs": "samples far deeper or less deep than those that an encoder was trained on",
    "weak_encoder": "an encoder that reconstructs less than principal components",
    "labels_of_same_samples": "labels made from the very samples that predict them",
    "labels_not_learned": "labels that no model learned",
    "labels_too_few": "labels too rare, or too common, to be tested",
    "below_yardstick": "a model that is not better than the training mean",
    "not_testable": "pairs of models without a p value",
    "score_not_computed": "scores that could not be computed",
}


def guard_counts(raised: Iterable[str]) -> dict[str, int]:
    """How often each guard was raised, from the names of all alarms; 0 for the others."""
    found = Counter(raised)
    return {name: found[name] for name in dict.fromkeys([*GUARDS, *found])}


def guards(counts: dict[str, int], not_checked: Iterable[str] = ()) -> Table:
    """Every guard with what it looks for and what came of it.

    Parameters
    ----------
    counts : dict of str to int
        From `guard_counts`.
    not_checked : iterable of str
        Guards that there was nothing to ask about.
    """
    idle = set(not_checked)
    rows = [
        [
            name.replace("_", " "),
            GUARDS.get(name, ""),
            count(n, "time") if n else "not checked" if name in idle else "not found",
        ]
        for name, n in counts.items()
    ]
    caption = "What was looked for; what was found is told at the top of the page."
    return Table(caption=caption, head=["guard", "looks for", "found"], rows=rows, n_text=3)
