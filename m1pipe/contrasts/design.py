"""Designs of studies: which samples are compared, each condition against its study's controls."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from m1pipe import seeds
from m1pipe.console import log
from m1pipe.contrasts.config import ContrastsConfig
from m1pipe.data.labels import as_text, listed_columns, tidy, warn_of_levels
from m1pipe.data.matrix import Matrix
from m1pipe.errors import InputError, counted, did_you_mean

CONTROL = "control"
Skipped = tuple[str, str]  # a study, or a condition of it, that cannot be compared, and why


@dataclass(frozen=True, eq=False)
class StudyDesign:
    """Samples of a study that are fitted together.

    Attributes
    ----------
    name : str
    rows : list of ndarray of int64
        Rows of the matrix of each sample: more than one where runs are summed.
    condition : ndarray of str, shape (n_samples,)
        `CONTROL` for all controls.
    covariates : ndarray of float64, shape (n_samples, n_covariates)
        Coded for a linear model, without an intercept.
    """

    name: str
    rows: list[np.ndarray]
    condition: np.ndarray
    covariates: np.ndarray

    @property
    def cases(self) -> list[str]:
        """Conditions that are compared with the controls, sorted."""
        return sorted(set(self.condition) - {CONTROL})


def plan_studies(
    matrix: Matrix,
    design: pd.DataFrame | None,
    config: ContrastsConfig,
    *,
    half: int | None = None,
    usable: np.ndarray | None = None,
) -> tuple[list[StudyDesign], list[Skipped]]:
    """Find what can be compared.

    Parameters
    ----------
    matrix : Matrix
        Counts.
    design : DataFrame, shape (n_samples, n_columns), or None
        Indexed by sample; samples that it lacks take no part. None: the matrix's `obs` is it.
    config : ContrastsConfig
    half : int, optional
        1 or 2: only one half of each study's samples.
    usable : ndarray of bool, shape (n_samples,), optional
        Samples of the matrix that may take part. Left out: all.

    Returns
    -------
    studies : list of StudyDesign
        In the order of their names, each with controls and at least one other condition.
    skipped : list of Skipped

    Raises
    ------
    InputError
        If a column is not there, no sample is shared, or runs of an experiment differ in study or
        condition.
    """
    table = _table(matrix, design, config)
    named = set(table["study"])
    if usable is not None:
        table = table[usable[table["row"].to_numpy()]]
    empty = sorted(named - set(table["study"]))
    if half is not None:
        table = table[deal_halves(table, config.seed) == half]
    studies, skipped = [], [(name, "no sample has counts") for name in empty]
    for name, samples in table.groupby("study", sort=True):
        study, reasons = _study(str(name), samples, config)
        skipped += reasons
        if study is not None:
            studies.append(study)
    return studies, skipped


def _table(matrix: Matrix, design: pd.DataFrame | None, config: ContrastsConfig) -> pd.DataFrame:
    """Row, study, condition, experiment and covariates of every sample that has them."""
    where = "design" if design is not None else str(matrix.path or "the samples")
    wanted = {"study": config.study, "condition": config.condition}
    optional = {"experiment": config.experiment, "subject": config.subject}
    wanted |= {role: column for role, column in optional.items() if column is not None}
    known = matrix.obs if design is None else design
    _check_columns(known, (*wanted.values(), *config.covariates), where)
    row_of = pd.Series(np.arange(matrix.n_samples), index=matrix.samples)
    known = _shared(known, row_of, where)
    table = pd.DataFrame({role: tidy(known[column]) for role, column in wanted.items()})
    table["row"] = row_of[known.index].to_numpy()
    for column in config.covariates:
        table[f"covariate {column}"] = known[column]
    lacking = table.index[table[["study", "condition"]].isna().any(axis=1)]
    if len(lacking):
        text = "%s: %d samples without study or condition take no part (such as %r)"
        log.warning("warning: " + text, where, len(lacking), lacking[0])
    table = table.dropna(subset=["study", "condition"])
    own = table["experiment"] if "experiment" in table else table.index.to_series()
    table["subject"] = table["subject"].fillna(own) if "subject" in table else own
    for role in (*wanted, "subject"):
        table[role] = as_text(table[role])
    table["condition"] = _with_controls(table["condition"], config, where)
    return table


def _check_columns(known: pd.DataFrame, columns: Sequence[str], where: str) -> None:
    for column in columns:
        if column not in known.columns:
            raise InputError(
                f"{where}: expected a column {column!r}; found "
                f"{listed_columns(known)}: say by --study, "
                "--condition, --experiment, --subject or --covariates which it is"
                f"{did_you_mean(column, known)}"
            )
        warn_of_levels(tidy(known[column]), f"{where}: {column}")


def _shared(known: pd.DataFrame, row_of: pd.Series, where: str) -> pd.DataFrame:
    """The lines of samples that the counts have."""
    shared = known.index[known.index.isin(row_of.index)]
    if not len(shared):
        raise InputError(
            f"{where}: expected ids of the counts' samples ({', '.join(row_of.index[:3])}, ...); "
            f"found {', '.join(map(str, known.index[:3]))}, ..."
        )
    return known.loc[shared]


def _with_controls(condition: pd.Series, config: ContrastsConfig, where: str) -> pd.Series:
    """Conditions, all controls under one name."""
    is_control = condition.isin({value.strip() for value in config.control.split(",")})
    if not is_control.any():
        found = ", ".join(sorted(set(condition))[:5])
        raise InputError(
            f"{where}: expected {config.control!r} among the values of {config.condition!r}; "
            f"found {found}: say by --control what the others are compared with"
        )
    return condition.mask(is_control, CONTROL)


def deal_halves(table: pd.DataFrame, seed: int) -> np.ndarray:
    """Half of every sample, 1 or 2, the subjects of each study and condition shared out alike.

    Parameters
    ----------
    table : DataFrame
        One row a sample, with the columns study, condition and subject. The samples of a subject,
        in whatever studies, are in one half.
    seed : int

    Returns
    -------
    ndarray of int64, shape (n_samples,)
        Subjects come in random order, those in several conditions first; each goes where fewer
        subjects of its conditions are.
    """
    rng = seeds.rng(seed, seeds.HALVES)
    cells = table["study"] + "\t" + table["condition"]
    of_subject = cells.groupby(table["subject"], sort=True).unique()
    order = rng.permutation(len(of_subject))
    order = order[np.argsort([-len(of_subject.iloc[i]) for i in order], kind="stable")]
    first = rng.integers(1, 3, len(order))  # where both are alike
    ahead: dict[str, int] = dict.fromkeys(cells, 0)  # subjects of half 1 more than of half 2
    half = {}
    for subject, toss in zip(of_subject.iloc[order].items(), first, strict=True):
        name, mine = subject
        lead = sum(ahead[cell] for cell in mine)
        half[name] = int(toss) if lead == 0 else 1 + (lead > 0)
        for cell in mine:
            ahead[cell] += 3 - 2 * half[name]
    return table["subject"].map(half).to_numpy(dtype=np.int64)


def _study(
    name: str, samples: pd.DataFrame, config: ContrastsConfig
) -> tuple[StudyDesign | None, list[Skipped]]:
    """A study with the conditions that can be compared, and what was left out."""
    if "experiment" in samples:
        rows, samples = _summed(name, samples)
    else:
        rows = [np.array([row]) for row in samples["row"]]
    sizes = samples["condition"].value_counts()
    if CONTROL not in sizes or len(sizes) < 2:
        return None, [(name, f"one condition only ({', '.join(sizes.index)})")]
    if sizes[CONTROL] < config.min_samples:
        return None, [(name, f"{sizes[CONTROL]} control samples")]
    few = sizes[sizes < config.min_samples]
    reasons = [(f"{name}:{c}", counted(n, "sample")) for c, n in few.items()]
    kept = ~samples["condition"].isin(few.index).to_numpy()
    samples, rows = samples[kept], [r for r, keep in zip(rows, kept, strict=True) if keep]
    if samples["condition"].nunique() < 2:
        return None, reasons
    condition = samples["condition"].to_numpy(dtype=object)
    covariates = _coded(samples[[c for c in samples if str(c).startswith("covariate ")]])
    study = StudyDesign(name, rows, condition, covariates)
    design = design_matrix(study)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return None, [*reasons, (name, "the covariates cannot be told from the conditions")]
    if len(design) <= design.shape[1]:
        return None, [
            *reasons,
            (name, f"{counted(len(design), 'sample leaves', 'samples leave')} nothing for noise"),
        ]
    return study, reasons


def design_matrix(study: StudyDesign) -> np.ndarray:
    """Intercept, each case against the controls, covariates: (n_samples, 1 + n_cases + ...)."""
    cases = [study.condition == case for case in study.cases]
    return np.column_stack([np.ones(len(study.rows)), *cases, study.covariates]).astype(float)


def _summed(name: str, samples: pd.DataFrame) -> tuple[list[np.ndarray], pd.DataFrame]:
    """Rows of each experiment's runs, and one line an experiment."""
    for column in ("condition", "study"):
        differ = samples.groupby("experiment")[column].nunique() > 1
        if differ.any():
            raise InputError(
                f"design: expected one {column} an experiment; found several in "
                f"{differ.index[differ][0]!r} of study {name}"
            )
    runs = samples.groupby("experiment", sort=False)["row"]
    rows = [np.sort(group.to_numpy()) for _, group in runs]
    return rows, samples.drop_duplicates("experiment")


def _coded(covariates: pd.DataFrame) -> np.ndarray:
    """Numbers as they are, classes by indicators of all but the first; constant columns go."""
    parts: list[np.ndarray] = []
    for column in covariates:
        values = covariates[column]
        if values.isna().any():
            values = values.astype(object).where(values.notna(), "missing")
        if pd.api.types.is_numeric_dtype(values):
            parts.append(values.to_numpy(dtype=float)[:, None])
        else:
            parts.append(pd.get_dummies(values.astype(str), drop_first=True).to_numpy(float))
    coded = np.column_stack([np.empty((len(covariates), 0)), *parts])
    varies: Sequence[bool] = [len(set(column)) > 1 for column in coded.T]
    return coded[:, np.array(varies, dtype=bool)]
