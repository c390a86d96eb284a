"""What is fitted: the rows and features of a head, what all heads of a pass share, added rows."""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from m1pipe.config import HeadConfig
from m1pipe.data.targets import OwnGenes, Targets
from m1pipe.heads.features import Covariance, Scale


@dataclass(frozen=True, eq=False)
class AddedRows:
    """Rows that are stepped on, and have no part in scales, weights and early stopping.

    Attributes
    ----------
    X : ndarray of float32, shape (n_added, n_features)
        Features as those of the training rows, not standardised.
    codes : ndarray of int64, shape (n_added,)
        Their classes.
    """

    X: np.ndarray
    codes: np.ndarray


@dataclass(frozen=True, eq=False)
class HeadJob:
    """One head to be fitted.

    Attributes
    ----------
    X : ndarray of float32, shape (n, n_features)
        Features of all rows; without columns, only own genes and the mean are left to predict by.
    rows : ndarray of int, shape (n_rows,)
        Training rows.
    configs : tuple of HeadConfig
        Of which the one with the lowest loss on held-out rows is taken.
    seed : int
        Of the inner folds and where the networks start.
    scale : "each" or "one"
        Whether features are scaled each by its own spread, or all by one number.
    own : OwnGenes or None
        Of all rows: levels get a term for each one's own gene.
    added : AddedRows or None
        Rows that are trained on as well; they set no scale and are not held out.
    class_weight : ndarray, shape (n_classes,), or None
        In place of the configuration's.
    n_beside : int
        So many last features are a second block, of one scale: how much it counts is chosen with
        the penalty, nothing and alone allowed.
    n_score : int
        So many last features are a score of each output, in its units or logits: a multiple of it
        is added to the linear map of the others (`m1pipe.heads.score`).
    covariance : Covariance or None
        Of the features elsewhere: to which power it is the prior of the coefficients is chosen
        with the penalty.
    """

    X: np.ndarray
    rows: np.ndarray
    configs: tuple[HeadConfig, ...]
    seed: int
    scale: Scale = "each"
    own: OwnGenes | None = None
    added: AddedRows | None = None
    class_weight: np.ndarray | None = None
    n_beside: int = 0
    n_score: int = 0
    covariance: Covariance | None = None

    def start_key(self) -> Hashable:
        """Equal for heads whose exact parts are equal, whatever network stands beside them."""
        config = self.configs[0]
        weight = None if self.class_weight is None else self.class_weight.tobytes()
        arrays = (self.X, self.own, self.added, self.covariance)
        settings = (config.standardize, config.linear, config.initialize_bias)
        inner = (self.seed, config.validation, config.class_weight, weight)
        rows, beside = np.asarray(self.rows).tobytes(), (self.n_beside, self.n_score)
        return (*map(id, arrays), rows, self.scale, *beside, *settings, *inner)


@dataclass(frozen=True, eq=False)
class HeadData:
    """What all heads of a pass share.

    Attributes
    ----------
    targets : Targets
        Of all n rows.
    order_seed : int
        Of the order of rows.
    folds : ndarray of int, shape (n,), or None
        Fold of every row, spread evenly over the order.
    groups : ndarray, shape (n,), or None
        Donor, say, of every row: never on both sides of an inner fold.
    """

    targets: Targets
    order_seed: int
    folds: np.ndarray | None = None
    groups: np.ndarray | None = None
