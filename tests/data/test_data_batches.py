import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m1pipe.data.batches import MemoryBatches, StreamedBatches, epoch_order
from m1pipe.errors import InputError


class CountingMatrix:
    """Rows whose first value is their own index; says what was read."""

    def __init__(self, n: int, p: int = 3) -> None:
        self.values = np.arange(n, dtype=np.float32)[:, None] + np.zeros(p, dtype=np.float32)
        self.reads: list[np.ndarray] = []

    @property
    def shape(self) -> tuple[int, int]:
        n, p = self.values.shape
        return n, p

    def take(self, indices: np.ndarray) -> np.ndarray:
        self.reads.append(indices)
        return self.values[indices]


def buffer_for(batch_size: int, blocks: int, p: int = 3) -> int:
    return 4 * p * (2 * batch_size + 16 * blocks)


shapes = {
    "n": st.integers(1, 150),
    "batch_size": st.integers(1, 40),
    "seed": st.integers(0, 2**63 - 1),
}


@given(**shapes)
@settings(deadline=None)
def test_memory_batches_visit_every_row_once(n: int, batch_size: int, seed: int) -> None:
    batches = MemoryBatches((np.zeros((n, 2)), np.zeros(n)), batch_size, seed)
    seen = list(batches.epoch(0))
    assert len(seen) == batches.n_steps
    assert [len(rows) for rows in seen[:-1]] == [batch_size] * (batches.n_steps - 1)
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(n))


@given(**shapes, blocks=st.integers(1, 5), keep=st.floats(0.1, 1))
@settings(deadline=None)
def test_streamed_batches_visit_every_row_once(
    n: int, batch_size: int, seed: int, blocks: int, keep: float
) -> None:
    rows = np.random.default_rng(1).permutation(n)[: max(1, int(keep * n))]
    matrix = CountingMatrix(n)
    batches = StreamedBatches(matrix, rows, batch_size, seed, buffer_for(batch_size, blocks))
    seen = list(batches.epoch(2))
    assert [len(X) for X in seen[:-1]] == [batch_size] * (batches.n_steps - 1)
    assert len(seen) == batches.n_steps
    values = np.concatenate(seen)[:, 0]
    np.testing.assert_array_equal(np.sort(values), np.sort(rows))
    np.testing.assert_array_equal(values, np.concatenate(list(batches.indices(2))))


@given(**shapes, blocks=st.integers(1, 5), skip=st.integers(0, 12))
@settings(deadline=None)
def test_skip_drops_the_first_batches(
    n: int, batch_size: int, seed: int, blocks: int, skip: int
) -> None:
    memory = MemoryBatches((np.zeros(n),), batch_size, seed)
    streamed = StreamedBatches(
        CountingMatrix(n), None, batch_size, seed, buffer_for(batch_size, blocks)
    )
    for batches in (memory, streamed):
        whole = list(batches.epoch(3))
        rest = list(batches.epoch(3, skip))
        assert len(rest) == max(0, len(whole) - skip)
        for expected, found in zip(whole[skip:], rest, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_order_depends_on_seed_and_epoch_only() -> None:
    np.testing.assert_array_equal(epoch_order(50, 7, 3), epoch_order(50, 7, 3))
    assert not np.array_equal(epoch_order(50, 7, 3), epoch_order(50, 7, 4))
    assert not np.array_equal(epoch_order(50, 7, 3), epoch_order(50, 8, 3))
    batches = StreamedBatches(CountingMatrix(200), None, 8, 7, buffer_for(8, 3))
    first = list(batches.epoch(1))
    list(batches.epoch(0))
    for expected, found in zip(first, batches.epoch(1), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_without_shuffle_rows_come_in_their_own_order() -> None:
    batches = MemoryBatches((np.zeros(5),), 2, 0, shuffle=False)
    assert [rows.tolist() for rows in batches.epoch(0)] == [[0, 1], [2, 3], [4]]


def test_last_batch_of_one_row_is_kept() -> None:
    batches = StreamedBatches(CountingMatrix(17), None, 4, 0, buffer_for(4, 1))
    assert [len(X) for X in batches.epoch(0)] == [4, 4, 4, 4, 1]


def test_buffer_is_never_larger_than_allowed_and_read_in_order() -> None:
    matrix = CountingMatrix(1024)
    allowed = buffer_for(10, 4)
    for X in StreamedBatches(matrix, None, 10, 0, allowed).epoch(0):
        assert len(X) <= 10
    assert len(matrix.reads) == 1024 // 64
    for read in matrix.reads:
        assert (read.size + 2 * 10) * 3 * 4 <= allowed
        assert (np.diff(read) > 0).all()
    starts = np.concatenate([read[::16] for read in matrix.reads])
    np.testing.assert_array_equal(np.sort(starts), np.arange(0, 1024, 16))  # runs of neighbours


@pytest.mark.parametrize("blocks", [1, 4, 20])
def test_every_place_of_the_epoch_is_equally_likely(blocks: int) -> None:
    batches = StreamedBatches(CountingMatrix(320), None, 8, 0, buffer_for(8, blocks))
    places = np.array([np.argsort(batches.order(epoch)) for epoch in range(400)])
    standard_error = 320 / np.sqrt(12 * 400)
    assert np.abs(places.mean(axis=0) - 159.5).max() < 5 * standard_error


def test_a_buffer_too_small_for_a_batch_is_refused() -> None:
    with pytest.raises(InputError, match="raise --memory or lower --batch-size"):
        StreamedBatches(CountingMatrix(100), None, 8, 0, buffer_for(8, 1) - 1)


def test_arrays_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        MemoryBatches((np.zeros(3), np.zeros(4)), 2, 0)
