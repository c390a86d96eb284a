"""Latent means that commands start from, of a run's encoder or of a file, and that they write."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata.io import read_elem

from m1pipe.data.hdf5 import open_hdf5, reading
from m1pipe.data.matrix import Matrix, check_finite, open_matrix
from m1pipe.data.units import Units
from m1pipe.data.writer import write_matrix
from m1pipe.encoder import Encoder, load_encoder
from m1pipe.errors import InputError
from m1pipe.recipe import MIN_COVERAGE

PathLike = str | os.PathLike[str]
DIGEST = "encoder"


@dataclass(frozen=True, eq=False)
class Latents:
    """Latent means of samples.

    Attributes
    ----------
    Z : ndarray of float32, shape (n_samples, n_latent)
    obs : DataFrame, shape (n_samples, n_columns)
    source : str
        The run or file.
    digest : str
        Of the encoder's weights; "" where a file does not say.
    encoder : Encoder or None
        None for a file.
    """

    Z: np.ndarray
    obs: pd.DataFrame
    source: str
    digest: str
    encoder: Encoder | None = None


def read_latents(
    source: PathLike,
    data: PathLike | None = None,
    *,
    min_coverage: float = MIN_COVERAGE,
    aliases: PathLike | None = None,
    command: str,
) -> Latents:
    """Latents of a run's encoder over `data`, or without it those of a file.

    Parameters
    ----------
    source : path
        Run, or h5ad as `m1pipe encode` writes it.
    data : path, optional
    min_coverage, aliases
        As for `m1pipe encode`.
    command : str
        Who asks, for what is said of a wrong source.

    Raises
    ------
    InputError
        If the source does not suit, or a latent is not finite.
    """
    if data is not None:
        encoder = load_encoder(source)
        with open_matrix(data, aliases=aliases) as matrix:
            Z, obs = encoder.transform(matrix, min_coverage=min_coverage), matrix.obs
        return Latents(Z, obs, str(source), encoder.digest(), encoder)
    if Path(source).is_dir():
        raise InputError(
            f"{source}: a run needs the samples to {command}: m1pipe {command} RUN DATA"
        )
    with open_matrix(source) as matrix:
        return latents_of(matrix, command=command)


def latents_of(matrix: Matrix, *, command: str) -> Latents:
    """Latents of an open file.

    Parameters
    ----------
    matrix : Matrix
        Of h5ad as `m1pipe encode` writes it.
    command : str
        Who asks, for what is said of a wrong file.

    Raises
    ------
    InputError
        If it holds none, or a latent is not finite.
    """
    if matrix.units.name != "latent":
        raise InputError(
            f"{matrix.path}: expected latents, as m1pipe encode writes them; found {matrix.units}: "
            f"encode it first, or give m1pipe {command} RUN DATA"
        )
    rows = np.arange(matrix.n_samples)
    Z = matrix.take(rows)
    check_finite(Z, matrix, rows)
    digest = "" if matrix.path is None else digest_in(matrix.path)
    return Latents(Z, matrix.obs, str(matrix.path), digest)


def write_latents(
    out: PathLike,
    Z: np.ndarray,
    *,
    obs: pd.DataFrame,
    digest: str,
    record: Mapping[str, Any] | None = None,
    obsm: Mapping[str, np.ndarray] | None = None,
    force: bool = False,
) -> None:
    """Write latents as h5ad, as `m1pipe encode` does: units z1, z2, ..., and who made them.

    Parameters
    ----------
    out : path
    Z : ndarray, shape (n_samples, n_latent)
    obs : DataFrame, shape (n_samples, n_columns)
    digest : str
        Of the encoder's weights; "" where it is not known.
    record : mapping, optional
        More entries of `uns["m1pipe"]`.
    obsm : dict of str to ndarray of shape (n_samples, n_columns), optional
    force : bool
        Replace a file of that name.
    """
    var = pd.DataFrame(index=[f"z{j + 1}" for j in range(Z.shape[1])])
    made = ({DIGEST: digest} if digest else {}) | dict(record or {})
    uns = {"m1pipe": made} if made else None
    write_matrix(out, Z, obs=obs, var=var, units=Units("latent"), uns=uns, obsm=obsm, force=force)


def digest_in(path: PathLike) -> str:
    """Digest of the encoder that a file of latents names; "" where it names none."""
    with open_hdf5(Path(path)) as handle, reading(Path(path), "uns"):
        key = f"uns/m1pipe/{DIGEST}"
        return str(read_elem(handle[key])) if key in handle else ""
