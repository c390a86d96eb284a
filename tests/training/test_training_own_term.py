"""The own-gene term of a head: what it gains, and that it is off where it gains nothing."""

from dataclasses import replace

import numpy as np
import pytest

from m1pipe.config import HeadConfig
from m1pipe.data.own_gene import OwnGenes
from m1pipe.data.targets import Targets
from m1pipe.training.fit_heads import fit_head
from m1pipe.training.fitted_head import FittedHead
from m1pipe.training.own_term import Choice, Residuals, fit_term

N, N_TRAIN, N_GENES = 260, 200, 12
QUICK = HeadConfig(hidden=(16,), epochs=30, lr=0.01)
World = tuple[np.ndarray, Targets, OwnGenes]


@pytest.fixture(scope="module")
def world() -> World:
    """Latents that carry a part of 12 genes, and isoforms that follow latents and own gene."""
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(N, 3)).astype(np.float32)
    genes = Z @ rng.normal(size=(3, N_GENES)) + rng.normal(size=(N, N_GENES)) + 5
    column = np.r_[np.arange(N_GENES), np.arange(N_GENES), -1, -1]
    Y = Z @ rng.normal(size=(3, column.size)) + 0.3 * rng.normal(size=(N, column.size))
    Y[:, :N_GENES] += genes
    targets = Targets("regression", Y.astype(np.float32), tuple(f"t{j}" for j in range(26)))
    return Z, targets, OwnGenes(genes.astype(np.float32), column)


def train(world: World, own: OwnGenes | None, *, n: int = N_TRAIN) -> FittedHead:
    Z, targets, _ = world
    return fit_head(Z[:n], targets.take(np.arange(n)), QUICK, rows=np.arange(n), seed=1, own=own)


def error(head: FittedHead, world: World, columns: slice, own: OwnGenes | None = None) -> float:
    Z, targets, _ = world
    levels = None if own is None else own.values[N_TRAIN:]
    return float(
        ((head.predict(Z[N_TRAIN:], levels) - targets.values[N_TRAIN:]) ** 2)[:, columns].mean()
    )


@pytest.mark.parametrize("n", [200, 50], ids=["inner split", "few rows"])
def test_a_planted_own_gene_is_found(world: World, n: int) -> None:
    own = world[2]
    plain, both = train(world, None, n=n), train(world, own.take(np.arange(n)), n=n)
    followers = slice(0, N_GENES)
    assert error(both, world, followers, own) < 0.6 * error(plain, world, followers)
    assert both.own is not None
    slopes = both.own.slope[:N_GENES] / both.own.scale  # a level rises with its gene one to one
    np.testing.assert_allclose(slopes, 1, atol=0.3)


def test_targets_without_their_gene_are_predicted_by_the_plain_head(world: World) -> None:
    own = world[2]
    plain, both = train(world, None), train(world, own.take(np.arange(N_TRAIN)))
    Z = world[0][N_TRAIN:]
    found, expected = both.predict(Z, own.values[N_TRAIN:]), plain.predict(Z)
    np.testing.assert_array_equal(found[:, -2:], expected[:, -2:])
    assert not np.allclose(found[:, 0], expected[:, 0])


def test_genes_that_tell_nothing_cost_nothing(world: World) -> None:
    rng = np.random.default_rng(5)
    own = replace(world[2], values=rng.normal(size=(N, N_GENES)).astype(np.float32))
    plain, both = train(world, None), train(world, own.take(np.arange(N_TRAIN)))
    everything = slice(0, 26)
    assert error(both, world, everything, own) < 1.01 * error(plain, world, everything)


def test_the_slope_is_that_of_the_joint_least_squares(world: World) -> None:
    """Ridge on the activations and one gene, solved together, against the profiled slope."""
    Z, targets, own = world
    rows = np.arange(N_TRAIN)
    hidden = Z.astype(np.float64)
    weight, bias = np.zeros((26, 3)), np.zeros(26)
    choice = Choice(ridge=1.0, penalty=0.3, on=np.ones(26, dtype=bool))
    centred = replace(targets, values=targets.values - targets.values[rows].mean(axis=0))
    term = fit_term(hidden, Residuals(centred.values, hidden, weight, bias), own, rows, choice)
    A = hidden[rows] - hidden[rows].mean(axis=0)
    penalty = np.trace(A.T @ A) / 3
    for j in (0, 5, 13):
        gene = own.values[rows, own.column[j]].astype(float)
        gene = (gene - gene.mean()) / gene.std()
        free = gene - A @ np.linalg.solve(A.T @ A + penalty * np.eye(3), A.T @ gene)
        expected = free @ centred.values[rows, j] / (free @ free + 0.3 * rows.size)
        assert term.slope[j] == pytest.approx(expected, rel=1e-3)
    np.testing.assert_array_equal(term.slope[-2:], 0)


def test_a_stored_head_predicts_the_same(world: World) -> None:
    own = world[2]
    head = train(world, own.take(np.arange(N_TRAIN)))
    again = FittedHead.from_state(*head.to_state())
    Z, levels = world[0][N_TRAIN:], own.values[N_TRAIN:]
    np.testing.assert_array_equal(again.predict(Z, levels), head.predict(Z, levels))
    with pytest.raises(ValueError, match="needs the levels of the own genes"):
        again.predict(Z)
