"""New samples land among their neighbours; what lies far from all old samples is said to."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from m1pipe.clustering.map import place
from m1pipe.errors import InputError


def _groups(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Latents in three groups far apart, and the groups."""
    rng = np.random.default_rng(seed)
    group = rng.integers(3, size=n)
    return 10 * np.eye(3, 5)[group] + rng.normal(size=(n, 5)), group


def test_places_are_medians_of_the_nearest() -> None:
    old, _ = _groups(60, 0)
    new, _ = _groups(9, 1)
    places = np.random.default_rng(2).normal(size=(60, 2))
    found = place(new, old, places, n_neighbors=4)
    nearest = np.argsort(cdist(new, old), axis=1)[:, :4]
    np.testing.assert_allclose(found.places, np.median(places[nearest], axis=1), rtol=1e-5)
    distances = np.sort(cdist(new, old), axis=1)[:, :4].mean(axis=1)
    np.testing.assert_allclose(found.distance, distances, rtol=1e-5)
    own = np.sort(cdist(old, old), axis=1)[:, 1:5].mean(axis=1)  # without the sample itself
    assert found.limit == pytest.approx(np.percentile(own, 99))


def test_groups_stay_together_on_any_map() -> None:
    old, group = _groups(300, 3)
    new, truth = _groups(60, 4)
    corners = np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    places = corners[group] + np.random.default_rng(5).normal(size=(300, 2))
    found = place(new, old, places)
    assert (cdist(found.places, corners).argmin(axis=1) == truth).all()
    assert np.linalg.norm(found.places - corners[truth], axis=1).max() < 3


def test_what_is_far_from_all_old_samples_is_beyond() -> None:
    old, _ = _groups(300, 6)
    new, _ = _groups(40, 7)
    new[:5] += 30
    found = place(new, old, old[:, :2])
    assert found.beyond[:5].all() and found.beyond[5:].mean() < 0.15
    assert repr(found) == f"Placed(40 samples; {found.beyond.mean():.1%} beyond the map)"


def test_latents_of_other_models_and_too_few_samples_are_refused() -> None:
    old, _ = _groups(20, 8)
    with pytest.raises(InputError, match=r"expected 5 latents.*found 4"):
        place(old[:, :4], old, old[:, :2])
    with pytest.raises(InputError, match="more than 20 old samples; found 20"):
        place(old, old, old[:, :2], n_neighbors=20)
