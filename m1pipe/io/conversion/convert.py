"""Turning a source into h5ad: read once, check, floor, normalise, log, label, write."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pandas as pd

from m1pipe.atomic import refuse_existing
from m1pipe.data.matrix import LOOKED_AT
from m1pipe.data.names import refuse_duplicates
from m1pipe.data.survey import Block, survey
from m1pipe.data.targets import kind_of_columns
from m1pipe.data.units import Units
from m1pipe.errors import InputError, M1Warning, counted
from m1pipe.io.conversion.choose import (
    add_quality,
    choose,
    choose_genes,
    choose_samples,
    join_runs,
    name_genes,
    sum_runs,
)
from m1pipe.io.conversion.config import ConvertConfig, ConvertSummary
from m1pipe.io.conversion.load import find_format, load_source
from m1pipe.io.conversion.loaded import Loaded
from m1pipe.io.conversion.steps import (
    Steps,
    apply_steps,
    check_values,
    kept_samples,
    screen,
    target_sum,
    with_totals,
)
from m1pipe.io.hdf5 import split_address
from m1pipe.io.sources.quant import Quantified, Quantifier, read_quants, sums_by_gene
from m1pipe.io.tables import join_labels, read_lengths, read_table
from m1pipe.io.text.known_names import describing_columns, no_genes, sums_of_others
from m1pipe.io.writer import MatrixWriter

_GTEX_ID = r"^(GTEX-[A-Z0-9]+)-"
Tables = Sequence[pd.DataFrame | None]


def convert(
    source: Path | str, dest: Path | str, config: ConvertConfig, *, force: bool = False
) -> ConvertSummary:
    """Turn a source into h5ad that `open_matrix` and anndata read.

    Text is parsed once, into an unnamed temporary file beside `dest`; memory does not grow with
    the length of the source. `dest` appears when it is complete.

    Parameters
    ----------
    source : path
        Delimited text, GCT or DEE2's long table (.gz, .bz2), a folder of 10x, or any HDF5 that
        `open_matrix` reads.
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
    file = split_address(source)[0]
    if dest.exists() and file.exists() and dest.samefile(file):
        raise InputError(f"{dest}: source and destination are the same file")
    # Of labels, annotations and runs, read before the source, which may be long.
    tables = [
        None if path is None else read_table(Path(path), config.notation)
        for path in (config.labels, config.var, config.runs)
    ]
    kind = find_format(source, config)
    finish = partial(_convert_loaded, source=source, config=config, tables=tables, force=force)
    if kind in get_args(Quantifier):
        beside = dest.with_name(f"{dest.stem}.genes{dest.suffix}")
        refuse_existing(beside, force=force)
        found = read_quants(source, cast(Quantifier, kind), config.tx2gene)
        counted = config.units == "counts"
        made, genes = _convert_quant(finish, found, dest, counted), sums_by_gene(found)
        if genes is None:
            return made
        return replace(made, beside=_convert_quant(finish, genes, beside, counted))
    if config.tx2gene is not None:
        raise InputError(f"{source}: --tx2gene is for salmon, kallisto and RSEM; found {kind}")
    if config.units is not None:
        _plan(Units(config.units), config)  # steps that make no sense are refused before reading
    with ExitStack() as stack:
        data, units = load_source(source, dest, config, stack)
        return finish(data, units, dest)


def _convert_quant(
    finish: Callable[..., ConvertSummary], part: Quantified, dest: Path, counted: bool
) -> ConvertSummary:
    """Transcripts of a quantifier's folder, or their sums by gene, to `dest`."""
    X, units = (part.counts, Units("counts")) if counted else (part.tpm, Units("tpm"))
    obs = pd.DataFrame(index=pd.Index(part.samples, dtype=object))
    data = Loaded(obs, part.var, partial(iter, [(0, len(X), X)]))
    layers = {**part.layers, **({"tpm": part.tpm} if counted else {})}
    return finish(data, units, dest, layers=layers)


