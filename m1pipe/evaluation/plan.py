"""What is known of a comparison before its first fit: counts, design, what each model will see."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from m1pipe.data.groups import group_column
from m1pipe.data.labels import as_text, tidy
from m1pipe.data.targets import left_out
from m1pipe.errors import counted
from m1pipe.evaluation.alarms import encoder_alarms
from m1pipe.evaluation.class_metrics import PRECISION_AT
from m1pipe.evaluation.compared_models import (
    GENES,
    NOTHING,
    Model,
    has_own_term,
    head_config,
    parse_model,
    tuned_settings,
)
from m1pipe.evaluation.design_checks import design_alarms, find_origin, not_checked
from m1pipe.evaluation.encoders import ComparedEncoder, encoder_facts, encoder_settings
from m1pipe.evaluation.fold_results import Plan
from m1pipe.evaluation.metrics import headline
from m1pipe.evaluation.problem import Problem
from m1pipe.provenance import training_paths
from m1pipe.source_labels import source_text

NAMED_TARGETS = 10
CONFOUNDED = ("confounded_label", "class_in_few_groups")


def make_plan(
    problem: Problem, *, label: str | None = None, paths: Mapping[str, str | None] | None = None
) -> Plan:
    """What the shares of a problem are put together by.

    Parameters
    ----------
    problem : Problem
    label : str, optional
        The column that is predicted.
    paths : mapping, optional
        Roles (x, y) to files, for the report.
    """
    info = {**data_facts(problem), **design_facts(problem), "label": label, **(paths or {})}
    info["rows"] = {model.name: model_facts(problem, model) for model in problem.models}
    info["encoders"] = {entry.name: _encoder_facts(entry) for entry in problem.encoders}
    alarms = design_alarms(problem, label)
    for entry in problem.encoders:
        for run in info["encoders"][entry.name]["runs"]:
            name = entry.name if entry.n_seeds == 1 else f"{entry.name} ({run['path']})"
            alarms += encoder_alarms(name, entry.n_latent, run)
    info["not_checked"] = not_checked(problem, label)
    info["labels_from"] = find_origin(problem)[0]
    info["confounding"] = [a.text for a in alarms if a.name in CONFOUNDED]
    return Plan(
        samples=problem.samples,
        folds=problem.folds,
        groups=problem.groups,
        ladder=tuple(model.name for model in problem.models),
        encoders=tuple(entry.name for entry in problem.encoders),
        rival=problem.rival,
        alarms=alarms,
        info=info,
        strata=_report_strata(problem),
        train_sizes=problem.config.train_sizes,
        draws=problem.config.draws,
        target_names=None if problem.targets.is_classes else problem.targets.names,
        target_genes=problem.targets.genes,
    )


def _report_strata(problem: Problem) -> np.ndarray | None:
    """Stratum of every sample, by which errors are shown: those left out, or those of the folds."""
    column = problem.config.leave_out
    if column is not None:
        return as_text(tidy(problem.obs[column]))
    return None if problem.strata is None else problem.strata.astype(str).astype(object)


def data_facts(problem: Problem) -> dict[str, Any]:
    """Counts and units of what goes in."""
    targets = problem.targets
    named = targets.names if targets.is_classes else targets.names[:NAMED_TARGETS]
    facts: dict[str, Any] = {
        "kind": targets.kind,
        "metric": headline(targets.kind, problem.config.loss),
        "n": targets.n,
        "n_features": problem.matrix.n_genes,
        "n_targets": len(targets.names),
        "target_names": list(named),
        "units": str(problem.matrix.units),
        "target_units": str(targets.units) if targets.kind == "regression" else None,
        "dropped": {why: len(ids) for why, ids in problem.dropped.items()},
        "left_out": left_out(problem.dropped),
        "n_missing": problem.n_missing,
        "n_x": problem.matrix.n_samples,
        "n_y": problem.n_y,
    }
    if problem.own_columns is not None:
        facts["n_own_genes"] = int((problem.own_columns >= 0).sum())
    if targets.is_classes:
        counts = np.bincount(targets.values, minlength=len(targets.names))
        facts["classes"] = dict(zip(targets.names, counts.tolist(), strict=True))
    if problem.source is not None:
        facts["source"] = problem.source.facts
    if targets.kind == "multilabel":
        facts["at_the_top"] = _at_the_top(targets.values)
    return facts


def _at_the_top(labels: np.ndarray) -> dict[str, Any]:
    """What precision at k of a sample is by chance, and at best."""
    n_true = labels.sum(axis=1)
    best = {str(k): float(np.minimum(n_true, k).mean() / k) for k in PRECISION_AT}
    return {"chance": float(labels.mean()), "best": best, "without": int((n_true == 0).sum())}


def design_facts(problem: Problem) -> dict[str, Any]:
    """Folds, strata, groups and settings."""
    config, groups = problem.config, problem.groups
    by_label = config.stratify is None and problem.strata is not None
    facts = {
        name: getattr(config, name)
        for name in ("folds", "repeats", "seed", "rope", "recipe", "min_coverage", "group")
    }
    facts["folds"], facts["train_sizes"] = problem.n_folds, list(config.train_sizes)
    facts["draws"] = config.draws
    facts["headline"] = "nadeau_bengio" if config.leave_out is None else "strata_flip"
    facts["leave_out"], facts["n_settings"] = config.leave_out, _n_head_settings(problem)
    facts["augment"] = config.augment
    facts["augment_sampler"] = None if config.augment is None else config.augment_sampler
    facts["stratify"] = "the label" if by_label else config.stratify
    facts["linear_rival"] = problem.rival
    if problem.strata is not None:
        facts["strata"] = {str(k): n for k, n in Counter(problem.strata).items()}
    if groups is not None:
        facts["group"] = config.group or group_column(problem.matrix.obs)
        facts["n_groups"] = len(set(groups))
    return facts


def model_facts(problem: Problem, model: Model) -> dict[str, str]:
    """Which samples fitted each part of a model, in words."""
    return {"sees": _sees(problem, model), **_parts_seen(problem, model)}


def _sees(problem: Problem, model: Model) -> str:
    """What of the samples at hand and of others a model sees at all."""
    encoders = {entry.name for entry in problem.encoders}
    stored = model.source == "pca" or model.head == "linear_prior"
    others = any(entry.frozen for entry in problem.encoders) if stored else False
    if model.source in encoders:
        entry = next(e for e in problem.encoders if e.name == model.source)
        others = not entry.in_fold or problem.unlabelled.size > 0
    seen = {
        "target labels": True,
        "target genes": model.head != "constant",
        "other samples": others,
        "other labels": model.transfer,
    }
    return ", ".join(name for name, is_seen in seen.items() if is_seen)


def _parts_seen(problem: Problem, model: Model) -> dict[str, str]:
    """Which samples fitted each part of a model."""
    train = "training samples of the fold"
    if model.name == "stratum_mean":
        return {"model": f"{train}, of the test sample's own stratum, which it is given"}
    if model.head == "constant":
        return {"model": train}
    if model.head == "ensemble":
        network, n = parse_model(model.source), problem.n_seeds(model)
        text = f"mean of the {n} seeds of {network.name}"
        return {**_base_facts(problem, network), "prediction": text}
    own = {"own gene": _own_seen(problem)} if has_own_term(model, problem.config) else {}
    return {**_base_facts(problem, model), **own, **_variant_facts(problem, model)}


def _variant_facts(problem: Problem, model: Model) -> dict[str, str]:
    """What the network of a variant was trained on, or how its samples weigh."""
    if model.variant is None:
        return {}
    augment = problem.config.augment
    seen = "the head's training samples of the fold without those that its settings are chosen by"
    to = "up to the largest class" if augment == "balance" else f"each class to {augment} times"
    if model.variant == "augmented":
        return {"generator": seen, "added": f"synthetic samples, {to}"}
    if model.variant == "bootstrap":
        return {"added": f"{seen}, drawn with replacement, {to}"}
    return {"weights": "classes alike, by their training samples of the fold"}


def _own_seen(problem: Problem) -> str:
    """How many targets have their gene in X, and how the term is fitted."""
    has = 0 if problem.own is None else problem.own.has.size
    return f"{has:,} of {len(problem.targets.names):,} targets"


def _base_facts(problem: Problem, model: Model) -> dict[str, str]:
    """Which samples fitted the scaler, the PCA, the encoder and the head of a model."""
    train = "training samples of the fold"
    encoders = {e.name: e for e in problem.encoders}
    facts = {}
    if model.source in encoders:
        facts["encoder"] = _encoder_seen(problem, encoders[model.source])
    elif model.source not in (GENES, NOTHING) or model.head == "linear_prior":
        facts["pca"] = _pca_seen(problem, model.source)
    if problem.n_missing:
        of_encoder = model.source in encoders or facts.get("pca", train) != train
        seen = "the samples that the encoder was trained on" if of_encoder else train
        facts["missing levels"] = f"means of {seen}"
    if model.transfer and problem.source is not None:
        facts["score"] = source_text(problem.source.facts)
    head = head_config(model, problem.config)
    facts["scaler"] = train if head.standardize else "none"
    by_groups = "leave-one-group-out" if problem.all_groups is not None else "leave-one-out"
    choice = by_groups if problem.targets.kind == "regression" else "inner folds"
    if model.head != "network":
        return {**facts, "model": f"{train}, penalty by {choice} within them"}
    n_tried = _n_head_settings(problem)
    chosen = f"penalty by {choice}, " if head.linear else ""
    chosen += f"{n_tried} settings and " if n_tried > 1 else ""
    chosen += "epochs by inner folds" if head.validation else "epochs as given"
    facts["head"] = f"{train}, {chosen}"
    return facts


def _n_head_settings(problem: Problem) -> int:
    return len(tuned_settings(parse_model("raw"), problem.config)) if problem.can_tune else 1


def _encoder_seen(problem: Problem, entry: ComparedEncoder) -> str:
    if not entry.in_fold:
        sizes = sorted({len(encoder.samples) for encoder in entry.frozen})
        text = f"{' or '.join(f'{n:,}' for n in sizes)} samples of {', '.join(entry.sources)}"
        if any(encoder.centring is not None for encoder in entry.frozen):
            text += "; genes centred within studies, those of X by all its samples"
        return text
    n_more = problem.unlabelled.size
    text = "training samples of the fold"
    text += f" and up to {n_more:,} without a label" if n_more else ""
    n_tried = len(encoder_settings(entry, problem.config)) if problem.can_tune else 1
    return text + (f"; one of {n_tried} settings, by inner validation" if n_tried > 1 else "")


def _pca_seen(problem: Problem, source: str) -> str:
    stored = [e for e in problem.encoders if e.frozen]
    if stored and source != "pca_fold":
        first = stored[0]
        return f"{counted(len(first.frozen[0].samples), 'sample')} of {first.sources[0]}"
    in_fold = [e for e in problem.encoders if e.in_fold]
    return f"the samples of {in_fold[0].name}" if in_fold else "training samples of the fold"


def _encoder_facts(entry: ComparedEncoder) -> dict[str, Any]:
    """Facts about an encoder; the runs of in-fold encoders are added when they are trained."""
    config = (entry.configs or tuple(e.config for e in entry.frozen))[0]
    return {
        "n_latent": config.model.n_latent,
        "beta": config.model.beta,
        "likelihood": config.model.likelihood,
        "mode": "fold" if entry.in_fold else "frozen",
        "n_seeds": entry.n_seeds,
        "runs": [
            {**encoder_facts(encoder, source), "data": trained_on(source)}
            for encoder, source in zip(entry.frozen, entry.sources, strict=False)
        ],
    }


def trained_on(run: str) -> str | None:
    """The file that a run's encoder was trained on, as its folder recorded it; None if unknown."""
    paths = training_paths(run)
    return str(paths[0]) if paths else None
