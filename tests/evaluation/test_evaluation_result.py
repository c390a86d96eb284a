"""The result of a cross-validation, and its tidy tables."""

import json

import numpy as np
import pandas as pd
import pytest

from m1pipe.errors import Alarm
from m1pipe.evaluation.result import (
    CrossvalResult,
    fold_losses,
    fold_table,
    ladder_table,
    loss_table,
    summary_dict,
    to_plain,
)


def make_result(n: int = 12, n_repeats: int = 2) -> CrossvalResult:
    rng = np.random.default_rng(0)
    folds = np.stack([rng.permutation(n) % 3 for _ in range(n_repeats)])
    seeds = rng.uniform(0.2, 0.4, (3, n_repeats, n))
    losses = {"mean": rng.uniform(0.9, 1.1, (n_repeats, n)), "vae": seeds.mean(axis=0)}
    scores = pd.DataFrame(
        [
            (model, r, k, metric, float(rng.uniform()))
            for model in losses
            for r in range(n_repeats)
            for k in range(3)
            for metric in ("mse", "pearson")
        ],
        columns=["model", "repeat", "fold", "metric", "value"],
    )
    scores.loc[scores["model"].eq("mean") & scores["metric"].eq("pearson"), "value"] = np.nan
    return CrossvalResult(
        samples=np.array([f"s{i}" for i in range(n)], dtype=object),
        folds=folds,
        losses=losses,
        scores=scores,
        seed_losses={"vae": seeds},
        alarms=[Alarm("few_donors", "warning", "Only 3 donors.")],
        info={"kind": "regression", "metric": "mse", "n": np.int64(n), "sizes": (1, 2)},
    )


def test_fold_table_has_every_sample_once_a_repeat():
    result = make_result()
    table = fold_table(result)
    assert list(table.columns) == ["sample", "repeat", "fold"]
    assert not table.duplicated(["sample", "repeat"]).any()
    one = table[(table["sample"] == "s4") & (table["repeat"] == 1)]["fold"].item()
    assert one == result.folds[1, 4]


def test_loss_table_averages_over_repeats_by_sample_id():
    result = make_result()
    table = loss_table(result)
    assert table.loc["s7", "mean"] == pytest.approx(result.losses["mean"][:, 7].mean())


def test_fold_losses_weighted_by_size_give_the_mean_loss():
    result = make_result()
    table = fold_losses(result)
    for model, rows in table.groupby("model"):
        pooled = np.average(rows["loss"], weights=rows["n_test"])
        assert pooled == pytest.approx(result.losses[str(model)].mean())


def test_ladder_is_sorted_and_measured_against_the_first_model():
    result = make_result()
    table = ladder_table(result)
    assert list(table.index) == ["vae", "mean"]
    assert table.loc["mean", "skill"] == 0
    ratio = result.losses["vae"].mean() / result.losses["mean"].mean()
    assert table.loc["vae", "share"] == pytest.approx(ratio)
    between = np.std([s.mean() for s in result.seed_losses["vae"]], ddof=1)
    assert table.loc["vae", "seed_sd"] == pytest.approx(between)
    assert table.loc["vae", "n_seeds"] == 3
    assert np.isnan(table.loc["mean", "seed_sd"])


def test_ladder_weighs_folds_alike_whatever_their_size():
    result = make_result(n=13)
    sizes = np.unique(result.folds, return_counts=True)[1]
    assert len(set(sizes)) > 1
    by_fold = [
        result.losses["vae"][r][result.folds[r] == k].mean() for r in range(2) for k in range(3)
    ]
    assert ladder_table(result).loc["vae", "loss"] == pytest.approx(np.mean(by_fold))


def test_frame_keeps_model_and_metric_order_and_nan():
    frame = make_result().to_frame()
    assert list(frame.index) == ["mean", "vae"]
    assert list(frame.columns) == ["mse", "pearson"]
    assert np.isnan(frame.loc["mean", "pearson"])
    assert np.isfinite(frame.loc["vae", "pearson"])


def test_summary_is_strict_json():
    summary = json.loads(json.dumps(summary_dict(make_result()), allow_nan=False))
    assert summary["models"]["mean"]["pearson"] is None
    assert len(summary["models"]["vae"]["folds"]) == 6
    assert summary["warnings"][0]["text"] == "Only 3 donors."
    assert summary["info"] == {"kind": "regression", "metric": "mse", "n": 12, "sizes": [1, 2]}


def test_to_plain_turns_infinities_and_arrays_into_json_values():
    assert to_plain({1: np.array([1.0, np.inf]), "b": np.bool_(True)}) == {
        "1": [1.0, None],
        "b": True,
    }


def test_repr_names_design_and_losses():
    text = repr(make_result())
    assert "12 samples, 3 folds x 2" in text
    assert "vae 0." in text


def test_arrays_that_do_not_fit_are_refused():
    good = make_result()
    with pytest.raises(ValueError, match="losses of vae"):
        CrossvalResult(good.samples, good.folds, {"vae": np.ones(3)}, good.scores)
    with pytest.raises(ValueError, match="unique"):
        CrossvalResult(np.array(["a", "a"]), np.zeros((1, 2), int), {}, good.scores)
    with pytest.raises(ValueError, match="folds"):
        CrossvalResult(good.samples, good.folds[0], {}, good.scores)
    with pytest.raises(ValueError, match="severity"):
        Alarm("x", "loud", "text")
