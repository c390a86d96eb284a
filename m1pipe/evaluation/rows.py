"""The ladder: which models are compared, and how each is fitted on one training fold."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from m1pipe.config import CrossvalConfig, HeadConfig
from m1pipe.data.own_gene import OwnGenes
from m1pipe.data.targets import Targets
from m1pipe.data.transforms import fit_gene_transform
from m1pipe.errors import InputError
from m1pipe.evaluation.linear import fit_ridge
from m1pipe.evaluation.logistic import fit_logistic
from m1pipe.evaluation.own_linear import predict_own_gene
from m1pipe.evaluation.representations import EncoderRow
from m1pipe.models.heads import balanced_weight
from m1pipe.training.fit_heads import FEW_ROWS, fit_head, with_own_genes
from m1pipe.training.fitted_head import FittedHead

CONSTANT_ROWS = ("mean", "prior", "stratum_mean")
GENE_ROWS = ("ridge", "logistic", "raw", "ridge_gene")
PCA_ROWS = ("pca_ridge", "pca_logistic", "pca", "pca_fold")
LINEAR_ROWS = ("ridge", "logistic", "pca_ridge", "pca_logistic", "gene", "ridge_gene")
OWN_GENE = "gene"
OWN_SUFFIX = "_gene"
ALL_ROWS = (*CONSTANT_ROWS, *GENE_ROWS, *PCA_ROWS, OWN_GENE)

PUBLISHED_GENE_HEAD = (256, 32)
PUBLISHED_LATENT_HEAD = (32,)
HEAD_ROWS = 2048
TUNED_WIDTHS = ((64,), (256,), (1024,))
TUNED_RATES = (3e-4, 1e-3, 3e-3)
SUBSET = 2  # a head on fewer than 1 in so many rows is trained on these alone


def ladder(
    kind: str,
    encoders: Sequence[EncoderRow],
    models: Sequence[str] | None,
    *,
    strata: bool = False,
    own_genes: bool = False,
) -> tuple[str, ...]:
    """Rows of a comparison, the yardstick first and the encoders last.

    Parameters
    ----------
    kind : str
        Kind of the targets.
    encoders : sequence of EncoderRow
        Always rows of their own.
    models : sequence of str or None
        The other rows to run; None: all that there are.
    strata : bool
        Whether the strata of all samples are known: levels may then have a `stratum_mean`.
    own_genes : bool
        Whether targets know a gene that X has: `gene`, and NAME_gene beside others.

    Returns
    -------
    tuple of str
        The yardstick (the training mean, or the prior) is in it whether named or not.

    Raises
    ------
    InputError
        If a row is not known for such targets.
    """
    stored = any(row.frozen for row in encoders)
    names = tuple(row.name for row in encoders)
    pca = "pca" if stored else "pca_fold"
    if kind == "regression":
        usual: tuple[str, ...] = ("mean", *(("stratum_mean",) if strata else ()), "ridge")
        usual += ("pca_ridge", "raw", pca)
        more: tuple[str, ...] = ()
    else:
        usual, more = ("prior", "logistic", "raw", pca), ("pca_logistic",)
    own = (OWN_GENE, "ridge_gene", *(name + OWN_SUFFIX for name in (pca, *names)))
    usual += own if own_genes and kind == "regression" else ()
    known = (*usual, *more, *(("pca_fold",) if stored else ()))
    known += (f"raw{OWN_SUFFIX}",) if own_genes and kind == "regression" else ()
    chosen = usual if models is None else tuple(models)
    _refuse_unknown(chosen, (*known, *names), stored=stored)
    return (*(name for name in known if name in (*chosen, known[0])), *names)


def _refuse_unknown(chosen: Sequence[str], known: Sequence[str], *, stored: bool) -> None:
    unknown = [name for name in chosen if name not in known]
    if not unknown:
        return
    needs = {
        "pca": "pca needs a frozen encoder's run",
        "stratum_mean": "stratum_mean needs --stratify, and levels to predict",
        OWN_GENE: "gene needs a column gene_id of Y's annotations that names genes of X",
    }
    keys = [OWN_GENE if name.endswith(OWN_SUFFIX) else name for name in unknown]
    why = [
        needs[key] for key in dict.fromkeys(keys) if key in needs and (key != "pca" or not stored)
    ]
    raise InputError(
        f"models: expected some of {', '.join(dict.fromkeys(known))}; found {', '.join(unknown)}"
        + "".join(f": {text}" for text in why)
    )


def base_row(row: str) -> str:
    """The row whose inputs a row has: `vae` for `vae_gene`, the row itself for others.

    >>> base_row("vae_gene"), base_row("gene"), base_row("raw")
    ('vae', 'gene', 'raw')
    """
    return row if row == OWN_GENE else row.removesuffix(OWN_SUFFIX)


def has_own_term(row: str, config: CrossvalConfig) -> bool:
    """Whether a feed-forward row adds each target's own gene."""
    return row != base_row(row) or config.head.own_gene


