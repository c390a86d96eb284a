import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

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

    def take(self, indices: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        self.reads.append(indices)
        if out is None:
            return self.values[indices]
        out[:] = self.values[indices]
        return out


def buffer_for(batch_size: int, runs: int, p: int = 3) -> int:
    """Room for two buffers of so many runs."""
    return 4 * p * (2 * batch_size + 2 * 16 * runs)


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


@given(**shapes, runs=st.integers(1, 5), keep=st.floats(0.1, 1))
@settings(deadline=None)
def test_streamed_batches_visit_every_row_once(
    n: int, batch_size: int, seed: int, runs: int, keep: float
) -> None:
    rows = np.random.default_rng(1).permutation(n)[: max(1, int(keep * n))]
    matrix = CountingMatrix(n)
    batches = StreamedBatches(matrix, rows, batch_size, seed, buffer_for(batch_size, runs))
    seen = list(batches.epoch(2))
    assert [len(X) for X in seen[:-1]] == [batch_size] * (batches.n_steps - 1)
    assert len(seen) == batches.n_steps
    values = np.concatenate(seen)[:, 0]
    np.testing.assert_array_equal(np.sort(values), np.sort(rows))
    np.testing.assert_array_equal(values, np.concatenate(list(batches.indices(2))))


@given(**shapes, runs=st.integers(1, 5), skip=st.integers(0, 12))
@settings(deadline=None)
def test_skip_drops_the_first_batches(
    n: int, batch_size: int, seed: int, runs: int, skip: int
) -> None:
    memory = MemoryBatches((np.zeros(n),), batch_size, seed)
    streamed = StreamedBatches(
        CountingMatrix(n), None, batch_size, seed, buffer_for(batch_size, runs)
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


def test_buffers_are_never_larger_than_allowed_and_read_in_order() -> None:
    matrix = CountingMatrix(1024)
    allowed = buffer_for(10, 4)
    batches = StreamedBatches(matrix, None, 10, 0, allowed)
    assert all(len(X) <= 10 for X in batches.epoch(0))
    assert batches.run_rows == 16 and len(matrix.reads) == 1024 // 64
    assert [len(read) for read in matrix.reads] == [64] * 16
    for read in matrix.reads:
        assert (2 * read.size + 2 * 10) * 3 * 4 <= allowed
        assert (np.diff(read) > 0).all()
    breaks = sum((np.diff(read) > 1).sum() for read in matrix.reads)
    assert breaks <= 1024 // 16 + len(matrix.reads)  # runs of neighbours, cut where a buffer ends


def test_long_buffers_are_read_in_long_runs() -> None:
    batches = StreamedBatches(CountingMatrix(10), None, 8, 0, buffer_for(8, 1000))
    assert batches.run_rows == 16_000 // 64  # many runs a buffer, as the rows are short
    wide = StreamedBatches(CountingMatrix(1, 2**12), None, 8, 0, buffer_for(8, 1000, 2**12))
    assert wide.run_rows == 2**21 // 2**14  # two megabytes
    assert batches.buffer_rows % batches.run_rows == wide.buffer_rows % wide.run_rows == 0


def _places(run_rows: int, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Where 600 epochs, the batches of two buffers and more, put each of 320 rows."""
    monkeypatch.setattr("m1pipe.data.batches.RUN_ROWS", run_rows)
    monkeypatch.setattr("m1pipe.data.batches.RUNS_A_BUFFER", 160)
    matrix, memory = CountingMatrix(320), 4 * 3 * (2 * 8 + 2 * 160)
    batches = StreamedBatches(matrix, None, 8, 0, memory)
    assert batches.run_rows == run_rows and batches.buffer_rows == 160
    return np.array([np.argsort(batches.order(epoch)) for epoch in range(600)])


@pytest.mark.parametrize("run_rows", [1, 4, 16, 40])
def test_every_place_of_the_epoch_is_equally_likely(
    run_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = _places(run_rows, monkeypatch)
    # 32 rows far apart, so that no two are of one run, each in 20 bins of places: a row comes
    # once an epoch, so that its counts are multinomial.
    counts = np.array([np.bincount(row // 16, minlength=20) for row in places[:, ::10].T])
    statistic = ((counts - 30) ** 2 / 30).sum(axis=1)
    p = stats.chi2.sf(statistic, df=19)
    assert p.min() > 0.01 / len(p), "a row prefers some places"
    assert stats.kstest(p, "uniform").pvalue > 1e-3


def test_the_order_in_distribution_does_not_depend_on_the_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bins = [np.bincount(_places(n, monkeypatch)[:, 100] // 16, minlength=20) for n in (1, 16, 40)]
    assert stats.chi2_contingency(np.array(bins)).pvalue > 1e-3


def test_a_fault_while_reading_ahead_is_raised_and_ends_the_reading() -> None:
    class Broken(CountingMatrix):
        def take(self, indices: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
            if len(self.reads) == 2:
                raise InputError("rows could not be read")
            return super().take(indices, out=out)

    batches = StreamedBatches(Broken(320), None, 8, 0, buffer_for(8, 2))
    with pytest.raises(InputError, match="rows could not be read"):
        list(batches.epoch(0))
    assert not [t for t in threading.enumerate() if t.name.startswith("m1pipe-read")]


def test_an_epoch_that_is_left_early_leaves_no_thread() -> None:
    epoch = StreamedBatches(CountingMatrix(320), None, 8, 0, buffer_for(8, 2)).epoch(0)
    next(iter(epoch))
    epoch.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("m1pipe-read")]


def test_a_buffer_too_small_for_a_batch_is_refused() -> None:
    with pytest.raises(InputError, match="raise memory or lower batch_size"):
        StreamedBatches(CountingMatrix(100), None, 8, 0, buffer_for(8, 1) - 1)


def test_arrays_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        MemoryBatches((np.zeros(3), np.zeros(4)), 2, 0)
