"""A variational autoencoder as a scikit-learn transformer."""

import copy
import dataclasses
import os
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from m1pipe import config, seeds
from m1pipe.console import log, speaking
from m1pipe.encoder import load_encoder
from m1pipe.encoder.bundle import run_files
from m1pipe.encoder.likelihood import DRAWS, iwae_bound
from m1pipe.encoder.missing import impute_array
from m1pipe.encoder.plan import OF_COUNTS, plan_training
from m1pipe.encoder.train import train_planned
from m1pipe.encoder.trained import CHUNK_ROWS, MIXTURE_FILE
from m1pipe.errors import InputError
from m1pipe.estimators import settings
from m1pipe.estimators.settings import MODEL, TRAINING
from m1pipe.io.reader import open_matrix
from m1pipe.models.vae import VAEModule
from m1pipe.parameters import documented
from m1pipe.synthesis import latents
from m1pipe.synthesis.config import GenerateConfig
from m1pipe.synthesis.sample import DrawLatents, calibrated_samples
from m1pipe.training.history import Observer, epoch_line


def _has_prior(estimator: "VAE") -> bool:
    """Whether the model is a generative one: a plain autoencoder has no prior to draw from."""
    if estimator.beta == 0:
        raise AttributeError("at beta 0 the model is a plain autoencoder and has no likelihood")
    return True


OTHERS = """
random_state : int, RandomState or None, default=0
    Seed of initialisation, row order, noise and the validation split; None draws one.
verbose : bool, default=False
    Send progress to stderr.
"""