def linear_rival(kind: str, rows: Sequence[str], declared: str | None) -> str | None:
    """The linear row of the declared family of comparisons.

    Raises
    ------
    InputError
        If the one declared is not among the rows.
    """
    usual = "ridge" if kind == "regression" else "logistic"
    if declared is None:
        return usual if usual in rows else None
    if declared not in rows:
        raise InputError(
            f"linear-rival: expected one of the rows {', '.join(rows)}; found {declared!r}"
        )
    return declared


def head_config(row: str, config: CrossvalConfig) -> HeadConfig:
    """Settings of a feed-forward row: the same for all, or the published ones for its input."""
    if config.recipe == "best":
        return config.head
    return replace(
        config.head,
        hidden=PUBLISHED_GENE_HEAD if row in GENE_ROWS else PUBLISHED_LATENT_HEAD,
        lr=1e-3,
        weight_decay=0.0,
        dropout=0.0,
        patience=0,
        validation=0.0,
        standardize=False,
        initialize_bias=False,
    )


@dataclass(frozen=True, eq=False)
class Fold:
    """One split, as every row sees it.

    Attributes
    ----------
    targets : Targets
        Of all samples; those of the test rows are only ever compared with.
    train, test : ndarray of int64
        Rows to fit on and rows to predict.
    strata, groups : ndarray, shape (n_samples,), or None
        For the inner split.
    order : ndarray of int, shape (n_samples,)
        Fold of every sample, over which the heads' row order is spread.
    seed : int
        The same for every row of the ladder.
    order_seed : int
        Of the order in which all folds of a repeat go through the rows.
    own : OwnGenes or None
        Levels of the targets' own genes, of all samples.
    """

    targets: Targets
    train: np.ndarray
    test: np.ndarray
    strata: np.ndarray | None
    groups: np.ndarray | None
    order: np.ndarray
    seed: int
    order_seed: int
    own: OwnGenes | None = None


@dataclass(frozen=True, eq=False)
class RowFit:
    """A fitted row: its predictions of the test rows, and whether its network is alive.

    Attributes
    ----------
    prediction : ndarray, shape (n_test, n_targets) or (n_test, n_classes)
        Levels or probabilities.
    dead_share : float
        Share of the hidden units that are dead over the training rows.
    own_share : float or None
        Share of the targets with a gene in X whose own-gene term is on; None without the term.
    """

    prediction: np.ndarray
    dead_share: float = 0.0
    own_share: float | None = None


def is_head(row: str) -> bool:
    """Whether a row of the ladder is a feed-forward network."""
    return row not in (*CONSTANT_ROWS, *LINEAR_ROWS)


