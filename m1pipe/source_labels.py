"""Labels of other studies: their files opened, matched with the samples at hand, made a score.

Nothing here sees a label of the samples that the score is to serve.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.console import log
from m1pipe.data.depth import in_units
from m1pipe.data.duplicates import find_copies
from m1pipe.data.groups import GROUP_WORDS
from m1pipe.data.labels import as_text, read_column
from m1pipe.data.matrix import Matrix
from m1pipe.data.names import plain
from m1pipe.data.recipe import Recipe, align
from m1pipe.data.targets import Kind, Targets, load_targets, name_classes
from m1pipe.errors import Alarm, InputError
from m1pipe.heads.score import contrasted, fit_score
from m1pipe.io.reader import open_matrix

STUDY_WORDS = ("study", "studyid", "dataset", "cohort", "series", "seriesid", "batch")
"""Names, without case and marks, of columns that say which study a sample is of."""
_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Files of other studies whose samples are labelled.

    Attributes
    ----------
    files : tuple of path, or of what `m1pipe.io.reader.open_matrix` takes
    label : str or None
        Column of their labels. None: that of the samples at hand.
    study : str or None
        Column that names the studies. None: the first of `STUDY_WORDS`, or each file is one.
    """

    files: tuple[Any, ...]
    label: str | None = None
    study: str | None = None


@dataclass(frozen=True, eq=False)
class SourceScore:
    """A score of the targets, fitted to the labels of other studies.

    Attributes
    ----------
    weight : ndarray of float32, shape (n_genes, n_outputs)
        What the recipe's genes are multiplied by; 0 where a source lacks one.
    facts : dict
        Files, samples, studies, and classes that were matched; plain values for a report.
    alarms : list of Alarm
        Samples that the sources share with the samples at hand, and were left out.
    """

    weight: np.ndarray
    facts: dict[str, Any]
    alarms: list[Alarm] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Labelled:
    """Samples of a source, without those that are at hand as well."""

    X: np.ndarray
    targets: Targets
    studies: np.ndarray
    shared: dict[str, list[str]]  # why samples were left out, and which


def fit_source_score(
    sources: Sources,
    matrix: Matrix,
    recipe: Recipe,
    targets: Targets,
    *,
    label: str,
    group: str | None = None,
    min_coverage: float,
    known: np.ndarray | None = None,
) -> SourceScore:
    """Fit a score of some targets to the labels of other studies.

    Parameters
    ----------
    sources : Sources
    matrix : Matrix
        The samples at hand, by which shared samples are left out of the sources.
    recipe : Recipe
        Genes and units that the score takes.
    targets : Targets
        Classes, or one level, of which only kind and names are looked at.
    label : str
        Their column.
    group : str or None
        Column that names patients; "none": patients are not compared.
    min_coverage : float
        Smallest share of the recipe's genes that every source must have.
    known : ndarray of bool, shape (n_genes,), optional
        Genes that the score may take. Left out: all.

    Raises
    ------
    InputError
        If units, genes or labels do not fit, no sample is left, or no class is shared.
    """
    if recipe.units.is_linear:
        raise InputError(
            f"source: expected samples on a log scale; found {recipe.units}: convert them first "
            "(m1pipe convert --normalize total --log2p1)"
        )
    if targets.kind == "multilabel" or (not targets.is_classes and len(targets.names) > 1):
        raise InputError(
            "source: expected one column of labels to predict (--label); found "
            f"{len(targets.names):,} targets: leave --source out"
        )
    parts = [
        _open_source(file, i, sources, matrix, recipe, label, group, min_coverage)
        for i, file in enumerate(sources.files, start=1)
    ]
    complete = np.all([np.isfinite(part.X).all(axis=0) for part in parts], axis=0)
    complete &= True if known is None else known
    if not complete.any():
        raise InputError(
            "source: expected genes that are known in every sample; found none: impute what is "
            "missing first (m1pipe impute)"
        )
    X = np.concatenate([part.X[:, complete] for part in parts])
    studies = np.concatenate([part.studies for part in parts])
    rows, matched, columns = _match(parts, targets)
    used = contrasted(matched, studies[rows])
    rows, matched = rows[used], matched.take(used)
    weight = np.zeros((len(recipe.genes), targets.n_outputs), dtype=np.float32)
    weight[complete] = fit_score(X[rows], matched, studies[rows]) @ columns
    facts = {
        "files": [_name(file, i) for i, file in enumerate(sources.files, start=1)],
        "n_samples": int(rows.size),
        "n_studies": len(set(studies[rows])),
        "n_genes": int(complete.sum()),
        "classes": _counts(matched),
    }
    log.info("source: %s", source_text(facts))
    return SourceScore(weight, facts, _overlap_alarms(parts))