def _convert_loaded(
    data: Loaded,
    units: Units,
    dest: Path,
    *,
    source: Path,
    config: ConvertConfig,
    tables: Tables,
    force: bool,
    layers: Mapping[str, np.ndarray] | None = None,
) -> ConvertSummary:
    """Choose, annotate, check, take the steps and write; `layers` of all samples and genes."""
    labels, annotations, runs = tables
    all_samples, all_genes = data.obs.index, data.var.index
    data = _leave_out(data, str(source))
    n_source = len(data.obs)
    obs, n_labelled = _annotate(data.obs, labels, f"{config.labels}: samples")
    data = add_quality(replace(data, obs=_gtex_columns(obs)), source, config)
    data = _chosen(data, units, config, runs, str(source))
    refuse_duplicates(list(data.obs.index), f"{source}: samples")
    var, n_annotated = _annotate(data.var, annotations, f"{config.var}: genes", genes=True)
    data = name_genes(replace(data, var=var), units, config, str(source))
    steps = _plan(units, config, data.var.index)
    found = survey(_screened(data, steps, source), *data.shape)
    mixed = find_format(source, config) == "text"
    some = next(_screened(data, steps, source))[2][:LOOKED_AT]
    check_values(found, steps, data.var.index, some, where=str(source), may_hold_labels=mixed)
    steps = replace(steps, target_sum=target_sum(found, steps))
    kept = kept_samples(found, steps, data.obs.index, config.zero_total, where=str(source))
    obs = with_totals(data.obs, found, steps).loc[kept]
    dropped = tuple(data.obs.index[~kept])
    uns = {"m1pipe": _record(source, steps, dropped)}
    if layers is not None and len(data.var) == len(all_genes):
        rows = all_samples.get_indexer(obs.index)
        layers = {name: values[rows] for name, values in layers.items()}
    else:
        layers = None
    with MatrixWriter(
        dest, obs=obs, var=data.var, units=steps.result, force=force, uns=uns, layers=layers
    ) as writer:
        _write(writer, _screened(data, steps, source), steps, kept, found.totals)
    return ConvertSummary(
        path=dest,
        n_samples=len(obs),
        n_genes=len(data.var),
        units=steps.result,
        dropped=dropped,
        n_labelled=n_labelled,
        n_annotated=n_annotated,
        n_source=0 if len(data.obs) == n_source else n_source,
        column=kind_of_columns(data.var),
    )


def _chosen(
    data: Loaded, units: Units, config: ConvertConfig, runs: pd.DataFrame | None, source: str
) -> Loaded:
    """The samples that are wanted, runs of one experiment summed if asked."""
    where = source if runs is None else str(config.runs)
    if runs is not None:
        data = join_runs(data, runs, where)
    data = choose_samples(data, config)
    return sum_runs(data, units, where) if config.sum_runs or runs is not None else data


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
        if not rows.all():
            X = X[rows]
        writer.write(position, apply_steps(X, steps, totals[start:stop][rows]))
        position += int(rows.sum())


def _plan(units: Units, config: ConvertConfig, genes: pd.Index | None = None) -> Steps:
    """The steps, checked against the units; gene lengths are read where the genes are known."""
    lengths = None
    if genes is not None and config.lengths is not None:
        lengths = read_lengths(Path(config.lengths), list(genes), config.notation)
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
        words.append(f"dropped {counted(len(dropped), 'sample')} with a total of 0")
    return {"source": source.name, "steps": np.array(words, dtype=object)}


def _annotate(
    frame: pd.DataFrame, table: pd.DataFrame | None, what: str, *, genes: bool = False
) -> tuple[pd.DataFrame, int | None]:
    """Join a table where there is one, and how many rows of `frame` it knows; None without one.

    A column `gene` of genes becomes `gene_id`.
    """
    if table is None:
        return frame, None
    if genes and "gene_id" not in table.columns:
        table = table.rename(columns={"gene": "gene_id"})
    return join_labels(frame, table, what, genes=genes)


def _leave_out(data: Loaded, where: str) -> Loaded:
    """A source without what is no gene or sample, named on the way: counters, totals."""
    genes, samples = _odd(data.var.index, no_genes), _odd(data.obs.index, sums_of_others)
    for what, index, odd in (("gene", data.var.index, genes), ("sample", data.obs.index, samples)):
        if odd.any():
            names = ", ".join(map(str, index[odd][:6]))
            text = f"{where}: left out, being no {what}s: {names}{', ...' * int(odd.sum() > 6)}"
            warnings.warn(text, M1Warning, stacklevel=3)
    data = _described(choose_genes(data, ~genes), where)
    return choose(data, ~_odd(data.obs.index, sums_of_others))


def _odd(index: pd.Index, test: Callable[[Sequence[str]], np.ndarray]) -> np.ndarray:
    """Which names a test finds, unless it finds all."""
    found = test([str(name) for name in index])
    return found & ~found.all()


def _described(data: Loaded, where: str) -> Loaded:
    """Rows that describe genes among samples, such as Length, moved to `var`."""
    names = [str(name) for name in data.obs.index]
    known = describing_columns(names, [])
    if not known:
        return data
    mask = data.obs.index.isin(known)
    values = np.concatenate([X for _, _, X in choose(data, mask).blocks()])
    var = data.var.assign(**dict(zip(np.array(names)[mask], values, strict=True)))
    text = f"{where}: rows that describe genes, not samples: {', '.join(known)} (kept in var)"
    warnings.warn(text, M1Warning, stacklevel=4)
    return choose(replace(data, var=var), ~mask)


def _gtex_columns(obs: pd.DataFrame) -> pd.DataFrame:
    """`tissue` and `donor` of GTEx's samples, where they are and go by other names.

    `SMTSD` of the sample attributes becomes `tissue`; ids such as GTEX-1117F-0226-SM-5GZZ7, if
    all samples have them, give the `donor` GTEX-1117F.
    """
    if "SMTSD" in obs and "tissue" not in obs:
        obs = obs.assign(tissue=obs["SMTSD"])
    donors = obs.index.astype(str).str.extract(_GTEX_ID, expand=False)
    if "donor" not in obs and len(obs) and donors.notna().all():
        obs = obs.assign(donor=donors.to_numpy())
    return obs