def fit_row(
    row: str,
    X: np.ndarray | None,
    fold: Fold,
    config: CrossvalConfig,
    *,
    head: FittedHead | None = None,
) -> RowFit:
    """Fit one row of the ladder on the training rows and predict the test rows.

    Parameters
    ----------
    row : str
        Name of the row; any name that is not one of `ALL_ROWS` is an encoder's.
    X : ndarray of float32, shape (n_samples, n_features), or None
        The row's representation of all samples; None for a constant row.
    fold : Fold
    config : CrossvalConfig
        Settings of the heads.
    head : FittedHead, optional
        Of a feed-forward row, without its own-gene term, where it was trained already.

    Returns
    -------
    RowFit
    """
    if row == "stratum_mean":
        return RowFit(stratum_prediction(fold))
    if row in (OWN_GENE, "ridge_gene"):
        return _fit_own_linear(X, fold)
    if X is None:
        return RowFit(constant_prediction(fold))
    if row in LINEAR_ROWS:
        balance = config.head.class_weight == "balanced"
        return _fit_linear(X, fold, standardize=row in GENE_ROWS, balance=balance)
    own = fold.own if has_own_term(row, config) else None
    if head is None:
        tried = tuned_settings(config)
        if len(tried) == 1 or fold.train.size < FEW_ROWS:  # no inner rows that could choose
            tried = [head_config(base_row(row), config)]
        head = _fit_head(X, own, fold, tried)
    elif own is not None:
        head = _add_own(head, X, own, fold, head_config(base_row(row), config))
    levels = None if own is None else own.values[fold.test]
    dead = dead_share(head, X[fold.train[:HEAD_ROWS]])
    return RowFit(head.predict(X[fold.test], levels), dead, _own_share(head))


def _fit_head(
    X: np.ndarray, own: OwnGenes | None, fold: Fold, tried: Sequence[HeadConfig]
) -> FittedHead:
    """The best of some heads on the training rows; where these are few of all, on them alone."""
    if SUBSET * fold.train.size < fold.targets.n:
        X = np.ascontiguousarray(X[fold.train])
        own = None if own is None else own.take(fold.train)
        fold = _train_alone(fold)
    heads = [
        fit_head(
            X,
            fold.targets,
            settings,
            rows=fold.train,
            seed=fold.seed,
            strata=fold.strata,
            groups=fold.groups,
            order_seed=fold.order_seed,
            folds_order=fold.order,
            own=own,
        )
        for settings in tried
    ]
    return min(heads, key=_inner_loss)


def _add_own(
    head: FittedHead, X: np.ndarray, own: OwnGenes, fold: Fold, config: HeadConfig
) -> FittedHead:
    return with_own_genes(
        head,
        X,
        fold.targets,
        own,
        rows=fold.train,
        validation=config.validation,
        seed=fold.seed,
        strata=fold.strata,
        groups=fold.groups,
    )


def tuned_settings(config: CrossvalConfig) -> list[HeadConfig]:
    """Settings that are tried for every feed-forward row: widths by learning rates, or one."""
    if not config.tune or config.recipe != "best":
        return [config.head]
    return [
        replace(config.head, hidden=hidden, lr=lr) for hidden in TUNED_WIDTHS for lr in TUNED_RATES
    ]


def _inner_loss(head: FittedHead) -> float:
    """Loss on the inner validation rows; infinite where there were none."""
    return min((row.get("val_loss", np.inf) for row in head.history.rows), default=np.inf)


def _train_alone(fold: Fold) -> Fold:
    """The training rows as if there were no others."""
    strata, groups = (None if v is None else v[fold.train] for v in (fold.strata, fold.groups))
    return replace(
        fold,
        targets=fold.targets.take(fold.train),
        train=np.arange(fold.train.size),
        test=np.arange(0),
        strata=strata,
        groups=groups,
        order=np.zeros(fold.train.size, dtype=np.int64),
    )


def _own_share(head: FittedHead) -> float | None:
    return None if head.own is None else head.own.share_on


