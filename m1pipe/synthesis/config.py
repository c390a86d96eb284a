"""Settings of synthetic samples and of their quality report."""

from dataclasses import dataclass
from typing import Literal

from m1pipe.config import Sampler
from m1pipe.errors import InputError
from m1pipe.settings import check_at_least, check_choice, check_range, setting

Preset = Literal["camda"]


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """How synthetic samples are made.

    Attributes
    ----------
    n : int or None
        Samples in all. None: as many as `condition` says.
    sampler : str
        Where latents come from: "gmm" a mixture fitted to those of the training samples (a class),
        "prior" N(0, I), "posterior" those of training samples themselves, which is not private.
    condition : tuple of (str, str, int)
        Column, class and number of samples, for a conditional model. Left out: the classes in
        their shares of the training rows.
    noise : bool
        Draw from the likelihood; otherwise its mean, which varies less than data do.
    seed : int
        Of everything drawn.
    """

    n: int | None = setting(None, "Samples in all.", option="-n --n", metavar="N")
    sampler: Sampler = setting(
        "gmm",
        "Where latents come from: a mixture fitted to those of the training samples (gmm), "
        "N(0, I) (prior), or training samples themselves (posterior, not private).",
    )
    condition: tuple[tuple[str, str, int], ...] = ()
    noise: bool = True
    seed: int = setting(0, "Of everything drawn.")

    def __post_init__(self) -> None:
        check_choice("--sampler", self.sampler, Sampler)
        if self.n is None and not self.condition:
            raise InputError("n: expected a number of samples, or --condition COL=VALUE:N")
        if self.n is not None and self.n < 1:
            raise InputError(f"n: expected at least 1 sample; found {self.n}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed: expected a number from 0; found {self.seed}")


@dataclass(frozen=True, kw_only=True)
class QualityConfig:
    """How synthetic samples are scored.

    Attributes
    ----------
    label : str or None
        Column of obs with classes: adds utility scores.
    group : str or None
        Column of obs, or regular expression on sample ids, that names donors. None: the column
        "donor" where there is one; "none" for none.
    rivals : bool
        Score the rival generators beside the synthetic samples.
    preset : str or None
        "camda": also the scores of the CAMDA health privacy challenge; needs a label.
    n_draws : int
        Draws of equal size over which a score is averaged, where more samples are at hand.
    n_resamples : int
        Resamples behind an interval.
    n_permutations : int
        Permutations behind the p value of MMD.
    n_seeds : int
        Draws of training samples behind utility scores.
    max_genes : int
        Genes drawn for whatever is quadratic in genes, for classifiers and for intervals.
    max_samples : int
        Samples a side for whatever is quadratic in samples, and for classifiers.
    n_components : int
        Principal components for distances between samples.
    min_coverage : float
        Smallest share of the real samples' genes that the other two files must have.
    aliases : str or None
        Table of other names of genes, by which those of all three files are matched as well.
    seed : int
        Of everything drawn.
    """

    label: str | None = setting(None, "Column with classes: adds utility scores.", metavar="COL")
    group: str | None = setting(
        None,
        "Donors, never on both sides; none for none.",
        metavar="COL|REGEX",
        shown="donor, patient, ..., if there",
    )
    rivals: bool = setting(False, "Score simple generators beside.")
    preset: Preset | None = setting(
        None, "Also the scores of the CAMDA health privacy challenge, by its names; needs --label."
    )
    n_draws: int = 5
    n_resamples: int = setting(50, "Resamples behind an interval.", option="--resamples")
    n_permutations: int = 200
    n_seeds: int = 5
    max_genes: int = setting(2000, "Genes drawn for correlations, classifiers and intervals.")
    max_samples: int = setting(2000, "Samples a side where all pairs are looked at.")
    n_components: int = 20
    min_coverage: float = setting(
        0.8, "Smallest share of the real samples' genes that the others must have."
    )
    aliases: str | None = None
    seed: int = setting(0, "Of everything drawn.")

    def __post_init__(self) -> None:
        for name, low in {
            "n_draws": 1,
            "n_permutations": 1,
            "n_seeds": 1,
            "n_components": 1,
        }.items():
            check_at_least(name, getattr(self, name), low)
        if self.preset is not None:
            check_choice("--preset", self.preset, Preset)
        check_at_least("--resamples", self.n_resamples, 2)
        check_at_least("--max-genes", self.max_genes, 2)
        check_at_least("--max-samples", self.max_samples, 20)
        check_at_least("--seed", self.seed, 0)
        check_range("--min-coverage", self.min_coverage, 0, 1)
