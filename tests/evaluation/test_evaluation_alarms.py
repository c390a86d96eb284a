"""Alarms gathered over an encoder's summary and a finished result."""

import numpy as np
import pandas as pd

from m1pipe.evaluation.alarms import encoder_alarms, finished_alarms
from m1pipe.evaluation.compare import compare
from m1pipe.evaluation.result import CrossvalResult


def test_a_healthy_encoder_raises_nothing():
    summary = {"r2": 0.5, "pca_r2": 0.52, "active_units": 2, "mu_variance": [1.0, 0.5]}
    summary |= {"dead_share": 0.0, "depth": "detected genes", "depth_r": [0.1, -0.3]}
    assert encoder_alarms("vae", summary) == []
    assert encoder_alarms("vae", {}) == []
    assert encoder_alarms("vae", dict.fromkeys(summary)) == []


def test_every_fault_of_an_encoder_is_named():
    summary = {"r2": 0.3, "pca_r2": 0.52, "active_units": 0, "mu_variance": [0.0, 0.0]}
    summary |= {"dead_share": 0.8, "depth": "detected genes", "depth_r": [0.1, -0.9]}
    found = encoder_alarms("vae (seed 2)", summary)
    assert [a.name for a in found] == [
        "weak_encoder",
        "collapsed_latents",
        "dead_units",
        "latent_follows_depth",
    ]
    assert all(a.text.startswith("vae (seed 2)") for a in found)


def test_a_finished_result_is_held_against_its_yardstick():
    rng = np.random.default_rng(0)
    folds = np.arange(40)[None] % 4
    base = rng.gamma(2, size=(1, 40))
    losses = {"mean": base, "raw": base + 0.5, "vae": base * rng.uniform(0.4, 0.6, 40)}
    table = compare(losses, folds, pairs=[("raw", "mean"), ("vae", "mean")])
    scores = pd.DataFrame(columns=["model", "repeat", "fold", "metric", "value"])
    samples = np.array([f"s{i}" for i in range(40)])
    result = CrossvalResult(samples, folds, losses, scores, table, info={"metric": "mse"})
    assert [a.name for a in finished_alarms(result)] == ["below_yardstick", "not_testable"]
    empty = CrossvalResult(samples, folds, {"mean": base, "vae": losses["vae"]}, scores)
    assert finished_alarms(empty) == []
