"""What a cross-validation compares: samples, targets, folds and models."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from m1pipe import seeds
from m1pipe.config import CrossvalConfig
from m1pipe.data.groups import resolve_groups
from m1pipe.data.labels import find_column
from m1pipe.data.matrix import Matrix, are_levels, check_finite
from m1pipe.data.names import near_names
from m1pipe.data.recipe import Recipe, name_columns
from m1pipe.data.splits import draw_subset
from m1pipe.data.targets import (
    OwnGenes,
    Targets,
    load_targets,
    name_classes,
    own_columns,
    read_own_genes,
)
from m1pipe.data.unit_guess import check_units
from m1pipe.errors import InputError, all_but
from m1pipe.evaluation.augment import FEW_ROWS, Generator, refuse_conditional, refuse_unfit
from m1pipe.evaluation.compared_models import (
    Model,
    ladder,
    linear_rival,
    refuse_names,
)
from m1pipe.evaluation.encoders import ComparedEncoder, Item, resolve_encoders
from m1pipe.evaluation.folds import (
    Fold,
    deal_folds,
    fill_own,
)
from m1pipe.evaluation.leakage import encoder_conditioned
from m1pipe.io.reader import PREFIX, open_matrix, read_obsm
from m1pipe.source_labels import Sources, SourceScore, fit_source_score

_BLOCK_ROWS = 1024


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything that is decided before the first model is fitted.

    Attributes
    ----------
    matrix : Matrix
        X as it was given, samples without a target included.
    rows : ndarray of int64, shape (n_samples,)
        Rows of the matrix that have a target: the samples, in this order everywhere below.
    targets : Targets
        Of the samples.
    dropped : dict of str to list of str
        Rows that were left out, and why.
    strata : ndarray, shape (n_samples,), or None
        What the folds are stratified by.
    all_groups : ndarray, shape (matrix.n_samples,), or None
        What never stands on both sides of a split, of every row of the matrix.
    folds : ndarray of int64, shape (n_repeats, n_samples)
        The fold that tests each sample; -1: none does.
    models : tuple of Model
        In the order in which they are run, the encoders last.
    encoders : tuple of ComparedEncoder
        What stands behind the names of the encoders.
    rival : str or None
        The linear model that the encoders are declared to be compared with.
    config : CrossvalConfig
        Settings.
    own : OwnGenes or None
        Levels of the targets' own genes in X; None where no model takes them.
    train_size : int or None
        Training rows of a fold that are used; None: all.
    own_columns : ndarray of int64, shape (n_targets,), or None
        Column of X that holds each target's own gene, -1 where there is none; None where Y names
        no genes.
    generator : Generator or None
        Makes the samples that are added to training rows.
    answers : Matrix or None
        The file of levels, or of zeros and ones, where there is one.
    n_missing : int
        Levels of the samples that X lacks (NaN).
    source : SourceScore or None
        Fitted to the labels of other studies.
    """

    matrix: Matrix
    rows: np.ndarray
    targets: Targets
    dropped: dict[str, list[str]]
    strata: np.ndarray | None
    all_groups: np.ndarray | None
    folds: np.ndarray
    models: tuple[Model, ...]
    encoders: tuple[ComparedEncoder, ...]
    rival: str | None
    config: CrossvalConfig
    own: OwnGenes | None = None
    train_size: int | None = None
    own_columns: np.ndarray | None = None
    generator: Generator | None = None
    answers: Matrix | None = None
    n_missing: int = 0
    source: SourceScore | None = None

    @property
    def samples(self) -> np.ndarray:
        """Sample ids, shape (n_samples,)."""
        return np.asarray(self.matrix.samples[self.rows])

    @property
    def obs(self) -> pd.DataFrame:
        """Annotations of the samples."""
        return self.matrix.obs.iloc[self.rows]

    @property
    def class_names(self) -> np.ndarray:
        """Name of each sample's class, shape (n_samples,); for classes only."""
        return name_classes(self.targets)

    @property
    def groups(self) -> np.ndarray | None:
        """Groups of the samples, shape (n_samples,)."""
        return None if self.all_groups is None else self.all_groups[self.rows]

    @property
    def n_y(self) -> int | None:
        """Samples in Y before pairing, where there is a Y."""
        return None if self.answers is None else self.answers.n_samples

    @property
    def label_obs(self) -> pd.DataFrame | None:
        """Annotations of the samples in a file of zeros and ones."""
        if self.answers is None or self.targets.kind != "multilabel":
            return None
        return self.answers.obs.reindex(self.samples)

    @property
    def nearly_paired(self) -> str:
        """How ids of X and of Y that were left out differ, if they may be the same."""
        x, y = self.matrix, self.answers
        if y is None or self.rows.size == x.n_samples:
            return ""
        lost = np.delete(x.samples, self.rows).astype(str).tolist()
        others = np.setdiff1d(y.samples.astype(str), x.samples.astype(str))
        return near_names(lost, others.tolist())

    @property
    def unlabelled(self) -> np.ndarray:
        """Rows of the matrix without a target; they may serve an encoder."""
        return np.setdiff1d(np.arange(self.matrix.n_samples), self.rows)

    def n_fits(self, model: Model) -> int:
        """Fits of a model over all folds and repeats; none for an ensemble of others."""
        if model.head == "ensemble":
            return 0
        return self.n_seeds(model) * self.n_folds * self.config.repeats

    def n_seeds(self, model: Model) -> int:
        """Fits of a model in one fold."""
        n_seeds = {entry.name: entry.n_seeds for entry in self.encoders}
        return n_seeds.get(model.source, 1)

    @property
    def least_train(self) -> int:
        """Training rows of the smallest training fold."""
        tested = [(row, k) for row in self.folds for k in np.unique(row[row >= 0])]
        return min((int((row != k).sum()) for row, k in tested), default=self.rows.size)

    @property
    def can_tune(self) -> bool:
        """Whether every training fold has inner validation rows that can choose settings."""
        return self.least_train >= FEW_ROWS and self.config.head.validation > 0

    @property
    def n_folds(self) -> int:
        """Folds of one repeat; left-out strata, where these are the design."""
        return int(self.folds.max()) + 1


