"""Which guards are asked about what: the design, trained encoders, fitted rows, the result."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from m1pipe.data.copies import file_signatures, find_copies, row_digests
from m1pipe.data.depth import depths
from m1pipe.data.labels import tidy
from m1pipe.data.matrix import open_matrix
from m1pipe.data.splits import group_column, recurring_columns
from m1pipe.data.thinning import QUANTILES
from m1pipe.encoder.trained import Encoder
from m1pipe.evaluation import confounding, design, guards
from m1pipe.evaluation.origin import FOLD_CHANGES, label_origin, same_samples
from m1pipe.evaluation.problem import Problem
from m1pipe.evaluation.representations import training_file
from m1pipe.evaluation.result import Alarm
from m1pipe.evaluation.tuning import can_tune
from m1pipe.recipe import match_recipe, unknown_units


def design_alarms(problem: Problem, label: str | None = None) -> list[Alarm]:
    """What can be said of a comparison before its first fit.

    Parameters
    ----------
    problem : Problem
    label : str, optional
        The column that is predicted.
    """
    targets, samples = problem.targets, problem.samples
    signatures = file_signatures(problem.matrix, problem.rows)
    found = design.copies_on_both_sides(signatures, problem.folds, samples)
    donor = group_column(problem.matrix.obs)
    if donor is not None:
        found += design.groups_on_both_sides(
            tidy(problem.obs[donor]), problem.folds, name=donor, left_out=problem.config.leave_out
        )
    config = problem.config
    known = {donor, label, config.group, config.stratify, config.leave_out}
    for name in recurring_columns(problem.obs, {str(name) for name in known}):
        found += design.group_not_checked(name)
    if problem.nearly_paired is not None:
        n_lost = problem.matrix.n_samples - len(samples)
        found += design.nearly_paired(len(samples), n_lost, problem.nearly_paired)
    if problem.groups is not None:
        name = problem.config.group or donor or "group"
        found += design.few_groups(problem.groups, name=name if name in problem.obs else "group")
    found += design.liberal_test(len(samples), problem.config.repeats)
    found += design.missing_levels(problem.n_missing, len(samples) * problem.matrix.n_genes)
    if problem.config.tune and not can_tune(problem):
        found += design.nothing_tuned(problem.least_train)
    if problem.strata is not None and not targets.is_classes:
        name = problem.config.stratify or "stratum"
        if problem.config.leave_out is None:
            found += design.small_strata(problem.strata, problem.n_folds, name=name)
    if targets.kind == "regression":
        found += design.constant_targets(targets.values, targets.names)
    if targets.is_classes and label is not None:
        found += confounding.confounded_label(problem.class_names, problem.obs, name=label)
    if problem.label_obs is not None:
        found += same_samples(*find_origin(problem), len(samples))
    for row in problem.encoders:
        for encoder, source in zip(row.frozen, row.sources, strict=False):
            found += design.units_unknown(unknown_units(problem.matrix, encoder.units))
            name = row.name if row.n_seeds == 1 else f"{row.name} ({source})"
            found += design.samples_seen_by_encoder(
                name, samples, encoder.samples, encoder.validation_samples
            )
            found += _copied_rows(name, source, problem)
            found += _other_depth(name, encoder, problem)
    return [*found, *_different_widths(problem)]


def not_checked(problem: Problem, label: str | None) -> list[str]:
    """Guards that have nothing to look at here: that they found nothing says nothing."""
    targets, frozen = problem.targets, [row for row in problem.encoders if row.frozen]
    others = [name for name in problem.obs.columns if name != label]
    idle = {
        "group_on_both_sides": group_column(problem.matrix.obs) is None and problem.groups is None,
        "few_groups": problem.groups is None,
        "seen_by_encoder": not frozen,
        "copies_seen_by_encoder": not any(
            training_file(source) is not None for row in frozen for source in row.sources
        ),
        "conditioned_on_label": not problem.encoders,
        "widths_differ": len(problem.encoders) < 2,
        "collapsed_latents": not problem.encoders,
        "latent_follows_depth": not problem.encoders,
        "weak_encoder": not problem.encoders,
        "confounded_label": not (targets.is_classes and label is not None and others),
        "class_in_few_groups": not (targets.is_classes and label is not None and others),
        "small_strata": problem.strata is None,
        "constant_targets": targets.kind != "regression",
        "nothing_tuned": not problem.config.tune,
        "labels_of_same_samples": problem.label_obs is None,
        "labels_not_learned": targets.kind != "multilabel",
        "labels_too_few": targets.kind != "multilabel",
    }
    return [name for name, unasked in idle.items() if unasked]


def find_origin(problem: Problem) -> tuple[str | None, int]:
    """Whether labels come from what predicts them (`label_origin`)."""
    if problem.label_obs is None or FOLD_CHANGES not in problem.label_obs:
        return None, 0
    digests = row_digests(problem.matrix.take(problem.rows))
    return label_origin(problem.obs, problem.label_obs, digests)


def _copied_rows(name: str, source: str, problem: Problem) -> list[Alarm]:
    """Near-identical rows in the file that an encoder was trained on, where that is still there."""
    path = training_file(source)
    if path is None or (problem.matrix.path is not None and path == problem.matrix.path.resolve()):
        return []
    with open_matrix(path) as unlabelled:
        copies = find_copies(unlabelled, problem.matrix)
        if not copies.by_row.size:
            return []
        first = int(copies.by_row[0])
        pair = (str(unlabelled.samples[first]), copies.partner[first])
    n = len(problem.samples)
    return design.copies_seen_by_encoder(name, copies.by_row.size, n, pair, n_genes=copies.n_genes)


def _other_depth(name: str, encoder: Encoder, problem: Problem) -> list[Alarm]:
    """Whether the samples are much deeper, or less deep, than an encoder's training samples."""
    trained = encoder.summary.get("depth_quantiles")
    if trained is None:
        return []
    columns = match_recipe(problem.matrix, encoder.recipe, min_coverage=0.0).columns
    own = depths(problem.matrix, columns[columns >= 0], problem.rows)
    median = QUANTILES.index(0.5)
    return guards.depth_apart(name, trained[median], None if own is None else float(np.median(own)))


