"""Interpolation in latent space: the latents of a sample or a group, and the line between two."""

import numpy as np

from m1pipe.data.matrix import Matrix
from m1pipe.encoder.trained import Encoder
from m1pipe.errors import InputError


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
    return mean, None if codes is None else int(np.bincount(codes).argmax())


def interpolate(start: np.ndarray, stop: np.ndarray, n_steps: int) -> np.ndarray:
    """Latents on the line between two, ends included, shape (n_steps, n_latent)."""
    share = np.linspace(0, 1, n_steps, dtype=np.float32)[:, None]
    line: np.ndarray = (1 - share) * start + share * stop
    return line


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
