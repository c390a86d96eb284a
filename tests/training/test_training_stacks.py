from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from m1pipe.config import HeadConfig
from m1pipe.data.targets import Kind, Targets
from m1pipe.errors import InputError, StoppedBySignalError
from m1pipe.models.heads import balanced_weight, head_loss
from m1pipe.models.stacked import stacked_loss
from m1pipe.training import stack
from m1pipe.training.fit_heads import fit_head
from m1pipe.training.fit_stacks import PassFile, fit_heads
from m1pipe.training.fitted_head import FittedHead
from m1pipe.training.signals import StopFlag
from m1pipe.training.stack_pass import Design, HeadJob

N, FOLDS = 200, np.random.default_rng(4).permutation(200) % 4
CONFIG = HeadConfig(hidden=(12,), epochs=12, patience=2)
KINDS: tuple[Kind, ...] = ("regression", "binary", "multiclass", "multilabel")


@pytest.fixture
def X() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(N, p)).astype(np.float32) + 2 for p in (6, 9, 6)]


def make_targets(kind: Kind, X: np.ndarray) -> Targets:
    rng = np.random.default_rng(1)
    signal = X[:, :5] - 2 + 0.3 * rng.normal(size=(N, 5)).astype(np.float32)
    if kind == "regression":
        levels = (signal @ rng.normal(size=(5, 150)).astype(np.float32)) + 4
        return Targets(kind, levels, tuple(f"t{j}" for j in range(150)))
    if kind == "multilabel":
        return Targets(kind, (signal > 0.6).astype(np.float32), tuple("abcde"))
    edges = [0.4] if kind == "binary" else [-0.7, 0.7]
    codes = np.digitize(signal[:, 0], edges).astype(np.int64)
    return Targets(kind, codes, tuple("abc"[: len(edges) + 1]))


def make_jobs(X: list[np.ndarray], config: HeadConfig) -> list[HeadJob]:
    return [HeadJob(x, config, np.flatnonzero(FOLDS != k), 50 + k) for x in X for k in range(4)]


def alone(job: HeadJob, design: Design) -> FittedHead:
    return fit_head(
        job.X,
        design.targets,
        job.config,
        rows=job.rows,
        seed=job.seed,
        order_seed=design.order_seed,
        folds_order=design.folds,
    )


def assert_same(one: FittedHead, other: FittedHead, X: np.ndarray) -> None:
    assert one.n_epochs == other.n_epochs
    assert one.history.stopped_early == other.history.stopped_early
    assert [r.keys() for r in one.history.rows] == [r.keys() for r in other.history.rows]
    for name in one.history.rows[0].keys() - {"seconds"}:
        np.testing.assert_allclose(
            [row[name] for row in one.history.rows],
            [row[name] for row in other.history.rows],
            rtol=1e-4,
        )
    np.testing.assert_allclose(one.predict(X), other.predict(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"class_weight": "balanced"},
        {"hidden": ()},
        {"hidden": (8, 5)},
        {"validation": 0.0, "patience": 0, "standardize": False, "initialize_bias": False},
    ],
    ids=["default", "balanced", "linear", "deep", "published"],
)
def test_together_is_as_each_alone(X: list[np.ndarray], kind: Kind, changes: dict) -> None:
    design = Design(make_targets(kind, X[0]), order_seed=7, folds=FOLDS)
    jobs = make_jobs(X, replace(CONFIG, **changes))
    together = fit_heads(jobs, design)
    assert len(together) == len(jobs)
    for job, head in zip(jobs, together, strict=True):
        assert_same(head, alone(job, design), job.X)


def test_some_heads_stop_earlier_than_others(X: list[np.ndarray]) -> None:
    design = Design(make_targets("regression", X[0]), order_seed=7, folds=FOLDS)
    jobs = make_jobs(X, replace(CONFIG, epochs=60, lr=0.02))
    training: list[int] = []
    heads = fit_heads(jobs, design, on_epoch=training.append)
    lengths = [len(head.history.rows) for head in heads]
    assert len(set(lengths)) > 1
    ends = [h.history.n_epochs if h.history.stopped_early else 61 for h in heads]
    assert training == [sum(end > epoch for end in ends) for epoch in range(1, max(lengths) + 1)]
    for job, head in zip(jobs, heads, strict=True):
        assert_same(head, alone(job, design), job.X)