@documented(config.ModelConfig, config.TrainingConfig, renamed=settings.RENAMED, more=OTHERS)
class VAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Variational autoencoder: latent means of expression profiles, and profiles from latents.

    Attributes
    ----------
    encoder_ : Encoder
        The trained thing, with its genes, transform, PCA and history.
    n_features_in_ : int
        Number of genes.
    feature_names_in_ : ndarray of str
        Gene names, where X was a DataFrame.

    Examples
    --------
    >>> import numpy as np
    >>> from m1pipe import VAE
    >>> X = np.random.default_rng(0).normal(size=(60, 10))
    >>> vae = VAE(n_latent=2, hidden=(8,), epochs=3).fit(X)
    >>> vae.transform(X).shape
    (60, 2)
    """

    _training: latents.AggregatedPosterior | None = None
    _fitted_mixtures: latents.Mixtures | None = None

    def __init__(
        self,
        n_latent: int = MODEL.n_latent,
        *,
        hidden: int | tuple[int, ...] | None = MODEL.hidden,
        decoder_hidden: int | tuple[int, ...] | None = MODEL.decoder_hidden,
        activation: str = MODEL.activation,
        latent_activation: str = MODEL.latent_activation,
        output_activation: str = MODEL.output_activation,
        batch_norm: bool = MODEL.batch_norm,
        dropout: float = MODEL.dropout,
        linear_skip: bool = MODEL.linear_skip,
        likelihood: str = MODEL.likelihood,
        input_transform: str | None = MODEL.transform,
        beta: float = MODEL.beta,
        free_bits: float = MODEL.free_bits,
        latent_scale: str = MODEL.latent_scale,
        epochs: int | None = TRAINING.epochs,
        batch_size: int = TRAINING.batch_size,
        lr: float = TRAINING.lr,
        weight_decay: float | None = TRAINING.weight_decay,
        schedule: str = TRAINING.schedule,
        plateau_factor: float = TRAINING.plateau_factor,
        plateau_patience: int = TRAINING.plateau_patience,
        clip: float = TRAINING.clip,
        kl_warmup: float | None = TRAINING.kl_warmup,
        ema: float = TRAINING.ema,
        patience: int = TRAINING.patience,
        validation: float = TRAINING.validation,
        precision: str = TRAINING.precision,
        device: str = TRAINING.device,
        random_state: int | np.random.RandomState | None = TRAINING.seed,
        verbose: bool = False,
    ) -> None:
        self.n_latent = n_latent
        self.hidden = hidden
        self.decoder_hidden = decoder_hidden
        self.activation = activation
        self.latent_activation = latent_activation
        self.output_activation = output_activation
        self.batch_norm = batch_norm
        self.dropout = dropout
        self.linear_skip = linear_skip
        self.likelihood = likelihood
        self.input_transform = input_transform
        self.beta = beta
        self.free_bits = free_bits
        self.latent_scale = latent_scale
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.plateau_factor = plateau_factor
        self.plateau_patience = plateau_patience
        self.clip = clip
        self.kl_warmup = kl_warmup
        self.ema = ema
        self.patience = patience
        self.validation = validation
        self.precision = precision
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train on the rows of X.

        Parameters
        ----------
        X : array-like, sparse matrix, DataFrame, AnnData or path, shape (n_samples, n_genes)
            Expression levels on the scale of the likelihood: log levels for the Gaussian ones.
            NaN where a level is missing: it has no part in the likelihood.
        y : None
            Not used.

        Raises
        ------
        InputError
            If the values do not suit the likelihood, or a gene or a sample has no level at all.
        """
        X = settings.checked_levels(self, X, gaps=self._takes_gaps(), fitting=True)
        seed = settings.draw_seed(self.random_state)
        chosen = config.EncoderConfig(
            model=settings.collect(self, config.ModelConfig, {}),
            training=settings.collect(self, config.TrainingConfig, {"seed": seed}),
        )
        numbered = [f"x{j}" for j in range(self.n_features_in_)]
        names = [str(name) for name in getattr(self, "feature_names_in_", numbered)]
        matrix = open_matrix((np.ascontiguousarray(X), names))
        with speaking(self.verbose), settings.naming_parameters():
            plan = plan_training(matrix, chosen)
            n_epochs = plan.config.training.epochs or 0
            tell = Observer(on_epoch=lambda row: log.info("%s", epoch_line(row, n_epochs)))
            self.encoder_ = train_planned(plan, observer=tell)
        self._fitted_mixtures = self._training = None
        if self.beta > 0:
            self._training = latents.aggregated_posterior(self.encoder_, matrix)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Latent means.

        Parameters
        ----------
        X : array-like, sparse matrix, DataFrame, AnnData or path, shape (n_samples, n_genes)
            On the scale of the training data. NaN where a level is missing: it stands at its
            gene's training mean.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_latent)

        Raises
        ------
        InputError
            If a sample has no level at all.
        """
        X = self._validated(X)
        module = self._module()
        with torch.inference_mode():
            parts = [module.encode_mu(x).numpy() for x in self._chunks(X)]
        Z: np.ndarray = np.concatenate(parts) * self.encoder_.latent_scale
        return Z.astype(np.float32)

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Expression levels that the decoder gives to latents.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_latent)
            Latents, such as `transform` returns.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_genes)
            In units of the training data.
        """
        check_is_fitted(self)
        Z = np.asarray(X, dtype=np.float32)
        if Z.ndim != 2 or Z.shape[1] != self._n_features_out:
            raise ValueError(
                f"inverse_transform: expected shape (n_samples, {self._n_features_out}); "
                f"found {Z.shape}"
            )
        return self.encoder_.decode(Z)

    @available_if(_has_prior)
    def sample(
        self,
        n_samples: int = 1,
        random_state: int | np.random.RandomState | None = None,
        *,
        sampler: config.Sampler = "gmm",
        noise: bool = True,
    ) -> np.ndarray:
        """New profiles, as `m1pipe generate` makes them.

        Parameters
        ----------
        n_samples : int
        random_state : int, RandomState or None
            None draws differently each time.
        sampler : {"gmm", "prior", "posterior"}
            Where latents come from: a mixture fitted to those of the training samples, N(0, I), or
            those of training samples themselves, which is not private.
        noise : bool
            Draw from the likelihood; otherwise its mean.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_genes)
            In units of the training data; not negative where these were not.

        Raises
        ------
        InputError
            If latents of training samples are needed and the model was loaded without them.
        """
        check_is_fitted(self)
        chosen = GenerateConfig(
            n=n_samples, sampler=sampler, noise=noise, seed=settings.draw_seed(random_state)
        )
        codes = np.zeros(n_samples, dtype=np.int64)
        rng = seeds.rng(chosen.seed, seeds.GENERATED_LATENTS)
        draw: DrawLatents
        if chosen.sampler == "posterior":
            draw = partial(latents.draw_posterior, self._posterior(), rng=rng)
        else:
            prior = chosen.sampler == "prior"
            mixtures = latents.prior_mixtures(self.encoder_) if prior else self._mixtures()
            draw = partial(latents.draw_mixtures, mixtures, rng=rng)
        blocks = calibrated_samples(self.encoder_, codes, draw, noise=noise, seed=chosen.seed)
        return np.concatenate([X for _, X in blocks])

    @available_if(_has_prior)
    def score_samples(self, X: Any) -> np.ndarray:
        """Lower bound of each row's log-likelihood (importance-weighted, all rows the same noise).

        Parameters
        ----------
        X : array-like, sparse matrix, DataFrame, AnnData or path, shape (n_samples, n_genes)
            NaN where a level is missing: the likelihood is that of the others.

        Returns
        -------
        ndarray of float64, shape (n_samples,)
            In nats, as a density of the data's own units (the Jacobian of the transform is in).

        Raises
        ------
        InputError
            If a sample has no level at all.

        References
        ----------
        Burda, Grosse & Salakhutdinov 2016, arXiv:1509.00519, equation 8; with missing levels
        Mattei & Frellsen 2019, arXiv:1812.02633, equation 4.
        """
        X = self._validated(X)
        known = ~np.isnan(X)
        X = X if known.all() else impute_array(self.encoder_, X)
        module = self._module()
        generator = torch.Generator().manual_seed(self.encoder_.config.training.seed)
        size = (DRAWS, 1, self._n_features_out)
        noise = torch.randn(size, generator=generator, dtype=torch.float64)
        masks = torch.from_numpy(known).split(CHUNK_ROWS)
        with torch.inference_mode():
            parts = [
                iwae_bound(module, x, noise, known=mask).numpy()
                for x, mask in zip(self._chunks(X), masks, strict=True)
            ]
        slope = np.where(known, self.encoder_.scaler.log_slope(X), 0).sum(axis=1)
        return np.concatenate(parts) + slope

    @available_if(_has_prior)
    def score(self, X: Any, y: Any = None) -> float:
        """Mean of `score_samples`: higher is better, comparable between settings."""
        return float(self.score_samples(X).mean())

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write weights, genes, transform, configuration and mixture of the latents; no pickles."""
        check_is_fitted(self)
        self.encoder_.save(folder)
        if self.beta > 0 and (self._fitted_mixtures or self._training) is not None:
            path = Path(folder) / MIXTURE_FILE
            latents.save_mixtures(self._mixtures(), path, model=self.encoder_.digest())

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """A fitted estimator from what `save`, `m1pipe train` or `export --bundle` wrote.

        Raises
        ------
        InputError
            If the model is conditional: rows of an array have no classes.
        """
        encoder = load_encoder(folder)
        if encoder.condition is not None:
            raise InputError(
                f"{folder}: expected a model that is not conditional; found one told "
                f"{encoder.condition.column!r} of every sample: use m1pipe.load_encoder"
            )
        chosen = encoder.config
        given = dataclasses.asdict(chosen.model) | dataclasses.asdict(chosen.training)
        estimator = cls(**settings.parameters(given, cls().get_params()))
        estimator.encoder_ = encoder
        with run_files(folder) as files:
            mixtures = latents.load_mixtures(files / MIXTURE_FILE, model=encoder.digest())
        estimator._fitted_mixtures = mixtures
        estimator.n_features_in_ = len(encoder.genes)
        if any(name != f"x{j}" for j, name in enumerate(encoder.genes)):  # not numbered here
            estimator.feature_names_in_ = np.asarray(encoder.genes, dtype=object)
        return estimator

    def _mixtures(self) -> latents.Mixtures:
        """Mixture of the training samples' latents, fitted when it is first needed."""
        if self._fitted_mixtures is None:
            seed = self.encoder_.config.training.seed
            self._fitted_mixtures = latents.fit_mixtures(self._posterior(), 0, seed=seed)
        return self._fitted_mixtures

    def _posterior(self) -> latents.AggregatedPosterior:
        if self._training is None:
            raise InputError(
                "sample: expected latents of the training samples; found a model loaded without "
                'them: m1pipe generate can fit the mixture, sampler="prior" does without'
            )
        return self._training

    @property
    def _n_features_out(self) -> int:
        return int(self.encoder_.config.model.n_latent)

    def _validated(self, X: Any) -> np.ndarray:
        """Rows as they were given, float32; NaN where a level is missing."""
        check_is_fitted(self)
        return settings.checked_levels(self, X, gaps=self._takes_gaps())

    def _takes_gaps(self) -> bool:
        """Whether levels may be missing: a likelihood of counts needs the total of every sample."""
        return self.likelihood not in OF_COUNTS

    def _module(self) -> VAEModule:
        """The network in double precision: a row's result then does not depend on its batch."""
        return copy.deepcopy(self.encoder_.module).cpu().double().eval()

    def _chunks(self, X: np.ndarray) -> list[torch.Tensor]:
        """Transformed rows without gaps, some at a time."""
        scaled = self.encoder_.scaled
        return [
            torch.from_numpy(scaled(X[i : i + CHUNK_ROWS])).double()
            for i in range(0, len(X), CHUNK_ROWS)
        ]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.input_tags.allow_nan = self._takes_gaps()
        tags.input_tags.sparse = True
        return tags
