"""Encoder settings chosen within a training fold: a planted width wins, test rows have no part."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from m1pipe import cross_validate
from m1pipe.config import CrossvalConfig, EncoderConfig, HeadConfig, ModelConfig, TrainingConfig
from m1pipe.errors import InputError
from m1pipe.evaluation import inputs
from m1pipe.evaluation.cost import cost_text
from m1pipe.evaluation.design_checks import design_alarms
from m1pipe.evaluation.encoders import encoder_settings, resolve_encoders
from m1pipe.evaluation.inputs import encoder_rows, tune_encoder
from m1pipe.evaluation.problem import Problem, make_fold, make_problem
from m1pipe.reports.crossval_report import report_html
from m1pipe.settings import to_dict

pytestmark = pytest.mark.usefixtures("figures_undrawn")

NARROW = EncoderConfig(
    model=ModelConfig(n_latent=1, hidden=(), decoder_hidden=()),
    training=TrainingConfig(epochs=4, kl_warmup=0.0),
)
CONFIG = CrossvalConfig(
    folds=3,
    models=("mean", "ridge"),
    tune=True,
    tune_latents=(1, 6),
    tune_betas=(1.0,),
    head=HeadConfig(hidden=(16,), epochs=30, lr=0.01),
)
N, P = 120, 20
Data = tuple[pd.DataFrame, pd.DataFrame]


@pytest.fixture(scope="module")
def data() -> Data:
    """Six factors in the genes, and levels that need all of them."""
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(N, 6))
    X = Z @ rng.normal(size=(6, P)) + 0.3 * rng.normal(size=(N, P)) + 8
    Y = Z @ rng.normal(size=(6, 8)) + 0.2 * rng.normal(size=(N, 8))
    names = [f"s{i}" for i in range(N)]
    return (
        pd.DataFrame(X, index=names, columns=[f"g{j}" for j in range(P)]),
        pd.DataFrame(Y, index=names, columns=[f"t{j}" for j in range(8)]),
    )


def chosen(problem: Problem) -> dict[str, float]:
    split = make_fold(problem, 0, 1)
    X = problem.matrix.take(problem.rows)
    (row,) = problem.encoders
    _, facts = tune_encoder(row, problem, split, X, rows=encoder_rows(problem, split))
    return facts


def problem_of(data: Data) -> Problem:
    return make_problem(*data, encoders={"vae": NARROW}, config=CONFIG)


def test_a_width_that_holds_the_factors_wins_and_the_inner_rows_are_not_seen(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    train = inputs.train_in_fold

    def watched(row, matrix, rows, **named):  # type: ignore[no-untyped-def]
        seen.append(set(rows.tolist()))
        return train(row, matrix, rows, **named)

    monkeypatch.setattr(inputs, "train_in_fold", watched)
    problem = problem_of(data)
    found = chosen(problem)
    assert (found["n_latent"], found["n_tried"]) == (6, 2)
    split = make_fold(problem, 0, 1)
    assert len(seen) == 2
    for rows in seen:  # a fifth of the training rows judges, and no test row is there
        assert rows < set(split.train.tolist())
        assert len(rows) == split.train.size - round(0.2 * split.train.size)


def test_test_rows_have_no_part_in_the_choice(data: Data) -> None:
    problem = problem_of(data)
    test = make_fold(problem, 0, 1).test
    spoilt_x, spoilt_y = data[0].copy(), data[1].copy()
    rng = np.random.default_rng(9)
    spoilt_x.iloc[test] = rng.normal(50, 30, size=(test.size, P))
    spoilt_y.iloc[test] = rng.normal(-9, 30, size=(test.size, 8))
    spoilt = problem_of((spoilt_x, spoilt_y))
    np.testing.assert_array_equal(make_fold(spoilt, 0, 1).test, test)
    assert chosen(spoilt) == chosen(problem)  # the inner loss to the last bit


def test_the_result_and_the_page_say_what_was_tried_and_what_won(data: Data) -> None:
    result = cross_validate(*data, encoders={"vae": NARROW}, config=CONFIG)
    lines = [line for line in result.info["chosen"] if line["row"] == "vae"]
    assert [(line["fold"], line["n_latent"]) for line in lines] == [(0, 6), (1, 6), (2, 6)]
    assert all(line["head"]["n_tried"] == 9 for line in lines)
    runs = result.info["encoders"]["vae"]["runs"]
    assert [run["n_latent"] for run in runs] == [6, 6, 6]
    assert result.info["encoders"]["vae"]["n_latent"] == 6
    page = report_html(result, provenance={}, config=to_dict(CONFIG))
    assert "Settings that inner folds of the training samples chose for every model" in page
    assert "latent 6" in page and "among 9 settings" in page
    plain = cross_validate(*data, encoders={"vae": NARROW}, config=replace(CONFIG, tune=False))
    assert not any("n_latent" in line for line in plain.info["chosen"])
    assert result.losses["vae"].mean() < 0.8 * plain.losses["vae"].mean()


def test_what_is_tried() -> None:
    plain = replace(NARROW, model=replace(NARROW.model, beta=0.0))
    rows = resolve_encoders({"vae": NARROW, "ae": plain})
    config = replace(CONFIG, tune_latents=(1, 8), tune_betas=(0.1, 1.0))
    tried = [
        [(s.model.n_latent, s.model.beta) for s in encoder_settings(row, config)] for row in rows
    ]
    assert tried == [[(1, 1.0), (1, 0.1), (8, 0.1), (8, 1.0)], [(1, 0.0), (8, 0.0)]]
    assert encoder_settings(rows[0], replace(config, tune=False)) == [NARROW]


def test_the_cost_counts_what_is_trained_for_the_choice(data: Data) -> None:
    text = cost_text(problem_of(data))
    assert "vae: trains 3 encoders inside the folds, and 6 more to choose their settings" in text
    few = problem_of((data[0].iloc[:75], data[1].iloc[:75]))  # 50 training rows
    assert "more to choose" not in cost_text(few)
    assert chosen(few) == {}
    assert [a.name for a in design_alarms(few)] == ["nothing_tuned"]


def test_settings_that_cannot_be_tried_are_refused() -> None:
    with pytest.raises(InputError, match="tune_betas"):
        replace(CONFIG, tune_betas=(0.0,))
