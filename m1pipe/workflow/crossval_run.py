"""The call behind `m1pipe crossval`: a folder that is resumed fold by fold, and gathered."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from m1pipe._version import __version__
from m1pipe.artefacts import SEAL, read_json
from m1pipe.atomic import (
    below,
    clear,
    is_part,
    locked,
    write_json,
    write_text,
)
from m1pipe.config import CrossvalConfig
from m1pipe.console import log
from m1pipe.data.recipe import MISSING_FILE, missing_table
from m1pipe.errors import InputError
from m1pipe.evaluation.cost import n_parameters
from m1pipe.evaluation.crossval import run_plan
from m1pipe.evaluation.fold_results import Plan, assemble
from m1pipe.evaluation.predictions import remove_stale
from m1pipe.evaluation.problem import Problem
from m1pipe.evaluation.result import CrossvalResult
from m1pipe.heads.inner_folds import MISSED_ROWS
from m1pipe.heads.networks import PassFile
from m1pipe.provenance import make_provenance
from m1pipe.reports.crossval_report import write_report
from m1pipe.reports.files import EXTRA_FILES, RESULT_FILES, crossval_settings
from m1pipe.settings import to_dict
from m1pipe.training.device import choose_threads, threads
from m1pipe.training.signals import StopFlag
from m1pipe.workflow.crossval_inputs import SETTINGS, CrossvalRun
from m1pipe.workflow.crossval_shares import (
    PLAN,
    SHARE_FILES,
    fingerprint,
    read_plan,
    read_share,
    write_plan,
    write_share,
)
from m1pipe.workflow.declared_plan import (
    DECLARED,
    declaration,
    earlier_results,
    other_plans,
    plan_text,
    read_declaration,
    refuse_changed_inputs,
)

SHARES = "shares"
TOP_FILES = (
    *RESULT_FILES,
    *EXTRA_FILES,
    "report.html",
    MISSING_FILE,
    DECLARED,
    "config.json",
    "provenance.json",
)
SHARED_FILES = (f"{SHARES}/pass*.pt", *below(f"{SHARES}/r[0-9]*_f[0-9]*", SHARE_FILES))
OWN_FILES = (*TOP_FILES, *SHARED_FILES, f"{SHARES}/{PLAN}")


def run_crossval(
    run: CrossvalRun,
    config: CrossvalConfig,
    out: str | Path,
    *,
    only: tuple[int, int] | None = None,
    force: bool = False,
    report: bool = True,
    declared: Mapping[str, Any] | None = None,
) -> CrossvalResult | None:
    """Run what is missing of a cross-validation, and write its report when it is complete.

    Every finished fold is kept at once: the same call resumes what was interrupted.

    Parameters
    ----------
    run : CrossvalRun
        What is compared.
    config : CrossvalConfig
        How.
    out : path
        Folder of the result.
    only : (int, int), optional
        Run this repeat and fold (from 0) and nothing else: one task of a job array. `gather`
        puts the shares together.
    force : bool
        Start again in a folder that holds a cross-validation; with `only`, run the share again.
    report : bool
        Gather and report at the end; if not, `gather` does it later.
    declared : mapping, optional
        The plan by which it is run, from `read_declaration`; the report says where `run` and
        `config` depart from it.

    Returns
    -------
    CrossvalResult or None
        None with `only` or without `report`.

    Raises
    ------
    InputError
        If the input cannot be used, or the folder holds something else.
    StoppedBySignalError
        After a signal; the folds that are done are kept.
    """
    out = Path(out)
    _refuse_folder(out, force=force)
    if declared is not None:
        refuse_changed_inputs(declared, run.inputs)
    with locked(out, shared=only is not None):
        return _run_locked(
            run, config, out, only=only, force=force, report=report, declared=declared
        )


def _run_locked(
    run: CrossvalRun,
    config: CrossvalConfig,
    out: Path,
    *,
    only: tuple[int, int] | None,
    force: bool,
    report: bool,
    declared: Mapping[str, Any] | None,
) -> CrossvalResult | None:
    """What `run_crossval` does in a folder that no other process works in."""
    problem = run.problem(config)
    plan = run.plan(problem)
    if only is not None and (*only, None, 0) not in plan.shares:
        raise InputError(
            f"fold: expected folds 0 to {problem.n_folds - 1} and repeats 0 to "
            f"{config.repeats - 1}; found --fold {only[1]} --repeat {only[0]}"
        )
    marks = _start_folder(
        out, run, config, problem, plan, again=force and only is None, declared=declared
    )
    wanted = [key for key in plan.shares if only is None or key[:2] == only]
    redo = force and only is not None
    done = [] if redo else [s for s in wanted if read_share(out / SHARES, s, marks) is not None]
    if len(done) == len(wanted):
        log.info("%s: finished already, nothing left to do", out)
    elif done:
        log.info("%d of %d folds are done already", len(done), len(wanted))
    with StopFlag() as stop, threads(_n_threads(problem)):
        kept = PassFile(out / SHARES / "pass", json.dumps(marks, sort_keys=True))
        left = [place for place in wanted if place not in done]
        remove_stale(kept, problem, done, left)
        for share in run_plan(problem, left, kept=kept, stop=stop):
            write_share(out / SHARES, share, marks, force=redo)
    return gather(out) if only is None and report else None


def gather(folder: str | Path) -> CrossvalResult:
    """Put the shares of a folder together, test, and write tables and report into it.

    Raises
    ------
    InputError
        If a share is missing, or was made with other settings, data or folds.
    """
    folder = Path(folder)
    result = gathered(folder)
    provenance = read_json(folder / "provenance.json", "the provenance of a cross-validation")
    config = crossval_settings(folder / "config.json")
    _, marks = read_plan(folder / SHARES)
    if (digest := marks.get("plan")) is not None:
        plan = read_declaration(folder / DECLARED, digest)
        said = declaration(plan, result, stored=config, provenance=provenance, folds=marks["folds"])
        result = replace(result, info={**result.info, "declared": said})
    write_report(result, folder, provenance=provenance, config=config)
    return result


def gathered(folder: Path) -> CrossvalResult:
    """The result that the shares of a folder make; nothing is written."""
    plan, marks = read_plan(folder / SHARES)
    shares = [read_share(folder / SHARES, place, marks) for place in plan.shares]
    return assemble(plan, [share for share in shares if share is not None])


def _refuse_folder(out: Path, *, force: bool) -> None:
    """Refuse a folder that is not ours."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out} exists already and is no folder: choose another name")
    if (out / SHARES / PLAN).exists():
        return
    others = [name for name in sorted(os.listdir(out)) if not is_part(name) and name != SHARES]
    ours = [name for name in others if name in TOP_FILES]
    if others and (ours or not force):
        way = "move that file" if ours else "write into it with --force"
        raise InputError(
            f"{out} exists already and holds no cross-validation: found {(ours or others)[0]}: "
            f"choose another name, or {way}"
        )


