"""Latent means that commands start from, of a run's encoder or of a file, and that they write."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata.io import read_elem

from m1pipe.atomic import PathLike
from m1pipe.data.matrix import Matrix, check_finite
from m1pipe.data.recipe import MIN_COVERAGE
from m1pipe.data.units import Units
from m1pipe.encoder import Encoder, load_encoder
from m1pipe.encoder.bundle import is_bundle
from m1pipe.errors import InputError
from m1pipe.io.hdf5 import open_hdf5, reading
from m1pipe.io.reader import open_matrix
from m1pipe.io.writer import write_matrix

DIGEST = "encoder"
SCALE = "latent_scale"


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
    scale : ndarray of float32, shape (n_latent,), or None
        What the network's own latents are multiplied by; None where a file does not say.
    """

    Z: np.ndarray
    obs: pd.DataFrame
    source: str
    digest: str
    encoder: Encoder | None = None
    scale: np.ndarray | None = None


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
        return Latents(Z, obs, str(source), encoder.digest(), encoder, encoder.latent_scale)
    if Path(source).is_dir() or is_bundle(source):
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
    digest, scale = ("", None) if matrix.path is None else _recorded(matrix.path)
    return Latents(Z, matrix.obs, str(matrix.path), digest, scale=scale)


def write_latents(
    out: PathLike,
    Z: np.ndarray,
    *,
    obs: pd.DataFrame,
    digest: str,
    scale: np.ndarray | None,
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
    scale : ndarray of float32, shape (n_latent,), or None
        What the network's own latents were multiplied by; None where it is not known.
    record : mapping, optional
        More entries of `uns["m1pipe"]`.
    obsm : dict of str to ndarray of shape (n_samples, n_columns), optional
    force : bool
        Replace a file of that name.
    """
    var = pd.DataFrame(index=[f"z{j + 1}" for j in range(Z.shape[1])])
    made = ({DIGEST: digest} if digest else {}) | dict(record or {})
    uns: dict[str, Any] = {"m1pipe": made} if made else {}
    if scale is not None:
        uns[SCALE] = scale
    write_matrix(out, Z, obs=obs, var=var, units=Units("latent"), uns=uns, obsm=obsm, force=force)


def _recorded(path: PathLike) -> tuple[str, np.ndarray | None]:
    """Digest of the encoder that a file of latents names, and their scale; "" and None if none."""
    with open_hdf5(Path(path)) as handle, reading(Path(path), "uns"):
        key = f"uns/m1pipe/{DIGEST}"
        digest = str(read_elem(handle[key])) if key in handle else ""
        key = f"uns/{SCALE}"
        return digest, np.asarray(read_elem(handle[key])) if key in handle else None
