"""Settings of `m1pipe contrasts` and `m1pipe enrich`."""

from dataclasses import dataclass
from typing import Literal

from m1pipe.errors import InputError
from m1pipe.settings import check_at_least, check_choice, setting

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

    study: str = setting("study", "", metavar="COL")
    condition: str = setting("condition", "", metavar="COL")
    control: str = setting(
        "control", "What other conditions are compared with.", metavar="VALUE[,VALUE]"
    )
    experiment: str | None = setting(
        None, "Runs of one experiment are summed first.", metavar="COL"
    )
    covariates: tuple[str, ...] = setting(
        (), "Their effect in a study is taken out.", metavar="COL[,COL]"
    )
    method: Method = setting("limma", "")
    min_samples: int = setting(2, "On each side of a contrast.")
    min_count: float = setting(10.0, "Counts of a gene worth testing.")
    unexpressed: Unexpressed = setting("nan", "What stands for the other genes.")
    subject: str | None = setting(None, "Whose samples stay in one half.", metavar="COL")
    seed: int = setting(0, "Of the halves.")
    n_jobs: int = setting(1, "Processes.")

    def __post_init__(self) -> None:
        check_choice("--method", self.method, Method)
        check_choice("--unexpressed", self.unexpressed, Unexpressed)
        check_at_least("min_samples", self.min_samples, 1)
        check_at_least("min_count", self.min_count, 0)
        check_at_least("--seed", self.seed, 0)
        check_at_least("n_jobs", self.n_jobs, 1)


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

    method: Test = setting("ora", "Over-representation, or by ranks (extra `gsea`).")
    gene_alpha: float = setting(0.05, "A gene changed below this adjusted p-value.")
    top: int | None = setting(None, "Instead, the N genes that changed most.", metavar="N")
    direction: Direction = setting("both", "Changes that count.")
    alpha: float = setting(0.05, "A set is enriched below it.")
    min_size: int = setting(10, "Measured genes of a set.")
    max_size: int = setting(500, "")
    min_prevalence: float = setting(0.01, "Share of contrasts a set is enriched in.")
    max_prevalence: float = setting(0.99, "")
    permutations: int = setting(1000, "Of prerank.")
    seed: int = setting(0, "Of prerank.")
    n_jobs: int = setting(1, "Threads of prerank.")

    def __post_init__(self) -> None:
        check_choice("--method", self.method, Test)
        check_choice("--direction", self.direction, Direction)
        for name in ("gene_alpha", "alpha"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(
                    f"{name}: expected above 0, at most 1; found {getattr(self, name)}"
                )
        if self.top is not None:
            check_at_least("--top", self.top, 1)
        for name, least in (("min_size", 1), ("permutations", 1), ("seed", 0), ("n_jobs", 1)):
            check_at_least(name, getattr(self, name), least)
        if self.max_size < self.min_size:
            raise InputError(
                f"max_size: expected at least min_size, {self.min_size}; found {self.max_size}"
            )
        if not 0 <= self.min_prevalence <= self.max_prevalence <= 1:
            raise InputError(
                "prevalence: expected 0 <= min_prevalence <= max_prevalence <= 1; found "
                f"{self.min_prevalence} and {self.max_prevalence}"
            )
