"""New samples on a map of old ones: where their nearest neighbours in latent space lie."""

from dataclasses import dataclass

import numpy as np
from sklearn.neighbors import NearestNeighbors

from m1pipe.clustering.config import NEIGHBORS
from m1pipe.errors import InputError

BEYOND = 99  # percentile of the old samples' own distances


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
