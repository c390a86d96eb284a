"""Alarms about the design of a comparison, known before its first fit."""

from collections.abc import Iterator

import numpy as np

from m1pipe.data.confounding import confounded_label
from m1pipe.data.depth import QUANTILES, depths
from m1pipe.data.duplicates import file_signatures, find_copies, row_digests
from m1pipe.data.groups import group_column, recurring_columns
from m1pipe.data.labels import tidy
from m1pipe.data.recipe import match_recipe, unknown_units
from m1pipe.encoder.drift import sampled_drift
from m1pipe.encoder.trained import Encoder
from m1pipe.errors import Alarm
from m1pipe.evaluation import alarms, leakage
from m1pipe.evaluation.encoders import ComparedEncoder
from m1pipe.evaluation.problem import Problem
from m1pipe.io.reader import open_matrix
from m1pipe.provenance import training_files


def design_alarms(problem: Problem, label: str | None = None) -> list[Alarm]:
    """What can be said of a comparison before its first fit.

    Parameters
    ----------
    problem : Problem
    label : str, optional
        The column that is predicted.
    """
    signatures = file_signatures(problem.matrix, problem.rows)
    return [
        *leakage.copies_on_both_sides(signatures, problem.folds, problem.samples),
        *_sample_alarms(problem, label),
        *_size_alarms(problem),
        *_target_alarms(problem, label),
        *(alarm for entry in problem.encoders for alarm in _frozen_alarms(entry, problem)),
        *_different_widths(problem),
        *(problem.source.alarms if problem.source is not None else []),
    ]


def _sample_alarms(problem: Problem, label: str | None) -> Iterator[Alarm]:
    """How samples are grouped and paired."""
    config, obs, samples = problem.config, problem.obs, problem.samples
    donor = group_column(problem.matrix.obs)
    if donor is not None:
        yield from leakage.groups_on_both_sides(
            tidy(obs[donor]), problem.folds, name=donor, left_out=config.leave_out
        )
    known = {donor, label, config.group, config.stratify, config.leave_out}
    for name in recurring_columns(obs, {str(name) for name in known}):
        yield from leakage.group_not_checked(name)
    if near := problem.nearly_paired:
        n_lost = problem.matrix.n_samples - len(samples)
        yield from alarms.nearly_paired(len(samples), n_lost, near)
    if problem.groups is not None:
        name = config.group or donor or "group"
        yield from alarms.few_groups(problem.groups, name=name if name in obs else "group")


def _size_alarms(problem: Problem) -> Iterator[Alarm]:
    """Too few samples, strata too small, missing levels."""
    config, n = problem.config, len(problem.samples)
    yield from alarms.liberal_test(n, config.repeats)
    yield from alarms.missing_levels(problem.n_missing, n * problem.matrix.n_genes)
    if config.tune and not problem.can_tune:
        yield from alarms.nothing_tuned(problem.least_train)
    strata = None if problem.targets.is_classes else problem.strata
    if strata is not None and config.leave_out is None:
        name = config.stratify or "stratum"
        yield from alarms.small_strata(strata, problem.n_folds, name=name)


def _target_alarms(problem: Problem, label: str | None) -> Iterator[Alarm]:
    """Targets that never vary, labels that go with another column or come from X itself."""
    targets = problem.targets
    if targets.kind == "regression":
        yield from alarms.constant_targets(targets.values, targets.names)
    if targets.is_classes and label is not None:
        yield from confounded_label(problem.class_names, problem.obs, name=label)
    if problem.label_obs is not None:
        yield from leakage.same_samples(*find_origin(problem), len(problem.samples))


def _frozen_alarms(entry: ComparedEncoder, problem: Problem) -> Iterator[Alarm]:
    """What frozen encoders were trained on, against the samples at hand."""
    for encoder, source in zip(entry.frozen, entry.sources, strict=False):
        yield from alarms.units_unknown(unknown_units(problem.matrix, encoder.units))
        name = entry.name if entry.n_seeds == 1 else f"{entry.name} ({source})"
        yield from leakage.samples_seen_by_encoder(
            name, problem.samples, encoder.samples, encoder.validation_samples
        )
        aligned = encoder.align(
            problem.matrix, min_coverage=problem.config.min_coverage, keep_missing=True
        )
        drift = sampled_drift(encoder, aligned, problem.rows)
        yield from alarms.far_from_training(name, drift)
        yield from _copied_rows(name, source, problem)
        yield from _other_depth(name, encoder, problem)


def not_checked(problem: Problem, label: str | None) -> list[str]:
    """Guards that have nothing to look at here: that they found nothing says nothing."""
    targets, frozen = problem.targets, [entry for entry in problem.encoders if entry.frozen]
    others = [name for name in problem.obs.columns if name != label]
    idle = {
        "group_on_both_sides": group_column(problem.matrix.obs) is None and problem.groups is None,
        "few_groups": problem.groups is None,
        "seen_by_encoder": not frozen,
        "far_from_training": not frozen,
        "copies_seen_by_encoder": not any(
            training_files(source) for entry in frozen for source in entry.sources
        ),
        "conditioned_on_label": not problem.encoders,
        "source_overlap": problem.source is None,
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
    if problem.label_obs is None or leakage.FOLD_CHANGES not in problem.label_obs:
        return None, 0
    digests = row_digests(problem.matrix.take(problem.rows))
    return leakage.label_origin(problem.obs, problem.label_obs, digests)


def _copied_rows(name: str, source: str, problem: Problem) -> list[Alarm]:
    """Near-identical rows in the files that an encoder was trained on, where they are there."""
    own, n = problem.matrix.path, len(problem.samples)
    found = []
    for path in training_files(source):
        if own is not None and path == own.resolve():
            continue
        with open_matrix(path) as unlabelled:
            copies = find_copies(unlabelled, problem.matrix)
            if copies.by_row.size:
                first = int(copies.by_row[0])
                pair = (str(unlabelled.samples[first]), copies.partner[first])
                found += leakage.copies_seen_by_encoder(
                    name, copies.by_row.size, n, pair, n_genes=copies.n_genes
                )
    return found


def _other_depth(name: str, encoder: Encoder, problem: Problem) -> list[Alarm]:
    """Whether the samples are much deeper, or less deep, than an encoder's training samples."""
    trained = encoder.summary.get("depth_quantiles")
    if trained is None:
        return []
    columns = match_recipe(problem.matrix, encoder.recipe, min_coverage=0.0).columns
    own = depths(problem.matrix, columns[columns >= 0], problem.rows)
    median = QUANTILES.index(0.5)
    return alarms.depth_apart(name, trained[median], None if own is None else float(np.median(own)))


def _different_widths(problem: Problem) -> list[Alarm]:
    widths = {entry.name: entry.n_latent for entry in problem.encoders}
    if len(set(widths.values())) < 2:
        return []
    named = ", ".join(f"{name} {width}" for name, width in widths.items())
    text = f"The encoders differ in width ({named}); the PCA has that of {next(iter(widths))}."
    return [Alarm("widths_differ", "note", text)]
