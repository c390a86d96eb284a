"""What a sweep tries, and on which rows."""

from dataclasses import dataclass
from typing import Literal, get_args

from m1pipe.errors import InputError
from m1pipe.settings import check_at_least, setting

Sampler = Literal["random", "optuna"]


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """What is tried.

    Attributes
    ----------
    neurons : tuple of int
        Widths of a single layer, the latent one: one trial each.
    layers : tuple of int
        Numbers of layers, each half as wide as the one before, the last one latent, with
        `total` neurons together: one trial each.
    total : int
        Neurons of all layers of a trial of `layers`.
    trials : int
        Drawn from a space of settings.
    sampler : str
        "random", or "optuna" (TPE; Bergstra et al. 2011), which learns from earlier trials.
    validation, test : float
        Shares of the rows.
    folds, repeats : int
        With folds every width is trained anew in each training fold, as an autoencoder and as a
        VAE, beside PCA; 0 for one split.
    seed : int
        Of the split and of what is drawn.
    """

    neurons: tuple[int, ...] = setting((), "Widths of one layer.", metavar="N,N,...")
    layers: tuple[int, ...] = setting((), "Numbers of layers that halve.", metavar="N,N,...")
    total: int = setting(2000, "Neurons of all layers of --layers.")
    trials: int = setting(20, "Drawn from --space.")
    sampler: Sampler = setting("random", "How.")
    validation: float = setting(0.15, "Share of the samples.")
    test: float = setting(0.15, "Share of the samples, seen once.")
    folds: int = setting(
        0, "AE, VAE and PCA of each --neurons in so many folds.", shown="one split"
    )
    repeats: int = setting(1, "Of --folds, dealt anew.")
    seed: int = setting(0, "Of the split, the draws and the networks.")

    def __post_init__(self) -> None:
        for name in ("neurons", "layers"):
            if any(value < 1 for value in getattr(self, name)):
                raise InputError(
                    f"{name}: expected numbers of at least 1; found {getattr(self, name)}"
                )
        for name, least in (("total", 1), ("trials", 1), ("repeats", 1), ("seed", 0)):
            check_at_least(name, getattr(self, name), least)
        if self.sampler not in get_args(Sampler):
            raise InputError(f"sampler: expected random or optuna; found {self.sampler!r}")
        if not (0 < self.validation < 1 and 0 < self.test < 1 and self.validation + self.test < 1):
            raise InputError(
                "validation and test: expected shares above 0 that leave rows to train on; found "
                f"{self.validation} and {self.test}"
            )
        if self.folds:
            self._check_folds()

    def _check_folds(self) -> None:
        if self.folds < 2:
            raise InputError(f"folds: expected 0 or at least 2; found {self.folds}")
        if not self.neurons or self.layers:
            raise InputError(
                "folds: expected latent sizes to compare (--neurons) and no --layers; found "
                f"neurons {self.neurons} and layers {self.layers}"
            )
