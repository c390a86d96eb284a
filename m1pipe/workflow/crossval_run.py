"""The call behind `m1pipe crossval`: a folder that is resumed fold by fold, and gathered."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from m1pipe._version import __version__
from m1pipe.artefacts import read_json
from m1pipe.atomic import below, clear, is_part, locked, write_json, write_text
from m1pipe.config import CrossvalConfig
from m1pipe.console import log
from m1pipe.data.labels import find_column
from m1pipe.data.recipe import MISSING_FILE, missing_table
from m1pipe.encoder.bundle import weights_file
from m1pipe.errors import InputError
from m1pipe.evaluation.cost import n_parameters
from m1pipe.evaluation.crossval import run_plan
from m1pipe.evaluation.encoders import FOLD_PREFIX, settings_file
from m1pipe.evaluation.fold_results import Plan, assemble
from m1pipe.evaluation.plan import make_plan
from m1pipe.evaluation.predictions import remove_stale
from m1pipe.evaluation.problem import Problem, make_problem
from m1pipe.evaluation.result import CrossvalResult
from m1pipe.heads.inner_folds import MISSED_ROWS
from m1pipe.heads.networks import PassFile
from m1pipe.io.reader import PREFIX, open_matrix
from m1pipe.provenance import make_provenance
from m1pipe.reports.crossval_report import write_report
from m1pipe.reports.files import EXTRA_FILES, RESULT_FILES, crossval_settings
from m1pipe.settings import to_dict
from m1pipe.source_labels import Sources
from m1pipe.training.device import choose_threads, threads
from m1pipe.training.signals import StopFlag
from m1pipe.workflow.augment import train_generator
from m1pipe.workflow.crossval_shares import (
    PLAN,
    SHARE_FILES,
    fingerprint,
    read_plan,
    read_share,
    write_plan,
    write_share,
)

SHARES = "shares"
SETTINGS = " settings"
TOP_FILES = (
    *RESULT_FILES,
    *EXTRA_FILES,
    "report.html",
    MISSING_FILE,
    "config.json",
    "provenance.json",
)
SHARED_FILES = (f"{SHARES}/pass*.pt", *below(f"{SHARES}/r[0-9]*_f[0-9]*", SHARE_FILES))
OWN_FILES = (*TOP_FILES, *SHARED_FILES, f"{SHARES}/{PLAN}")


@dataclass(frozen=True, kw_only=True)
class CrossvalRun:
    """What is compared, by name: with the settings, the content of a folder's `config.json`.

    Attributes
    ----------
    x : str
        File of the genes.
    y, multilabel : str or None
        File of the levels, or of zeros and ones, to predict.
    label : str or None
        Column of x to predict.
    targets : tuple of str or None
        Columns of y; None: all.
    aliases : str or None
        Table of other names of genes, by which those of x are matched as well.
    encoders : dict of str to tuple of str
        NAME to runs or `fold:CONFIG` items.
    source : tuple of str
        Files of other studies, whose labels are used.
    source_label, source_study : str or None
        Their columns of the label and of the study.
    """

    x: str
    y: str | None = None
    multilabel: str | None = None
    label: str | None = None
    targets: tuple[str, ...] | None = None
    aliases: str | None = None
    encoders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    source: tuple[str, ...] = ()
    source_label: str | None = None
    source_study: str | None = None

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "CrossvalRun":
        """What a configuration names, its lists as tuples."""
        lists = {"targets": None, "source": (), **stored}
        return cls(
            **{
                **lists,
                "targets": None if lists["targets"] is None else tuple(lists["targets"]),
                "source": tuple(lists["source"]),
                "encoders": {n: tuple(items) for n, items in stored.get("encoders", {}).items()},
            }
        )

    @property
    def inputs(self) -> dict[str, str]:
        """Role to file, for everything that is read; `NAME i settings` of encoders in folds."""
        files = {"x": self.x, "y": self.y, "multilabel": self.multilabel, "aliases": self.aliases}
        if self.multilabel is not None and self.multilabel.startswith(PREFIX):
            files["multilabel"] = None  # part of x
        files |= {f"source {i}": file for i, file in enumerate(self.source, start=1)}
        for name, items in self.encoders.items():
            for i, item in enumerate(items, start=1):
                if not item.startswith(FOLD_PREFIX):
                    files[f"{name} {i}"] = str(weights_file(item))
                elif (file := settings_file(item)) is not None:
                    files[f"{name} {i}{SETTINGS}"] = str(file)
        return {role: path for role, path in files.items() if path is not None}

    def problem(self, config: CrossvalConfig) -> Problem:
        """Open everything that is named here."""
        sources = Sources(files=self.source, label=self.source_label, study=self.source_study)
        return make_problem(
            open_matrix(self.x, aliases=self.aliases),
            self.y,
            multilabel=self.multilabel,
            label=self.label,
            targets=self.targets,
            encoders=self.encoders,
            sources=sources if self.source else None,
            config=config,
            generator=train_generator,
        )


def run_crossval(
    run: CrossvalRun,
    config: CrossvalConfig,
    out: str | Path,
    *,
    only: tuple[int, int] | None = None,
    force: bool = False,
    report: bool = True,
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
    with locked(out, shared=only is not None):
        return _run_locked(run, config, out, only=only, force=force, report=report)


def _run_locked(
    run: CrossvalRun,
    config: CrossvalConfig,
    out: Path,
    *,
    only: tuple[int, int] | None,
    force: bool,
    report: bool,
) -> CrossvalResult | None:
    """What `run_crossval` does in a folder that no other process works in."""
    problem = run.problem(config)
    label = None if run.label is None else find_column(problem.matrix.obs, run.label, "label")[0]
    plan = make_plan(problem, label=label, paths={"x": run.x, "y": run.y})
    if only is not None and (*only, None, 0) not in plan.shares:
        raise InputError(
            f"fold: expected folds 0 to {problem.n_folds - 1} and repeats 0 to "
            f"{config.repeats - 1}; found --fold {only[1]} --repeat {only[0]}"
        )
    marks = _start_folder(out, run, config, problem, plan, again=force and only is None)
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
    write_report(
        result,
        folder,
        provenance=read_json(folder / "provenance.json", "the provenance of a cross-validation"),
        config=crossval_settings(folder / "config.json"),
    )
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
        write_json(out / "config.json", {**asdict(run), "crossval": to_dict(config)})
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
