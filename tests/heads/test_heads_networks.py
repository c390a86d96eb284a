from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from m1pipe.config import HeadConfig
from m1pipe.data.batches import row_order
from m1pipe.data.targets import Kind, OwnGenes, Targets
from m1pipe.errors import InputError, StoppedBySignalError
from m1pipe.heads import batched, networks
from m1pipe.heads.fit import fit_heads
from m1pipe.heads.fitted import FittedHead
from m1pipe.heads.head_data import HeadData, HeadJob
from m1pipe.heads.networks import PassFile
from m1pipe.training.signals import StopFlag

N, FOLDS = 200, np.random.default_rng(4).permutation(200) % 4
CONFIG = HeadConfig(hidden=(12,), epochs=12, patience=3, lr=5e-3)
KINDS: tuple[Kind, ...] = ("regression", "binary", "multiclass", "multilabel")
CHANGES = {
    "default": {},
    "balanced": {"class_weight": "balanced"},
    "linear": {"hidden": ()},
    "deep": {"hidden": (8, 5)},
    "dropout": {"dropout": 0.3},
    "alone": {"linear": False},
    "published": {
        "linear": False,
        "validation": 0.0,
        "patience": 0,
        "standardize": False,
        "initialize_bias": False,
    },
}


@pytest.fixture
def X() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(N, p)).astype(np.float32) + 2 for p in (6, 9, 6, 400)]


def make_targets(kind: Kind, X: np.ndarray) -> Targets:
    rng = np.random.default_rng(1)
    signal = np.abs(X[:, :5] - 2) - 0.8 + 0.1 * rng.normal(size=(N, 5)).astype(np.float32)
    if kind == "regression":
        levels = (signal @ rng.normal(size=(5, 150)).astype(np.float32)) + 4
        return Targets(kind, levels, tuple(f"t{j}" for j in range(150)))
    if kind == "multilabel":
        return Targets(kind, (signal > 0).astype(np.float32), tuple("abcde"))
    edges = [0.0] if kind == "binary" else [-0.4, 0.4]
    codes = np.digitize(signal[:, 0], edges).astype(np.int64)
    return Targets(kind, codes, tuple("abc"[: len(edges) + 1]))


def make_jobs(X: list[np.ndarray], config: HeadConfig) -> list[HeadJob]:
    rows = [np.flatnonzero(FOLDS != k) for k in range(2)] + [np.arange(33)]
    return [HeadJob(x, own, (config,), 50 + k) for x in X for k, own in enumerate(rows)]


def assert_same(one: FittedHead, other: FittedHead, X: np.ndarray) -> None:
    assert one.chosen.keys() == other.chosen.keys()
    assert one.chosen["epochs"] == other.chosen["epochs"]
    np.testing.assert_allclose(one.curve, other.curve, rtol=1e-4)
    np.testing.assert_allclose(one.predict(X), other.predict(X), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *product(CHANGES, ("regression", "multiclass")),
        *product(("default", "balanced"), ("binary", "multilabel")),
    ],
)
def test_together_is_as_each_alone(X: list[np.ndarray], kind: Kind, name: str) -> None:
    changes = CHANGES[name]
    design = HeadData(make_targets(kind, X[0]), order_seed=7, folds=FOLDS)
    jobs = make_jobs(X[:1] + X[3:], replace(CONFIG, **changes))
    together = fit_heads(jobs, design)
    assert len(together) == len(jobs)
    for job, head in zip(jobs, together, strict=True):
        assert_same(head, fit_heads([job], design)[0], job.X)
    if changes.get("hidden", True):
        assert any(head.chosen["epochs"] for head in together)


def test_own_genes_stand_beside_a_network_as_well(X: list[np.ndarray]) -> None:
    targets = make_targets("regression", X[0])
    rng = np.random.default_rng(2)
    own = OwnGenes(rng.normal(size=(N, 40)).astype(np.float32), np.arange(150) % 40 - 1)
    values = targets.values + own.values[:, np.maximum(own.column, 0)] * (own.column >= 0)
    targets = replace(targets, values=values.astype(np.float32))
    rows = np.flatnonzero(FOLDS != 0)
    jobs = [
        HeadJob(X[0], rows, (CONFIG,), 1),
        HeadJob(X[0], rows, (CONFIG,), 1, own=own),
        HeadJob(X[0][:, :0], rows, (replace(CONFIG, hidden=()),), 1, own=own),
    ]
    plain, both, gene = fit_heads(jobs, HeadData(targets, 3))
    assert both.chosen["epochs"] > 0
    test = np.flatnonzero(FOLDS == 0)
    errors = [
        np.mean(
            (h.predict(j.X[test], None if h.own is None else own.values[test]) - values[test]) ** 2
        )
        for h, j in zip((plain, both, gene), jobs, strict=True)
    ]
    assert errors[1] < 0.8 * min(errors[0], errors[2])


def test_heads_stop_when_their_own_loss_no_longer_falls(X: list[np.ndarray]) -> None:
    design = HeadData(make_targets("multiclass", X[0]), order_seed=7, folds=FOLDS)
    jobs = make_jobs(X[:2], replace(CONFIG, epochs=60, lr=0.02))
    training: list[int] = []
    heads = fit_heads(jobs, design, on_epoch=training.append)
    lengths = [len(head.curve) - 1 for head in heads]
    assert len(set(lengths)) > 1
    for head, length in zip(heads, lengths, strict=True):
        best = int(np.argmin(head.curve))
        assert length == 60 or length - best == CONFIG.patience
    assert training[0] == 5 * len(jobs)


