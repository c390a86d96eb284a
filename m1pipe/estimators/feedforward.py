"""Feed-forward heads as a scikit-learn regressor and classifier."""

import copy
from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from m1pipe import config
from m1pipe.data.targets import Kind, Targets
from m1pipe.estimators import settings
from m1pipe.estimators.settings import HEAD
from m1pipe.heads.features import Scale
from m1pipe.heads.fit import fit_head
from m1pipe.heads.fitted import FittedHead
from m1pipe.models.heads import head_probabilities
from m1pipe.parameters import documented

OTHERS = """
scale : {'each', 'one'}, default='each'
    Every feature is divided by its own spread, or all by one number, as latents and scores should
    be.
class_weight : 'balanced', dict or None, default=None
    Weight of each class: by its inverse frequency, or as given.
random_state : int, RandomState or None, default=0
    Seed of the networks, the row order and the inner folds; None draws one.
"""


class _FeedForward(BaseEstimator):
    """Parameters that both estimators have."""

    def __init__(
        self,
        hidden: int | tuple[int, ...] = HEAD.hidden,
        *,
        epochs: int = HEAD.epochs,
        lr: float = HEAD.lr,
        weight_decay: float = HEAD.weight_decay,
        batch_size: int = HEAD.batch_size,
        dropout: float = HEAD.dropout,
        patience: int = HEAD.patience,
        validation: float = HEAD.validation,
        linear: bool = HEAD.linear,
        networks: int = HEAD.networks,
        standardize: bool = HEAD.standardize,
        scale: Scale = "each",
        initialize_bias: bool = HEAD.initialize_bias,
        device: str = HEAD.device,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.hidden = hidden
        self.epochs = epochs
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.dropout = dropout
        self.patience = patience
        self.validation = validation
        self.linear = linear
        self.networks = networks
        self.standardize = standardize
        self.scale = scale
        self.initialize_bias = initialize_bias
        self.device = device
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


@documented(config.HeadConfig, more=OTHERS)
class FeedForwardRegressor(RegressorMixin, _FeedForward):
    """Ridge regression of one or many targets, and a network beside it where that pays.

    Attributes
    ----------
    head_ : FittedHead
        The head with its scaling, and what inner folds chose.
    n_features_in_ : int
        Number of inputs.

    Examples
    --------
    >>> import numpy as np
    >>> from m1pipe import FeedForwardRegressor
    >>> X = np.random.default_rng(0).normal(size=(80, 4))
    >>> model = FeedForwardRegressor(epochs=5).fit(X, X[:, :2])
    >>> model.predict(X).shape
    (80, 2)
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Train on all rows.

        Parameters
        ----------
        X : array-like, sparse matrix, DataFrame, AnnData or path, shape (n_samples, n_features)
        y : array-like, shape (n_samples,) or (n_samples, n_targets)
        """
        X, y = validate_data(
            self,
            settings.as_table(X),
            y,
            dtype=np.float32,
            multi_output=True,
            y_numeric=True,
            ensure_min_samples=2,
        )
        values = np.require(y, np.float32, ("C", "W"))
        self._y_is_1d = values.ndim == 1
        values = values.reshape(len(values), -1)
        names = tuple(f"y{j}" for j in range(values.shape[1]))
        self.head_ = _fit(self, X, Targets("regression", values, names), None)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predicted levels.

        Parameters
        ----------
        X : array-like, sparse matrix, DataFrame, AnnData or path, shape (n_samples, n_features)

        Returns
        -------
        ndarray of float64, shape (n_samples,) or (n_samples, n_targets)
            As y was given.
        """
        levels = _predict(self, X)
        return levels[:, 0] if self._y_is_1d else levels

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


@documented(config.HeadConfig, more=OTHERS)
class FeedForwardClassifier(ClassifierMixin, _FeedForward):
    """Logistic regression of two or more classes, and a network beside it where that pays.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
        In the order of the columns of `predict_proba`.
    head_ : FittedHead
        The head with its scaling, and what inner folds chose.
    n_features_in_ : int
        Number of inputs.

    Examples
    --------
    >>> import numpy as np
    >>> from m1pipe import FeedForwardClassifier
    >>> X = np.random.default_rng(0).normal(size=(80, 4))
    >>> y = np.where(X[:, 0] > 0, "tumour", "normal")
    >>> model = FeedForwardClassifier(epochs=5).fit(X, y)
    >>> model.predict_proba(X).shape
    (80, 2)
    """

    def __init__(
        self,
        hidden: int | tuple[int, ...] = HEAD.hidden,
        *,
        epochs: int = HEAD.epochs,
        lr: float = HEAD.lr,
        weight_decay: float = HEAD.weight_decay,
        batch_size: int = HEAD.batch_size,
        dropout: float = HEAD.dropout,
        patience: int = HEAD.patience,
        validation: float = HEAD.validation,
        linear: bool = HEAD.linear,
        networks: int = HEAD.networks,
        standardize: bool = HEAD.standardize,
        scale: Scale = "each",
        initialize_bias: bool = HEAD.initialize_bias,
        class_weight: Literal["balanced"] | Mapping[Any, float] | None = HEAD.class_weight,
        device: str = HEAD.device,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        super().__init__(
            hidden,
            epochs=epochs,
            lr=lr,
            weight_decay=weight_decay,
            batch_size=batch_size,
            dropout=dropout,
            patience=patience,
            validation=validation,
            linear=linear,
            networks=networks,
            standardize=standardize,
            scale=scale,
            initialize_bias=initialize_bias,
            device=device,
            random_state=random_state,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any) -> Self:
        """Train on all rows.

        Parameters
        ----------
        X : array-like, sparse matrix, DataFrame, AnnData or path, shape (n_samples, n_features)
        y : array-like, shape (n_samples,)
            Class of each row.
        """
        X, y = validate_data(self, settings.as_table(X), y, dtype=np.float32, ensure_min_samples=2)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if self.classes_.size < 2:
            raise ValueError(f"y: expected at least two classes; found only {self.classes_[0]!r}")
        names = tuple(str(name) for name in self.classes_)
        kind: Kind = "binary" if self.classes_.size == 2 else "multiclass"
        weights = None
        if isinstance(self.class_weight, Mapping):
            weights = compute_class_weight(dict(self.class_weight), classes=self.classes_, y=y)
        self.head_ = _fit(self, X, Targets(kind, codes.astype(np.int64), names), weights)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class.

        Parameters
        ----------
        X : array-like, sparse matrix, DataFrame, AnnData or path, shape (n_samples, n_features)

        Returns
        -------
        ndarray of float64, shape (n_samples, n_classes)
            Columns in the order of `classes_`; rows sum to 1.
        """
        return _predict(self, X)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row.

        Parameters
        ----------
        X : array-like, sparse matrix, DataFrame, AnnData or path, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples,)
        """
        probabilities = _predict(self, X)
        return self.classes_[probabilities.argmax(axis=1)]


def _fit(
    estimator: BaseEstimator, X: np.ndarray, targets: Targets, weights: np.ndarray | None
) -> FittedHead:
    """Head trained on all rows with the estimator's parameters."""
    given = {} if weights is None else {"class_weight": None}
    return fit_head(
        np.require(X, requirements=("C", "W")),
        targets,
        settings.collect(estimator, config.HeadConfig, given),
        seed=settings.draw_seed(estimator.random_state),
        scale=estimator.scale,
        class_weight=weights,
    )


def _predict(estimator: BaseEstimator, X: Any) -> np.ndarray:
    """Levels or probabilities in double precision: a row's result does not depend on the others."""
    check_is_fitted(estimator)
    X = validate_data(estimator, settings.as_table(X), dtype=np.float32, reset=False)
    head = estimator.head_
    module = copy.deepcopy(head.module).cpu().double().eval()
    inputs = head.features.apply(X, dtype=np.float64)
    with torch.inference_mode():
        output = module(torch.from_numpy(inputs))
        predicted: np.ndarray = head_probabilities(head.kind, output).numpy()
    return predicted