def _start_folder(
    out: Path,
    run: CrossvalRun,
    config: CrossvalConfig,
    problem: Problem,
    plan: Plan,
    *,
    again: bool,
    declared: Mapping[str, Any] | None,
) -> dict[str, str]:
    """Write config, provenance and plan, or check that those there are of the same run."""
    missing = _missing(problem)
    provenance = make_provenance(
        run.inputs, folder=out, seed=config.seed, threads=_n_threads(problem)
    )
    hashes = {
        role: str(file["sha256"])
        for role, file in provenance["inputs"].items()
        if not role.endswith(SETTINGS)  # what is in them is among the settings
    }
    marks = fingerprint(_deciding(run, config, problem), hashes, plan)
    if again:
        _clear(out)
    if declared is None and (out / DECLARED).exists():
        declared = read_declaration(out / DECLARED)  # it was begun by this plan
    if declared is not None:
        marks["plan"] = declared[SEAL]
    if (out / SHARES / PLAN).exists():
        _, before = read_plan(out / SHARES)
        changed = [what for what in marks if before.get(what) != marks[what]]
        if changed:
            raise InputError(
                f"{out} holds a cross-validation of other {' and '.join(changed)}: choose another "
                "name, or overwrite it with --force"
            )
    else:
        write_plan(out / SHARES, plan, marks)
    if not (out / "provenance.json").exists():
        stored = run.stored(config)
        if declared is not None:
            write_text(out / DECLARED, plan_text(declared))
            plans = other_plans(out / DECLARED, provenance["inputs"], stored, out)
            on = declared["declared"]["on"]
            provenance["earlier_results"] = [
                *earlier_results(provenance["inputs"], stored, out),
                *(plan for plan in plans if plan.rpartition(" of ")[2] < on),
            ]
        write_json(out / "config.json", stored)
        write_text(out / MISSING_FILE, missing)
        write_json(out / "provenance.json", provenance)
    return marks


def _missing(problem: Problem) -> str:
    """Genes of the frozen encoders that X lacks, as text of a table; refused if too many."""
    recipes = {
        source: encoder.recipe
        for row in problem.encoders
        for source, encoder in zip(row.sources, row.frozen, strict=False)
    }
    return missing_table(problem.matrix, recipes, min_coverage=problem.config.min_coverage)


def _n_threads(problem: Problem) -> int:
    """Threads for the steps of the largest network, alone: those of a pass are no larger products.

    Two threads wait for each other after every product of every head: where another process holds
    a core, a pass was seen to take ten times as long.
    """
    largest = max(n_parameters(problem, model) for model in problem.models)
    return choose_threads(largest, problem.config.head.batch_size)


def _deciding(run: CrossvalRun, config: CrossvalConfig, problem: Problem) -> dict[str, Any]:
    """Settings that decide a number; paths and devices do not."""
    settings: dict[str, Any] = to_dict(config)
    settings.pop("memory")
    settings["head"].pop("device")
    in_fold = {row.name: [to_dict(c) for c in row.configs] for row in problem.encoders}
    for seeds in in_fold.values():
        for chosen in seeds:
            for name in ("device", "memory", "checkpoint_minutes"):
                chosen["training"].pop(name)
    frozen = {row.name: len(row.frozen) for row in problem.encoders}
    rules = {} if problem.targets.kind == "regression" else {"missed_rows": MISSED_ROWS}
    return {
        **rules,
        "version": __version__,
        "crossval": settings,
        "label": run.label,
        "multilabel": None if "multilabel" in run.inputs else run.multilabel,
        "targets": run.targets,
        **({"source": [run.source_label, run.source_study]} if run.source else {}),
        "in_fold": in_fold,
        "frozen": frozen,
    }


def _clear(out: Path) -> None:
    """Remove the earlier cross-validation, its plan last, and nothing that is not ours."""
    for own in ((*TOP_FILES, *SHARED_FILES), (f"{SHARES}/{PLAN}",)):
        clear(out, own)
