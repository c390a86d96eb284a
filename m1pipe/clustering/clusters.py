"""Clusters of samples in latent space: found, compared with labels and across encoders."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.metrics import (
    adjusted_rand_score,
    normalized_mutual_info_score,
    silhouette_score,
)
from sklearn.neighbors import kneighbors_graph

from m1pipe.atomic import PathLike, refuse_existing
from m1pipe.clustering.config import ClusterConfig
from m1pipe.console import log
from m1pipe.data.labels import listed_columns
from m1pipe.encoder.latent_files import Latents, read_latents, write_latents
from m1pipe.encoder.loadings import unit_weights
from m1pipe.errors import InputError, did_you_mean
from m1pipe.settings import in_words, optional_package, to_dict

MOST_SILHOUETTE = 3000
N_STARTS = 10
CLUSTER_COLUMN = "cluster"


@dataclass(frozen=True, eq=False, repr=False)
class Clusters:
    """A cluster for every sample.

    Attributes
    ----------
    labels : ndarray of int, shape (n_samples,)
        From 1, the largest cluster first.
    silhouette : float
        Mean silhouette width in [-1, 1] (Rousseeuw 1987), of at most `MOST_SILHOUETTE` samples;
        NaN where there is one cluster.
    by_k : dict of int to float
        Silhouette of every number of clusters that was tried; empty where it was given.
    """

    labels: np.ndarray
    silhouette: float
    by_k: dict[int, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"Clusters({self.labels.size:,} samples in {self.k}; silhouette {self.silhouette:.2f})"
        )

    @property
    def k(self) -> int:
        """Number of clusters."""
        return int(self.labels.max())

    def to_frame(self) -> pd.DataFrame:
        """Columns cluster and n_samples."""
        names, sizes = np.unique(self.labels, return_counts=True)
        return pd.DataFrame({"cluster": names, "n_samples": sizes})


def find_clusters(Z: np.ndarray, config: ClusterConfig) -> Clusters:
    """Cluster samples by k-means or on their graph of neighbours.

    Parameters
    ----------
    Z : ndarray, shape (n_samples, n_latent)
        Latent means, or what else Euclidean distances are to be taken of.
    config : ClusterConfig
        k-means without `k` takes the k of the widest silhouette.

    Returns
    -------
    Clusters

    Raises
    ------
    InputError
        If there are too few samples, or too few that differ, or Leiden's package is not installed.
    """
    wanted = config.k or (2 if config.method == "kmeans" else 1)
    if len(Z) <= wanted:
        raise InputError(f"cluster: expected more than {wanted} samples; found {len(Z)}")
    n_different = len(np.unique(Z, axis=0))
    if n_different < max(wanted, 2):
        raise InputError(
            f"cluster: expected at least {max(wanted, 2)} samples that differ; found {n_different} "
            f"among {len(Z)}"
        )
    if config.method == "leiden":
        labels = _by_size(_leiden(Z, config))
        return Clusters(labels, silhouette(Z, labels, config.seed))
    if config.k is not None:
        labels = _by_size(_kmeans(Z, config.k, config.seed))
        return Clusters(labels, silhouette(Z, labels, config.seed))
    tried = range(2, min(config.max_k, n_different, len(Z) - 1) + 1)
    found = {k: _by_size(_kmeans(Z, k, config.seed)) for k in tried}
    by_k = {k: silhouette(Z, labels, config.seed) for k, labels in found.items()}
    best = max(by_k, key=lambda k: by_k[k])
    return Clusters(found[best], by_k[best], by_k)


def silhouette(Z: np.ndarray, labels: np.ndarray, seed: int = 0) -> float:
    """Mean silhouette width, of a random `MOST_SILHOUETTE` samples where there are more.

    Parameters
    ----------
    Z : ndarray, shape (n_samples, n_latent)
    labels : ndarray, shape (n_samples,)
    seed : int

    Returns
    -------
    float
        NaN where there is one cluster, or as many as samples.
    """
    if len(Z) > MOST_SILHOUETTE:
        drawn = np.random.default_rng(seed).choice(len(Z), MOST_SILHOUETTE, replace=False)
        Z, labels = Z[drawn], labels[drawn]
    if not 1 < np.unique(labels).size < len(Z):
        return float("nan")
    return float(silhouette_score(Z, labels))


def agreement(clusters: np.ndarray, labels: pd.Series) -> tuple[float, float, int]:
    """Adjusted Rand index and normalised mutual information of clusters and known labels.

    Parameters
    ----------
    clusters : ndarray, shape (n_samples,)
    labels : Series, length n_samples
        Samples without a label are left out.

    Returns
    -------
    ari : float
        1 where they are the same partition, 0 expected by chance (Hubert & Arabie 1985).
    nmi : float
        In [0, 1]; normalised by the arithmetic mean of the entropies.
    n_labelled : int

    Raises
    ------
    InputError
        If no sample has a label.
    """
    known = labels.notna().to_numpy()
    if not known.any():
        raise InputError(f"label: expected a value of {labels.name!r} for some samples; found none")
    truth, found = labels[known].astype(str).to_numpy(), clusters[known]
    ari = float(adjusted_rand_score(truth, found))
    return ari, float(normalized_mutual_info_score(truth, found)), int(known.sum())


def stability(partitions: Sequence[np.ndarray]) -> np.ndarray:
    """Adjusted Rand index of every two partitions of the same samples.

    Parameters
    ----------
    partitions : sequence of ndarray, each of shape (n_samples,)

    Returns
    -------
    ndarray, shape (n_partitions, n_partitions)
        Symmetric, 1 on the diagonal.
    """
    n = len(partitions)
    out = np.ones((n, n))
    for i in range(n):
        for j in range(i):
            out[i, j] = out[j, i] = adjusted_rand_score(partitions[i], partitions[j])
    return out


def _kmeans(Z: np.ndarray, k: int, seed: int) -> np.ndarray:
    model = KMeans(k, n_init=N_STARTS, random_state=seed % 2**32)
    return np.asarray(model.fit_predict(Z.astype(np.float64)))


def _leiden(Z: np.ndarray, config: ClusterConfig) -> np.ndarray:
    """Communities of the symmetric graph of nearest neighbours (Traag et al. 2019)."""
    package, way = "scikit-network", " for --method leiden"
    found = optional_package("sknetwork.clustering", "cluster", "leiden", package=package, way=way)
    graph = kneighbors_graph(Z, min(config.neighbors, len(Z) - 1))
    graph = ((graph + graph.T) > 0).astype(np.float64)
    model = found.Leiden(resolution=config.resolution, random_state=config.seed % 2**32)
    return np.asarray(model.fit_predict(graph))


def _by_size(labels: np.ndarray) -> np.ndarray:
    """The same partition, numbered from 1 by falling size."""
    _, places, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    rank = np.empty(sizes.size, dtype=np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(1, sizes.size + 1)
    return rank[places]


def run_cluster(
    sources: Sequence[PathLike],
    data: PathLike | None,
    out: PathLike,
    config: ClusterConfig,
    *,
    label: str | None = None,
    min_coverage: float,
    aliases: PathLike | None = None,
    force: bool = False,
) -> str:
    """Cluster samples by the first source; the others say how stable that is.

    Parameters
    ----------
    sources : sequence of path
        Runs, whose encoders are applied to `data`, or without `data` files of latents.
    data : path or None
    out : path
        h5ad: X latents of the first source, obs with the column `cluster`; scores in
        `uns["m1pipe"]`.
    config : ClusterConfig
        Where k is open it is chosen for the first source and then holds for all.
    label : str, optional
        Column of obs that the clusters are compared with.
    min_coverage, aliases
        As for `m1pipe encode`.
    force : bool

    Returns
    -------
    str
        One line about what was found.

    Raises
    ------
    InputError
        If sources do not suit the data or each other, or there is no such column.
    """
    refuse_existing(out, force=force)
    parts = [
        read_latents(source, data, command="cluster", min_coverage=min_coverage, aliases=aliases)
        for source in sources
    ]
    first = parts[0]
    _check(parts, label)
    found = find_clusters(_weighed(first, config), config)
    for k, width in found.by_k.items():
        log.info("k %d: silhouette %.3f", k, width)
    again = to_dict(config) | ({"k": found.k} if config.method == "kmeans" else {})
    others = [find_clusters(_weighed(part, config), ClusterConfig(**again)) for part in parts[1:]]
    record, said = _scores(found, others, first.obs, label)
    if data is None:
        config = replace(config, distance="latent")
    record |= {
        "command": "cluster",
        "settings": np.array(in_words(config), dtype=object),
        "sources": np.array([part.source for part in parts], dtype=object),
    }
    obs = first.obs.assign(**{CLUSTER_COLUMN: found.labels.astype(str)})
    digest, scale = first.digest, first.scale
    write_latents(out, first.Z, obs=obs, digest=digest, scale=scale, record=record, force=force)
    how = "k-means" if config.method == "kmeans" else "Leiden"
    chosen = ", k by silhouette" if found.by_k else ""
    if found.by_k and found.k == max(found.by_k):
        chosen += ", the most tried: raise --max-k"
    line = f"{out}: {len(obs):,} samples in {found.k} clusters ({how}{chosen})"
    return f"{line}\n  " + "; ".join([f"silhouette {found.silhouette:.2f}", *said])


def _weighed(part: Latents, config: ClusterConfig) -> np.ndarray:
    """Latents as distances are taken of them."""
    if part.encoder is None or config.distance == "latent":
        return part.Z
    return np.asarray(part.Z * unit_weights(part.encoder))


def _check(parts: Sequence[Latents], label: str | None) -> None:
    """Refuse sources of other samples, and columns that are not there or in the way."""
    first = parts[0]
    for part in parts[1:]:
        if not part.obs.index.equals(first.obs.index):
            raise InputError(
                f"{part.source}: expected the samples of {first.source} in their order; found "
                "others: encode the same file with every run"
            )
    columns = listed_columns(first.obs)
    if label is not None and label not in first.obs.columns:
        near = did_you_mean(label, first.obs)
        raise InputError(f"label: expected a column of obs ({columns}); found {label!r}{near}")
    if CLUSTER_COLUMN in first.obs.columns:
        raise InputError(
            f"{first.source}: expected no column {CLUSTER_COLUMN!r} in obs, which is written; "
            "found one: rename it, or cluster the file that encode wrote"
        )


def _scores(
    found: Clusters, others: Sequence[Clusters], obs: pd.DataFrame, label: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Scores for `uns`, and in words."""
    record: dict[str, Any] = {"silhouette": found.silhouette}
    said = []
    if found.by_k:
        record["tried_k"] = np.array(list(found.by_k))
        record["silhouette_by_k"] = np.array(list(found.by_k.values()))
    if label is not None:
        ari, nmi, n = agreement(found.labels, obs[label])
        record |= {"label": label, "ari": ari, "nmi": nmi, "n_labelled": n}
        share = "" if n == len(obs) else f" of {n:,} labelled"
        said.append(f"ARI {ari:.2f}, NMI {nmi:.2f} with {label}{share}")
    if others:
        pairs = stability([found.labels, *(other.labels for other in others)])
        apart = pairs[np.tril_indices(len(pairs), -1)]
        record["stability"] = pairs
        said.append(f"over {len(pairs)} encoders ARI {apart.mean():.2f} (lowest {apart.min():.2f})")
        if label is not None:
            aris = [record["ari"], *(agreement(o.labels, obs[label])[0] for o in others)]
            record["ari_by_source"] = np.array(aris)
    return record, said
