"""What training makes of counts before it sees them: thinned to a depth, normalised, logged."""

from dataclasses import replace

import numpy as np

from m1pipe.config import EncoderConfig, SelectionConfig
from m1pipe.console import log
from m1pipe.data.conversion.steps import Steps
from m1pipe.data.depth import depths
from m1pipe.data.matrix import Matrix, open_matrix
from m1pipe.data.thinning import Thinning, in_units, plan_thinning, thinned
from m1pipe.data.units import MILLION, Units
from m1pipe.encoder.plan import OF_COUNTS
from m1pipe.errors import InputError


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
            f"{matrix.path or 'data'}: normalize: expected counts; found {matrix.units}"
        )
    target, log2p1 = selection.target_sum or MILLION, selection.log2p1
    return Steps(matrix.units, normalize="total", target_sum=target, log=log2p1).result


def _refuse_empty(matrix: Matrix, rows: np.ndarray, totals: np.ndarray) -> None:
    empty = rows[~(totals[rows] > 0)]
    if empty.size:
        raise InputError(
            f"{matrix.path or 'data'}: expected counts to normalise; found none in sample "
            f"{matrix.samples[empty[0]]!r} ({empty.size} such samples): leave them out with --rows"
        )
