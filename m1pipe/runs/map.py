"""What `m1pipe map` does: latents in, the same with places on a map out."""

import os

import numpy as np

from m1pipe.atomic import refuse_existing
from m1pipe.clustering.config import MapConfig
from m1pipe.clustering.place import place
from m1pipe.data.matrix import open_matrix
from m1pipe.data.obsm import choose_obsm, read_obsm
from m1pipe.errors import InputError
from m1pipe.plots.embedding import METHODS, embed
from m1pipe.runs.latents import Latents, latents_of, read_latents, write_latents

PathLike = str | os.PathLike[str]
KEYS = {method: f"X_{method}" for method in METHODS} | {"diffusion": "X_diffmap"}  # as scanpy's


def run_map(
    source: PathLike,
    data: PathLike | None,
    out: PathLike,
    config: MapConfig,
    *,
    onto: PathLike | None = None,
    key: str | None = None,
    min_coverage: float,
    aliases: PathLike | None = None,
    force: bool = False,
) -> str:
    """Lay samples out in two dimensions by their latents, or place them on a map of old ones.

    Parameters
    ----------
    source : path
        A run, whose encoder is applied to `data`, or without `data` a file of latents.
    data : path or None
    out : path
        h5ad: X latents, `obsm` the places; of placed samples obs `map_distance`, `map_beyond`.
    config : MapConfig
    onto : path, optional
        h5ad of latents of old samples, with their places in `obsm`.
    key : str, optional
        Which of its arrays; needed where there are several.
    min_coverage, aliases
        As for `m1pipe encode`.
    force : bool

    Returns
    -------
    str
        One line about what was done.

    Raises
    ------
    InputError
        If the latents are of different encoders, or `onto` has no such map.
    """
    refuse_existing(out, force=force)
    new = read_latents(source, data, command="map", min_coverage=min_coverage, aliases=aliases)
    if onto is None:
        places = embed(new.Z, method=config.method, seed=config.seed).real
        key, obs = KEYS[config.method], new.obs
        said = f"{len(new.Z):,} samples, {METHODS[config.method]} of {new.Z.shape[1]} latents"
    else:
        with open_matrix(onto) as matrix:
            old = latents_of(matrix, command="map")
            _same_encoder(new, old)
            key = choose_obsm(matrix, key)
            known = read_obsm(matrix, key).to_numpy()
        found = place(new.Z, old.Z, known, n_neighbors=config.neighbors)
        places = found.places
        obs = new.obs.assign(map_distance=found.distance, map_beyond=found.beyond)
        said = (
            f"{len(new.Z):,} samples placed among {len(old.Z):,} of {onto}; "
            f"{found.beyond.mean():.1%} lie further from them than 99 % of theirs"
        )
    obsm = {key: places.astype(np.float32)}
    write_latents(out, new.Z, obs=obs, digest=new.digest, scale=new.scale, obsm=obsm, force=force)
    return f"{out}: {said}; obsm {key}"


def _same_encoder(new: Latents, old: Latents) -> None:
    if new.digest and old.digest and new.digest != old.digest:
        raise InputError(
            f"{new.source}: expected latents of the encoder that made those of {old.source}; found "
            "another's: encode both with the same run"
        )
    if new.scale is not None and old.scale is not None and not np.array_equal(new.scale, old.scale):
        raise InputError(
            f"{new.source}: expected latents on the scale of those of {old.source}; found another: "
            "encode both with the same run"
        )
