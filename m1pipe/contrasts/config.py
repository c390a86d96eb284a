"""Settings of `m1pipe contrasts` and `m1pipe enrich`."""

from dataclasses import dataclass
from typing import Literal, get_args

from m1pipe.errors import InputError

Method = Literal["limma", "deseq2"]
Unexpressed = Literal["nan", "zero"]
Test = Literal["ora", "prerank"]
Direction = Literal["both", "up", "down"]


@dataclass(frozen=True, kw_only=True)
class ContrastsConfig:
    """How log fold changes are computed.

    Attributes
    ----------
    study, condition : str
        Columns of the design (or of the samples' annotations).
    control : str
        Conditions that the others of their study are compared with, separated by commas.
    experiment : str or None
        Column of experiments whose runs are summed first.
    covariates : tuple of str
        Columns whose effect within a study is taken out, numbers or classes.
    method : str
        "limma": limma-trend on log2 counts per million; "deseq2": negative binomial.
    min_samples : int
        Fewest samples on each side of a contrast, at least 1; three must remain in all.
    min_count : float
        Counts that a gene must have, in a library of the study's median size, in as many samples
        as the smaller side has (edgeR's rule, Chen et al. 2016).
    unexpressed : str
        What stands for the other genes: "nan", or "zero" fold change.
    subject : str or None
        Column of subjects, whose samples stay in one half where there are halves.
    seed : int
        Of the halves.
    n_jobs : int
        Processes.
    """

    study: str = "study"
    condition: str = "condition"
    control: str = "control"
    experiment: str | None = None
    covariates: tuple[str, ...] = ()
    method: Method = "limma"
    min_samples: int = 2
    min_count: float = 10.0
    unexpressed: Unexpressed = "nan"
    subject: str | None = None
    seed: int = 0
    n_jobs: int = 1

    def __post_init__(self) -> None:
        _check_choice("method", self.method, get_args(Method))
        _check_choice("unexpressed", self.unexpressed, get_args(Unexpressed))
        _check_at_least("min_samples", self.min_samples, 1)
        _check_at_least("min_count", self.min_count, 0)
        _check_at_least("seed", self.seed, 0)
        _check_at_least("n_jobs", self.n_jobs, 1)


@dataclass(frozen=True, kw_only=True)
class EnrichConfig:
    """How gene sets are tested.

    Attributes
    ----------
    method : str
        "ora": over-representation among the genes that changed (hypergeometric); "prerank":
        rank-based enrichment (Subramanian et al. 2005) by gseapy.
    gene_alpha : float
        A gene changed where its adjusted p-value is below this.
    top : int or None
        Instead, so many genes with the largest changes: for tables without p-values.
    direction : str
        Changes that count (of "ora"): "both" together, "up" or "down".
    alpha : float
        A set is enriched where its adjusted p-value within the contrast is below this.
    min_size, max_size : int
        Genes that a set must have among those measured.
    min_prevalence, max_prevalence : float
        Share of the contrasts in which a set must be enriched to be kept.
    permutations : int
        Of "prerank".
    seed : int
        Of "prerank".
    n_jobs : int
        Threads of "prerank".
    """

    method: Test = "ora"
    gene_alpha: float = 0.05
    top: int | None = None
    direction: Direction = "both"
    alpha: float = 0.05
    min_size: int = 10
    max_size: int = 500
    min_prevalence: float = 0.01
    max_prevalence: float = 0.99
    permutations: int = 1000
    seed: int = 0
    n_jobs: int = 1

    def __post_init__(self) -> None:
        _check_choice("method", self.method, get_args(Test))
        _check_choice("direction", self.direction, get_args(Direction))
        for name in ("gene_alpha", "alpha"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(
                    f"{name}: expected above 0, at most 1; found {getattr(self, name)}"
                )
        if self.top is not None:
            _check_at_least("top", self.top, 1)
        for name, least in (("min_size", 1), ("permutations", 1), ("seed", 0), ("n_jobs", 1)):
            _check_at_least(name, getattr(self, name), least)
        if self.max_size < self.min_size:
            raise InputError(
                f"max_size: expected at least min_size, {self.min_size}; found {self.max_size}"
            )
        if not 0 <= self.min_prevalence <= self.max_prevalence <= 1:
            raise InputError(
                "prevalence: expected 0 <= min_prevalence <= max_prevalence <= 1; found "
                f"{self.min_prevalence} and {self.max_prevalence}"
            )


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{name}: expected one of {', '.join(known)}; found {value!r}")


def _check_at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise InputError(f"{name}: expected at least {least}; found {value}")
