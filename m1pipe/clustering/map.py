"""Maps of samples in two dimensions, and new samples placed on a map of old ones."""

from dataclasses import dataclass

import numpy as np
from sklearn.neighbors import NearestNeighbors

from m1pipe.atomic import PathLike, refuse_existing
from m1pipe.clustering.config import NEIGHBORS, MapConfig
from m1pipe.encoder.latent_files import Latents, latents_of, read_latents, write_latents
from m1pipe.errors import InputError
from m1pipe.io.reader import choose_obsm, open_matrix, read_obsm
from m1pipe.plots.embedding import METHODS, embed

BEYOND = 99  # percentile of the old samples' own distances
KEYS = {method: f"X_{method}" for method in METHODS} | {"diffusion": "X_diffmap"}  # as scanpy's


@dataclass(frozen=True, eq=False, repr=False)
class Placed:
    """Where new samples lie among old ones.

    Attributes
    ----------
    places : ndarray of float32, shape (n_new, n_dimensions)
        On the map.
    distance : ndarray of float32, shape (n_new,)
        Mean Euclidean distance to the nearest old samples in latent space.
    limit : float
        What 99 % of the old samples keep to among themselves.
    """

    places: np.ndarray
    distance: np.ndarray
    limit: float

    @property
    def beyond(self) -> np.ndarray:
        """New samples that lie further from the old ones than these do, bool, shape (n_new,)."""
        return self.distance > self.limit

    def __repr__(self) -> str:
        return f"Placed({len(self.places)} samples; {self.beyond.mean():.1%} beyond the map)"


def place(
    new: np.ndarray, old: np.ndarray, places: np.ndarray, *, n_neighbors: int = NEIGHBORS
) -> Placed:
    """Put new samples on a map of old ones, at the median of their nearest neighbours' places.

    Any map will do, also one whose method can place no new sample, such as t-SNE. The median
    rather than the mean: between two groups of neighbours lies nothing.

    Parameters
    ----------
    new : ndarray, shape (n_new, n_latent)
        Latent means.
    old : ndarray, shape (n_old, n_latent)
        By the same encoder.
    places : ndarray, shape (n_old, n_dimensions)
        Of the old samples on the map.
    n_neighbors : int

    Returns
    -------
    Placed

    Raises
    ------
    InputError
        If latents differ in number, or there are no more old samples than neighbours.
    """
    if new.shape[1] != old.shape[1]:
        raise InputError(
            f"map: expected {old.shape[1]} latents, as the old samples have; found {new.shape[1]}: "
            "encode both with the same run"
        )
    if len(old) <= n_neighbors:
        raise InputError(f"map: expected more than {n_neighbors} old samples; found {len(old)}")
    near = NearestNeighbors(n_neighbors=n_neighbors).fit(old)
    distances, which = near.kneighbors(new)
    own, _ = near.kneighbors()
    return Placed(
        places=np.median(places[which], axis=1).astype(np.float32),
        distance=distances.mean(axis=1).astype(np.float32),
        limit=float(np.percentile(own.mean(axis=1), BEYOND)),
    )


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
