"""What is settled before training: rows, validation, complete settings, values that fit."""

from collections.abc import Callable
from dataclasses import replace

import anndata
import numpy as np
import pytest
from sklearn.feature_selection import VarianceThreshold

from m1pipe.config import EncoderConfig, ModelConfig, TrainingConfig
from m1pipe.config.presets import preset_options
from m1pipe.encoder.plan import complete_config, plan_training
from m1pipe.errors import InputError
from m1pipe.models.vae import VAEModule
from m1pipe.settings import build

Make = Callable[..., anndata.AnnData]


def test_rows_are_split_without_overlap(data: anndata.AnnData) -> None:
    rows = np.arange(10, 110)
    plan = plan_training(data, EncoderConfig(), rows=rows)
    assert plan.held_out_rows.size == 10
    np.testing.assert_array_equal(np.sort(np.append(plan.rows, plan.held_out_rows)), rows)


def test_groups_stay_on_one_side(data: anndata.AnnData) -> None:
    donors = data.obs["donor"].to_numpy()
    plan = plan_training(data, EncoderConfig(), groups=donors)
    assert plan.held_out_rows.size > 0
    assert not set(donors[plan.rows]) & set(donors[plan.held_out_rows])


def test_validation_rows_may_be_named(data: anndata.AnnData) -> None:
    plan = plan_training(data, EncoderConfig(), validation=np.array([3, 5]))
    assert 3 not in plan.rows
    assert plan.rows.size == data.n_obs - 2
    np.testing.assert_array_equal(plan.held_out_rows, [3, 5])


def test_validation_may_be_another_file(data: anndata.AnnData, expression: Make) -> None:
    plan = plan_training(data, EncoderConfig(), validation=expression(20, seed=8))
    assert plan.rows.size == data.n_obs
    assert plan.held_out_rows.size == 20
    with pytest.raises(InputError, match=r"found 7 of them in both, 's0_0' first"):
        plan_training(data, EncoderConfig(), validation=data[:7].copy())


def test_no_validation_where_none_is_wanted(data: anndata.AnnData) -> None:
    plan = plan_training(data, build(EncoderConfig, {"validation": 0.0}))
    assert plan.held_out is None
    assert plan.rows.size == data.n_obs


def test_one_row_is_refused(data: anndata.AnnData) -> None:
    with pytest.raises(InputError, match="at least 2 training rows; found 1"):
        plan_training(data, EncoderConfig(), rows=np.array([4]))


@pytest.mark.parametrize(
    ("n_rows", "hidden", "epochs", "decay"),
    [(60, (), 100, 100.0), (1500, (512,), 84, 10.0), (150_000, (512,), 20, 0.1)],
)
def test_open_settings_are_completed(
    n_rows: int, hidden: tuple[int, ...], epochs: int, decay: float
) -> None:
    found = complete_config(EncoderConfig(), n_rows)
    assert found.model.hidden == hidden
    assert found.training.epochs == epochs
    assert found.training.weight_decay == pytest.approx(decay)
    assert found.training.kl_warmup == 0.0
    assert complete_config(found, 77) == found


def test_without_a_pca_start_nothing_decays_and_beta_warms_up() -> None:
    found = complete_config(build(EncoderConfig, {"linear_skip": False}), 1500)
    assert found.model.hidden == found.model.decoder_hidden == (128,)
    assert found.training.weight_decay == 0.0
    assert found.training.kl_warmup == 0.25


def test_typed_settings_stay() -> None:
    config = build(EncoderConfig, {"hidden": [8, 4], "decoder_hidden": [], "epochs": 3})
    found = complete_config(config, 5000)
    assert (found.model.hidden, found.model.decoder_hidden) == ((8, 4), ())
    assert found.training.epochs == 3
    back = complete_config(build(EncoderConfig, {"hidden": [8, 4]}), 5000)
    assert back.model.decoder_hidden == (4, 8)


@pytest.mark.parametrize(
    ("likelihood", "transform"), [("bernoulli", "standardize"), ("log_normal", "minmax")]
)
def test_likelihood_and_transform_must_go_together(likelihood: str, transform: str) -> None:
    config = build(EncoderConfig, {"likelihood": likelihood, "transform": transform})
    with pytest.raises(InputError, match=rf"{likelihood} expects levels as transform"):
        complete_config(config, 100)


