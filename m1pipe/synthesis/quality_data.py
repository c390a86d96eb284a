"""The data of a quality report: real, synthetic and held-out samples, matched and on one scale."""

import os
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.data.groups import resolve_groups
from m1pipe.data.labels import listed_columns
from m1pipe.data.matrix import Matrix, check_finite
from m1pipe.data.names import match_genes, require_coverage
from m1pipe.data.unit_guess import check_units
from m1pipe.data.units import LN, Units, log2p1
from m1pipe.errors import InputError, M1Warning, did_you_mean
from m1pipe.io.reader import open_matrix
from m1pipe.synthesis.config import QualityConfig

FEWEST = 8
_MOST_CLASSES = 200


@dataclass(frozen=True, eq=False)
class QualityData:
    """Real training, synthetic and held-out samples over the same genes, on one scale.

    Attributes
    ----------
    real, synthetic, holdout : ndarray of float32, shape (n_samples, n_genes)
    genes : ndarray of str, shape (n_genes,)
    is_log : bool
        Values are log2(1 + x) of a linear level; otherwise they are as stored.
    labels : dict of str to ndarray of str, or None
        Class of every sample by set ("real", "synthetic", "holdout"); "" where it has none. A set
        without the column is not in it.
    real_groups, holdout_groups : ndarray of str or None
        Donors.
    facts : dict
        Sizes, units, scale, genes lost, samples on both sides.
    """

    real: np.ndarray
    synthetic: np.ndarray
    holdout: np.ndarray
    genes: np.ndarray
    is_log: bool
    labels: dict[str, np.ndarray] | None
    real_groups: np.ndarray | None
    holdout_groups: np.ndarray | None
    facts: dict[str, Any]


def load_quality_data(
    real: Any, synthetic: Any, holdout: Any, config: QualityConfig
) -> QualityData:
    """Read the three sets, match their genes, bring them to one scale.

    Parameters
    ----------
    real, synthetic, holdout : path, AnnData, DataFrame, (array, names) or Matrix
        What the generator was trained on, what it made, and real samples that it never saw.
    config : QualityConfig

    Returns
    -------
    QualityData

    Raises
    ------
    InputError
        If genes or units do not fit, a set is too small, a value is not finite, or donors named
        by `config.group` stand on both sides.
    """
    sources = {"real": real, "synthetic": synthetic, "holdout": holdout}
    with ExitStack() as stack:
        sets = {}
        for role, source in sources.items():
            sets[role] = open_matrix(source, aliases=config.aliases)
            if isinstance(source, str | os.PathLike):
                stack.enter_context(sets[role])
        return _gather(sets, config)


def _gather(sets: dict[str, Matrix], config: QualityConfig) -> QualityData:
    for role, matrix in sets.items():
        check_units(matrix)
        if matrix.n_samples < FEWEST:
            raise InputError(
                f"{role}: expected at least {FEWEST} samples; found {matrix.n_samples} in "
                f"{matrix.path or 'memory'}"
            )
    units = common_units(sets)
    columns, kept, lacking = common_genes(sets, config.min_coverage)
    values = {role: _read(matrix, columns[role]) for role, matrix in sets.items()}
    _refuse_constant(values, sets)
    scale, is_log = to_scale(values, units)
    donors = {r: resolve_groups(sets[r].obs, config.group) for r in ("real", "holdout")}
    labels = _labels(sets, config.label)
    facts = {
        "n": {role: matrix.n_samples for role, matrix in sets.items()},
        "n_genes": int(kept.size),
        "n_genes_of_real": sets["real"].n_genes,
        "missing_genes": lacking,
        "units": {role: str(matrix.units) for role, matrix in sets.items()},
        "scale": scale,
        "donors_on_both_sides": _shared_donors(donors, explicit=config.group is not None),
        "holdout_rows_in_real": _rows_in(values["holdout"], values["real"]),
        "absent_classes": _absent_classes(labels or {}),
    }
    return QualityData(
        real=values["real"],
        synthetic=values["synthetic"],
        holdout=values["holdout"],
        genes=sets["real"].genes[kept],
        is_log=is_log,
        labels=labels,
        real_groups=donors["real"],
        holdout_groups=donors["holdout"],
        facts=facts,
    )


def _absent_classes(labels: dict[str, np.ndarray]) -> list[str]:
    """Classes of the hold-out of which there is no synthetic sample, where both have labels."""
    if not {"synthetic", "holdout"} <= set(labels):
        return []
    return sorted(set(labels["holdout"]) - set(labels["synthetic"]) - {""})


def _refuse_constant(values: dict[str, np.ndarray], sets: dict[str, Matrix]) -> None:
    """Refuse real samples that are all the same: nothing can be compared with them."""
    for role in ("real", "holdout"):
        if (values[role] == values[role][:1]).all():
            raise InputError(
                f"{role}: expected samples that differ; found {len(values[role])} that are the "
                f"same in {sets[role].path or 'memory'}"
            )


def common_units(sets: dict[str, Matrix]) -> Units:
    """Units of all sets, by role; refused where two known ones differ."""
    known = {role: m.units for role, m in sets.items() if m.units.name != "unknown"}
    if len({units.name for units in known.values()}) > 1:
        found = ", ".join(f"{role} {units}" for role, units in known.items())
        raise InputError(
            f"units: expected the same in {_files(sets)}; found {found}: bring them to one scale "
            "with m1pipe convert"
        )
    if len(known) < len(sets):
        lacking = ", ".join(role for role in sets if role not in known)
        text = f"units of {lacking} are not known: values are compared as they are"
        warnings.warn(text, M1Warning, stacklevel=5)
    return next(iter(known.values())) if known else Units()


