"""Heads, the comparison of heads, and a final head."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from m1pipe.errors import InputError
from m1pipe.settings import (
    check_choice,
    check_range,
    check_widths,
    parse_bytes,
    parse_ratio,
    setting,
)

Recipe = Literal["best", "published"]
LevelLoss = Literal["mse", "standardized_mse"]
Sampler = Literal["gmm", "prior", "posterior"]


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """A feed-forward head and its training; the same for every model of a comparison.

    Attributes
    ----------
    hidden : tuple of int
        Widths of the hidden layers; () leaves the linear map alone.
    epochs : int
        Most passes over the training rows.
    lr, weight_decay : float
        Of AdamW.
    batch_size : int
        Rows a step; fewer where an epoch would have less than eight steps.
    dropout : float
        Dropout probability in the hidden layers.
    patience : int
        Early stopping: epochs without a lower loss on the held-out rows of inner folds; 0 switches
        it off.
    linear : bool
        A linear map at its exact penalised solution (ridge, logistic) stands beside the network,
        which starts at zero and is kept only as far as inner folds gain by it.
    networks : int
        Networks, each of its own start, whose mean is the hidden part; below 5,000 training rows.
    validation : float
        Share of the training rows that an inner fold holds out to choose penalties and numbers of
        epochs; 0: the network is trained for all epochs.
    standardize : bool
        Inputs are scaled by the training rows: genes each by its own spread (with a floor),
        latents and PCA scores all by one number.
    initialize_bias : bool
        A network alone starts at the training mean (log-odds for classes).
    class_weight : "balanced" or None
        Weight classes by their inverse frequency in the training rows.
    own_gene : bool
        Levels of isoforms: a multiple of each one's own gene is added to what the network says.
    device : str
        As for encoders.
    """

    hidden: tuple[int, ...] = setting(
        (256,), "Widths of the hidden layers of a head, or none.", option="--head-hidden"
    )
    epochs: int = setting(200, "Most epochs of a head.", option="--head-epochs")
    lr: float = setting(1e-3, "Learning rate of a head.", option="--head-lr")
    weight_decay: float = 1e-4
    batch_size: int = 64
    dropout: float = 0.0
    patience: int = 8
    linear: bool = True
    networks: int = 5
    validation: float = 0.2
    standardize: bool = True
    initialize_bias: bool = True
    class_weight: Literal["balanced"] | None = setting(
        None, "Weight classes by their inverse frequency.", section="Heads"
    )
    own_gene: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        check_widths("--head-hidden", self.hidden)
        check_range("--head-epochs", self.epochs, 1)
        check_range("--head-lr", self.lr, 0, open_low=True)
        check_range("--head-weight-decay", self.weight_decay, 0)
        check_range("--head-batch-size", self.batch_size, 1)
        check_range("--head-dropout", self.dropout, 0, 0.99)
        check_range("--head-patience", self.patience, 0)
        check_range("--head-networks", self.networks, 1)
        check_range("--head-validation", self.validation, 0, 0.5)
        if self.class_weight not in (None, "balanced"):
            raise InputError(f"--class-weight: expected balanced; found {self.class_weight!r}")
        if not self.hidden and not self.linear:
            raise InputError("--head-hidden: expected hidden layers of a network alone; found none")


def _check_augment(augment: str | float | None, head: HeadConfig) -> None:
    if augment is not None:
        parse_ratio(augment)
        if head.class_weight is not None:
            raise InputError(
                "augment: expected no --class-weight beside it, since both make up for small "
                f"classes; found {head.class_weight}: leave one out"
            )


@dataclass(frozen=True, kw_only=True)
class CrossvalConfig:
    """A cross-validated comparison: `config.json` of a crossval folder, beside its inputs.

    Attributes
    ----------
    folds, repeats : int
        k-fold cross-validation, repeated with fresh shuffles.
    stratify, group : str or None
        Columns of obs; `group` may be a regular expression applied to the sample ids. None:
        the label itself where it is categorical, and `donor` where there is such a column.
    models : tuple of str or None
        Models to run beside the encoders. None: all.
    linear_rival : str or None
        The linear model that the encoders' models are declared to be compared with. None: ridge for
        levels, logistic for classes.
    loss : str
        Of levels: "mse", in which a target weighs by its variance, or "standardized_mse", every
        target's squared error divided by its variance over the training samples of the fold.
    rope : float
        Half width of the region of practical equivalence, as a share of the rival's loss.
    recipe : str
        "published" gives the published heads (256-32 on genes, 32 on latents, un-standardised).
    min_coverage : float
        Smallest share of the encoder's genes that must be found in X.
    memory : str
        "8G": as many folds are fitted in one pass as it holds, and at least one.
    seed : int
        Seed of the folds, the heads and everything drawn.
    train_sizes : tuple of int
        Every fold is also run with so many of its training rows: a label-efficiency curve.
    draws : int
        How often each of these is drawn from the training rows of a fold.
    leave_out : str or None
        Column of obs: each of its values is left out in turn, in place of folds.
    tune : bool
        Width and learning rate of every feed-forward model are chosen on the inner split of each
        training fold, and before them latent size and beta of encoders trained in the folds.
    tune_latents, tune_betas : tuple
        What is tried for these, beside what is given; a plain autoencoder stays one.
    augment : "balance", float or None
        Every network also with synthetic samples among its training rows: each class filled up
        to the largest, or to so many times its own size. Controls stand beside it.
    augment_sampler : str
        Distribution of their latents, as of `m1pipe generate`: "gmm", "prior" or "posterior".
    head : HeadConfig
        Settings of every feed-forward model.
    """

    folds: int = setting(5, "Number of folds.", section="Folds")
    repeats: int = setting(1, "Repeats of the folds.", section="Folds")
    stratify: str | None = setting(
        None, "Folds hold it in proportion.", metavar="COL", shown="a class label", section="Folds"
    )
    group: str | None = setting(
        None,
        "Groups that stay in one fold; none for none.",
        metavar="COL|REGEX",
        shown="donor, patient, ..., if there",
        section="Folds",
    )
    models: tuple[str, ...] | None = setting(
        None, "The other models to run.", metavar="LIST", shown="all", section="Models"
    )
    linear_rival: str | None = setting(
        None,
        "Linear model of the declared comparisons.",
        metavar="MODEL",
        shown="ridge, or logistic for classes",
    )
    loss: LevelLoss = setting(
        "mse", "Headline loss of levels; standardized: every target by its training variance."
    )
    rope: float = setting(
        0.01,
        "Differences within this share of the rival's loss count as none.",
        metavar="SHARE",
        section="Plan",
    )
    recipe: Recipe = setting("best", "Heads: the best known, or as published.", section="Heads")
    min_coverage: float = setting(0.8, "Share of an encoder's genes that X must have.")
    memory: str = setting("8G", "As many folds are fitted together as it holds.", metavar="SIZE")
    seed: int = setting(0, "Of folds and heads.")
    train_sizes: tuple[int, ...] = ()
    draws: int = setting(1, "How often each of these is drawn.")
    leave_out: str | None = setting(
        None,
        "Leave out each value of this column in turn, in place of folds.",
        option="--leave-out-strata",
        metavar="COL",
    )
    tune: bool = setting(
        False,
        "Choose settings of heads and in-fold encoders within each training fold (nested).",
        option="--tune/--no-tune",
        section="Heads",
    )
    tune_latents: tuple[int, ...] = (16, 32, 64)
    tune_betas: tuple[float, ...] = (0.1, 1.0)
    augment: str | float | None = setting(
        None,
        "Networks also with synthetic samples of each training fold, beside class weights and "
        "bootstrap: classes filled up to the largest, or to RATIO times their size.",
        metavar="balance|RATIO",
    )
    augment_sampler: Sampler = setting("gmm", "Where their latents come from, as of generate.")
    head: HeadConfig = field(default_factory=HeadConfig)

    def __post_init__(self) -> None:
        _ = self.pass_memory  # refused here
        check_range("--folds", self.folds, 2)
        check_range("--rope", self.rope, 0, 1)
        check_range("--repeats", self.repeats, 1)
        for n_latent in self.tune_latents:
            check_range("--tune-latents", n_latent, 1)
        for beta in self.tune_betas:
            check_range("--tune-betas", beta, 0, open_low=True)
        for size in self.train_sizes:
            check_range("--train-sizes", size, 4)
        if len(set(self.train_sizes)) < len(self.train_sizes):
            raise InputError(f"--train-sizes: expected different sizes; found {self.train_sizes}")
        check_range("--draws", self.draws, 1)
        if self.draws > 1 and not self.train_sizes:
            raise InputError(
                "draws: expected --train-sizes beside it, since a whole training fold is not drawn;"
                f" found {self.draws} and no size"
            )
        if self.leave_out is not None and self.repeats > 1:
            raise InputError(
                "--leave-out-strata: expected --repeats 1, since the strata cannot be dealt anew; "
                f"found {self.repeats}"
            )
        _check_augment(self.augment, self.head)
        check_choice("--augment-sampler", self.augment_sampler, Sampler)
        check_choice("--recipe", self.recipe, Recipe)
        check_range("--min-coverage", self.min_coverage, 0, 1)
        check_range("--seed", self.seed, 0, 2**63 - 1)

    @cached_property
    def pass_memory(self) -> int:
        """Bytes that the heads of one pass may take."""
        return parse_bytes(self.memory)


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """A final model and what it is fitted to: `config.json` of a model's folder.

    Attributes
    ----------
    model : str or None
        Name of a model of the comparison. None: the network on the encoder's latents, or on the
        genes where there is no encoder.
    label : str or None
        Column of obs to predict. None: the levels of a second file.
    targets : tuple of str or None
        Columns of that file. None: all.
    group, stratify : str or None
        As for a cross-validation, for the inner split that stops training.
    min_coverage : float
        Smallest share of the encoder's genes that must be found.
    conformal : float
        Share of the samples that is set aside to make prediction intervals; 0 for none.
    augment : "balance", float or None
        Synthetic samples are added to the training rows of a head for classes, as in a
        cross-validation.
    augment_sampler : str
        As there.
    recipe, tune
        As for a cross-validation.
    seed : int
        Of the head, the inner split and the generator.
    head : HeadConfig
        Network and training.
    """

    model: str | None = setting(
        None,
        "Model of the comparison, by the name that crossval gives it: ridge, pca, vae_ridge, ...",
        metavar="NAME",
        shown="the encoder's, or raw",
    )
    label: str | None = setting(None, "Column of X's obs to predict, instead of --y.")
    targets: tuple[str, ...] | None = setting(None, "Columns of Y to predict, separated by commas.")
    group: str | None = setting(
        None,
        "Groups that stay on one side of the inner split; none for none.",
        metavar="COL|REGEX",
        shown="donor, patient, ..., if there",
    )
    stratify: str | None = setting(
        None, "Column kept in proportion by the inner split.", metavar="COL"
    )
    min_coverage: float = setting(0.8, "Smallest share of the encoder's genes that must be found.")
    conformal: float = setting(
        0.0, "Share of the samples set aside for prediction intervals.", metavar="SHARE"
    )
    augment: str | float | None = setting(
        None,
        "Add synthetic samples: classes filled up to the largest, or to RATIO times their size.",
        metavar="balance|RATIO",
    )
    augment_sampler: Sampler = setting("gmm", "Where their latents come from, as of generate.")
    recipe: Recipe = setting("best", "Head: the best known, or as published.")
    tune: bool = setting(
        False,
        "Choose settings of the head, and of an encoder fitted here.",
        option="--tune/--no-tune",
    )
    seed: int = setting(0, "Of everything drawn.")
    head: HeadConfig = field(default_factory=HeadConfig)

    def __post_init__(self) -> None:
        check_range("--min-coverage", self.min_coverage, 0, 1)
        check_range("--conformal", self.conformal, 0, 0.5)
        _check_augment(self.augment, self.head)
        check_choice("--augment-sampler", self.augment_sampler, Sampler)
        check_choice("--recipe", self.recipe, Recipe)
        check_range("--seed", self.seed, 0, 2**63 - 1)
