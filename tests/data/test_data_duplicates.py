"""Samples that two files share, under one name or under two."""

from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest

from m1pipe import cross_validate
from m1pipe.config import (
    CrossvalConfig,
    EncoderConfig,
    HeadConfig,
    ModelConfig,
    SelectionConfig,
    TrainingConfig,
)
from m1pipe.data.duplicates import find_copies
from m1pipe.errors import InputError
from m1pipe.evaluation.design_checks import design_alarms
from m1pipe.evaluation.problem import make_problem
from m1pipe.io.reader import open_matrix
from m1pipe.workflow.training_run import make_plan, run_training

TINY = EncoderConfig(
    model=ModelConfig(n_latent=2, hidden=(4,)), training=TrainingConfig(epochs=2, validation=0.1)
)
QUICK = CrossvalConfig(folds=2, models=("mean",), head=HeadConfig(hidden=(4,), epochs=2))


@pytest.fixture
def files(expression: Callable[..., anndata.AnnData], tmp_path: Path) -> Path:
    """Labelled samples, and unlabelled ones of which four are labelled: two under other names."""
    labelled, unlabelled = expression(80, 60, seed=0), expression(100, 60, seed=1)
    unlabelled.X[:4] = labelled.X[:4] * (1 + 1e-6)
    names = unlabelled.obs_names.to_numpy(dtype=object)
    names[:2] = labelled.obs_names[:2]
    unlabelled.obs_names = names
    labelled.write_h5ad(tmp_path / "x.h5ad")
    unlabelled[:, ::-1].copy().write_h5ad(tmp_path / "u.h5ad")
    return tmp_path


def test_copies_are_found_by_id_and_by_row(files: Path) -> None:
    with open_matrix(files / "u.h5ad") as u, open_matrix(files / "x.h5ad") as x:
        found = find_copies(u, x)
        assert found.by_id.tolist() == [0, 1]
        assert found.by_row.tolist() == [2, 3]
        assert found.partner == {2: x.samples[2], 3: x.samples[3]}
        assert found.n_genes == 60
        assert find_copies(u, x, rows=np.arange(4, 100)).rows.size == 0


def test_only_ids_can_be_compared_across_units(files: Path) -> None:
    data = anndata.read_h5ad(files / "x.h5ad")
    data.uns = {"units": "zscore"}
    with open_matrix(files / "u.h5ad") as u:
        found = find_copies(u, open_matrix(data))
    assert (found.by_id.size, found.by_row.size, found.n_genes) == (2, 0, 0)


def test_counts_are_compared_with_levels_that_were_made_of_counts(
    expression: Callable[..., anndata.AnnData],
) -> None:
    x, u = (expression(n, 60, seed=n, counts=True) for n in (80, 100))
    u.X[2:4] = x.X[7:9]
    x.X = np.log2(1 + 1e4 * x.X / x.X.sum(axis=1, keepdims=True))
    x.uns = {"units": "log2_normalized1", "target_sum": 1e4}
    counts, levels = open_matrix(u), open_matrix(x)
    assert find_copies(counts, levels).by_row.tolist() == [2, 3]
    assert find_copies(levels, counts).by_row.tolist() == [7, 8]


def test_training_drops_them(files: Path) -> None:
    selection = SelectionConfig(drop_samples_of=str(files / "x.h5ad"), group="none")
    config = EncoderConfig(model=TINY.model, training=TINY.training, selection=selection)
    with open_matrix(files / "u.h5ad") as u:
        plan = make_plan(u, config)
    used = np.union1d(plan.rows, plan.held_out_rows)
    np.testing.assert_array_equal(used, np.arange(4, 100))
    with open_matrix(files / "x.h5ad") as x, pytest.raises(InputError, match="all are"):
        make_plan(x, config)


def test_a_comparison_counts_them(files: Path) -> None:
    run_training(files / "u.h5ad", files / "run", TINY)
    problem = make_problem(
        files / "x.h5ad",
        label="tissue",
        encoders={"vae": str(files / "run")},
        config=CrossvalConfig(folds=2, models=("prior",), head=QUICK.head),
    )
    found = {alarm.name: alarm.text for alarm in design_alarms(problem, "tissue")}
    assert "of the 80 labelled samples 2 trained it" in found["seen_by_encoder"]
    assert found["copies_seen_by_encoder"].startswith("vae: in its training file 2 samples are")


def test_early_stopping_on_test_rows_is_told(files: Path) -> None:
    training = TrainingConfig(epochs=2, validation=0.5)
    run_training(
        files / "x.h5ad", files / "own", EncoderConfig(model=TINY.model, training=training)
    )
    result = cross_validate(
        files / "x.h5ad",
        label="tissue",
        encoders={"vae": str(files / "own")},
        config=CrossvalConfig(folds=2, models=("prior",), head=QUICK.head),
    )
    text = next(alarm.text for alarm in result.alarms if alarm.name == "seen_by_encoder")
    assert "stopped its training" in text
    assert "Early stopping on test samples chooses the encoder that suits them" in text
    assert "--drop-samples-of" in text
