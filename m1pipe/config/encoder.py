"""How an encoder is made: its shape, its training, its rows."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from m1pipe.errors import InputError
from m1pipe.settings import check_choice, check_range, check_widths, parse_bytes, setting

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
LatentScale = Literal["decoder", "unit"]


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
        Likelihood of a gene given the latents.
    transform : str or None
        Per-gene transform fitted on the training rows. None: what the likelihood needs, which is
        "minmax" for "bernoulli", "none" for those of counts and "log_normal", "standardize" for
        the others.
    beta : float
        Weight of the KL divergence; 0 is the plain autoencoder.
    free_bits : float
        Nats per latent unit that the KL does not penalise.
    condition : str or None
        Column of obs whose class the network is conditioned on, one-hot: encoder and decoder.
    batch : tuple of str or None
        Columns of obs that name a sample's batch, together: the decoder is told it, one-hot, the
        encoder is not. None: of several files each is a batch.
    center_within : str or None
        Column of obs: genes are centred and scaled within each of its values, by the samples' own
        levels, also of new samples.
    min_variance : float or None
        Genes whose variance over the training rows, before the transform, is not above this are
        left out. None: all stay.
    latent_scale : str
        What latents are multiplied by outside of the network: "decoder", the length of each unit's
        loadings on the standardised genes of the training rows (`m1pipe.encoder.latent_scale`);
        "unit", nothing.
    """

    n_latent: int = setting(32, "Number of latent units.", option="--latent", section="Model")
    hidden: tuple[int, ...] | None = setting(
        None,
        'Widths of the encoder\'s hidden layers, such as "512,256", or none.',
        shown="none below 1,000 samples, else 512",
        section="Model",
    )
    decoder_hidden: tuple[int, ...] | None = setting(
        None,
        "Widths of the decoder's hidden layers.",
        shown="the encoder's, reversed; without --hidden 512, or 128 below 500 samples",
    )
    activation: Activation = "leaky_relu"
    latent_activation: Activation = "identity"
    output_activation: Activation = "identity"
    batch_norm: bool = True
    dropout: float = 0.0
    linear_skip: bool = True
    likelihood: Likelihood = setting("gaussian", "Likelihood of a gene's level.", section="Model")
    transform: Transform | None = setting(
        None,
        "Scaling of each gene.",
        shown="as the likelihood needs: standardize; minmax, or none for counts",
        section="Model",
    )
    beta: float = setting(
        1.0, "Weight of the KL divergence; 0 is the plain autoencoder.", section="Model"
    )
    free_bits: float = 0.0
    condition: str | None = setting(
        None,
        "Column of obs whose class the network is conditioned on, one-hot.",
        metavar="COL",
        section="Model",
    )
    batch: tuple[str, ...] | None = setting(
        None,
        "Columns of obs that name a sample's batch, given to the decoder alone, so that samples of "
        "new batches can be encoded.",
        metavar="COL[,COL2]|none",
        shown="the file, of several",
        section="Model",
    )
    center_within: str | None = setting(
        None,
        "Centre and scale genes within each value of this column, also of new samples, by their "
        "own levels.",
        metavar="COL",
        section="Model",
    )
    min_variance: float | None = setting(
        None, "Leave out genes that vary no more over the training samples, before --transform."
    )
    latent_scale: LatentScale = setting(
        "decoder",
        "Latents times the length of their loadings on the genes, or as the network has them.",
    )

    def __post_init__(self) -> None:
        check_range("--latent", self.n_latent, 1)
        check_widths("--hidden", self.hidden)
        check_widths("--decoder-hidden", self.decoder_hidden)
        for name in ("activation", "latent_activation", "output_activation"):
            check_choice(name, getattr(self, name), Activation)
        check_range("--dropout", self.dropout, 0, 0.99)
        check_choice("--likelihood", self.likelihood, Likelihood)
        if self.transform is not None:
            check_choice("--transform", self.transform, Transform)
        check_range("--beta", self.beta, 0)
        check_range("--free-bits", self.free_bits, 0)
        if self.min_variance is not None:
            check_range("--min-variance", self.min_variance, 0)
        check_choice("--latent-scale", self.latent_scale, LatentScale)
        if self.center_within is not None and not self.likelihood.startswith("gaussian"):
            raise InputError(
                "--center-within: expected a normal likelihood (gaussian), since centred levels "
                f"are no counts and have no zeros; found {self.likelihood}"
            )
        if self.batch and self.condition is not None:
            raise InputError(
                "batch: expected no --condition beside it, which tells encoder and decoder; found "
                f"{self.condition}: leave one out"
            )

    @property
    def starts_at_pca(self) -> bool:
        """Whether the linear paths hold the PCA: a normal likelihood, no outer activation."""
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
        scale of each layer (`m1pipe.training.optimizer`).
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

    epochs: int | None = setting(
        None,
        "Most passes over the samples.",
        shown="about 2,000 steps, 20 to 100 epochs",
        section="Training",
    )
    batch_size: int = setting(64, "Samples a step.", section="Training")
    lr: float = setting(1e-3, "Learning rate at the start.", section="Training")
    weight_decay: float | None = None
    schedule: Schedule = "cosine"
    plateau_factor: float = 0.5
    plateau_patience: int = 10
    clip: float = 0.0
    ema: float = 0.99
    kl_warmup: float | None = None
    patience: int = 20
    validation: float = 0.1
    seed: int = setting(0, "Of everything drawn.", section="Training")
    precision: Precision = setting("auto", "Of matrix products.")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.", section="Training")
    memory: str = setting("4G", "What the data may take; a larger file is streamed.")
    checkpoint_minutes: float = 10.0
    micro_batch: int | None = setting(
        None,
        "Most samples of a batch taken at once; gradients are added up.",
        metavar="N",
        shown="all",
    )

    def __post_init__(self) -> None:
        if self.epochs is not None:
            check_range("--epochs", self.epochs, 1)
        check_range("--batch-size", self.batch_size, 1)
        check_range("--lr", self.lr, 0, open_low=True)
        if self.weight_decay is not None:
            check_range("--weight-decay", self.weight_decay, 0)
        check_choice("--schedule", self.schedule, Schedule)
        check_range("--plateau-factor", self.plateau_factor, 0, 1, open_low=True)
        check_range("--plateau-patience", self.plateau_patience, 0)
        check_range("--clip", self.clip, 0)
        check_range("--ema", self.ema, 0, 0.99999)
        if self.kl_warmup is not None:
            check_range("--kl-warmup", self.kl_warmup, 0, 1)
        check_range("--patience", self.patience, 0)
        check_range("--validation", self.validation, 0, 0.9)
        check_range("--seed", self.seed, 0, 2**63 - 1)
        check_choice("--precision", self.precision, Precision)
        _ = self.data_memory  # refused here
        check_range("--checkpoint-minutes", self.checkpoint_minutes, 0)
        if self.micro_batch is not None:
            check_range("--micro-batch", self.micro_batch, 1)

    @cached_property
    def data_memory(self) -> int:
        """Bytes that the data may take while training; a larger matrix is streamed."""
        return parse_bytes(self.memory)


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Which rows of a file train an encoder, and which validate it.

    Attributes
    ----------
    rows : str or None
        Condition on obs, such as "tissue.isna()", or COLUMN~REGEX. None: all rows.
    group : str or None
        obs column, or regular expression on the sample ids, whose groups are never on both
        sides of the validation split.
    validation_file : str or None
        A file of validation samples, used in place of a share of the rows.
    drop_samples_of : str or None
        A file whose samples are left out, found by id or as near-identical rows.
    aliases : str or None
        Table of other names of genes, by which those of that file are matched as well.
    thin_to : str or None
        A file to whose depth the rows are thinned, which are counts then. None: left as they are.
    normalize : str or None
        "total": counts are scaled to `target_sum` a sample, after thinning. None: left as they
        are; or, with `thin_to` a file of such levels, scaled and logged as those are.
    target_sum : float or None
        For `normalize`. None: a million.
    log2p1 : bool
        log2(1 + x) of what was normalised.
    """

    rows: str | None = setting(
        None, "COLUMN~REGEX, or a condition on obs, that chooses the samples.", section="Samples"
    )
    group: str | None = setting(
        None,
        "Groups that stay on one side of the validation split; none for none.",
        metavar="COL|REGEX",
        shown="donor, patient, ..., if there",
        section="Samples",
    )
    validation_file: str | None = None
    drop_samples_of: str | None = setting(
        None,
        "Leave out samples that are in FILE too, by id or as near-identical ones.",
        metavar="FILE",
        section="Samples",
    )
    aliases: str | None = None
    thin_to: str | None = setting(
        None,
        "Thin DATA's counts to depths of FILE's samples; its units too, where it has some.",
        metavar="FILE",
    )
    normalize: Literal["total"] | None = setting(
        None, "Scale DATA's counts (after --thin-to) to one total."
    )
    target_sum: float | None = setting(None, "Of --normalize.", shown="a million")
    log2p1: bool = setting(False, "log2(1 + x) of what was normalised.")

    def __post_init__(self) -> None:
        if self.normalize is not None:
            check_choice("--normalize", self.normalize, Literal["total"])
        elif self.log2p1 or self.target_sum is not None:
            raise InputError("--log2p1, --target-sum: expected with --normalize total; found alone")
        if self.target_sum is not None:
            check_range("--target-sum", self.target_sum, 0, open_low=True)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Everything that decides how an encoder is made: `config.json` of a run folder."""

    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
