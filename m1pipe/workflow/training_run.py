"""Training an encoder in a run folder, as `m1pipe train` does."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from m1pipe.artefacts import reading
from m1pipe.atomic import PathLike, write_text
from m1pipe.config import EncoderConfig, SelectionConfig
from m1pipe.console import log
from m1pipe.data.choose_samples import matching_samples
from m1pipe.data.depth import Thinning, depths, in_units, plan_thinning, thinned
from m1pipe.data.duplicates import find_copies
from m1pipe.data.groups import resolve_groups
from m1pipe.data.matrix import Matrix
from m1pipe.data.units import MILLION, Units
from m1pipe.encoder.load import load_encoder
from m1pipe.encoder.plan import OF_COUNTS, TrainingPlan, plan_training
from m1pipe.encoder.summary import health
from m1pipe.encoder.train import train_planned
from m1pipe.encoder.trained import (
    CARD_FILE,
    ENCODER_FILES,
    MIXTURE_FILE,
    QUANTILES_FILE,
    Encoder,
)
from m1pipe.errors import InputError, all_but, counted
from m1pipe.io.conversion.steps import Steps
from m1pipe.io.reader import open_matrix
from m1pipe.io.together import FILE, open_together
from m1pipe.settings import to_dict
from m1pipe.training.checkpoint import load_checkpoint
from m1pipe.training.device import choose_threads, resolve_device, threads
from m1pipe.training.distributed import Workers, joined
from m1pipe.training.history import Observer
from m1pipe.training.signals import StopFlag
from m1pipe.workflow.model_card import model_card
from m1pipe.workflow.progress import STEPS_FILE, Watcher
from m1pipe.workflow.run_folder import RunFolder
from m1pipe.workflow.trackers import TRACKER_FILES, Tracker, load_tracker, tracked

RESULTS = (*ENCODER_FILES, MIXTURE_FILE, QUANTILES_FILE, STEPS_FILE, CARD_FILE, *TRACKER_FILES)


def run_training(
    data: PathLike | Sequence[PathLike],
    out: PathLike,
    config: EncoderConfig,
    *,
    force: bool = False,
    log_steps: bool = False,
    log_to: Tracker | None = None,
) -> Encoder:
    """Train an encoder in a run folder, or resume it there.

    A finished run of the same settings and files is read and returned.

    Parameters
    ----------
    data : path or sequence of path
        Samples x genes; of several files the genes that all have.
    out : path
        The run's folder.
    config : EncoderConfig
        Its `selection` says which rows of the file are used.
    force : bool
        Overwrite a run that is there.
    log_steps : bool
        Keep the losses of every step in steps.csv.
    log_to : "tensorboard" or "mlflow", optional
        Tell it of every epoch.

    Returns
    -------
    Encoder
        As it is in the folder.

    Raises
    ------
    InputError
        If the folder cannot be used, or the data do not suit the model.
    StoppedBySignalError, KeyboardInterrupt
        If a signal came; the run can be resumed.
    """
    if log_to is not None:
        load_tracker(log_to)
    paths = [data] if isinstance(data, str | os.PathLike) else list(data)
    config = by_file(config, len(paths))
    files: dict[str, PathLike | None] = {
        **({"data": paths[0]} if len(paths) == 1 else {}),
        **({f"data {i}": path for i, path in enumerate(paths, 1)} if len(paths) > 1 else {}),
        "validation": config.selection.validation_file,
        "dropped samples": config.selection.drop_samples_of,
        "thinned to": config.selection.thin_to,
        "aliases": config.selection.aliases,
    }
    inputs = {role: file for role, file in files.items() if file is not None}
    folder = RunFolder(out, results=RESULTS)
    device = resolve_device(config.training.device)
    with ExitStack() as opened, joined(device) as workers:
        matrix = open_together(paths, opened)
        plan = make_plan(matrix, config)
        _refuse_small_batches(plan, workers)
        n_threads = choose_threads(plan.n_parameters, plan.config.training.batch_size)
        start = workers.broadcast(
            lambda: folder.prepare(
                to_dict(plan.config),
                inputs,
                seed=config.training.seed,
                threads=n_threads,
                force=force,
            )
        )
        if start == "finished":
            log.info("%s: finished already, nothing left to do", folder.path)
            return load_encoder(folder.path)
        with StopFlag() as stop, threads(n_threads):
            train = partial(
                train_planned,
                plan,
                checkpoint=folder.checkpoint,
                resume=start == "resumed",
                stop=stop,
                workers=workers,
            )
            if not workers.leads:
                return train()
            with folder, Watcher(folder, plan, log_steps=log_steps) as watcher:
                resumed = start == "resumed"
                return _watched(folder, plan, watcher, train, log_to, resumed=resumed)


def by_file(config: EncoderConfig, n_files: int) -> EncoderConfig:
    """Settings with each of several files as a batch, where nothing is said of batches."""
    model = config.model
    told = (model.batch, model.condition, model.center_within) != (None, None, None)
    if n_files < 2 or told:
        return config
    log.info("each file is a batch (--batch none: none is)")
    return replace(config, model=replace(model, batch=(FILE,)))


def _watched(
    folder: RunFolder,
    plan: TrainingPlan,
    watcher: Watcher,
    train: Callable[..., Encoder],
    log_to: Tracker | None,
    *,
    resumed: bool,
) -> Encoder:
    """Train, keep the folder up to date meanwhile, and put the result there."""
    for line in (plan_line(plan), steps_line(plan)):
        log.info("%s", line)
    if resumed:
        with reading(folder.checkpoint, "the state of a run", remedy="start again with --force"):
            watcher.go_on(load_checkpoint(folder.checkpoint)["fit"])
    with tracked(log_to, folder.path, to_dict(plan.config), len(watcher.rows)) as tell:

        def on_epoch(row: dict[str, Any]) -> None:
            watcher.on_epoch(row)
            tell(row)

        encoder = train(observer=Observer(on_step=watcher.on_step, on_epoch=on_epoch))
    encoder.save(folder.path)
    card = model_card(encoder, str(folder.path), folder.read_provenance() or {})
    write_text(folder.path / CARD_FILE, card)
    if encoder.summary["active_units"] == 0:
        log.warning(
            "warning: none of the %d latent units carries anything: the KL outweighs the "
            "likelihood; lower --beta",
            encoder.n_latent,
        )
    return encoder


def _refuse_small_batches(plan: TrainingPlan, workers: Workers) -> None:
    size = plan.config.training.batch_size
    if size < workers.size:
        raise InputError(
            f"--batch-size: expected at least a row for each of {workers.size} processes; "
            f"found {size}"
        )


def make_plan(matrix: Matrix, config: EncoderConfig) -> TrainingPlan:
    """Plan of a training on the rows that the configuration selects.

    Raises
    ------
    InputError
        If the selection does not fit the file.
    """
    selection = config.selection
    rows = None if selection.rows is None else select_rows(matrix, selection.rows)
    if selection.drop_samples_of is not None:
        rows = _without_samples_of(selection.drop_samples_of, matrix, rows)
    config, seed = settled(matrix, config), config.training.seed
    every = np.arange(matrix.n_samples)
    groups, validation = resolve_groups(matrix.obs, selection.group), _validation(selection)
    matrix, rows, thinning = training_counts(
        matrix, config, every if rows is None else rows, seed=seed
    )
    if validation is not None:
        every = np.arange(validation.n_samples)
        validation, _, _ = training_counts(validation, config, every, seed=seed)
    plan = plan_training(matrix, config, rows=rows, groups=groups, validation=validation)
    return replace(plan, thinning=thinning)


def _without_samples_of(path: str, matrix: Matrix, rows: np.ndarray | None) -> np.ndarray:
    """Rows whose samples are not in another file, by id or as near-identical rows.

    Raises
    ------
    InputError
        If none is left.
    """
    rows = np.arange(matrix.n_samples) if rows is None else rows
    with open_matrix(path) as other:
        copies = find_copies(matrix, other, rows=rows)
    how = f"compared on {copies.n_genes:,} genes" if copies.n_genes else "ids alone were compared"
    log.info(
        "samples of %s left out: %d by id, %d by near-identical levels (%s)",
        path,
        copies.by_id.size,
        copies.by_row.size,
        how,
    )
    left = np.setdiff1d(rows, copies.rows)
    if not left.size:
        raise InputError(f"--drop-samples-of: expected other samples than those of {path}; all are")
    return left


def _validation(selection: SelectionConfig) -> Matrix | None:
    """The file of validation samples, where there is one."""
    if selection.validation_file is not None:
        return open_matrix(selection.validation_file, aliases=selection.aliases)
    if selection.aliases is not None and selection.thin_to is None:
        raise InputError(
            "aliases: they serve the genes of a --validation or --thin-to FILE; none was given"
        )
    return None


def select_rows(matrix: Matrix, query: str) -> np.ndarray:
    """Rows of a matrix for which a condition on its obs holds.

    Parameters
    ----------
    matrix : Matrix
    query : str
        As `m1pipe.data.choose_samples.matching_samples` takes it.

    Returns
    -------
    ndarray of int64, shape (n_rows,)
        Ascending, at least one.

    Raises
    ------
    InputError
        If the query cannot be evaluated, is not true or false for each sample, or never holds.
    """
    return np.flatnonzero(matching_samples(matrix.obs, query, option="rows"))


def plan_line(plan: TrainingPlan) -> str:
    """One line about what will be trained on what."""
    where = "streamed from disk" if plan.streams else "in memory"
    if plan.missing is not None:
        where += f"\n  {plan.missing} missing"
    return (
        f"{plan.rows.size:,} training and "
        f"{counted(plan.held_out_rows.size, 'validation sample')} x "
        f"{counted(plan.source.shape[1], 'gene')}, {plan.source.matrix.units}, {where}"
    )


def steps_line(plan: TrainingPlan) -> str:
    """One line about how long it will be trained."""
    steps = counted(plan.n_steps, "step")
    return (
        f"{plan.n_parameters:,} trained parameters; "
        f"{counted(plan.config.training.epochs or 0, 'epoch')} of {steps}"
    )


def dry_run_text(plan: TrainingPlan) -> str:
    """What a training would take: parameters, memory, disk, steps."""
    epochs = plan.config.training.epochs or 0
    return "\n".join(
        (
            plan_line(plan),
            f"parameters  {plan.n_parameters:,} trained, {plan.n_held:,} held at the PCA",
            f"memory      about {plan.memory_bytes / 1e9:.2f} GB beside the libraries",
            f"disk        about {plan.disk_bytes / 1e9:.2f} GB while training",
            f"steps       {epochs * plan.n_steps:,}",
        )
    )


def summary_line(path: PathLike, encoder: Encoder) -> str:
    """One line about a trained encoder: where, how long, how good beside PCA, how alive."""
    found = encoder.summary
    return (
        f"{path}: {counted(found['epochs'], 'epoch')} (best {found['best_epoch']}), "
        f"{health(found)}, "
        f"{found['seconds']:.0f} s"
    )


def settled(matrix: Matrix, config: EncoderConfig) -> EncoderConfig:
    """Settings with what counts are normalised to, where that is the way of the file thinned to.

    Parameters
    ----------
    matrix : Matrix
        The training data.
    config : EncoderConfig
    """
    selection = config.selection
    if selection.thin_to is None or selection.normalize is not None:
        return config
    if config.model.likelihood in OF_COUNTS or not matrix.units.is_counts:
        return config
    with open_matrix(selection.thin_to) as other:
        units = other.units
    if not units.is_by_total or units.target_sum is None:
        return config
    log.info("counts are brought to %s, as %s is", units, selection.thin_to)
    chosen = replace(selection, normalize="total", target_sum=units.target_sum, log2p1=units.is_log)
    return replace(config, selection=chosen)


def training_counts(
    matrix: Matrix, config: EncoderConfig, rows: np.ndarray, *, seed: int
) -> tuple[Matrix, np.ndarray, Thinning | None]:
    """A file as training sees it.

    Parameters
    ----------
    matrix : Matrix
    config : EncoderConfig
        Settled.
    rows : ndarray of int, shape (n_rows,)
        Samples that are used.
    seed : int
        Of the thinning.

    Returns
    -------
    matrix : Matrix
        The file itself where nothing is to be done.
    rows : ndarray of int, shape (at most n_rows,)
        Without samples that have no count left.
    thinning : Thinning or None

    Raises
    ------
    InputError
        If the file is not of counts but has to be, or the depth to thin to is not known.
    """
    selection, thinning = config.selection, None
    if selection.thin_to is not None:
        with open_matrix(selection.thin_to, aliases=selection.aliases) as other:
            thinning = plan_thinning(matrix, other, rows, seed=seed)
        log.info("%s", thinning)
        matrix, rows = thinned(matrix, thinning.kept, seed, thinning.totals), thinning.rows
    if selection.normalize is None:
        return matrix, rows, thinning
    units = _normalized(matrix, selection)
    if thinning is not None:
        return in_units(matrix, units), rows, thinning
    totals = np.full(matrix.n_samples, np.nan)
    totals[rows] = depths(matrix, rows=rows)
    _refuse_empty(matrix, rows, totals)
    return in_units(matrix, units, totals), rows, None


def _normalized(matrix: Matrix, selection: SelectionConfig) -> Units:
    """Units that counts are brought to."""
    if not matrix.units.is_counts:
        raise InputError(
            f"{matrix.path or 'data'}: normalize: expected counts; found {matrix.units}: give raw "
            "counts, or leave --normalize out"
        )
    target, log2p1 = selection.target_sum or MILLION, selection.log2p1
    return Steps(matrix.units, normalize="total", target_sum=target, log=log2p1).result


def _refuse_empty(matrix: Matrix, rows: np.ndarray, totals: np.ndarray) -> None:
    empty = rows[~(totals[rows] > 0)]
    if empty.size:
        raise InputError(
            f"{matrix.path or 'data'}: expected counts to normalise; found none in sample "
            f"{matrix.samples[empty[0]]!r} ({empty.size} such samples): leave them out, --rows "
            f"{all_but(matrix.samples[empty[0]])}"
        )
