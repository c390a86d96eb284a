"""Several files of samples as one matrix: the genes in common, rows read from where they lie."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd

from m1pipe.console import log
from m1pipe.data.depth import in_units
from m1pipe.data.matrix import Matrix
from m1pipe.data.recipe import Recipe, align, name_columns
from m1pipe.errors import InputError
from m1pipe.io.reader import open_matrix

FILE = "file"
"""Column of obs that says which file a sample is of, by its name without ending."""


def open_together(paths: Sequence[str | os.PathLike[str]], opened: ExitStack) -> Matrix:
    """Open several files as one matrix; a single one as it is.

    Parameters
    ----------
    paths : sequence of path
    opened : ExitStack
        Closes the files.

    Returns
    -------
    Matrix
        In the units of the first file, its genes that all have, in its order. obs has the columns
        of all files and `FILE`. Counts that are to be normalised are, over all genes of their file.

    Raises
    ------
    InputError
        If units do not fit, no gene is shared, or names of samples or files come twice.
    """
    files = [opened.enter_context(open_matrix(path)) for path in paths]
    if len(files) == 1:
        return files[0]
    first = files[0]
    parts = [file if file.units.is_counts == first.units.is_counts else in_units(file, first.units)
             for file in files]  # fmt: skip
    found = np.stack([part.match(first.genes.tolist(), first.var).columns >= 0 for part in parts])
    common = found.all(axis=0)
    log.info(
        "%s genes in common of %s",
        f"{common.sum():,}",
        ", ".join(f"{path} ({f.n_genes:,})" for path, f in zip(paths, files, strict=True)),
    )
    if not common.any():
        raise InputError(
            f"{paths[0]} and {paths[-1]}: expected genes in common; found none: match their names "
            "first (m1pipe convert)"
        )
    var = first.var.iloc[np.flatnonzero(common)]
    zeros = np.zeros(len(var), dtype=np.float32)
    recipe = Recipe(tuple(var.index), first.units, zeros, name_columns(var))
    seen = [align(part, recipe, min_coverage=1.0, keep_missing=True) for part in parts]
    ends = np.cumsum([part.n_samples for part in parts])

    def read_into(start: int, out: np.ndarray) -> None:
        begin = 0
        for one, end in zip(seen, ends.tolist(), strict=True):
            low, high = max(start, begin), min(start + len(out), end)
            if low < high:
                out[low - start : high - start] = one.take(np.arange(low, high) - begin)
            begin = end

    return Matrix(read_into, _obs(files, paths), var, first.units, layout="together")


def _obs(files: Sequence[Matrix], paths: Sequence[str | os.PathLike[str]]) -> pd.DataFrame:
    """Annotations of all samples, and their files."""
    names = [Path(path).stem for path in paths]
    if len(set(names)) < len(names):
        raise InputError(f"expected files of different names; found {', '.join(names)}")
    obs = pd.concat([f.obs.assign(**{FILE: n}) for f, n in zip(files, names, strict=True)])
    twice = obs.index[obs.index.duplicated()]
    if len(twice):
        raise InputError(
            f"{', '.join(names)}: expected samples of different names; found {len(twice)} in two "
            f"files, {twice[0]!r} first: leave them out of one (m1pipe convert --where)"
        )
    return obs