@pytest.mark.parametrize(
    ("likelihood", "transform"),
    [
        ("gaussian", "standardize"),
        ("hurdle_gaussian", "standardize"),
        ("bernoulli", "minmax"),
        ("log_normal", "none"),
        ("negative_binomial", "none"),
        ("zero_inflated_negative_binomial", "none"),
    ],
)
def test_each_likelihood_chooses_its_transform(likelihood: str, transform: str) -> None:
    found = complete_config(build(EncoderConfig, {"likelihood": likelihood}), 100)
    assert found.model.transform == transform


def test_counts_are_refused_under_a_gaussian_only(expression: Make) -> None:
    counts = expression(30, counts=True)
    with pytest.raises(InputError, match=r"found counts.*log2p1"):
        plan_training(counts, EncoderConfig())
    counts.uns = {}
    with pytest.raises(InputError, match=r"whole numbers only.*log2p1"):
        plan_training(counts, EncoderConfig())
    minmax = build(EncoderConfig, preset_options("vaexprs"))
    assert plan_training(counts, minmax).rows.size == 27


def test_values_outside_a_likelihoods_range_are_refused(data: anndata.AnnData) -> None:
    unscaled = build(EncoderConfig, {"likelihood": "bernoulli", "transform": "none"})
    with pytest.raises(InputError, match=r"in \[0, 1\] for the likelihood bernoulli"):
        plan_training(data, unscaled)
    negative = data.copy()
    negative.X[0, 0] = -1
    log_normal = build(EncoderConfig, {"likelihood": "log_normal", "transform": "none"})
    with pytest.raises(InputError, match=r"in \[0, inf\] for the likelihood log_normal"):
        plan_training(negative, log_normal)


def test_sizes_are_those_of_the_network(data: anndata.AnnData) -> None:
    config = EncoderConfig(model=ModelConfig(n_latent=3, hidden=(7,)))
    plan = plan_training(data, config)
    built = VAEModule(data.n_vars, plan.config.model)
    assert plan.n_parameters + plan.n_held == sum(p.numel() for p in built.parameters())
    assert plan.n_held > 2 * 3 * data.n_vars
    assert plan.data_bytes == 4 * data.n_obs * data.n_vars
    assert not plan.streams
    small = replace(config, training=TrainingConfig(memory="20K"))
    assert plan_training(data, small).streams
    assert plan.n_steps == -(-plan.rows.size // 64)


def _uneven(data: anndata.AnnData, *, gaps: bool = False) -> anndata.AnnData:
    """The same samples, genes of very different spread."""
    other = data.copy()
    other.X = other.X * np.geomspace(0.05, 2, other.n_vars, dtype=np.float32)
    other.uns = {"units": "log2_intensity"}  # samples sum to nothing in particular now
    if gaps:
        other.X[np.random.default_rng(0).random(other.X.shape) < 0.1] = np.nan
    return other


@pytest.mark.parametrize("gaps", [False, True])
def test_genes_are_dropped_by_their_variance_among_training_rows(
    data: anndata.AnnData, gaps: bool
) -> None:
    uneven = _uneven(data, gaps=gaps)
    plan = plan_training(uneven, build(EncoderConfig, {"min_variance": 0.5}))
    reference = VarianceThreshold(0.5).fit(uneven.X[plan.rows].astype(np.float64))
    kept = reference.get_support()
    assert 0 < kept.sum() < data.n_vars
    np.testing.assert_array_equal(plan.source.recipe.genes, uneven.var_names[kept])
    np.testing.assert_array_equal(plan.source.take(plan.rows[:4]), uneven.X[plan.rows[:4]][:, kept])
    spoiled = uneven.copy()
    spoiled.X[plan.held_out_rows] *= 1.5
    again = plan_training(spoiled, build(EncoderConfig, {"min_variance": 0.5}))
    assert again.source.recipe.genes == plan.source.recipe.genes


def test_a_file_of_validation_samples_loses_the_same_genes(
    data: anndata.AnnData, expression: Make
) -> None:
    config = build(EncoderConfig, {"min_variance": 0.5})
    other = expression(20, seed=8)[:, ::-1].copy()
    other.uns = {"units": "log2_intensity"}
    plan = plan_training(_uneven(data), config, validation=other)
    assert plan.held_out is not None
    genes = list(plan.source.recipe.genes)
    np.testing.assert_array_equal(plan.held_out.take(np.arange(20)), other[:, genes].X)


def test_a_threshold_that_leaves_nothing_is_refused(data: anndata.AnnData) -> None:
    with pytest.raises(InputError, match="min_variance: expected genes that vary more than 1e"):
        plan_training(data, build(EncoderConfig, {"min_variance": 1e9}))
    with pytest.raises(InputError, match="min_variance: expected a number in"):
        build(EncoderConfig, {"min_variance": -1.0})