def with_series(x: Any, y: Any, label: str | None) -> tuple[Any, Any, str | None]:
    """X with a Series that is predicted among its annotations, and the name of that label.

    Parameters
    ----------
    x, y, label
        As for `make_problem`; where `y` is no Series they are returned as they are.

    Raises
    ------
    InputError
        If a label is given as well, or no sample of the Series is in x.
    """
    if not isinstance(y, pd.Series):
        return x, y, label
    if label is not None:
        raise InputError("y: expected a Series or a label; found both: leave one out")
    matrix, name = copy.copy(open_matrix(x)), str(y.name or "y")
    matched = y.set_axis(y.index.astype(str)).reindex(matrix.samples)
    if matched.isna().all():
        raise InputError(
            f"y: expected a Series whose index has samples of x ({matrix.samples[0]!r}, ...); "
            f"found {y.index[0]!r}, ..."
        )
    matrix.obs = matrix.obs.assign(**{name: matched.to_numpy()})
    return matrix, None, name


def make_problem(
    x: Any,
    y: Any = None,
    *,
    label: str | None = None,
    multilabel: Any = None,
    targets: Sequence[str] | None = None,
    encoders: Mapping[str, Item | Sequence[Item]] | None = None,
    sources: Sources | None = None,
    config: CrossvalConfig,
    generator: Generator | None = None,
    whole: bool = False,
) -> Problem:
    """Open the data, pair them, deal the folds and choose the models.

    Parameters
    ----------
    x, y, label, multilabel, targets, encoders, sources, config, generator
        As for `m1pipe.evaluation.crossval.cross_validate`.
    whole : bool
        No sample is tested: a model is fitted to all of them.

    Raises
    ------
    InputError
        If the data, the folds or the models asked for are unavailable.
    """
    matrix = open_matrix(x)
    levels, marks = _open_answers(matrix, y, multilabel)
    check_units(matrix)
    rows, values, dropped = load_targets(
        matrix, y=levels, label=label, multilabel=marks, targets=targets
    )
    if config.loss != "mse" and values.kind != "regression":
        raise InputError(f"loss: expected levels to predict; found {values.kind}: leave it out")
    label = None if label is None else find_column(matrix.obs, label, "label")[0]
    opened = _open_encoders(encoders or {}, label, config.stratify)
    groups = resolve_groups(matrix.obs, config.group)
    strata, folds = deal_folds(
        matrix.obs.iloc[rows],
        values,
        None if groups is None else groups[rows],
        config,
        label,
        whole=whole,
    )
    columns = None if values.genes is None else _own_columns(values.genes, matrix)
    models = ladder(
        values.kind,
        opened,
        config,
        strata=strata is not None,
        own_genes=columns is not None,
        sources=sources is not None,
    )
    problem = Problem(
        matrix=matrix,
        rows=rows,
        targets=values,
        dropped=dropped,
        strata=strata,
        all_groups=groups,
        folds=folds,
        models=models,
        encoders=opened,
        rival=linear_rival(values.kind, [model.name for model in models], config.linear_rival),
        config=config,
        own=_own_genes(columns, models, config, matrix, rows),
        own_columns=columns,
        generator=generator,
        answers=levels or marks,
        n_missing=count_missing(matrix, rows),
        source=None if sources is None else _source(sources, matrix, rows, values, label, config),
    )
    _check_augment(problem)
    return problem


