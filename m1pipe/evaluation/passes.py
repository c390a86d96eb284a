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
from m1pipe.evaluation.rows import Fold, Joined, head_jobs
from m1pipe.evaluation.shares import ShareKey
from m1pipe.heads.fit import fit_heads
from m1pipe.heads.fitted import FittedHead
from m1pipe.heads.start import Design, HeadJob
from m1pipe.heads.train import PassFile
from m1pipe.settings import parse_bytes
from m1pipe.training.signals import StopFlag

Fitted = tuple[FittedHead, np.ndarray]
Place = tuple[int, int, int]
"""Repeat, fold and draw of the training rows."""
_PASS_NAME = re.compile(r"_r(\d+)_f(\d+)-(\d+)(?:_n(\d+)(?:_d(\d+)-(\d+))?)?_[a-z]+\d+")


@dataclass(frozen=True, eq=False)
class OpenShare:
    """A fold, or a draw of its training rows, whose inputs are ready; no model is fitted yet.

    Attributes
    ----------
    repeat, fold : int
    split : Fold
    inputs : FoldInputs
        What the models are fitted to.
    draw : int
    """

    repeat: int
    fold: int
    split: Fold
    inputs: FoldInputs
    draw: int = 0


def passes(problem: Problem, wanted: Sequence[Place]) -> list[list[Place]]:
    """Shares that are fitted together: of one repeat, as many as the memory allows.

    One at a time where encoders or generators are trained in the folds: these take longer than the
    heads, and a run that is stopped goes on after the last whole pass.
    """
    most = 1
    if problem.config.augment is None and not any(row.in_fold for row in problem.encoders):
        spare = parse_bytes(problem.config.memory) - memory_bytes(problem)
        most = max(1, 1 + int(spare // max(1, fold_bytes(problem))))
    repeats = dict.fromkeys(repeat for repeat, *_ in wanted)
    found = []
    for repeat in repeats:
        own = [place for place in wanted if place[0] == repeat]
        found += [own[start : start + most] for start in range(0, len(own), most)]
    return found


def pass_file(kept: PassFile, problem: Problem, together: Sequence[Place]) -> PassFile:
    """The file of one pass, of its folds, number of training rows and draws alone."""
    (repeat, first, first_draw), (_, last, last_draw) = together[0], together[-1]
    size = "" if problem.train_size is None else f"_n{problem.train_size}"
    if problem.train_size is not None and problem.config.draws > 1:
        size += f"_d{first_draw}-{last_draw}"
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
    done, left : sequence of (int, int, int or None, int)
        Shares that are written, and those to be run: the passes over these stay.
    """
    coming = set()
    for size in dict.fromkeys(n for _, _, n, _ in left):
        part = replace(problem, train_size=size)
        for together in passes(part, [(r, k, d) for r, k, n, d in left if n == size]):
            coming.add(pass_file(kept, part, together).path.stem)
    written = set(done)
    for path in kept.path.parent.glob(f"{kept.path.name}_r*.pt"):
        found = _PASS_NAME.fullmatch(path.stem.removeprefix(kept.path.name))
        if found is None or path.stem.rpartition("_")[0] in coming:
            continue
        repeat, first, last, first_draw, last_draw = (int(found[i] or 0) for i in (1, 2, 3, 5, 6))
        size = None if found[4] is None else int(found[4])
        lowest, highest = (first, first_draw), (last, last_draw)
        if any((r, n) == (repeat, size) and lowest <= (k, d) <= highest for r, k, n, d in written):
            path.unlink(missing_ok=True)


def fit_opened(
    problem: Problem,
    shares: Sequence[OpenShare],
    *,
    kept: PassFile | None = None,
    stop: StopFlag | None = None,
) -> list[dict[str, list[Fitted]]]:
    """Fit the heads of all models of some folds, or draws of their training rows, of one repeat.

    Returns
    -------
    list of dict of str to list of (FittedHead, ndarray)
        For every share, by `m1pipe.evaluation.rows.fitted_as`, one head a seed with what it was
        fitted to, of all samples.
    """
    split = shares[0].split
    wanted = fits(problem)
    places, jobs = [], []
    joined: Joined = {}
    for i, share in enumerate(shares):
        for key, name in wanted.items():
            own = jobs_of(name, share, problem, joined)
            jobs += own
            places += [(i, key)] * len(own)
    found: list[dict[str, list[Fitted]]] = [{} for _ in shares]
    if not jobs:
        return found
    design = Design(split.targets, split.order_seed, split.order, split.groups)
    log.info("%d heads (%s) in one pass", len(jobs), _in_words(problem, shares, len(wanted)))
    bar: Any = progress(total=None, label="heads", unit="epoch")
    with bar:
        heads = fit_heads(jobs, design, kept=kept, stop=stop, on_epoch=lambda _: bar.update())
    for (i, key), job, head in zip(places, jobs, heads, strict=True):
        found[i].setdefault(key, []).append((head, job.X))
    return found


def _in_words(problem: Problem, shares: Sequence[OpenShare], n_models: int) -> str:
    """What a pass is over: `6 models x 50 draws of 30 training rows, from 5 folds`."""
    n_folds = len({share.fold for share in shares})
    folds = f"{n_folds} fold{'s' if n_folds > 1 else ''}"
    models = f"{n_models} model{'s' if n_models > 1 else ''}"
    if problem.train_size is None:
        return f"{models} x {folds}"
    if problem.config.draws == 1:
        return f"{models} x {folds}, {problem.train_size} training rows"
    return f"{models} x {len(shares)} draws of {problem.train_size} training rows, from {folds}"


def jobs_of(
    name: str, share: OpenShare, problem: Problem, joined: Joined | None = None
) -> list[HeadJob]:
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
        joined=joined,
    )
