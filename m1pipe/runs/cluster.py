"""What `m1pipe cluster` does: latents of one or several encoders in, one h5ad with clusters out."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from m1pipe.atomic import refuse_existing
from m1pipe.clustering.config import ClusterConfig
from m1pipe.clustering.find import Clusters, agreement, find_clusters, stability
from m1pipe.console import log
from m1pipe.encoder.loadings import unit_weights
from m1pipe.errors import InputError
from m1pipe.runs.latents import Latents, read_latents, write_latents
from m1pipe.settings import to_dict

PathLike = str | os.PathLike[str]
COLUMN = "cluster"


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
    record |= _settings(config, parts)
    obs = first.obs.assign(**{COLUMN: found.labels.astype(str)})
    write_latents(
        out,
        first.Z,
        obs=obs,
        digest=first.digest,
        scale=first.scale,
        record=record,
        force=force,
    )
    how = "k-means" if config.method == "kmeans" else "Leiden"
    chosen = ", k by silhouette" if found.by_k else ""
    if found.by_k and found.k == max(found.by_k):
        chosen += ", the most tried: raise --max-k"
    line = f"{out}: {len(obs):,} samples in {found.k} clusters ({how}{chosen})"
    return "; ".join([line, f"silhouette {found.silhouette:.2f}", *said])


def _weighed(part: Latents, config: ClusterConfig) -> np.ndarray:
    """Latents as distances are taken of them."""
    if part.encoder is None or config.distance == "latent":
        return part.Z
    found: np.ndarray = part.Z * unit_weights(part.encoder)
    return found


def _check(parts: Sequence[Latents], label: str | None) -> None:
    """Refuse sources of other samples, and columns that are not there or in the way."""
    first = parts[0]
    for part in parts[1:]:
        if not part.obs.index.equals(first.obs.index):
            raise InputError(
                f"{part.source}: expected the samples of {first.source} in their order; found "
                "others: encode the same file with every run"
            )
    columns = ", ".join(map(str, first.obs.columns)) or "none"
    if label is not None and label not in first.obs.columns:
        raise InputError(f"label: expected a column of obs ({columns}); found {label!r}")
    if COLUMN in first.obs.columns:
        raise InputError(
            f"{first.source}: expected no column {COLUMN!r} in obs, which is written; found one: "
            "rename it, or cluster the file that encode wrote"
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


def _settings(config: ClusterConfig, parts: Sequence[Latents]) -> dict[str, Any]:
    known = [f"{name} {value}" for name, value in to_dict(config).items() if value is not None]
    return {
        "command": "cluster",
        "settings": np.array(known, dtype=object),
        "sources": np.array([part.source for part in parts], dtype=object),
    }