def _open_answers(matrix: Matrix, y: Any, multilabel: Any) -> tuple[Matrix | None, Matrix | None]:
    """The files of levels and of zeros and ones, which may be an array of X's own obsm."""
    if isinstance(multilabel, str) and multilabel.startswith(PREFIX):
        multilabel = read_obsm(matrix, multilabel.removeprefix(PREFIX))
    levels, marks = (None if source is None else open_matrix(source) for source in (y, multilabel))
    for other in (levels, marks):
        if other is not None and _is_same(matrix, other):
            raise InputError(
                f"y: expected other values than X's; found those of {matrix.path or 'X'} for both: "
                "each level would be predicted from itself"
            )
    return levels, marks


def _source(
    sources: Sources,
    matrix: Matrix,
    rows: np.ndarray,
    targets: Targets,
    label: str | None,
    config: CrossvalConfig,
) -> SourceScore:
    """The score of other studies' labels, of genes that every sample at hand has."""
    if label is None or config.recipe != "best":
        found = "targets of another file" if label is None else f"--recipe {config.recipe}"
        raise InputError(f"source: expected --label and --recipe best beside it; found {found}")
    known = np.isfinite(matrix.take(rows)).all(axis=0)
    means = np.zeros(matrix.n_genes, dtype=np.float32)
    recipe = Recipe(tuple(matrix.genes.tolist()), matrix.units, means, name_columns(matrix.var))
    return fit_source_score(
        sources,
        matrix,
        recipe,
        targets,
        label=label,
        group=config.group,
        min_coverage=config.min_coverage,
        known=known,
    )


def _is_same(a: Matrix, b: Matrix) -> bool:
    """Whether two matrices hold the same values of the same genes."""
    if a.samples.tolist() != b.samples.tolist() or a.genes.tolist() != b.genes.tolist():
        return False
    first = np.arange(min(a.n_samples, 10))
    return np.array_equal(a.take(first), b.take(first), equal_nan=True)


def _open_encoders(
    encoders: Mapping[str, Item | Sequence[Item]], label: str | None, stratify: str | None
) -> tuple[ComparedEncoder, ...]:
    """The encoders behind every name.

    Raises
    ------
    InputError
        If a name is taken, an item cannot be read, or an encoder is conditioned on the label or
        the stratum.
    """
    refuse_names(encoders)
    opened = resolve_encoders(encoders)
    for entry in opened:
        for config in (*entry.configs, *(encoder.config for encoder in entry.frozen)):
            if entry.in_fold and config.model.center_within is not None:
                raise InputError(
                    f"encoder: {entry.name}: expected settings without --center-within, which is "
                    "for whole studies, not for folds of one: train it before (m1pipe train), or "
                    "leave it out"
                )
            for column in (config.model.condition, *(config.model.batch or ())):
                told = encoder_conditioned(entry.name, column, label=label, stratify=stratify)
                if told:
                    option = "--batch" if config.model.batch else "--condition"
                    raise InputError(
                        f"encoder: {told[0].text} Expected one that is not told it: train it "
                        f"without {option} {column}"
                    )
    return opened