def source_text(facts: dict[str, Any]) -> str:
    """What a score was fitted to: `359 samples of 6 studies (...), classes matched: ...`."""
    studies = f"{facts['n_studies']} stud{'y' if facts['n_studies'] == 1 else 'ies'}"
    text = f"{facts['n_samples']:,} labelled samples of {studies} ({', '.join(facts['files'])})"
    classes = ", ".join(f"{name} {n:,}" for name, n in facts["classes"].items())
    return text + (f"; classes matched by name: {classes}" if classes else "")


def _open_source(
    file: Any,
    number: int,
    sources: Sources,
    matrix: Matrix,
    recipe: Recipe,
    label: str,
    group: str | None,
    min_coverage: float,
) -> _Labelled:
    """Genes, labels and studies of the samples of a file that are not at hand as well."""
    name = _name(file, number)
    with open_matrix(file) as opened:
        normalise = opened.units.is_counts and recipe.universe is None
        source = in_units(opened, recipe.units) if normalise else opened
        rows, targets, _ = load_targets(source, label=sources.label or label)
        shared = _shared(source, matrix, group)
        left_out = np.isin(source.samples[rows], [s for ids in shared.values() for s in ids])
        if left_out.all():
            raise InputError(
                f"source: {name}: expected labelled samples that are not in X; found none: all "
                f"{rows.size:,} are there"
            )
        rows, targets = rows[~left_out], targets.take(np.flatnonzero(~left_out))
        aligned = align(
            source, recipe, min_coverage=min_coverage, keep_missing=True, keep_lacking=True
        )
        return _Labelled(
            aligned.take(rows), targets, _studies(source.obs, sources.study, name)[rows], shared
        )


def _name(file: Any, number: int) -> str:
    return Path(file).name if isinstance(file, str | Path) else f"source {number}"


def _studies(obs: pd.DataFrame, column: str | None, file: str) -> np.ndarray:
    """Study of every sample: by a column, or the file."""
    column = _named(obs, STUDY_WORDS) if column is None else column
    if column is None:
        return np.full(len(obs), file, dtype=object)
    values = read_column(obs, column, "--source-study")
    text = as_text(values)
    text[values.isna().to_numpy()] = file
    log.info("source: %s: studies by the column %s", file, column)
    return text


def _named(obs: pd.DataFrame, words: Sequence[str]) -> str | None:
    """The first column whose name is one of these words."""
    names = {plain(str(name)): str(name) for name in reversed(list(obs.columns))}
    return next((names[word] for word in words if word in names), None)


def _shared(source: Matrix, matrix: Matrix, group: str | None) -> dict[str, list[str]]:
    """Ids of the source's samples that are in the matrix too, by how that is known."""
    copies = find_copies(source, matrix)
    found = {
        "have the id of a sample of X": copies.by_id,
        "are near-identical to one under another name": copies.by_row,
        "are of its patients": _of_same_patients(source.obs, matrix.obs, group),
    }
    ids: dict[str, list[str]] = {}
    for why, rows in found.items():
        known = {sample for earlier in ids.values() for sample in earlier}
        names = [str(name) for name in source.samples[rows] if str(name) not in known]
        ids |= {why: names} if names else {}
    return ids


