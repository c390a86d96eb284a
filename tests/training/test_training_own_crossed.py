"""Own genes from held-out rows of inner folds: by brute force, and off where they tell nothing."""

import numpy as np
import pytest
from scipy import stats

from m1pipe.config import HeadConfig
from m1pipe.data.own_gene import OwnGenes
from m1pipe.data.targets import Targets
from m1pipe.training.fit_heads import fit_head
from m1pipe.training.own_choice import PENALTIES, is_lower
from m1pipe.training.own_crossed import RIDGE, HeldOut, choose_crossed, held_out_sums
from m1pipe.training.own_term import Residuals

N, N_TARGETS = 40, 6


@pytest.fixture
def world() -> tuple[np.ndarray, OwnGenes, np.ndarray]:
    """Activations, genes of which half are latents, and levels that follow their genes."""
    rng = np.random.default_rng(2)
    hidden = rng.normal(size=(N, 4))
    genes = hidden @ rng.normal(size=(4, 5)) + rng.normal(size=(N, 5))
    column = np.array([0, 1, 2, 3, 4, -1])
    levels = rng.normal(size=(N, N_TARGETS)) * 0.5
    levels[:, :5] += genes
    return hidden, OwnGenes(genes.astype(np.float32), column), levels


def residuals_of(levels: np.ndarray, hidden: np.ndarray) -> Residuals:
    shape = (N_TARGETS, hidden.shape[1])
    return Residuals(levels, hidden, np.zeros(shape), levels.mean(axis=0))


def test_sums_are_those_of_a_ridge_that_saw_no_held_out_row(
    world: tuple[np.ndarray, OwnGenes, np.ndarray],
) -> None:
    hidden, own, levels = world
    held_out, rows = np.arange(10), np.arange(10, 30)
    found = held_out_sums(hidden, residuals_of(levels, hidden), own, rows=rows, held_out=held_out)
    seen = np.arange(30)
    center = hidden[rows].mean(axis=0)
    A = hidden[rows] - center
    penalty = RIDGE * np.trace(A.T @ A) / 4
    for j in range(5):
        gene = (own.values[:, j] - own.values[seen, j].mean()) / own.values[seen, j].std()
        known = np.linalg.solve(A.T @ A + penalty * np.eye(4), A.T @ gene[rows])
        free = gene[held_out] - (hidden[held_out] - center) @ known
        left = levels[held_out, j] - levels[:, j].mean()
        assert found.cross[j] == pytest.approx(free @ left, rel=1e-4)
        assert found.square[j] == pytest.approx(free @ free, rel=1e-4)
    assert found.cross[5] == found.square[5] == 0


def test_the_penalty_is_that_of_a_loop_over_left_out_folds() -> None:
    rng = np.random.default_rng(0)
    square = rng.uniform(5, 9, size=(4, 30))
    parts = [
        HeldOut(s * 0.4 + rng.normal(size=30) * 2.5, s, 8) for s in square
    ]  # slopes of 0.4 on average, each fold with noise of its own
    totals = []
    for penalty in PENALTIES:
        total = 0.0
        for k in range(4):
            others = [p for i, p in enumerate(parts) if i != k]
            for j in range(30):
                slope = sum(p.cross[j] for p in others) / (
                    sum(p.square[j] for p in others) + penalty * 24
                )
                total += slope**2 * parts[k].square[j] - 2 * slope * parts[k].cross[j]
        totals.append(total)
    choice = choose_crossed(parts)
    assert choice.penalty == PENALTIES[int(np.argmin(totals))]
    assert choice.slope is not None
    slope = sum(p.cross for p in parts) / (square.sum(axis=0) + choice.penalty * 32)
    np.testing.assert_allclose(choice.slope, slope)


def test_folds_that_disagree_switch_the_term_off() -> None:
    rng = np.random.default_rng(1)
    noise = [HeldOut(rng.normal(size=50) * 3, np.full(50, 8.0), 8) for _ in range(5)]
    assert choose_crossed(noise).penalty == np.inf
    square = np.full(50, 8.0)
    one_good = [HeldOut(np.full(50, c), square, 8) for c in (9.0, 0.0, 0.0, 0.0, 0.0)]
    assert choose_crossed(one_good).penalty == np.inf
    agreed = [HeldOut(np.full(50, 4.0), square, 8) for _ in range(5)]
    assert choose_crossed(agreed).penalty == 0


@pytest.mark.parametrize("shift", [-2.0, -0.5, 0.0, 0.5])
def test_the_gate_is_a_one_sided_t_test(shift: float) -> None:
    changes = np.random.default_rng(3).normal(size=9) + shift
    p = stats.ttest_1samp(changes, 0, alternative="less").pvalue
    assert is_lower(changes) == (p < 0.05)
    assert not is_lower(changes[:1])


def test_a_head_that_fits_its_few_rows_exactly_still_finds_the_slope() -> None:
    """More features than rows: nothing is left of the training rows, and much of new ones."""
    rng = np.random.default_rng(4)
    n, n_new = 30, 200
    X = rng.normal(size=(n + n_new, 60)).astype(np.float32)
    genes = rng.normal(size=(n + n_new, 25)).astype(np.float32)
    levels = (genes + 0.3 * rng.normal(size=genes.shape)).astype(np.float32)
    targets = Targets("regression", levels, tuple(f"t{j}" for j in range(25)))
    own = OwnGenes(genes, np.arange(25))
    rows = np.arange(n)
    config = HeadConfig(hidden=(64,), epochs=60, lr=0.01)
    few = targets.take(rows)
    head = fit_head(X[:n], few, config, rows=rows, seed=0, own=own.take(rows))
    plain = fit_head(X[:n], few, config, rows=rows, seed=0)
    errors = [
        float(((h.predict(X[n:], genes[n:]) - levels[n:]) ** 2).mean()) for h in (head, plain)
    ]
    assert errors[0] < 0.5 * errors[1]
