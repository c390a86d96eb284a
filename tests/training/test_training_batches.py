import numpy as np
import pytest
import torch

from m1pipe.data.transforms import GeneTransform, fit_gene_transform
from m1pipe.training import batches as feed_module
from m1pipe.training.batches import ResidentFeed, StreamedFeed, make_feed
from m1pipe.training.history import explain_rows

X = np.random.default_rng(0).normal(2, 3, size=(90, 7)).astype(np.float32)
ROWS = np.arange(5, 85)
CPU = torch.device("cpu")


class _Rows:
    shape = X.shape

    def take(self, indices: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        return X[indices]


def _make(memory_bytes: int, shuffle: bool = True) -> ResidentFeed | StreamedFeed:
    transform = fit_gene_transform("standardize", [X[ROWS]])
    return make_feed(
        _Rows(),
        ROWS,
        transform,
        batch_size=16,
        seed=3,
        memory_bytes=memory_bytes,
        device=CPU,
        shuffle=shuffle,
    )


@pytest.mark.parametrize(
    ("memory", "kind"), [(4 * 7 * 80, ResidentFeed), (4 * 7 * 79, StreamedFeed)]
)
def test_every_row_comes_once_an_epoch_transformed_and_with_its_number(
    memory: int, kind: type
) -> None:
    feed = _make(memory)
    assert isinstance(feed, kind)
    assert (feed.n_rows, feed.n_steps) == (80, 5)
    orders = []
    for epoch in (0, 1):
        batches = list(feed.epoch(epoch))
        assert [len(x) for x, _ in batches] == [16] * 5
        rows = torch.cat([rows for _, rows in batches]).numpy()
        np.testing.assert_array_equal(np.sort(rows), ROWS)
        expected = (X[rows] - X[ROWS].mean(0)) / X[ROWS].std(0)
        got = torch.cat([x for x, _ in batches])
        assert got.dtype == torch.float32
        np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)
        orders.append(rows)
    assert not np.array_equal(*orders)


@pytest.mark.parametrize("memory", [10**6, 4 * 7 * 75])
def test_skipping_leaves_out_the_first_batches_only(memory: int) -> None:
    feed = _make(memory)
    whole, rest = list(feed.epoch(4)), list(feed.epoch(4, 3))
    assert len(rest) == 2
    for (x, rows), (x_late, rows_late) in zip(whole[3:], rest, strict=True):
        assert torch.equal(x, x_late) and torch.equal(rows, rows_late)
    assert list(feed.epoch(4, 5)) == []


def test_unshuffled_rows_keep_their_order() -> None:
    rows = torch.cat([rows for _, rows in _make(10**6, shuffle=False).epoch(0)])
    np.testing.assert_array_equal(rows.numpy(), ROWS)


def test_reading_in_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _make(10**6)
    monkeypatch.setattr(feed_module, "READ_BYTES", 4 * 7 * 9)
    assert torch.equal(whole.tensors[0], _make(10**6).tensors[0])


def test_faults_name_bad_samples_then_genes() -> None:
    explain = explain_rows([f"s{i}" for i in range(10)], ["a", "b", "c"])
    x, rows = torch.zeros(4, 3), torch.tensor([9, 4, 6, 2])
    x[1, 2] = torch.nan
    text = explain((x, rows), torch.tensor([1.0, torch.nan, 2.0, 3.0]))
    assert text == "samples s4; genes without a finite level c"
    x[1, 2] = -1e30
    text = explain((x, rows), torch.tensor([1.0, torch.inf, 2.0, 3.0]))
    assert text == "samples s4; most extreme genes c, a, b"
    text = explain((x, rows), torch.tensor([1.0, 5.0, 2.0, 3.0]))
    assert text.startswith("samples s4, s2, s6; ")


def test_transform_of_the_feed_is_the_one_given() -> None:
    transform = GeneTransform("none", np.zeros(7, np.float32), np.ones(7, np.float32))
    feed = make_feed(_Rows(), ROWS, transform, batch_size=9, seed=0, memory_bytes=10**6, device=CPU)
    x, rows = next(feed.epoch(0))
    np.testing.assert_array_equal(x.numpy(), X[rows.numpy()])