def common_genes(
    sets: dict[str, Matrix], min_coverage: float
) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, list[str]]]:
    """Find the genes that all sets have, by name.

    Parameters
    ----------
    sets : dict of str to Matrix
        One of them under "real".
    min_coverage : float
        Smallest share of its genes that each other set must have.

    Returns
    -------
    columns : dict of str to ndarray of int
        Column of every common gene in each set.
    kept : ndarray of int
        The same in the real set, ascending.
    missing : dict of str to list of str
        Genes of the real set that each other set lacks; only sets that lack some.

    Raises
    ------
    InputError
        If a set has too few of them.
    """
    real = sets["real"]
    found, missing = {"real": np.arange(real.n_genes)}, {}
    for role in [role for role in sets if role != "real"]:
        match = match_genes(
            real.genes.tolist(),
            sets[role].genes.tolist(),
            available_var=sets[role].var,
            wanted_var=real.var,
            aliases={**real.aliases, **sets[role].aliases},
        )
        require_coverage(match, min_coverage, f"{role} samples against the real ones")
        found[role] = match.columns
        if match.missing:
            missing[role] = match.missing
    kept = np.flatnonzero(np.all([columns >= 0 for columns in found.values()], axis=0))
    if kept.size < 2:
        raise InputError(f"genes: expected at least 2 that {_files(sets)} have; found {kept.size}")
    if kept.size < real.n_genes:
        text = f"{real.n_genes - kept.size:,} of {real.n_genes:,} genes are not in {_files(sets)}"
        warnings.warn(f"{text}: left out", M1Warning, stacklevel=5)
    return {role: columns[kept] for role, columns in found.items()}, kept, missing


def _files(sets: dict[str, Matrix]) -> str:
    return "both files" if len(sets) == 2 else "all three files"


def _read(matrix: Matrix, columns: np.ndarray) -> np.ndarray:
    everything = columns.size == matrix.n_genes and np.array_equal(
        columns, np.arange(matrix.n_genes)
    )
    wanted = None if everything else columns
    out = np.empty((matrix.n_samples, columns.size), dtype=np.float32)
    for start, stop, X in matrix.blocks(columns=wanted):
        check_finite(X, matrix, start, columns=wanted)
        out[start:stop] = X
    return out


def to_scale(values: dict[str, np.ndarray], units: Units) -> tuple[str, bool]:
    """Bring linear levels to log2(1 + x), in place; everything else stays as it is.

    Parameters
    ----------
    values : dict of str to ndarray of float32, shape (n_samples, n_genes)
        By role.
    units : Units
        Of all of them.

    Returns
    -------
    name : str
        Of the scale, for the report.
    is_log : bool
        Whether values are log2(1 + x) of a linear level now.
    """
    if units.name == LN:
        for X in values.values():
            X /= np.float32(np.log(2.0))
        return f"log2(1 + x), from {units.name}", True
    if units.is_log and units.name != "log_fold_change":
        return f"{units.name}, as stored", True
    if not units.is_linear:
        return f"{units.name}, as stored", False
    if any((X < 0).any() for X in values.values()):
        text = f"some {units.name} are negative: compared as stored, not as logarithms"
        warnings.warn(text, M1Warning, stacklevel=5)
        return f"{units.name}, as stored", False
    for X in values.values():
        for start in range(0, len(X), 1024):
            X[start : start + 1024] = log2p1(X[start : start + 1024])
    return f"log2(1 + {units.name})", True


def _labels(sets: dict[str, Matrix], label: str | None) -> dict[str, np.ndarray] | None:
    if label is None:
        return None
    for role in ("real", "holdout"):
        if label not in sets[role].obs.columns:
            raise InputError(
                f"label: expected a column of {sets[role].path or role}: "
                f"{listed_columns(sets[role].obs)}; found {label!r}"
                f"{did_you_mean(label, sets[role].obs)}"
            )
    found = {r: _as_text(m.obs[label]) for r, m in sets.items() if label in m.obs.columns}
    n_classes = np.unique(found["real"][found["real"] != ""]).size
    if not 2 <= n_classes <= _MOST_CLASSES:
        raise InputError(
            f"label: expected 2 to {_MOST_CLASSES} classes in {label!r} of the real samples; found "
            f"{n_classes}"
        )
    return found


def _as_text(column: pd.Series) -> np.ndarray:
    text = column.astype(object).where(column.notna(), "").map(lambda value: str(value).strip())
    return text.to_numpy(dtype=object)


def _shared_donors(donors: dict[str, np.ndarray | None], *, explicit: bool) -> int:
    """Number of donors on both sides; refused where the user named the donors."""
    if donors["real"] is None or donors["holdout"] is None:
        return 0
    shared = sorted(set(donors["real"]) & set(donors["holdout"]))
    if shared and explicit:
        raise InputError(
            "group: expected donors of the hold-out apart from those of the real samples; found "
            f"{len(shared)} on both sides ({', '.join(shared[:3])}): split anew by donors, or "
            "--group none"
        )
    return len(shared)


def _rows_in(rows: np.ndarray, others: np.ndarray) -> int:
    """How many rows are, to the last bit, among the others."""
    known = {row.tobytes() for row in others}
    return sum(row.tobytes() in known for row in rows)
