"""Which folds are fitted together, and all their heads in one pass over the rows."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from m1pipe.console import log, progress
from m1pipe.evaluation.cost import fits, fold_bytes, memory_bytes
from m1pipe.evaluation.inputs import FoldInputs
from m1pipe.evaluation.ladder import GENES, model_of
from m1pipe.evaluation.problem import Problem
from m1pipe.evaluation.rows import Fold, head_jobs
from m1pipe.evaluation.shares import ShareKey
from m1pipe.heads.fit import Design, HeadJob, fit_heads
from m1pipe.heads.fitted import FittedHead
from m1pipe.heads.train import PassFile
from m1pipe.settings import parse_bytes
from m1pipe.training.signals import StopFlag

Fitted = tuple[FittedHead, np.ndarray]
_PASS_NAME = re.compile(r"_r(\d+)_f(\d+)-(\d+)(?:_n(\d+))?_[a-z]+\d+")


@dataclass(frozen=True, eq=False)
class OpenShare:
    """A (repeat, fold) whose inputs are ready and whose rows are not fitted yet.

    Attributes
    ----------
    repeat, fold : int
    split : Fold
    inputs : FoldInputs
        What the models are fitted to.
    """

    repeat: int
    fold: int
    split: Fold
    inputs: FoldInputs


def passes(problem: Problem, wanted: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Shares that are fitted together: of one repeat, as many as the memory allows.

    One at a time where encoders or generators are trained in the folds: these take longer than the
    heads, and a run that is stopped goes on after the last whole pass.
    """
    most = 1
    if problem.config.augment is None and not any(row.in_fold for row in problem.encoders):
        spare = parse_bytes(problem.config.memory) - memory_bytes(problem)
        most = max(1, 1 + int(spare // max(1, fold_bytes(problem))))
    repeats = dict.fromkeys(repeat for repeat, _ in wanted)
    found = []
    for repeat in repeats:
        own = [place for place in wanted if place[0] == repeat]
        found += [own[start : start + most] for start in range(0, len(own), most)]
    return found


def pass_file(kept: PassFile, problem: Problem, together: Sequence[tuple[int, int]]) -> PassFile:
    """The file of one pass, of its folds and number of training rows alone."""
    (repeat, first), (_, last) = together[0], together[-1]
    size = "" if problem.train_size is None else f"_n{problem.train_size}"
    name = f"{kept.path.name}_r{repeat}_f{first}-{last}{size}.pt"
    return PassFile(kept.path.with_name(name), f"{kept.mark} {list(together)}")


def remove_stale(
    kept: PassFile, problem: Problem, done: Iterable[ShareKey], left: Sequence[ShareKey]
) -> None:
    """Remove states of passes that were finished, but not all of whose folds were written.

    Parameters
    ----------
    kept : PassFile
        As for `run_plan`.
    problem : Problem
    done, left : sequence of (int, int, int or None)
        Shares that are written, and those to be run: the passes over these stay.
    """
    coming = set()
    for size in dict.fromkeys(n for _, _, n in left):
        part = replace(problem, train_size=size)
        for together in passes(part, [(r, k) for r, k, n in left if n == size]):
            coming.add(pass_file(kept, part, together).path.stem)
    written = set(done)
    for path in kept.path.parent.glob(f"{kept.path.name}_r*.pt"):
        found = _PASS_NAME.fullmatch(path.stem.removeprefix(kept.path.name))
        if found is None or path.stem.rpartition("_")[0] in coming:
            continue
        repeat, first, last = (int(found[i]) for i in (1, 2, 3))
        size = None if found[4] is None else int(found[4])
        if any((repeat, fold, size) in written for fold in range(first, last + 1)):
            path.unlink(missing_ok=True)


def fit_opened(
    problem: Problem,
    shares: Sequence[OpenShare],
    *,
    kept: PassFile | None = None,
    stop: StopFlag | None = None,
) -> list[dict[str, list[Fitted]]]:
    """Fit the heads of all models of some folds of one repeat.

    Returns
    -------
    list of dict of str to list of (FittedHead, ndarray)
        For every share, by `m1pipe.evaluation.rows.fitted_as`, one head a seed with what it was
        fitted to, of all samples.
    """
    split = shares[0].split
    wanted = fits(problem)
    places, jobs = [], []
    for i, share in enumerate(shares):
        for key, name in wanted.items():
            own = jobs_of(name, share, problem)
            jobs += own
            places += [(i, key)] * len(own)
    found: list[dict[str, list[Fitted]]] = [{} for _ in shares]
    if not jobs:
        return found
    design = Design(split.targets, split.order_seed, split.order, split.groups)
    log.info("%d heads (%d models x %d folds) in one pass", len(jobs), len(wanted), len(shares))
    bar: Any = progress(total=None, label="heads", unit="epoch")
    with bar:
        heads = fit_heads(jobs, design, kept=kept, stop=stop, on_epoch=lambda _: bar.update())
    for (i, key), job, head in zip(places, jobs, heads, strict=True):
        found[i].setdefault(key, []).append((head, job.X))
    return found


def jobs_of(name: str, share: OpenShare, problem: Problem) -> list[HeadJob]:
    """What is to be fitted for a model of a share, one a seed."""
    inputs = share.inputs
    return head_jobs(
        name,
        inputs.arrays[model_of(name).inputs],
        share.split,
        problem.config,
        genes=inputs.arrays[GENES][0] if GENES in inputs.arrays else None,
        covariance=inputs.covariance,
        added=inputs.added.get(name, ()),
    )
