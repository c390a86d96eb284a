"""Turning a source into h5ad: read once, check, floor, normalise, log, label, write."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
import pandas as pd

from m1pipe.atomic import refuse_existing
from m1pipe.data.matrix import Matrix, open_matrix
from m1pipe.data.prepare import (
    ZeroTotal,
    annotate,
    check_values,
    kept_samples,
    target_sum,
    with_totals,
)
from m1pipe.data.sources.tables import read_lengths, read_table
from m1pipe.data.spool import Loaded, load_matrix, load_text
from m1pipe.data.steps import Normalize, Steps, apply_steps, screen
from m1pipe.data.survey import Block, survey
from m1pipe.data.units import MILLION, Units
from m1pipe.data.writer import MatrixWriter
from m1pipe.errors import InputError, M1Warning

Format = Literal["auto", "text", "h5ad", "flat"]
Missing = Literal["error", "keep"]
_HDF5_MAGIC = b"\x89HDF"


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
    zero_total : "error", "drop" or "keep"
        What is done, when normalising, with samples whose total is 0.
    missing : "error" or "keep"
        What is done with missing values.
    """

    format: Format = "auto"
    genes_as_rows: bool = False
    units: str | None = None
    floor: float | None = None
    normalize: Normalize | None = None
    target_sum: float = MILLION
    lengths: str | None = None
    log2p1: bool = False
    labels: str | None = None
    var: str | None = None
    obs_columns: tuple[str, ...] = ()
    zero_total: ZeroTotal = "error"
    missing: Missing = "error"

    def __post_init__(self) -> None:
        choices: dict[str, tuple[Any, Any]] = {
            "from": (self.format, Format),
            "normalize": (self.normalize or "total", Normalize),
            "zero-total": (self.zero_total, ZeroTotal),
            "missing": (self.missing, Missing),
        }
        for name, (value, kind) in choices.items():
            if value not in get_args(kind):
                known = ", ".join(get_args(kind))
                raise InputError(f"{name}: expected one of {known}; found {value!r}")
        if (self.normalize == "tpm") != (self.lengths is not None):
            raise InputError("--normalize tpm and --lengths need each other; one was given alone")
        if not 0 < self.target_sum < float("inf"):
            raise InputError(f"target-sum: expected a positive number; found {self.target_sum}")
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
    n_labelled, n_annotated : int or None
        Samples and genes that the tables of labels knew; None where there was no table.
    """

    path: Path
    n_samples: int
    n_genes: int
    units: Units
    dropped: tuple[str, ...] = ()
    n_labelled: int | None = None
    n_annotated: int | None = None

    def __str__(self) -> str:
        words = [f"{self.path}: {self.n_samples:,} samples x {self.n_genes:,} genes, {self.units}"]
        if self.n_labelled is not None:
            words.append(f"labels for {self.n_labelled:,} samples")
        if self.n_annotated is not None:
            words.append(f"annotations for {self.n_annotated:,} genes")
        if self.dropped:
            words.append(f"{len(self.dropped):,} dropped (total 0)")
        return ", ".join(words)


def convert(
    source: Path | str, dest: Path | str, config: ConvertConfig, *, force: bool = False
) -> ConvertSummary:
    """Turn a source into h5ad that `open_matrix` and anndata read.

    Text is parsed once, into an unnamed temporary file beside `dest`; memory does not grow with
    the length of the source. `dest` appears when it is complete.

    Parameters
    ----------
    source : path
        Delimited text (.gz, .bz2), h5ad, or HDF5 in the flat layout.
    dest : path
    config : ConvertConfig
    force : bool
        Replace `dest`.

    Returns
    -------
    ConvertSummary

    Raises
    ------
    InputError
        If the source is broken, a step makes no sense in its units, a sample's total is 0, a
        table of labels does not fit, or the disk is full.
    """
    source, dest = Path(source), refuse_existing(dest, force=force)
    if dest.exists() and source.exists() and dest.samefile(source):
        raise InputError(f"{dest}: source and destination are the same file")
    labels, annotations = (
        None if path is None else read_table(Path(path)) for path in (config.labels, config.var)
    )
    with ExitStack() as stack:
        data, units = _load(source, dest, config, stack)
        steps = _plan(units, config, data.var.index)
        found = survey(_screened(data, steps, source), *data.shape)
        check_values(found, steps, data.var.index, where=str(source))
        steps = replace(steps, target_sum=target_sum(found, steps))
        kept = kept_samples(found, steps, data.obs.index, config.zero_total, where=str(source))
        obs, n_labelled = annotate(data.obs, labels, f"{config.labels}: samples")
        var, n_annotated = annotate(data.var, annotations, f"{config.var}: genes")
        obs = with_totals(obs, found, steps).loc[kept]
        dropped = tuple(data.obs.index[~kept])
        uns = {"m1pipe": _record(source, steps, dropped)}
        with MatrixWriter(
            dest, obs=obs, var=var, units=steps.result, force=force, uns=uns
        ) as writer:
            _write(writer, _screened(data, steps, source), steps, kept, found.totals)
    return ConvertSummary(dest, len(obs), len(var), steps.result, dropped, n_labelled, n_annotated)


def _write(
    writer: MatrixWriter,
    blocks: Iterator[Block],
    steps: Steps,
    kept: np.ndarray,
    totals: np.ndarray,
) -> None:
    """Write the samples that are kept, after the steps."""
    position = 0
    for start, stop, X in blocks:
        rows = kept[start:stop]
        writer.write(position, apply_steps(X[rows], steps, totals[start:stop][rows]))
        position += int(rows.sum())


def _load(
    source: Path, dest: Path, config: ConvertConfig, stack: ExitStack
) -> tuple[Loaded, Units]:
    """Values and units of the source; what must stay open is left to `stack`."""
    told = Units(config.units or "unknown")
    if _find_format(source, config) == "text":
        _plan(told, config)  # steps that make no sense are refused before the text is read
        spool = stack.enter_context(_temporary_file(dest))
        keep_missing = config.missing == "keep"
        loaded = load_text(
            source,
            spool,
            genes_as_rows=config.genes_as_rows,
            label_names=config.obs_columns,
            keep_missing=keep_missing,
        )
        return loaded, told
    if config.genes_as_rows or config.obs_columns:
        raise InputError(f"{source}: --genes-as-rows and --obs-columns are for text; found HDF5")
    matrix = stack.enter_context(open_matrix(source))
    loaded = load_matrix(matrix, keep_missing=config.missing == "keep")
    return loaded, _told_units(matrix, told)


def _find_format(source: Path, config: ConvertConfig) -> str:
    if config.format != "auto":
        return "text" if config.format == "text" else "hdf5"
    if not source.is_file():
        return "text"
    with open(source, "rb") as handle:
        return "hdf5" if handle.read(4) == _HDF5_MAGIC else "text"


def _temporary_file(dest: Path) -> BinaryIO:
    """A file without a name, which the system removes even after a kill."""
    try:
        return tempfile.TemporaryFile(dir=dest.parent, buffering=0)
    except OSError as error:
        raise InputError(f"{dest.parent}: cannot be written to: {error.strerror}") from None


def _told_units(matrix: Matrix, told: Units) -> Units:
    if told.name == "unknown":
        return matrix.units
    if matrix.units.name not in ("unknown", told.name):
        message = f"{matrix.path}: says its units are {matrix.units}; taken as {told} as asked"
        warnings.warn(message, M1Warning, stacklevel=2)
    return told


def _plan(units: Units, config: ConvertConfig, genes: pd.Index | None = None) -> Steps:
    """The steps, checked against the units; gene lengths are read where the genes are known."""
    lengths = None
    if genes is not None and config.lengths is not None:
        lengths = read_lengths(Path(config.lengths), list(genes))
    steps = Steps(
        units=units,
        floor=config.floor,
        normalize=config.normalize,
        target_sum=config.target_sum if config.normalize == "total" else None,
        log=config.log2p1,
        lengths=lengths,
    )
    _ = steps.result
    return steps


def _screened(data: Loaded, steps: Steps, source: Path) -> Iterator[Block]:
    genes = data.var.index.to_numpy()
    for start, stop, X in data.blocks():
        samples = data.obs.index[start:stop].to_numpy()
        yield start, stop, screen(X, steps, samples, genes, where=str(source))


def _record(source: Path, steps: Steps, dropped: tuple[str, ...]) -> dict[str, Any]:
    """How the values were made, for `uns`."""
    words = steps.describe()
    if dropped:
        words.append(f"dropped {len(dropped)} samples with a total of 0")
    return {"source": source.name, "steps": np.array(words, dtype=object)}
