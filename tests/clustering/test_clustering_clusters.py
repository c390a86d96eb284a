"""Planted clusters are found; indices follow their definitions; order and names do not matter."""

import sys
from math import comb

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import silhouette_samples

from m1pipe.clustering.clusters import Clusters, agreement, find_clusters, silhouette, stability
from m1pipe.clustering.config import ClusterConfig
from m1pipe.errors import InputError


def _planted(n: int = 400, k: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Latents in k clusters of unequal sizes, the centres far apart, and the clusters."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(k, n, p=np.arange(1, k + 1) / np.arange(1, k + 1).sum())
    Z = 12 * np.eye(k, 6)[truth] + rng.normal(size=(n, 6))
    return Z.astype(np.float32), truth


def _best_match(a: np.ndarray, b: np.ndarray) -> float:
    """Share of samples on which two partitions agree under the best naming."""
    table = pd.crosstab(a, b).to_numpy()
    return float(table[linear_sum_assignment(-table)].sum() / a.size)


def _ari_by_pairs(a: np.ndarray, b: np.ndarray) -> float:
    """Hubert & Arabie 1985 by counting pairs."""
    table = pd.crosstab(a, b).to_numpy()
    both = sum(comb(int(n), 2) for n in table.ravel())
    rows, columns = (sum(comb(int(n), 2) for n in table.sum(axis=i)) for i in (0, 1))
    chance = rows * columns / comb(a.size, 2)
    return (both - chance) / ((rows + columns) / 2 - chance)


@pytest.mark.parametrize("config", [{}, {"k": 4}, {"method": "leiden", "resolution": 0.3}])
def test_planted_clusters_are_found(config: dict[str, object]) -> None:
    if config.get("method") == "leiden":
        pytest.importorskip("sknetwork", reason="the extra `leiden` is not installed")
    Z, truth = _planted()
    found = find_clusters(Z, ClusterConfig(**config))
    assert found.k == 4
    assert _best_match(found.labels, truth) > 0.99
    sizes = found.to_frame()["n_samples"].tolist()
    assert sizes == sorted(sizes, reverse=True) and sum(sizes) == 400
    assert found.silhouette == pytest.approx(silhouette_samples(Z, found.labels).mean(), abs=1e-6)


def test_k_is_that_of_the_widest_silhouette() -> None:
    found = find_clusters(_planted()[0], ClusterConfig(max_k=7))
    assert list(found.by_k) == [2, 3, 4, 5, 6, 7]
    assert max(found.by_k.values()) == found.by_k[found.k] == found.silhouette


def test_the_same_seed_gives_the_same_clusters() -> None:
    Z = np.random.default_rng(1).normal(size=(200, 5))
    for config in (ClusterConfig(k=5, seed=3), ClusterConfig(seed=3)):
        one, two = (find_clusters(Z, config).labels for _ in range(2))
        np.testing.assert_array_equal(one, two)


def test_agreement_is_by_pairs_and_over_labelled_samples_only() -> None:
    rng = np.random.default_rng(2)
    clusters = rng.integers(1, 4, 120)
    labels = pd.Series(np.where(rng.random(120) < 0.6, clusters, rng.integers(1, 6, 120)))
    labels = labels.map(lambda value: f"tissue {value}").astype(object)
    labels[rng.random(120) < 0.3] = None
    known = labels.notna().to_numpy()
    ari, nmi, n = agreement(clusters, labels)
    assert n == known.sum() < 120
    assert ari == pytest.approx(_ari_by_pairs(clusters[known], labels[known].to_numpy()))
    joint = pd.crosstab(clusters[known], labels[known]).to_numpy() / n
    p, q = joint.sum(axis=1), joint.sum(axis=0)
    inside = joint > 0
    information = (joint[inside] * np.log(joint[inside] / np.outer(p, q)[inside])).sum()
    entropies = [-(part * np.log(part)).sum() for part in (p, q)]
    assert nmi == pytest.approx(information / np.mean(entropies))
    with pytest.raises(InputError, match="found none"):
        agreement(clusters, pd.Series([None] * 120, name="tissue"))


def test_stability_is_one_for_renamed_clusters_and_about_zero_by_chance() -> None:
    rng = np.random.default_rng(3)
    a = rng.integers(0, 5, 2000)
    pairs = stability([a, (a + 2) % 5, rng.integers(0, 5, 2000)])
    np.testing.assert_array_equal(pairs, pairs.T)
    assert pairs[0, 1] == 1.0
    assert abs(pairs[0, 2]) < 0.01


def test_silhouette_of_many_samples_is_estimated_on_some() -> None:
    Z, truth = _planted(3600)
    whole = float(silhouette_samples(Z, truth).mean())
    assert silhouette(Z, truth) == pytest.approx(whole, abs=0.01)
    assert np.isnan(silhouette(Z, np.zeros(3600)))


def test_too_few_samples_and_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="more than 5 samples; found 5"):
        find_clusters(np.zeros((5, 2)), ClusterConfig(k=5))
    with pytest.raises(InputError, match="k: expected at least 2"):
        ClusterConfig(k=1)
    with pytest.raises(InputError, match="found with leiden"):
        ClusterConfig(k=3, method="leiden")
    with pytest.raises(InputError, match="resolution"):
        ClusterConfig(resolution=0)


def test_leiden_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sknetwork.clustering", None)
    with pytest.raises(InputError, match=r"pip install 'm1pipe\[leiden\]'"):
        find_clusters(_planted()[0], ClusterConfig(method="leiden"))


def test_a_partition_knows_its_size() -> None:
    assert Clusters(np.array([1, 1, 2]), 0.5).k == 2
