"""Settings of `m1pipe convert`, and the summary of what it made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from m1pipe.data.units import MILLION, Units
from m1pipe.errors import InputError, counted
from m1pipe.io.conversion.steps import Normalize, ZeroTotal
from m1pipe.io.sources.quant import Quantifier
from m1pipe.io.text.numbers import Notation
from m1pipe.settings import check_choice, setting

_Dee2 = Literal["dee2", "dee2_long", "dee2_study"]
_TenX = Literal["10x", "10x_h5"]
Format = Literal["auto", "text", "gct", "h5ad", "flat", "archs4", _Dee2, _TenX, "zarr", Quantifier]
Missing = Literal["error", "keep"]
Duplicates = Literal["error", "sum"]
Quality = Literal["pass", "warn"]
Decimal = Literal[".", ","]


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """How a source is turned into h5ad.

    Attributes
    ----------
    format : str
        Of the source; "auto" looks into the file.
    genes_as_rows : bool
        The text has genes as rows and samples as columns.
    units : str or None
        What the values in the source are. None: what an HDF5 source says itself.
    floor : float or None
        Smaller values are raised to it, before anything else.
    normalize : "total", "median", "tpm" or None
        Scale each sample: to `target_sum`, to the median of the totals, or, divided by gene
        lengths, to a million.
    target_sum : float
        For "total".
    lengths : str or None
        Table of gene lengths in bases, for "tpm".
    log2p1 : bool
        log2(1 + x), after everything else.
    labels : str or None
        Table of sample labels, joined by sample id.
    var : str or None
        Table of gene annotations, joined by gene name; a column `gene` becomes `gene_id`.
    obs_columns : tuple of str
        Labels that sit among the genes.
    var_columns : tuple of str
        What describes genes among the samples of a text, beside what is known by its name.
    decimal, thousands : str
        How numbers of a text are written: what stands before fractions, and between thousands.
    zero_total : "error", "drop", "keep" or None
        What is done with samples whose total is 0. None: an error where they are normalised, and
        nothing elsewhere.
    missing : "error" or "keep"
        What is done with missing values.
    where : str or None
        Samples wanted: COLUMN~REGEX, or a condition on their annotations.
    series : tuple of str
        Samples wanted: of these GEO series (ARCHS4).
    single_cell_below : float or None
        Samples wanted: with a smaller probability of being single cells (ARCHS4).
    runs : str or None
        Table of sequencing runs and their experiments; runs of one experiment are summed.
    sum_runs : bool
        Runs of one experiment are summed by what the source or `labels` say of them.
    qc : "pass", "warn" or None
        Runs wanted: those that passed DEE2's quality control, or those with warnings as well.
    quality : str or None
        DEE2's file of quality measures (qc.h5). None: the one beside a bulk file, where no column
        says how a run passed.
    isoforms : bool
        Transcripts of a study of DEE2 instead of its genes.
    gene_names : str or None
        Column of the genes' annotations to name them by.
    tx2gene : str or None
        Table of transcripts and their genes, for a folder of salmon, kallisto or RSEM.
    aliases : str or None
        Table of other names of genes: alias, name.
    duplicates : "error" or "sum"
        What is done with genes of one name.
    """

    format: Format = setting(
        "auto", "Format of SOURCE.", option="--from", shown="auto, by its content", section="Source"
    )
    genes_as_rows: bool = setting(False, "Columns are samples.", section="Source")
    units: str | None = None
    floor: float | None = setting(None, "Raise smaller values to F, first.", metavar="F")
    normalize: Normalize | None = setting(None, "Scale every sample.", section="Values")
    target_sum: float = setting(MILLION, "For --normalize total.", metavar="F", section="Values")
    lengths: str | None = setting(
        None, "Gene lengths in bases, for --normalize tpm.", metavar="TSV", section="Values"
    )
    log2p1: bool = setting(False, "log2(1 + x), last.", section="Values")
    labels: str | None = setting(
        None, "Sample labels, joined by sample id.", metavar="TSV", section="Samples"
    )
    var: str | None = setting(
        None, "Gene annotations; a column `gene` becomes gene_id.", metavar="TSV", section="Genes"
    )
    obs_columns: tuple[str, ...] = setting((), "Labels that sit among the genes.", metavar="A,B")
    var_columns: tuple[str, ...] = setting(
        (),
        "What describes genes among the samples, beside known names such as Length.",
        metavar="A,B",
    )
    decimal: Decimal = setting(".", "Before fractions in text.")
    thousands: str = setting("", "Between thousands in text, such as ','.", metavar="C")
    zero_total: ZeroTotal | None = setting(
        None,
        "Samples whose total is 0.",
        shown="error where they are normalised",
        section="Samples",
    )
    missing: Missing = setting("error", "Empty fields, NA, NaN.", section="Values")
    where: str | None = setting(
        None,
        "Samples wanted: COLUMN~REGEX (^REGEX$: all of it), or a condition.",
        metavar="COND",
        section="Samples",
    )
    series: tuple[str, ...] = setting((), "Samples wanted: of GEO series.", metavar="A,B")
    single_cell_below: float | None = setting(
        None, "Samples wanted: ARCHS4's probability.", metavar="F"
    )
    runs: str | None = setting(None, "Runs and experiments; runs of one are summed.", metavar="TSV")
    sum_runs: bool = setting(False, "The same, by what the source says of its runs.")
    qc: Quality | None = setting(None, "Runs wanted, by DEE2's quality.")
    quality: str | None = setting(
        None, "For --qc: DEE2's measures.", metavar="H5", shown="qc.h5 beside SOURCE"
    )
    isoforms: bool = setting(False, "Transcripts of a DEE2 study.")
    gene_names: str | None = setting(
        None, "Name genes by their annotation.", metavar="COLUMN", section="Genes"
    )
    tx2gene: str | None = setting(
        None, "Transcript, gene: of salmon, kallisto or RSEM.", metavar="TSV", section="Genes"
    )
    aliases: str | None = setting(None, "Other names of genes: alias, name.", metavar="TSV")
    duplicates: Duplicates = setting("error", "Genes of one name.", section="Genes")

    @property
    def notation(self) -> Notation:
        """How numbers of a text are written."""
        return Notation(self.decimal, self.thousands)

    def __post_init__(self) -> None:
        choices: dict[str, tuple[Any, Any]] = {
            "from": (self.format, Format),
            "normalize": (self.normalize or "total", Normalize),
            "zero-total": (self.zero_total or "error", ZeroTotal),
            "decimal": (self.decimal, Decimal),
            "missing": (self.missing, Missing),
            "qc": (self.qc or "pass", Quality),
            "duplicates": (self.duplicates, Duplicates),
        }
        for name, (value, kind) in choices.items():
            check_choice(f"--{name}", value, kind)
        if (self.normalize == "tpm") != (self.lengths is not None):
            raise InputError("--normalize tpm and --lengths need each other; one was given alone")
        if self.quality is not None and self.qc is None:
            raise InputError("quality: it serves --qc pass or --qc warn; neither was given")
        if self.thousands and (len(self.thousands) > 1 or self.thousands in f"{self.decimal}-+"):
            raise InputError(
                f"thousands: expected one character that is no decimal; found {self.thousands!r}"
            )
        if not 0 < self.target_sum < float("inf"):
            raise InputError(f"--target-sum: expected a positive number; found {self.target_sum}")
        Units(self.units or "unknown")


@dataclass(frozen=True)
class ConvertSummary:
    """What `convert` made.

    Attributes
    ----------
    path : Path
    n_samples, n_genes : int
    units : Units
    dropped : tuple of str
        Samples left out because their total is 0.
    n_source : int
        Samples in the source; 0 where all were wanted.
    beside : ConvertSummary or None
        Of the sums by gene, where the source holds transcripts.
    n_labelled, n_annotated : int or None
        Samples and genes that the tables of labels knew; None where there was no table.
    column : str
        What a column is: "gene" or "isoform".
    """

    path: Path
    n_samples: int
    n_genes: int
    units: Units
    dropped: tuple[str, ...] = ()
    n_labelled: int | None = None
    n_annotated: int | None = None
    n_source: int = 0
    beside: "ConvertSummary | None" = None
    column: str = "gene"

    def __str__(self) -> str:
        words = [
            f"{self.path}: {counted(self.n_samples, 'sample')} x "
            f"{counted(self.n_genes, self.column)}, {self.units}"
        ]
        if self.n_source:
            words.append(f"from {counted(self.n_source, 'sample')} in the source")
        if self.n_labelled is not None:
            words.append(f"labels for {counted(self.n_labelled, 'sample')}")
        if self.n_annotated is not None:
            words.append(f"annotations for {counted(self.n_annotated, self.column)}")
        if self.dropped:
            words.append(f"{len(self.dropped):,} dropped (total 0)")
        return ", ".join(words) + ("" if self.beside is None else f"\n{self.beside}")