def _fit_own_linear(X: np.ndarray | None, fold: Fold) -> RowFit:
    """Each target on its own gene; with the genes given, beside a ridge on all of them."""
    if fold.own is None:
        raise ValueError("own genes: this split has none")
    train, test = fold.train, fold.test
    genes = None
    new = np.zeros((test.size, 0))
    if X is not None:
        scaler = fit_gene_transform("standardize", [X[train]])
        genes, new = scaler.apply(X[train]), scaler.apply(X[test])
    levels = fold.targets.values[train]
    own, own_test = fold.own.take(train), fold.own.take(test)
    return RowFit(predict_own_gene(levels, own, own_test, X=genes, X_test=new))


def train_mean(fold: Fold) -> np.ndarray:
    """Mean of every target over the training rows; class frequencies for classes.

    Returns
    -------
    ndarray of float64, shape (n_targets,) or (n_classes,)
    """
    values = fold.targets.values[fold.train]
    if fold.targets.is_classes:
        counts = np.bincount(values, minlength=len(fold.targets.names))
        return counts / counts.sum()
    mean: np.ndarray = values.mean(axis=0, dtype=np.float64)
    return mean


def constant_prediction(fold: Fold) -> np.ndarray:
    """The training mean (or the class frequencies) for every test row."""
    mean = train_mean(fold)
    return np.broadcast_to(mean, (fold.test.size, mean.size))


def stratum_prediction(fold: Fold) -> np.ndarray:
    """Training mean of each test sample's own stratum, which is thereby taken as known.

    A stratum without training rows gets the mean of all.
    """
    if fold.strata is None:
        raise ValueError("strata: this split has none")
    values, strata = fold.targets.values, np.asarray(fold.strata, dtype=object)
    out = np.tile(train_mean(fold), (fold.test.size, 1))
    for stratum in set(strata[fold.test]):
        own = fold.train[strata[fold.train] == stratum]
        if own.size:
            out[strata[fold.test] == stratum] = values[own].mean(axis=0, dtype=np.float64)
    return out


def _fit_linear(X: np.ndarray, fold: Fold, *, standardize: bool, balance: bool) -> RowFit:
    """Ridge for levels, penalised logistic regression for classes."""
    train, test = X[fold.train], X[fold.test]
    if standardize:
        scaler = fit_gene_transform("standardize", [train])
        train, test = scaler.apply(train), scaler.apply(test)
    targets = fold.targets.values[fold.train]
    if fold.targets.kind == "regression":
        ridge = fit_ridge(train, targets)
        return RowFit(ridge.predict(test))
    logistic = fit_logistic(
        train,
        targets,
        kind=fold.targets.kind,
        n_classes=len(fold.targets.names),
        groups=None if fold.groups is None else fold.groups[fold.train],
        weight=class_weights(fold.targets.take(fold.train)) if balance else None,
        seed=fold.seed,
    )
    return RowFit(logistic.predict(test))


def class_weights(targets: Targets) -> np.ndarray:
    """Balanced weight of every loss, (n_samples, 1), or for several labels (n_samples, n_labels).

    The same as the heads' with `--class-weight balanced`.
    """
    values = targets.values
    weight = balanced_weight(targets.kind, torch.from_numpy(values), len(targets.names))
    if weight is None:
        raise ValueError(f"class weights: expected classes or labels; found {targets.kind}")
    if targets.kind == "multilabel":
        return np.where(values > 0.5, weight[1].numpy(), weight[0].numpy())
    return weight.numpy()[values][:, None]


def dead_share(head: FittedHead, X: np.ndarray) -> float:
    """Share of a head's hidden units that put out the same for every row.

    Parameters
    ----------
    head : FittedHead
    X : ndarray, shape (n_samples, n_features)
    """
    device = next(head.module.parameters()).device
    x = torch.from_numpy(head.scaler.apply(X)).to(device)
    still = []
    with torch.no_grad():
        for layer in head.module.hidden:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                still.append(x.amax(0) - x.amin(0) <= 1e-6)
    return float(torch.cat(still).double().mean()) if still else 0.0
