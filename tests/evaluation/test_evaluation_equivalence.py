"""The Bayesian correlated t-test against baycomp, against integration, and at its limits."""

import numpy as np
import pytest
from scipy import integrate, special

from m1pipe.evaluation.equivalence import ROPE, correlated_t, equivalence
from m1pipe.evaluation.significance import nadeau_bengio

FOLDS, REPEATS = 5, 4


@pytest.fixture
def differences() -> np.ndarray:
    return np.random.default_rng(0).normal(-0.02, 0.05, size=FOLDS * REPEATS)


@pytest.mark.parametrize("rope", [0.0, 0.01, 0.05])
def test_probabilities_are_those_of_baycomp(differences: np.ndarray, rope: float) -> None:
    baycomp = pytest.importorskip("baycomp")
    second = np.full(differences.size, 0.3)
    found = correlated_t(differences, FOLDS, rope=rope)
    expected = baycomp.CorrelatedTTest.probs(second + differences, second, rope, runs=REPEATS)
    mine = (
        found["p_higher"],
        found["p_same"],
        found["p_lower"],
    )  # there the second comes off better last
    assert expected == pytest.approx(mine if rope else (mine[0], mine[2]), abs=1e-9)
    assert found["p_lower"] > found["p_higher"]


def test_probabilities_are_the_integral_of_the_published_density(differences: np.ndarray) -> None:
    """Corani & Benavoli's density of the mean, written out, integrated over the region."""
    n, rho = differences.size, 1 / FOLDS
    scale = np.sqrt((1 / n + rho / (1 - rho)) * differences.var(ddof=1))
    df = n - 1

    def density(mu: float) -> float:
        t = (mu - differences.mean()) / scale
        top = special.gamma((df + 1) / 2) / special.gamma(df / 2)
        return float(top / np.sqrt(df * np.pi) / scale * (1 + t**2 / df) ** (-(df + 1) / 2))

    same, _ = integrate.quad(density, -0.01, 0.01)
    lower, _ = integrate.quad(density, -np.inf, -0.01)
    found = correlated_t(differences, FOLDS, rope=0.01)
    assert found["p_same"] == pytest.approx(same, abs=1e-7)
    assert found["p_lower"] == pytest.approx(lower, abs=1e-7)
    assert found["p_lower"] + found["p_same"] + found["p_higher"] == pytest.approx(1)


def test_without_a_region_it_mirrors_the_corrected_t_test(differences: np.ndarray) -> None:
    found = correlated_t(differences, FOLDS, rope=0)
    p = nadeau_bengio(differences, FOLDS).p
    assert 2 * min(found["p_lower"], found["p_higher"]) == pytest.approx(p, rel=1e-9)


@pytest.mark.parametrize(("value", "place"), [(-0.5, 0), (0.0, 1), (0.5, 2)])
def test_equal_differences_leave_no_doubt(value: float, place: int) -> None:
    found = correlated_t(np.full(5, value), FOLDS, rope=0.01)
    assert [found["p_lower"], found["p_same"], found["p_higher"]][place] == 1


def test_it_refuses_what_has_no_posterior() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        correlated_t([0.1], 5, rope=0.1)
    with pytest.raises(ValueError, match="at least 0"):
        correlated_t([0.1, 0.2], 5, rope=-0.1)


def test_the_region_is_a_share_of_the_second_loss() -> None:
    rng = np.random.default_rng(1)
    folds = np.tile(np.arange(5), 20)[None]
    b = rng.uniform(0.9, 1.1, size=folds.shape)
    same, better = b + rng.normal(0, 1e-4, b.shape), b * 0.8
    (first, second) = equivalence(
        {"a": same, "b": b, "c": better}, folds, pairs=[("a", "b"), ("c", "b")]
    )
    assert first["rope"] == pytest.approx(ROPE * b.mean())
    assert first["p_same"] > 0.999
    assert second["p_lower"] > 0.999
