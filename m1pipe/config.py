"""Every setting, its default and its check.

A default is written here once: the click options and the estimators read it from these classes.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from m1pipe.errors import InputError
from m1pipe.settings import parse_bytes, parse_ratio

Likelihood = Literal[
    "gaussian",
    "gaussian_shared",
    "gaussian_unit",
    "log_normal",
    "bernoulli",
    "hurdle_gaussian",
    "zero_inflated_log_normal",
    "negative_binomial",
    "zero_inflated_negative_binomial",
]
Transform = Literal["standardize", "center", "minmax", "none", "normal_score"]
Activation = Literal["leaky_relu", "relu", "elu", "tanh", "sigmoid", "identity"]
Schedule = Literal["plateau", "cosine", "constant"]
Precision = Literal["auto", "fp32", "bf16"]
Recipe = Literal["best", "published"]


def _check_choice(name: str, value: str, kind: Any) -> None:
    if value not in get_args(kind):
        known = ", ".join(get_args(kind))
        raise InputError(f"{name}: expected one of {known}; found {value!r}")


def _check_range(
    name: str, value: float, low: float, high: float = float("inf"), *, open_low: bool = False
) -> None:
    if not (low < value if open_low else low <= value) or not value <= high:
        bracket = "(" if open_low else "["
        raise InputError(f"{name}: expected a number in {bracket}{low}, {high}]; found {value!r}")


def _check_widths(name: str, widths: tuple[int, ...] | None) -> None:
    if widths is not None and any(w < 1 for w in widths):
        raise InputError(f"{name}: expected layer widths of at least 1; found {widths!r}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape and likelihood of a variational autoencoder.

    Attributes
    ----------
    n_latent : int
        Number of latent units.
    hidden : tuple of int or None
        Widths of the encoder's hidden layers, first to last; () makes it linear. None: chosen
        from the number of training samples by `m1pipe.models.vae.default_widths`.
    decoder_hidden : tuple of int or None
        Widths of the decoder's hidden layers. None: the encoder's, reversed; chosen too where
        both are None.
    activation : str
        Nonlinearity of the hidden layers.
    latent_activation : str
        Nonlinearity of the mu head; anything but "identity" exists for parity with published
        set-ups.
    output_activation : str
        Nonlinearity of the reconstruction, likewise.
    batch_norm : bool
        Batch normalisation after each hidden linear layer.
    dropout : float
        Dropout probability in the hidden layers.
    linear_skip : bool
        Add linear paths genes -> mu and z -> genes beside the networks. Where `starts_at_pca`
        they hold the probabilistic-PCA solution of the training rows and are not trained.
    likelihood : str
        Law of a gene given the latents.
    transform : str
        Per-gene transform fitted on the training rows.
    beta : float
        Weight of the KL divergence; 0 is the plain autoencoder.
    free_bits : float
        Nats per latent unit that the KL does not penalise.
    condition : str or None
        Column of obs whose class every sample's network is told, one-hot.
    min_variance : float or None
        Genes whose variance over the training rows, before the transform, is not above this are
        left out. None: all stay.
    """

    n_latent: int = 32
    hidden: tuple[int, ...] | None = None
    decoder_hidden: tuple[int, ...] | None = None
    activation: Activation = "leaky_relu"
    latent_activation: Activation = "identity"
    output_activation: Activation = "identity"
    batch_norm: bool = True
    dropout: float = 0.0
    linear_skip: bool = True
    likelihood: Likelihood = "gaussian"
    transform: Transform = "standardize"
    beta: float = 1.0
    free_bits: float = 0.0
    condition: str | None = None
    min_variance: float | None = None

    def __post_init__(self) -> None:
        _check_range("latent", self.n_latent, 1)
        _check_widths("hidden", self.hidden)
        _check_widths("decoder-hidden", self.decoder_hidden)
        for name in ("activation", "latent_activation", "output_activation"):
            _check_choice(name, getattr(self, name), Activation)
        _check_range("dropout", self.dropout, 0, 0.99)
        _check_choice("likelihood", self.likelihood, Likelihood)
        _check_choice("transform", self.transform, Transform)
        _check_range("beta", self.beta, 0)
        _check_range("free-bits", self.free_bits, 0)
        if self.min_variance is not None:
            _check_range("min-variance", self.min_variance, 0)

    @property
    def starts_at_pca(self) -> bool:
        """Whether the linear paths hold principal components: a normal law, no outer activation."""
        return (
            self.linear_skip
            and self.likelihood.startswith("gaussian")
            and self.latent_activation == self.output_activation == "identity"
        )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How an encoder is trained.

    Attributes
    ----------
    epochs : int or None
        Passes over the training rows. None: chosen so that small sets get enough steps.
    batch_size : int
        Rows a step.
    lr : float
        Adam's learning rate at the start. In a model that starts at its PCA it is relative to the
        scale of each layer (`m1pipe.encoder.rates`).
    weight_decay : float or None
        Decoupled weight decay (AdamW). None: 0, or, in a model that starts at its PCA, stronger
        the fewer the training rows; it draws the model back to the PCA.
    schedule : str
        Learning-rate schedule.
    plateau_factor, plateau_patience : float, int
        The plateau schedule multiplies the rate by the factor after that many epochs without
        a better validation loss.
    clip : float
        Gradients are clipped to this global norm; 0 switches clipping off.
    ema : float
        Weights are averaged over the steps with this decay, and the averages are validated and
        kept; 0 keeps the weights of the last step of an epoch.
    kl_warmup : float or None
        Share of the epochs over which beta rises linearly from 0. None: no such epochs in a model
        that starts at its PCA, a quarter otherwise.
    patience : int
        Early stopping: epochs without a better validation loss, counted after the warm-up;
        0 switches it off.
    validation : float
        Share of the rows held out for validation; 0 uses the training loss instead.
    seed : int
        Seed of initialisation, row order, noise and the validation split.
    precision : str
        "auto" takes bf16 where the device multiplies it faster and the result agrees.
    device : str
        "auto", "cpu", "cuda", "cuda:1", ...
    memory : str
        What the data may take while training (such as "4G"); a larger matrix is streamed.
    checkpoint_minutes : float
        A checkpoint is written at each epoch's end and at least this often.
    micro_batch : int or None
        Most rows of a batch that a process takes at once; gradients are added up over them. None:
        all its rows. Batch norm sees the rows taken at once.
    """

    epochs: int | None = None
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float | None = None
    schedule: Schedule = "cosine"
    plateau_factor: float = 0.5
    plateau_patience: int = 10
    clip: float = 0.0
    ema: float = 0.99
    kl_warmup: float | None = None
    patience: int = 20
    validation: float = 0.1
    seed: int = 0
    precision: Precision = "auto"
    device: str = "auto"
    memory: str = "4G"
    checkpoint_minutes: float = 10.0
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        if self.epochs is not None:
            _check_range("epochs", self.epochs, 1)
        _check_range("batch-size", self.batch_size, 1)
        _check_range("lr", self.lr, 0, open_low=True)
        if self.weight_decay is not None:
            _check_range("weight-decay", self.weight_decay, 0)
        _check_choice("schedule", self.schedule, Schedule)
        _check_range("plateau-factor", self.plateau_factor, 0, 1, open_low=True)
        _check_range("plateau-patience", self.plateau_patience, 0)
        _check_range("clip", self.clip, 0)
        _check_range("ema", self.ema, 0, 0.99999)
        if self.kl_warmup is not None:
            _check_range("kl-warmup", self.kl_warmup, 0, 1)
        _check_range("patience", self.patience, 0)
        _check_range("validation", self.validation, 0, 0.9)
        _check_range("seed", self.seed, 0, 2**63 - 1)
        _check_choice("precision", self.precision, Precision)
        parse_bytes(self.memory)
        _check_range("checkpoint-minutes", self.checkpoint_minutes, 0)
        if self.micro_batch is not None:
            _check_range("micro-batch", self.micro_batch, 1)


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Which rows of a file train an encoder, and which validate it.

    Attributes
    ----------
    rows : str or None
        pandas query on obs, such as "tissue.isna()". None: all rows.
    group : str or None
        obs column, or regular expression on the sample ids, whose groups are never on both
        sides of the validation split.
    validation_file : str or None
        A file of validation samples, used in place of a share of the rows.
    drop_samples_of : str or None
        A file whose samples are left out, found by id or as near-identical rows.
    aliases : str or None
        Table of other names of genes, by which those of that file are matched as well.
    """

    rows: str | None = None
    group: str | None = None
    validation_file: str | None = None
    drop_samples_of: str | None = None
    aliases: str | None = None


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Everything that decides how an encoder is made: `config.json` of a run folder."""

    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """A feed-forward head and its training; the same for every row of a comparison.

    Attributes
    ----------
    hidden : tuple of int
        Widths of the hidden layers.
    epochs : int
        Most passes over the training rows.
    lr, weight_decay : float
        Of AdamW.
    batch_size : int
        Rows a step.
    dropout : float
        Dropout probability in the hidden layers.
    patience : int
        Early stopping: epochs without a better inner-validation loss; 0 switches it off.
    validation : float
        Share of the training rows used for early stopping.
    standardize : bool
        Inputs are standardised by the training rows (with a floored scale).
    initialize_bias : bool
        The output bias starts at the training mean (log-odds for classes).
    class_weight : "balanced" or None
        Weight classes by their inverse frequency in the training rows.
    own_gene : bool
        Levels of isoforms: a multiple of each one's own gene is added to what the network says.
    device : str
        As for encoders.
    """

    hidden: tuple[int, ...] = (256,)
    epochs: int = 200
    lr: float = 1e-3
    weight_decay: float = 1e-4
    batch_size: int = 64
    dropout: float = 0.0
    patience: int = 20
    validation: float = 0.15
    standardize: bool = True
    initialize_bias: bool = True
    class_weight: Literal["balanced"] | None = None
    own_gene: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        _check_widths("head-hidden", self.hidden)
        _check_range("head-epochs", self.epochs, 1)
        _check_range("head-lr", self.lr, 0, open_low=True)
        _check_range("head-weight-decay", self.weight_decay, 0)
        _check_range("head-batch-size", self.batch_size, 1)
        _check_range("head-dropout", self.dropout, 0, 0.99)
        _check_range("head-patience", self.patience, 0)
        _check_range("head-validation", self.validation, 0, 0.9)
        if self.class_weight not in (None, "balanced"):
            raise InputError(f"class-weight: expected balanced; found {self.class_weight!r}")


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
        Rows of the ladder to run, beside the encoders. None: the full ladder.
    linear_rival : str or None
        The linear row that the encoder rows are declared to be compared with. None: ridge for
        levels, logistic for classes.
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
    leave_out : str or None
        Column of obs: each of its values is left out in turn, in place of folds.
    tune : bool
        Width and learning rate of every feed-forward row are chosen on the inner split of each
        training fold, and before them latent size and beta of encoders trained in the folds.
    tune_latents, tune_betas : tuple
        What is tried for these, beside what is given; a plain autoencoder stays one.
    augment : "balance", float or None
        Every network also with synthetic samples among its training rows: each class filled up
        to the largest, or to so many times its own size. Controls stand beside it.
    head : HeadConfig
        Settings of every feed-forward row.
    """

    folds: int = 5
    repeats: int = 1
    stratify: str | None = None
    group: str | None = None
    models: tuple[str, ...] | None = None
    linear_rival: str | None = None
    recipe: Recipe = "best"
    min_coverage: float = 0.8
    memory: str = "8G"
    seed: int = 0
    train_sizes: tuple[int, ...] = ()
    leave_out: str | None = None
    tune: bool = False
    tune_latents: tuple[int, ...] = (16, 32, 64)
    tune_betas: tuple[float, ...] = (0.1, 1.0)
    augment: str | float | None = None
    head: HeadConfig = field(default_factory=HeadConfig)

    def __post_init__(self) -> None:
        parse_bytes(self.memory)
        _check_range("folds", self.folds, 2)
        _check_range("repeats", self.repeats, 1)
        for n_latent in self.tune_latents:
            _check_range("tune-latents", n_latent, 1)
        for beta in self.tune_betas:
            _check_range("tune-betas", beta, 0, open_low=True)
        for size in self.train_sizes:
            _check_range("train-sizes", size, 4)
        if len(set(self.train_sizes)) < len(self.train_sizes):
            raise InputError(f"train-sizes: expected different sizes; found {self.train_sizes}")
        if self.leave_out is not None and self.repeats > 1:
            raise InputError(
                "leave-out-strata: expected --repeats 1, since the strata cannot be dealt anew; "
                f"found {self.repeats}"
            )
        _check_augment(self.augment, self.head)
        _check_choice("recipe", self.recipe, Recipe)
        _check_range("min-coverage", self.min_coverage, 0, 1)
        _check_range("seed", self.seed, 0, 2**63 - 1)


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """A final head and what it is fitted to: `config.json` of a model's folder.

    Attributes
    ----------
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
    seed : int
        Of the head, the inner split and the generator.
    head : HeadConfig
        Network and training.
    """

    label: str | None = None
    targets: tuple[str, ...] | None = None
    group: str | None = None
    stratify: str | None = None
    min_coverage: float = 0.8
    conformal: float = 0.0
    augment: str | float | None = None
    seed: int = 0
    head: HeadConfig = field(default_factory=HeadConfig)

    def __post_init__(self) -> None:
        _check_range("min-coverage", self.min_coverage, 0, 1)
        _check_range("conformal", self.conformal, 0, 0.5)
        _check_augment(self.augment, self.head)
        _check_range("seed", self.seed, 0, 2**63 - 1)