def encoder_alarms(name: str, n_latent: int, facts: Mapping[str, Any]) -> list[Alarm]:
    """What is wrong with one trained encoder.

    Parameters
    ----------
    name : str
        Of the row, with the seed where there are several.
    n_latent : int
    facts : mapping
        From `m1pipe.evaluation.representations.encoder_facts`.
    """
    return [
        *guards.collapsed_units(name, int(facts["active_units"]), n_latent),
        *guards.dead_relus(name, float(facts["dead_share"])),
        *guards.library_size_axes(name, facts.get("depth_r") or [], str(facts.get("depth"))),
        *guards.weak_encoder(name, facts["r2"], facts["pca_r2"]),
    ]


def row_alarms(
    row: str, prediction: np.ndarray, levels: np.ndarray | None, dead_share: float
) -> list[Alarm]:
    """What is wrong with one fitted row that is not the yardstick.

    Parameters
    ----------
    row : str
    prediction : ndarray, shape (n_test, n_outputs)
    levels : ndarray, shape (n_test, n_targets), or None
        The targets, where they are levels.
    dead_share : float
        Share of dead hidden units.
    """
    return [
        *guards.collapsed_predictor(row, prediction, levels),
        *guards.dead_relus(f"the head of {row}", dead_share),
    ]


def _different_widths(problem: Problem) -> Sequence[Alarm]:
    widths = {row.name: row.n_latent for row in problem.encoders}
    if len(set(widths.values())) < 2:
        return []
    named = ", ".join(f"{name} {width}" for name, width in widths.items())
    text = f"The encoders differ in width ({named}); the PCA has that of {next(iter(widths))}."
    return [Alarm("widths_differ", "note", text)]
