"""Settings of `m1pipe cluster` and `m1pipe map`."""

from dataclasses import dataclass
from typing import Literal

from m1pipe.errors import InputError
from m1pipe.settings import check_at_least, check_choice, setting

ClusterMethod = Literal["kmeans", "leiden"]
Distance = Literal["levels", "latent"]
NEIGHBORS = 15


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """How samples are clustered.

    Attributes
    ----------
    method : str
        "kmeans", or "leiden" on the graph of nearest neighbours.
    distance : str
        "levels": latent units weighed by what the decoder makes of them; "latent": as they are,
        the only way where a file of latents is given without its encoder.
    k : int or None
        Clusters of k-means. None: those of 2 to `max_k` with the widest silhouette.
    max_k : int
        Most clusters that are tried.
    resolution : float
        Of Leiden's modularity: higher makes more clusters.
    neighbors : int
        Of a sample in the graph.
    seed : int
    """

    method: ClusterMethod = setting("kmeans", "leiden needs the extra `leiden`.")
    distance: Distance = setting(
        "levels",
        "Latent units weighed by what the decoder makes of them, or as they are.",
        shown="levels; of Z.h5ad latent",
    )
    k: int | None = setting(None, "Clusters of k-means.", shown="the widest silhouette")
    max_k: int = setting(12, "Most clusters tried without --k.")
    resolution: float = setting(1.0, "Of leiden: higher makes more clusters.")
    neighbors: int = setting(NEIGHBORS, "Of a sample, for leiden.")
    seed: int = setting(0, "")

    def __post_init__(self) -> None:
        check_choice("--method", self.method, ClusterMethod)
        check_choice("--distance", self.distance, Distance)
        for name, least in (("k", 2), ("max_k", 2), ("neighbors", 1), ("seed", 0)):
            check_at_least(name, getattr(self, name), least)
        if not self.resolution > 0:
            raise InputError(f"resolution: expected above 0; found {self.resolution}")
        if self.k is not None and self.method != "kmeans":
            raise InputError("k: expected with kmeans; found with leiden, which has --resolution")


@dataclass(frozen=True, kw_only=True)
class MapConfig:
    """How samples are laid out, or placed.

    Attributes
    ----------
    method : str
        Key of `m1pipe.plots.embedding.METHODS`; of a new map.
    neighbors : int
        Old samples that a new one is placed by.
    seed : int
    """

    method: str = "tsne"
    neighbors: int = NEIGHBORS
    seed: int = 0