def _check_augment(problem: Problem) -> None:
    """Refuse what synthetic samples cannot be added to, or not be made for."""
    config = problem.config
    if config.augment is None:
        return
    refuse_unfit(problem.targets.kind, min((problem.least_train, *config.train_sizes)))
    for entry in problem.encoders:
        for settings in (*entry.configs, *(encoder.config for encoder in entry.frozen)):
            refuse_conditional(entry.name, settings)
    if problem.generator is None:
        raise InputError(
            "augment: expected a generator, such as m1pipe.workflow.augment.train_generator; found "
            "none"
        )


def _own_columns(genes: Sequence[str], matrix: Matrix) -> np.ndarray | None:
    """Column of X that holds each target's gene; None where there is none at all."""
    columns = own_columns(genes, matrix.genes.tolist(), matrix.var)
    return columns if (columns >= 0).any() else None


def _own_genes(
    columns: np.ndarray | None,
    models: Sequence[Model],
    config: CrossvalConfig,
    matrix: Matrix,
    rows: np.ndarray,
) -> OwnGenes | None:
    """Levels of the targets' own genes, where a model takes them.

    Raises
    ------
    InputError
        If every head is to have them and no target names a gene of X.
    """
    if config.head.own_gene and columns is None:
        raise InputError(
            "head: own_gene expects a column gene_id of Y's annotations that names genes of X; "
            "found none: add it (m1pipe convert --var), or use --head plain"
        )
    wanted = any(model.own_gene for model in models)
    if columns is None or not (wanted or config.head.own_gene):
        return None
    return read_own_genes(columns, matrix, rows)


def count_missing(matrix: Matrix, rows: np.ndarray) -> int:
    """Missing levels of some rows of a matrix, which are read once.

    Parameters
    ----------
    matrix : Matrix
    rows : ndarray of int, shape (n_samples,)

    Raises
    ------
    InputError
        If a level is infinite, or a sample has no level at all.
    """
    n_missing = 0
    for block in np.array_split(rows, max(1, rows.size // _BLOCK_ROWS)):
        X = matrix.take(block)
        if are_levels(X):
            continue
        missing = np.isnan(X)
        check_finite(np.where(missing, 0, X), matrix, block)
        empty = block[missing.all(axis=1)]
        if empty.size:
            raise InputError(
                f"{matrix.path or 'data'}: expected a level of at least one gene in every sample; "
                f"found none in {matrix.samples[empty[0]]!r}: leave it out, m1pipe convert --where "
                f"{all_but(matrix.samples[empty[0]])}"
            )
        n_missing += int(missing.sum())
    return n_missing


def make_fold(problem: Problem, repeat: int, fold: int, draw: int = 0) -> Fold:
    """Training and test rows of one (repeat, fold), with the seed that all models share.

    With `problem.train_size` only so many of the training rows: a draw by strata, with two of every
    class where there is room. The rows of a smaller size are among those of a larger one.
    """
    folds = problem.folds[repeat]
    key = [problem.config.seed, repeat, fold, *([draw] if draw else [])]
    seed = seeds.derived(*key)
    train = np.flatnonzero(folds != fold)
    if problem.train_size is not None:
        classes = problem.targets.values if problem.targets.is_classes else None
        train = draw_subset(
            train, problem.train_size, int(seed), strata=problem.strata, classes=classes
        )
    order_seed = seeds.derived(problem.config.seed, repeat)
    return Fold(
        targets=problem.targets,
        train=train,
        test=np.flatnonzero(folds == fold),
        strata=problem.strata,
        groups=problem.groups,
        order=folds,
        seed=int(seed),
        order_seed=int(order_seed),
        own=fill_own(problem.own, train),
    )
