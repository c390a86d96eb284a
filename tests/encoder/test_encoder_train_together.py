"""Encoders trained in one pass are those that are trained one by one, to rounding."""

from collections.abc import Callable
from typing import Any

import anndata
import numpy as np
import pytest

import m1pipe.encoder.train_together
from m1pipe.config import EncoderConfig
from m1pipe.encoder import Encoder, train_encoder
from m1pipe.encoder.plan import plan_training
from m1pipe.encoder.train_together import pass_of, train_together
from m1pipe.errors import InputError
from m1pipe.settings import build

Make = Callable[..., anndata.AnnData]
BASE = {"n_latent": 3, "hidden": [8], "epochs": 3, "batch_size": 32, "precision": "fp32",
        "batch_norm": False}  # fmt: skip


def _together(data: Any, settings: list[dict[str, Any]]) -> list[Encoder | InputError]:
    plans = [plan_training(data, build(EncoderConfig, BASE, own)) for own in settings]
    return train_together(plans)


def _agree(found: Encoder | InputError, alone: Encoder, data: anndata.AnnData) -> None:
    """Equal but for rounding, which is all the gradient that a bias below a batch norm has.

    Adam makes steps of `lr` of it in any direction. The norm takes them out again in training; in
    validation its running means, ten steps behind, leave 10 `lr` = 0.01 of a unit, about.
    """
    assert isinstance(found, Encoder)
    normed = alone.config.model.batch_norm
    for name, value in alone.module.state_dict().items():
        if not normed:
            mine = found.module.state_dict()[name]
            np.testing.assert_allclose(mine, value, rtol=1e-3, atol=1e-5, err_msg=name)
    Z, X, atol = alone.transform(data), alone.reconstruct(data), 0.02 if normed else 1e-4
    np.testing.assert_allclose(found.transform(data), Z, rtol=1e-3, atol=atol * Z.std())
    np.testing.assert_allclose(found.reconstruct(data), X, rtol=1e-3, atol=atol * X.std())
    assert found.config == alone.config
    assert [row["epoch"] for row in found.history] == [row["epoch"] for row in alone.history]
    rel = 1e-3 if normed else 1e-4
    for mine, its in zip(found.history, alone.history, strict=True):
        for name in its.keys() - {"seconds"}:
            assert mine[name] == pytest.approx(its[name], rel=rel, abs=1e-6), name
    assert found.summary["best_epoch"] == alone.summary["best_epoch"]
    assert found.summary["r2"] == pytest.approx(alone.summary["r2"], abs=1e-4)


PASSES = {
    "plain": [{"beta": 0.0, **own} for own in ({"lr": 1e-3}, {"lr": 5e-3}, {"weight_decay": 0.1})],
    "variational": [{"beta": 1.0}, {"beta": 0.3, "lr": 3e-3}, {"beta": 2.0, "ema": 0.0}],
    "seeds": [{"beta": 0.5, "seed": seed, "validation": 0.0} for seed in (0, 1, 2)],
    "networks": [
        {"linear_skip": False, "lr": lr, "clip": clip, "schedule": "plateau", "kl_warmup": 0.4}
        for lr, clip in ((1e-3, 0.0), (4e-3, 0.5))
    ],
    "normed": [{"beta": beta, "batch_norm": True} for beta in (0.5, 1.0)],
    "published": [
        {"linear_skip": False, "hidden": [], "latent_activation": "relu",
         "output_activation": "sigmoid", "likelihood": "gaussian_unit", "beta": 0.0, "lr": lr}
        for lr in (1e-3, 1e-2)
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", list(PASSES))
def test_a_pass_is_its_encoders_alone(data: anndata.AnnData, name: str) -> None:
    settings = PASSES[name]
    assert len({pass_of(build(EncoderConfig, BASE, own)) for own in settings}) == 1
    for found, own in zip(_together(data, settings), settings, strict=True):
        _agree(found, train_encoder(data, build(EncoderConfig, BASE, own)), data)


def test_missing_levels_stay_out_of_a_pass_too(data: anndata.AnnData) -> None:
    gaps = data.copy()
    gaps.X[np.random.default_rng(0).random(gaps.X.shape) < 0.05] = np.nan
    settings = [{"beta": 1.0, "lr": lr} for lr in (1e-3, 3e-3)]
    for found, own in zip(_together(gaps, settings), settings, strict=True):
        _agree(found, train_encoder(gaps, build(EncoderConfig, BASE, own)), gaps)


def test_those_that_stop_early_leave_the_others(data: anndata.AnnData) -> None:
    settings = [
        {"beta": 0.0, "epochs": 12, "lr": lr, "patience": patience}
        for lr, patience in ((0.2, 1), (1e-3, 0), (0.5, 2))
    ]
    found = _together(data, settings)
    alone = [train_encoder(data, build(EncoderConfig, BASE, own)) for own in settings]
    epochs = [one.summary["epochs"] for one in alone]
    assert min(epochs) < 12 == epochs[1]
    assert [one.summary["epochs"] for one in found if isinstance(one, Encoder)] == epochs
    _agree(found[1], alone[1], data)


def test_one_that_fails_takes_no_other_with_it(data: anndata.AnnData) -> None:
    settings = [{"beta": 1.0, "lr": lr, "linear_skip": False} for lr in (1e-3, 1e30)]
    good, bad = _together(data, settings)
    assert isinstance(bad, InputError) and "non-finite" in str(bad)
    _agree(good, train_encoder(data, build(EncoderConfig, BASE, settings[0])), data)


def test_what_may_differ_in_a_pass() -> None:
    def key(**own: object) -> EncoderConfig | None:
        return pass_of(build(EncoderConfig, BASE, own))

    assert key() == key(lr=0.1, seed=5, weight_decay=1.0, patience=3, ema=0.0, clip=1.0, beta=0.2)
    others = ("n_latent", 4), ("beta", 0.0), ("epochs", 4), ("batch_size", 16), ("free_bits", 1.0)
    for name, value in others:
        assert key(**{name: value}) != key() and key(**{name: value}) is not None
    alone = ("dropout", 0.1), ("condition", "t"), ("likelihood", "log_normal"), ("micro_batch", 8)
    for name, value in alone:
        assert key(**{name: value}) is None


def test_streamed_rows_are_trained_on_one_by_one(
    data: anndata.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(m1pipe.encoder.train_together, "fit_together", None)
    settings = [{"memory": "36K", "lr": lr} for lr in (1e-3, 3e-3)]
    found = _together(data, settings)
    assert all(isinstance(one, Encoder) for one in found)
