"""One file into two: training samples and held-out ones, stratified and grouped."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from m1pipe.atomic import atomic_folder, refuse_folder
from m1pipe.data.choose_samples import matching_samples
from m1pipe.data.groups import resolve_groups
from m1pipe.data.labels import as_text, read_column
from m1pipe.data.matrix import Matrix
from m1pipe.data.splits import inner_split
from m1pipe.errors import InputError
from m1pipe.io.writer import MatrixWriter
from m1pipe.settings import setting

TRAINING = "training.h5ad"
HELD_OUT = "held_out.h5ad"
FILES = (TRAINING, HELD_OUT)
WHAT = "a split"


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How samples are dealt to training and held-out files.

    Attributes
    ----------
    holdout : float
        Share of the samples to hold out; groups and strata move it a little.
    where : str or None
        Samples to deal, as `matching_samples` understands it; the others are in neither file.
    stratify : str or None
        Column of obs whose levels keep their shares in both files.
    group : str or None
        Column of obs, or regular expression on sample ids, whose groups are never cut apart;
        "none" switches off the grouping by a column `donor`.
    seed : int
    """

    holdout: float = setting(0.5, "Share to hold out.", metavar="F")
    where: str | None = setting(
        None, "Samples to deal: COLUMN~REGEX, or a condition.", metavar="COND"
    )
    stratify: str | None = setting(None, "Column whose levels keep their shares.", metavar="COL")
    group: str | None = setting(
        None,
        "Never cut apart: a column, or a pattern in the ids.",
        metavar="COL|REGEX",
        shown="donor, patient, ...",
    )
    seed: int = setting(0, "Of the draw.")

    def __post_init__(self) -> None:
        if not 0 < self.holdout < 1:
            raise InputError(f"holdout: expected a share between 0 and 1; found {self.holdout}")


def split_matrix(
    matrix: Matrix, out: Path | str, config: SplitConfig, *, force: bool = False
) -> str:
    """Write training and held-out samples to files of their own, in the order of the source.

    Rows are streamed; the folder appears when both files are complete.

    Parameters
    ----------
    matrix : Matrix
    out : path
        The folder; it will hold `training.h5ad` and `held_out.h5ad`.
    config : SplitConfig
    force : bool
        Replace an earlier split.

    Returns
    -------
    str
        One line about what was written.

    Raises
    ------
    InputError
        If there are fewer than two samples or groups, or a column is not there.
    """
    out = refuse_folder(out, FILES, what=WHAT, force=force)
    rows = np.arange(matrix.n_samples)
    if config.where is not None:
        rows = np.flatnonzero(matching_samples(matrix.obs, config.where))
    groups = resolve_groups(matrix.obs, config.group)
    stratify = config.stratify
    strata = None if stratify is None else as_text(read_column(matrix.obs, stratify, "stratify"))
    dealt = inner_split(rows, config.holdout, config.seed, strata=strata, groups=groups)
    training, held_out = map(np.sort, dealt)
    with atomic_folder(out, FILES, what=WHAT, force=force) as folder:
        _write(matrix, training, folder / TRAINING, config)
        _write(matrix, held_out, folder / HELD_OUT, config)
    said = ""
    if groups is not None:
        said = f", {len(set(groups[training])):,} and {len(set(groups[held_out])):,} groups"
    return (
        f"{out}: {len(training):,} training and {len(held_out):,} held-out samples x "
        f"{matrix.n_genes:,} genes{said}"
    )


def _write(matrix: Matrix, rows: np.ndarray, path: Path, config: SplitConfig) -> None:
    obs = matrix.obs.iloc[rows]
    uns = {"m1pipe": _record(matrix, path, config)}
    with MatrixWriter(path, obs=obs, var=matrix.var, units=matrix.units, uns=uns) as writer:
        done = 0
        for some in matrix.bands(rows):
            writer.write(done, matrix.take(some))
            done += len(some)


def _record(matrix: Matrix, path: Path, config: SplitConfig) -> dict[str, Any]:
    """How the file was made, for `uns`."""
    words = [f"{path.stem} of a split, {config.holdout:g} held out, seed {config.seed}"]
    for name in ("where", "stratify", "group"):
        if getattr(config, name) is not None:
            words.append(f"{name} {getattr(config, name)}")
    source = "memory" if matrix.path is None else matrix.path.name
    return {"source": source, "steps": np.array(words, dtype=object)}