def test_blocks_of_targets_change_nothing(
    X: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    design = Design(make_targets("regression", X[0]), order_seed=7, folds=FOLDS)
    jobs = make_jobs(X, CONFIG)
    whole = fit_heads(jobs, design)
    monkeypatch.setattr(stack, "BLOCK_BYTES", 1)
    monkeypatch.setattr(stack, "WHOLE_INPUT_BYTES", 0)
    for job, one, other in zip(jobs, whole, fit_heads(jobs, design), strict=True):
        assert_same(one, other, job.X)


def test_heads_that_cannot_go_together_are_trained_alone(X: list[np.ndarray]) -> None:
    design = Design(make_targets("binary", X[0]), order_seed=7)
    jobs = [
        HeadJob(X[0], CONFIG, np.arange(150), 1),
        HeadJob(X[0], CONFIG, np.arange(40), 2),  # few rows: epochs by inner folds
        HeadJob(X[0], replace(CONFIG, dropout=0.2), np.arange(150), 3),
        HeadJob(X[0], replace(CONFIG, batch_size=4), np.arange(150), 4),
        HeadJob(X[0], replace(CONFIG, lr=0.01), np.arange(150), 5),
    ]
    for job, head in zip(jobs, fit_heads(jobs, design), strict=True):
        assert_same(head, alone(job, design), job.X)


def test_a_loss_that_is_not_finite_is_said(X: list[np.ndarray]) -> None:
    design = Design(make_targets("regression", X[0]), order_seed=7)
    with pytest.raises(InputError, match=r"non-finite .*of epoch"):
        fit_heads([HeadJob(X[0], replace(CONFIG, lr=1e30), np.arange(150), 1)], design)


def test_a_signal_is_heard_after_an_epoch(X: list[np.ndarray]) -> None:
    design = Design(make_targets("binary", X[0]), order_seed=7)
    stop, epochs = StopFlag(), []

    def at_the_third(n_training: int) -> None:
        epochs.append(n_training)
        if len(epochs) == 3:
            stop.set("SIGTERM")

    with pytest.raises(StoppedBySignalError):
        fit_heads(make_jobs(X, CONFIG), design, stop=stop, on_epoch=at_the_third)
    assert len(epochs) == 3


@pytest.mark.parametrize("kind", ["regression", "multiclass"])
@pytest.mark.parametrize("at", [1, 4, 9])
def test_a_stopped_pass_goes_on_bit_for_bit(
    X: list[np.ndarray], kind: Kind, at: int, tmp_path: Path
) -> None:
    design = Design(make_targets(kind, X[0]), order_seed=7, folds=FOLDS)
    jobs = make_jobs(X, replace(CONFIG, epochs=14, lr=0.02))
    unbroken = fit_heads(jobs, design)
    stop, epochs, kept = StopFlag(), [], PassFile(tmp_path / "pass.pt", "mine")

    def after(n_training: int) -> None:
        epochs.append(n_training)
        if len(epochs) == at:
            stop.set("SIGUSR1")

    with pytest.raises(StoppedBySignalError):
        fit_heads(jobs, design, kept=kept, stop=stop, on_epoch=after)
    resumed = fit_heads(jobs, design, kept=kept, on_epoch=epochs.append)
    assert len(epochs) == max(len(head.history.rows) for head in unbroken)
    for job, one, other in zip(jobs, unbroken, resumed, strict=True):
        np.testing.assert_array_equal(one.predict(job.X), other.predict(job.X))
        assert one.n_epochs == other.n_epochs
        assert len(one.history.rows) == len(other.history.rows)


def test_the_file_of_another_pass_is_not_read(X: list[np.ndarray], tmp_path: Path) -> None:
    design = Design(make_targets("binary", X[0]), order_seed=7, folds=FOLDS)
    jobs, stop = make_jobs(X, CONFIG), StopFlag()
    stop.set("SIGTERM")
    with pytest.raises(StoppedBySignalError):
        fit_heads(jobs, design, kept=PassFile(tmp_path / "pass.pt", "mine"), stop=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["pass_0.pt"]
    epochs: list[int] = []
    other = PassFile(tmp_path / "pass.pt", "another's")
    heads = fit_heads(jobs, design, kept=other, on_epoch=epochs.append)
    assert len(epochs) == max(len(head.history.rows) for head in heads)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_stacked_loss_is_the_loss_of_each(kind: Kind, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    n_out = 1 if kind == "binary" else 3
    output = torch.randn(4, 10, n_out, generator=generator)
    if kind == "regression":
        target = torch.randn(4, 10, 3, generator=generator)
    elif kind == "multilabel":
        target = (torch.rand(4, 10, 3, generator=generator) > 0.7).float()
    else:
        target = torch.randint(0, 2 if kind == "binary" else 3, (4, 10), generator=generator)
    weights = [balanced_weight(kind, t, 3) if weighted else None for t in target]
    stacked = torch.stack([w for w in weights if w is not None]) if weights[0] is not None else None
    losses = stacked_loss(kind, output, target, stacked)
    for k in range(4):
        expected = head_loss(kind, output[k], target[k], weights[k])
        torch.testing.assert_close(losses[k], expected)
