"""Interpolation in latent space, between two samples or groups: `m1pipe interpolate`."""

import numpy as np
import pandas as pd

from m1pipe.atomic import PathLike, refuse_existing
from m1pipe.data.matrix import Matrix
from m1pipe.data.recipe import match_recipe, missing_uns
from m1pipe.encoder.load import load_encoder
from m1pipe.encoder.trained import Encoder
from m1pipe.errors import InputError
from m1pipe.io.reader import open_matrix
from m1pipe.io.writer import write_matrix


def run_interpolate(
    run: PathLike,
    data: PathLike,
    out: PathLike,
    *,
    ends: tuple[str, str],
    n_steps: int,
    difference: tuple[str, str] | None = None,
    aliases: PathLike | None = None,
    force: bool = False,
) -> str:
    """Write the levels along the line between two samples or groups in latent space.

    Parameters
    ----------
    run, data, out : path
    ends : (str, str)
        Each a sample's id, or COL=VALUE for the mean of a group.
    n_steps : int
        Ends included.
    difference : (str, str), optional
        Two more of them, whose latents' difference (first less second) is added to the whole line.
    aliases : path, optional
        Table of other names of genes, by which those of `data` are matched as well.
    force : bool

    Returns
    -------
    str
        One line about what was written.
    """
    refuse_existing(out, force=force)
    encoder = load_encoder(run)
    with open_matrix(data, aliases=aliases) as matrix:
        (start, code), (stop, last) = (latent_mean_of(encoder, matrix, end) for end in ends)
        Z = interpolate(start, stop, n_steps)
        if difference is not None:
            more, less = (latent_mean_of(encoder, matrix, end)[0] for end in difference)
            Z = Z + (more - less)
        uns = missing_uns(match_recipe(matrix, encoder.recipe).missing)
    codes = None
    if code is not None and last is not None:
        codes = np.where(np.linspace(0, 1, n_steps) < 0.5, code, last).astype(np.int64)
    share = np.linspace(0, 1, n_steps)
    known = {"share": share, "from": ends[0], "to": ends[1]}
    obs = pd.DataFrame(known, index=[f"step_{i + 1}" for i in range(n_steps)])
    if codes is not None and encoder.condition is not None:
        obs[encoder.condition.column] = np.asarray(encoder.condition.classes, dtype=object)[codes]
    X = encoder.decode(Z, codes)
    var, units = encoder.recipe.gene_names, encoder.units
    write_matrix(out, X, obs=obs, var=var, units=units, uns=uns, force=force)
    return f"{out}: {n_steps} steps from {ends[0]} to {ends[1]}, {len(encoder.genes):,} genes"


def latent_mean_of(encoder: Encoder, matrix: Matrix, text: str) -> tuple[np.ndarray, int | None]:
    """Latent mean of a sample, or the mean over a group's samples.

    Parameters
    ----------
    encoder : Encoder
    matrix : Matrix
    text : str
        A sample's id, or COL=VALUE for the samples of that value.

    Returns
    -------
    z : ndarray of float32, shape (n_latent,)
    code : int or None
        Class of a conditional model: the sample's, or that of most of the group.

    Raises
    ------
    InputError
        If there is no such sample or group.
    """
    rows = _rows(matrix, text)
    codes = encoder.codes(matrix, rows)
    Z = encoder.encode_array(encoder.align(matrix, keep_missing=True).take(rows), codes)
    mean: np.ndarray = Z.mean(axis=0)
    known = None if codes is None else codes[codes >= 0]
    return mean, None if known is None or not known.size else int(np.bincount(known).argmax())


def interpolate(start: np.ndarray, stop: np.ndarray, n_steps: int) -> np.ndarray:
    """Latents on the line between two, ends included, shape (n_steps, n_latent)."""
    share = np.linspace(0, 1, n_steps, dtype=np.float32)[:, None]
    return (1 - share) * start + share * stop


def _rows(matrix: Matrix, text: str) -> np.ndarray:
    """Rows of a sample or a group."""
    rows = np.flatnonzero(matrix.samples == text)
    column, equals, value = text.partition("=")
    if not rows.size and equals and column in matrix.obs.columns:
        rows = np.flatnonzero((matrix.obs[column].astype(str) == value).to_numpy())
    if not rows.size:
        raise InputError(
            f"{matrix.path or 'data'}: expected a sample's id, or COL=VALUE of its annotations; "
            f"found {text!r}, which none has"
        )
    return rows
