"""Which folds are fitted together, and all their heads in one pass over the rows."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from m1pipe.console import log, progress
from m1pipe.evaluation.cost import fold_bytes, memory_bytes
from m1pipe.evaluation.ladder import base_row, has_own_term, head_config, is_head
from m1pipe.evaluation.problem import Problem
from m1pipe.evaluation.rows import SUBSET, Fold
from m1pipe.evaluation.shares import ShareKey
from m1pipe.evaluation.variants import variant_of
from m1pipe.settings import parse_bytes
from m1pipe.training.added import AddedRows
from m1pipe.training.fit_heads import FEW_ROWS
from m1pipe.training.fit_stacks import PassFile, fit_heads
from m1pipe.training.fitted_head import FittedHead
from m1pipe.training.signals import StopFlag
from m1pipe.training.stack_pass import Design, HeadJob

_PASS_NAME = re.compile(r"_r(\d+)_f(\d+)-(\d+)(?:_n(\d+))?_\d+")


@dataclass(frozen=True, eq=False)
class OpenShare:
    """A (repeat, fold) whose inputs are ready and whose rows are not fitted yet.

    Attributes
    ----------
    repeat, fold : int
    split : Fold
    inputs : mapping of str to sequence of ndarray or None
        Of every row, from `m1pipe.evaluation.inputs.fold_inputs`.
    trained : mapping of str to list of dict
        Facts about the encoders that were trained in the fold.
    added : mapping of str to sequence of AddedRows
        Of the rows that are trained on more than the training rows, one a seed.
    """

    repeat: int
    fold: int
    split: Fold
    inputs: Mapping[str, Sequence[np.ndarray | None]]
    trained: dict[str, list[dict[str, Any]]]
    added: Mapping[str, Sequence[AddedRows]] = field(default_factory=dict)


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
) -> list[dict[str, list[FittedHead]]]:
    """Train the heads of feed-forward rows of some folds of one repeat.

    A row with a term of the targets' own genes has the head of the row without it. Left to
    `fit_row`, one by one: all heads where few of the rows are trained on or settings are tried,
    those with own genes where no rows are held out, and those with added rows and their controls.

    Returns
    -------
    list of dict of str to list of FittedHead
        For every share, by row, one head a seed.
    """
    split, config = shares[0].split, problem.config
    n_train = min(share.split.train.size for share in shares)
    rows = [row for row in problem.ladder if _has_plain_head(row, problem, n_train)]
    if not rows or SUBSET * n_train < split.targets.n or config.tune:
        return [{} for _ in shares]
    places = [
        (i, base, X)
        for base in dict.fromkeys(base_row(row) for row in rows)
        for i, share in enumerate(shares)
        for X in share.inputs[base]
        if X is not None
    ]
    jobs = [
        HeadJob(X, head_config(base, config), shares[i].split.train, shares[i].split.seed)
        for i, base, X in places
    ]
    design = Design(split.targets, split.order_seed, split.order, split.strata, split.groups)
    log.info("heads: %d of %d folds in one pass", len(jobs), len(shares))
    bar: Any = progress(total=config.head.epochs, label="heads", unit="epoch")
    with bar:
        heads = fit_heads(jobs, design, kept=kept, stop=stop, on_epoch=lambda _: bar.update())
    found: list[dict[str, list[FittedHead]]] = [{} for _ in shares]
    for (i, base, _), head in zip(places, heads, strict=True):
        for row in rows:
            if base_row(row) == base:
                found[i].setdefault(row, []).append(head)
    return found


def _has_plain_head(row: str, problem: Problem, n_train: int) -> bool:
    """Whether a row is a head, or one with a term that can be added to it afterwards."""
    if not is_head(row) or variant_of(row) is not None:
        return False
    if not has_own_term(row, problem.config):
        return True
    held_out = head_config(base_row(row), problem.config).validation > 0
    return held_out and n_train >= FEW_ROWS