def _of_same_patients(obs: pd.DataFrame, others: pd.DataFrame, group: str | None) -> np.ndarray:
    """Rows whose patient, where both files name patients, is among the others'."""
    columns = [group if group in table else _named(table, GROUP_WORDS) for table in (obs, others)]
    if group == "none" or None in columns:
        return np.arange(0)
    own, theirs = (
        read_column(table, str(column), "group")
        for table, column in zip((obs, others), columns, strict=True)
    )
    known = own.notna().to_numpy() & np.isin(as_text(own), as_text(theirs.dropna()))
    return np.flatnonzero(known)


def _overlap_alarms(parts: Sequence[_Labelled]) -> list[Alarm]:
    """What was left out of the sources since it is at hand as well."""
    shared: dict[str, list[str]] = {}
    for part in parts:
        for why, ids in part.shared.items():
            shared.setdefault(why, []).extend(ids)
    if not shared:
        return []
    said = [f"{len(ids):,} {why} (such as {ids[0]})" for why, ids in shared.items()]
    text = (
        f"Of the samples of the sources {'; '.join(said)}: they were left out, since their labels "
        "are those of test samples. If patients of different studies only share numbers, say so "
        "(--group none)."
    )
    return [Alarm("source_overlap", "note", text)]


def _match(parts: Sequence[_Labelled], targets: Targets) -> tuple[np.ndarray, Targets, np.ndarray]:
    """Samples whose label is one of the targets', their targets, and the outputs these are.

    Returns
    -------
    rows : ndarray of int, shape (n_rows,)
        Of all samples of the sources, one file after the other.
    matched : Targets
        Of these rows.
    columns : ndarray of float32, shape (n_matched_outputs, n_outputs)
        What a score of `matched` is multiplied by to be one of `targets`.
    """
    for part in parts:
        if part.targets.is_classes != targets.is_classes:
            kinds = ("class", "level") if targets.is_classes else ("level", "class")
            raise InputError(
                f"--source-label: expected a {kinds[0]}, as the label to predict; found a "
                f"{kinds[1]}: say COL:{kinds[0]}"
            )
    if not targets.is_classes:
        values = np.concatenate([part.targets.values for part in parts])
        matched = replace(targets, values=values)
        return np.arange(len(values)), matched, np.eye(1, dtype=np.float32)
    return _match_classes(np.concatenate([name_classes(part.targets) for part in parts]), targets)


def _match_classes(names: np.ndarray, targets: Targets) -> tuple[np.ndarray, Targets, np.ndarray]:
    """Samples of the classes that both have; of a single one against those of all others."""
    classes = [name for name in targets.names if (names == name).any()]
    found = ", ".join(sorted(set(names))[:_NAMED])
    if not classes or len(set(names)) < 2:
        raise InputError(
            "--source-label: expected two classes among the labels of the sources, one or both of "
            f"{', '.join(targets.names[:_NAMED])}; found {found}: name them alike"
        )
    rows = np.arange(names.size)
    if len(classes) > 1:
        rows = np.flatnonzero(np.isin(names, classes))
        codes = np.array([classes.index(name) for name in names[rows]], dtype=np.int64)
    else:
        codes, classes = (names == classes[0]).astype(np.int64), ["all others", *classes]
    kind: Kind = "binary" if len(classes) == 2 else "multiclass"
    return rows, Targets(kind, codes, tuple(classes)), _outputs(classes, targets)


def _outputs(classes: Sequence[str], targets: Targets) -> np.ndarray:
    """Which logits of the targets a score of some classes is; of two classes it has one column."""
    place = [targets.names.index(name) if name in targets.names else -1 for name in classes]
    binary, one = len(classes) == 2, min(place) < 0
    out = np.zeros((1 if binary else len(classes), len(targets.names)), dtype=np.float32)
    for i, column in enumerate(place):
        if column >= 0:
            out[0 if binary else i, column] = i - 0.5 if binary and not one else 1.0
    return out[:, 1:] - out[:, :1] if targets.kind == "binary" else out


def _counts(targets: Targets) -> dict[str, int]:
    """Samples of every class; nothing of levels."""
    if not targets.is_classes:
        return {}
    counts = Counter(targets.values.tolist())
    return {name: counts[i] for i, name in enumerate(targets.names)}