def test_blocks_of_targets_change_nothing(
    X: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    design = HeadData(make_targets("regression", X[0]), order_seed=7, folds=FOLDS)
    jobs = make_jobs(X[:2], CONFIG)
    whole = fit_heads(jobs, design)
    monkeypatch.setattr(batched, "BLOCK_BYTES", 1)
    monkeypatch.setattr(networks, "HELD_OUT_ROWS", 3)
    for job, one, other in zip(jobs, whole, fit_heads(jobs, design), strict=True):
        assert_same(one, other, job.X)


def test_steps_go_through_the_rows_in_the_common_order(
    X: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    original = networks.make_batch

    def spy(rows: list[np.ndarray], device: torch.device) -> batched.Batch:
        seen.append(rows[0])
        return original(rows, device)

    monkeypatch.setattr(networks, "make_batch", spy)
    config = replace(CONFIG, linear=False, validation=0.0, epochs=2, batch_size=20)
    rows = np.flatnonzero(FOLDS != 1)
    job = HeadJob(X[0], rows, (config,), 1)
    fit_heads([job], HeadData(make_targets("binary", X[0]), order_seed=7, folds=FOLDS))
    n_steps = -(-rows.size // 20)
    assert len(seen) == 2 * n_steps and {s.size for s in seen} <= {
        rows.size // n_steps,
        rows.size // n_steps + 1,
    }
    for epoch in (0, 1):
        order = row_order(N, 7, epoch, FOLDS)
        expected = order[np.isin(order, rows)]
        found = rows[np.concatenate(seen[epoch * n_steps : (epoch + 1) * n_steps])]
        np.testing.assert_array_equal(found, expected)


def test_few_rows_get_eight_steps_an_epoch(X: list[np.ndarray]) -> None:
    assert networks.LEAST_STEPS == 8
    for n, expected in ((2, 1), (6, 3), (33, 8), (600, 10)):
        network = batched.Network(None, None, None, np.arange(n), np.arange(0), None, 1.0, None)  # type: ignore[arg-type]
        assert networks._n_steps(network, HeadConfig(batch_size=64)) == expected


def test_a_loss_that_is_not_finite_is_said(X: list[np.ndarray]) -> None:
    design = HeadData(make_targets("regression", X[0]), order_seed=7)
    job = HeadJob(X[0], np.arange(150), (replace(CONFIG, lr=1e30),), 1)
    with pytest.raises(InputError, match=r"non-finite .*of epoch"):
        fit_heads([job], design)


def test_a_signal_is_heard_after_an_epoch(X: list[np.ndarray]) -> None:
    design = HeadData(make_targets("binary", X[0]), order_seed=7)
    stop, epochs = StopFlag(), []

    def at_the_third(n_training: int) -> None:
        epochs.append(n_training)
        if len(epochs) == 3:
            stop.set("SIGTERM")

    with pytest.raises(StoppedBySignalError):
        fit_heads(make_jobs(X, CONFIG), design, stop=stop, on_epoch=at_the_third)
    assert len(epochs) == 3


@pytest.mark.parametrize("kind", ["regression", "multiclass"])
def test_a_pass_is_resumed_to_the_bit_wherever_it_was_stopped(
    X: list[np.ndarray], kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    design = HeadData(make_targets(kind, X[0]), order_seed=7, folds=FOLDS)
    jobs = make_jobs(X[:1], CONFIG)
    n_epochs: list[int] = []
    whole = fit_heads(jobs, design, on_epoch=n_epochs.append)
    assert any(head.chosen["epochs"] for head in whole)
    monkeypatch.setattr(networks, "WORTH_KEEPING", 0)
    for stop_at in {1, 4, len(n_epochs) - 1}:
        kept, stop, count = PassFile(tmp_path / f"{stop_at}.pt", "mark"), StopFlag(), []

        def tell(n: int, stop: StopFlag = stop, count: list = count, at: int = stop_at) -> None:
            count.append(n)
            if len(count) == at:
                stop.set("SIGUSR1")

        with pytest.raises(StoppedBySignalError):
            fit_heads(jobs, design, kept=kept, stop=stop, on_epoch=tell)
        left: list[int] = []
        again = fit_heads(jobs, design, kept=kept, on_epoch=left.append)
        assert len(count) + len(left) == len(n_epochs)
        for one, other in zip(whole, again, strict=True):
            assert one.chosen == other.chosen and one.curve == other.curve
            np.testing.assert_array_equal(one.predict(X[0]), other.predict(X[0]))
        kept.remove()
        assert not list(tmp_path.glob("*.pt"))


def test_a_file_of_another_pass_is_not_read(X: list[np.ndarray], tmp_path: Path) -> None:
    design = HeadData(make_targets("binary", X[0]), order_seed=7, folds=FOLDS)
    jobs = make_jobs(X[:1], CONFIG)
    fit_heads(jobs, design, kept=PassFile(tmp_path / "p.pt", "one"))
    epochs: list[int] = []
    fit_heads(jobs, design, kept=PassFile(tmp_path / "p.pt", "other"), on_epoch=epochs.append)
    assert epochs
